//! `Feed`: a name, and the block that stands under it now. What every reader in every language needs beyond one block:
//! following the name, waiting, judging the age of data, snapshots of rows with their states, many symbols side by side.
//!
//! Unlike the rest of the crate, this folder reads clocks: see [`clock`].

mod attached;
pub mod clock;
mod closes;
mod durations;
mod following;
mod group;
mod health;
mod news;
mod series;
mod source;
mod turns;
mod view;
mod window;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

pub use attached::{Attached, trading_ages_ms};
pub use closes::{Awaited, Closed};
pub use durations::{max_age_of, timeout_of};
pub use group::{Group, Panel};
pub use health::{Freshness, Health, SILENT_MS, STALE_MS};
pub use news::News;
pub use series::{Candles, Copied, Gap, Series};
pub use view::View;
pub use window::{Holes, Window};

use crate::error::Error;
use crate::shared_memory;
pub use crate::shared_memory::share_with;
use crate::waiting::until;
use news::Deadline;
use source::Source;
pub(crate) use turns::Lent;
use turns::Turn;

/// Returns the names of the blocks of this machine, sorted; other programs' shared memory may be among them.
///
/// # Errors
///
/// `Os` when `/dev/shm` cannot be read.
pub fn names() -> Result<Vec<String>, Error> {
    shared_memory::names()
}

/// Which close is awaited.
#[derive(Debug, Clone, Copy)]
pub struct Close<'a> {
    /// Of the candle that contains this moment, epoch ms; `None`: of the next candle to close.
    pub open_ms: Option<i64>,
    /// `None`: all that trade and have candles. Delisted symbols are not awaited.
    pub symbols: Option<&'a [String]>,
    /// The part of the symbols that is enough, above 0, at most 1.
    pub quorum: f64,
}

impl Default for Close<'_> {
    fn default() -> Self {
        Self { open_ms: None, symbols: None, quorum: 1.0 }
    }
}

/// An attached block. Clones share everything; each series of it follows the name as well.
///
/// Nothing here waits for a collector, except what is called wait. When another block takes the name, calls go to that
/// one as soon as it has all rows, and what was handed out before stays readable.
#[derive(Debug, Clone)]
pub struct Feed {
    source: Arc<Source>,
}

impl Feed {
    /// Attaches to the block of that name. Data that was confirmed longer ago than `max_age` is not handed out.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotReady`, `Leftover`, `Owner`, `Incompatible`, `Corrupt`, `Name`, `Os`; `Argument` for a `max_age`
    /// of zero.
    pub fn attach(name: &str, max_age: Option<Duration>) -> Result<Self, Error> {
        if let Some(max_age) = max_age {
            max_age_of(max_age.as_secs_f64())?;
        }
        let max_age_ms = max_age.map(|max_age| u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { source: Arc::new(Source::open(name, max_age_ms)?) })
    }

    /// Returns the name of the block.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// Returns the limit of age of data that is handed out, ms.
    #[must_use]
    pub fn max_age_ms(&self) -> Option<u64> {
        self.source.max_age_ms()
    }

    /// Ends the use of the feed, of its clones and its series: every call returns `FeedClosed` from now on. What was
    /// handed out stays readable. Dropping a feed needs no call.
    pub fn close(&self) {
        self.source.close();
    }

    /// Refuses when the feed was closed.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn check_open(&self) -> Result<(), Error> {
        self.source.check_open()
    }

    /// Returns the block that has the name now, as far as known.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn attached(&self) -> Result<Arc<Attached>, Error> {
        self.source.attached()
    }

    /// Returns the symbols that the block carries, in its order.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn symbols(&self) -> Result<Vec<String>, Error> {
        Ok(self.attached()?.symbols())
    }

    /// Returns the series of a symbol.
    ///
    /// # Errors
    ///
    /// `UnknownSymbol`, `FeedClosed`.
    pub fn series(&self, symbol: &str) -> Result<Series, Error> {
        Series::new(self.source.clone(), symbol)
    }

    /// Returns the state of the block and its collector now; `max_age_ms` in place of the feed's own limit.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn health(&self, max_age_ms: Option<u64>) -> Result<Health, Error> {
        Ok(Health::of(self.name(), &*self.attached()?, max_age_ms.or(self.max_age_ms())))
    }

    /// Returns symbols whose data may be handed out: those named, else all that trade and have rows.
    ///
    /// # Errors
    ///
    /// `Stale`, `UnknownSymbol`, `FeedClosed`.
    pub fn group(&self, symbols: Option<&[String]>) -> Result<Group, Error> {
        let attached = self.attached()?;
        let indices = match symbols {
            None => trading(&attached, None)?,
            Some(symbols) => places(&attached, symbols)?,
        };
        self.check_fresh(&attached, &indices)?;
        Ok(Group::new(attached, indices))
    }

    /// Returns all symbols that the block carries. Those that trade and have rows must be fresh.
    ///
    /// # Errors
    ///
    /// `Stale`, `FeedClosed`.
    pub fn all(&self) -> Result<Group, Error> {
        let attached = self.attached()?;
        self.check_fresh(&attached, &trading(&attached, None)?)?;
        let indices = (0..attached.block().symbol_count()).collect();
        Ok(Group::new(attached, indices))
    }

    /// Sleeps until a candle is final for enough of the symbols, and returns it. A hole counts as closed. `goes_on` is
    /// asked before each sleep, at least once a second.
    ///
    /// # Errors
    ///
    /// `NothingClosed` after the timeout (`None`: for ever); `Interrupted` when `goes_on` says no, or by
    /// [`Self::interrupt`]; `Stale` when the collector published no heartbeat for the feed's limit; `UnknownSymbol`;
    /// `Argument` for a quorum that cannot be used, and for 3d candles that open on different days; `FeedClosed`.
    pub fn wait_closed(
        &self,
        close: &Close<'_>,
        timeout: Option<Duration>,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Closed, Error> {
        self.await_close(close, close.open_ms.is_none(), timeout, goes_on)
    }

    /// As [`Self::wait_closed`], for the first candle from the open time of `close` on that exists: symbols may be listed
    /// only later.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_closed`].
    pub fn wait_closed_from(
        &self,
        close: &Close<'_>,
        timeout: Option<Duration>,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Closed, Error> {
        self.await_close(close, true, timeout, goes_on)
    }

    fn await_close(
        &self,
        close: &Close<'_>,
        is_earliest: bool,
        timeout: Option<Duration>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<Closed, Error> {
        let (deadline, interrupts) = (Deadline::after(timeout), self.source.interrupts());
        let mut open_ms = close.open_ms;
        until(
            || self.news(None),
            |news| {
                let awaited = awaited(news.attached(), close.symbols, close.quorum)?;
                open_ms = open_ms.or_else(|| awaited.next_ms());
                if is_earliest {
                    open_ms = open_ms.map(|open_ms| awaited.listed_ms(open_ms));
                }
                if let Some(closed) = open_ms.and_then(|open_ms| awaited.closed(open_ms)) {
                    return Ok(ControlFlow::Break(closed));
                }
                self.check_collector(news.attached())?;
                Ok(ControlFlow::Continue((awaited, open_ms)))
            },
            |news, (awaited, open_ms), slept| {
                let in_vain = || awaited.timed_out(open_ms, timeout.unwrap_or_default());
                let slice = deadline.slice().ok_or_else(in_vain)?;
                if self.source.interrupts() != interrupts || !goes_on() {
                    return Err(Error::Interrupted);
                }
                news.pass(open_ms.map_or(0, |open_ms| awaited.end_ms(open_ms)), slice, slept.as_ref())
            },
        )
    }

    /// Sleeps until something newer is published, of any kind, and returns what time it is then, epoch ms: in a replay
    /// the replayed time, else the exchange's clock, `None` where it was not measured. What was published since the last
    /// step counts, unless the replay awaits this feed. `goes_on` is asked before each sleep, at least once a second.
    ///
    /// # Errors
    ///
    /// `NothingPublished` after the timeout (`None`: for ever); `Interrupted`, `Stale` as [`Self::wait_closed`];
    /// `ReplayEnded`, `FeedClosed`.
    pub fn step(&self, timeout: Option<Duration>, mut goes_on: impl FnMut() -> bool) -> Result<Option<i64>, Error> {
        let (deadline, interrupts) = (Deadline::after(timeout), self.source.interrupts());
        let mut seen = None;
        until(
            || Ok(News::of_rows(self.source.turn(None)?)),
            |news| {
                let from = *seen.get_or_insert_with(|| {
                    if news.is_lockstep() { news.seen() } else { self.source.stepped().unwrap_or(news.seen()) }
                });
                if news.seen() != from {
                    self.source.set_stepped(news.seen());
                    return Ok(ControlFlow::Break(news.attached().exchange_ms()));
                }
                self.check_collector(news.attached())?;
                Ok(ControlFlow::Continue(()))
            },
            |news, (), slept| {
                let in_vain =
                    || Error::NothingPublished { name: self.name().to_owned(), waited: timeout.unwrap_or_default() };
                let slice = deadline.slice().ok_or_else(in_vain)?;
                if self.source.interrupts() != interrupts || !goes_on() {
                    return Err(Error::Interrupted);
                }
                self.source.set_stepped(news.seen());
                news.pass(0, slice, slept.as_ref())
            },
        )
    }

    /// Ends all waits of this feed and its series that are under way in this process, with `Interrupted`: most at once,
    /// all within a second.
    pub fn interrupt(&self) {
        self.source.interrupt();
    }

    /// Takes what is announced of closes now: for those who wait by themselves. It takes part in a replay,
    /// for the thread of the number `holder`, `None` for this one.
    ///
    /// # Errors
    ///
    /// `FeedClosed`, and as a wait in a replay.
    pub fn news(&self, holder: Option<u64>) -> Result<News, Error> {
        Ok(News::of_closes(self.source.turn(holder)?))
    }

    /// Takes what is announced of rows of every kind now: for those who watch, and do not hold a replay up.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn news_of_rows(&self) -> Result<News, Error> {
        Ok(News::of_rows((Turn::Live, self.attached()?)))
    }

    /// Returns the closes that a wait would be about.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_closed`].
    pub fn awaited(&self, symbols: Option<&[String]>, quorum: f64) -> Result<Awaited, Error> {
        awaited(&self.attached()?, symbols, quorum)
    }

    /// Refuses to wait for a collector whose heartbeat is older than the feed's limit.
    ///
    /// # Errors
    ///
    /// `Stale`.
    pub fn check_collector(&self, attached: &Attached) -> Result<(), Error> {
        self.source.check_collector(attached, "the collector")
    }

    fn check_fresh(&self, attached: &Attached, indices: &[usize]) -> Result<(), Error> {
        if self.max_age_ms().is_none() {
            return Ok(());
        }
        indices.iter().try_for_each(|&index| self.source.check_fresh(attached, index))
    }
}

fn awaited(attached: &Arc<Attached>, symbols: Option<&[String]>, quorum: f64) -> Result<Awaited, Error> {
    Awaited::new(attached.clone(), trading(attached, symbols)?, quorum)
}

fn places(attached: &Attached, symbols: &[String]) -> Result<Vec<usize>, Error> {
    symbols.iter().map(|symbol| attached.place_of(symbol)).collect()
}

/// The places of the symbols that trade, of those that were named, else of all that have rows.
fn trading(attached: &Attached, symbols: Option<&[String]>) -> Result<Vec<usize>, Error> {
    let block = attached.block();
    let mut indices = match symbols {
        Some([]) => {
            return Err(Error::Argument("symbols must not be an empty list; None means all symbols".into()));
        }
        None => (0..block.symbol_count())
            .filter(|&index| attached.reader(index).marks().is_ok_and(|marks| marks.head > 0))
            .collect(),
        Some(symbols) => places(attached, symbols)?,
    };
    indices.retain(|&index| block.is_trading(index));
    Ok(indices)
}
