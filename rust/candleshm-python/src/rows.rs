//! Which rows a caller wants, and how rows get into C order.

use std::cell::RefCell;

use candleshm::columns::COLUMNS;
use candleshm::feed::{Holes, Window};
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
