//! `Series`: the candles of one symbol.

use candleshm::columns::{COLUMNS, Row};
use candleshm::error::Error;
use candleshm::feed::{self, Copied, Window};
use candleshm::layout::RowState;
use candleshm::page::PageRequest;
use candleshm::price::Price;
use candleshm::sync::Target;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arguments::{Count, Moment, Number, check_moments, not_contiguous};
use crate::array;
use crate::derive::note_ended;
use crate::errors::exceptions::ConfigError;
use crate::errors::{seconds, to_py};
use crate::gap::Gap;
use crate::klines::{Digits, KlinesText, WrittenPage, decimals_of};
use crate::rows::{count_of, in_rows, window_of};
use crate::view::View;
use crate::waiting::{self, News, until_signalled};

/// Copies larger than this are made with the GIL released.
const DETACH_BYTES_MIN: usize = 16 * 1024;
/// Text of more rows than this is written with the GIL released: to get it back may take longer than to write less.
const DETACH_ROWS_MIN: usize = 100;

/// The candles of one symbol. Cheap to keep; follows its symbol when the block is replaced.
///
/// Every method raises UnknownSymbol when the block that took the name no longer carries the symbol, and BlockNotFound
/// once the feed was closed. Those that hand out data raise StaleData when the series was last confirmed longer ago
/// than the feed's `max_age`, or when the symbol is delisted; `states`, `gaps`, `age`, `last_open_time_ms` and
/// `revision` never do. A series is pickled, and copied, as its name: the copy attaches anew.
///
/// >>> btc = candleshm.attach("candleshm-spot-1m")["BTCUSDT"]  # doctest: +SKIP
/// >>> btc.candles(100, closed_only=True)[:, candleshm.CLOSE].mean()  # doctest: +SKIP
#[pyclass(frozen, module = "candleshm")]
pub(crate) struct Series(pub(crate) feed::Series);

#[pymethods]
impl Series {
    /// The name of the symbol, such as BTCUSDT.
    #[getter(symbol)]
    fn py_symbol(&self) -> &str {
        self.0.symbol()
    }

    /// Return a private, consistent copy of the newest rows: float64 (m, 12), oldest first.
    ///
    /// Args:
    ///     n: Newest time slots, the live row included unless `closed_only`. None: LENGTH of the block.
    ///     closed_only: Leave out rows that are not final, and end before the first of them.
    ///     holes: Slots without a row are left out ("drop", so m <= n), kept as their grid open time and NaN ("nan"),
    ///         or an error ("raise").
    ///     out: Filled, and its first m rows returned: a writable, contiguous float64 array of shape (n, 12), in C or
    ///         Fortran order. Without it the result is a new array in Fortran order.
    ///
    /// Raises:
    ///     StaleData, UnknownSymbol: See the class.
    ///     GapError: `holes="raise"` and a row is missing or a hole.
    ///     ConfigError: `n`, `holes` or `out` cannot be used.
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop", out=None))]
    fn candles<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let window = window_of(n, closed_only, holes)?;
        match out {
            Some(out) => self.copy_into(py, &window, &out),
            None => self.copied(py, &window, None),
        }
    }

    /// Return the states of the rows that `candles` with the same arguments returns: uint8 (m,), see `RowState`.
    ///
    /// `candles` and then `states` are two readings, with time for a candle to close in between; `snapshot` is one.
    /// Never raises StaleData.
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop"))]
    fn states<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let states = self.0.states(&window_of(n, closed_only, holes)?).map_err(|error| self.error(error))?;
        Ok(numbers_of(py, &states))
    }

    /// Return rows and their states of one moment: float64 (m, 12) and uint8 (m,), see `candleshm.RowState`.
    ///
    /// Arguments and errors are those of `candles`.
    ///
    /// >>> rows, states = btc.snapshot(100)  # doctest: +SKIP
    /// >>> final = rows[states != candleshm.RowState.LIVE]  # doctest: +SKIP
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop"))]
    fn snapshot<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<u8>>)> {
        let mut states = Vec::new();
        let rows = self.copied(py, &window_of(n, closed_only, holes)?, Some(&mut states))?;
        Ok((rows, numbers_of(py, &states)))
    }

    /// Return, for each moment, the newest candle that had closed by then: float64 (m, 12), NaN before the window.
    ///
    /// Nothing from the future gets in: a candle counts from its end on. `moments_ms` are whole epoch ms (int64 or a
    /// list), datetimes with a time zone, datetime64 in UTC, or a pandas DatetimeIndex; (m,), or one of them. Raises
    /// StaleData, UnknownSymbol, ConfigError (moments in another unit or of another type).
    fn asof<'py>(&self, py: Python<'py>, moments_ms: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let moments = py.import("candleshm.reader.moments")?.call_method1("moments_of", (moments_ms,))?;
        let moments = moments.cast::<PyArray1<i64>>()?.try_readonly().map_err(|_| not_contiguous())?;
        let moments = moments.as_slice().map_err(|_| not_contiguous())?;
        check_moments(moments)?;
        array::new_columns(py, moments.len(), |values| {
            py.detach(|| self.0.asof_into(moments, values)).map_err(|error| self.error(error))
        })
    }

    /// Return what `candles` with the same arguments returns as a pandas DataFrame with a UTC DatetimeIndex.
    ///
    /// Raises MissingExtra, and what `candles` raises.
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop"))]
    fn to_pandas<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.framed(py, "to_pandas", n, closed_only, holes)
    }

    /// Return what `candles` with the same arguments returns as a polars DataFrame.
    ///
    /// Raises MissingExtra, and what `candles` raises.
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop"))]
    fn to_polars<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.framed(py, "to_polars", n, closed_only, holes)
    }

    /// Return what `candles` with the same arguments returns as a pyarrow Table.
    ///
    /// Raises MissingExtra, and what `candles` raises.
    #[pyo3(signature = (n=None, *, closed_only=false, holes="drop"))]
    fn to_arrow<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.framed(py, "to_arrow", n, closed_only, holes)
    }

    /// Return rows of a range of open times as the exchange's JSON, from one moment. Never raises StaleData.
    ///
    /// Holes that the exchange confirmed are left out. The newest row is there also while it may still change; whether
    /// it is as new as the present is for the caller to judge, by `age`.
    ///
    /// Args:
    ///     low_ms: Earliest open time, epoch ms; None begins at the symbol's first candle.
    ///     high_ms: Latest open time, epoch ms; None ends at the newest row.
    ///     limit: Most rows, 1 or more.
    ///     newest: Take the newest `limit` rows of the range, not the oldest.
    ///     decimals: Digits behind the point of (prices, volumes, turnovers), and to how many all are padded with
    ///         zeroes; 18 at most. A value with more digits keeps them. None: the shortest text of each number.
    ///     derived: Whether the block is derived from another. The first candle that it knows may then be the first
    ///         that could be derived, so the rows before it may exist.
    ///
    /// Raises:
    ///     ConfigError: `limit` or `decimals` cannot be used.
    #[pyo3(signature = (low_ms, high_ms, limit, *, newest, decimals, derived=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn klines_text(
        &self,
        py: Python<'_>,
        low_ms: Option<i64>,
        high_ms: Option<i64>,
        limit: Count,
        newest: bool,
        decimals: Option<Digits>,
        derived: bool,
    ) -> PyResult<KlinesText> {
        let decimals = decimals_of(decimals)?;
        if limit.0 < 1 {
            return Err(ConfigError::new_err(format!("limit must be a positive integer: `{}`", limit.0)));
        }
        let request = PageRequest { low_ms, high_ms, limit: limit.0 as usize, newest, knows_first: !derived };
        let read = || Ok(WrittenPage::of(&self.0.page(&request)?, decimals));
        let written = if request.limit > DETACH_ROWS_MIN { py.detach(read) } else { read() };
        Ok(KlinesText::new(py, &written.map_err(|error| self.error(error))?))
    }

    /// The newest row: float64 (12,), a copy. NaN while the series is empty. Raises StaleData.
    #[getter]
    fn live<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let mut row: Row = [0.0; COLUMNS];
        self.0.live(&mut row).map_err(|error| self.error(error))?;
        Ok(PyArray1::from_slice(py, &row))
    }

    /// Close of the newest row. NaN while the series is empty. Raises StaleData.
    #[getter]
    fn last_close(&self) -> PyResult<f64> {
        self.0.last_close().map_err(|error| self.error(error))
    }

    /// Seconds since the exchange last confirmed this series; infinite before the first response, and while its
    /// newest candle is older than the machine's start.
    #[getter]
    fn age(&self) -> PyResult<f64> {
        let age = self.0.age().map_err(|error| self.error(error))?;
        Ok(seconds(age.map(|age| age.as_millis() as u64)))
    }

    /// Open time of the newest row, epoch ms, as the exchange sent it; None while the series is empty.
    #[getter]
    fn last_open_time_ms(&self) -> PyResult<Option<i64>> {
        self.0.last_open_ms().map_err(|error| self.error(error))
    }

    /// How many times closed rows were corrected so far.
    #[getter]
    fn revision(&self) -> PyResult<u32> {
        self.0.revision().map_err(|error| self.error(error))
    }

    /// Return the gaps of the readable window, oldest first: see `Gap`.
    fn gaps(&self) -> PyResult<Vec<Gap>> {
        let gaps = self.0.gaps().map_err(|error| self.error(error))?;
        Ok(gaps.into_iter().map(Gap::of).collect())
    }

    /// Return the newest `n` final slots in place, without a copy; fewer if fewer exist. None: LENGTH of the block.
    ///
    /// Raises StaleData, UnknownSymbol, ConfigError (`n`).
    #[pyo3(signature = (n=None))]
    fn view(&self, n: Option<Count>) -> PyResult<View> {
        let view = self.0.view(count_of(n)?).map_err(|error| self.error(error))?;
        Ok(View::new(self.0.symbol().to_owned(), view))
    }

    /// Return a view as `view` does, for ``with``: its end raises OverwrittenView when a row changed meanwhile.
    #[pyo3(signature = (n=None))]
    fn read(&self, n: Option<Count>) -> PyResult<View> {
        self.view(n)
    }

    /// Sleep until a candle opens that is newer than `after_open_time_ms`, and return its open time, epoch ms.
    ///
    /// Args:
    ///     after_open_time_ms: Epoch ms, or a datetime with a time zone; None means the newest candle now.
    ///     timeout: Seconds; None waits for ever.
    ///
    /// Raises:
    ///     WaitTimeout: No newer candle opened in time; `.missing` holds the symbol.
    ///     StaleData: The collector published no heartbeat for `max_age`, or the symbol is delisted.
    ///     ConfigError: A time that is not in milliseconds, or a timeout that is not a duration.
    #[pyo3(signature = (after_open_time_ms=None, timeout=None))]
    fn wait(&self, py: Python<'_>, after_open_time_ms: Option<Moment>, timeout: Option<Number>) -> PyResult<i64> {
        let (timeout, after) = (waiting::timeout(timeout)?, after_open_time_ms.map(|Moment(open_ms)| open_ms));
        until_signalled(py, self.0.block_name(), |goes_on| self.0.wait_open(after, timeout, goes_on))
    }

    /// What is announced of rows now, for a wait of the thread of that native id, None for the caller's.
    #[pyo3(name = "_news", signature = (thread_id=None))]
    fn news(&self, thread_id: Option<u64>) -> PyResult<News> {
        Ok(News(self.0.news(thread_id).map_err(|error| self.error(error))?))
    }

    /// The candle index after that of the open time, or after the newest one.
    #[pyo3(name = "_end_of", signature = (open_time_ms))]
    fn end_of(&self, open_time_ms: Option<Moment>) -> PyResult<u64> {
        self.0.end_of(open_time_ms.map(|Moment(open_ms)| open_ms)).map_err(|error| self.error(error))
    }

    /// What `wait` returns, None while there is nothing to return. Raises `WaitTimeout` instead when `waited` seconds were
    /// enough.
    #[pyo3(name = "_look_newer", signature = (end, waited=None))]
    fn look_newer(&self, end: u64, waited: Option<f64>) -> PyResult<Option<i64>> {
        let newer = self.0.look_newer(end).map_err(|error| self.error(error))?;
        match waiting::timeout(waited.map(Number))? {
            Some(waited) if newer.is_none() => Err(self.error(self.0.nothing_opened(waited))),
            _ => Ok(newer),
        }
    }

    /// NumPy would make an object array of one series, without a word.
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(&self, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "a Series is not an array; use candles(n), float64 (n, 12) of {}, or view(n) without a copy",
            self.0.symbol()
        )))
    }

    /// Pickled as what it takes to attach again: name, `max_age` and symbol.
    #[expect(clippy::type_complexity, reason = "what pickle needs")]
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, Option<f64>, String))> {
        self.0.check_open().map_err(|error| self.error(error))?;
        let max_age = self.0.max_age_ms().map(|limit_ms| limit_ms as f64 / 1e3);
        let attach_series = py.import("candleshm.reader.feed")?.getattr("attach_series")?;
        Ok((attach_series, (self.0.block_name().to_owned(), max_age, self.0.symbol().to_owned())))
    }

    /// As Jupyter shows it.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("candleshm.reader.notebook")?.call_method1("series_html", (slf,))
    }

    fn __repr__(&self) -> String {
        let (symbol, name) = (self.0.symbol(), self.0.block_name());
        match self.0.with(|attached, _| Ok(*attached.block().geometry())) {
            Ok(geometry) => {
                let kind = match geometry.price {
                    Price::Trade => geometry.market.as_str().to_owned(),
                    price => format!("{}-{}", geometry.market.as_str(), price.as_str()),
                };
                format!("<Series {kind} {symbol} {} of {name}>", geometry.grid(0).name())
            }
            Err(Error::FeedClosed { .. }) => format!("<Series {symbol} of {name}: closed>"),
            Err(_) => format!("<Series {symbol} of {name}: no longer there>"),
        }
    }
}

/// Returns states as numbers.
fn numbers_of<'py>(py: Python<'py>, states: &[RowState]) -> Bound<'py, PyArray1<u8>> {
    PyArray1::from_vec(py, states.iter().map(|&state| state as u8).collect())
}

impl Series {
    fn error(&self, error: Error) -> PyErr {
        to_py(error, self.0.block_name())
    }

    /// Copies rows into a new array, and their states.
    fn copied<'py>(
        &self,
        py: Python<'py>,
        window: &Window,
        states: Option<&mut Vec<RowState>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let stride = self.0.available(window).map_err(|error| self.error(error))?;
        array::new_unset_columns(py, stride, |values| self.copy(py, window, values, stride, states))
    }

    /// Copies rows into `columns`; returns how many rows there are.
    fn copy<T: Target + Send>(
        &self,
        py: Python<'_>,
        window: &Window,
        columns: &mut [T],
        stride: usize,
        states: Option<&mut Vec<RowState>>,
    ) -> PyResult<usize> {
        let is_long = size_of_val(columns) > DETACH_BYTES_MIN;
        let run = || self.0.candles_into(window, columns, stride, states);
        let copied = if is_long { py.detach(run) } else { run() };
        let Copied { rows, end_ms } = copied.map_err(|error| self.error(error))?;
        if let Some(end_ms) = end_ms.filter(|_| window.closed_only) {
            note_ended(end_ms);
        }
        Ok(rows)
    }

    fn copy_into<'py>(&self, py: Python<'py>, window: &Window, out: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let length = self.0.with(|attached, _| Ok(attached.block().geometry().ring.length));
        let length = length.map_err(|error| self.error(error))?;
        let slots = window.count.unwrap_or(length).min(length);
        let wrong = || {
            ConfigError::new_err(format!(
                "out must be a writable, contiguous float64 array of shape ({slots}, {COLUMNS})"
            ))
        };
        let array = out.cast::<PyArray2<f64>>().map_err(|_| wrong())?;
        let exact = window.count.is_none_or(|count| count == slots) && array.shape() == [slots, COLUMNS];
        // NumPy's own bookkeeping refuses read-only arrays and those that are borrowed already.
        let mut borrowed = array.try_readwrite().map_err(|_| wrong())?;
        let values = borrowed.as_slice_mut().map_err(|_| wrong())?;
        if !exact {
            return Err(wrong());
        }
        let fill = |columns: &mut [f64]| self.copy(py, window, columns, slots, None);
        let rows = if array.is_fortran_contiguous() { fill(values)? } else { in_rows(values, fill)? };
        if rows == slots { Ok(out.clone()) } else { array::first_rows(out, rows) }
    }

    /// Copies rows and hands them to the function of that name in `candleshm.reader.frames`.
    fn framed<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        n: Option<Count>,
        closed_only: bool,
        holes: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = self.candles(py, n, closed_only, holes, None)?;
        py.import("candleshm.reader.frames")?.call_method1(function, (rows,))
    }
}
