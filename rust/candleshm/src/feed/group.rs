//! `Group`: some symbols of a feed, side by side.

use std::sync::Arc;

use crate::asof;
use crate::error::Error;
use crate::feed::attached::Attached;
use crate::feed::closes::common_grid;
use crate::interval::Grid;
use crate::panel::{self, PanelRange};

/// Symbols whose data may be handed out, in the block that has them.
#[derive(Debug, Clone)]
pub struct Group {
    attached: Arc<Attached>,
    indices: Vec<usize>,
}

impl Group {
    pub(super) fn new(attached: Arc<Attached>, indices: Vec<usize>) -> Self {
        Self { attached, indices }
    }

    /// Returns the block that has them.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Returns how many symbols there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Returns whether there is no symbol.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Returns the symbols in the order of all results.
    #[must_use]
    pub fn symbols(&self) -> Vec<String> {
        self.indices.iter().map(|&index| self.attached.block().symbol(index)).collect()
    }

    /// Copies the newest value of one column of every symbol, NaN where there is none.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `column` is above 11.
    pub fn last_into(&self, column: usize, out: &mut [f64]) -> Result<(), Error> {
        panel::last(self.attached.block(), &self.indices, column, out)
    }

    /// Copies, for every moment (epoch ms), the value of the newest candle that had closed by then: symbol `s` at moment
    /// `i` lands in `out[s * moments + i]`. NaN before the window.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `out` is too short.
    pub fn asof_into(&self, column: usize, moments_ms: &[i64], out: &mut [f64]) -> Result<(), Error> {
        for (place, &index) in self.indices.iter().enumerate() {
            let out = &mut out[place * moments_ms.len()..][..moments_ms.len()];
            asof::copy(self.attached.reader(index), self.attached.block().grid(index), &[column], moments_ms, out)?;
        }
        Ok(())
    }

    /// Returns the newest `count` slots (`None`: LENGTH) up to the newest candle that every symbol has final; with
    /// `live` up to the newest that any of them has.
    ///
    /// # Errors
    ///
    /// `Argument` for a count of 0, and for 3d candles that open on different days; `Contended`.
    pub fn panel(&self, count: Option<usize>, live: bool) -> Result<Panel<'_>, Error> {
        if count == Some(0) {
            return Err(Error::Argument("n must be a positive integer: `0`".into()));
        }
        let block = self.attached.block();
        let grid = common_grid(block, &self.indices)?;
        let count = count.unwrap_or(block.geometry().ring.length);
        let range = panel::newest(block, &self.indices, count, live)?.unwrap_or(PanelRange { start: 0, count: 0 });
        Ok(Panel { group: self, grid, range, live })
    }
}

/// Rows of several symbols at the same open times.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    group: &'a Group,
    grid: Grid,
    range: PanelRange,
    live: bool,
}

impl Panel<'_> {
    /// Returns how many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.range.count
    }

    /// Returns the open times of the rows on the grid, epoch ms.
    #[must_use]
    pub fn open_ms(&self) -> impl ExactSizeIterator<Item = i64> {
        let (grid, range) = (self.grid, self.range);
        (0..range.count).map(move |row| grid.open_ms((range.start + row as u64) as i64))
    }

    /// Copies columns: column `f` of the list, of symbol `s`, at row `i` lands in `out[(f * symbols + s) * rows + i]`.
    /// NaN where a symbol has no row.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `out` is too short, or a column is above 11.
    pub fn copy_into(&self, columns: &[usize], out: &mut [f64]) -> Result<(), Error> {
        panel::copy(self.group.attached.block(), &self.group.indices, columns, self.range, self.live, out)
    }
}
