//! `Series`: the candles of one symbol.

use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock};

use candleshm::asof;
use candleshm::columns::{COLUMNS, OPEN_TIME_MS};
use candleshm::interval::Grid;
use candleshm::layout::{RowState, header};
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::sync::Target;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arguments::{Count, Moment, Number, check_moments};
use crate::array;
use crate::derive::note_ended;
use crate::errors::exceptions::{ConfigError, GapError, WaitTimeout};
use crate::feed::{Attached, Deadline, Pickled, Source, age_ms, seconds, sleep, stale};
use crate::process;
use crate::view::View;

/// Copies larger than this are made with the GIL released.
const DETACH_BYTES_MIN: usize = 16 * 1024;

/// What to do with slots that have no row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    Drop,
    Nan,
    Raise,
}

impl Holes {
    fn parse(text: &str) -> PyResult<Self> {
        match text {
            "drop" => Ok(Self::Drop),
            "nan" => Ok(Self::Nan),
            "raise" => Ok(Self::Raise),
            other => Err(ConfigError::new_err(format!("holes is not 'drop', 'nan' or 'raise': `{other}`"))),
        }
    }
}

/// A half-open range of open times without a row.
#[pyclass(frozen, get_all, eq, module = "candleshm")]
#[derive(PartialEq)]
pub(crate) struct Gap {
    /// Open time of the first missing candle, ms.
    start_ms: i64,
    /// Open time of the first candle after the gap, ms.
    end_ms: i64,
    /// 'missing' or 'hole'.
    kind: &'static str,
}

#[pymethods]
impl Gap {
    #[new]
    fn py_new(start_ms: i64, end_ms: i64, kind: &str) -> PyResult<Self> {
        let kind = match kind {
            "missing" => "missing",
            "hole" => "hole",
            other => return Err(ConfigError::new_err(format!("kind is not 'missing' or 'hole': `{other}`"))),
        };
        Ok(Self { start_ms, end_ms, kind })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Pickled<'py, (i64, i64, &'static str)> {
        let this = slf.get();
        (slf.get_type(), (this.start_ms, this.end_ms, this.kind))
    }

    fn __repr__(&self) -> String {
        format!("Gap(start_ms={}, end_ms={}, kind='{}')", self.start_ms, self.end_ms, self.kind)
    }
}

impl Gap {
    pub(crate) fn of(gap: candleshm::read::Gap, grid: Grid) -> Self {
        Self {
            start_ms: grid.open_ms(gap.start as i64),
            end_ms: grid.open_ms(gap.end as i64),
            kind: if gap.hole { "hole" } else { "missing" },
        }
    }
}

/// Where a series was last found.
struct Place {
    attached: Arc<Attached>,
    index: usize,
}

/// The candles of one symbol.
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
                return Err(ConfigError::new_err(format!("n is not a number of rows from 1 on: `{n}`")));
            }
            Some(Count(n)) => usize::try_from(n).unwrap_or(usize::MAX).min(length),
        };
        Ok(Selection { count, closed_only, states })
    }
}

#[pymethods]
impl Series {
    #[getter(symbol)]
    fn py_symbol(&self) -> &str {
        &self.symbol
    }

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
        let mut selection = self.selection(n, closed_only, false)?;
        if let Some(out) = out {
            return self.copy_into(py, n, &selection, holes, &out);
        }
        selection.count = self
            .with_fresh(|attached, index| SeriesReader::new(&attached.block, index).available(&selection))?
            .map_err(|error| self.source.error(error))?;
        let mut rows = 0;
        let array = array::new_unset_columns(py, selection.count, |values| {
            rows = self.copy(py, &selection, holes, values)?;
            Ok(())
        })?;
        if rows == selection.count {
            return Ok(array.into_any());
        }
        array::first_rows(array.as_any(), rows)
    }

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
        self.refuse_gaps(&snapshot, grid, holes)?;
        let kept = snapshot.states.iter().filter(|state| holes != Holes::Drop || has_row(**state));
        Ok(PyArray1::from_iter(py, kept.map(|&state| state as u8)))
    }

    #[pyo3(name = "_snapshot")]
    fn py_snapshot<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<u8>>)> {
        let mut selection = self.selection(None, true, true)?;
        selection.count = self
            .with(|attached, index| SeriesReader::new(&attached.block, index).available(&selection))?
            .map_err(|error| self.source.error(error))?;
        let mut snapshot = Snapshot::default();
        let rows = array::new_unset_columns(py, selection.count, |values| {
            if values.is_empty() {
                return Ok(());
            }
            let grid = self.with(|attached, index| {
                let reader = SeriesReader::new(&attached.block, index);
                py.detach(|| reader.copy(&selection, values, &mut snapshot))
                    .map(|()| attached.block.grid(index))
                    .map_err(|error| self.source.error(error))
            })??;
            blank_gaps(&snapshot, grid, values, selection.count);
            Ok(())
        })?;
        let rows = array::first_rows(rows.as_any(), snapshot.states.len())?;
        Ok((rows, PyArray1::from_iter(py, snapshot.states.iter().map(|&state| state as u8))))
    }

    fn asof<'py>(
        &self,
        py: Python<'py>,
        moments_ms: &Bound<'py, PyArray1<i64>>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let moments = moments_ms.try_readonly().map_err(|_| not_contiguous())?;
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

    #[getter]
    fn live<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let mut row = [0.0; COLUMNS];
        self.with_fresh(|attached, index| SeriesReader::new(&attached.block, index).newest(&mut row))?
            .map_err(|error| self.source.error(error))?;
        Ok(PyArray1::from_slice(py, &row))
    }

    #[getter]
    fn last_close(&self) -> PyResult<f64> {
        self.with_fresh(|attached, index| SeriesReader::new(&attached.block, index).last_close())
    }

    #[getter]
    fn age(&self) -> PyResult<f64> {
        let age_ms = self.with(|attached, index| age_ms(attached, index, process::now_ms()))?;
        Ok(seconds(age_ms))
    }

    #[getter]
    fn last_open_time_ms(&self) -> PyResult<Option<i64>> {
        let mut row = [0.0; COLUMNS];
        let marks = self
            .with(|attached, index| SeriesReader::new(&attached.block, index).newest(&mut row))?
            .map_err(|error| self.source.error(error))?;
        Ok((marks.head > 0).then_some(row[OPEN_TIME_MS] as i64))
    }

    #[getter]
    fn revision(&self) -> PyResult<u32> {
        let marks = self.with(|attached, index| SeriesReader::new(&attached.block, index).marks())?;
        Ok(marks.map_err(|error| self.source.error(error))?.revision)
    }

    fn gaps(&self) -> PyResult<Vec<Gap>> {
        self.with(|attached, index| {
            let grid = attached.block.grid(index);
            let gaps = SeriesReader::new(&attached.block, index).gaps().map_err(|error| self.source.error(error))?;
            Ok(gaps.into_iter().map(|gap| Gap::of(gap, grid)).collect())
        })?
    }

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

    #[pyo3(signature = (n=None))]
    fn read(&self, n: Option<Count>) -> PyResult<View> {
        self.view(n)
    }

    #[pyo3(signature = (after_open_time_ms=None, timeout=None))]
    fn wait(&self, py: Python<'_>, after_open_time_ms: Option<Moment>, timeout: Option<Number>) -> PyResult<i64> {
        let timeout = timeout.map(|Number(seconds)| seconds);
        let deadline = Deadline::after(timeout)?;
        let mut after = None;
        loop {
            let (attached, index) = self.source.place(&self.symbol)?;
            let seen = attached.block.announced(header::COMMIT_SEQ) as u32;
            let grid = attached.block.grid(index);
            let mut row = [0.0; COLUMNS];
            let marks =
                SeriesReader::new(&attached.block, index).newest(&mut row).map_err(|error| self.source.error(error))?;
            // The candle index behind the newest row, and the one a newer candle must go beyond.
            let end = marks.end();
            let after = *after.get_or_insert_with(|| match after_open_time_ms {
                Some(Moment(open_ms)) => (grid.ordinal(open_ms) + 1).max(0) as u64,
                None => end,
            });
            if end > after {
                return Ok(row[OPEN_TIME_MS] as i64);
            }
            self.source.check_collector(&attached, &self.symbol)?;
            if let Some(limit_ms) = self.source.max_age_ms()
                && attached.block.has_ended(index)
            {
                return Err(stale(&self.symbol, age_ms(&attached, index, process::now_ms()), limit_ms, true));
            }
            let Some(slice) = deadline.slice() else {
                let text = format!("{} opened no newer candle within {} s", self.symbol, timeout.unwrap_or_default());
                return Err(WaitTimeout::new_err((text, (self.symbol.clone(),))));
            };
            sleep(py, &attached, header::COMMIT_SEQ, seen, slice)?;
        }
    }

    /// Pickled as what it takes to attach again: name, `max_age` and symbol.
    #[expect(clippy::type_complexity, reason = "what pickle asks for")]
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, Option<f64>, String))> {
        self.source.check_open()?;
        let attach_series = py.import("candleshm.reader.feed")?.getattr("attach_series")?;
        Ok((attach_series, (self.source.name().to_owned(), self.source.max_age(), self.symbol.clone())))
    }

    fn __repr__(&self) -> PyResult<String> {
        let geometry = self.with(|attached, _| *attached.block.geometry())?;
        let (market, interval) = (geometry.market.as_str(), geometry.grid(0).name());
        Ok(format!("<Series {market} {} {interval} of {}>", self.symbol, self.source.name()))
    }
}

/// What an argument that is no array of moments gets to hear.
pub(crate) fn not_contiguous() -> PyErr {
    ConfigError::new_err("moments are not a contiguous int64 array of epoch milliseconds")
}

thread_local! {
    /// Columns on their way into a C-ordered `out`.
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl Series {
    /// Copies rows into `columns` (stride: the selection's count) and treats slots without a row; returns how many
    /// rows there are.
    fn copy<T: Target + Send>(
        &self,
        py: Python<'_>,
        selection: &Selection,
        holes: Holes,
        columns: &mut [T],
    ) -> PyResult<usize> {
        if selection.count == 0 {
            return Ok(0);
        }
        self.with_fresh(|attached, index| {
            let reader = SeriesReader::new(&attached.block, index);
            let mut snapshot = Snapshot::default();
            let mut run = || reader.copy(selection, columns, &mut snapshot);
            let copied = if selection.count * COLUMNS * 8 > DETACH_BYTES_MIN { py.detach(run) } else { run() };
            copied.map_err(|error| self.source.error(error))?;
            let grid = attached.block.grid(index);
            self.refuse_gaps(&snapshot, grid, holes)?;
            if selection.closed_only
                && let Some(last) = snapshot.states.len().checked_sub(1)
            {
                note_ended(grid.end_ms((snapshot.start + last as u64) as i64));
            }
            Ok(match holes {
                Holes::Nan => {
                    blank_gaps(&snapshot, grid, columns, selection.count);
                    snapshot.states.len()
                }
                _ => drop_gaps(&snapshot, columns, selection.count),
            })
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
                "out is not a writable, contiguous float64 array of shape ({}, {COLUMNS})",
                selection.count
            ))
        };
        let array = out.cast::<PyArray2<f64>>().map_err(|_| wrong())?;
        let exact =
            n.is_none_or(|Count(n)| n as usize == selection.count) && array.shape() == [selection.count, COLUMNS];
        // NumPy's own bookkeeping says no to read-only arrays and to ones lent out already.
        let mut borrowed = array.try_readwrite().map_err(|_| wrong())?;
        let values = borrowed.as_slice_mut().map_err(|_| wrong())?;
        if !exact {
            return Err(wrong());
        }
        let rows = if array.is_fortran_contiguous() {
            self.copy(py, selection, holes, values)?
        } else {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(values.len(), 0.0);
                let rows = self.copy(py, selection, holes, scratch)?;
                for (row, target) in values.chunks_exact_mut(COLUMNS).take(rows).enumerate() {
                    for (column, value) in target.iter_mut().enumerate() {
                        *value = scratch[column * selection.count + row];
                    }
                }
                PyResult::Ok(rows)
            })?
        };
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

    fn refuse_gaps(&self, snapshot: &Snapshot, grid: Grid, holes: Holes) -> PyResult<()> {
        let Some(first) = snapshot.states.iter().position(|&state| !has_row(state)) else { return Ok(()) };
        if holes != Holes::Raise {
            return Ok(());
        }
        let state = snapshot.states[first];
        let count = snapshot.states[first..].iter().take_while(|&&other| other == state).count();
        let start = snapshot.start as i64 + first as i64;
        let kind = if state == RowState::Hole { "hole" } else { "missing" };
        let facts = (self.symbol.clone(), grid.open_ms(start), grid.open_ms(start + count as i64), kind);
        Err(GapError::new_err(facts))
    }
}

fn has_row(state: RowState) -> bool {
    matches!(state, RowState::Live | RowState::Closed | RowState::Verified)
}

/// Moves the rows that are there together; returns how many.
fn drop_gaps<T: Target>(snapshot: &Snapshot, columns: &mut [T], stride: usize) -> usize {
    let kept: Vec<usize> = (0..snapshot.states.len()).filter(|&slot| has_row(snapshot.states[slot])).collect();
    if kept.len() < snapshot.states.len() {
        for column in columns.chunks_exact_mut(stride) {
            for (to, &from) in kept.iter().enumerate() {
                column[to] = column[from];
            }
        }
    }
    kept.len()
}

/// Gives slots without a row their grid open time and NaN.
fn blank_gaps<T: Target>(snapshot: &Snapshot, grid: Grid, columns: &mut [T], stride: usize) {
    for slot in (0..snapshot.states.len()).filter(|&slot| !has_row(snapshot.states[slot])) {
        for column in columns.chunks_exact_mut(stride) {
            column[slot].put(f64::NAN);
        }
        columns[OPEN_TIME_MS * stride + slot].put(grid.open_ms(snapshot.start as i64 + slot as i64) as f64);
    }
}
