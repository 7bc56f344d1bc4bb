//! `derive`: bigger candles out of rows in an array.

use std::sync::atomic::{AtomicI64, Ordering};

use candleshm::columns::{COLUMNS, OPEN_TIME_MS, Row};
use candleshm::derive::Derivation;
use candleshm::interval::{Grid, Interval};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::exceptions::ConfigError;
use crate::errors::to_py;
use crate::parsed::price_of;

/// Returns the grid of an interval, or of the days of a time zone.
pub(crate) fn grid(name: &str) -> PyResult<Grid> {
    Grid::parse(name).ok_or_else(|| {
        let known = Interval::ALL.map(Interval::as_str).join(" ");
        ConfigError::new_err(format!("interval must be one of {known} 1d@Area/City: `{name}`"))
    })
}

/// Where the newest candle ended that this process read as final, ms.
static ENDED_MS: AtomicI64 = AtomicI64::new(i64::MIN);

/// Remembers that a candle which ended then was final: by the exchange's clock that moment is over.
#[inline]
pub(crate) fn note_ended(end_ms: i64) {
    ENDED_MS.fetch_max(end_ms, Ordering::Relaxed);
}

/// Return a moment that is over by the exchange's clock, as far as final candles read here tell.
#[pyfunction]
pub(crate) fn ended_ms() -> i64 {
    ENDED_MS.load(Ordering::Relaxed)
}

/// Return how many candles of one interval the longest of another is made of. Raises ConfigError when it is not.
#[pyfunction]
pub(crate) fn derivation_parts(source: &str, target: &str) -> PyResult<usize> {
    let derivation = Derivation::new(grid(source)?, grid(target)?).map_err(|error| to_py(error, ""))?;
    Ok(derivation.parts_max())
}

/// Return the rows of `candleshm.derive`, flat. Rows are C-ordered (n, 12).
#[pyfunction(name = "derive")]
#[pyo3(signature = (rows, source, target, start_ms, end_ms, anchor_ms, price="trade"))]
#[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
pub(crate) fn py_derive<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyArray2<f64>>,
    source: &str,
    target: &str,
    start_ms: Option<i64>,
    end_ms: Option<i64>,
    anchor_ms: Option<i64>,
    price: &str,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let mut target = grid(target)?;
    if let Some(anchor_ms) = anchor_ms
        && target.interval() == Interval::Day3
    {
        target = Grid::anchored(Interval::Day3, anchor_ms);
    }
    let derivation =
        Derivation::new(grid(source)?, target).map_err(|error| to_py(error, ""))?.with_price(price_of(price)?);
    let wrong = || ConfigError::new_err(format!("rows must be a C-ordered float64 array of shape (n, {COLUMNS})"));
    if rows.shape()[1] != COLUMNS {
        return Err(wrong());
    }
    let borrowed = rows.try_readonly().map_err(|_| wrong())?;
    let values = borrowed.as_slice().map_err(|_| wrong())?;
    let rows: &[Row] = values.as_chunks().0;
    let open_ms = |row: Option<&Row>| row.map_or(0, |row| row[OPEN_TIME_MS] as i64);
    let covered = derivation.covered_ms(open_ms(rows.first()), open_ms(rows.last()));
    let (start_ms, end_ms) = (start_ms.unwrap_or(covered.0), end_ms.unwrap_or(covered.1));
    let derived = py.detach(|| derivation.rows(rows.iter(), (start_ms, end_ms))).map_err(|error| to_py(error, ""))?;
    Ok(PyArray1::from_slice(py, derived.as_flattened()))
}
