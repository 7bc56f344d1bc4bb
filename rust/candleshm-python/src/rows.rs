//! Which rows a caller wants, and how rows get into C order.

use std::cell::RefCell;

use candleshm::columns::{COLUMNS, Row};
use candleshm::feed::{Holes, Window};
use candleshm::layout::RowState;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::arguments::Count;
use crate::errors::exceptions::ConfigError;

/// Returns the window that a caller described. Raises ConfigError.
pub(crate) fn window_of(n: Option<Count>, closed_only: bool, holes: &str) -> PyResult<Window> {
    let holes = match holes {
        "drop" => Holes::Drop,
        "nan" => Holes::Nan,
        "raise" => Holes::Raise,
        other => return Err(ConfigError::new_err(format!("holes must be 'drop', 'nan' or 'raise': `{other}`"))),
    };
    Ok(Window { count: count_of(n)?, closed_only, holes })
}

/// Returns a number of rows. Raises ConfigError for less than one.
pub(crate) fn count_of(n: Option<Count>) -> PyResult<Option<usize>> {
    match n {
        Some(Count(n)) if n < 1 => Err(ConfigError::new_err(format!("n must be a positive integer: `{n}`"))),
        n => Ok(n.map(|Count(n)| usize::try_from(n).unwrap_or(usize::MAX))),
    }
}

thread_local! {
    /// Columns on their way into a C-ordered `out`.
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// Lets `fill` set `values.len()` values column by column, and copies the rows that it counts into `values` row by row.
pub(crate) fn in_rows(values: &mut [f64], fill: impl FnOnce(&mut [f64]) -> PyResult<usize>) -> PyResult<usize> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(values.len(), 0.0);
        let (rows, stride) = (fill(scratch)?, values.len() / COLUMNS);
        for (row, target) in values.chunks_exact_mut(COLUMNS).take(rows).enumerate() {
            for (column, value) in target.iter_mut().enumerate() {
                *value = scratch[column * stride + row];
            }
        }
        Ok(rows)
    })
}

/// Returns the rows of an array that are final, each with its state; without states all are closed. Raises ConfigError
/// for other shapes.
pub(crate) fn final_rows(
    rows: &PyReadonlyArray2<'_, f64>,
    states: Option<&PyReadonlyArray1<'_, u8>>,
) -> PyResult<Vec<(Row, RowState)>> {
    let (rows, states) = (rows.as_array(), states.map(PyReadonlyArray1::as_array));
    if rows.ncols() != COLUMNS || states.is_some_and(|states| states.len() != rows.nrows()) {
        return Err(ConfigError::new_err("rows is not float64 (n, 12), or states not uint8 (n,)"));
    }
    // The others say nothing that is final.
    let state_of = |row: usize| {
        let Some(states) = states else { return Some(RowState::Closed) };
        [RowState::Closed, RowState::Verified].into_iter().find(|state| *state as u8 == states[row])
    };
    let of = |row| Some((std::array::from_fn(|column| rows[[row, column]]), state_of(row)?));
    Ok((0..rows.nrows()).filter_map(of).collect())
}
