//! `Closed`: a candle that became final.

use candleshm::feed;
use candleshm::zone::utc_text;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::derive::note_ended;

/// A candle that closed. Equal closes compare equal, also after pickling.
///
/// >>> closed = feed.wait_closed()  # doctest: +SKIP
/// >>> closed.open_time_ms, closed.symbols, closed.missing  # doctest: +SKIP
/// (1700000040000, ('BTCUSDT', 'ETHUSDT'), ())
#[pyclass(frozen, get_all, module = "candleshm")]
pub(crate) struct Closed {
    /// Open time of the candle, epoch ms.
    open_time_ms: i64,
    /// The awaited symbols that have it final: closed, verified or a hole.
    symbols: Py<PyTuple>,
    /// The awaited symbols that do not have it final; empty with a quorum of 1.0.
    missing: Py<PyTuple>,
}

#[pymethods]
impl Closed {
    #[new]
    fn py_new(open_time_ms: i64, symbols: Py<PyTuple>, missing: Py<PyTuple>) -> Self {
        Self { open_time_ms, symbols, missing }
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        Ok(self.open_time_ms == other.open_time_ms
            && self.symbols.bind(py).eq(&other.symbols)?
            && self.missing.bind(py).eq(&other.missing)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.open_time_ms, &self.symbols, &self.missing).into_pyobject(py)?.hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (i64, Py<PyTuple>, Py<PyTuple>)) {
        let (py, this) = (slf.py(), slf.get());
        (slf.get_type(), (this.open_time_ms, this.symbols.clone_ref(py), this.missing.clone_ref(py)))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let missing = match self.missing.bind(py).len() {
            0 => String::new(),
            count => format!(", {count} missing"),
        };
        format!("<Closed {}: {} symbols{missing}>", utc_text(self.open_time_ms), self.symbols.bind(py).len())
    }
}

impl Closed {
    /// Hands a close out.
    pub(crate) fn of(py: Python<'_>, closed: feed::Closed) -> PyResult<Self> {
        note_ended(closed.end_ms);
        Ok(Self {
            open_time_ms: closed.open_ms,
            symbols: PyTuple::new(py, closed.symbols)?.unbind(),
            missing: PyTuple::new(py, closed.missing)?.unbind(),
        })
    }
}
