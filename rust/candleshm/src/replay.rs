//! `Replay`: history, published in order of time into a block as if it happened now.

mod line;
mod timeline;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::columns::Row;
use crate::error::Error;
use crate::feed::clock;
use crate::interval::Grid;
use crate::layout::RowState;
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
    has_ended: bool,
}

/// History on its way into a block.
pub struct Replay {
    name: String,
    plan: Plan,
    stage: Mutex<Stage>,
    given: Mutex<Given>,
    more: More,
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
        let stage = Mutex::new(Stage { timeline, writer: None, has_ended: false });
        Ok(Self { name: name.to_owned(), plan, stage, given: Mutex::default(), more })
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
    pub fn begin(&self, warm_rows: usize, owner: Owner) -> Result<(), Error> {
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
        let begun = self.fill(&mut writer, &mut stage.timeline, warm_rows, owner);
        match begun {
            Ok(()) => stage.writer = Some(writer),
            Err(_) => writer.abandon(),
        }
        begun
    }

    fn fill(&self, writer: &mut Writer, timeline: &mut Timeline, warm_rows: usize, owner: Owner) -> Result<(), Error> {
        for (name, grid, length) in &self.plan.derived {
            writer.derive(name, *grid, *length, owner)?;
        }
        timeline.warm(writer, warm_rows)?;
        writer.set_health(&Health { ready: true, ..Health::default() });
        writer.commit();
        Ok(())
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
        rows.iter().for_each(|(symbol, rows)| timeline.give(symbol, rows));
        seconds.iter().for_each(|(symbol, rows)| timeline.give_seconds(symbol, rows));
        timeline.set_given(timeline.given_ms());
    }

    /// Returns the replayed time, epoch ms.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        lock(&self.stage).timeline.now_ms()
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
        let Stage { timeline, writer, has_ended } = stage;
        if *has_ended {
            return Ok(false);
        }
        let Some(writer) = writer else {
            return Err(Error::Argument(format!("the replay has not begun: `{}`", self.name)));
        };
        let next_ms = loop {
            match timeline.next_ms() {
                Some(next_ms) => break next_ms,
                None => self.bring_until(timeline, timeline.given_ms() + 1)?,
            }
        };
        timeline.publish(writer, next_ms)?;
        *has_ended = next_ms >= timeline.end_ms();
        Ok(true)
    }

    /// Publishes all that is left. `goes_on` is asked now and then.
    ///
    /// # Errors
    ///
    /// As [`Self::step`]; `Interrupted` when `goes_on` says no.
    pub fn run(&self, mut goes_on: impl FnMut() -> bool) -> Result<(), Error> {
        loop {
            let until_ms = clock::now_ms() + LOOK_MS;
            let mut stage = lock(&self.stage);
            while clock::now_ms() < until_ms {
                if !self.step_on(&mut stage)? {
                    return Ok(());
                }
            }
            drop(stage);
            if !goes_on() {
                return Err(Error::Interrupted);
            }
        }
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
        stage.has_ended = true;
        stage.writer.take().map_or(Ok(()), |writer| writer.close(true))
    }
}

/// How long a thread moves time on before it looks whether it still should.
const LOOK_MS: u64 = 50;
