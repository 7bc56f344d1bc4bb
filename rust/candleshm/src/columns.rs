//! The twelve columns of a candle, their order and what a row must satisfy to be believed.
//!
//! The order is the exchange's own. The volume columns mean what the market sends: base and quote asset on SPOT and UM,
//! contracts and base coin on CM.

use std::error::Error;
use std::fmt;

use crate::price::Price;

/// Columns of a row.
pub const COLUMNS: usize = 12;

/// Open time, milliseconds since the epoch (UTC), as sent: it may lie off the interval's grid.
pub const OPEN_TIME_MS: usize = 0;
/// Open price.
pub const OPEN: usize = 1;
/// High price.
pub const HIGH: usize = 2;
/// Low price.
pub const LOW: usize = 3;
/// Close price.
pub const CLOSE: usize = 4;
/// Volume: base asset (SPOT, UM) or contracts (CM).
pub const VOLUME: usize = 5;
/// Close time, milliseconds since the epoch (UTC), as sent: an outage cuts it short.
pub const CLOSE_TIME_MS: usize = 6;
/// Volume in quote asset (SPOT, UM) or in base coin (CM).
pub const QUOTE_VOLUME: usize = 7;
/// Number of trades.
pub const TRADES: usize = 8;
/// The takers' part of `VOLUME` that bought.
pub const TAKER_BUY_VOLUME: usize = 9;
/// The takers' part of `QUOTE_VOLUME` that bought.
pub const TAKER_BUY_QUOTE_VOLUME: usize = 10;
/// The exchange's unused column: 0 in every row we hold.
pub const IGNORE: usize = 11;

/// Column names, in order.
pub const NAMES: [&str; COLUMNS] = [
    "open_time_ms",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time_ms",
    "quote_volume",
    "trades",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
];

/// One candle.
pub type Row = [f64; COLUMNS];

/// The last open time that is believed: the end of the year 9999. Microseconds taken for milliseconds lie above it.
pub const OPEN_TIME_MS_MAX: i64 = 253_402_300_799_999;

/// Volumes and the number of trades: what cannot be negative.
const AMOUNTS: [usize; 5] = [VOLUME, QUOTE_VOLUME, TRADES, TAKER_BUY_VOLUME, TAKER_BUY_QUOTE_VOLUME];
/// What cannot be negative unless it is a premium.
const PRICES: [usize; 4] = [OPEN, HIGH, LOW, CLOSE];

/// Why a row cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implausible {
    /// A value is NaN or infinite.
    NonFinite {
        /// Its column.
        column: usize,
    },
    /// The high lies below the low.
    HighBelowLow,
    /// A price, a volume or the number of trades is negative.
    Negative {
        /// Its column.
        column: usize,
    },
    /// The open time is no whole number of milliseconds from 1 to [`OPEN_TIME_MS_MAX`].
    OpenTime,
    /// The candle closes before it opens.
    CloseTime,
}

impl fmt::Display for Implausible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NonFinite { column } => write!(f, "{} is not finite", NAMES[column]),
            Self::HighBelowLow => f.write_str("high is below low"),
            Self::Negative { column } => write!(f, "{} is negative", NAMES[column]),
            Self::OpenTime => write!(f, "open_time_ms is not an integer from 1 to {OPEN_TIME_MS_MAX}"),
            Self::CloseTime => f.write_str("close_time_ms is before open_time_ms"),
        }
    }
}

impl Error for Implausible {}

/// Returns whether a row can be true.
///
/// Only what no real row does is refused. Real rows have close times cut short by outages (even equal to the open
/// time), open times off the grid, no trades at all, and prices that make no sense to a model: all of these pass.
///
/// # Errors
///
/// The first reason found, in the order of the variants of [`Implausible`].
#[expect(clippy::needless_bitwise_bool, reason = "lazy operators would be branches")]
pub fn plausible(row: &Row, price: Price) -> Result<(), Implausible> {
    let open_ms = row[OPEN_TIME_MS];
    // Every row of every response comes through here, and almost all pass: no branches, so that it is a few vector
    // instructions. The reason is looked for afterwards.
    let finite = row.iter().fold(true, |all, value| all & value.is_finite());
    let lowest = if price == Price::Premium { f64::NEG_INFINITY } else { 0.0 };
    let prices = PRICES.iter().fold(true, |all, &column| all & (row[column] >= lowest));
    let amounts = AMOUNTS.iter().fold(true, |all, &column| all & (row[column] >= 0.0));
    let open_fits = ((open_ms as i64) as f64 == open_ms) & (open_ms >= 1.0) & (open_ms <= OPEN_TIME_MS_MAX as f64);
    if finite & prices & amounts & open_fits & (row[HIGH] >= row[LOW]) & (row[CLOSE_TIME_MS] >= open_ms) {
        return Ok(());
    }
    Err(reason(row, lowest, open_fits))
}

#[cold]
fn reason(row: &Row, lowest: f64, open_fits: bool) -> Implausible {
    if let Some(column) = row.iter().position(|value| !value.is_finite()) {
        Implausible::NonFinite { column }
    } else if row[HIGH] < row[LOW] {
        Implausible::HighBelowLow
    } else if let Some(&column) = PRICES.iter().find(|&&column| row[column] < lowest) {
        Implausible::Negative { column }
    } else if let Some(&column) = AMOUNTS.iter().find(|&&column| row[column] < 0.0) {
        Implausible::Negative { column }
    } else if open_fits {
        Implausible::CloseTime
    } else {
        Implausible::OpenTime
    }
}

/// Returns whether two rows hold the same twelve bit patterns: 0 differs from -0, a NaN equals itself.
#[must_use]
pub fn bits_equal(a: &Row, b: &Row) -> bool {
    // Without an early exit the comparison compiles to a few vector instructions.
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a.to_bits() ^ b.to_bits())) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A captured SPOT row: BTCUSDT 8h, opened 2025-01-01T00:00.
    const GOOD: Row = [
        1_735_689_600_000.0,
        93_576.0,
        94_509.42,
        93_489.03,
        93_684.1,
        2_799.159_66,
        1_735_718_399_999.0,
        262_732_620.818_141_3,
        388_940.0,
        1_476.275_59,
        138_586_354.318_903,
        0.0,
    ];

    fn with(column: usize, value: f64) -> Row {
        let mut row = GOOD;
        row[column] = value;
        row
    }

    #[test]
    fn names_stand_at_their_columns() {
        assert_eq!(NAMES[OPEN_TIME_MS], "open_time_ms");
        assert_eq!(NAMES[CLOSE], "close");
        assert_eq!(NAMES[CLOSE_TIME_MS], "close_time_ms");
        assert_eq!(NAMES[TRADES], "trades");
        assert_eq!(NAMES[IGNORE], "ignore");
    }

    #[test]
    fn ordinary_row() {
        assert_eq!(plausible(&GOOD, Price::Trade), Ok(()));
    }

    #[test]
    fn odd_rows_that_really_happened() {
        // Captured SPOT rows of BTCUSDT: 1h closed by an outage at 12:39:41.646, and 2h that closed when it opened.
        let cut = [
            1_679_659_200_000.0,
            28_080.0,
            28_080.0,
            28_080.0,
            28_080.0,
            0.0,
            1_679_661_581_646.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ];
        let flat = [
            1_504_713_600_000.0,
            4_619.43,
            4_619.43,
            4_619.43,
            4_619.43,
            0.0,
            1_504_713_600_000.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ];
        assert_eq!(plausible(&cut, Price::Trade), Ok(()));
        assert_eq!(plausible(&flat, Price::Trade), Ok(()));
        // 1m rows opened at seconds like :14.789 after the outage of 2018-02-08.
        assert_eq!(plausible(&with(OPEN_TIME_MS, 1_518_170_414_789.0), Price::Trade), Ok(()));
    }

    #[test]
    fn non_finite_in_any_column() {
        for column in 0..COLUMNS {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert_eq!(plausible(&with(column, value), Price::Trade), Err(Implausible::NonFinite { column }));
            }
        }
    }

    #[test]
    fn negative_amounts() {
        for column in PRICES.into_iter().chain(AMOUNTS) {
            let mut row = with(column, -f64::MIN_POSITIVE);
            // The low follows a negative high, or the row would be refused for their order.
            row[LOW] = row[LOW].min(row[HIGH]);
            for price in [Price::Trade, Price::Mark, Price::Index] {
                assert_eq!(plausible(&row, price), Err(Implausible::Negative { column }));
            }
            // A contract may stand below its index; no volume is below nothing.
            let premium = if PRICES.contains(&column) { Ok(()) } else { Err(Implausible::Negative { column }) };
            assert_eq!(plausible(&row, Price::Premium), premium);
        }
    }

    #[test]
    fn negative_zero_is_not_negative() {
        let mut row = GOOD;
        for column in PRICES.into_iter().chain(AMOUNTS) {
            row[column] = -0.0;
        }
        assert_eq!(plausible(&row, Price::Trade), Ok(()));
    }

    #[test]
    fn high_below_low() {
        assert_eq!(plausible(&with(HIGH, 93_489.02), Price::Trade), Err(Implausible::HighBelowLow));
        assert_eq!(plausible(&with(HIGH, 93_489.03), Price::Trade), Ok(()));
    }

    #[test]
    fn open_time_bounds() {
        let last = OPEN_TIME_MS_MAX as f64;
        for open_ms in [0.0, -0.0, -1.0, 0.5, 1_735_689_600_000.5, last + 1.0, 1_735_689_600_000_000.0] {
            let mut row = with(OPEN_TIME_MS, open_ms);
            row[CLOSE_TIME_MS] = open_ms + 1.0;
            assert_eq!(plausible(&row, Price::Trade), Err(Implausible::OpenTime), "{open_ms}");
        }
        for open_ms in [1.0, last] {
            let mut row = with(OPEN_TIME_MS, open_ms);
            row[CLOSE_TIME_MS] = open_ms;
            assert_eq!(plausible(&row, Price::Trade), Ok(()), "{open_ms}");
        }
    }

    #[test]
    fn close_time_before_open_time() {
        assert_eq!(plausible(&with(CLOSE_TIME_MS, 1_735_689_599_999.0), Price::Trade), Err(Implausible::CloseTime));
    }

    #[test]
    fn reasons_name_the_column() {
        assert_eq!(Implausible::Negative { column: VOLUME }.to_string(), "volume is negative");
        assert_eq!(Implausible::NonFinite { column: CLOSE }.to_string(), "close is not finite");
    }

    proptest! {
        #[test]
        fn bits_equal_is_equality_of_all_bits(
            a in prop::array::uniform12(any::<u64>()),
            column in 0..COLUMNS,
            bit in 0..64,
        ) {
            let row = a.map(f64::from_bits);
            prop_assert!(bits_equal(&row, &a.map(f64::from_bits)));
            let mut other = a;
            other[column] ^= 1_u64 << bit;
            prop_assert!(!bits_equal(&row, &other.map(f64::from_bits)));
        }
    }
}
