//! `Shadow` and `Applied`: what followers of a block are told, and what a message did to the block of one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candleshm::error::Error;
use candleshm::feed::{self, clock, timeout_of};
use candleshm::replica::message::{Head, Kind, Refusal, shape_of};
use candleshm::replica::shadow::Shadow as CoreShadow;
use candleshm::writer::Applied as CoreApplied;
use candleshm_stream::nats::publish_command;
use candleshm_stream::outlet::Sent;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::arguments::Number;
use crate::errors::exceptions::ConfigError;
use crate::errors::to_py;
use crate::outlet::Outlet;

/// Longest sleep in one go: what ended a wait just before it began to sleep is noticed after this long.
const SLICE: Duration = Duration::from_millis(100);

/// Return the shard of a symbol, from 0 to `shards` - 1. Raises ConfigError for 0 shards.
#[pyfunction]
pub(crate) fn shard_of(symbol: &str, shards: u32) -> PyResult<u32> {
    if shards == 0 {
        return Err(ConfigError::new_err("shards cannot be 0; allowed: 1 and more"));
    }
    Ok(candleshm::replica::shard_of(symbol, shards))
}

/// What followers of a block were told, and what has changed since.
///
/// A reader of the block: it follows a replaced one. For one thread at a time, but for `rouse` and `answer`. Messages
/// are bytes; who carries them is up to the caller.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct Shadow {
    core: Mutex<CoreShadow>,
    feed: feed::Feed,
    /// What was announced before the last `collect`.
    news: Mutex<Option<feed::News>>,
    roused: AtomicBool,
}

impl Shadow {
    fn enter(&self) -> MutexGuard<'_, CoreShadow> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the core with the GIL released.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut CoreShadow) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        py.detach(|| work(&mut self.enter())).map_err(|error| to_py(error, self.feed.name()))
    }

    /// Collects what changed, and takes what was announced before.
    fn look(&self, shadow: &mut CoreShadow) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        // Taken first: whatever is announced from here on ends the next wait at once.
        let news = shadow.news()?;
        let messages = shadow.collect(clock::now_ns())?;
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
        Ok(messages)
    }

    /// Sleeps until something is announced, or is done there; false at the end, and where it was roused.
    fn sleep_until(&self, end: Option<Instant>) -> bool {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(news) = news else { return true };
        let found = loop {
            if self.roused.swap(false, Ordering::SeqCst) {
                break false;
            }
            if news.is_over() {
                break true;
            }
            let left = end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break false;
            }
            news.sleep_for(left.min(SLICE));
            if news.is_done() {
                // Nobody announces anything there: the next `collect` looks for another block.
                break true;
            }
        };
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
        found
    }
}

/// Returns messages as Python gets them.
fn with_shards<'py>(py: Python<'py>, messages: Vec<(u32, Vec<u8>)>) -> Vec<(u32, Bound<'py, PyBytes>)> {
    messages.into_iter().map(|(shard, message)| (shard, PyBytes::new(py, &message))).collect()
}

#[pymethods]
impl Shadow {
    /// Attach to the block of that name, whose symbols are divided into `shards`.
    ///
    /// `source` tells followers who the sender is, as host/pid. Nothing is told before `lead`. Raises as
    /// `candleshm.attach`, ConfigError for 0 shards.
    #[new]
    #[pyo3(signature = (name, shards=1, source=""))]
    fn py_new(name: &str, shards: u32, source: &str) -> PyResult<Self> {
        let shadow = CoreShadow::open(name, shards, source).map_err(|error| to_py(error, name))?;
        let feed = shadow.feed().clone();
        Ok(Self { core: Mutex::new(shadow), feed, news: Mutex::new(None), roused: AtomicBool::new(false) })
    }

    /// The name of the block.
    #[getter]
    fn name(&self) -> &str {
        self.feed.name()
    }

    /// The shards that are told of, ascending.
    #[getter]
    fn led(&self, py: Python<'_>) -> Vec<u32> {
        py.detach(|| self.enter().led())
    }

    /// Tell of a shard from now on, under that epoch, with messages counted from 1.
    ///
    /// What its symbols hold now counts as told: followers find by the first heartbeat what they lack. Raises
    /// ConfigError for a shard that there is not.
    fn lead(&self, py: Python<'_>, shard: u32, epoch: u64) -> PyResult<()> {
        self.call(py, |shadow| shadow.lead(shard, epoch))
    }

    /// Tell nothing more of a shard.
    fn leave(&self, py: Python<'_>, shard: u32) {
        py.detach(|| self.enter().leave(shard));
    }

    /// Sleep until the block has announced something since the last `collect`, `timeout` seconds at the longest.
    ///
    /// Returns whether it has, or is done (superseded or closed); False after the timeout, and after `rouse`. Raises
    /// ConfigError for a timeout that is no duration.
    fn wait(&self, py: Python<'_>, timeout: Number) -> PyResult<bool> {
        let timeout = timeout_of(timeout.0).map_err(|error| to_py(error, ""))?;
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let found = py.detach(|| self.sleep_until(end));
        py.check_signals()?;
        Ok(found)
    }

    /// Publish what changes, past Python, for `seconds` at the longest; [] then, and after `rouse`.
    ///
    /// `led` has the subject of each shard, and until when its lease holds, ns of CLOCK_BOOTTIME: nothing is sent of a
    /// shard whose lease is over. After each look at the block, what changes within `gather_seconds` is told together.
    /// Messages that `outlet` cannot send without the loop are returned as by `collect`, for the caller to send. Raises
    /// ConfigError for seconds that are no duration, BlockNotFound once the feed is closed.
    fn tell<'py>(
        &self,
        py: Python<'py>,
        outlet: &Outlet,
        led: Vec<(u32, String, u64)>,
        seconds: Number,
        gather_seconds: f64,
    ) -> PyResult<Vec<(u32, Bound<'py, PyBytes>)>> {
        let timeout = timeout_of(seconds.0).map_err(|error| to_py(error, ""))?;
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let gather = Duration::try_from_secs_f64(gather_seconds).unwrap_or_default();
        let led: HashMap<u32, (String, u64)> =
            led.into_iter().map(|(shard, subject, until_ns)| (shard, (subject, until_ns))).collect();
        let unsent = py.detach(|| {
            let mut commands = Vec::new();
            let mut looked: Option<Instant> = None;
            while end.is_none_or(|end| Instant::now() < end) && self.sleep_until(end) {
                if let Some(left) = looked.and_then(|looked| gather.checked_sub(looked.elapsed())) {
                    std::thread::sleep(left);
                }
                looked = Some(Instant::now());
                let messages = self.look(&mut self.enter())?;
                commands.clear();
                // The leases come last of all: this process may just have been stopped for a while.
                let now_ns = clock::now_ns();
                for (shard, message) in &messages {
                    if let Some((subject, until_ns)) = led.get(shard)
                        && now_ns < *until_ns
                    {
                        publish_command(subject, message, &mut commands);
                    }
                }
                if commands.is_empty() {
                    continue;
                }
                match outlet.core.send(&commands) {
                    Sent::Wholly => {}
                    Sent::Partly => break,
                    Sent::Not => return Ok(messages),
                }
            }
            Ok(Vec::new())
        });
        py.check_signals()?;
        Ok(with_shards(py, unsent.map_err(|error| to_py(error, self.feed.name()))?))
    }

    /// End a `wait` or `tell` from another thread: the one that is under way, else the next.
    fn rouse(&self) {
        self.roused.store(true, Ordering::SeqCst);
        self.feed.interrupt();
    }

    /// Return messages with what changed since the last call, as (shard, bytes), in order; [] when nothing did.
    ///
    /// Raises BlockNotFound once the feed is closed.
    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u32, Bound<'py, PyBytes>)>> {
        let messages = self.call(py, |shadow| self.look(shadow))?;
        Ok(with_shards(py, messages))
    }

    /// Return messages with where every series stands, as (shard, bytes), for each shard that is told of.
    ///
    /// They are about what `collect` returned so far: call that first.
    fn heartbeat<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u32, Bound<'py, PyBytes>)>> {
        let now_ns = clock::now_ns();
        let messages = self.call(py, |shadow| shadow.heartbeat(now_ns))?;
        Ok(with_shards(py, messages))
    }

    /// Return messages with the rows that a request wants, from the block as it is. Any thread may call it.
    ///
    /// None for a request that cannot be read, is about other candles, or comes from a follower of a newer leader. Of
    /// shards that are not told of here it returns what the block has as well: whoever follows them completely may.
    fn answer<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let now_ns = clock::now_ns();
        let messages = self.call(py, |shadow| shadow.answer(request, now_ns))?;
        Ok(messages.into_iter().map(|message| PyBytes::new(py, &message)).collect())
    }

    /// What was sent so far: `messages`, `rows` (of the ring) and `bytes`.
    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = py.detach(|| self.enter().counts());
        let found = PyDict::new(py);
        found.set_item("messages", counts.messages)?;
        found.set_item("rows", counts.rows)?;
        found.set_item("bytes", counts.bytes)?;
        Ok(found)
    }
}

/// What a message did to the block of a follower.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct Applied {
    /// The shard that it was about.
    shard: u32,
    /// How many shards its sender knows.
    shards: u32,
    /// The leader's epoch.
    epoch: u64,
    /// Its number in the epoch; of an answer or a heartbeat, that of the newest message of changes before it.
    sequence: u64,
    /// 'changes', 'answer' or 'heartbeat'; 'refused' when nothing of it was applied.
    kind: &'static str,
    /// Why nothing was applied, or None: 'epoch' (a newer leader was seen), 'feed' (other candles), 'damaged',
    /// 'version' (another major version), 'led' (this process leads the shard), 'shards' (another number of them).
    refused: Option<&'static str>,
    /// How many messages of changes before it did not come.
    gap: u64,
    /// Rows that were new or had other values.
    rows: usize,
    /// Of these, rows that became final.
    closed: usize,
    /// Symbols that it tells of and the block does not carry.
    symbols_missing: Vec<String>,
    /// When it was sent: the sender's CLOCK_BOOTTIME, ns.
    sent_boot_ns: u64,
}

impl Applied {
    pub(crate) fn of(applied: CoreApplied) -> Self {
        let kind = match (applied.refused, applied.kind) {
            (None, Some(Kind::Changes)) => "changes",
            (None, Some(Kind::Answer)) => "answer",
            (None, Some(Kind::Heartbeat)) => "heartbeat",
            _ => "refused",
        };
        Self {
            shard: applied.shard,
            shards: applied.shards,
            epoch: applied.epoch,
            sequence: applied.sequence,
            kind,
            refused: applied.refused.map(Refusal::as_str),
            gap: applied.gap,
            rows: applied.rows,
            closed: applied.closed,
            symbols_missing: applied.symbols_missing,
            sent_boot_ns: applied.sent_boot_ns,
        }
    }
}

/// What the block of a heartbeat's sender is: what it takes to open one for its rows.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct FeedShape {
    /// 'SPOT', 'UM' or 'CM'.
    market: &'static str,
    /// What the prices are: 'trade', 'mark', 'index' or 'premium'.
    price: &'static str,
    /// The length of a candle, such as 1m or 1d@Asia/Shanghai.
    interval: String,
    /// Candles of a full window, the live one included.
    length: usize,
    /// The symbols of the heartbeat's shard, in the order of the sender's block.
    symbols: Vec<String>,
    /// How many symbols the sender's block carries, of all shards.
    symbol_count: usize,
    /// How many it has room for.
    symbol_capacity: usize,
    /// Whose candles they are: 'binance', or host and port of another exchange; '' where that is not known.
    exchange: String,
    /// The shard of the heartbeat.
    shard: u32,
    /// How many shards there are.
    shards: u32,
    /// The leader's epoch.
    epoch: u64,
}

/// Return what the block of a heartbeat's sender is. Raises ConfigError for what is no heartbeat of this version.
#[pyfunction]
pub(crate) fn message_feed(heartbeat: &[u8]) -> PyResult<FeedShape> {
    let (head, shape, symbols) = shape_of(heartbeat).map_err(refused)?;
    Ok(FeedShape {
        market: shape.market.as_str(),
        price: shape.price.as_str(),
        interval: shape.grid.name(),
        length: shape.length,
        symbols,
        symbol_count: shape.symbols,
        symbol_capacity: shape.symbol_capacity,
        exchange: shape.exchange,
        shard: head.shard,
        shards: head.shards,
        epoch: head.epoch,
    })
}

/// Return what a message begins with, as a dict: kind, shard, shards, epoch, sequence, sent_boot_ns, is_last.
///
/// `kind` is 'changes', 'heartbeat', 'request' or 'answer'. Raises ConfigError for bytes that are no message of this
/// version.
#[pyfunction]
pub(crate) fn message_head<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let head = Head::read(message).map_err(refused)?;
    let kind = match head.kind {
        Kind::Changes => "changes",
        Kind::Heartbeat => "heartbeat",
        Kind::Request => "request",
        Kind::Answer => "answer",
    };
    let found = PyDict::new(py);
    found.set_item("kind", kind)?;
    found.set_item("shard", head.shard)?;
    found.set_item("shards", head.shards)?;
    found.set_item("epoch", head.epoch)?;
    found.set_item("sequence", head.sequence)?;
    found.set_item("sent_boot_ns", head.sent_boot_ns)?;
    found.set_item("is_last", head.is_last)?;
    Ok(found)
}

fn refused(refusal: Refusal) -> PyErr {
    ConfigError::new_err(match refusal {
        Refusal::Version => "the message is of another major version; use the same candleshm on all hosts",
        _ => "these bytes are no message of the kind that is read here",
    })
}
