//! Bigger candles out of small ones, by the exchange's own rule: pure, from rows to a row.
//!
//! - A small candle in which nobody traded is flat at the close before it. It gives neither open, high nor low: these
//!   come from the candles with trades, the open from the first of them. When nobody traded at all the big candle is
//!   flat at the close before it, too.
//!   That is so for prices of trades. A mark price, index or premium is computed whether somebody trades or not: there
//!   every row gives open, high and low.
//! - The close is the last row's. Volumes and trades add up.
//! - It opens on its own grid, also where a small candle opens off it, and closes a millisecond before its end, or with
//!   its last row where an outage cut that short.
//!
//! Sums are those of the exchange's decimals, not of the floating-point numbers read from them. What the exchange sends
//! has up to eight decimals, so each value is taken back to a whole number of 1e-8, and these are added. The sum of
//! base volumes is bit for bit the number that the exchange's own text of the sum would give; a quote volume with more
//! than 15 digits has lost its last ones already, and its sum is within 2 units in the last place.
//!
//! Live blocks and history go through the same [`Fold`], one row after the other from the first, so that they agree.

use std::cmp::Ordering;

use crate::columns::{
    CLOSE, CLOSE_TIME_MS, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, Row, TAKER_BUY_QUOTE_VOLUME, TAKER_BUY_VOLUME,
    TRADES, VOLUME,
};
use crate::error::Error;
use crate::interval::{Grid, Interval};
use crate::layout::RowState;
use crate::price::Price;

/// Units of a whole: sums are counted in 1e-8.
const UNITS: f64 = 1e8;
/// Decimals of a unit.
const DECIMALS: u32 = 8;
/// Up to this value a number of eight decimals is the nearest multiple of 1e-8 to the double read from it, and the
/// product with 1e8 is off by less than half: 2^51 units.
const DIRECT_MAX: f64 = 22_517_998.0;
/// Whole numbers up to here are doubles: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Below this the number of units fits 64 bits.
const SHORT_MAX: f64 = 9e10;

/// What is larger counts as this: so many fit into a sum that it cannot overflow.
const LARGEST: f64 = 1e20;

/// A big candle as far as its rows have come in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fold {
    /// Open, high, low and close so far; the first three mean something once somebody traded.
    prices: [f64; 4],
    close_time_ms: f64,
    /// Base, quote, and the takers' parts of both that bought.
    sums: [i128; 4],
    trades: f64,
    traded: bool,
    /// Whether only candles with trades give open, high and low.
    of_trades: bool,
    rows: usize,
    /// Of the rows, those that may still change.
    live: usize,
    /// Of the rows, those independently confirmed.
    verified: usize,
    holes: usize,
}

impl Fold {
    /// A candle without rows.
    #[must_use]
    pub const fn of(price: Price) -> Self {
        Self {
            prices: [f64::NAN; 4],
            close_time_ms: f64::NAN,
            sums: [0; 4],
            trades: 0.0,
            traded: false,
            of_trades: matches!(price, Price::Trade),
            rows: 0,
            live: 0,
            verified: 0,
            holes: 0,
        }
    }

    /// Takes in the next row.
    #[inline]
    pub fn push(&mut self, row: &Row, state: RowState) {
        if !self.of_trades || row[TRADES] > 0.0 || row[VOLUME] > 0.0 {
            if self.traded {
                self.prices[1] = self.prices[1].max(row[HIGH]);
                self.prices[2] = self.prices[2].min(row[LOW]);
            } else {
                self.prices = [row[OPEN], row[HIGH], row[LOW], row[CLOSE]];
                self.traded = true;
            }
            self.sums[0] += units(row[VOLUME]);
            self.sums[1] += quote_units(row[QUOTE_VOLUME]);
            self.sums[2] += units(row[TAKER_BUY_VOLUME]);
            self.sums[3] += quote_units(row[TAKER_BUY_QUOTE_VOLUME]);
            self.trades += row[TRADES];
        }
        self.prices[3] = row[CLOSE];
        self.close_time_ms = row[CLOSE_TIME_MS];
        self.rows += 1;
        self.live += usize::from(state == RowState::Live);
        self.verified += usize::from(state == RowState::Verified);
    }

    /// Takes in that the exchange has no row at the next place.
    #[inline]
    pub fn push_hole(&mut self) {
        self.holes += 1;
    }

    /// Returns the candle from `open_ms` to `end_ms`, exclusive. `whole` means that no more rows will come: it is
    /// closed once all rows are final, verified when all rows are and none is absent, a hole when all are absent. Until
    /// then it is live and ends on the grid. `None` as long as nothing is known of it.
    #[must_use]
    pub fn finish(&self, open_ms: i64, end_ms: i64, whole: bool) -> Option<(Row, RowState)> {
        if self.rows == 0 {
            return (whole && self.holes > 0).then_some(([f64::NAN; 12], RowState::Hole));
        }
        let state = match whole && self.live == 0 {
            false => RowState::Live,
            true if self.verified == self.rows && self.holes == 0 => RowState::Verified,
            true => RowState::Closed,
        };
        let close = self.prices[3];
        let [open, high, low, _] = if self.traded { self.prices } else { [close; 4] };
        let last_ms = (end_ms - 1) as f64;
        let [volume, quote_volume, taker_buy_volume, taker_buy_quote_volume] = self.sums.map(value);
        let close_time_ms = if state == RowState::Live { last_ms } else { self.close_time_ms.min(last_ms) };
        Some((
            [
                open_ms as f64,
                open,
                high,
                low,
                close,
                volume,
                close_time_ms,
                quote_volume,
                self.trades,
                taker_buy_volume,
                taker_buy_quote_volume,
                0.0,
            ],
            state,
        ))
    }
}

/// Returns a base volume in units of 1e-8: those of the shortest decimal that reads as the value.
#[inline]
fn units(value: f64) -> i128 {
    if value.abs() <= DIRECT_MAX { nearest(value * UNITS).into() } else { units_of_large(value) }
}

/// Of values this large not every multiple of 1e-8 is a double of its own: the fewest decimals that read as the value
/// are what the exchange sent. Beyond 16 digits the nearest multiple of 1e-8 has to do.
#[cold]
fn units_of_large(value: f64) -> i128 {
    let whole = value.trunc();
    let rest = value - whole;
    let mut scale = 1.0;
    for decimals in 0..=DECIMALS {
        let scaled = whole * scale + (rest * scale).round_ties_even();
        if scaled.abs() > EXACT_MAX {
            break;
        }
        // Both are exact, so the quotient is the double that this decimal reads as.
        if scaled / scale == value {
            return scaled as i128 * 10_i128.pow(DECIMALS - decimals);
        }
        scale *= 10.0;
    }
    quote_units(value)
}

/// Returns a quote volume in units of 1e-8, the nearest number of them: of its 17 and more digits a double has not kept
/// all anyway.
#[inline]
fn quote_units(value: f64) -> i128 {
    if value.abs() < SHORT_MAX {
        let whole = value as i64;
        let rest = value - whole as f64;
        (whole * UNITS as i64 + nearest(rest * UNITS)).into()
    } else {
        let value = value.clamp(-LARGEST, LARGEST);
        let whole = value.trunc();
        whole as i128 * UNITS as i128 + ((value - whole) * UNITS).round_ties_even() as i128
    }
}

/// Returns the whole number nearest to a value of at most 2^51: added to a number whose last bit counts ones, the value
/// is rounded to a whole one by the addition itself, and stands in the lower bits.
#[inline]
fn nearest(value: f64) -> i64 {
    const ONES: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    ((value + ONES).to_bits().wrapping_sub(ONES.to_bits())).cast_signed()
}

/// Returns the double nearest to so many units: what the decimal reads as.
#[inline]
fn value(units: i128) -> f64 {
    if units <= EXACT_MAX as i128 { units as f64 / UNITS } else { value_of_many(units.unsigned_abs()) }
}

/// 1e8 is 5^8 * 2^8. The quotient by 5^8 is taken with more bits than a double has and marked when it is not exact, so
/// that the one rounding is the conversion; powers of two do not round.
#[cold]
fn value_of_many(units: u128) -> f64 {
    const FIVES: u128 = 390_625;
    let shift = units.leading_zeros().min(100);
    let scaled = units << shift;
    let quotient = (scaled / FIVES) | u128::from(!scaled.is_multiple_of(FIVES));
    quotient as f64 * f64::from_bits((1023 - u64::from(shift) - 8) << 52)
}

/// Returns whether a candle that the exchange sent is the derived one: bit for bit, quote volumes within 2 units in the
/// last place. The last column has no meaning.
#[must_use]
pub fn agrees(sent: &Row, derived: &Row) -> bool {
    const ULPS_MAX: u64 = 2;
    (OPEN_TIME_MS..=TAKER_BUY_QUOTE_VOLUME).all(|column| {
        let (sent, derived) = (sent[column].to_bits(), derived[column].to_bits());
        let ulps = if matches!(column, QUOTE_VOLUME | TAKER_BUY_QUOTE_VOLUME) { ULPS_MAX } else { 0 };
        sent.abs_diff(derived) <= ulps
    })
}

/// What is derived from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derivation {
    source: Grid,
    target: Grid,
    price: Price,
}

impl Derivation {
    /// Returns the derivation of the candles of `target` from those of `source`.
    ///
    /// # Errors
    ///
    /// `Derivation` when candles of the source do not tile those of the target.
    pub fn new(source: Grid, target: Grid) -> Result<Self, Error> {
        const DAY_MS: i64 = 86_400_000;
        let tiles = match (source.duration_ms(), target.duration_ms()) {
            (None, _) => false,
            (Some(step_ms), _) if step_ms > DAY_MS => false,
            (Some(step_ms), Some(duration_ms)) => duration_ms > step_ms && duration_ms % step_ms == 0,
            (Some(step_ms), None) => target.zone().is_none_or(|zone| step_ms < DAY_MS && zone.fits(step_ms)),
        };
        if tiles {
            return Ok(Self { source, target, price: Price::Trade });
        }
        Err(Error::Derivation { source: source.name(), target: target.name() })
    }

    /// Returns the same derivation for candles of another price.
    #[must_use]
    pub fn with_price(self, price: Price) -> Self {
        Self { price, ..self }
    }

    /// Returns a big candle without rows.
    #[must_use]
    pub fn fold(&self) -> Fold {
        Fold::of(self.price)
    }

    /// Returns the grid of the big candles.
    #[must_use]
    pub fn target(&self) -> Grid {
        self.target
    }

    /// Returns the grid of the small candles.
    #[must_use]
    pub fn source(&self) -> Grid {
        self.source
    }

    /// Returns the big candle that a small one is part of.
    #[must_use]
    pub fn target_of(&self, source_index: u64) -> i64 {
        self.target.index_of(self.source.open_ms(source_index as i64))
    }

    /// Returns the small candles `[start, end)` of a big one.
    #[must_use]
    pub fn parts_of(&self, target_index: i64) -> (i64, i64) {
        (
            self.source.index_of(self.target.open_ms(target_index)),
            self.source.index_of(self.target.end_ms(target_index)),
        )
    }

    /// Returns the half-open range of time that rows cover, the first and the last of which open at these times.
    #[must_use]
    pub fn covered_ms(&self, first_open_ms: i64, last_open_ms: i64) -> (i64, i64) {
        let candle_index_of = |open_ms| self.source.index_of(open_ms);
        (self.source.open_ms(candle_index_of(first_open_ms)), self.source.end_ms(candle_index_of(last_open_ms)))
    }

    /// Returns how many small candles the longest big one has.
    #[must_use]
    pub fn parts_max(&self) -> usize {
        const HOUR_MS: i64 = 3_600_000;
        let longest_ms = self.target.interval().nominal_ms() + if self.target.zone().is_some() { HOUR_MS } else { 0 };
        (longest_ms / self.source.interval().nominal_ms()) as usize
    }

    /// Derives from final rows, ascending by open time; one with a close of NaN counts as none. `known_ms` is the
    /// half-open range of which they are all that exists: big candles that are not wholly within are left out, and so
    /// are those without a row.
    ///
    /// # Errors
    ///
    /// `Unsorted` with the first row that does not open after the one before it.
    pub fn rows<'a>(&self, rows: impl Iterator<Item = &'a Row>, known_ms: (i64, i64)) -> Result<Vec<Row>, Error> {
        let (known_start_ms, known_end_ms) = known_ms;
        let mut derived = Vec::new();
        let mut fold = self.fold();
        let (mut open_ms, mut end_ms) = (i64::MIN, i64::MIN);
        let mut previous_ms = f64::NEG_INFINITY;
        let finish = |fold: &Fold, open_ms: i64, end_ms: i64, derived: &mut Vec<Row>| {
            if open_ms >= known_start_ms && end_ms <= known_end_ms {
                derived.extend(fold.finish(open_ms, end_ms, true).map(|(row, _)| row));
            }
        };
        for (place, row) in rows.enumerate() {
            let row_ms = row[OPEN_TIME_MS];
            if row_ms.partial_cmp(&previous_ms) != Some(Ordering::Greater) {
                return Err(Error::Unsorted { row: place });
            }
            previous_ms = row_ms;
            if row_ms as i64 >= end_ms {
                finish(&fold, open_ms, end_ms, &mut derived);
                fold = self.fold();
                let candle_index = self.target.index_of(row_ms as i64);
                (open_ms, end_ms) = (self.target.open_ms(candle_index), self.target.end_ms(candle_index));
            }
            if !row[CLOSE].is_nan() {
                fold.push(row, RowState::Closed);
            }
        }
        finish(&fold, open_ms, end_ms, &mut derived);
        Ok(derived)
    }
}

impl From<Interval> for Grid {
    fn from(interval: Interval) -> Self {
        Self::new(interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Eight decimals added up the slow way: digits, then the standard library's parser.
    fn decimal_sum(texts: &[String]) -> f64 {
        let units: i128 = texts
            .iter()
            .map(|text| {
                let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
                format!("{whole}{decimals:0<8}").parse::<i128>().expect("digits")
            })
            .sum();
        format!("{}.{:08}", units / 100_000_000, units % 100_000_000).parse().expect("a number")
    }

    fn row(minute: i64, prices: [f64; 4], volume: f64, trades: f64) -> Row {
        let open_ms = minute * 60_000;
        let [open, high, low, close] = prices;
        let quote = volume * close;
        let close_ms = (open_ms + 59_999) as f64;
        [open_ms as f64, open, high, low, close, volume, close_ms, quote, trades, volume / 2.0, quote / 2.0, 0.0]
    }

    fn folded(rows: &[(Row, RowState)], whole: bool) -> Option<(Row, RowState)> {
        let mut fold = Fold::of(Price::Trade);
        for (row, state) in rows {
            match state {
                RowState::Hole => fold.push_hole(),
                state => fold.push(row, *state),
            }
        }
        fold.finish(0, 300_000, whole)
    }

    #[test]
    fn flat_rows_give_no_open_high_or_low() {
        let rows = [
            row(0, [9.0; 4], 0.0, 0.0),
            row(1, [5.0, 6.0, 4.0, 5.5], 1.5, 3.0),
            row(2, [5.5; 4], 0.0, 0.0),
            row(3, [5.0, 5.0, 3.5, 4.0], 0.25, 1.0),
            row(4, [4.0; 4], 0.0, 0.0),
        ];
        let (derived, state) = folded(&rows.map(|row| (row, RowState::Closed)), true).expect("rows");
        assert_eq!(derived[..7], [0.0, 5.0, 6.0, 3.5, 4.0, 1.75, 299_999.0]);
        assert_eq!((derived[TRADES], state), (4.0, RowState::Closed));
        let quiet = [row(0, [9.0; 4], 0.0, 0.0), row(1, [9.0; 4], 0.0, 0.0)];
        let (derived, _) = folded(&quiet.map(|row| (row, RowState::Closed)), true).expect("rows");
        assert_eq!(derived[..6], [0.0, 9.0, 9.0, 9.0, 9.0, 0.0]);
    }

    #[test]
    fn every_row_of_another_price_gives_open_high_and_low() {
        let rows = [
            row(0, [9.0; 4], 0.0, 0.0),
            row(1, [5.0, 6.0, 4.0, 5.5], 0.0, 60.0),
            row(2, [-3.0, -2.0, -3.5, -2.5], 0.0, 0.0),
        ];
        for price in [Price::Mark, Price::Index, Price::Premium] {
            let mut fold = Fold::of(price);
            for row in &rows {
                fold.push(row, RowState::Closed);
            }
            let (derived, _) = fold.finish(0, 180_000, true).expect("rows");
            assert_eq!(derived[..9], [0.0, 9.0, 9.0, -3.5, -2.5, 0.0, 179_999.0, 0.0, 60.0]);
        }
    }

    #[test]
    fn states_follow_from_those_of_the_rows() {
        use RowState::{Closed, Hole, Live, Verified};
        let of = |states: &[RowState], whole: bool| {
            let rows: Vec<_> = states.iter().map(|&state| (row(0, [1.0; 4], 1.0, 1.0), state)).collect();
            folded(&rows, whole).map(|(_, state)| state)
        };
        assert_eq!(of(&[Verified, Verified], true), Some(Verified));
        assert_eq!(of(&[Verified, Closed], true), Some(Closed));
        assert_eq!(of(&[Verified, Hole], true), Some(Closed));
        assert_eq!(of(&[Closed, Live], true), Some(Live));
        assert_eq!(of(&[Closed, Closed], false), Some(Live));
        assert_eq!(of(&[Hole, Hole], true), Some(Hole));
        assert_eq!(of(&[Hole], false), None);
        assert_eq!(of(&[], true), None);
    }

    #[test]
    fn quote_volumes_agree_within_two_units_in_the_last_place() {
        let derived = row(0, [1.0, 2.0, 1.0, 1.5], 3.0, 2.0);
        let moved = |column: usize, ulps: u64| {
            let mut sent = derived;
            sent[column] = f64::from_bits(sent[column].to_bits() + ulps);
            agrees(&sent, &derived)
        };
        assert!(moved(QUOTE_VOLUME, 2) && moved(TAKER_BUY_QUOTE_VOLUME, 2) && !moved(QUOTE_VOLUME, 3));
        assert!(!moved(VOLUME, 1) && !moved(CLOSE, 1) && !moved(CLOSE_TIME_MS, 1) && moved(11, 9));
    }

    #[test]
    fn close_times() {
        let mut cut = row(3, [1.0; 4], 1.0, 1.0);
        cut[CLOSE_TIME_MS] = 200_123.0;
        let closed = folded(&[(cut, RowState::Closed), (cut, RowState::Hole)], true).expect("a row").0;
        assert_eq!(closed[CLOSE_TIME_MS], 200_123.0, "an outage cut it short");
        let live = folded(&[(cut, RowState::Closed)], false).expect("a row").0;
        assert_eq!(live[CLOSE_TIME_MS], 299_999.0, "it may go on");
        // After an outage rows lie off the grid for a while, and reach beyond the end.
        cut[CLOSE_TIME_MS] = 314_788.0;
        assert_eq!(folded(&[(cut, RowState::Closed)], true).expect("a row").0[CLOSE_TIME_MS], 299_999.0);
    }

    #[test]
    fn what_can_be_derived() {
        let of = |source: &str, target: &str| {
            let grid = |name| Grid::parse(name).expect("a grid");
            Derivation::new(grid(source), grid(target))
        };
        for target in ["3m", "5m", "1h", "8h", "1d", "3d", "1w", "1M", "1d@Asia/Shanghai", "1d@Asia/Kathmandu"] {
            assert!(of("1m", target).is_ok(), "{target}");
        }
        for (source, target) in [
            ("1m", "1m"),
            ("5m", "3m"),
            ("6h", "8h"),
            ("1h", "1m"),
            ("3d", "1w"),
            ("1w", "1M"),
            ("1h", "1d@Asia/Kolkata"),
        ] {
            let error = Error::Derivation { source: source.into(), target: target.into() };
            assert_eq!(of(source, target).err(), Some(error));
        }
        assert_eq!(of("1m", "1M").map(|derivation| derivation.parts_max()), Ok(44_640));
        assert_eq!(of("1h", "1d@Europe/London").map(|derivation| derivation.parts_max()), Ok(25));
    }

    #[test]
    fn candles_that_are_not_wholly_known_are_left_out() {
        let minutes: Vec<Row> = (3..17).map(|minute| row(minute, [1.0; 4], 1.0, 1.0)).collect();
        let derivation = Derivation::new(Interval::Minute1.into(), Interval::Minute5.into()).expect("it tiles");
        let opens = |known_ms| -> Vec<f64> {
            let rows = derivation.rows(minutes.iter(), known_ms).expect("sorted");
            rows.iter().map(|row| row[OPEN_TIME_MS] / 60_000.0).collect()
        };
        assert_eq!(opens((180_000, 1_020_000)), [5.0, 10.0]);
        assert_eq!(opens((0, 1_200_000)), [0.0, 5.0, 10.0, 15.0], "before the first row nothing was");
        assert_eq!(
            derivation.rows([minutes[1], minutes[1]].iter(), (0, 1)),
            Err(Error::Unsorted { row: 1 }),
            "twice the same"
        );
    }

    #[test]
    fn large_sums_are_rounded_once() {
        for units in [(1 << 53) + 1, 123_456_789_012_345_678, 10_i128.pow(24) + 1, i128::from(u64::MAX) * 1_441] {
            let text = format!("{}.{:08}", units / 100_000_000, units % 100_000_000);
            assert_eq!(value(units), text.parse::<f64>().expect("a number"), "{text}");
        }
    }

    proptest! {
        /// Texts of up to 15 digits, up to 8 of them decimals: what volumes are. Small ones as of BTC, huge as of SHIB.
        #[test]
        fn volumes_add_up_as_decimals_do(
            decimals in 0..=8_usize,
            digits in prop::collection::vec((1..=15_u32, any::<u64>()), 1..200),
        ) {
            let texts: Vec<String> = digits
                .iter()
                .map(|&(count, number)| {
                    let text = format!("{:0>9}", number % 10_u64.pow(count));
                    let (whole, rest) = text.split_at(text.len() - decimals);
                    format!("{whole}.{rest}")
                })
                .collect();
            let sum: i128 = texts.iter().map(|text| units(text.parse().expect("a number"))).sum();
            prop_assert_eq!(value(sum).to_bits(), decimal_sum(&texts).to_bits());
        }

        /// Quote volumes have up to 18 digits; what was lost in reading them cannot come back.
        #[test]
        fn quote_volumes_are_within_two_units_in_the_last_place(numbers in prop::collection::vec(any::<u64>(), 1..2000)) {
            let texts: Vec<String> = numbers
                .iter()
                .map(|number| format!("{}.{:08}", (number >> 30) % 10_000_000_000, number % 100_000_000))
                .collect();
            let sum: i128 = texts.iter().map(|text| quote_units(text.parse().expect("a number"))).sum();
            prop_assert!(value(sum).to_bits().abs_diff(decimal_sum(&texts).to_bits()) <= 2);
        }

        #[test]
        fn sums_round_as_their_text_does(units in 0..10_i128.pow(30)) {
            let text = format!("{}.{:08}", units / 100_000_000, units % 100_000_000);
            prop_assert_eq!(value(units).to_bits(), text.parse::<f64>().expect("a number").to_bits());
        }

        #[test]
        fn any_value_is_taken(value in any::<f64>()) {
            let _ = (units(value), quote_units(value));
        }
    }
}
