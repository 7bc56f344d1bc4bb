//! Intervals and their grids: the candle index of an open time, and back.
//!
//! Days of a time zone take their rules from [`crate::zone`]. The simulated exchange of the tests computes its grids
//! independently, so that the two can disagree.
//!
//! A [`Grid`] numbers the candles of an interval: candle `k` covers the half-open range from `open_ms(k)` to
//! `end_ms(k)`, and the ranges cover all time without overlap, also before 1970. All days are UTC.
//!
//! - Up to `1d` a candle opens at a multiple of its length since the epoch.
//! - `1w` opens on Mondays; week 0 began on 1969-12-29.
//! - `1M` opens on the first of a month; month 0 is January 1970.
//! - `3d` has no grid of its own: the exchange anchors it at the symbol's first trading day, so a grid keeps that
//!   day's number modulo 3 as its phase.
//! - Days of a time zone, as `1d@Asia/Shanghai`, are no interval of the exchange, only of derived candles: candle `k`
//!   is the day with that number in the zone, and opens when that day begins.

use std::fmt;

use crate::zone::Zone;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The length of a candle, as the exchange names it. The discriminants are part of the shared-memory format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Interval {
    Second1 = 1,
    Minute1 = 2,
    Minute3 = 3,
    Minute5 = 4,
    Minute15 = 5,
    Minute30 = 6,
    Hour1 = 7,
    Hour2 = 8,
    Hour4 = 9,
    Hour6 = 10,
    Hour8 = 11,
    Hour12 = 12,
    Day1 = 13,
    Day3 = 14,
    Week1 = 15,
    Month1 = 16,
}

impl Interval {
    /// Every interval, shortest first: the one with code `c` stands at `c - 1`.
    pub const ALL: [Self; 16] = [
        Self::Second1,
        Self::Minute1,
        Self::Minute3,
        Self::Minute5,
        Self::Minute15,
        Self::Minute30,
        Self::Hour1,
        Self::Hour2,
        Self::Hour4,
        Self::Hour6,
        Self::Hour8,
        Self::Hour12,
        Self::Day1,
        Self::Day3,
        Self::Week1,
        Self::Month1,
    ];

    /// Returns the interval of that name. Case matters: `1m` is a minute, `1M` a month.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interval| interval.as_str() == name)
    }

    /// Returns the exchange's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second1 => "1s",
            Self::Minute1 => "1m",
            Self::Minute3 => "3m",
            Self::Minute5 => "5m",
            Self::Minute15 => "15m",
            Self::Minute30 => "30m",
            Self::Hour1 => "1h",
            Self::Hour2 => "2h",
            Self::Hour4 => "4h",
            Self::Hour6 => "6h",
            Self::Hour8 => "8h",
            Self::Hour12 => "12h",
            Self::Day1 => "1d",
            Self::Day3 => "3d",
            Self::Week1 => "1w",
            Self::Month1 => "1M",
        }
    }

    /// Returns the number that stands for the interval in a block, 1 to 16.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Returns the interval of that code, `None` for a number no interval has.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|interval| interval.code() == code)
    }

    /// Returns the length of every candle, `None` for `1M`, whose candles differ.
    #[must_use]
    pub const fn duration_ms(self) -> Option<i64> {
        Some(match self {
            Self::Second1 => SECOND_MS,
            Self::Minute1 => MINUTE_MS,
            Self::Minute3 => 3 * MINUTE_MS,
            Self::Minute5 => 5 * MINUTE_MS,
            Self::Minute15 => 15 * MINUTE_MS,
            Self::Minute30 => 30 * MINUTE_MS,
            Self::Hour1 => HOUR_MS,
            Self::Hour2 => 2 * HOUR_MS,
            Self::Hour4 => 4 * HOUR_MS,
            Self::Hour6 => 6 * HOUR_MS,
            Self::Hour8 => 8 * HOUR_MS,
            Self::Hour12 => 12 * HOUR_MS,
            Self::Day1 => DAY_MS,
            Self::Day3 => 3 * DAY_MS,
            Self::Week1 => 7 * DAY_MS,
            Self::Month1 => return None,
        })
    }

    /// Returns a lower bound of a candle's length: [`Self::duration_ms`], and 28 days for `1M`.
    #[must_use]
    pub const fn shortest_ms(self) -> i64 {
        match self.duration_ms() {
            Some(duration_ms) => duration_ms,
            None => 28 * DAY_MS,
        }
    }

    /// Returns an upper bound of a candle's length: [`Self::duration_ms`], and 31 days for `1M`.
    #[must_use]
    pub const fn nominal_ms(self) -> i64 {
        match self.duration_ms() {
            Some(duration_ms) => duration_ms,
            None => 31 * DAY_MS,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The grid that numbers the candles of a series.
///
/// All functions are total. Within 100,000 years of the epoch they are exact, beyond that they may saturate, so that
/// a number read from a damaged block cannot panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    interval: Interval,
    phase_days: u8,
    zone: Option<Zone>,
}

impl Grid {
    /// Returns the grid with phase 0: the only one there is, except for `3d`.
    #[must_use]
    pub const fn new(interval: Interval) -> Self {
        Self { interval, phase_days: 0, zone: None }
    }

    /// Returns the grid of the days of a time zone.
    #[must_use]
    pub const fn days_in(zone: Zone) -> Self {
        Self { interval: Interval::Day1, phase_days: 0, zone: Some(zone) }
    }

    /// Returns the grid of that name: an interval's, or `1d@` and a time zone.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once('@') {
            None => Interval::parse(name).map(Self::new),
            Some(("1d", zone)) => Zone::find(zone).map(Self::days_in),
            Some(_) => None,
        }
    }

    /// Returns the name that [`Self::parse`] reads.
    #[must_use]
    pub fn name(self) -> String {
        match self.zone {
            None => self.interval.as_str().to_owned(),
            Some(zone) => format!("{}@{}", self.interval, zone.name()),
        }
    }

    /// Returns the grid of a series whose first candle, or any other, opens at `first_open_ms`.
    #[must_use]
    pub const fn anchored(interval: Interval, first_open_ms: i64) -> Self {
        Self::with_phase(interval, first_open_ms.div_euclid(DAY_MS).rem_euclid(3) as u64)
    }

    /// Returns the grid with a phase read back from a block: taken modulo 3 for `3d`, 0 for all other intervals.
    #[must_use]
    pub const fn with_phase(interval: Interval, phase_days: u64) -> Self {
        let phase_days = match interval {
            Interval::Day3 => (phase_days % 3) as u8,
            _ => 0,
        };
        Self { interval, phase_days, zone: None }
    }

    /// Returns the interval; days of a time zone are of `1d`.
    #[must_use]
    pub const fn interval(self) -> Interval {
        self.interval
    }

    /// Returns the time zone whose days these are, `None` for days of UTC and all other intervals.
    #[must_use]
    pub const fn zone(self) -> Option<Zone> {
        self.zone
    }

    /// Returns the length of every candle, `None` where they differ: months, and days of a time zone.
    #[must_use]
    pub const fn duration_ms(self) -> Option<i64> {
        match self.zone {
            None => self.interval.duration_ms(),
            Some(_) => None,
        }
    }

    /// Returns the day number modulo 3 on which `3d` candles open, 0 for all other intervals.
    #[must_use]
    pub const fn phase_days(self) -> u8 {
        self.phase_days
    }

    /// Returns the number of the candle that `open_ms` lies in. It rounds down, before 1970 too.
    #[must_use]
    pub fn index_of(self, open_ms: i64) -> i64 {
        match (self.zone, self.interval.duration_ms()) {
            (Some(zone), _) => zone.day_of(open_ms),
            (None, Some(duration_ms)) => open_ms.saturating_sub(self.anchor_ms()).div_euclid(duration_ms),
            (None, None) => month_of_day(open_ms.div_euclid(DAY_MS)),
        }
    }

    /// Returns the grid open time of a candle.
    #[must_use]
    pub fn open_ms(self, index: i64) -> i64 {
        match (self.zone, self.interval.duration_ms()) {
            (Some(zone), _) => zone.start_ms(index),
            (None, Some(duration_ms)) => index.saturating_mul(duration_ms).saturating_add(self.anchor_ms()),
            (None, None) => first_day_of_month(index).saturating_mul(DAY_MS),
        }
    }

    /// Returns the grid open time of the candle that `open_ms` lies in: a candle's identity within its series.
    #[must_use]
    pub fn floor_ms(self, open_ms: i64) -> i64 {
        self.open_ms(self.index_of(open_ms))
    }

    /// Returns where a candle ends, exclusive: the open time of the next.
    #[must_use]
    pub fn end_ms(self, index: i64) -> i64 {
        self.open_ms(index.saturating_add(1))
    }

    /// Returns the open time of candle 0.
    const fn anchor_ms(self) -> i64 {
        match self.interval {
            // The epoch was a Thursday.
            Interval::Week1 => -3 * DAY_MS,
            _ => self.phase_days as i64 * DAY_MS,
        }
    }
}

// The calendar follows Howard Hinnant, "chrono-compatible low-level date algorithms"
// (https://howardhinnant.github.io/date_algorithms.html): years begin in March, so that the leap day comes last, and
// an era of 400 years always has 146,097 days.

/// Days of an era.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAY: i64 = 719_468;
/// Months from March of the year 0 to January 1970.
const EPOCH_MONTH: i64 = 12 * 1970 - 2;
/// A month number no calendar needs: its first day still fits as milliseconds.
const MONTH_MAX: i64 = 12 * 200_000;

/// Returns the month a day lies in, both counted from January 1970.
const fn month_of_day(day: i64) -> i64 {
    let day = day + EPOCH_DAY;
    let era = day.div_euclid(ERA_DAYS);
    let day_of_era = day.rem_euclid(ERA_DAYS);
    // The leap days before this one are taken out, which leaves years of 365 days.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * day_of_year + 2) / 153;
    12 * (400 * era + year_of_era) + month_of_year - EPOCH_MONTH
}

/// Returns the first day of a month, both counted from January 1970.
const fn first_day_of_month(month: i64) -> i64 {
    let month = if month.unsigned_abs() > MONTH_MAX as u64 { MONTH_MAX * month.signum() } else { month } + EPOCH_MONTH;
    let year = month.div_euclid(12);
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // March to January have 31, 30, 31, 30, 31 days in turns of five months, 153 days together.
    365 * year + leap_days + (153 * month.rem_euclid(12) + 2) / 5 - EPOCH_DAY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Milliseconds of 100,000 years.
    const FAR_MS: i64 = 100_000 * 365 * DAY_MS;

    fn grids() -> impl Strategy<Value = Grid> {
        (prop::sample::select(Interval::ALL.to_vec()), -9..9_i64)
            .prop_map(|(interval, day)| Grid::anchored(interval, day * DAY_MS))
    }

    #[test]
    fn names_and_codes_round_trip() {
        for (index, interval) in Interval::ALL.into_iter().enumerate() {
            assert_eq!(interval.code() as usize, index + 1);
            assert_eq!(Interval::from_code(interval.code()), Some(interval));
            assert_eq!(Interval::parse(interval.as_str()), Some(interval));
            assert_eq!(interval.to_string(), interval.as_str());
        }
        assert_eq!(Interval::parse("1m").map(Interval::code), Some(2));
        assert_eq!(Interval::parse("1M").map(Interval::code), Some(16));
        for unknown in ["", "1H", "1D", "1mo", "2m", " 1m", "60s"] {
            assert_eq!(Interval::parse(unknown), None);
        }
        assert_eq!(Interval::from_code(0), None);
        assert_eq!(Interval::from_code(17), None);
    }

    #[test]
    fn longer_in_the_order_of_all() {
        assert!(Interval::ALL.is_sorted_by_key(|interval| interval.nominal_ms()));
        assert_eq!(Interval::Week1.duration_ms(), Some(604_800_000));
        assert_eq!(Interval::Month1.duration_ms(), None);
        assert_eq!(Interval::Month1.nominal_ms(), 2_678_400_000);
    }

    #[test]
    fn captured_3d_open_times() {
        // Captured SPOT rows: the first candle of each symbol and two later ones.
        let series = [
            ("BTCUSDT", 1, [1_502_928_000_000, 1_577_836_800_000, 1_777_161_600_000]),
            ("LINKUSDT", 2, [1_547_596_800_000, 1_577_923_200_000, 1_777_248_000_000]),
            ("DOTUSDT", 0, [1_597_708_800_000, 1_735_862_400_000, 1_777_075_200_000]),
        ];
        for (symbol, phase_days, open_times_ms) in series {
            let grid = Grid::anchored(Interval::Day3, open_times_ms[0]);
            assert_eq!(grid.phase_days(), phase_days, "{symbol}");
            for open_ms in open_times_ms {
                assert_eq!(grid.floor_ms(open_ms), open_ms, "{symbol}");
                assert_eq!(grid.floor_ms(open_ms - 1), open_ms - 3 * DAY_MS, "{symbol}");
                assert_eq!(grid.end_ms(grid.index_of(open_ms)), open_ms + 3 * DAY_MS, "{symbol}");
            }
        }
    }

    #[test]
    fn captured_1w_and_1month_open_times() {
        // Captured SPOT rows of BTCUSDT: the first candle and the last one captured.
        let week = Grid::new(Interval::Week1);
        for open_ms in [1_502_668_800_000, 1_776_643_200_000] {
            assert_eq!(week.floor_ms(open_ms), open_ms);
            assert_eq!(week.floor_ms(open_ms - 1), open_ms - 7 * DAY_MS);
        }
        let month = Grid::new(Interval::Month1);
        for (open_ms, index) in [(1_501_545_600_000, 47 * 12 + 7), (1_772_323_200_000, 56 * 12 + 2)] {
            assert_eq!(month.index_of(open_ms), index);
            assert_eq!(month.index_of(open_ms - 1), index - 1);
            assert_eq!(month.open_ms(index), open_ms);
        }
    }

    #[test]
    fn captured_open_time_off_the_grid() {
        // A 1m row opened at 2018-02-09T10:00:14.789, after an outage.
        let grid = Grid::new(Interval::Minute1);
        assert_eq!(grid.floor_ms(1_518_170_414_789), 1_518_170_400_000);
    }

    #[test]
    fn weeks_count_from_the_one_that_holds_the_epoch() {
        let grid = Grid::new(Interval::Week1);
        assert_eq!(grid.open_ms(0), -3 * DAY_MS);
        assert_eq!(grid.index_of(0), 0);
        assert_eq!(grid.index_of(4 * DAY_MS - 1), 0);
        assert_eq!(grid.index_of(4 * DAY_MS), 1);
        assert_eq!(grid.index_of(-3 * DAY_MS - 1), -1);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        for interval in Interval::ALL {
            let grid = Grid::new(interval);
            let index = if interval == Interval::Week1 { 0 } else { -1 };
            assert_eq!(grid.index_of(-1), index, "{interval}");
        }
        assert_eq!(Grid::new(Interval::Month1).open_ms(-1), -31 * DAY_MS);
        assert_eq!(Grid::new(Interval::Minute1).floor_ms(-60_001), -120_000);
    }

    #[test]
    fn months_agree_with_a_calendar_counted_by_hand() {
        let grid = Grid::new(Interval::Month1);
        let mut day = 0;
        let mut index = 0;
        for year in 1970..=2100 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for days in [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                assert_eq!(grid.open_ms(index), day * DAY_MS);
                assert_eq!(grid.end_ms(index), (day + days) * DAY_MS);
                for inside in day..day + days {
                    assert_eq!(grid.index_of(inside * DAY_MS), index);
                    assert_eq!(grid.index_of((inside + 1) * DAY_MS - 1), index);
                }
                day += days;
                index += 1;
            }
        }
    }

    #[test]
    fn phases_read_back() {
        for phase_days in 0..3 {
            let grid = Grid::with_phase(Interval::Day3, phase_days);
            assert_eq!(u64::from(grid.phase_days()), phase_days);
            assert_eq!(grid, Grid::anchored(Interval::Day3, grid.open_ms(7)));
            assert_eq!(grid, Grid::with_phase(Interval::Day3, phase_days + 300));
        }
        assert_eq!(Grid::with_phase(Interval::Day1, 1), Grid::new(Interval::Day1));
    }

    proptest! {
        #[test]
        fn candle_index_and_open_time_are_inverse(grid in grids(), open_ms in -FAR_MS..FAR_MS) {
            let index = grid.index_of(open_ms);
            prop_assert_eq!(grid.index_of(grid.open_ms(index)), index);
            prop_assert_eq!(grid.index_of(grid.end_ms(index)), index + 1);
            prop_assert_eq!(grid.index_of(grid.end_ms(index) - 1), index);
        }

        #[test]
        fn floor_is_idempotent_and_covers(grid in grids(), open_ms in -FAR_MS..FAR_MS) {
            let floor_ms = grid.floor_ms(open_ms);
            prop_assert_eq!(grid.floor_ms(floor_ms), floor_ms);
            prop_assert!(floor_ms <= open_ms && open_ms < grid.end_ms(grid.index_of(open_ms)));
            prop_assert!(open_ms - floor_ms < grid.interval().nominal_ms());
        }

        #[test]
        fn candle_index_is_monotone(grid in grids(), a in -FAR_MS..FAR_MS, b in -FAR_MS..FAR_MS) {
            prop_assert!(grid.index_of(a.min(b)) <= grid.index_of(a.max(b)));
        }

        #[test]
        fn any_number_is_answered(grid in grids(), number in any::<i64>()) {
            for number in [number, i64::MIN, i64::MAX] {
                let _ = (grid.index_of(number), grid.open_ms(number), grid.floor_ms(number), grid.end_ms(number));
            }
        }
    }
}
