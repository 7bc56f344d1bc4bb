//! What slots without a row become in the arrays that are handed out, and how rows get into C order.

use std::cell::RefCell;

use candleshm::columns::{COLUMNS, OPEN_TIME_MS};
use candleshm::interval::Grid;
use candleshm::layout::RowState;
use candleshm::read::Snapshot;
use candleshm::sync::Target;
use pyo3::prelude::*;

use crate::errors::exceptions::{ConfigError, GapError};

/// What to do with slots that have no row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holes {
    Drop,
    Nan,
    Raise,
}

impl Holes {
    pub(crate) fn parse(text: &str) -> PyResult<Self> {
        match text {
            "drop" => Ok(Self::Drop),
            "nan" => Ok(Self::Nan),
            "raise" => Ok(Self::Raise),
            other => Err(ConfigError::new_err(format!("holes must be 'drop', 'nan' or 'raise': `{other}`"))),
        }
    }
}

impl Holes {
    /// Makes of a copy what is handed out; returns how many rows that is. Raises `GapError`.
    pub(crate) fn apply<T: Target>(
        self,
        symbol: &str,
        snapshot: &Snapshot,
        grid: Grid,
        columns: &mut [T],
        stride: usize,
    ) -> PyResult<usize> {
        self.check(symbol, snapshot, grid)?;
        if self != Self::Nan {
            return Ok(drop_gaps(snapshot, columns, stride));
        }
        blank_gaps(snapshot, grid, columns, stride);
        Ok(snapshot.states.len())
    }

    /// Refuses a copy with gaps, if that is what the caller wants.
    pub(crate) fn check(self, symbol: &str, snapshot: &Snapshot, grid: Grid) -> PyResult<()> {
        if self == Self::Raise { refuse_gaps(symbol, snapshot, grid) } else { Ok(()) }
    }

    /// Returns the states of the rows that are handed out.
    pub(crate) fn states_of(self, snapshot: &Snapshot) -> Vec<u8> {
        let kept = snapshot.states.iter().filter(|&&state| self != Self::Drop || has_row(state));
        kept.map(|&state| state as u8).collect()
    }
}

fn refuse_gaps(symbol: &str, snapshot: &Snapshot, grid: Grid) -> PyResult<()> {
    let Some(first) = snapshot.states.iter().position(|&state| !has_row(state)) else { return Ok(()) };
    let state = snapshot.states[first];
    let count = snapshot.states[first..].iter().take_while(|&&other| other == state).count();
    let start = snapshot.start as i64 + first as i64;
    let kind = if state == RowState::Hole { "hole" } else { "missing" };
    Err(GapError::new_err((symbol.to_owned(), grid.open_ms(start), grid.open_ms(start + count as i64), kind)))
}

fn has_row(state: RowState) -> bool {
    matches!(state, RowState::Live | RowState::Closed | RowState::Verified)
}

/// Moves the rows that are there together; returns how many.
fn drop_gaps<T: Target>(snapshot: &Snapshot, columns: &mut [T], stride: usize) -> usize {
    let kept: Vec<usize> = (0..snapshot.states.len()).filter(|&slot| has_row(snapshot.states[slot])).collect();
    if kept.len() < snapshot.states.len() {
        for column in columns.chunks_exact_mut(stride) {
            for (to, &from) in kept.iter().enumerate() {
                column[to] = column[from];
            }
        }
    }
    kept.len()
}

/// Gives slots without a row their grid open time and NaN.
fn blank_gaps<T: Target>(snapshot: &Snapshot, grid: Grid, columns: &mut [T], stride: usize) {
    for slot in (0..snapshot.states.len()).filter(|&slot| !has_row(snapshot.states[slot])) {
        for column in columns.chunks_exact_mut(stride) {
            column[slot].put(f64::NAN);
        }
        columns[OPEN_TIME_MS * stride + slot].put(grid.open_ms(snapshot.start as i64 + slot as i64) as f64);
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
