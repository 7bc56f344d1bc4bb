//! `Feed`: one attached block, and the following of the name when a collector puts another block under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use candleshm::asof;
use candleshm::block::Block;
use candleshm::columns;
use candleshm::error::Error;
use candleshm::interval::Grid;
use candleshm::layout::{BlockState, header};
use candleshm::panel::{self, PanelRange};
use candleshm::read::SeriesReader;
use candleshm::removal;
use candleshm::shared_memory::{self, FileId};
use candleshm::zone::utc_text;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::arguments::{Count, Moment, Number, check_moments, check_timeout};
use crate::array;
use crate::derive::note_ended;
use crate::errors::exceptions::{BlockNotFound, ConfigError, StaleData, UnknownSymbol, WaitTimeout};
use crate::errors::to_py;
use crate::following::{FOLLOW_MS, Lookout};
use crate::process;
use crate::series::{Series, not_contiguous};

/// Longest sleep in one go: signals and a replaced block are noticed after this long at the latest.
const SLICE: Duration = Duration::from_secs(1);
/// How far an answer may seem ahead: it may come between the look at the clock and the one into the block.
const AHEAD_MS: u64 = 1_000;

/// A block and the places of its symbols.
pub(crate) struct Attached {
    pub(crate) block: Block,
    pub(crate) id: FileId,
    /// Whether the feed has moved to another block.
    left: AtomicBool,
    places: RwLock<Places>,
}

#[derive(Default)]
struct Places {
    symbols: Vec<String>,
    index: HashMap<String, usize>,
}

impl Attached {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let (block, id) = Block::open_with_id(name, process::boot_id())?;
        Ok(Self { block, id, left: AtomicBool::new(false), places: RwLock::default() })
    }

    /// Returns the place of a symbol, looking at the table again when it has grown.
    fn place(&self, symbol: &str) -> Option<usize> {
        self.with_places(|places| places.index.get(symbol).copied())
    }

    fn symbols(&self) -> Vec<String> {
        self.with_places(|places| places.symbols.clone())
    }

    fn with_places<T>(&self, read: impl Fn(&Places) -> T) -> T {
        let count = self.block.symbol_count();
        {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            if places.symbols.len() >= count {
                return read(&places);
            }
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for index in places.symbols.len()..count {
            let symbol = self.block.symbol(index);
            places.index.insert(symbol.clone(), index);
            places.symbols.push(symbol);
        }
        read(&places)
    }

    /// Whether the block is one to go on with, as far as itself tells.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.block.state() == Some(BlockState::Ready) && !self.left.load(Ordering::Relaxed)
    }
}

/// What a feed and its series share.
pub(crate) struct Source {
    name: String,
    /// Oldest data allowed, ms.
    max_age_ms: Option<u64>,
    attached: RwLock<Arc<Attached>>,
    lookout: Lookout,
    closed: AtomicBool,
}

impl Source {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn max_age_ms(&self) -> Option<u64> {
        self.max_age_ms
    }

    /// What `attach` was given, to the millisecond.
    pub(crate) fn max_age(&self) -> Option<f64> {
        self.max_age_ms.map(|limit_ms| limit_ms as f64 / 1e3)
    }

    /// Refuses when the feed was closed.
    #[inline]
    pub(crate) fn check_open(&self) -> PyResult<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(BlockNotFound::new_err((self.name.clone(), "this feed was closed; attach again")));
        }
        Ok(())
    }

    /// Returns the block that stands under the name now, as far as known.
    pub(crate) fn attached(&self) -> PyResult<Arc<Attached>> {
        self.check_open()?;
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(if self.is_good(&attached) { attached } else { self.follow(attached) })
    }

    /// Whether there is no reason to look for another block than this one.
    #[inline]
    pub(crate) fn is_good(&self, attached: &Attached) -> bool {
        attached.is_current() && !self.lookout.is_due()
    }

    /// Moves on from a block if it is time, see [`Lookout`]; meanwhile the old one stays readable.
    #[cold]
    fn follow(&self, old: Arc<Attached>) -> Arc<Attached> {
        let Some(new) = self.lookout.look(&self.name, &old, self.max_age_ms) else { return old };
        let mut attached = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&attached, &old) {
            *attached = Arc::new(new);
            // Every series that still holds it asks here again.
            old.left.store(true, Ordering::Relaxed);
        }
        attached.clone()
    }

    pub(crate) fn place(&self, symbol: &str) -> PyResult<(Arc<Attached>, usize)> {
        let attached = self.attached()?;
        match attached.place(symbol) {
            Some(index) => Ok((attached, index)),
            None => Err(UnknownSymbol::new_err((symbol.to_owned(), self.name.clone()))),
        }
    }

    pub(crate) fn error(&self, error: Error) -> PyErr {
        to_py(error, &self.name)
    }

    /// In a wait it is the collector's sign of life that may be too old.
    pub(crate) fn check_collector(&self, attached: &Attached, what: &str) -> PyResult<()> {
        let age_ms = heartbeat_age_ms(&attached.block);
        match self.max_age_ms {
            Some(limit_ms) if age_ms > limit_ms => Err(stale(what, age_ms, limit_ms, false)),
            _ => Ok(()),
        }
    }
}

/// Returns an age in seconds, infinite for `u64::MAX`.
pub(crate) fn seconds(age_ms: u64) -> f64 {
    if age_ms == u64::MAX { f64::INFINITY } else { age_ms as f64 / 1e3 }
}

/// Returns StaleData.
pub(crate) fn stale(symbol: &str, age_ms: u64, limit_ms: u64, delisted: bool) -> PyErr {
    StaleData::new_err((symbol.to_owned(), seconds(age_ms), limit_ms as f64 / 1e3, delisted))
}

/// Milliseconds since the collector's last sign of life, `u64::MAX` when that lies in the future.
pub(crate) fn heartbeat_age_ms(block: &Block) -> u64 {
    let (heartbeat_ms, now_ms) = (block.value(header::HEARTBEAT_NS) / 1_000_000, process::now_ms());
    if heartbeat_ms > now_ms + AHEAD_MS { u64::MAX } else { now_ms.saturating_sub(heartbeat_ms) }
}

/// The time left of a wait.
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Option<f64>) -> PyResult<Self> {
        check_timeout(timeout.map(Number))?;
        match timeout {
            None => Ok(Self(None)),
            Some(seconds) => {
                Ok(Self(Duration::try_from_secs_f64(seconds).ok().and_then(|d| Instant::now().checked_add(d))))
            }
        }
    }

    /// Returns how long to sleep in one go, `None` when the time is over.
    pub(crate) fn slice(&self) -> Option<Duration> {
        match self.0 {
            None => Some(SLICE),
            Some(end) => {
                end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).map(|left| left.min(SLICE))
            }
        }
    }
}

/// Sleeps on a futex word of the header, the GIL released, and lets signal handlers run.
pub(crate) fn sleep(py: Python<'_>, attached: &Attached, offset: usize, seen: u32, slice: Duration) -> PyResult<()> {
    // Nobody is woken by a block that is done when another one is there.
    let slice = if attached.is_current() { slice } else { slice.min(Duration::from_millis(FOLLOW_MS)) };
    py.detach(|| shared_memory::futex_wait(attached.block.header(offset), seen, slice));
    py.check_signals()
}

/// What pickle makes of an object: its class, and what that is called with.
pub(crate) type Pickled<'py, Arguments> = (Bound<'py, PyType>, Arguments);

/// A candle that closed for many symbols at once.
#[pyclass(frozen, get_all, module = "candleshm")]
pub(crate) struct Closed {
    /// Open time of the candle, ms.
    open_time_ms: i64,
    /// Symbols that have it final.
    symbols: Py<PyTuple>,
    /// Symbols that do not.
    missing: Py<PyTuple>,
}

#[pymethods]
impl Closed {
    #[new]
    fn py_new(open_time_ms: i64, symbols: Py<PyTuple>, missing: Py<PyTuple>) -> Self {
        Self { open_time_ms, symbols, missing }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Pickled<'py, (i64, Py<PyTuple>, Py<PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        (slf.get_type(), (this.open_time_ms, this.symbols.clone_ref(py), this.missing.clone_ref(py)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Closed(open_time_ms={}, symbols={}, missing={})",
            self.open_time_ms,
            self.symbols.bind(py).repr()?,
            self.missing.bind(py).repr()?
        ))
    }
}

/// One attached block.
#[pyclass(frozen, subclass, module = "candleshm._core")]
pub(crate) struct Feed {
    source: Arc<Source>,
    series: RwLock<HashMap<String, Py<Series>>>,
}

#[pymethods]
impl Feed {
    #[new]
    #[pyo3(signature = (name, max_age=None))]
    fn py_new(name: &str, max_age: Option<Number>) -> PyResult<Self> {
        let max_age_ms = match max_age.map(|Number(seconds)| seconds) {
            Some(age) if age.is_nan() || age <= 0.0 => {
                return Err(ConfigError::new_err(format!("max_age is not a number of seconds above 0: `{age}`")));
            }
            age => age.map(|age| (age * 1e3) as u64),
        };
        let attached = Attached::open(name).map_err(|error| to_py(error, name))?;
        let source = Source {
            name: name.to_owned(),
            max_age_ms,
            attached: RwLock::new(Arc::new(attached)),
            lookout: Lookout::default(),
            closed: AtomicBool::new(false),
        };
        Ok(Self { source: Arc::new(source), series: RwLock::default() })
    }

    #[getter]
    fn name(&self) -> &str {
        self.source.name()
    }

    #[getter]
    fn max_age(&self) -> Option<f64> {
        self.source.max_age()
    }

    /// Pickled as what it takes to attach again.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Pickled<'py, (String, Option<f64>)>> {
        let source = &slf.get().source;
        source.check_open()?;
        Ok((slf.get_type(), (source.name().to_owned(), source.max_age())))
    }

    #[getter]
    fn symbols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.source.attached()?.symbols())
    }

    #[getter]
    fn market(&self) -> PyResult<&'static str> {
        Ok(self.source.attached()?.block.geometry().market.as_str())
    }

    #[getter]
    fn interval(&self) -> PyResult<String> {
        Ok(self.source.attached()?.block.geometry().grid(0).name())
    }

    #[getter]
    fn length(&self) -> PyResult<usize> {
        Ok(self.source.attached()?.block.geometry().ring.length)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.source.attached()?.block.symbol_count())
    }

    fn __contains__(&self, symbol: &str) -> PyResult<bool> {
        Ok(self.source.attached()?.place(symbol).is_some())
    }

    fn __getitem__(&self, py: Python<'_>, symbol: &str) -> PyResult<Py<Series>> {
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(symbol) {
            return Ok(series.clone_ref(py));
        }
        let series = Py::new(py, Series::new(self.source.clone(), symbol)?)?;
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(symbol.to_owned()).or_insert(series).clone_ref(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.symbols(py)?.try_iter()?.into_any())
    }

    fn close(&self) {
        self.source.closed.store(true, Ordering::Relaxed);
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fields of `Feed.health`.
    fn _health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let attached = self.source.attached()?;
        let block = &attached.block;
        let health = PyDict::new(py);
        health.set_item("name", self.source.name())?;
        health.set_item("market", block.geometry().market.as_str())?;
        health.set_item("interval", block.geometry().grid(0).name())?;
        health.set_item("length", block.geometry().ring.length)?;
        health.set_item("symbols", block.symbol_count())?;
        health.set_item("state", block.state().map_or("unknown", BlockState::as_str))?;
        health.set_item("pid", block.value(header::PID))?;
        health.set_item("heartbeat_age", seconds(heartbeat_age_ms(block)))?;
        health.set_item("loaded", block.announced(header::READY) == 1)?;
        health.set_item("max_age", self.source.max_age_ms().map(seconds))?;
        health.set_item("ages", trading_ages(block, process::now_ms()))?;
        health.set_item("missing", block.value(header::MISSING))?;
        health.set_item("holes", block.value(header::HOLES))?;
        health.set_item("weight_used", block.value(header::WEIGHT_USED))?;
        health.set_item("weight_limit", block.value(header::WEIGHT_LIMIT))?;
        health.set_item("banned_until_ms", Some(block.value(header::BANNED_UNTIL_MS)).filter(|&until| until > 0))?;
        Ok(health)
    }

    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(
        signature = (open_time_ms=None, *, symbols=None, quorum=Number(1.0), timeout=None),
        text_signature = "($self, open_time_ms=None, *, symbols=None, quorum=1.0, timeout=None)"
    )]
    fn wait_closed(
        &self,
        py: Python<'_>,
        open_time_ms: Option<Moment>,
        symbols: Option<Vec<String>>,
        quorum: Number,
        timeout: Option<Number>,
    ) -> PyResult<Closed> {
        let (Number(quorum), timeout) = (quorum, timeout.map(|Number(seconds)| seconds));
        check_quorum(quorum)?;
        let deadline = Deadline::after(timeout)?;
        let mut awaited_ms = open_time_ms.map(|Moment(open_ms)| open_ms);
        loop {
            let attached = self.source.attached()?;
            let seen = attached.block.announced(header::CLOSE_SEQ) as u32;
            let awaited = self.awaited(&attached, symbols.as_deref())?;
            let grid = common_grid(&attached.block, &awaited)?;
            let needed = needed(quorum, awaited.len());
            if awaited_ms.is_none() {
                awaited_ms = next_close_ms(&attached, &awaited, needed);
            }
            let settled = |&index: &usize| {
                let candle_index = awaited_ms.map_or(i64::MAX, |open_ms| attached.block.grid(index).ordinal(open_ms));
                SeriesReader::new(&attached.block, index).is_settled(candle_index.max(0) as u64)
            };
            let (closed, missing): (Vec<usize>, Vec<usize>) = awaited.iter().partition(|index| settled(index));
            let names =
                |indices: &[usize]| indices.iter().map(|&index| attached.block.symbol(index)).collect::<Vec<_>>();
            if let Some(open_ms) = awaited_ms
                && closed.len() >= needed
            {
                note_ended(grid.end_ms(grid.ordinal(open_ms)));
                return Ok(Closed {
                    open_time_ms: grid.floor_ms(open_ms),
                    symbols: PyTuple::new(py, names(&closed))?.unbind(),
                    missing: PyTuple::new(py, names(&missing))?.unbind(),
                });
            }
            self.source.check_collector(&attached, "the collector")?;
            let Some(slice) = deadline.slice() else {
                let text = format!(
                    "{} of {} symbols closed the candle of {} within {} s",
                    closed.len(),
                    awaited.len(),
                    awaited_ms.map_or_else(|| "the next open time".into(), utc_text),
                    timeout.unwrap_or_default()
                );
                return Err(WaitTimeout::new_err((text, PyTuple::new(py, names(&missing))?.unbind())));
            };
            sleep(py, &attached, header::CLOSE_SEQ, seen, slice)?;
        }
    }

    /// Returns (values, open times, symbols): values in the order field, symbol, row.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    #[pyo3(signature = (fields, n, symbols, live, out))]
    fn _panel<'py>(
        &self,
        py: Python<'py>,
        fields: Vec<String>,
        n: Option<Count>,
        symbols: Option<Vec<String>>,
        live: bool,
        out: Option<Bound<'py, PyArray1<f64>>>,
    ) -> PyResult<PanelParts<'py>> {
        let attached = self.source.attached()?;
        let block = &attached.block;
        let columns = fields.iter().map(|field| column_of(field)).collect::<PyResult<Vec<_>>>()?;
        let indices = self.fresh(&attached, symbols.as_deref())?;
        let grid = common_grid(block, &indices)?;
        let count = match n {
            None => block.geometry().ring.length,
            Some(Count(n)) if n < 1 => {
                return Err(ConfigError::new_err(format!("n is not a number of rows from 1 on: `{n}`")));
            }
            Some(Count(n)) => n as usize,
        };
        let error = |error| self.source.error(error);
        let range =
            panel::newest(block, &indices, count, live).map_err(error)?.unwrap_or(PanelRange { start: 0, count: 0 });
        let values = array::values_in(py, columns.len() * indices.len() * range.count, out, |values| {
            py.detach(|| panel::copy(block, &indices, &columns, range, live, values)).map_err(error)
        })?;
        let open_times = (0..range.count).map(|row| grid.open_ms((range.start + row as u64) as i64));
        let open_times = PyArray1::from_iter(py, open_times);
        let names = PyTuple::new(py, indices.iter().map(|&index| block.symbol(index)))?;
        Ok((values, open_times, names))
    }

    /// Returns (values, symbols): values in the order symbol, moment.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    #[pyo3(signature = (field, moments_ms, symbols))]
    fn _asof<'py>(
        &self,
        py: Python<'py>,
        field: &str,
        moments_ms: &Bound<'py, PyArray1<i64>>,
        symbols: Option<Vec<String>>,
    ) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyTuple>)> {
        let moments = moments_ms.try_readonly().map_err(|_| not_contiguous())?;
        let moments = moments.as_slice().map_err(|_| not_contiguous())?;
        check_moments(moments)?;
        let attached = self.source.attached()?;
        let block = &attached.block;
        let column = column_of(field)?;
        let indices = self.fresh(&attached, symbols.as_deref())?;
        let values = array::new_values(py, moments.len() * indices.len(), |values| {
            py.detach(|| {
                for (place, &index) in indices.iter().enumerate() {
                    let out = &mut values[place * moments.len()..][..moments.len()];
                    asof::copy(SeriesReader::new(block, index), block.grid(index), &[column], moments, out)?;
                }
                Ok(())
            })
            .map_err(|error| self.source.error(error))
        })?;
        Ok((values, PyTuple::new(py, indices.iter().map(|&index| block.symbol(index)))?))
    }

    /// The open time that `wait_closed(None)` would wait for, if it is known.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(signature = (symbols, quorum))]
    fn _next_close_ms(&self, symbols: Option<Vec<String>>, quorum: f64) -> PyResult<Option<i64>> {
        check_quorum(quorum)?;
        let attached = self.source.attached()?;
        let awaited = self.awaited(&attached, symbols.as_deref())?;
        common_grid(&attached.block, &awaited)?;
        Ok(next_close_ms(&attached, &awaited, needed(quorum, awaited.len())))
    }

    /// The open time of the candle of these symbols so many places after the one that contains `open_time_ms`.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _later_open_ms(&self, open_time_ms: i64, places: i64, symbols: Option<Vec<String>>) -> PyResult<i64> {
        let attached = self.source.attached()?;
        let grid = common_grid(&attached.block, &self.awaited(&attached, symbols.as_deref())?)?;
        Ok(grid.open_ms(grid.ordinal(open_time_ms) + places))
    }

    /// How many candles from the one that contains `open_time_ms` on have closed.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _closed_since(&self, open_time_ms: i64, symbols: Option<Vec<String>>, quorum: f64) -> PyResult<i64> {
        let attached = self.source.attached()?;
        let awaited = self.awaited(&attached, symbols.as_deref())?;
        let grid = common_grid(&attached.block, &awaited)?;
        let next_ms = next_close_ms(&attached, &awaited, needed(quorum, awaited.len()));
        Ok(next_ms.map_or(0, |next_ms| (grid.ordinal(next_ms) - grid.ordinal(open_time_ms)).max(0)))
    }

    #[pyo3(signature = (field, *, symbols=None, out=None))]
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    fn last<'py>(
        &self,
        py: Python<'py>,
        field: &str,
        symbols: Option<Vec<String>>,
        out: Option<Bound<'py, PyArray1<f64>>>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let attached = self.source.attached()?;
        let column = column_of(field)?;
        let indices = match &symbols {
            None => {
                let all: Vec<usize> = (0..attached.block.symbol_count()).collect();
                self.check_fresh(&attached, &self.awaited(&attached, None)?)?;
                all
            }
            Some(symbols) => self.fresh(&attached, Some(symbols))?,
        };
        array::values_in(py, indices.len(), out, |values| {
            panel::last(&attached.block, &indices, column, values).map_err(|error| self.source.error(error))
        })
    }
}

/// Values, open times, symbols.
type PanelParts<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyTuple>);

impl Feed {
    /// The places of symbols whose data may be handed out: those asked for, else all that trade and have rows.
    fn fresh(&self, attached: &Attached, symbols: Option<&[String]>) -> PyResult<Vec<usize>> {
        let indices = match symbols {
            None => self.awaited(attached, None)?,
            Some(symbols) => self.places(attached, symbols)?,
        };
        self.check_fresh(attached, &indices)?;
        Ok(indices)
    }

    fn check_fresh(&self, attached: &Attached, indices: &[usize]) -> PyResult<()> {
        let Some(limit_ms) = self.source.max_age_ms() else { return Ok(()) };
        let now_ms = process::now_ms();
        for &index in indices {
            let age_ms = age_ms(attached, index, now_ms);
            if age_ms > limit_ms || attached.block.has_ended(index) {
                return Err(stale(&attached.block.symbol(index), age_ms, limit_ms, age_ms <= limit_ms));
            }
        }
        Ok(())
    }

    fn places(&self, attached: &Attached, symbols: &[String]) -> PyResult<Vec<usize>> {
        symbols
            .iter()
            .map(|symbol| {
                attached
                    .place(symbol)
                    .ok_or_else(|| UnknownSymbol::new_err((symbol.clone(), self.source.name().to_owned())))
            })
            .collect()
    }

    /// The symbols a wait is about: those asked for, else all that have rows; of these the ones that trade.
    fn awaited(&self, attached: &Attached, symbols: Option<&[String]>) -> PyResult<Vec<usize>> {
        let block = &attached.block;
        let mut indices = match symbols {
            Some([]) => return Err(ConfigError::new_err("symbols is an empty list; None stands for all")),
            None => (0..block.symbol_count())
                .filter(|&index| SeriesReader::new(block, index).marks().is_ok_and(|marks| marks.head > 0))
                .collect(),
            Some(symbols) => self.places(attached, symbols)?,
        };
        indices.retain(|&index| block.is_trading(index));
        Ok(indices)
    }
}

/// The one grid of all these series. Only 3d candles lie on different ones.
fn common_grid(block: &Block, indices: &[usize]) -> PyResult<Grid> {
    let grid = block.grid(indices.first().copied().unwrap_or(0));
    match indices.iter().find(|&&index| block.grid(index) != grid) {
        None => Ok(grid),
        Some(&other) => Err(ConfigError::new_err(format!(
            "the {} candles of {} and {} open on different days: ask for symbols of one grid",
            grid.interval().as_str(),
            block.symbol(indices[0]),
            block.symbol(other)
        ))),
    }
}

fn column_of(field: &str) -> PyResult<usize> {
    columns::NAMES
        .iter()
        .position(|name| *name == field)
        .ok_or_else(|| ConfigError::new_err(format!("field is not one of {}: `{field}`", columns::NAMES.join(", "))))
}

/// Milliseconds since the newest answer, `u64::MAX` when there was none. A time from the future, as only a damaged block
/// holds one, vouches for nothing.
#[inline]
pub(crate) fn age_ms(attached: &Attached, index: usize, now_ms: u64) -> u64 {
    age_in_block_ms(&attached.block, index, now_ms)
}

/// The ages in seconds of all series whose symbols trade.
pub(crate) fn trading_ages(block: &Block, now_ms: u64) -> Vec<f64> {
    (0..block.symbol_count())
        .filter(|&index| block.is_trading(index))
        .map(|index| seconds(age_in_block_ms(block, index, now_ms)))
        .collect()
}

#[inline]
fn age_in_block_ms(block: &Block, index: usize, now_ms: u64) -> u64 {
    match SeriesReader::new(block, index).received_ms() {
        0 => u64::MAX,
        received_ms if received_ms > now_ms + AHEAD_MS => u64::MAX,
        received_ms => now_ms.saturating_sub(received_ms),
    }
}

fn check_quorum(quorum: f64) -> PyResult<()> {
    if quorum > 0.0 && quorum <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new_err(format!("quorum is not within 0..1: `{quorum}`")))
}

/// How many of `count` symbols make a quorum.
fn needed(quorum: f64, count: usize) -> usize {
    ((quorum * count as f64).ceil() as usize).max(1)
}

/// The open time after the newest one that `needed` of the symbols have final.
fn next_close_ms(attached: &Attached, awaited: &[usize], needed: usize) -> Option<i64> {
    let mut newest: Vec<i64> = awaited
        .iter()
        .filter_map(|&index| {
            let candle_index = SeriesReader::new(&attached.block, index).newest_settled()?;
            Some(attached.block.grid(index).end_ms(candle_index as i64))
        })
        .collect();
    newest.sort_unstable_by(|a, b| b.cmp(a));
    newest.get(needed - 1).copied()
}

/// Names of all files that may be blocks.
#[pyfunction(name = "block_names")]
pub(crate) fn py_block_names() -> PyResult<Vec<String>> {
    shared_memory::names().map_err(|error| to_py(error, ""))
}

/// Whether a process owns the block.
#[pyfunction(name = "is_owned")]
pub(crate) fn py_is_owned(name: &str) -> PyResult<bool> {
    shared_memory::is_owned(name).map_err(|error| to_py(error, name))
}

/// Removes a block that no collector serves.
#[pyfunction(name = "unlink")]
pub(crate) fn py_unlink(name: &str) -> PyResult<()> {
    removal::unlink(name).map_err(|error| to_py(error, name))
}
