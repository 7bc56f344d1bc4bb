//! Closes: a candle that became final, and the symbols for which it is awaited.

use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::error::Error;
use crate::feed::attached::Attached;
use crate::feed::turns;
use crate::interval::Grid;

/// A candle that closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Open time of the candle, epoch ms.
    pub open_ms: i64,
    /// Open time of the candle after it, epoch ms.
    pub end_ms: i64,
    /// The awaited symbols that have it final: closed, verified or a hole.
    pub symbols: Vec<String>,
    /// The awaited symbols that do not have it final; empty with a quorum of 1.
    pub missing: Vec<String>,
}

/// The series whose closes are awaited, and how many of them are enough.
#[derive(Debug)]
pub struct Awaited {
    attached: Arc<Attached>,
    indices: Vec<usize>,
    grid: Grid,
    needed: usize,
}

impl Awaited {
    pub(super) fn new(attached: Arc<Attached>, indices: Vec<usize>, quorum: f64) -> Result<Self, Error> {
        if !(quorum > 0.0 && quorum <= 1.0) {
            return Err(Error::Argument(format!("quorum must be above 0 and at most 1: `{quorum}`")));
        }
        let grid = common_grid(attached.block(), &indices)?;
        let needed = ((quorum * indices.len() as f64).ceil() as usize).max(1);
        Ok(Self { attached, indices, grid, needed })
    }

    /// Returns the grid of the series.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Returns the open time after the newest one that enough of the series have final, epoch ms.
    #[must_use]
    pub fn next_ms(&self) -> Option<i64> {
        let end_ms = |&index: &usize| {
            let candle_index = self.attached.reader(index).newest_settled()?;
            Some(self.attached.block().grid(index).end_ms(candle_index as i64))
        };
        let mut newest: Vec<i64> = self.indices.iter().filter_map(end_ms).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let block = self.attached.block();
        // A replay may begin without a row: the candle that is open there closes next.
        let first_ms = || block.replay_ms().map(|replay_ms| self.grid.floor_ms(replay_ms as i64));
        newest.get(self.needed - 1).copied().or_else(|| first_ms().filter(|_| newest.is_empty()))
    }

    /// Returns `open_ms`, or the open time of the first candle of these symbols where all were listed later.
    #[must_use]
    pub fn listed_ms(&self, open_ms: i64) -> i64 {
        let first_ms = |&index: &usize| {
            let first = self.attached.reader(index).first_candle()?;
            Some(self.attached.block().grid(index).open_ms(first as i64))
        };
        // One whose listing is not known may have had any candle.
        let is_there = |index| first_ms(index).is_none_or(|first_ms| first_ms <= open_ms);
        let later =
            if self.indices.iter().any(is_there) { None } else { self.indices.iter().filter_map(first_ms).min() };
        later.unwrap_or(open_ms)
    }

    /// Returns when the candle that contains `open_ms` ends, epoch ms.
    pub(super) fn end_ms(&self, open_ms: i64) -> i64 {
        self.grid.end_ms(self.grid.index_of(open_ms))
    }

    /// Returns how many candles, from the one that contains `open_ms` on, enough of the series have final. There is none
    /// before the first one.
    #[must_use]
    pub fn closed_since(&self, open_ms: i64) -> i64 {
        let first = self.grid.index_of(self.listed_ms(open_ms));
        self.next_ms().map_or(0, |next_ms| (self.grid.index_of(next_ms) - first).max(0))
    }

    /// Returns the close of the candle that contains `open_ms`, if enough of the series have it final.
    #[must_use]
    pub fn closed(&self, open_ms: i64) -> Option<Closed> {
        let (closed, missing) = self.parts(Some(open_ms));
        (closed.len() >= self.needed).then(|| Closed {
            open_ms: self.grid.floor_ms(open_ms),
            end_ms: self.grid.end_ms(self.grid.index_of(open_ms)),
            symbols: self.names(&closed),
            missing: self.names(&missing),
        })
    }

    /// Returns the error of a wait that was in vain, with the symbols that do not have the candle final.
    #[must_use]
    pub fn timed_out(&self, open_ms: Option<i64>, waited: Duration) -> Error {
        let (closed, mut missing) = self.parts(open_ms);
        if self.indices.is_empty() {
            // None has a row yet.
            let block = self.attached.block();
            missing = (0..block.symbol_count()).filter(|&index| block.is_trading(index)).collect();
        }
        let held_up = turns::held_up(&self.attached);
        Error::NothingClosed { open_ms, closed: closed.len(), missing: self.names(&missing), waited, held_up }
    }

    /// Splits the series into those that have the candle final, and the others.
    fn parts(&self, open_ms: Option<i64>) -> (Vec<usize>, Vec<usize>) {
        self.indices.iter().partition(|&&index| {
            open_ms.is_some_and(|open_ms| {
                let candle_index = self.attached.block().grid(index).index_of(open_ms).max(0);
                self.attached.reader(index).is_settled(candle_index as u64)
            })
        })
    }

    fn names(&self, indices: &[usize]) -> Vec<String> {
        self.attached.names_of(indices)
    }
}

/// The one grid of all these series. Only 3d candles lie on different ones.
pub(super) fn common_grid(block: &Block, indices: &[usize]) -> Result<Grid, Error> {
    let grid = block.grid(indices.first().copied().unwrap_or(0));
    match indices.iter().find(|&&index| block.grid(index) != grid) {
        None => Ok(grid),
        Some(&other) => Err(Error::Argument(format!(
            "the {} candles of {} and {} open on different days; request symbols whose candles open together",
            grid.interval().as_str(),
            block.symbol(indices[0]),
            block.symbol(other)
        ))),
    }
}
