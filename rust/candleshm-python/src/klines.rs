//! Rows as the exchange's JSON: `KlinesText`, and the text of rows in an array.

use candleshm::columns::{COLUMNS, OPEN_TIME_MS, Row};
use candleshm::page::{Incomplete, Page};
use candleshm::wire::text::{DECIMALS_MAX, Decimals, is_writable, write_klines};
use numpy::PyReadonlyArray2;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::exceptions::ConfigError;

/// Digits of prices, volumes and turnovers, and to how many all of them are padded, as Python passes them.
pub(crate) type Digits = (u32, u32, u32, u32);

/// Returns what Python passed as digits. Raises `ConfigError`.
pub(crate) fn decimals_of(digits: Option<Digits>) -> PyResult<Option<Decimals>> {
    let Some((price, lot, turnover, padded_to)) = digits else { return Ok(None) };
    let small = |digits: u32| u8::try_from(digits).unwrap_or(u8::MAX);
    let decimals = Decimals::new(small(price), small(lot), small(turnover), small(padded_to));
    let wrong = || {
        ConfigError::new_err(format!(
            "decimals must be four numbers of digits up to {DECIMALS_MAX}: `({price}, {lot}, {turnover}, {padded_to})`"
        ))
    };
    decimals.map(Some).ok_or_else(wrong)
}

/// A page that was written as text.
pub(crate) struct WrittenPage {
    text: Vec<u8>,
    rows: usize,
    last_open_ms: Option<i64>,
    unsettled_ms: Option<i64>,
    incomplete: Option<Incomplete>,
}

impl WrittenPage {
    pub(crate) fn of(page: &Page, decimals: Option<Decimals>) -> Self {
        let mut text = Vec::new();
        if page.incomplete.is_none() {
            write_klines(&mut text, &page.rows, decimals);
        }
        Self {
            text,
            rows: page.rows.len(),
            last_open_ms: page.rows.last().map(|row| row[OPEN_TIME_MS] as i64),
            unsettled_ms: page.unsettled_ms,
            incomplete: page.incomplete,
        }
    }
}

/// Rows of a series as the exchange's JSON, or what is incomplete of them.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct KlinesText {
    /// The JSON array, rows ascending; empty bytes when anything is `incomplete`.
    body: Py<PyBytes>,
    /// Rows in it.
    rows: usize,
    /// Open time of the newest of them, epoch ms; None without rows.
    last_open_ms: Option<i64>,
    /// Open time of the oldest of them that may still change, epoch ms; None when all are final.
    unsettled_open_ms: Option<i64>,
    /// None: the answer is whole. 'missing': a row of it is not fetched yet. 'before': it needs rows older than the
    /// window, and the symbol's first candle is older or not known.
    incomplete: Option<&'static str>,
    /// Open time of the row that is missing, or of the oldest one of the window; None while there is none.
    incomplete_ms: Option<i64>,
}

impl KlinesText {
    pub(crate) fn new(py: Python<'_>, written: &WrittenPage) -> Self {
        let (incomplete, incomplete_ms) = match written.incomplete {
            None => (None, None),
            Some(Incomplete::Missing(open_ms)) => (Some("missing"), Some(open_ms)),
            Some(Incomplete::Before(open_ms)) => (Some("before"), open_ms),
        };
        Self {
            body: PyBytes::new(py, &written.text).unbind(),
            rows: written.rows,
            last_open_ms: written.last_open_ms,
            unsettled_open_ms: written.unsettled_ms,
            incomplete,
            incomplete_ms,
        }
    }
}

#[pymethods]
impl KlinesText {
    fn __repr__(&self) -> String {
        match (self.incomplete, self.incomplete_ms) {
            (None, _) => format!("<KlinesText of {} rows>", self.rows),
            (Some(incomplete), Some(ms)) => format!("<KlinesText: {incomplete} {ms}>"),
            (Some(incomplete), None) => format!("<KlinesText: {incomplete}, no rows>"),
        }
    }
}

/// Return rows, float64 (n, 12), as the exchange's JSON array; `decimals` as for `Series.klines_text`.
///
/// Raises ConfigError for another shape, for a value that is not finite, and for `decimals` that cannot be used.
#[pyfunction]
#[pyo3(signature = (rows, decimals))]
#[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
pub(crate) fn klines_text<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray2<'py, f64>,
    decimals: Option<Digits>,
) -> PyResult<Bound<'py, PyBytes>> {
    let decimals = decimals_of(decimals)?;
    let values = rows.as_array();
    if values.ncols() != COLUMNS {
        return Err(ConfigError::new_err(format!("rows must have {COLUMNS} columns: `{}`", values.ncols())));
    }
    let text = py.detach(|| {
        let row = |place: usize| -> Row { std::array::from_fn(|column| values[[place, column]]) };
        let rows: Vec<Row> = (0..values.nrows()).map(row).collect();
        if let Some(place) = rows.iter().position(|row| !is_writable(row)) {
            return Err(place);
        }
        let mut text = Vec::new();
        write_klines(&mut text, &rows, decimals);
        Ok(text)
    });
    match text {
        Ok(text) => Ok(PyBytes::new(py, &text)),
        Err(place) => Err(ConfigError::new_err(format!("row {place} has a value that is not finite"))),
    }
}
