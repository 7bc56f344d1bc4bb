//! `Gap`: a range of open times without rows.

use candleshm::error::Error;
use candleshm::feed;
use candleshm::writer::Writer;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::errors::exceptions::ConfigError;

/// A half-open range [start_ms, end_ms) of open times without a row.
///
/// Equal gaps compare equal, and have the same hash.
///
/// >>> candleshm.Gap(1_700_000_040_000, 1_700_000_100_000, "hole").kind
/// 'hole'
#[pyclass(frozen, get_all, eq, hash, module = "candleshm")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Gap {
    /// Open time of the first row that is absent, epoch ms.
    start_ms: i64,
    /// Open time of the first row after the gap, epoch ms.
    end_ms: i64,
    /// 'missing' (not fetched yet) or 'hole' (the exchange confirmed that it has no such row).
    kind: &'static str,
}

#[pymethods]
impl Gap {
    #[new]
    fn py_new(start_ms: i64, end_ms: i64, kind: &str) -> PyResult<Self> {
        let kind = match kind {
            "missing" => "missing",
            "hole" => "hole",
            other => return Err(ConfigError::new_err(format!("kind must be 'missing' or 'hole': `{other}`"))),
        };
        Ok(Self { start_ms, end_ms, kind })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (i64, i64, &'static str)) {
        let this = slf.get();
        (slf.get_type(), (this.start_ms, this.end_ms, this.kind))
    }

    /// As Jupyter shows it.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("candleshm.reader.notebook")?.call_method1("gap_html", (slf,))
    }

    fn __repr__(&self) -> String {
        format!("Gap(start_ms={}, end_ms={}, kind='{}')", self.start_ms, self.end_ms, self.kind)
    }
}

impl Gap {
    /// Returns the gaps of the readable window of a series, oldest first.
    pub(crate) fn all(writer: &Writer, symbol: &str) -> Result<Vec<Self>, Error> {
        let index = writer.index_of(symbol)?;
        let grid = writer.block().grid(index);
        Ok(writer.gaps(index)?.into_iter().map(|gap| Self::of(feed::Gap::of(gap, grid))).collect())
    }

    pub(crate) fn of(gap: feed::Gap) -> Self {
        Self { start_ms: gap.start_ms, end_ms: gap.end_ms, kind: if gap.is_hole { "hole" } else { "missing" } }
    }
}
