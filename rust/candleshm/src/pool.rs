//! What a pool of request weight remembers, and what it decides: `(weight, now) -> delay`. Pure; times are parameters.
//!
//! Everything is one array of words of fixed size, so that it can lie in a file which processes share. The rules stand
//! in `python/candleshm/ratelimit.py`. The words are atomic only because they may be looked at while somebody changes
//! them; whoever changes them holds a lock. Times are local monotonic seconds, minus infinity for never.

use crate::sync::{AtomicU64, Ordering};

/// Weight allowed in a window, zero in words that were never used.
pub const LIMIT: usize = 0;
/// Length of that window in seconds.
pub const WINDOW: usize = 1;
/// Part of the limit to use at most.
pub const SHARE: usize = 2;
const HELD_UNTIL: usize = 4;
/// End of the stop after a 429 or 418.
pub const BLOCKED_UNTIL: usize = 5;
const REPORTED: usize = 6; // the exchange's number and what was booked since, minus one before the first
const REPORTED_AT: usize = 7;
/// Weight of the requests on their way, of all owners.
pub const IN_FLIGHT: usize = 8;
/// Weight of the answered requests that still count.
pub const ANSWERED: usize = 9;
const OLDEST: usize = 10; // first place and length of the ring of answered requests
const COUNT: usize = 11;
/// When was last looked for owners that died.
pub const REAPED_AT: usize = 12;
const QUEUE_UNTIL: usize = 13; // the latest FIRST_UNTIL of all

// Accounts: weight flows in at RATE per second and is kept up to DEPTH.
const COMMON: usize = 16;
const CLOSING: usize = 20;
const RATE: usize = 0;
const DEPTH: usize = 1;
const SAVED: usize = 2;
const AT: usize = 3;

// Owners: a number, zero for a free place; the process; what it named, zero for nothing; its weight in flight; since
// when it waits for its turn, zero when it does not, and until when others let it go first.
const OWNERS: usize = 24;
/// How many owners a pool can have.
pub const OWNERS_MAX: usize = 64;
const OWNER_WORDS: usize = 10;
const PID: usize = 1;
const STARTED: usize = 2;
const NAMED: usize = 3;
const OWN_SHARE: usize = 3;
const OWN_WINDOW: usize = 4;
const OWN_LIMIT: usize = 5;
const WANTED: usize = 6;
const OWN_IN_FLIGHT: usize = 7;
const WAITS_SINCE: usize = 8;
const FIRST_UNTIL: usize = 9;

// The ring of answered requests: the moment they stop counting, and their weight. Those of the same moment, a 700th of
// a window, share a place and count until the latest of them ends, so there is always a place.
const RING: usize = OWNERS + OWNERS_MAX * OWNER_WORDS;
const RING_MAX: usize = 720;
const MOMENTS: f64 = 700.0;

/// Words of a pool.
pub const WORDS: usize = RING + 2 * RING_MAX;

/// What counts for a pool in which nobody names a share.
pub const SHARE_UNNAMED: f64 = 0.75;
/// How often one request asks how things stand while the exchange's number leaves no room.
pub const PROBE_SECONDS: f64 = 10.0;
/// Who waits comes back in time to claim; should it end meanwhile, others wait no longer than this and a little more.
pub const HELD_SECONDS_MAX: f64 = 2.0;
const HELD_SECONDS_MORE: f64 = 0.3; // who looks five times a second comes in time
const QUEUE_SECONDS: f64 = 0.02; // whose turn comes after one that is about to be taken looks again after this
const SAVED_SECONDS: f64 = 2.0;
const SAVED_WEIGHT_MIN: f64 = 20.0; // the dearest single request, exchangeInfo
const RESERVED_PART_MAX: f64 = 1.0 / 3.0;

/// A request that wants to leave.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What it costs.
    pub weight: f64,
    /// Whether it may spend what is kept for closing candles.
    pub closing: bool,
    /// Whether nothing else leaves while it waits.
    pub urgent: bool,
}

/// The words of a pool, [`WORDS`] of them. An owner is named by its place in them.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a>(&'a [AtomicU64]);

impl<'a> Pool<'a> {
    /// Takes words that are a pool's, all zero for a new one.
    ///
    /// # Panics
    ///
    /// If their number is wrong.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Self {
        assert_eq!(words.len(), WORDS, "a pool has a fixed number of words");
        Self(words)
    }

    /// Returns one word.
    #[must_use]
    pub fn get(self, place: usize) -> f64 {
        f64::from_bits(self.0[place].load(Ordering::Relaxed))
    }

    /// Sets one word.
    pub fn set(self, place: usize, value: f64) {
        self.0[place].store(value.to_bits(), Ordering::Relaxed);
    }

    /// Copies everything that means something from the words of another pool.
    pub fn copy_from(self, other: Pool<'_>) {
        let copy = |places: core::ops::Range<usize>| {
            for (to, from) in self.0[places.clone()].iter().zip(&other.0[places]) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        copy(0..RING);
        let oldest = self.get(OLDEST) as usize % RING_MAX;
        let end = oldest + (self.get(COUNT) as usize).min(RING_MAX);
        copy(RING + 2 * oldest..RING + 2 * end.min(RING_MAX));
        copy(RING..RING + 2 * end.saturating_sub(RING_MAX));
    }

    fn add(self, place: usize, value: f64) {
        self.set(place, self.get(place) + value);
    }

    /// Weight that may be spent in any window.
    #[must_use]
    pub fn budget(self) -> f64 {
        (self.get(LIMIT) * self.get(SHARE)).floor().max(1.0)
    }

    /// Says whether words that come from outside can have been written by the functions here.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        let words = || (0..WORDS).map(|place| self.get(place));
        if words().all(|word| word == 0.0) {
            return true;
        }
        let (oldest, count) = (self.get(OLDEST), self.get(COUNT));
        let is_index = |value: f64, most: usize| value >= 0.0 && value <= most as f64 && value.fract() == 0.0;
        let is_weight = |value: f64| value >= 0.0 && value.is_finite();
        if words().any(f64::is_nan) || !is_index(oldest, RING_MAX - 1) || !is_index(count, RING_MAX) {
            return false;
        }
        let in_flight: Vec<f64> = places().map(|place| self.get(place + OWN_IN_FLIGHT)).collect();
        let answered: Vec<f64> = (0..count as usize).map(|number| self.get(self.moment(number) + 1)).collect();
        [LIMIT, WINDOW, SHARE].iter().all(|&place| self.get(place) > 0.0 && self.get(place).is_finite())
            && in_flight.iter().chain(&answered).all(|&weight| is_weight(weight))
            && in_flight.iter().sum::<f64>() == self.get(IN_FLIGHT)
            && answered.iter().sum::<f64>() == self.get(ANSWERED)
            && [COMMON, CLOSING]
                .iter()
                .all(|account| is_weight(self.get(account + RATE)) && is_weight(self.get(account + DEPTH)))
    }

    /// Says whether `number` is the owner at a place.
    #[must_use]
    pub fn holds(self, place: usize, number: f64) -> bool {
        number != 0.0 && self.get(place) == number
    }

    /// Returns the owners: place, number, process id, start of the process.
    #[must_use]
    pub fn owners(self) -> Vec<(usize, f64, f64, f64)> {
        let owned = places().filter(|&place| self.get(place) != 0.0);
        owned.map(|place| (place, self.get(place), self.get(place + PID), self.get(place + STARTED))).collect()
    }

    /// Gives an owner a free place, with requests of `in_flight` on their way; `None` when all are taken.
    ///
    /// `assumed` is the limit and its window in words that were never used.
    #[must_use]
    pub fn join(
        self,
        number: f64,
        process: (f64, f64),
        assumed: (f64, f64),
        named: [f64; 4],
        in_flight: f64,
        now: f64,
    ) -> Option<usize> {
        if self.get(LIMIT) == 0.0 {
            self.set(LIMIT, assumed.0);
            self.set(WINDOW, assumed.1);
            self.set(REPORTED, -1.0);
            for place in [HELD_UNTIL, BLOCKED_UNTIL, REPORTED_AT, REAPED_AT, QUEUE_UNTIL, COMMON + AT, CLOSING + AT] {
                self.set(place, f64::NEG_INFINITY);
            }
            // As much as the account will hold.
            self.set(COMMON + SAVED, f64::INFINITY);
            self.set(COMMON + DEPTH, f64::INFINITY);
        }
        let place = places().find(|&place| self.get(place) == 0.0)?;
        self.set(place, number);
        self.set(place + PID, process.0);
        self.set(place + STARTED, process.1);
        self.fly(place, in_flight);
        self.write_named(place, named);
        self.share_out(now);
        Some(place)
    }

    /// Takes what an owner names: share, window, limit, weight of its closing candles.
    pub fn name(self, place: usize, named: [f64; 4], now: f64) {
        if (0..4).any(|number| self.get(place + NAMED + number) != named[number]) {
            self.write_named(place, named);
            self.share_out(now);
        }
    }

    fn write_named(self, place: usize, named: [f64; 4]) {
        for (number, value) in named.into_iter().enumerate() {
            self.set(place + NAMED + number, value);
        }
    }

    /// Frees the place of an owner that ended: its weight in flight counts as answered now.
    pub fn end(self, place: usize, now: f64) {
        let weight = self.get(place + OWN_IN_FLIGHT);
        if weight > 0.0 {
            self.fly(place, -weight);
            self.count_spent(weight, now);
        }
        for word in place..place + OWNER_WORDS {
            self.set(word, 0.0);
        }
        self.share_out(now);
    }

    /// Books a request if it may leave now, and returns zero; or returns how long it has to wait.
    #[must_use]
    pub fn claim(self, place: usize, claim: Claim, now: f64) -> f64 {
        let held_until = self.get(HELD_UNTIL);
        if now < held_until && !claim.urgent {
            return held_until.max(self.get(BLOCKED_UNTIL)) - now;
        }
        let mut delay = self.delay(claim.weight, now, claim.closing);
        if now < self.get(QUEUE_UNTIL) && !claim.urgent && !(claim.closing && self.is_saved_for(claim.weight, now)) {
            delay = delay.max(self.queue_delay(place, now));
        }
        if delay > 0.0 {
            let held_until = now + delay.min(HELD_SECONDS_MAX) + HELD_SECONDS_MORE;
            if claim.urgent {
                self.set(HELD_UNTIL, held_until);
            } else {
                let since = self.get(place + WAITS_SINCE);
                self.set(place + WAITS_SINCE, if since > 0.0 { since } else { now });
                self.set(place + FIRST_UNTIL, held_until);
                self.set(QUEUE_UNTIL, self.get(QUEUE_UNTIL).max(held_until));
            }
            return delay;
        }
        if claim.urgent {
            self.set(HELD_UNTIL, f64::NEG_INFINITY);
        } else {
            self.give_up(place);
        }
        self.count_sent(place, claim.weight, now, claim.closing);
        0.0
    }

    /// Takes an owner out of the queue.
    pub fn give_up(self, place: usize) {
        self.set(place + WAITS_SINCE, 0.0);
        self.set(place + FIRST_UNTIL, 0.0);
    }

    /// Books a request that leaves now, whether it may or not.
    pub fn count_sent(self, place: usize, weight: f64, now: f64, closing: bool) {
        let account = if closing && self.is_saved_for(weight, now) { CLOSING } else { COMMON };
        self.set(account + SAVED, self.balance(account, now) - weight);
        self.set(account + AT, self.get(account + AT).max(now));
        if self.get(REPORTED) >= 0.0 {
            self.add(REPORTED, weight);
        }
        self.fly(place, weight);
    }

    /// Books the end of a request, with the used weight that the exchange stated.
    pub fn count_answered(self, place: usize, weight: f64, now: f64, reported: Option<f64>) {
        self.fly(place, -weight);
        self.count_spent(weight, now);
        if let Some(reported) = reported {
            self.set(REPORTED, reported);
            self.set(REPORTED_AT, now);
        }
    }

    /// Lets nothing leave until then, and nothing burst after it. A longer stop that is on stays.
    pub fn stop(self, until: f64) {
        if until > self.get(BLOCKED_UNTIL) {
            self.set(BLOCKED_UNTIL, until);
            for account in [COMMON, CLOSING] {
                self.set(account + SAVED, self.get(account + SAVED).min(0.0));
                self.set(account + AT, until);
            }
        }
    }

    /// Returns the weight that counts now, by ourselves or by the exchange's number; forgets what is over.
    #[must_use]
    pub fn used(self, now: f64) -> f64 {
        let own = self.own(now);
        if self.is_fresh(now) { own.max(self.get(REPORTED)) } else { own }
    }

    /// Returns how long a request has to wait; infinite means: until one in flight is answered.
    #[must_use]
    pub fn delay(self, weight: f64, now: f64, closing: bool) -> f64 {
        let mut delay = self.account_delay(COMMON, weight, now);
        if closing && delay > 0.0 {
            delay = delay.min(self.account_delay(CLOSING, weight, now));
        }
        delay = delay.max(self.get(BLOCKED_UNTIL) - now);
        // A request dearer than the whole budget leaves when nothing else counts, or it would wait for ever.
        let budget = self.budget().max(weight);
        let excess = self.own(now) + weight - budget;
        if excess > 0.0 {
            delay = delay.max(self.ledger_delay(excess, now));
        }
        if self.is_fresh(now) && self.get(REPORTED) + weight > budget {
            let is_probe_out = self.get(IN_FLIGHT) > 0.0;
            delay = delay.max(if is_probe_out { f64::INFINITY } else { self.get(REPORTED_AT) + PROBE_SECONDS - now });
        }
        delay.max(0.0)
    }

    fn ledger_delay(self, mut excess: f64, now: f64) -> f64 {
        for number in 0..self.get(COUNT) as usize {
            let place = self.moment(number);
            excess -= self.get(place + 1);
            if excess <= 0.0 {
                return self.get(place) - now;
            }
        }
        f64::INFINITY
    }

    fn is_fresh(self, now: f64) -> bool {
        self.get(REPORTED) >= 0.0 && now < self.get(REPORTED_AT) + self.get(WINDOW)
    }

    /// Our own weight that counts, after forgetting what no longer does.
    fn own(self, now: f64) -> f64 {
        while self.get(COUNT) > 0.0 {
            let place = self.moment(0);
            if self.get(place) > now {
                break;
            }
            self.add(ANSWERED, -self.get(place + 1));
            self.set(OLDEST, (self.get(OLDEST) + 1.0) % RING_MAX as f64);
            self.add(COUNT, -1.0);
        }
        self.get(ANSWERED) + self.get(IN_FLIGHT)
    }

    /// Lets a weight count until one window from now.
    fn count_spent(self, weight: f64, now: f64) {
        self.own(now);
        let (window, count) = (self.get(WINDOW), self.get(COUNT) as usize);
        let mut until = now + window;
        self.add(ANSWERED, weight);
        if count > 0 {
            let newest = self.moment(count - 1);
            let moment_of = |time: f64| (time / (window / MOMENTS)).floor();
            // Clocks are read before the words are had, so the order may differ by a moment: the later one counts.
            until = until.max(self.get(newest));
            if moment_of(until) == moment_of(self.get(newest)) || count == RING_MAX {
                self.set(newest, until);
                self.add(newest + 1, weight);
                return;
            }
        }
        let place = self.moment(count);
        self.set(place, until);
        self.set(place + 1, weight);
        self.add(COUNT, 1.0);
    }

    fn moment(self, number: usize) -> usize {
        RING + (self.get(OLDEST) as usize + number) % RING_MAX * 2
    }

    fn balance(self, account: usize, now: f64) -> f64 {
        let (saved, at) = (self.get(account + SAVED), self.get(account + AT));
        let passed = if at == f64::NEG_INFINITY { 0.0 } else { (now - at).max(0.0) };
        self.get(account + DEPTH).min(saved + passed * self.get(account + RATE))
    }

    fn account_delay(self, account: usize, weight: f64, now: f64) -> f64 {
        // A full account lets even a request leave that is larger than what it can hold.
        let short = weight.min(self.get(account + DEPTH).max(1.0)) - self.balance(account, now);
        let rate = self.get(account + RATE);
        if short <= 0.0 {
            0.0
        } else if rate > 0.0 {
            // A hair more than the quotient, or rounding would leave the account a hair short at that very moment.
            (self.get(account + AT) - now).max(0.0) + short / rate + 1e-6
        } else {
            f64::INFINITY
        }
    }

    /// Whether the account for closing candles has the weight of one.
    fn is_saved_for(self, weight: f64, now: f64) -> bool {
        self.account_delay(CLOSING, weight, now) <= 0.0
    }

    /// How long an owner lets others go first that wait longer, and will come back for it any moment.
    fn queue_delay(self, place: usize, now: f64) -> f64 {
        let since = if self.get(place + WAITS_SINCE) > 0.0 { self.get(place + WAITS_SINCE) } else { now };
        let first = places()
            .filter(|&other| {
                other != place && self.get(other + FIRST_UNTIL) > now && self.get(other + WAITS_SINCE) < since
            })
            .map(|other| self.get(other + FIRST_UNTIL))
            .reduce(f64::min);
        first.map_or(0.0, |until| (until - HELD_SECONDS_MORE - now).max(QUEUE_SECONDS))
    }

    fn change_account(self, account: usize, rate: f64, depth: f64, now: f64) {
        self.set(account + SAVED, self.balance(account, now).min(depth));
        self.set(account + AT, self.get(account + AT).max(now));
        self.set(account + RATE, rate);
        self.set(account + DEPTH, depth);
    }

    /// Takes the strictest of what the owners name, and lets weight flow accordingly.
    fn share_out(self, now: f64) {
        let owned = || places().filter(|&place| self.get(place) != 0.0);
        let shares = owned().map(|place| self.get(place + OWN_SHARE)).filter(|&share| share > 0.0);
        self.set(SHARE, shares.reduce(f64::min).unwrap_or(SHARE_UNNAMED));
        let per_second = |place: &usize| self.get(place + OWN_LIMIT) / self.get(place + OWN_WINDOW);
        let stated = owned().filter(|place| self.get(place + OWN_LIMIT) > 0.0);
        if let Some(strictest) = stated.min_by(|one, other| per_second(one).total_cmp(&per_second(other))) {
            self.set(LIMIT, self.get(strictest + OWN_LIMIT));
            self.set(WINDOW, self.get(strictest + OWN_WINDOW));
        }
        let (budget, window) = (self.budget(), self.get(WINDOW));
        let wanted: f64 = owned().map(|place| self.get(place + WANTED)).sum();
        let reserved = wanted.min(budget * RESERVED_PART_MAX);
        let depth = SAVED_WEIGHT_MIN.max(budget * SAVED_SECONDS / window);
        // What the accounts can hold is taken off, so that a window that starts with a full one keeps within the ledger.
        let rate = (budget - depth - reserved).max(budget * RESERVED_PART_MAX) / window;
        self.change_account(COMMON, rate, depth, now);
        self.change_account(CLOSING, reserved / window, reserved, now);
    }

    fn fly(self, place: usize, weight: f64) {
        self.add(place + OWN_IN_FLIGHT, weight);
        self.add(IN_FLIGHT, weight);
    }
}

fn places() -> impl Iterator<Item = usize> {
    (OWNERS..RING).step_by(OWNER_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn joined(pool: Pool<'_>, number: f64) -> usize {
        pool.join(number, (1.0, 1.0), (6000.0, 60.0), [0.75, 0.0, 0.0, 0.0], 0.0, 0.0).expect("a free place")
    }

    #[test]
    fn there_is_always_a_place_for_an_answer_and_none_counts_too_short() {
        let words = words();
        let pool = Pool::new(&words);
        let owner = joined(pool, 1.0);
        // An answer every 10 ms for five windows: ten times as many in a window as there are places.
        for step in 0..30_000 {
            let now = f64::from(step) / 100.0;
            pool.count_sent(owner, 1.0, now, false);
            pool.count_answered(owner, 1.0, now, None);
            let exact = f64::from((step + 1).min(6000));
            let counted = pool.used(now);
            assert!(counted >= exact && counted <= exact + 10.0, "{counted} of {exact} at {now}");
            assert!(step % 1000 != 0 || pool.is_plausible());
        }
        assert_eq!(pool.used(400.0), 0.0);
    }

    #[test]
    fn a_copy_of_a_ring_that_wrapped_is_worth_the_same() {
        let (words, others) = (words(), words());
        let (pool, other) = (Pool::new(&words), Pool::new(&others));
        let owner = joined(pool, 1.0);
        for step in 0..1000 {
            let now = f64::from(step) / 7.0;
            pool.count_sent(owner, 3.0, now, false);
            pool.count_answered(owner, 3.0, now, Some(5.0));
            other.copy_from(pool);
            assert!(other.is_plausible());
            for later in [now, now + 10.0, now + 59.0, now + 70.0] {
                let third = self::words();
                Pool::new(&third).copy_from(pool);
                other.copy_from(pool);
                assert_eq!(Pool::new(&third).used(later), other.used(later));
            }
        }
    }

    #[test]
    fn every_place_is_given_once_and_again_when_it_is_free() {
        let words = words();
        let pool = Pool::new(&words);
        let mut places: Vec<usize> = (0..OWNERS_MAX).map(|number| joined(pool, 1.0 + number as f64)).collect();
        assert_eq!(pool.join(99.0, (1.0, 1.0), (1.0, 1.0), [0.0; 4], 0.0, 0.0), None);
        pool.count_sent(places[5], 7.0, 1.0, false);
        pool.end(places[5], 2.0);
        assert_eq!((pool.get(IN_FLIGHT), pool.get(ANSWERED)), (0.0, 7.0));
        assert_eq!(joined(pool, 99.0), places[5]);
        places.dedup();
        assert_eq!(places.len(), OWNERS_MAX);
    }

    #[test]
    fn words_that_contradict_themselves_are_not_plausible() {
        let words = words();
        let pool = Pool::new(&words);
        assert!(pool.is_plausible());
        let owner = joined(pool, 1.0);
        pool.count_sent(owner, 7.0, 1.0, false);
        assert!(pool.is_plausible());
        for (place, value) in [
            (IN_FLIGHT, 8.0),
            (ANSWERED, 1.0),
            (COUNT, 721.0),
            (OLDEST, 0.5),
            (LIMIT, -1.0),
            (WINDOW, f64::INFINITY),
            (owner + OWN_IN_FLIGHT, -7.0),
            (BLOCKED_UNTIL, f64::NAN),
        ] {
            let before = pool.get(place);
            pool.set(place, value);
            assert!(!pool.is_plausible(), "word {place} as {value}");
            pool.set(place, before);
        }
    }
}
