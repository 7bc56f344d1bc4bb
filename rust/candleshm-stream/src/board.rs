//! `Board`: what the thread of the streams has to say to the thread that decides.
//!
//! The first never waits for the second: it adds a notice or counts, and wakes the other one only when that sleeps for
//! lack of notices. The second takes all notices at once, at most every [`PAUSE`] unless one is urgent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

#[cfg(not(loom))]
use candleshm::writer::RepairReason;

use crate::session::End;
use crate::sync::{Condvar, Mutex, lock, sleep};

/// How often notices that are not urgent are taken at most.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Something that has to be decided about, or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The upgrade is done.
    Opened,
    /// The connection is gone.
    Ended(End),
    /// The server's reply to a text that was sent to it.
    Reply(Vec<u8>),
    /// The server is about to end the connection.
    ShutsDown,
}

impl Notice {
    /// Whether the deciding thread is woken at once.
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::Reply(_))
    }
}

/// Under loom the core has no writer, and the board does not look at reasons.
#[cfg(loom)]
type RepairReason = ();

/// A row that REST has to settle: symbol, why, and its open time.
pub type Repair = (String, RepairReason, i64);

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Socket reads with texts.
    pub batches: u64,
    /// Klines of the block.
    pub events: u64,
    /// Of these, those older than what was known.
    pub stale: u64,
    /// Rows that became verified.
    pub verified: u64,
    /// Rows for which a response and the stream gave different values.
    pub conflicts: u64,
    /// Klines that cannot be true.
    pub refused: u64,
    /// Texts that could not be read.
    pub faults: u64,
}

/// What the deciding thread takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Notices with their connections, in their order.
    pub notices: Vec<(u64, Notice)>,
    /// Rows that REST has to settle.
    pub repairs: Vec<Repair>,
    /// Klines that cannot be true.
    pub refused: u64,
    /// Why a text could not be read: the newest one.
    pub fault: Option<String>,
    /// Why the thread of the streams ended although nobody stopped it.
    pub failure: Option<String>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.notices.is_empty()
            && self.repairs.is_empty()
            && self.refused == 0
            && self.fault.is_none()
            && self.failure.is_none()
    }
}

#[derive(Default)]
struct State {
    news: News,
    is_urgent: bool,
    counts: Counts,
    events: HashMap<u64, u64>,
    has_ended: bool,
    taken: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    /// Returns an empty board.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the thread of the streams has ended.
    pub fn has_ended(&self) -> bool {
        lock(&self.state).has_ended
    }

    /// Adds a notice about a connection.
    pub fn note(&self, connection: u64, notice: Notice) {
        let mut state = lock(&self.state);
        match notice {
            Notice::Opened => drop(state.events.insert(connection, 0)),
            Notice::Ended(_) => drop(state.events.remove(&connection)),
            _ => {}
        }
        let is_news = state.news.is_empty() || (notice.is_urgent() && !state.is_urgent);
        state.is_urgent |= notice.is_urgent();
        state.news.notices.push((connection, notice));
        if is_news {
            self.changed.notify_all();
        }
    }

    /// Counts what the texts of one read did.
    pub fn count(&self, connection: u64, counts: &Counts, repairs: Vec<Repair>, fault: Option<String>) {
        let mut state = lock(&self.state);
        let was_empty = state.news.is_empty();
        let sum = &mut state.counts;
        sum.batches += counts.batches;
        sum.events += counts.events;
        sum.stale += counts.stale;
        sum.verified += counts.verified;
        sum.conflicts += counts.conflicts;
        sum.refused += counts.refused;
        sum.faults += counts.faults;
        *state.events.entry(connection).or_default() += counts.events;
        state.news.repairs.extend(repairs);
        state.news.refused += counts.refused;
        state.news.fault = fault.or_else(|| state.news.fault.take());
        if was_empty && !state.news.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Notes that the thread of the streams has ended; with a reason when nobody stopped it.
    pub fn end(&self, failure: Option<String>) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        state.is_urgent = true;
        state.news.failure = failure;
        self.changed.notify_all();
    }

    /// Lets a `wait` that is under way, or the next one, return at once.
    pub fn rouse(&self) {
        lock(&self.state).is_urgent = true;
        self.changed.notify_all();
    }

    /// Sleeps until there is news, at most for so long; returns it.
    pub fn wait(&self, most: Duration) -> News {
        let began = Instant::now();
        let mut state = lock(&self.state);
        while !state.is_urgent {
            let now = Instant::now();
            let earliest = match state.taken {
                Some(taken) if cfg!(not(loom)) => taken + PAUSE,
                _ => now,
            };
            let until = if state.news.is_empty() { began + most } else { earliest.min(began + most) };
            if now >= until {
                break;
            }
            state = sleep(&self.changed, state, until - now);
        }
        state.is_urgent = false;
        state.taken = Some(Instant::now());
        std::mem::take(&mut state.news)
    }

    /// Sleeps until the thread of the streams has ended, at most for so long; returns whether it has.
    pub fn wait_for_end(&self, most: Duration) -> bool {
        let began = Instant::now();
        let mut state = lock(&self.state);
        while !state.has_ended {
            let left = most.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            state = sleep(&self.changed, state, left);
        }
        state.has_ended
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Klines that a connection brought; 0 for one that is not open.
    pub fn events(&self, connection: u64) -> u64 {
        lock(&self.state).events.get(&connection).copied().unwrap_or(0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Board, Counts, PAUSE};

    const LONG: Duration = Duration::from_mins(1);

    fn refused(board: &Board) {
        board.count(1, &Counts { refused: 1, ..Counts::default() }, Vec::new(), None);
    }

    #[test]
    fn what_is_not_urgent_is_taken_once_in_a_pause_and_together() {
        let board = Board::new();
        let before = Instant::now();
        refused(&board);
        assert_eq!(board.wait(LONG).refused, 1);
        refused(&board);
        refused(&board);
        assert_eq!(board.wait(LONG).refused, 2);
        assert!(before.elapsed() >= PAUSE);
    }
}
