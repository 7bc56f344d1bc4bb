//! `Closed`: a candle that became final.

use candleshm::feed;
use candleshm::zone::utc_text;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use crate::derive::note_ended;

/// What a close is pickled as.
type Parts<'py> = (i64, Bound<'py, PyTuple>, Bound<'py, PyTuple>);

/// A candle that closed. Equal closes compare equal, also after pickling.
///
/// >>> closed = feed.wait_closed()  # doctest: +SKIP
/// >>> closed.open_time_ms, closed.symbols, closed.missing  # doctest: +SKIP
/// (1700000040000, ('BTCUSDT', 'ETHUSDT'), ())
#[pyclass(frozen, module = "candleshm")]
pub(crate) struct Closed {
    /// Open time of the candle, epoch ms.
    #[pyo3(get)]
    open_time_ms: i64,
    symbols: Names,
    missing: Names,
}

/// Symbols that become a tuple when somebody asks for them: most loops over closes never do.
struct Names {
    symbols: Vec<String>,
    tuple: PyOnceLock<Py<PyTuple>>,
}

impl Names {
    fn of(symbols: Vec<String>) -> Self {
        Self { symbols, tuple: PyOnceLock::new() }
    }

    fn tuple<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyTuple>> {
        let made = self.tuple.get_or_try_init(py, || Ok::<_, PyErr>(PyTuple::new(py, &self.symbols)?.unbind()));
        Ok(made?.bind(py))
    }
}

#[pymethods]
impl Closed {
    #[new]
    fn py_new(open_time_ms: i64, symbols: Vec<String>, missing: Vec<String>) -> Self {
        Self { open_time_ms, symbols: Names::of(symbols), missing: Names::of(missing) }
    }

    /// The awaited symbols that have it final: closed, verified or a hole.
    #[getter]
    fn symbols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.symbols.tuple(py).cloned()
    }

    /// The awaited symbols that do not have it final; empty with a quorum of 1.0.
    #[getter]
    fn missing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.missing.tuple(py).cloned()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.open_time_ms == other.open_time_ms
            && self.symbols.symbols == other.symbols.symbols
            && self.missing.symbols == other.missing.symbols
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.open_time_ms, self.symbols.tuple(py)?, self.missing.tuple(py)?).into_pyobject(py)?.hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Parts<'py>)> {
        let (py, this) = (slf.py(), slf.get());
        Ok((slf.get_type(), (this.open_time_ms, this.symbols(py)?, this.missing(py)?)))
    }

    fn __repr__(&self) -> String {
        let missing = match self.missing.symbols.len() {
            0 => String::new(),
            count => format!(", {count} missing"),
        };
        format!("<Closed {}: {} symbols{missing}>", utc_text(self.open_time_ms), self.symbols.symbols.len())
    }
}

impl Closed {
    /// Hands a close out.
    pub(crate) fn of(closed: feed::Closed) -> Self {
        note_ended(closed.end_ms);
        Self { open_time_ms: closed.open_ms, symbols: Names::of(closed.symbols), missing: Names::of(closed.missing) }
    }
}
