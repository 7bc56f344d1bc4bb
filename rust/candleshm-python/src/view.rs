//! `View`: a zero-copy window of final rows.

use candleshm::columns;
use candleshm::feed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array;
use crate::derive::note_ended;
use crate::errors::to_py;

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
    view: feed::View,
}

impl View {
    pub(crate) fn new(symbol: String, view: feed::View) -> Self {
        Self { symbol, view }
    }
}

/// Returns a column of the view; the array keeps the view, and so the mapping, alive.
fn column<'py>(view: &Bound<'py, View>, column: usize) -> PyResult<Bound<'py, PyAny>> {
    array::lend(view.clone().into_any(), view.get().view.words(column), None)
}

#[pymethods]
impl View {
    /// All columns: float64 (n, 12), columns as in `candleshm.OPEN_TIME_MS` ... `candleshm.IGNORE`.
    #[getter]
    fn array<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let view = &slf.get().view;
        if let Some(end_ms) = view.end_ms() {
            note_ended(end_ms);
        }
        array::lend(slf.clone().into_any(), view.words(0), Some(view.column_stride()))
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
        self.view.is_complete()
    }

    /// Return whether no row was overwritten or revised so far. Call it after computing, not before.
    fn valid(&self) -> bool {
        self.view.is_valid()
    }

    fn __len__(&self) -> usize {
        self.view.len()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// An exception that is already under way is not replaced.
    fn __exit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> PyResult<()> {
        if kind.is_none() { self.view.check().map_err(|error| to_py(error, "")) } else { Ok(()) }
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
        format!("<View of {} final rows of {}>", self.view.len(), self.symbol)
    }
}
