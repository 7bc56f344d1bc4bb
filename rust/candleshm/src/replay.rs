//! `Replay`: history, published in order of time into a block as if it happened now.

mod line;
mod timeline;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::block::Block;
use crate::columns::Row;
use crate::error::{Error, HoldUp};
use crate::feed::{Lent, clock};
use crate::interval::Grid;
use crate::layout::{RowState, header};
use crate::lockstep::{Course, Driver, Lockstep, PLACES};
use crate::sync::Ordering::Relaxed;
use crate::writer::{Config, Health, Owner, Writer};

pub use line::Inside;
use timeline::Timeline;

/// Brings the rows that open from a time (epoch ms) on, by [`Replay::give`], and returns the open time up to which all
/// rows were given then; `None` when it failed.
pub type More = Box<dyn Fn(i64) -> Option<i64> + Send + Sync>;

/// What a replay is of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The block. Its symbols are all that are ever listed; places for them are reserved.
    pub config: Config,
    /// Further blocks: name, candles, LENGTH.
    pub derived: Vec<(String, Grid, usize)>,
    /// When the replay starts, epoch ms.
    pub start_ms: i64,
    /// When it ends: the candles that close until then are shown.
    pub end_ms: i64,
    /// What is shown of candles before they close.
    pub inside: Option<Inside>,
    /// How many times faster than the clock; `None`: in lockstep with those who read.
    pub speed: Option<f64>,
    /// How many who read are awaited before the first moment.
    pub consumers: usize,
}

/// Rows on their way into the timeline: they are given while the timeline is at work.
#[derive(Debug, Default)]
struct Given {
    rows: Vec<(String, Vec<(Row, RowState)>)>,
    seconds: Vec<(String, Vec<Row>)>,
}

/// What one thread at a time moves on.
struct Stage {
    timeline: Timeline,
    /// `None` before the beginning and after the end.
    writer: Option<Writer>,
    /// Whether the last moment was published, or the replay was ended.
    has_ended: bool,
    /// Whether as many readers have come as were awaited, or nobody is awaited.
    is_gathered: bool,
    /// Since when the clock runs, of the machine, and from which replayed time on, both in ms.
    started_ms: Option<(u64, i64)>,
    /// When the dead were last looked for, of the machine.
    freed_ms: u64,
    /// Whether moments were published, and those who watch without taking part were not woken yet.
    is_untold: bool,
}

/// What stays of a beginning, whoever moves time on.
struct Begun {
    lockstep: Lockstep,
    /// The blocks, for their signs of life: these must not wait for whoever moves time on.
    blocks: Vec<Block>,
}

/// History on its way into a block.
pub struct Replay {
    name: String,
    plan: Plan,
    stage: Mutex<Stage>,
    begun: OnceLock<Begun>,
    given: Mutex<Given>,
    more: More,
    /// Whether `run` is under way: time moves on also when nobody reads.
    is_running: AtomicBool,
    /// The newest moment, epoch ms.
    now_ms: AtomicI64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replay {
    /// Prepares a replay; nothing is taken yet.
    ///
    /// # Errors
    ///
    /// `Argument` for times, a speed or consumers that cannot be; `Derivation` when live rows of candles of 1s are
    /// wanted in candles that are not made of them.
    pub fn new(name: &str, plan: Plan, more: More) -> Result<Self, Error> {
        if let Some(speed) = plan.speed
            && !(speed.is_finite() && speed > 0.0)
        {
            return Err(Error::Argument(format!("speed must be above 0: `{speed}`")));
        }
        let kind = (plan.config.interval, plan.config.price);
        let timeline = Timeline::new(kind, plan.inside, &plan.config.symbols, (plan.start_ms, plan.end_ms))?;
        if plan.consumers > PLACES {
            return Err(Error::Argument(format!("consumers must be at most {PLACES}: `{}`", plan.consumers)));
        }
        let is_gathered = plan.consumers == 0;
        let stage = Stage {
            timeline,
            writer: None,
            has_ended: false,
            is_gathered,
            started_ms: None,
            freed_ms: clock::now_ms(),
            is_untold: false,
        };
        Ok(Self {
            name: name.to_owned(),
            now_ms: AtomicI64::new(plan.start_ms),
            plan,
            stage: Mutex::new(stage),
            begun: OnceLock::new(),
            given: Mutex::default(),
            more,
            is_running: AtomicBool::new(false),
        })
    }

    /// Returns the name of the block.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives candles of a symbol that are to come, ascending; those that it was given before are left out. A hole may
    /// have NaN in all columns: it lies behind the row before it.
    pub fn give(&self, symbol: &str, rows: Vec<(Row, RowState)>) {
        lock(&self.given).rows.push((symbol.to_owned(), rows));
    }

    /// Gives candles of 1s of a symbol, ascending.
    pub fn give_inside(&self, symbol: &str, rows: Vec<Row>) {
        lock(&self.given).seconds.push((symbol.to_owned(), rows));
    }

    /// Says when the first candle of a symbol opens, and when its newest one ends.
    pub fn set_life(&self, symbol: &str, listed_ms: Option<i64>, ended_ms: Option<i64>) {
        lock(&self.stage).timeline.set_life(symbol, listed_ms, ended_ms);
    }

    /// Takes the name, and publishes the newest so many rows of before the start. From now on readers can attach.
    ///
    /// # Errors
    ///
    /// As [`Writer::open_replayed`] and [`Writer::derive`]; `Argument` when rows cannot be had, and for a replay that
    /// has begun.
    pub fn begin(self: &Arc<Self>, warm_rows: usize, owner: Owner) -> Result<(), Error> {
        let mut stage = lock(&self.stage);
        if stage.writer.is_some() || stage.has_ended {
            return Err(Error::Argument(format!("a replay begins once: `{}`", self.name)));
        }
        stage.timeline.reach_back(warm_rows);
        self.bring_until(&mut stage.timeline, self.plan.start_ms)?;
        let first = stage.timeline.first_symbols();
        let spare_symbols = self.plan.config.symbols.len() - first.len() + self.plan.config.spare_symbols;
        let config = Config { symbols: first, spare_symbols, ..self.plan.config.clone() };
        let mut writer = Writer::open_replayed(&self.name, &config, owner, self.plan.start_ms as u64)?;
        let filled = self.fill(&mut writer, &mut stage.timeline, warm_rows, owner).and_then(|()| self.prepare(owner));
        let begun = match filled {
            Ok(begun) => begun,
            Err(error) => {
                writer.abandon();
                return Err(error);
            }
        };
        let driver: Weak<dyn Driver> = Arc::downgrade(&(self.clone() as Arc<dyn Driver>));
        begun.lockstep.set_driver(driver);
        // The stage, which is locked, lets it be set once.
        let _ = self.begun.set(begun);
        writer.set_health(&Health { ready: true, ..Health::default() });
        writer.commit();
        stage.writer = Some(writer);
        drop(stage);
        let replay = Arc::downgrade(self);
        let spawned = std::thread::Builder::new().name("candleshm-replay".into()).spawn(move || {
            while let Some(replay) = replay.upgrade()
                && replay.attend()
            {}
        });
        spawned.map(|_| ()).map_err(|error| {
            let _ = self.close();
            let errno = error.raw_os_error().unwrap_or(0);
            Error::Os { action: "start the thread of replay", name: self.name.clone(), errno }
        })
    }

    /// Puts a lockstep beside the blocks.
    fn prepare(&self, owner: Owner) -> Result<Begun, Error> {
        let range = (self.plan.start_ms, self.plan.end_ms);
        let lockstep = Lockstep::create(&self.name, (owner.pid, owner.pid_start), range, self.plan.speed.is_some())?;
        lockstep.set_awaited(self.plan.consumers);
        for (name, _, _) in &self.plan.derived {
            lockstep.link(&self.name, name)?;
        }
        let blocks = self.names().map(|name| Block::open_to_write(name, owner.boot_id)).collect::<Result<_, _>>()?;
        Ok(Begun { lockstep, blocks })
    }

    /// The names of all blocks.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.plan.derived.iter().map(|(name, _, _)| name.as_str()))
    }

    fn fill(&self, writer: &mut Writer, timeline: &mut Timeline, warm_rows: usize, owner: Owner) -> Result<(), Error> {
        for (name, grid, length) in &self.plan.derived {
            writer.derive(name, *grid, *length, owner)?;
        }
        timeline.warm(writer, warm_rows)
    }

    /// Has rows brought until all that open before a time were given.
    fn bring_until(&self, timeline: &mut Timeline, until_ms: i64) -> Result<(), Error> {
        self.take_given(timeline);
        while timeline.given_ms() < until_ms {
            let from_ms = timeline.given_ms();
            let given_ms = (self.more)(from_ms);
            self.take_given(timeline);
            match given_ms {
                Some(given_ms) if given_ms > from_ms => timeline.set_given(given_ms),
                _ => {
                    return Err(Error::Argument(format!(
                        "the replay `{}` got no rows from {from_ms} ms on; it cannot go on",
                        self.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn take_given(&self, timeline: &mut Timeline) {
        let Given { rows, seconds } = std::mem::take(&mut *lock(&self.given));
        for (symbol, rows) in rows {
            timeline.give(&symbol, rows);
        }
        for (symbol, rows) in &seconds {
            timeline.give_seconds(symbol, rows);
        }
        timeline.set_given(timeline.given_ms());
    }

    /// Returns the replayed time, epoch ms.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Returns how many readers take part, and how many of them are at work.
    #[must_use]
    pub fn readers(&self) -> (usize, usize) {
        self.begun.get().map_or((0, 0), |begun| begun.lockstep.readers())
    }

    /// Returns why time stands still although somebody waits for it, `None` when it moves on, or nobody waits.
    #[must_use]
    pub fn held_up(&self) -> Option<HoldUp> {
        let lockstep = &self.begun.get()?.lockstep;
        let is_wanted = self.is_running.load(Ordering::Relaxed) || lockstep.is_asked();
        if is_wanted { lockstep.held_up(None) } else { None }
    }

    /// Publishes the next moment, whoever reads; returns false, and does nothing, at the end.
    ///
    /// # Errors
    ///
    /// `Argument` when rows cannot be had, and for a replay that has not begun.
    pub fn step(&self) -> Result<bool, Error> {
        self.step_on(&mut lock(&self.stage))
    }

    fn step_on(&self, stage: &mut Stage) -> Result<bool, Error> {
        if stage.has_ended {
            return Ok(false);
        }
        let next_ms = self.next_ms(stage)?;
        self.publish(stage, next_ms)?;
        Ok(true)
    }

    /// Returns when the next moment is, with its rows at hand.
    fn next_ms(&self, stage: &mut Stage) -> Result<i64, Error> {
        if stage.writer.is_none() {
            return Err(Error::Argument(format!("the replay has not begun: `{}`", self.name)));
        }
        loop {
            if let Some(next_ms) = stage.timeline.next_ms() {
                return Ok(next_ms);
            }
            let until_ms = stage.timeline.given_ms() + 1;
            let brought = self.bring_until(&mut stage.timeline, until_ms);
            if brought.is_err() {
                self.end(stage, Course::Stopped);
            }
            brought?;
        }
    }

    fn publish(&self, stage: &mut Stage, now_ms: i64) -> Result<(), Error> {
        let (Some(writer), Some(begun)) = (&mut stage.writer, self.begun.get()) else { return Ok(()) };
        stage.timeline.publish(writer, now_ms)?;
        self.now_ms.store(now_ms, Ordering::Relaxed);
        if begun.lockstep.is_clock() {
            writer.wake();
        } else {
            // Who takes part is let go by the lockstep. Whoever only watches need not be woken a million times a second.
            stage.is_untold = true;
        }
        if now_ms < self.plan.end_ms {
            begun.lockstep.grant(now_ms);
        } else {
            // All are let go by the end itself: whoever asks for one moment more has to find that there is none, and not
            // what is announced at the end.
            begun.lockstep.show(now_ms);
            self.end(stage, Course::Ended);
        }
        Ok(())
    }

    /// Ends the course: whoever waits goes.
    fn end(&self, stage: &mut Stage, course: Course) {
        stage.has_ended = true;
        if let Some(begun) = self.begun.get() {
            begun.lockstep.end(course);
        }
        if let Some(writer) = &stage.writer {
            writer.wake_all();
        }
    }

    /// Moves time on for as long as nobody is at work, and somebody waits or `run` is under way. Returns whether it left
    /// off before that.
    fn advance_on(&self, stage: &mut Stage) -> Result<bool, Error> {
        let Some(Begun { lockstep, .. }) = self.begun.get() else { return Ok(false) };
        if self.plan.speed.is_some() {
            return Ok(false);
        }
        let until_ms = clock::now_ms() + LOOK_MS;
        let mut steps = 0_u32;
        loop {
            let (readers, busy) = lockstep.readers();
            let is_running = self.is_running.load(Ordering::Relaxed);
            if !stage.is_gathered && (is_running || readers >= self.plan.consumers) {
                stage.is_gathered = true;
                lockstep.set_awaited(0);
            }
            let is_wanted = is_running || stage.is_gathered && lockstep.is_asked();
            if stage.has_ended || busy > 0 || !is_wanted {
                return Ok(false);
            }
            self.step_on(stage)?;
            steps += 1;
            if steps.is_multiple_of(16) && clock::now_ms() >= until_ms {
                return Ok(true);
            }
        }
    }

    /// Moves time on as the clock does; returns how long there is nothing to do, ms.
    fn follow_clock(&self, stage: &mut Stage, speed: f64) -> Result<u64, Error> {
        let Some(Begun { lockstep, .. }) = self.begun.get() else { return Ok(LOOK_MS) };
        let now_ms = clock::now_ms();
        let is_wanted = self.is_running.load(Ordering::Relaxed) || lockstep.readers().0 >= self.plan.consumers;
        if stage.started_ms.is_none() && is_wanted {
            stage.started_ms = Some((now_ms, self.now_ms()));
        }
        let Some((started_ms, from_ms)) = stage.started_ms else { return Ok(LOOK_MS) };
        let passed_ms = now_ms.saturating_sub(started_ms) as f64 * speed;
        let target_ms = from_ms.saturating_add(passed_ms as i64);
        while !stage.has_ended && clock::now_ms() < now_ms + LOOK_MS {
            let next_ms = self.next_ms(stage)?;
            if next_ms > target_ms {
                // Between two moments the clock goes on.
                if let Some(writer) = &stage.writer
                    && target_ms > self.now_ms()
                {
                    writer.set_replayed(target_ms as u64);
                    self.now_ms.store(target_ms, Ordering::Relaxed);
                }
                return Ok((((next_ms - target_ms) as f64 / speed).ceil() as u64).clamp(1, LOOK_MS));
            }
            self.publish(stage, next_ms)?;
        }
        Ok(1)
    }

    /// What the replay's own thread does in one go: it gives signs of life, frees the places of dead readers, wakes those
    /// who watch, and moves time on for readers of other processes, or by the clock. Returns whether there is more to do.
    fn attend(&self) -> bool {
        let Some(begun) = self.begun.get() else { return false };
        let seen = begun.lockstep.turn();
        let now_ns = clock::now_ns();
        begun.blocks.iter().for_each(|block| block.header(header::HEARTBEAT_NS).store(now_ns, Relaxed));
        let mut stage = lock(&self.stage);
        if stage.writer.is_none() {
            return false;
        }
        if now_ns / 1_000_000 >= stage.freed_ms + FREE_MS {
            stage.freed_ms = now_ns / 1_000_000;
            begun.lockstep.free_dead();
        }
        if std::mem::take(&mut stage.is_untold)
            && let Some(writer) = &stage.writer
        {
            writer.wake();
        }
        // What is in the way of the rows ended the course; whoever moves time on next is told.
        let rest_ms = match self.plan.speed {
            Some(speed) => self.follow_clock(&mut stage, speed).unwrap_or(LOOK_MS),
            None => {
                if self.advance_on(&mut stage) == Ok(true) {
                    0
                } else {
                    FREE_MS
                }
            }
        };
        drop(stage);
        match self.plan.speed {
            Some(_) => std::thread::sleep(Duration::from_millis(rest_ms)),
            None => begun.lockstep.await_turn(seen, Duration::from_millis(rest_ms)),
        }
        true
    }

    /// Goes on to the end, with whoever takes part, without awaiting anybody at the start, and no feed by which only the
    /// calling thread has waited: it cannot wait by that now. `goes_on` is asked now and then.
    ///
    /// # Errors
    ///
    /// As [`Self::step`]; `Interrupted` when `goes_on` says no.
    pub fn run(&self, mut goes_on: impl FnMut() -> bool) -> Result<(), Error> {
        let lent = Lent::of_this_thread();
        self.is_running.store(true, Ordering::Relaxed);
        let ran = loop {
            let Some(Begun { lockstep, .. }) = self.begun.get() else {
                break Err(Error::Argument(format!("the replay has not begun: `{}`", self.name)));
            };
            let seen = lockstep.turn();
            let mut stage = lock(&self.stage);
            let advanced = self.advance_on(&mut stage);
            let has_ended = stage.has_ended;
            drop(stage);
            match advanced {
                Err(error) => break Err(error),
                Ok(_) if has_ended => break Ok(()),
                Ok(is_left) => {
                    if !goes_on() {
                        break Err(Error::Interrupted);
                    }
                    if !is_left {
                        lockstep.await_turn(seen, Duration::from_millis(LOOK_MS));
                    }
                }
            }
        };
        self.is_running.store(false, Ordering::Relaxed);
        drop(lent);
        ran
    }

    /// Lets go of the block without a word to it: in a forked child, which shares the parent's lock on it.
    pub fn forget(&self) {
        // What another thread of the parent held at the moment of the fork stays locked in the child for ever.
        if let Ok(mut stage) = self.stage.try_lock() {
            stage.has_ended = true;
            drop(stage.writer.take());
        }
    }

    /// Ends the replay and removes its names; what readers have mapped stays readable. May be called twice.
    ///
    /// # Errors
    ///
    /// `Os` when a name cannot be removed.
    pub fn close(&self) -> Result<(), Error> {
        let mut stage = lock(&self.stage);
        let course = if stage.has_ended { Course::Ended } else { Course::Stopped };
        self.end(&mut stage, course);
        let Some(writer) = stage.writer.take() else { return Ok(()) };
        if let Some(begun) = self.begun.get() {
            self.names().for_each(|name| begun.lockstep.unlink(name));
        }
        writer.close(true)
    }
}

impl Driver for Replay {
    fn advance(&self) -> bool {
        // An error has ended the course, and is told to whoever waits as that.
        self.advance_on(&mut lock(&self.stage)).unwrap_or(false)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// How long a thread moves time on before it looks whether it still should, and how long it sleeps at most.
const LOOK_MS: u64 = 50;
/// How often places of the dead are looked for.
const FREE_MS: u64 = 100;
