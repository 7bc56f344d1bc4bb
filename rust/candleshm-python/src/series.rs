//! `Series`: the candles of one symbol.

use std::sync::{Arc, PoisonError, RwLock};

use candleshm::asof;
use candleshm::columns::{COLUMNS, OPEN_TIME_MS};
use candleshm::page::PageRequest;
use candleshm::price::Price;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::sync::Target;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arguments::{Count, Moment, Number, check_moments, not_contiguous};
use crate::array;
use crate::attached::{Attached, age_ms, seconds};
use crate::derive::note_ended;
use crate::errors::exceptions::{ConfigError, WaitTimeout};
use crate::gap::Gap;
use crate::klines::{Digits, KlinesText, WrittenPage, decimals_of};
use crate::process;
use crate::rows::{Holes, in_rows};
use crate::source::{Source, stale};
use crate::view::View;
use crate::waiting::{Deadline, News};

/// Copies larger than this are made with the GIL released.
const DETACH_BYTES_MIN: usize = 16 * 1024;
/// Text of more rows than this is written with the GIL released: to get it back may take longer than to write less.
const DETACH_ROWS_MIN: usize = 100;

/// Where a series was last found.
struct Place {
    attached: Arc<Attached>,
    index: usize,
}

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
pub(crate) struct Series {
    source: Arc<Source>,
    symbol: String,
    place: RwLock<Place>,
}

impl Series {
    pub(crate) fn new(source: Arc<Source>, symbol: &str) -> PyResult<Self> {
        let (attached, index) = source.place(symbol)?;
        Ok(Self { source, symbol: symbol.to_owned(), place: RwLock::new(Place { attached, index }) })
    }

    /// Runs `read` on the series in the block that stands under the name now.
    #[inline]
    fn with<T>(&self, read: impl FnOnce(&Arc<Attached>, usize) -> T) -> PyResult<T> {
        self.source.check_open()?;
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        if self.source.is_good(&place.attached) {
            return Ok(read(&place.attached, place.index));
        }
        drop(place);
        let (attached, index) = self.moved()?;
        Ok(read(&attached, index))
    }

    #[cold]
    fn moved(&self) -> PyResult<(Arc<Attached>, usize)> {
        let (attached, index) = self.source.place(&self.symbol)?;
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        *place = Place { attached: attached.clone(), index };
        Ok((attached, index))
    }

    /// As `with`, for calls that must not hand out stale data.
    #[inline]
    fn with_fresh<T>(&self, read: impl FnOnce(&Arc<Attached>, usize) -> T) -> PyResult<T> {
        self.with(|attached, index| {
            self.check_fresh(attached, index)?;
            Ok(read(attached, index))
        })?
    }

    #[inline]
    fn check_fresh(&self, attached: &Attached, index: usize) -> PyResult<()> {
        let Some(limit_ms) = self.source.max_age_ms() else { return Ok(()) };
        let age_ms = age_ms(attached, index, process::now_ms());
        if age_ms > limit_ms || attached.block.has_ended(index) {
            return Err(stale(&self.symbol, age_ms, limit_ms, age_ms <= limit_ms));
        }
        Ok(())
    }

    fn selection(&self, n: Option<Count>, closed_only: bool, states: bool) -> PyResult<Selection> {
        let length = self.with(|attached, _| attached.block.geometry().ring.length)?;
        let count = match n {
            None => length,
            Some(Count(n)) if n < 1 => {
                return Err(ConfigError::new_err(format!("n must be a positive integer: `{n}`")));
            }
            Some(Count(n)) => usize::try_from(n).unwrap_or(usize::MAX).min(length),
        };
        Ok(Selection { count, closed_only, states })
    }
}

#[pymethods]
impl Series {
    /// The name of the symbol, such as BTCUSDT.
    #[getter(symbol)]
    fn py_symbol(&self) -> &str {
        &self.symbol
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
        let holes = Holes::parse(holes)?;
        let selection = self.selection(n, closed_only, false)?;
        if let Some(out) = out {
            return self.copy_into(py, n, &selection, holes, &out);
        }
        Ok(self.copied(py, selection, holes)?.0)
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
        let holes = Holes::parse(holes)?;
        let selection = self.selection(n, closed_only, true)?;
        let (snapshot, grid) = self.with(|attached, index| {
            let mut snapshot = Snapshot::default();
            SeriesReader::new(&attached.block, index)
                .copy::<f64>(&selection, &mut [], &mut snapshot)
                .map(|()| (snapshot, attached.block.grid(index)))
                .map_err(|error| self.source.error(error))
        })??;
        holes.check(&self.symbol, &snapshot, grid)?;
        Ok(PyArray1::from_vec(py, holes.states_of(&snapshot)))
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
        let holes = Holes::parse(holes)?;
        let (rows, snapshot) = self.copied(py, self.selection(n, closed_only, true)?, holes)?;
        Ok((rows, PyArray1::from_vec(py, holes.states_of(&snapshot))))
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
            self.with_fresh(|attached, index| {
                let (reader, grid) = (SeriesReader::new(&attached.block, index), attached.block.grid(index));
                let columns: [usize; COLUMNS] = std::array::from_fn(|column| column);
                py.detach(|| asof::copy(reader, grid, &columns, moments, values))
                    .map_err(|error| self.source.error(error))
            })?
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
        self.with(|attached, index| {
            let block = &attached.block;
            let read = || {
                let page = SeriesReader::new(block, index).page(block.grid(index), &request)?;
                Ok(WrittenPage::of(&page, decimals))
            };
            let written = if request.limit > DETACH_ROWS_MIN { py.detach(read) } else { read() };
            Ok(KlinesText::new(py, &written.map_err(|error| self.source.error(error))?))
        })?
    }

    /// The newest row: float64 (12,), a copy. NaN while the series is empty. Raises StaleData.
    #[getter]
    fn live<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let mut row = [0.0; COLUMNS];
        self.with_fresh(|attached, index| SeriesReader::new(&attached.block, index).newest(&mut row))?
            .map_err(|error| self.source.error(error))?;
        Ok(PyArray1::from_slice(py, &row))
    }

    /// Close of the newest row. NaN while the series is empty. Raises StaleData.
    #[getter]
    fn last_close(&self) -> PyResult<f64> {
        self.with_fresh(|attached, index| SeriesReader::new(&attached.block, index).last_close())
    }

    /// Seconds since the exchange last confirmed this series; infinite before the first response.
    #[getter]
    fn age(&self) -> PyResult<f64> {
        let age_ms = self.with(|attached, index| age_ms(attached, index, process::now_ms()))?;
        Ok(seconds(age_ms))
    }

    /// Open time of the newest row, epoch ms, as the exchange sent it; None while the series is empty.
    #[getter]
    fn last_open_time_ms(&self) -> PyResult<Option<i64>> {
        let mut row = [0.0; COLUMNS];
        let marks = self
            .with(|attached, index| SeriesReader::new(&attached.block, index).newest(&mut row))?
            .map_err(|error| self.source.error(error))?;
        Ok((marks.head > 0).then_some(row[OPEN_TIME_MS] as i64))
    }

    /// How many times closed rows were corrected so far.
    #[getter]
    fn revision(&self) -> PyResult<u32> {
        let marks = self.with(|attached, index| SeriesReader::new(&attached.block, index).marks())?;
        Ok(marks.map_err(|error| self.source.error(error))?.revision)
    }

    /// Return the gaps of the readable window, oldest first: see `Gap`.
    fn gaps(&self) -> PyResult<Vec<Gap>> {
        self.with(|attached, index| {
            let grid = attached.block.grid(index);
            let gaps = SeriesReader::new(&attached.block, index).gaps().map_err(|error| self.source.error(error))?;
            Ok(gaps.into_iter().map(|gap| Gap::of(gap, grid)).collect())
        })?
    }

    /// Return the newest `n` final slots in place, without a copy; fewer if fewer exist. None: LENGTH of the block.
    ///
    /// Raises StaleData, UnknownSymbol, ConfigError (`n`).
    #[pyo3(signature = (n=None))]
    fn view(&self, n: Option<Count>) -> PyResult<View> {
        let selection = self.selection(n, true, false)?;
        let (attached, index, marks) = self.with_fresh(|attached, index| {
            let marks = SeriesReader::new(&attached.block, index).view(selection.count);
            (attached.clone(), index, marks)
        })?;
        let marks = marks.map_err(|error| self.source.error(error))?;
        Ok(View::new(self.symbol.clone(), attached, index, marks))
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
        let timeout = timeout.map(|Number(seconds)| seconds);
        let deadline = Deadline::after(timeout)?;
        let after = self.end_of(after_open_time_ms)?;
        loop {
            let news = self.news()?;
            if let Some(open_ms) = self.look_newer(after, None)? {
                return Ok(open_ms);
            }
            let Some(slice) = deadline.slice() else { return Err(self.opened_none(timeout.unwrap_or_default())) };
            news.sleep_for(py, slice)?;
        }
    }

    /// What is announced of rows now.
    #[pyo3(name = "_news")]
    fn news(&self) -> PyResult<News> {
        Ok(News::of_rows(self.source.attached()?))
    }

    /// The candle index after that of the open time, or after the newest one.
    #[pyo3(name = "_end_of", signature = (open_time_ms))]
    fn end_of(&self, open_time_ms: Option<Moment>) -> PyResult<u64> {
        let (attached, index) = self.source.place(&self.symbol)?;
        match open_time_ms {
            Some(Moment(open_ms)) => Ok((attached.block.grid(index).index_of(open_ms) + 1).max(0) as u64),
            None => {
                Ok(SeriesReader::new(&attached.block, index).marks().map_err(|error| self.source.error(error))?.end())
            }
        }
    }

    /// What `wait` returns, None while there is nothing to return. Raises `WaitTimeout` instead when `waited` seconds were
    /// enough.
    #[pyo3(name = "_look_newer", signature = (end, waited=None))]
    fn look_newer(&self, end: u64, waited: Option<f64>) -> PyResult<Option<i64>> {
        let (attached, index) = self.source.place(&self.symbol)?;
        let mut row = [0.0; COLUMNS];
        let marks =
            SeriesReader::new(&attached.block, index).newest(&mut row).map_err(|error| self.source.error(error))?;
        if marks.end() > end {
            return Ok(Some(row[OPEN_TIME_MS] as i64));
        }
        self.source.check_collector(&attached, &self.symbol)?;
        if let Some(limit_ms) = self.source.max_age_ms()
            && attached.block.has_ended(index)
        {
            return Err(stale(&self.symbol, age_ms(&attached, index, process::now_ms()), limit_ms, true));
        }
        match waited {
            None => Ok(None),
            Some(waited) => Err(self.opened_none(waited)),
        }
    }

    /// NumPy would make an object array of one series, without a word.
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(&self, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "a Series is not an array; use candles(n), float64 (n, 12) of {}, or view(n) without a copy",
            self.symbol
        )))
    }

    /// Pickled as what it takes to attach again: name, `max_age` and symbol.
    #[expect(clippy::type_complexity, reason = "what pickle needs")]
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, Option<f64>, String))> {
        self.source.check_open()?;
        let attach_series = py.import("candleshm.reader.feed")?.getattr("attach_series")?;
        Ok((attach_series, (self.source.name().to_owned(), self.source.max_age(), self.symbol.clone())))
    }

    /// As Jupyter shows it.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("candleshm.reader.notebook")?.call_method1("series_html", (slf,))
    }

    fn __repr__(&self) -> String {
        let (symbol, name) = (&self.symbol, self.source.name());
        match self.with(|attached, _| *attached.block.geometry()) {
            Ok(geometry) => {
                let kind = match geometry.price {
                    Price::Trade => geometry.market.as_str().to_owned(),
                    price => format!("{}-{}", geometry.market.as_str(), price.as_str()),
                };
                format!("<Series {kind} {symbol} {} of {name}>", geometry.grid(0).name())
            }
            Err(_) if self.source.check_open().is_err() => format!("<Series {symbol} of {name}: closed>"),
            Err(_) => format!("<Series {symbol} of {name}: no longer there>"),
        }
    }
}

impl Series {
    fn opened_none(&self, waited: f64) -> PyErr {
        let text = format!("no newer candle of {} within {waited} s", self.symbol);
        WaitTimeout::new_err((text, (self.symbol.clone(),)))
    }

    /// Copies rows into a new array. Returns it, what the copy found in each slot, and the grid of the series.
    fn copied<'py>(
        &self,
        py: Python<'py>,
        mut selection: Selection,
        holes: Holes,
    ) -> PyResult<(Bound<'py, PyAny>, Snapshot)> {
        selection.count = self
            .with_fresh(|attached, index| SeriesReader::new(&attached.block, index).available(&selection))?
            .map_err(|error| self.source.error(error))?;
        let mut snapshot = Snapshot::default();
        let mut rows = 0;
        let array = array::new_unset_columns(py, selection.count, |values| {
            rows = self.copy(py, &selection, holes, values, &mut snapshot)?;
            Ok(())
        })?;
        if rows == selection.count {
            return Ok((array.into_any(), snapshot));
        }
        Ok((array::first_rows(array.as_any(), rows)?, snapshot))
    }

    /// Copies rows into `columns` (stride: the selection's count) and treats slots without a row; returns how many
    /// rows there are.
    fn copy<T: Target + Send>(
        &self,
        py: Python<'_>,
        selection: &Selection,
        holes: Holes,
        columns: &mut [T],
        snapshot: &mut Snapshot,
    ) -> PyResult<usize> {
        if selection.count == 0 {
            return Ok(0);
        }
        self.with_fresh(|attached, index| {
            let reader = SeriesReader::new(&attached.block, index);
            let mut run = || reader.copy(selection, columns, snapshot);
            let copied = if selection.count * COLUMNS * 8 > DETACH_BYTES_MIN { py.detach(run) } else { run() };
            copied.map_err(|error| self.source.error(error))?;
            let grid = attached.block.grid(index);
            let rows = holes.apply(&self.symbol, snapshot, grid, columns, selection.count)?;
            if selection.closed_only
                && let Some(last) = snapshot.states.len().checked_sub(1)
            {
                note_ended(grid.end_ms((snapshot.start + last as u64) as i64));
            }
            Ok(rows)
        })?
    }

    fn copy_into<'py>(
        &self,
        py: Python<'py>,
        n: Option<Count>,
        selection: &Selection,
        holes: Holes,
        out: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let wrong = || {
            ConfigError::new_err(format!(
                "out must be a writable, contiguous float64 array of shape ({}, {COLUMNS})",
                selection.count
            ))
        };
        let array = out.cast::<PyArray2<f64>>().map_err(|_| wrong())?;
        let exact =
            n.is_none_or(|Count(n)| n as usize == selection.count) && array.shape() == [selection.count, COLUMNS];
        // NumPy's own bookkeeping refuses read-only arrays and those that are borrowed already.
        let mut borrowed = array.try_readwrite().map_err(|_| wrong())?;
        let values = borrowed.as_slice_mut().map_err(|_| wrong())?;
        if !exact {
            return Err(wrong());
        }
        let mut snapshot = Snapshot::default();
        let mut fill = |columns: &mut [f64]| self.copy(py, selection, holes, columns, &mut snapshot);
        let rows = if array.is_fortran_contiguous() { fill(values)? } else { in_rows(values, fill)? };
        if rows == selection.count {
            return Ok(out.clone());
        }
        array::first_rows(out, rows)
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
