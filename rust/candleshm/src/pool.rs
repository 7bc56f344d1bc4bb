//! The request weight of a pool, and what may still be spent: `(weight, now) -> delay`. Pure; times are parameters.
//!
//! A pool is an array of words of fixed size, so that it can lie in a file that processes share:
//! `docs/ledger-format.md` describes each word, [`crate::ledger`] the file around them. The rules are described in
//! `python/candleshm/ratelimit/budget.py`. A word holds either a [`Number`] or a [`Whole`], and the type of its place
//! says which. The words are atomic only because a process may read them while another one changes them; whoever
//! changes them holds a lock. Times are local monotonic seconds; minus infinity stands for never.

use core::ops::Add;

use crate::sync::{AtomicU64, Ordering};

/// The place of a word that holds a float64: a weight, a time, or a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(usize);

/// The place of a word that holds a u64: the token of an owner, a process id, a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(usize);

impl Number {
    /// Returns the index of the word.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0
    }
}

impl Whole {
    /// Returns the index of the word.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0
    }
}

/// A field of what begins at a place.
impl Add<Number> for usize {
    type Output = Number;

    fn add(self, field: Number) -> Number {
        Number(self + field.0)
    }
}

/// A field of what begins at a place.
impl Add<Whole> for usize {
    type Output = Whole;

    fn add(self, field: Whole) -> Whole {
        Whole(self + field.0)
    }
}

/// Weight allowed in a window; zero in words that were never used.
pub const LIMIT: Number = Number(0);
/// Length of that window in seconds.
pub const WINDOW: Number = Number(1);
/// Part of the limit that may be used.
pub const SHARE: Number = Number(2);
/// Until when an urgent request holds back all others.
pub const HELD_UNTIL: Number = Number(3);
/// End of the stop after a 429 or 418.
pub const BLOCKED_UNTIL: Number = Number(4);
/// The used weight that the exchange stated, plus what was booked since; minus one before the first statement.
pub const REPORTED: Number = Number(5);
/// When the exchange stated it.
pub const REPORTED_AT: Number = Number(6);
/// Weight of the requests in flight, of all owners.
pub const IN_FLIGHT: Number = Number(7);
/// Weight of the finished requests that still count.
pub const FINISHED: Number = Number(8);
/// First position of the ring of finished requests.
pub const OLDEST: Whole = Whole(9);
/// Length of that ring.
pub const COUNT: Whole = Whole(10);
/// When dead owners were last looked for.
pub const REAPED_AT: Number = Number(11);
/// The latest [`FIRST_UNTIL`] of all owners.
pub const QUEUE_UNTIL: Number = Number(12);
/// Weight of the newest burst; zero in a pool in which there was none.
pub const BURST: Number = Number(13);
/// When that burst no longer counts: one window after its last request was sent.
pub const BURST_UNTIL: Number = Number(14);

/// The account of all requests but those for closing candles.
pub const COMMON: usize = 16;
/// The account of requests for closing candles.
pub const CLOSING: usize = 20;
/// Field of an account: weight flows in at so much per second.
pub const RATE: Number = Number(0);
/// Field of an account: the most weight that it keeps.
pub const DEPTH: Number = Number(1);
/// Field of an account: the weight in it at [`AT`].
pub const SAVED: Number = Number(2);
/// Field of an account: when [`SAVED`] was computed.
pub const AT: Number = Number(3);

/// The first owner.
pub const OWNERS: usize = 24;
/// How many owners a pool can have.
pub const OWNERS_MAX: usize = 64;
/// Words of an owner.
pub const OWNER_WORDS: usize = 9;
/// Field of an owner: the random number that identifies it; zero where the place is free.
pub const TOKEN: Whole = Whole(0);
/// Field of an owner: its process id, for people who look.
pub const PID: Whole = Whole(1);
/// Field of an owner: the part of the limit that it names; zero for none.
pub const OWN_SHARE: Number = Number(2);
/// Field of an owner: the window that it names, in seconds; zero for none.
pub const OWN_WINDOW: Number = Number(3);
/// Field of an owner: the limit that it names; zero for none.
pub const OWN_LIMIT: Number = Number(4);
/// Field of an owner: the weight of its closing candles.
pub const WANTED: Number = Number(5);
/// Field of an owner: its weight in flight.
pub const OWN_IN_FLIGHT: Number = Number(6);
/// Field of an owner: since when it waits for its turn; zero when it does not.
pub const WAITS_SINCE: Number = Number(7);
/// Field of an owner: until when owners that came later let it go first.
pub const FIRST_UNTIL: Number = Number(8);

/// The ring of finished requests. Requests that finish at the same moment, a 700th of a window, share an entry and
/// count until the latest of them ends, so there is always room.
pub const RING: usize = OWNERS + OWNERS_MAX * OWNER_WORDS;
/// Entries of the ring.
pub const RING_MAX: usize = 720;
/// Field of an entry: when it stops counting.
pub const UNTIL: Number = Number(0);
/// Field of an entry: its weight.
pub const WEIGHT: Number = Number(1);
/// Words of an entry.
pub const ENTRY_WORDS: usize = 2;
const MOMENTS: f64 = 700.0;

/// Words of a pool.
pub const WORDS: usize = RING + ENTRY_WORDS * RING_MAX;

/// The largest token of an owner. An owner that lives holds a lock on a byte of the file at the place of its token.
pub const TOKEN_MAX: u64 = 1 << 48;

/// What an owner names. Zero stands for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Named {
    /// Part of the limit to use at most.
    pub share: f64,
    /// The window in seconds for which `limit` is stated.
    pub window: f64,
    /// Weight that the exchange allows in a window.
    pub limit: f64,
    /// Weight of one round of closing candles.
    pub closing: f64,
}

/// An owner of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where it stands among the words.
    pub place: usize,
    /// The random number that identifies it.
    pub token: u64,
    /// Its process.
    pub pid: u64,
}

/// The share of a pool in which no owner names one.
pub const SHARE_UNNAMED: f64 = 0.75;
/// Interval between single requests that fetch a new number while the exchange's number leaves no room.
pub const PROBE_SECONDS: f64 = 10.0;
/// A waiting owner claims again before its turn ends; if it dies first, the others wait this long and a little more.
pub const HELD_SECONDS_MAX: f64 = 2.0;
const HELD_SECONDS_MORE: f64 = 0.3; // enough for an owner that claims five times a second
const QUEUE_SECONDS: f64 = 0.02; // an owner whose turn is next claims again after this
const SAVED_SECONDS: f64 = 2.0;
const SAVED_WEIGHT_MIN: f64 = 20.0; // the dearest single request, exchangeInfo
const RESERVED_PART_MAX: f64 = 1.0 / 3.0;
const BURST_PART: f64 = 2.0 / 3.0; // of the budget, at most
const STEADY_PART: f64 = 1.0 / 6.0; // of the budget, left beside what is saved for closing candles

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its weight.
    pub weight: f64,
    /// Whether it may spend what is kept for closing candles.
    pub closing: bool,
    /// Whether no other request is sent while it waits.
    pub urgent: bool,
    /// Whether it is one of many requests that load series, and may be sent in a burst.
    pub loading: bool,
}

/// What a request is paid from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payer {
    Account(usize),
    Burst,
}

/// The words of a pool, [`WORDS`] of them. An owner is identified by its place in them and its token.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a>(&'a [AtomicU64]);

impl<'a> Pool<'a> {
    /// Takes the words of a pool; those of a new one are all zero.
    ///
    /// # Panics
    ///
    /// If their number is wrong.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Self {
        assert_eq!(words.len(), WORDS, "a pool has a fixed number of words");
        Self(words)
    }

    /// Returns a number.
    #[must_use]
    pub fn get(self, word: Number) -> f64 {
        f64::from_bits(self.0[word.0].load(Ordering::Relaxed))
    }

    /// Sets a number.
    pub fn set(self, word: Number, value: f64) {
        self.0[word.0].store(value.to_bits(), Ordering::Relaxed);
    }

    /// Returns a whole number.
    #[must_use]
    pub fn whole(self, word: Whole) -> u64 {
        self.0[word.0].load(Ordering::Relaxed)
    }

    fn set_whole(self, word: Whole, value: u64) {
        self.0[word.0].store(value, Ordering::Relaxed);
    }

    /// Copies everything that means something from the words of another pool.
    pub fn copy_from(self, other: Pool<'_>) {
        let copy = |places: core::ops::Range<usize>| {
            for (to, from) in self.0[places.clone()].iter().zip(&other.0[places]) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        copy(0..RING);
        let oldest = self.whole(OLDEST) as usize % RING_MAX;
        let end = oldest + self.count();
        copy(RING + ENTRY_WORDS * oldest..RING + ENTRY_WORDS * end.min(RING_MAX));
        copy(RING..RING + ENTRY_WORDS * end.saturating_sub(RING_MAX));
    }

    fn add(self, word: Number, value: f64) {
        self.set(word, self.get(word) + value);
    }

    /// Entries of the ring.
    fn count(self) -> usize {
        (self.whole(COUNT) as usize).min(RING_MAX)
    }

    /// Weight that may be spent in any window.
    #[must_use]
    pub fn budget(self) -> f64 {
        (self.get(LIMIT) * self.get(SHARE)).floor().max(1.0)
    }

    /// Returns whether words that come from outside can have been written by the functions here.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        if self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
            return true;
        }
        let (oldest, count) = (self.whole(OLDEST), self.whole(COUNT));
        let is_weight = |value: f64| value >= 0.0 && value.is_finite();
        if (0..WORDS).any(|place| !is_whole(place) && self.get(Number(place)).is_nan())
            || oldest >= RING_MAX as u64
            || count > RING_MAX as u64
            || places().any(|place| self.whole(place + TOKEN) > TOKEN_MAX)
        {
            return false;
        }
        let in_flight: Vec<f64> = places().map(|place| self.get(place + OWN_IN_FLIGHT)).collect();
        let finished: Vec<f64> = (0..self.count()).map(|number| self.get(self.entry(number) + WEIGHT)).collect();
        [LIMIT, WINDOW, SHARE].iter().all(|&place| self.get(place) > 0.0 && self.get(place).is_finite())
            && in_flight.iter().chain(&finished).all(|&weight| is_weight(weight))
            && in_flight.iter().sum::<f64>() == self.get(IN_FLIGHT)
            && finished.iter().sum::<f64>() == self.get(FINISHED)
            && [COMMON, CLOSING]
                .iter()
                .all(|&account| is_weight(self.get(account + RATE)) && is_weight(self.get(account + DEPTH)))
    }

    /// Returns whether the owner `token` stands at a place.
    #[must_use]
    pub fn holds(self, place: usize, token: u64) -> bool {
        let is_place = (OWNERS..RING).contains(&place) && (place - OWNERS).is_multiple_of(OWNER_WORDS);
        token != 0 && is_place && self.whole(place + TOKEN) == token
    }

    /// Returns the owners.
    #[must_use]
    pub fn owners(self) -> Vec<Owner> {
        self.owned()
            .map(|place| Owner { place, token: self.whole(place + TOKEN), pid: self.whole(place + PID) })
            .collect()
    }

    fn owned(self) -> impl Iterator<Item = usize> {
        places().filter(move |&place| self.whole(place + TOKEN) != 0)
    }

    /// Gives an owner a free place, with requests of weight `in_flight` on their way; returns `None` when all places
    /// are taken.
    ///
    /// `assumed` is the limit and its window for words that were never used. `token` is 1 to [`TOKEN_MAX`].
    #[must_use]
    pub fn join(
        self,
        token: u64,
        pid: u64,
        assumed: (f64, f64),
        named: Named,
        in_flight: f64,
        now: f64,
    ) -> Option<usize> {
        if self.get(LIMIT) == 0.0 {
            self.set(LIMIT, assumed.0);
            self.set(WINDOW, assumed.1);
            self.set(REPORTED, -1.0);
            for word in [HELD_UNTIL, BLOCKED_UNTIL, REPORTED_AT, REAPED_AT, QUEUE_UNTIL, COMMON + AT, CLOSING + AT] {
                self.set(word, f64::NEG_INFINITY);
            }
            // The account starts full.
            self.set(COMMON + SAVED, f64::INFINITY);
            self.set(COMMON + DEPTH, f64::INFINITY);
        }
        let place = places().find(|&place| self.whole(place + TOKEN) == 0)?;
        self.set_whole(place + TOKEN, token);
        self.set_whole(place + PID, pid);
        self.fly(place, in_flight);
        self.write_named(place, named);
        self.share_out(now);
        Some(place)
    }

    /// Takes what an owner names.
    pub fn name(self, place: usize, named: Named, now: f64) {
        if self.named(place) != named {
            self.write_named(place, named);
            self.share_out(now);
        }
    }

    fn named(self, place: usize) -> Named {
        Named {
            share: self.get(place + OWN_SHARE),
            window: self.get(place + OWN_WINDOW),
            limit: self.get(place + OWN_LIMIT),
            closing: self.get(place + WANTED),
        }
    }

    fn write_named(self, place: usize, named: Named) {
        self.set(place + OWN_SHARE, named.share);
        self.set(place + OWN_WINDOW, named.window);
        self.set(place + OWN_LIMIT, named.limit);
        self.set(place + WANTED, named.closing);
    }

    /// Frees the place of an owner that ended: its requests in flight count as finished now.
    pub fn end(self, place: usize, now: f64) {
        let weight = self.get(place + OWN_IN_FLIGHT);
        if weight > 0.0 {
            self.fly(place, -weight);
            self.count_spent(weight, now);
        }
        for word in &self.0[place..place + OWNER_WORDS] {
            word.store(0, Ordering::Relaxed);
        }
        self.share_out(now);
    }

    /// Books a request and returns zero if it may be sent now; otherwise returns how many seconds it has to wait.
    #[must_use]
    pub fn claim(self, place: usize, claim: Claim, now: f64) -> f64 {
        let held_until = self.get(HELD_UNTIL);
        if now < held_until && !claim.urgent {
            return held_until.max(self.get(BLOCKED_UNTIL)) - now;
        }
        let mut delay = self.claim_delay(claim, now);
        let payer = self.payer(claim, now);
        // Only the common account is worth a queue: what pays for a burst or a closing candle is nobody else's.
        if now < self.get(QUEUE_UNTIL) && !claim.urgent && payer == Payer::Account(COMMON) {
            delay = delay.max(self.queue_delay(place, now));
        }
        if delay > 0.0 {
            let held_until = now + delay.min(HELD_SECONDS_MAX) + HELD_SECONDS_MORE;
            if claim.urgent {
                self.set(HELD_UNTIL, held_until);
            } else if !(claim.loading && self.is_burst_spent(now)) {
                // What loads and has had its burst takes what others leave, and holds nobody up.
                let since = self.get(place + WAITS_SINCE);
                self.set(place + WAITS_SINCE, if since > 0.0 { since } else { now });
                self.set(place + FIRST_UNTIL, held_until);
                self.set(QUEUE_UNTIL, self.get(QUEUE_UNTIL).max(held_until));
            }
            return delay;
        }
        if claim.urgent {
            self.set(HELD_UNTIL, f64::NEG_INFINITY);
        } else if payer != Payer::Burst {
            self.give_up(place);
        }
        if claim.loading && (payer == Payer::Burst || !self.is_burst_spent(now)) {
            // Whatever paid for it: others keep their third. What is paid by turns does not make a burst last longer.
            if payer == Payer::Burst || now >= self.get(BURST_UNTIL) {
                self.set(BURST, self.burst(now));
                self.set(BURST_UNTIL, now + self.get(WINDOW));
            }
            self.add(BURST, claim.weight);
        }
        self.book(place, claim.weight, now, payer);
        0.0
    }

    /// Takes an owner out of the queue.
    pub fn give_up(self, place: usize) {
        self.set(place + WAITS_SINCE, 0.0);
        self.set(place + FIRST_UNTIL, 0.0);
    }

    /// Books a request that is sent now, whether it may be or not.
    pub fn count_sent(self, place: usize, weight: f64, now: f64, closing: bool) {
        self.book(place, weight, now, self.payer(Claim { weight, closing, urgent: false, loading: false }, now));
    }

    fn book(self, place: usize, weight: f64, now: f64, payer: Payer) {
        if let Payer::Account(account) = payer {
            let price = if account == COMMON { weight * self.slowness(now) } else { weight };
            self.set(account + SAVED, self.balance(account, now) - price);
            self.set(account + AT, self.get(account + AT).max(now));
        }
        if self.get(REPORTED) >= 0.0 {
            self.add(REPORTED, weight);
        }
        self.fly(place, weight);
    }

    fn payer(self, claim: Claim, now: f64) -> Payer {
        if claim.loading && self.burst_delay(claim.weight, now) <= 0.0 {
            Payer::Burst
        } else if claim.closing && self.is_saved_for(claim.weight, now) {
            Payer::Account(CLOSING)
        } else {
            Payer::Account(COMMON)
        }
    }

    /// Books the end of a request, with the used weight that the exchange stated.
    pub fn count_finished(self, place: usize, weight: f64, now: f64, reported: Option<f64>) {
        self.fly(place, -weight);
        self.count_spent(weight, now);
        if let Some(reported) = reported {
            self.set(REPORTED, reported);
            self.set(REPORTED_AT, now);
        }
    }

    /// Stops all requests until then, and allows no burst afterwards. A longer stop that is in force stays.
    pub fn stop(self, until: f64) {
        if until > self.get(BLOCKED_UNTIL) {
            self.set(BLOCKED_UNTIL, until);
            for account in [COMMON, CLOSING] {
                self.set(account + SAVED, self.get(account + SAVED).min(0.0));
                self.set(account + AT, until);
            }
        }
    }

    /// Returns the weight that counts now: our own, or the exchange's number if that is larger. Removes entries that no
    /// longer count.
    #[must_use]
    pub fn used(self, now: f64) -> f64 {
        let own = self.own(now);
        if self.is_fresh(now) { own.max(self.get(REPORTED)) } else { own }
    }

    /// Returns how many seconds a request has to wait; infinite means until a request in flight has finished.
    #[must_use]
    pub fn delay(self, weight: f64, now: f64, closing: bool) -> f64 {
        self.claim_delay(Claim { weight, closing, urgent: false, loading: false }, now)
    }

    fn claim_delay(self, claim: Claim, now: f64) -> f64 {
        let weight = claim.weight;
        // What loads and has had its burst leaves the lower half of the account to everything else.
        let kept = if claim.loading && self.is_burst_spent(now) { self.get(COMMON + DEPTH) / 2.0 } else { 0.0 };
        let mut delay = self.account_delay(COMMON, weight.max(kept), now);
        if claim.loading && delay > 0.0 {
            delay = delay.min(self.burst_delay(weight, now));
        }
        if claim.closing && delay > 0.0 {
            delay = delay.min(self.account_delay(CLOSING, weight, now));
        }
        delay = delay.max(self.get(BLOCKED_UNTIL) - now);
        // A request that weighs more than the whole budget is sent when nothing else counts, or it would wait for ever.
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

    /// How long a request has to wait until it may be sent in a burst: while that has spent its part, within one window
    /// after a stop, and where it would take the room of closing candles or of what the common account keeps.
    fn burst_delay(self, weight: f64, now: f64) -> f64 {
        let mut delay = self.get(BLOCKED_UNTIL) + self.get(WINDOW) - now;
        if weight > self.burst_max() {
            return f64::INFINITY;
        }
        if self.is_burst_spent(now) || self.burst(now) + weight > self.burst_max() {
            delay = delay.max(self.get(BURST_UNTIL) - now);
        }
        let room = self.budget() - self.balance(CLOSING, now) - self.get(COMMON + DEPTH);
        let excess = self.own(now) + weight - room;
        if excess > 0.0 {
            delay = delay.max(self.ledger_delay(excess, now));
        }
        if self.is_fresh(now) && self.get(REPORTED) + weight > room {
            delay = delay.max(self.get(REPORTED_AT) + self.get(WINDOW) - now);
        }
        delay.max(0.0)
    }

    /// What a burst may spend: others keep a third of the budget, half of it at least beside the closing candles.
    fn burst_max(self) -> f64 {
        let budget = self.budget();
        (budget * BURST_PART).min(budget * (1.0 - STEADY_PART) - self.get(CLOSING + DEPTH))
    }

    /// Weight of the burst that still counts.
    fn burst(self, now: f64) -> f64 {
        if now < self.get(BURST_UNTIL) { self.get(BURST) } else { 0.0 }
    }

    /// Returns whether a burst counts that has spent its part.
    #[must_use]
    pub fn is_burst_spent(self, now: f64) -> bool {
        self.burst(now) > (self.burst_max() - SAVED_WEIGHT_MIN).max(0.0)
    }

    /// How many times its weight a request costs the common account. While a burst counts, what it left has to flow
    /// evenly until it stops counting: no faster than at the pace that the ledger allows from now on without a pause.
    fn slowness(self, now: f64) -> f64 {
        if self.burst(now) == 0.0 {
            return 1.0;
        }
        let mut room = self.budget() - self.used(now) - self.balance(CLOSING, now);
        let mut rate = f64::INFINITY;
        for number in 0..self.count() {
            let entry = self.entry(number);
            rate = rate.min(room / (self.get(entry + UNTIL) - now));
            room += self.get(entry + WEIGHT);
        }
        // What others keep of a third beside the closing candles; a burst leaves room for that.
        let least = (self.budget() - self.get(CLOSING + DEPTH) - self.burst_max()) / self.get(WINDOW);
        rate = rate.min(room / self.get(WINDOW)).max(least);
        (self.get(COMMON + RATE) / rate).max(1.0)
    }

    fn ledger_delay(self, mut excess: f64, now: f64) -> f64 {
        for number in 0..self.count() {
            let entry = self.entry(number);
            excess -= self.get(entry + WEIGHT);
            if excess <= 0.0 {
                return self.get(entry + UNTIL) - now;
            }
        }
        f64::INFINITY
    }

    fn is_fresh(self, now: f64) -> bool {
        self.get(REPORTED) >= 0.0 && now < self.get(REPORTED_AT) + self.get(WINDOW)
    }

    /// Our own weight that counts. Removes entries that no longer count.
    fn own(self, now: f64) -> f64 {
        while self.count() > 0 {
            let entry = self.entry(0);
            if self.get(entry + UNTIL) > now {
                break;
            }
            self.add(FINISHED, -self.get(entry + WEIGHT));
            self.set_whole(OLDEST, (self.whole(OLDEST) + 1) % RING_MAX as u64);
            self.set_whole(COUNT, self.count() as u64 - 1);
        }
        self.get(FINISHED) + self.get(IN_FLIGHT)
    }

    /// Lets a weight count until one window from now.
    fn count_spent(self, weight: f64, now: f64) {
        self.own(now);
        let (window, count) = (self.get(WINDOW), self.count());
        let mut until = now + window;
        self.add(FINISHED, weight);
        if count > 0 {
            let newest = self.entry(count - 1);
            let moment_of = |time: f64| (time / (window / MOMENTS)).floor();
            // Owners read their clocks before they get the lock, so times may come out of order: the later one counts.
            until = until.max(self.get(newest + UNTIL));
            if moment_of(until) == moment_of(self.get(newest + UNTIL)) || count == RING_MAX {
                self.set(newest + UNTIL, until);
                self.add(newest + WEIGHT, weight);
                return;
            }
        }
        let entry = self.entry(count);
        self.set(entry + UNTIL, until);
        self.set(entry + WEIGHT, weight);
        self.set_whole(COUNT, count as u64 + 1);
    }

    /// Returns where an entry of the ring lies, counted from the oldest.
    fn entry(self, number: usize) -> usize {
        RING + (self.whole(OLDEST) as usize % RING_MAX + number) % RING_MAX * ENTRY_WORDS
    }

    fn balance(self, account: usize, now: f64) -> f64 {
        let (saved, at) = (self.get(account + SAVED), self.get(account + AT));
        let passed = if at == f64::NEG_INFINITY { 0.0 } else { (now - at).max(0.0) };
        self.get(account + DEPTH).min(saved + passed * self.get(account + RATE))
    }

    fn account_delay(self, account: usize, weight: f64, now: f64) -> f64 {
        // A full account allows even a request that weighs more than it can hold.
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

    /// Whether the account for closing candles holds this weight.
    fn is_saved_for(self, weight: f64, now: f64) -> bool {
        self.account_delay(CLOSING, weight, now) <= 0.0
    }

    /// How long an owner has to wait for owners that have waited longer and are about to claim again.
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

    /// Applies the strictest of what the owners name, and sets the accounts accordingly.
    fn share_out(self, now: f64) {
        let shares = self.owned().map(|place| self.get(place + OWN_SHARE)).filter(|&share| share > 0.0);
        self.set(SHARE, shares.reduce(f64::min).unwrap_or(SHARE_UNNAMED));
        let per_second = |&place: &usize| self.get(place + OWN_LIMIT) / self.get(place + OWN_WINDOW);
        let stated = self.owned().filter(|&place| self.get(place + OWN_LIMIT) > 0.0);
        if let Some(strictest) = stated.min_by(|one, other| per_second(one).total_cmp(&per_second(other))) {
            self.set(LIMIT, self.get(strictest + OWN_LIMIT));
            self.set(WINDOW, self.get(strictest + OWN_WINDOW));
        }
        let (budget, window) = (self.budget(), self.get(WINDOW));
        let wanted: f64 = self.owned().map(|place| self.get(place + WANTED)).sum();
        let reserved = wanted.min(budget * RESERVED_PART_MAX);
        let depth = SAVED_WEIGHT_MIN.max(budget * SAVED_SECONDS / window);
        // The rate leaves room for what the accounts can hold, so that a window that starts with full ones stays within
        // the budget.
        let rate = (budget - depth - reserved).max(budget * RESERVED_PART_MAX) / window;
        // What is reserved is there at once, or the first round after a start would wait behind the start itself.
        let is_steady = now >= self.get(BLOCKED_UNTIL) + window;
        let more = if is_steady { (reserved - self.get(CLOSING + DEPTH)).max(0.0) } else { 0.0 };
        self.change_account(COMMON, rate, depth, now);
        self.change_account(CLOSING, reserved / window, reserved, now);
        self.set(CLOSING + SAVED, (self.get(CLOSING + SAVED) + more).min(reserved));
    }

    fn fly(self, place: usize, weight: f64) {
        self.add(place + OWN_IN_FLIGHT, weight);
        self.add(IN_FLIGHT, weight);
    }
}

fn is_whole(place: usize) -> bool {
    let in_owner = (OWNERS..RING).contains(&place).then(|| (place - OWNERS) % OWNER_WORDS);
    [OLDEST, COUNT].contains(&Whole(place)) || in_owner.is_some_and(|field| [TOKEN, PID].contains(&Whole(field)))
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

    fn joined(pool: Pool<'_>, token: u64) -> usize {
        pool.join(token, 1, (6000.0, 60.0), Named { share: 0.75, ..Named::default() }, 0.0, 0.0).expect("a free place")
    }

    #[test]
    fn the_ring_has_room_for_every_finished_request_and_none_stops_counting_early() {
        let words = words();
        let pool = Pool::new(&words);
        let owner = joined(pool, 1);
        // One request finishes every 10 ms for five windows: eight times as many in a window as the ring has entries.
        for step in 0..30_000 {
            let now = f64::from(step) / 100.0;
            pool.count_sent(owner, 1.0, now, false);
            pool.count_finished(owner, 1.0, now, None);
            let exact = f64::from((step + 1).min(6000));
            let counted = pool.used(now);
            assert!(counted >= exact && counted <= exact + 10.0, "{counted} of {exact} at {now}");
            assert!(step % 1000 != 0 || pool.is_plausible());
        }
        assert_eq!(pool.used(400.0), 0.0);
    }

    #[test]
    fn a_copy_of_a_ring_that_wrapped_counts_the_same_weight() {
        let (words, others) = (words(), words());
        let (pool, other) = (Pool::new(&words), Pool::new(&others));
        let owner = joined(pool, 1);
        for step in 0..1000 {
            let now = f64::from(step) / 7.0;
            pool.count_sent(owner, 3.0, now, false);
            pool.count_finished(owner, 3.0, now, Some(5.0));
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
        let mut places: Vec<usize> = (0..OWNERS_MAX).map(|number| joined(pool, 1 + number as u64)).collect();
        assert_eq!(pool.join(99, 1, (1.0, 1.0), Named::default(), 0.0, 0.0), None);
        pool.count_sent(places[5], 7.0, 1.0, false);
        pool.end(places[5], 2.0);
        assert_eq!((pool.get(IN_FLIGHT), pool.get(FINISHED)), (0.0, 7.0));
        assert_eq!(joined(pool, 99), places[5]);
        places.dedup();
        assert_eq!(places.len(), OWNERS_MAX);
    }

    #[test]
    fn contradicting_words_are_not_plausible() {
        let words = words();
        let pool = Pool::new(&words);
        assert!(pool.is_plausible());
        let owner = joined(pool, 1);
        pool.count_sent(owner, 7.0, 1.0, false);
        assert!(pool.is_plausible());
        for (place, value) in [
            (IN_FLIGHT, 8.0),
            (FINISHED, 1.0),
            (LIMIT, -1.0),
            (WINDOW, f64::INFINITY),
            (owner + OWN_IN_FLIGHT, -7.0),
            (BLOCKED_UNTIL, f64::NAN),
        ] {
            let before = pool.get(place);
            pool.set(place, value);
            assert!(!pool.is_plausible(), "word {place:?} as {value}");
            pool.set(place, before);
        }
        for (place, value) in [(COUNT, 721), (OLDEST, 720), (owner + TOKEN, TOKEN_MAX + 1)] {
            let before = pool.whole(place);
            pool.set_whole(place, value);
            assert!(!pool.is_plausible(), "word {place:?} as {value}");
            pool.set_whole(place, before);
        }
        assert!(pool.is_plausible());
    }
}
