//! `Feed`: one attached block, and what concerns many of its symbols at once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use candleshm::asof;
use candleshm::columns;
use candleshm::layout::{BlockState, header};
use candleshm::panel::{self, PanelRange};
use candleshm::read::SeriesReader;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::arguments::{Count, Moment, Number, Symbols, check_moments, not_contiguous};
use crate::array;
use crate::attached::{Attached, age_ms, exchange_ms, halves, heartbeat_age_ms, seconds, trading_ages};
use crate::closed::{Awaited, Closed, common_grid};
use crate::errors::exceptions::{ConfigError, UnknownSymbol};
use crate::process;
use crate::series::Series;
use crate::source::{Source, stale};
use crate::waiting::{Deadline, News};

/// One attached block: a read-only mapping from symbols to `Series`. `candleshm.attach` makes one.
///
/// >>> feed = candleshm.attach("candleshm-spot-1m", max_age=60.0)  # doctest: +SKIP
/// >>> "BTCUSDT" in feed, len(feed), feed["BTCUSDT"].last_close  # doctest: +SKIP
#[pyclass(frozen, subclass, module = "candleshm._core")]
pub(crate) struct Feed {
    pub(crate) source: Arc<Source>,
    series: RwLock<HashMap<String, Py<Series>>>,
}

#[pymethods]
impl Feed {
    #[new]
    #[pyo3(signature = (name, max_age=None))]
    fn py_new(name: &str, max_age: Option<Number>) -> PyResult<Self> {
        let max_age_ms = match max_age.map(|Number(seconds)| seconds) {
            Some(age) if age.is_nan() || age <= 0.0 => {
                return Err(ConfigError::new_err(format!(
                    "max_age must be a positive number of seconds, or None: `{age}`"
                )));
            }
            age => age.map(|age| (age * 1e3) as u64),
        };
        let source = Source::open(name, max_age_ms)?;
        Ok(Self { source: Arc::new(source), series: RwLock::default() })
    }

    /// The name of the block.
    #[getter]
    fn name(&self) -> &str {
        self.source.name()
    }

    /// The age limit of data that is handed out, seconds, as given to `attach`; None without one.
    #[getter]
    fn max_age(&self) -> Option<f64> {
        self.source.max_age()
    }

    /// Pickled as what it takes to attach again.
    #[expect(clippy::type_complexity, reason = "what pickle needs")]
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (String, Option<f64>))> {
        let source = &slf.get().source;
        source.check_open()?;
        Ok((slf.get_type(), (source.name().to_owned(), source.max_age())))
    }

    /// The symbols that the block carries, in its order.
    #[getter]
    fn symbols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.source.attached()?.symbols())
    }

    /// Whose candles these are: "binance", or host and port of another exchange; empty where it is not known.
    #[getter]
    fn exchange(&self) -> PyResult<String> {
        Ok(self.source.attached()?.block.exchange())
    }

    /// 'SPOT', 'UM' (USDT futures) or 'CM' (coin futures).
    #[getter]
    fn market(&self) -> PyResult<&'static str> {
        Ok(self.source.attached()?.block.geometry().market.as_str())
    }

    /// What the prices are: 'trade', 'mark', 'index' or 'premium'.
    #[getter]
    fn price(&self) -> PyResult<&'static str> {
        Ok(self.source.attached()?.block.geometry().price.as_str())
    }

    /// The length of a candle, such as 1m.
    #[getter]
    fn interval(&self) -> PyResult<String> {
        Ok(self.source.attached()?.block.geometry().grid(0).name())
    }

    /// Candles of a full window, the live one included.
    #[getter]
    fn length(&self) -> PyResult<usize> {
        Ok(self.source.attached()?.block.geometry().ring.length)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.source.attached()?.block.symbol_count())
    }

    fn __contains__(&self, symbol: &Bound<'_, PyAny>) -> PyResult<bool> {
        let attached = self.source.attached()?;
        let symbol = symbol.cast::<PyString>();
        Ok(symbol.is_ok_and(|symbol| symbol.to_str().is_ok_and(|symbol| attached.place(symbol).is_some())))
    }

    fn __getitem__(&self, py: Python<'_>, symbol: &Bound<'_, PyAny>) -> PyResult<Py<Series>> {
        let symbol = symbol.cast::<PyString>().map_err(|_| not_a_symbol(symbol))?.to_str()?;
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

    /// NumPy would make an object array of one feed, without a word.
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(&self, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "the feed of block `{}` is not an array; use feed.panel('close', n).array, or feed.last('close') for the \
             newest values",
            self.source.name()
        )))
    }

    /// End the use of the feed. Arrays and views already handed out stay readable: each keeps the block mapped.
    fn close(&self) {
        self.source.close();
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fields of `Feed.health`.
    fn _health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let attached = self.source.attached()?;
        let block = &attached.block;
        let health = PyDict::new(py);
        health.set_item("name", self.source.name())?;
        health.set_item("market", block.geometry().market.as_str())?;
        health.set_item("price", block.geometry().price.as_str())?;
        health.set_item("interval", block.geometry().grid(0).name())?;
        health.set_item("exchange", block.exchange())?;
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
        health.set_item("failing", block.value(header::FAILING))?;
        health.set_item("polled", block.value(header::POLLED))?;
        health.set_item("last_error", (block.value(header::LAST_ERROR), block.value(header::LAST_ERROR_MS)))?;
        health.set_item("banned_until_ms", Some(block.value(header::BANNED_UNTIL_MS)).filter(|&until| until > 0))?;
        Ok(health)
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
        let (Number(quorum), timeout) = (quorum, timeout.map(|Number(seconds)| seconds));
        let deadline = Deadline::after(timeout)?;
        let mut open_ms = open_time_ms.map(|Moment(open_ms)| open_ms);
        loop {
            let news = News::of_closes(self.source.attached()?);
            let awaited = self.awaited(news.attached(), symbols.as_deref(), quorum)?;
            open_ms = open_ms.or_else(|| awaited.next_ms());
            if let Some(closed) = awaited.closed(py, open_ms)? {
                return Ok(closed);
            }
            self.source.check_collector(news.attached(), "the collector")?;
            let Some(slice) = deadline.slice() else {
                return Err(awaited.timed_out(py, open_ms, timeout.unwrap_or_default()));
            };
            news.sleep_for(py, slice)?;
        }
    }

    /// Return the exchange's clock now, epoch ms, as the collector measured it; None when it never did.
    ///
    /// It is right to half a round trip, and to what clocks drift apart in the minutes since.
    fn exchange_ms(&self) -> PyResult<Option<i64>> {
        let attached = self.source.attached()?;
        Ok(exchange_ms(&attached.block))
    }

    /// The calendars of symbols that have one, as (symbol, low half, high half); see docs/segment-format.md.
    fn _calendars(&self) -> PyResult<Vec<(String, u32, u32)>> {
        let attached = self.source.attached()?;
        let block = &attached.block;
        let all = (0..block.symbol_count()).map(|index| (index, halves(block.calendar(index))));
        let known = all.filter(|(_, halves)| *halves != (0, 0));
        Ok(known.map(|(index, (low, high))| (block.symbol(index), low, high)).collect())
    }

    /// What is announced of closes now.
    fn _news(&self) -> PyResult<News> {
        Ok(News::of_closes(self.source.attached()?))
    }

    /// What `wait_closed` returns, the open time of the candle after it, and how many candles from this one on have
    /// closed; None while there is nothing to return. Raises `WaitTimeout` instead when `waited` seconds were enough.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    #[pyo3(signature = (open_time_ms, symbols, quorum, waited=None))]
    fn _look_closed(
        &self,
        py: Python<'_>,
        open_time_ms: Option<Moment>,
        symbols: Option<Symbols>,
        quorum: Number,
        waited: Option<f64>,
    ) -> PyResult<Option<(Closed, i64, i64)>> {
        let attached = self.source.attached()?;
        let awaited = self.awaited(&attached, symbols.as_deref(), quorum.0)?;
        let open_time_ms = open_time_ms.map(|Moment(open_ms)| open_ms);
        if let Some(closed) = awaited.closed(py, open_time_ms)? {
            let grid = awaited.grid();
            let candle_index = grid.index_of(open_time_ms.unwrap_or_default());
            return Ok(Some((closed, grid.open_ms(candle_index + 1), awaited.closed_since(candle_index))));
        }
        self.source.check_collector(&attached, "the collector")?;
        match waited {
            None => Ok(None),
            Some(waited) => Err(awaited.timed_out(py, open_time_ms, waited)),
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
        symbols: Option<Symbols>,
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
                return Err(ConfigError::new_err(format!("n must be a positive integer: `{n}`")));
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
        symbols: Option<Symbols>,
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
    fn _next_close_ms(&self, symbols: Option<Symbols>, quorum: f64) -> PyResult<Option<i64>> {
        Ok(self.awaited(&self.source.attached()?, symbols.as_deref(), quorum)?.next_ms())
    }

    /// The open time of the candle of these symbols so many places after the one that contains `open_time_ms`.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _later_open_ms(&self, open_time_ms: i64, places: i64, symbols: Option<Symbols>) -> PyResult<i64> {
        let grid = self.awaited(&self.source.attached()?, symbols.as_deref(), 1.0)?.grid();
        Ok(grid.open_ms(grid.index_of(open_time_ms) + places))
    }

    /// How many candles from the one that contains `open_time_ms` on have closed.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn _closed_since(&self, open_time_ms: i64, symbols: Option<Symbols>, quorum: f64) -> PyResult<i64> {
        let awaited = self.awaited(&self.source.attached()?, symbols.as_deref(), quorum)?;
        Ok(awaited.closed_since(awaited.grid().index_of(open_time_ms)))
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
        let attached = self.source.attached()?;
        let column = column_of(field)?;
        let indices = match &symbols {
            None => {
                let all: Vec<usize> = (0..attached.block.symbol_count()).collect();
                self.check_fresh(&attached, &self.trading(&attached, None)?)?;
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
    /// The places of symbols whose data may be handed out: those requested, else all that trade and have rows.
    fn fresh(&self, attached: &Attached, symbols: Option<&[String]>) -> PyResult<Vec<usize>> {
        let indices = match symbols {
            None => self.trading(attached, None)?,
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

    /// The closes that a wait is about.
    fn awaited(&self, attached: &Arc<Attached>, symbols: Option<&[String]>, quorum: f64) -> PyResult<Awaited> {
        Awaited::new(attached.clone(), self.trading(attached, symbols)?, quorum)
    }

    /// The places of the symbols that trade, of those that were named, else of all that have rows.
    fn trading(&self, attached: &Attached, symbols: Option<&[String]>) -> PyResult<Vec<usize>> {
        let block = &attached.block;
        let mut indices = match symbols {
            Some([]) => return Err(ConfigError::new_err("symbols must not be an empty list; None means all symbols")),
            None => (0..block.symbol_count())
                .filter(|&index| SeriesReader::new(block, index).marks().is_ok_and(|marks| marks.head > 0))
                .collect(),
            Some(symbols) => self.places(attached, symbols)?,
        };
        indices.retain(|&index| block.is_trading(index));
        Ok(indices)
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
