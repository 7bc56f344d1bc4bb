//! The three markets of the exchange.

/// A market. The same symbol text names different instruments on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Market {
    /// Spot.
    Spot,
    /// USD-margined futures.
    Um,
    /// Coin-margined futures; its volume columns are contracts and base coin.
    Cm,
}

impl Market {
    /// Every market.
    pub const ALL: [Self; 3] = [Self::Spot, Self::Um, Self::Cm];

    /// Returns the number stored in a block.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Spot => 1,
            Self::Um => 2,
            Self::Cm => 3,
        }
    }

    /// Returns the market of a stored number.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Spot),
            2 => Some(Self::Um),
            3 => Some(Self::Cm),
            _ => None,
        }
    }

    /// Returns the number by which events tell the futures families apart.
    #[must_use]
    pub fn family(self) -> Option<i64> {
        match self {
            Self::Spot => None,
            Self::Um => Some(1),
            Self::Cm => Some(2),
        }
    }

    /// Returns the name in upper case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "SPOT",
            Self::Um => "UM",
            Self::Cm => "CM",
        }
    }

    /// Returns the market of that name, upper case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|market| market.as_str() == text)
    }
}
