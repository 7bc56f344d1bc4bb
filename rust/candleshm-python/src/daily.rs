//! `read_daily`: the rows of a daily file.

use candleshm::columns::COLUMNS;
use candleshm_daily::DailyFile;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Return what is known about the rows of a daily file, JSON as it was written, and the rows: float64 (n, 12).
///
/// Every check has passed then: of each page, and of all values with what is known about them. None is no verdict: the
/// file is damaged, or of a form in which candleshm writes none, which a general reader of Parquet finds out.
#[pyfunction]
#[pyo3(signature = (file))]
#[expect(clippy::type_complexity, reason = "a tuple of Python")]
pub(crate) fn read_daily<'py>(
    py: Python<'py>,
    file: &[u8],
) -> PyResult<Option<(Bound<'py, PyBytes>, Bound<'py, PyArray2<f64>>)>> {
    let Some(DailyFile { about, values }) = py.detach(|| DailyFile::read(file)) else { return Ok(None) };
    let rows = values.len() / COLUMNS;
    Ok(Some((PyBytes::new(py, about), PyArray1::from_vec(py, values).reshape([rows, COLUMNS])?)))
}
