//! What the prices of candles are: of trades, or one of the three that the futures exchange computes.

/// What the prices of candles are. A series is one of a market, a price, a symbol and an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Price {
    /// The prices of trades.
    #[default]
    Trade,
    /// The mark price, by which the exchange liquidates.
    Mark,
    /// The index price of a pair: other exchanges' prices, weighed.
    Index,
    /// The premium of a contract over its index, a part of 1: it may be negative.
    Premium,
}

impl Price {
    /// Every price.
    pub const ALL: [Self; 4] = [Self::Trade, Self::Mark, Self::Index, Self::Premium];

    /// Returns the number stored in a block.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Trade => 0,
            Self::Mark => 1,
            Self::Index => 2,
            Self::Premium => 3,
        }
    }

    /// Returns the price of a stored number.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|price| u64::from(price.code()) == code)
    }

    /// Returns the name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Mark => "mark",
            Self::Index => "index",
            Self::Premium => "premium",
        }
    }

    /// Returns the price of that name, lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|price| price.as_str() == text)
    }
}
