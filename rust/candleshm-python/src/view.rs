//! `View`: a zero-copy window of final rows.

use std::sync::Arc;

use candleshm::columns;
use candleshm::read::{SeriesReader, ViewMarks};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array;
use crate::attached::Attached;
use crate::derive::note_ended;
use crate::errors::exceptions::OverwrittenView;

/// A window of final rows that lies in the block itself: nothing is copied.
///
/// Arrays are float64, read-only, oldest row first; slots without a row (holes) are NaN. The writer may overwrite the
/// oldest rows after 64 further closes, or revise a row: call `valid()` after computing, and discard the result where
/// it returns False. An array keeps the block mapped as long as it lives. A view cannot be pickled or copied.
///
/// >>> with btc.read(1440) as view:  # doctest: +SKIP
/// ...     mean = view.close.mean()  # OverwrittenView at the end of the block, if a row changed meanwhile
#[pyclass(frozen, module = "candleshm")]
pub(crate) struct View {
    symbol: String,
    attached: Arc<Attached>,
    index: usize,
    marks: ViewMarks,
}

impl View {
    pub(crate) fn new(symbol: String, attached: Arc<Attached>, index: usize, marks: ViewMarks) -> Self {
        Self { symbol, attached, index, marks }
    }

    fn reader(&self) -> SeriesReader<'_> {
        SeriesReader::new(&self.attached.block, self.index)
    }
}

/// Returns a column of the view; the array keeps the view, and so the mapping, alive.
fn column<'py>(view: &Bound<'py, View>, column: usize) -> PyResult<Bound<'py, PyAny>> {
    let this = view.get();
    array::lend(view.clone().into_any(), this.reader().column(&this.marks, column), None)
}

#[pymethods]
impl View {
    /// All columns: float64 (n, 12), columns as in `candleshm.OPEN_TIME_MS` ... `candleshm.IGNORE`.
    #[getter]
    fn array<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let stride = this.attached.block.geometry().ring.column_stride_words();
        if let Some(last) = this.marks.count.checked_sub(1) {
            note_ended(this.attached.block.grid(this.index).end_ms((this.marks.start + last as u64) as i64));
        }
        array::lend(slf.clone().into_any(), this.reader().column(&this.marks, 0), Some(stride))
    }

    /// Open times, epoch ms: float64 (n,).
    #[getter]
    fn open_time_ms<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::OPEN_TIME_MS)
    }

    /// Open prices: float64 (n,).
    #[getter]
    fn open<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::OPEN)
    }

    /// Highest prices: float64 (n,).
    #[getter]
    fn high<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::HIGH)
    }

    /// Lowest prices: float64 (n,).
    #[getter]
    fn low<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::LOW)
    }

    /// Close prices: float64 (n,).
    #[getter]
    fn close<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::CLOSE)
    }

    /// Volumes, in the base asset (CM: contracts): float64 (n,).
    #[getter]
    fn volume<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::VOLUME)
    }

    /// Close times, epoch ms, the last millisecond of each candle: float64 (n,).
    #[getter]
    fn close_time_ms<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::CLOSE_TIME_MS)
    }

    /// Volumes, in the quote asset (CM: base asset): float64 (n,).
    #[getter]
    fn quote_volume<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::QUOTE_VOLUME)
    }

    /// Numbers of trades: float64 (n,).
    #[getter]
    fn trades<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::TRADES)
    }

    /// Volumes bought by takers, units as `volume`: float64 (n,).
    #[getter]
    fn taker_buy_volume<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::TAKER_BUY_VOLUME)
    }

    /// Volumes bought by takers, units as `quote_volume`: float64 (n,).
    #[getter]
    fn taker_buy_quote_volume<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::TAKER_BUY_QUOTE_VOLUME)
    }

    /// The column that the exchange says to ignore, always 0: float64 (n,).
    #[getter]
    fn ignore<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        column(slf, columns::IGNORE)
    }

    /// Whether every slot of the window has a row.
    #[getter]
    fn complete(&self) -> bool {
        self.marks.is_complete()
    }

    /// Return whether no row was overwritten or revised so far. Call it after computing, not before.
    fn valid(&self) -> bool {
        self.reader().is_valid(&self.marks)
    }

    fn __len__(&self) -> usize {
        self.marks.count
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// An exception that is already under way is not replaced.
    fn __exit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> PyResult<()> {
        if kind.is_none() && !self.valid() {
            return Err(OverwrittenView::new_err(self.symbol.clone()));
        }
        Ok(())
    }

    /// NumPy would make an object array of one view, without a word; and a copy could not tell whether it is valid.
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(&self, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "a View of {} is not an array; use view.array, float64 (n, 12), or a column such as view.close",
            self.symbol
        )))
    }

    /// Neither pickled nor copied: a copy of a window that goes on changing could not tell whether it is valid.
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "a View of {} cannot be pickled or copied: its shared memory goes on changing; use \
             candles(n, closed_only=True), which is a copy, or pass the Series, which attaches again",
            self.symbol
        )))
    }

    fn __repr__(&self) -> String {
        format!("<View of {} final rows of {}>", self.marks.count, self.symbol)
    }
}
