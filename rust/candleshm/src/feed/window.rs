//! Which rows of a series are copied, and what slots without a row become in the copy.

use crate::columns::OPEN_TIME_MS;
use crate::error::Error;
use crate::interval::Grid;
use crate::layout::RowState;
use crate::read::{Selection, Snapshot};
use crate::sync::Target;

/// What to do with slots that have no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holes {
    /// Leave them out: the rows move together.
    #[default]
    Drop,
    /// Keep them, as their open time on the grid and NaN.
    Nan,
    /// Refuse with `Gap`.
    Raise,
}

/// The newest slots of a series, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// How many slots, the live row's included; `None` and what is larger mean LENGTH of the block.
    pub count: Option<usize>,
    /// Leave out rows that are not final, and end before the first of them.
    pub closed_only: bool,
    /// What slots without a row become.
    pub holes: Holes,
}

impl Window {
    /// The newest `count` slots.
    #[must_use]
    pub fn newest(count: usize) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    /// Without the rows that may still change.
    #[must_use]
    pub fn closed_only(self) -> Self {
        Self { closed_only: true, ..self }
    }

    /// With other holes.
    #[must_use]
    pub fn holes(self, holes: Holes) -> Self {
        Self { holes, ..self }
    }

    /// What to select of a ring of `length`.
    pub(super) fn selection(self, length: usize, states: bool) -> Result<Selection, Error> {
        if self.count == Some(0) {
            return Err(Error::Argument("n must be a positive integer: `0`".into()));
        }
        let count = self.count.unwrap_or(length).min(length);
        Ok(Selection { count, closed_only: self.closed_only, states })
    }
}

impl Holes {
    /// Refuses a copy with gaps, if that is what the caller wants.
    pub(super) fn check(self, symbol: &str, snapshot: &Snapshot, grid: Grid) -> Result<(), Error> {
        if self != Self::Raise || !has_gaps(snapshot) {
            return Ok(());
        }
        let gap = snapshot.states.iter().position(|&state| !has_row(state));
        gap.map_or(Ok(()), |first| Err(gap_at(first, symbol, snapshot, grid)))
    }

    /// Makes of a copy what is handed out; returns how many rows that is. `columns` begins with column `first`.
    pub(super) fn apply<T: Target>(
        self,
        snapshot: &Snapshot,
        grid: Grid,
        first: usize,
        columns: &mut [T],
        stride: usize,
    ) -> usize {
        if !has_gaps(snapshot) {
            return snapshot.states.len();
        }
        match self {
            Self::Drop | Self::Raise => drop_gaps(snapshot, columns, stride),
            Self::Nan => blank_gaps(snapshot, grid, first, columns, stride),
        }
    }

    /// Returns the states of the rows that are handed out.
    pub(super) fn states_of(self, snapshot: &Snapshot) -> impl Iterator<Item = RowState> {
        snapshot.states.iter().copied().filter(move |&state| self != Self::Drop || has_row(state))
    }
}

fn gap_at(first: usize, symbol: &str, snapshot: &Snapshot, grid: Grid) -> Error {
    let state = snapshot.states[first];
    let count = snapshot.states[first..].iter().take_while(|&&other| other == state).count();
    let start = snapshot.start as i64 + first as i64;
    Error::Gap {
        symbol: symbol.to_owned(),
        start_ms: grid.open_ms(start),
        end_ms: grid.open_ms(start + count as i64),
        is_hole: state == RowState::Hole,
    }
}

/// Looks at every slot, and not up to the first gap only: most windows have none, and this is done many at a time.
fn has_gaps(snapshot: &Snapshot) -> bool {
    snapshot.states.iter().fold(false, |found, &state| found | !has_row(state))
}

fn has_row(state: RowState) -> bool {
    (RowState::Live as u8..=RowState::Verified as u8).contains(&(state as u8))
}

const _: () = assert!(RowState::Live as u8 == 1 && RowState::Closed as u8 == 2 && RowState::Verified as u8 == 3);

/// Moves the rows that are there together; returns how many.
fn drop_gaps<T: Target>(snapshot: &Snapshot, columns: &mut [T], stride: usize) -> usize {
    let kept: Vec<usize> = (0..snapshot.states.len()).filter(|&slot| has_row(snapshot.states[slot])).collect();
    for column in columns.chunks_mut(stride) {
        for (to, &from) in kept.iter().enumerate() {
            column[to] = column[from];
        }
    }
    kept.len()
}

/// Gives slots without a row their grid open time and NaN; returns how many slots there are.
fn blank_gaps<T: Target>(snapshot: &Snapshot, grid: Grid, first: usize, columns: &mut [T], stride: usize) -> usize {
    for slot in (0..snapshot.states.len()).filter(|&slot| !has_row(snapshot.states[slot])) {
        for column in columns.chunks_mut(stride) {
            column[slot].put(f64::NAN);
        }
        if first == OPEN_TIME_MS {
            columns[slot].put(grid.open_ms(snapshot.start as i64 + slot as i64) as f64);
        }
    }
    snapshot.states.len()
}
