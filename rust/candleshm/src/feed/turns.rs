//! How a feed takes part in a replay: it has a place in its lockstep from its first wait on, and asks there while it
//! waits.
//!
//! A thread does one thing at a time. So when it waits by one feed, the places of the others by which it waited last do
//! not hold time up meanwhile.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::thread::gettid;

use crate::error::{Error, HoldUp};
use crate::feed::attached::Attached;
use crate::feed::clock;
use crate::layout::{BlockState, header};
use crate::lockstep::{Course, Driver, Lockstep, PLACES};
use crate::shared_memory::{self, FileId};

/// The attendances of this process.
static ATTENDANCES: Mutex<Vec<Weak<Attendance>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// A process, and the number of this thread in it.
    static NUMBER: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
}

/// This process, and the number of the calling thread, as Python's `threading.get_native_id` gives it. The number is
/// remembered: each wait of a replay has several uses for it, and a forked child is another process.
fn here() -> (u32, u64) {
    let pid = std::process::id();
    NUMBER.with(|known| {
        if known.get().0 != pid {
            known.set((pid, gettid().as_raw_nonzero().get() as u64));
        }
        known.get()
    })
}

/// Returns why time stands still in the replay of a block, for the calling thread, `None` when it moves on, and in a
/// block of no replay.
pub(super) fn held_up(attached: &Attached) -> Option<HoldUp> {
    let block = attached.block();
    block.replay_ms()?;
    let owner = (block.value(header::PID), block.value(header::PID_START));
    let lockstep = Lockstep::open(block.name(), owner.0, owner.1).ok().flatten()?;
    let (pid, thread) = here();
    lockstep.held_up(Some((pid.into(), thread)))
}

/// A feed's place in a replay.
#[derive(Debug)]
pub(super) struct Attendance {
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
    /// The waits that are under way.
    asks: Mutex<Asks>,
}

/// Several waits by one feed, at one place.
#[derive(Debug, Default)]
struct Asks {
    newest: u64,
    all: Vec<Ask>,
}

#[derive(Debug)]
struct Ask {
    number: u64,
    until_ms: i64,
    /// How often the place had been let go. Where it was since, time goes on only once this wait has looked.
    grants: u32,
    /// The thread for which is waited.
    holder: u64,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.lockstep.leave_place(self.place, self.pid.into());
        }
    }
}

/// The attendance of a feed, taken with its first wait.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Option<Arc<Attendance>>>);

/// What a wait is in, as of before it looked.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    /// A collector's block, or a replay that has no lockstep yet.
    Live,
    /// A replay whose block is closed, and its lockstep gone: its time, epoch ms.
    Gone(i64),
    /// A replay.
    Replay(Arc<Attendance>, Course),
}

impl Turns {
    /// Takes part in what the block is in. To be called before each look of a wait.
    /// `holder` is the number of the thread for which is waited, `None` for this one.
    pub(super) fn take(&self, attached: &Attached, holder: Option<u64>) -> Result<Turn, Error> {
        let block = attached.block();
        let Some(replay_ms) = block.replay_ms() else { return Ok(Turn::Live) };
        let (pid, thread) = here();
        let holder = holder.unwrap_or(thread);
        let mut attendance = lock(&self.0);
        if let Some(attendance) =
            attendance.as_ref().filter(|attendance| attendance.pid == pid && attendance.block == attached.id())
        {
            if attendance.holder.swap(holder, Ordering::Relaxed) != holder {
                // Another thread than before, for which the place may wait elsewhere, has it from here on.
                attendance.lockstep.set_thread(attendance.place, holder);
                attendance.lockstep.take_back(attendance.place);
            }
            return Ok(Turn::Replay(attendance.clone(), attendance.lockstep.course()));
        }
        let owner = (block.value(header::PID), block.value(header::PID_START));
        let Some(lockstep) = Lockstep::open(block.name(), owner.0, owner.1)? else {
            let is_there = block.state() == Some(BlockState::Ready);
            return Ok(if is_there { Turn::Live } else { Turn::Gone(replay_ms as i64) });
        };
        let place = lockstep.take_place((pid.into(), clock::process_start()));
        let place = place.ok_or_else(|| Error::LockstepFull { name: block.name().to_owned(), places: PLACES })?;
        lockstep.set_thread(place, holder);
        let (course, driver) = (lockstep.course(), lockstep.driver());
        let (holder, asks) = (AtomicU64::new(holder), Mutex::default());
        let taken = Arc::new(Attendance { block: attached.id(), lockstep, place, pid, driver, holder, asks });
        let mut attendances = lock(&ATTENDANCES);
        attendances.retain(|attendance| attendance.strong_count() > 0);
        attendances.push(Arc::downgrade(&taken));
        *attendance = Some(taken.clone());
        Ok(Turn::Replay(taken, course))
    }

    /// Gives the attendance back.
    pub(super) fn leave(&self) {
        // Dropped behind the lock of nothing else.
        let attendance = lock(&self.0).take();
        drop(attendance);
    }
}

impl Turn {
    /// Whether time stands still while the waiter is at work.
    pub(super) fn is_lockstep(&self) -> bool {
        matches!(self, Self::Replay(attendance, _) if !attendance.lockstep.is_clock())
    }

    /// Waits for a later moment after a look in vain, for `slice` at the longest; `sleep` is how a reader of a block
    /// without a lockstep does. What the wait is for cannot come before `until_ms` (0: at any time). `before` is the
    /// number of what was passed before, which is resolved by it. Returns the number to [`Self::resolve`] after the next
    /// look, 0 for none.
    pub(super) fn pass(
        &self,
        name: &str,
        until_ms: i64,
        before: u64,
        slice: Duration,
        sleep: impl FnOnce(Duration),
    ) -> Result<u64, Error> {
        let (attendance, course) = match self {
            Self::Live => {
                sleep(slice);
                return Ok(0);
            }
            Self::Gone(now_ms) => {
                let (start_ms, end_ms, now_ms) = (*now_ms, *now_ms, *now_ms);
                return Err(Error::ReplayEnded { name: name.to_owned(), start_ms, end_ms, now_ms });
            }
            Self::Replay(attendance, course) => (attendance, course),
        };
        if *course != Course::Going {
            attendance.resolve(before);
            return Err(attendance.lockstep.ended(name));
        }
        let number = if attendance.lockstep.is_clock() {
            sleep(slice);
            0
        } else {
            attendance.ask(until_ms, before, slice)
        };
        // A replay that ends says so, and one that dies does not.
        let is_dead = attendance.driver.is_none() && matches!(shared_memory::is_owned(name), Ok(false));
        if is_dead && attendance.lockstep.course() == Course::Going {
            attendance.resolve(number);
            return Err(attendance.lockstep.ended(name));
        }
        Ok(number)
    }

    /// Says that whoever passed has looked, and has done what there was to do, or passes again.
    pub(super) fn resolve(&self, number: u64) {
        if let Self::Replay(attendance, _) = self {
            attendance.resolve(number);
        }
    }
}

impl Attendance {
    /// Asks for a later moment, and waits until it is there, or for a time.
    fn ask(&self, until_ms: i64, before: u64, slice: Duration) -> u64 {
        let holder = self.holder.load(Ordering::Relaxed);
        let here = here();
        let others = Lent::of((here.0, holder), Some(self));
        let seen = self.lockstep.grants(self.place);
        let number = {
            let mut asks = lock(&self.asks);
            asks.newest += 1;
            let (number, grants) = (asks.newest, self.lockstep.grants(self.place));
            asks.all.retain(|ask| ask.number != before);
            if holder == here.1 {
                // It waits here, so it is not at work on what others waited for on its behalf.
                asks.all.iter_mut().filter(|ask| ask.holder == holder).for_each(|ask| ask.grants = grants);
            }
            asks.all.push(Ask { number, until_ms, grants, holder });
            self.settle(&asks);
            number
        };
        let is_left = if let Some(driver) = self.driver.as_ref().and_then(Weak::upgrade) {
            driver.advance()
        } else {
            self.lockstep.notify();
            false
        };
        // Whoever moved time on itself was mostly let go by that.
        let is_let_go = self.lockstep.grants(self.place) != seen;
        if !is_left && !is_let_go && self.lockstep.course() == Course::Going {
            self.lockstep.await_grant(self.place, seen, slice);
        }
        drop(others);
        number
    }

    /// Asks what the waits ask together, or nothing as long as one of them still looks.
    fn settle(&self, asks: &Asks) {
        let grants = self.lockstep.grants(self.place);
        if asks.all.iter().any(|ask| ask.grants != grants) {
            return;
        }
        match asks.all.iter().map(|ask| ask.until_ms).min() {
            Some(until_ms) => self.lockstep.ask(self.place, until_ms),
            None => self.lockstep.hold(self.place),
        }
    }

    fn resolve(&self, number: u64) {
        let mut asks = lock(&self.asks);
        let Some(mine) = asks.all.iter().position(|ask| ask.number == number) else { return };
        asks.all.swap_remove(mine);
        self.settle(&asks);
        if !asks.all.is_empty() {
            self.lockstep.notify();
        }
    }
}

/// The attendances by which a thread waited last, and nobody waits now: they do not hold time up while this is there,
/// because the thread waits elsewhere.
#[derive(Debug)]
pub(crate) struct Lent(Vec<Arc<Attendance>>);

impl Drop for Lent {
    fn drop(&mut self) {
        for lent in &self.0 {
            lent.lockstep.take_back(lent.place);
        }
    }
}

impl Lent {
    /// Lends the places of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        Self::of(here(), None)
    }

    /// Lends the places of a thread of this process, all but one.
    fn of((pid, holder): (u32, u64), but: Option<&Attendance>) -> Self {
        let attendances = lock(&ATTENDANCES);
        let all = attendances.iter().filter_map(Weak::upgrade);
        let idle = all.filter(|other| {
            !but.is_some_and(|but| std::ptr::eq(Arc::as_ptr(other), but))
                && other.holder.load(Ordering::Relaxed) == holder
                && other.pid == pid
                && lock(&other.asks).all.is_empty()
        });
        let idle: Vec<_> = idle.collect();
        for other in &idle {
            other.lockstep.lend(other.place);
        }
        Self(idle)
    }
}
