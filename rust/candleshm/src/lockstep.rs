//! The lockstep of a replay: who reads it, what each waits for, and what time it is there.
//!
//! A file of its own beside the block, `/dev/shm/.NAME.lockstep`, which readers may write, as they may not write blocks.
//! Each has a place in it. Time stands still while the reader of any place is at work; whoever moves it on lets those go
//! whose wait may be over. Blocks that are derived have a link to the same file.

use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Corruption, Error, HoldUp};
use crate::shared_memory::{self, FileId, Mapping};
use crate::sync::{AtomicU64, Ordering::SeqCst};

const MAGIC: u64 = u64::from_le_bytes(*b"CSHMTURN");
const VERSION: u64 = 1;
const ENDING: &str = "lockstep";
/// Places for those who read.
pub const PLACES: usize = 64;

/// Words of the file.
mod word {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    /// [`super::Course`].
    pub(super) const COURSE: usize = 2;
    /// The replayed time, epoch ms.
    pub(super) const NOW_MS: usize = 3;
    /// Futex (low half): counts what readers say that the replay has to look at.
    pub(super) const TURN: usize = 4;
    pub(super) const PID: usize = 5;
    pub(super) const PID_START: usize = 6;
    pub(super) const START_MS: usize = 7;
    pub(super) const END_MS: usize = 8;
    /// 1 when time goes on without awaiting anybody.
    pub(super) const IS_CLOCK: usize = 9;
    /// How many readers have to come before time begins to move; 0 once it may.
    pub(super) const AWAITED: usize = 10;
    /// The first place.
    pub(super) const PLACES: usize = 64;
}

/// Words of a place; on a cache line of its own.
mod place {
    /// The reader's process, 0 while the place is free.
    pub(super) const PID: usize = 0;
    pub(super) const PID_START: usize = 1;
    /// 0 while the reader is at work; else one more than the time before which its wait cannot be over, epoch ms.
    pub(super) const ASK: usize = 2;
    /// Futex (low half): counts how often the reader was let go.
    pub(super) const GRANTS: usize = 3;
    /// How many threads sleep on the word before.
    pub(super) const SLEEPERS: usize = 4;
    /// The thread that waited here last, 0 while it is not known.
    pub(super) const THREAD: usize = 5;
    pub(super) const WORDS: usize = 8;
}

const WORDS: usize = word::PLACES + PLACES * place::WORDS;
/// The file, in whole pages.
const BYTES: usize = (WORDS * 8).next_multiple_of(4096);
/// What a reader asks that is not to be let go: it waits elsewhere.
const ELSEWHERE: u64 = u64::MAX;

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Course {
    /// There are moments to come.
    Going = 1,
    /// The last moment is over.
    Ended = 2,
    /// It was ended before that.
    Stopped = 3,
}

/// What moves time on. A thread of its process that waits does so itself, when nobody else is at work.
pub trait Driver: Send + Sync {
    /// Moves time on for as long as nobody is at work; returns whether it left off before that.
    fn advance(&self) -> bool;
}

type Driven = (FileId, u32, Weak<dyn Driver>);

/// The replays of this process: the file, the process that began it (a forked child has the list, and may not move
/// time), and what moves it.
static DRIVERS: Mutex<Vec<Driven>> = Mutex::new(Vec::new());

/// The mapped file.
#[derive(Debug)]
pub struct Lockstep {
    mapping: Mapping,
    id: FileId,
}

impl Lockstep {
    /// Creates the file of a block, in place of one that a dead replay left. Only for the owner of the block.
    ///
    /// # Errors
    ///
    /// `Os`, `NoMemory`.
    pub fn create(
        name: &str,
        (pid, pid_start): (u64, u64),
        (start_ms, end_ms): (i64, i64),
        is_clock: bool,
    ) -> Result<Self, Error> {
        let file = shared_memory::create_beside(name, ENDING, BYTES)?;
        let this = Self { mapping: file.map(true)?, id: file.id()? };
        for (offset, value) in [
            (word::VERSION, VERSION),
            (word::COURSE, Course::Going as u64),
            (word::NOW_MS, start_ms as u64),
            (word::PID, pid),
            (word::PID_START, pid_start),
            (word::START_MS, start_ms as u64),
            (word::END_MS, end_ms as u64),
            (word::IS_CLOCK, is_clock.into()),
            (word::MAGIC, MAGIC),
        ] {
            this.mapping[offset].store(value, SeqCst);
        }
        shared_memory::link_beside(&file, name, ENDING)?;
        Ok(this)
    }

    /// Gives the file the name that belongs to a further block.
    ///
    /// # Errors
    ///
    /// `Os`.
    pub fn link(&self, name: &str, derived: &str) -> Result<(), Error> {
        let file = shared_memory::open_beside(name, ENDING)?;
        shared_memory::link_beside(&file, derived, ENDING)
    }

    /// Removes the name that belongs to a block, if it leads to this file.
    pub fn unlink(&self, name: &str) {
        shared_memory::unlink_beside(name, ENDING, self.id);
    }

    /// Opens the file of a block, of the process that owns the block; `None` when there is none of that process, as in
    /// the moment before the first readers are let in.
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Os` (not permitted, for one), `Owner`.
    pub fn open(name: &str, pid: u64, pid_start: u64) -> Result<Option<Self>, Error> {
        let file = match shared_memory::open_beside(name, ENDING) {
            Err(Error::NotFound { .. }) => return Ok(None),
            file => file?,
        };
        let (mapping, id) = (file.map(true)?, file.id()?);
        let damaged = |field: &'static str, value: u64| Error::Corrupt {
            name: format!(".{name}.{ENDING}"),
            what: Corruption::Field { field, value },
        };
        if mapping.len() * 8 != BYTES {
            return Err(damaged("size", mapping.len() as u64 * 8));
        }
        let this = Self { mapping, id };
        for (field, offset, expected) in [("magic", word::MAGIC, MAGIC), ("version", word::VERSION, VERSION)] {
            if this.value(offset) != expected {
                return Err(damaged(field, this.value(offset)));
            }
        }
        let is_of = this.value(word::PID) == pid && this.value(word::PID_START) == pid_start;
        Ok(is_of.then_some(this))
    }

    fn value(&self, offset: usize) -> u64 {
        self.mapping[offset].load(SeqCst)
    }

    fn place(&self, place: usize) -> &[AtomicU64] {
        &self.mapping[word::PLACES + place * place::WORDS..][..place::WORDS]
    }

    /// Returns the replayed time, epoch ms.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.value(word::NOW_MS) as i64
    }

    /// Returns how far the replay has come; a number without a meaning counts as stopped.
    #[must_use]
    pub fn course(&self) -> Course {
        match self.value(word::COURSE) {
            1 => Course::Going,
            2 => Course::Ended,
            _ => Course::Stopped,
        }
    }

    /// Whether time goes on without awaiting anybody.
    #[must_use]
    pub fn is_clock(&self) -> bool {
        self.value(word::IS_CLOCK) != 0
    }

    /// Returns the error of a wait that nothing ends any more, in the block `name`.
    #[must_use]
    pub fn ended(&self, name: &str) -> Error {
        let (start_ms, end_ms) = (self.value(word::START_MS) as i64, self.value(word::END_MS) as i64);
        Error::ReplayEnded { name: name.to_owned(), start_ms, end_ms, now_ms: self.now_ms() }
    }

    // What readers do.

    /// Takes a free place, `None` when there is none. From here on time stands still until the reader asks.
    #[must_use]
    pub fn take_place(&self, (pid, pid_start): (u64, u64)) -> Option<usize> {
        let taken = (0..PLACES)
            .find(|&place| self.place(place)[place::PID].compare_exchange(0, pid, SeqCst, SeqCst).is_ok())?;
        self.place(taken)[place::THREAD].store(0, SeqCst);
        self.place(taken)[place::PID_START].store(pid_start, SeqCst);
        self.notify();
        Some(taken)
    }

    /// Gives a place back, if the process still has it.
    pub fn leave_place(&self, place: usize, pid: u64) {
        let words = self.place(place);
        if words[place::PID].load(SeqCst) == pid {
            words[place::ASK].store(0, SeqCst);
            words[place::PID_START].store(0, SeqCst);
            words[place::PID].store(0, SeqCst);
            self.notify();
        }
    }

    /// Asks to be let go at a time at which a wait may be over; any moment that is later than now will do for 0.
    pub fn ask(&self, place: usize, until_ms: i64) {
        self.place(place)[place::ASK].store(until_ms.max(0) as u64 + 1, SeqCst);
    }

    /// Returns how often the reader was let go, which [`Self::await_grant`] compares.
    #[must_use]
    pub fn grants(&self, place: usize) -> u32 {
        self.place(place)[place::GRANTS].load(SeqCst) as u32
    }

    /// Asks nothing while the reader waits elsewhere: its place does not hold time up.
    pub fn lend(&self, place: usize) {
        self.place(place)[place::ASK].store(ELSEWHERE, SeqCst);
    }

    /// Says which thread of its process the reader is.
    pub fn set_thread(&self, place: usize, thread: u64) {
        self.place(place)[place::THREAD].store(thread, SeqCst);
    }

    /// Holds time up again, if the place still waits elsewhere.
    pub fn take_back(&self, place: usize) {
        let _ = self.place(place)[place::ASK].compare_exchange(ELSEWHERE, 0, SeqCst, SeqCst);
    }

    /// Holds time up again.
    pub fn hold(&self, place: usize) {
        self.place(place)[place::ASK].store(0, SeqCst);
    }

    /// Whether the reader asks for anything.
    #[must_use]
    pub fn asks(&self, place: usize) -> bool {
        self.place(place)[place::ASK].load(SeqCst) != 0
    }

    /// Tells a replay in another process, or another thread, that something changed.
    pub fn notify(&self) {
        self.mapping[word::TURN].fetch_add(1, SeqCst);
        shared_memory::futex_wake(&self.mapping[word::TURN]);
    }

    /// Sleeps until the reader is let go, or for a time.
    pub fn await_grant(&self, place: usize, seen: u32, timeout: Duration) {
        let words = self.place(place);
        words[place::SLEEPERS].fetch_add(1, SeqCst);
        shared_memory::futex_wait(&words[place::GRANTS], seen, timeout);
        words[place::SLEEPERS].fetch_sub(1, SeqCst);
    }

    /// Returns what moves this time on, where that is this process.
    #[must_use]
    pub fn driver(&self) -> Option<Weak<dyn Driver>> {
        let drivers = DRIVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id();
        drivers.iter().find(|(id, owner, _)| *id == self.id && *owner == pid).map(|(_, _, driver)| driver.clone())
    }

    // What the replay does.

    /// Lets threads of this process that wait move time on themselves.
    pub fn set_driver(&self, driver: Weak<dyn Driver>) {
        let mut drivers = DRIVERS.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|(_, _, driver)| driver.strong_count() > 0);
        drivers.push((self.id, std::process::id(), driver));
    }

    /// Returns how many places are taken, and how many of their readers are at work.
    #[must_use]
    pub fn readers(&self) -> (usize, usize) {
        let taken = (0..PLACES).filter(|&place| self.place(place)[place::PID].load(SeqCst) != 0);
        taken.fold((0, 0), |(all, busy), place| (all + 1, busy + usize::from(!self.asks(place))))
    }

    /// Says how many readers have to come before time begins to move, 0 when it may.
    pub fn set_awaited(&self, readers: usize) {
        self.mapping[word::AWAITED].store(readers as u64, SeqCst);
    }

    /// Returns why time stands still in lockstep, `None` when it moves on; a reader at work that is the thread `but` of
    /// that process does not count.
    #[must_use]
    pub fn held_up(&self, but: Option<(u64, u64)>) -> Option<HoldUp> {
        if self.is_clock() || self.course() != Course::Going {
            return None;
        }
        let taken = (0..PLACES).filter(|&place| self.place(place)[place::PID].load(SeqCst) != 0);
        let (asking, busy): (Vec<_>, Vec<_>) = taken.partition(|&place| self.asks(place));
        let (readers, awaited) = (asking.len() + busy.len(), self.value(word::AWAITED) as usize);
        let who =
            |place: usize| [place::PID, place::THREAD].map(|offset| self.place(place)[offset].load(SeqCst)).into();
        let busy: Vec<(u64, u64)> = busy.into_iter().map(who).filter(|&who| Some(who) != but).collect();
        (readers < awaited || !busy.is_empty()).then_some(HoldUp { readers, awaited, busy })
    }

    /// Whether somebody waits here, so that moving time on can end a wait.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        (0..PLACES).any(|place| !matches!(self.place(place)[place::ASK].load(SeqCst), 0 | ELSEWHERE))
    }

    /// Lets everybody go whose wait may be over at this time.
    pub fn grant(&self, now_ms: i64) {
        self.show(now_ms);
        for place in 0..PLACES {
            let words = self.place(place);
            let asked = words[place::ASK].load(SeqCst);
            if asked != 0 && asked <= now_ms as u64 + 1 {
                Self::let_go(words);
            }
        }
    }

    /// Shows the time, and lets nobody go: the end does that.
    pub fn show(&self, now_ms: i64) {
        self.mapping[word::NOW_MS].store(now_ms as u64, SeqCst);
    }

    fn let_go(words: &[AtomicU64]) {
        words[place::ASK].store(0, SeqCst);
        words[place::GRANTS].fetch_add(1, SeqCst);
        if words[place::SLEEPERS].load(SeqCst) > 0 {
            shared_memory::futex_wake(&words[place::GRANTS]);
        }
    }

    /// Ends the course, and everybody's wait.
    pub fn end(&self, course: Course) {
        if self.course() == Course::Going {
            self.mapping[word::COURSE].store(course as u64, SeqCst);
        }
        (0..PLACES).for_each(|place| Self::let_go(self.place(place)));
        self.notify();
    }

    /// Frees the places of processes that are no more.
    pub fn free_dead(&self) {
        for place in 0..PLACES {
            let words = self.place(place);
            let (pid, pid_start) = (words[place::PID].load(SeqCst), words[place::PID_START].load(SeqCst));
            if pid != 0 && !is_alive(pid, pid_start) {
                self.leave_place(place, pid);
            }
        }
    }

    /// Returns the number that [`Self::await_turn`] compares.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.value(word::TURN) as u32
    }

    /// Sleeps until somebody asks, comes or goes, or for a time.
    pub fn await_turn(&self, seen: u32, timeout: Duration) {
        shared_memory::futex_wait(&self.mapping[word::TURN], seen, timeout);
    }
}

/// Removes the file that a dead replay left beside its block. Only for the owner of the block.
pub fn remove_left(name: &str) {
    if let Ok(id) = shared_memory::open_beside(name, ENDING).and_then(|file| file.id()) {
        shared_memory::unlink_beside(name, ENDING, id);
    }
}

/// Whether a process is there that started then (clock ticks since boot; 0: whenever). One that nobody has waited for
/// yet is dead.
fn is_alive(pid: u64, pid_start: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X"));
    let start = fields.nth(18).and_then(|start| start.parse().ok()).unwrap_or(0_u64);
    !is_dead && (pid_start == 0 || start == pid_start)
}
