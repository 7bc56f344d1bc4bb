//! Rows as they stand in what the exchange sends: bodies about klines, and files of its archive.

use candleshm::columns::{Row, plausible};
use candleshm::error::Error;
use candleshm::price::Price;
use candleshm::wire::archive_csv::parse_csv;
use candleshm::wire::parse::parse;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::array::new_columns;
use crate::errors::exceptions::ConfigError;
use crate::errors::to_py;

/// Parse a klines body: its rows as they stand there, float64 (n, 12), and how many rows cannot be true.
///
/// Those are left out: non-finite, high < low, negative volume, negative prices unless `price` is premium. Raises
/// BadResponse (with `.offset`).
#[pyfunction]
#[pyo3(signature = (body, price="trade"))]
pub(crate) fn parse_klines<'py>(
    py: Python<'py>,
    body: &[u8],
    price: &str,
) -> PyResult<(Bound<'py, PyArray2<f64>>, usize)> {
    rows_of(py, price_of(price)?, |rows| parse(body, rows).map_err(Error::from))
}

/// Returns the price of that name.
pub(crate) fn price_of(name: &str) -> PyResult<Price> {
    Price::parse(name).ok_or_else(|| {
        let known = Price::ALL.map(Price::as_str).join(" | ");
        ConfigError::new_err(format!("price cannot be `{name}`; allowed: {known}"))
    })
}

/// Parse a file of the exchange's archive, times in ms: its rows as they stand there, and how many cannot be true.
///
/// With or without the header, in milliseconds or microseconds. As for `parse_klines` otherwise.
#[pyfunction]
#[pyo3(signature = (file, price="trade"))]
pub(crate) fn parse_archive_csv<'py>(
    py: Python<'py>,
    file: &[u8],
    price: &str,
) -> PyResult<(Bound<'py, PyArray2<f64>>, usize)> {
    rows_of(py, price_of(price)?, |rows| parse_csv(file, rows).map_err(Error::from))
}

/// Returns the rows that can be true, and how many cannot.
fn rows_of(
    py: Python<'_>,
    price: Price,
    read: impl FnOnce(&mut Vec<Row>) -> Result<(), Error> + Send,
) -> PyResult<(Bound<'_, PyArray2<f64>>, usize)> {
    let (rows, found) = py.detach(|| {
        let mut rows = Vec::new();
        read(&mut rows).map_err(|error| to_py(error, ""))?;
        let found = rows.len();
        rows.retain(|row| plausible(row, price).is_ok());
        PyResult::Ok((rows, found))
    })?;
    let array = new_columns(py, rows.len(), |values| {
        for (column, values) in values.chunks_exact_mut(rows.len().max(1)).enumerate() {
            values.iter_mut().zip(&rows).for_each(|(value, row)| *value = row[column]);
        }
        Ok(())
    })?;
    Ok((array, found - rows.len()))
}
