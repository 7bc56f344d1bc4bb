//! How a feed takes part in a replay: it has a place in its lockstep from its first wait on, and asks there while it
//! waits.
//!
//! A thread does one thing at a time. So when it waits by one feed, the places of the others by which it waited last do
//! not hold time up meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::thread::gettid;

use crate::error::Error;
use crate::feed::attached::Attached;
use crate::feed::clock;
use crate::layout::{BlockState, header};
use crate::lockstep::{Course, Driver, Lockstep, PLACES};
use crate::shared_memory::{self, FileId};

/// The seats of this process.
static SEATS: Mutex<Vec<Weak<Seat>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A feed's place in a replay.
#[derive(Debug)]
pub(super) struct Seat {
    /// The block.
    block: FileId,
    lockstep: Lockstep,
    place: usize,
    /// The process that took it: a forked child takes one of its own.
    pid: u32,
    /// What moves time on, in the process of the replay.
    driver: Option<Weak<dyn Driver>>,
    /// Who waited here last: the number of a thread.
    holder: AtomicU64,
    /// What each wait that is under way asks for.
    asked: Mutex<Vec<i64>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.lockstep.leave_place(self.place, self.pid.into());
        }
    }
}

/// The seat of a feed, taken with its first wait.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Option<Arc<Seat>>>);

/// What a wait is in, as of before it looked.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    /// A collector's block, or a replay that has no lockstep yet.
    Live,
    /// A replay whose block is closed, and its lockstep gone: its time, epoch ms.
    Gone(i64),
    /// A replay.
    Replay(Arc<Seat>, Course),
}

impl Turns {
    /// Takes part in what the block is in. To be called before each look of a wait.
    pub(super) fn take(&self, attached: &Attached) -> Result<Turn, Error> {
        let block = attached.block();
        let Some(replay_ms) = block.replay_ms() else { return Ok(Turn::Live) };
        let mut seat = lock(&self.0);
        if let Some(seat) = seat.as_ref().filter(|seat| seat.pid == std::process::id() && seat.block == attached.id()) {
            return Ok(Turn::Replay(seat.clone(), seat.lockstep.course()));
        }
        let owner = (block.value(header::PID), block.value(header::PID_START));
        let Some(lockstep) = Lockstep::open(block.name(), owner.0, owner.1)? else {
            let is_there = block.state() == Some(BlockState::Ready);
            return Ok(if is_there { Turn::Live } else { Turn::Gone(replay_ms as i64) });
        };
        let pid = std::process::id();
        let place = lockstep.take_place((pid.into(), clock::process_start()));
        let place = place.ok_or_else(|| Error::LockstepFull { name: block.name().to_owned(), places: PLACES })?;
        let (course, driver) = (lockstep.course(), lockstep.driver());
        let (holder, asked) = (AtomicU64::new(0), Mutex::default());
        let taken = Arc::new(Seat { block: attached.id(), lockstep, place, pid, driver, holder, asked });
        let mut seats = lock(&SEATS);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&taken));
        *seat = Some(taken.clone());
        Ok(Turn::Replay(taken, course))
    }

    /// Gives the seat back.
    pub(super) fn leave(&self) {
        // Dropped behind the lock of nothing else.
        let seat = lock(&self.0).take();
        drop(seat);
    }
}

impl Turn {
    /// Whether time stands still while the waiter is at work.
    pub(super) fn is_lockstep(&self) -> bool {
        matches!(self, Self::Replay(seat, _) if !seat.lockstep.is_clock())
    }

    /// Waits for a later moment after a look in vain, for `slice` at the longest; `sleep` is how a reader of a block
    /// without a lockstep does. What the wait is for cannot come before `until_ms` (0: at any time). `holder` is the
    /// thread for which is waited, `None` for this one.
    pub(super) fn pass(
        &self,
        name: &str,
        until_ms: i64,
        holder: Option<u64>,
        slice: Duration,
        sleep: impl FnOnce(Duration),
    ) -> Result<(), Error> {
        match self {
            Self::Live => sleep(slice),
            Self::Gone(now_ms) => {
                let (start_ms, end_ms, now_ms) = (*now_ms, *now_ms, *now_ms);
                return Err(Error::ReplayEnded { name: name.to_owned(), start_ms, end_ms, now_ms });
            }
            Self::Replay(seat, Course::Ended | Course::Stopped) => return Err(seat.lockstep.ended(name)),
            Self::Replay(seat, Course::Going) => {
                let holder = holder.unwrap_or_else(|| gettid().as_raw_nonzero().get() as u64);
                seat.holder.store(holder, Ordering::Relaxed);
                if seat.lockstep.is_clock() {
                    sleep(slice);
                } else {
                    seat.ask(until_ms, holder, slice);
                }
                // A replay that ends says so, and one that dies does not.
                let is_dead = seat.driver.is_none() && matches!(shared_memory::is_owned(name), Ok(false));
                if is_dead && seat.lockstep.course() == Course::Going {
                    return Err(seat.lockstep.ended(name));
                }
            }
        }
        Ok(())
    }
}

impl Seat {
    /// Asks for a later moment, and waits until it is there, or for a time.
    fn ask(&self, until_ms: i64, holder: u64, slice: Duration) {
        let others = self.others_of(holder);
        others.iter().for_each(|other| other.lockstep.lend(other.place));
        let seen = {
            let mut asked = lock(&self.asked);
            asked.push(until_ms);
            self.lockstep.ask(self.place, asked.iter().copied().min().unwrap_or(0))
        };
        let is_left = match self.driver.as_ref().and_then(Weak::upgrade) {
            Some(driver) => driver.advance(),
            None => {
                self.lockstep.notify();
                false
            }
        };
        if !is_left && self.lockstep.asks(self.place) && self.lockstep.course() == Course::Going {
            self.lockstep.await_grant(self.place, seen, slice);
        }
        let mut asked = lock(&self.asked);
        if let Some(mine) = asked.iter().position(|&other_ms| other_ms == until_ms) {
            asked.swap_remove(mine);
        }
        if asked.is_empty() {
            self.lockstep.hold(self.place);
        }
        drop(asked);
        others.iter().for_each(|other| other.lockstep.hold(other.place));
    }

    /// The other seats of this process by which a thread waited last, and nobody waits now.
    fn others_of(&self, holder: u64) -> Vec<Arc<Self>> {
        let seats = lock(&SEATS);
        let all = seats.iter().filter_map(Weak::upgrade);
        all.filter(|other| {
            !std::ptr::eq(Arc::as_ptr(other), self)
                && other.holder.load(Ordering::Relaxed) == holder
                && other.pid == self.pid
                && lock(&other.asked).is_empty()
        })
        .collect()
    }
}
