//! `Feed`: one attached block, and what concerns many of its symbols at once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use candleshm::columns;
use candleshm::error::Error;
use candleshm::feed::{self, Attached, Awaited, Close, max_age_of};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::arguments::{Count, Moment, Number, Symbols, check_moments, not_contiguous};
use crate::array;
use crate::closed::Closed;
use crate::errors::exceptions::ConfigError;
use crate::errors::{seconds, to_py};
use crate::rows::count_of;
use crate::series::Series;
use crate::waiting::{self, News, until_signalled};

/// One attached block: a read-only mapping from symbols to `Series`. `candleshm.attach` makes one.
///
/// >>> feed = candleshm.attach("candleshm-spot-1m", max_age=60.0)  # doctest: +SKIP
/// >>> "BTCUSDT" in feed, len(feed), feed["BTCUSDT"].last_close  # doctest: +SKIP
#[pyclass(frozen, subclass, module = "candleshm._core")]
pub(crate) struct Feed {
    pub(crate) feed: feed::Feed,
    series: RwLock<HashMap<String, Py<Series>>>,
}

#[pymethods]
impl Feed {
    #[new]
    #[pyo3(signature = (name, max_age=None))]
    fn py_new(name: &str, max_age: Option<Number>) -> PyResult<Self> {
        let failed = |error| to_py(error, name);
        let max_age = max_age.map(|Number(seconds)| max_age_of(seconds)).transpose().map_err(failed)?;
        let feed = feed::Feed::attach(name, max_age).map_err(failed)?;
        Ok(Self { feed, series: RwLock::default() })
    }

    /// The name of the block.
    #[getter]
    fn name(&self) -> &str {
        self.feed.name()
    }

    /// The age limit of data that is handed out, seconds, as given to `attach`; None without one.
    #[getter]
    fn max_age(&self) -> Option<f64> {
        self.feed.max_age_ms().map(|limit_ms| limit_ms as f64 / 1e3)
    }

    /// Pickled as what it takes to attach again.
    #[expect(clippy::type_complexity, reason = "what pickle needs")]
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (String, Option<f64>))> {
        let this = slf.get();
        this.feed.check_open().map_err(|error| this.error(error))?;
        Ok((slf.get_type(), (this.name().to_owned(), this.max_age())))
    }

    /// The symbols that the block carries, in its order.
    #[getter]
    fn symbols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.attached()?.symbols())
    }

    /// Whose candles these are: "binance", or host and port of another exchange; empty where it is not known.
    #[getter]
    fn exchange(&self) -> PyResult<String> {
        Ok(self.attached()?.block().exchange())
    }

    /// 'SPOT', 'UM' (USDT futures) or 'CM' (coin futures).
    #[getter]
    fn market(&self) -> PyResult<&'static str> {
        Ok(self.attached()?.block().geometry().market.as_str())
    }

    /// What the prices are: 'trade', 'mark', 'index' or 'premium'.
    #[getter]
    fn price(&self) -> PyResult<&'static str> {
        Ok(self.attached()?.block().geometry().price.as_str())
    }

    /// The length of a candle, such as 1m.
    #[getter]
    fn interval(&self) -> PyResult<String> {
        Ok(self.attached()?.block().geometry().grid(0).name())
    }

    /// Candles of a full window, the live one included.
    #[getter]
    fn length(&self) -> PyResult<usize> {
        Ok(self.attached()?.block().geometry().ring.length)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.attached()?.block().symbol_count())
    }

    fn __contains__(&self, symbol: &Bound<'_, PyAny>) -> PyResult<bool> {
        let attached = self.attached()?;
        let symbol = symbol.cast::<PyString>();
        Ok(symbol.is_ok_and(|symbol| symbol.to_str().is_ok_and(|symbol| attached.place(symbol).is_some())))
    }

    fn __getitem__(&self, py: Python<'_>, symbol: &Bound<'_, PyAny>) -> PyResult<Py<Series>> {
        let symbol = symbol.cast::<PyString>().map_err(|_| not_a_symbol(symbol))?.to_str()?;
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(symbol) {
            return Ok(series.clone_ref(py));
        }
        let series = Py::new(py, Series(self.feed.series(symbol).map_err(|error| self.error(error))?))?;
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(symbol.to_owned()).or_insert(series).clone_ref(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.symbols(py)?.try_iter()?.into_any())
    }

    /// NumPy would make an object array of one feed, without a word.
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(&self, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "the feed of block `{}` is not an array; use feed.panel('close', n).array, or feed.last('close') for the \
             newest values",
            self.name()
        )))
    }

    /// End the use of the feed. Arrays and views already handed out stay readable: each keeps the block mapped.
    fn close(&self) {
        self.feed.close();
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fields of `Feed.health`, judged by `max_age` seconds in place of the feed's own.
    #[pyo3(signature = (max_age=None))]
    fn _health<'py>(&self, py: Python<'py>, max_age: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
        let limit_ms = max_age.map(|seconds| (seconds * 1e3) as u64);
        let health = self.feed.health(limit_ms).map_err(|error| self.error(error))?;
        let fields = PyDict::new(py);
        fields.set_item("state", health.state_name())?;
        fields.set_item("name", health.name)?;
        fields.set_item("market", health.market)?;
        fields.set_item("price", health.price)?;
        fields.set_item("interval", health.interval)?;
        fields.set_item("exchange", health.exchange)?;
        fields.set_item("length", health.length)?;
        fields.set_item("symbols", health.symbols)?;
        fields.set_item("replay_ms", health.replay_ms)?;
        fields.set_item("pid", health.pid)?;
        fields.set_item("heartbeat_age", seconds(health.heartbeat_age_ms))?;
        fields.set_item("loaded", health.loaded)?;
        fields.set_item("ready", health.ready)?;
        fields.set_item("stale", health.freshness.stale)?;
        fields.set_item("oldest_age", seconds(health.freshness.oldest_age_ms))?;
        fields.set_item("is_current", health.freshness.is_current)?;
        fields.set_item("missing", health.missing)?;
        fields.set_item("holes", health.holes)?;
        fields.set_item("weight_used", health.weight_used)?;
        fields.set_item("weight_limit", health.weight_limit)?;
        fields.set_item("failing", health.failing)?;
        fields.set_item("polled", health.polled)?;
        fields.set_item("source", Some(health.source).filter(|source| !source.is_empty()))?;
        fields.set_item("epoch", Some(health.cluster_epoch).filter(|&epoch| epoch > 0))?;
        fields.set_item("source_ms", health.source_ms)?;
        fields.set_item("lag", health.lag_us.map(|lag_us| lag_us as f64 / 1e6))?;
        fields.set_item("last_error", health.last_error)?;
        fields.set_item("banned_until_ms", health.banned_until_ms)?;
        Ok(fields)
    }

    /// Sleep until a candle is final for enough of the symbols, and return it. A hole counts as closed.
    ///
    /// In a loop use `closes()`: it leaves no close out, however long the work takes.
    ///
    /// Args:
    ///     open_time_ms: Which candle: epoch ms, or a datetime with a time zone; None means the next one to close.
    ///     symbols: None means all that trade and have candles. Delisted symbols are not awaited.
    ///     quorum: The part of the symbols that is enough, above 0, at most 1.
    ///     timeout: Seconds; None waits for ever.
    ///
    /// Raises:
    ///     WaitTimeout: With `.missing`, the symbols that do not have the candle final.
    ///     StaleData: The collector published no heartbeat for `max_age`.
    ///     UnknownSymbol: The block does not carry a symbol.
    ///     ConfigError: `quorum` or `timeout` cannot be used, or the 3d candles of the symbols open on different days.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(
        signature = (open_time_ms=None, *, symbols=None, quorum=Number(1.0), timeout=None),
        text_signature = "($self, open_time_ms=None, *, symbols=None, quorum=1.0, timeout=None)"
    )]
    fn wait_closed(
        &self,
        py: Python<'_>,
        open_time_ms: Option<Moment>,
        symbols: Option<Symbols>,
        quorum: Number,
        timeout: Option<Number>,
    ) -> PyResult<Closed> {
        let timeout = waiting::timeout(timeout)?;
        let open_ms = open_time_ms.map(|Moment(open_ms)| open_ms);
        let close = Close { open_ms, symbols: symbols.as_deref(), quorum: quorum.0 };
        let closed = until_signalled(py, self.name(), |goes_on| self.feed.wait_closed(&close, timeout, goes_on))?;
        Ok(Closed::of(closed))
    }

    /// Sleep until something newer is published, of any kind, and return what time it is then, epoch ms.
    ///
    /// That is the replayed time in a replay; else the exchange's clock, or this machine's where the collector has not
    /// measured it. What was published since the last step counts: then it returns at once. In a replay in lockstep
    /// each call goes to the next moment.
    ///
    /// Args:
    ///     timeout: Seconds; None waits for ever.
    ///
    /// Raises:
    ///     WaitTimeout: Nothing was published.
    ///     ReplayEnded: The replay has no later moment.
    ///     StaleData: The collector published no heartbeat for `max_age`.
    ///     ConfigError: `timeout` cannot be used.
    #[pyo3(signature = (timeout=None))]
    fn step(&self, py: Python<'_>, timeout: Option<Number>) -> PyResult<i64> {
        let timeout = waiting::timeout(timeout)?;
        let now_ms = until_signalled(py, self.name(), |goes_on| self.feed.step(timeout, goes_on))?;
        let of_machine = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as i64);
        Ok(now_ms.unwrap_or_else(of_machine))
    }

    /// Return the exchange's clock now, epoch ms, as the collector measured it; None when it never did.
    ///
    /// It is right to half a round trip, and to what clocks drift apart in the minutes since. In a replay it is the
    /// replayed time.
    fn exchange_ms(&self) -> PyResult<Option<i64>> {
        Ok(self.attached()?.exchange_ms())
    }

    /// The calendars of symbols that have one, as (symbol, low half, high half); see docs/segment-format.md.
    fn _calendars(&self) -> PyResult<Vec<(String, u32, u32)>> {
        let attached = self.attached()?;
        let block = attached.block();
        let all = (0..block.symbol_count()).map(|index| (index, halves(block.calendar(index))));
        let known = all.filter(|(_, halves)| *halves != (0, 0));
        Ok(known.map(|(index, (low, high))| (block.symbol(index), low, high)).collect())
    }

    /// What is announced of closes now, for a wait of the thread of that native id, None for the caller's.
    #[pyo3(signature = (thread_id=None))]
    fn _news(&self, thread_id: Option<u64>) -> PyResult<News> {
        Ok(News(self.feed.news(thread_id).map_err(|error| self.error(error))?))
    }

    /// What `wait_closed` returns, the open time of the candle after it, and how many candles from this one on have
    /// closed; None while there is nothing to return. Raises `WaitTimeout` instead when `waited` seconds were enough.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(signature = (open_time_ms, symbols, quorum, waited=None))]
    fn _look_closed(
        &self,
        open_time_ms: Option<Moment>,
        symbols: Option<Symbols>,
        quorum: Number,
        waited: Option<f64>,
    ) -> PyResult<Option<(Closed, i64, i64)>> {
        let attached = self.attached()?;
        let awaited = self.awaited(symbols.as_deref(), quorum.0)?;
        let open_ms = open_time_ms.map(|Moment(open_ms)| open_ms);
        if let Some(closed) = open_ms.and_then(|open_ms| awaited.closed(open_ms)) {
            let (end_ms, lag) = (closed.end_ms, awaited.closed_since(closed.open_ms));
            return Ok(Some((Closed::of(closed), end_ms, lag)));
        }
        self.feed.check_collector(&attached).map_err(|error| self.error(error))?;
        match waiting::timeout(waited.map(Number))? {
            None => Ok(None),
            Some(waited) => Err(self.error(awaited.timed_out(open_ms, waited))),
        }
    }

    /// `wait_closed` for the first candle from `open_time_ms` on that exists (symbols may be listed only later), the open
    /// time of the candle after it, and how many have closed from `open_time_ms` on. None as the first of them, without
    /// a wait, when these are more than the window holds.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    fn _wait_closed_from(
        &self,
        py: Python<'_>,
        open_time_ms: Option<i64>,
        symbols: Option<Symbols>,
        quorum: f64,
    ) -> PyResult<(Option<Closed>, i64, i64)> {
        let lag = match open_time_ms {
            None => 0,
            Some(open_ms) => self.awaited(symbols.as_deref(), quorum)?.closed_since(open_ms),
        };
        if lag > self.length()? as i64 {
            return Ok((None, 0, lag));
        }
        let close = Close { open_ms: open_time_ms, symbols: symbols.as_deref(), quorum };
        let closed = until_signalled(py, self.name(), |goes_on| self.feed.wait_closed_from(&close, None, goes_on))?;
        let end_ms = closed.end_ms;
        Ok((Some(Closed::of(closed)), end_ms, lag))
    }

    /// `open_time_ms`, or the open time of the first candle of these symbols where all were listed later.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _listed_ms(&self, open_time_ms: i64, symbols: Option<Symbols>) -> PyResult<i64> {
        Ok(self.awaited(symbols.as_deref(), 1.0)?.listed_ms(open_time_ms))
    }

    /// Returns (values, open times, symbols): values in the order field, symbol, row.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    #[pyo3(signature = (fields, n, symbols, live, out))]
    fn _panel<'py>(
        &self,
        py: Python<'py>,
        fields: Vec<String>,
        n: Option<Count>,
        symbols: Option<Symbols>,
        live: bool,
        out: Option<Bound<'py, PyArray1<f64>>>,
    ) -> PyResult<PanelParts<'py>> {
        let error = |error| self.error(error);
        let columns = fields.iter().map(|field| column_of(field)).collect::<PyResult<Vec<_>>>()?;
        let group = self.feed.group(symbols.as_deref()).map_err(error)?;
        let panel = group.panel(count_of(n)?, live).map_err(error)?;
        let values = array::values_in(py, columns.len() * group.len() * panel.rows(), out, |values| {
            py.detach(|| panel.copy_into(&columns, values)).map_err(error)
        })?;
        let open_times = PyArray1::from_iter(py, panel.open_ms());
        Ok((values, open_times, PyTuple::new(py, group.symbols())?))
    }

    /// Returns (values, symbols): values in the order symbol, moment.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    #[pyo3(signature = (field, moments_ms, symbols))]
    fn _asof<'py>(
        &self,
        py: Python<'py>,
        field: &str,
        moments_ms: &Bound<'py, PyArray1<i64>>,
        symbols: Option<Symbols>,
    ) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyTuple>)> {
        let moments = moments_ms.try_readonly().map_err(|_| not_contiguous())?;
        let moments = moments.as_slice().map_err(|_| not_contiguous())?;
        check_moments(moments)?;
        let column = column_of(field)?;
        let group = self.feed.group(symbols.as_deref()).map_err(|error| self.error(error))?;
        let values = array::new_values(py, moments.len() * group.len(), |values| {
            py.detach(|| group.asof_into(column, moments, values)).map_err(|error| self.error(error))
        })?;
        Ok((values, PyTuple::new(py, group.symbols())?))
    }

    /// The open time that `wait_closed(None)` would wait for, if it is known.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(signature = (symbols, quorum))]
    fn _next_close_ms(&self, symbols: Option<Symbols>, quorum: f64) -> PyResult<Option<i64>> {
        Ok(self.awaited(symbols.as_deref(), quorum)?.next_ms())
    }

    /// The open time of the candle of these symbols so many places after the one that contains `open_time_ms`.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _later_open_ms(&self, open_time_ms: i64, places: i64, symbols: Option<Symbols>) -> PyResult<i64> {
        let grid = self.awaited(symbols.as_deref(), 1.0)?.grid();
        Ok(grid.open_ms(grid.index_of(open_time_ms) + places))
    }

    /// How many candles from the one that contains `open_time_ms` on have closed.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _closed_since(&self, open_time_ms: i64, symbols: Option<Symbols>, quorum: f64) -> PyResult<i64> {
        Ok(self.awaited(symbols.as_deref(), quorum)?.closed_since(open_time_ms))
    }

    /// Return the newest value of a field for each symbol: float64 (S,), NaN where there is none.
    ///
    /// Args:
    ///     field: A column, such as "close".
    ///     symbols: The order of the result; None means all that the block carries.
    ///     out: Filled and returned: a writable, contiguous float64 array of shape (S,).
    ///
    /// Raises:
    ///     StaleData, UnknownSymbol: As `Series.candles`; with None only symbols that trade can be stale.
    ///     ConfigError: `field` or `out` cannot be used.
    #[pyo3(signature = (field, *, symbols=None, out=None))]
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    fn last<'py>(
        &self,
        py: Python<'py>,
        field: &str,
        symbols: Option<Symbols>,
        out: Option<Bound<'py, PyArray1<f64>>>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (column, error) = (column_of(field)?, |error| self.error(error));
        let group = match &symbols {
            None => self.feed.all(),
            Some(symbols) => self.feed.group(Some(symbols)),
        }
        .map_err(error)?;
        array::values_in(py, group.len(), out, |values| group.last_into(column, values).map_err(error))
    }
}

/// Values, open times, symbols.
type PanelParts<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyTuple>);

impl Feed {
    fn error(&self, error: Error) -> PyErr {
        to_py(error, self.name())
    }

    fn attached(&self) -> PyResult<Arc<Attached>> {
        self.feed.attached().map_err(|error| self.error(error))
    }

    /// The closes that a wait is about.
    fn awaited(&self, symbols: Option<&[String]>, quorum: f64) -> PyResult<Awaited> {
        self.feed.awaited(symbols, quorum).map_err(|error| self.error(error))
    }
}

/// The error for `feed[...]` with anything but one symbol.
fn not_a_symbol(key: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "a feed has one Series for each symbol, such as feed['BTCUSDT'], and nothing for `{key}`; values of many symbols \
         are feed.panel('close', n, symbols=[...])"
    ))
}

fn column_of(field: &str) -> PyResult<usize> {
    columns::NAMES
        .iter()
        .position(|name| *name == field)
        .ok_or_else(|| ConfigError::new_err(format!("field must be one of {}: `{field}`", columns::NAMES.join(", "))))
}

/// Returns the low and the high half of a calendar.
pub(crate) fn halves(calendar: u64) -> (u32, u32) {
    (calendar as u32, (calendar >> 32) as u32)
}
