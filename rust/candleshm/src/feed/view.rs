//! `View`: final rows of a series, used where they lie.

use std::sync::Arc;

use crate::error::Error;
use crate::feed::attached::Attached;
use crate::read::ViewMarks;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A window of final rows that lies in the block itself: nothing is copied. It keeps the block mapped.
///
/// The writer may overwrite the oldest rows after 64 further closes, or revise a row: call [`View::check`] after
/// computing, and discard the result where it fails. Slots without a row are NaN.
#[derive(Debug, Clone)]
pub struct View {
    attached: Arc<Attached>,
    index: usize,
    marks: ViewMarks,
}

impl View {
    pub(super) fn new(attached: Arc<Attached>, index: usize, marks: ViewMarks) -> Self {
        Self { attached, index, marks }
    }

    /// Returns how many slots it has.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.count
    }

    /// Returns whether it has no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.count == 0
    }

    /// Returns the words of a column, oldest first; each is the bits of a `f64`, and may change at any time.
    ///
    /// # Panics
    ///
    /// When `column` is above 11.
    #[inline]
    #[must_use]
    pub fn words(&self, column: usize) -> &[AtomicU64] {
        self.attached.reader(self.index).column(&self.marks, column)
    }

    /// Returns the values of a column, oldest first.
    ///
    /// # Panics
    ///
    /// When `column` is above 11.
    #[must_use]
    pub fn values(&self, column: usize) -> impl ExactSizeIterator<Item = f64> + DoubleEndedIterator {
        self.words(column).iter().map(|word| f64::from_bits(word.load(Relaxed)))
    }

    /// Returns the distance from one column to the next, words.
    #[must_use]
    pub fn column_stride(&self) -> usize {
        self.attached.block().geometry().ring.column_stride_words()
    }

    /// Returns whether every slot has a row.
    #[inline]
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.marks.is_complete()
    }

    /// Returns where the newest candle ends, epoch ms; `None` when there is none.
    #[must_use]
    pub fn end_ms(&self) -> Option<i64> {
        let last = self.marks.count.checked_sub(1)?;
        Some(self.attached.block().grid(self.index).end_ms((self.marks.start + last as u64) as i64))
    }

    /// Returns whether no row was overwritten or revised so far. To be asked after computing, not before.
    #[inline]
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.attached.reader(self.index).is_valid(&self.marks)
    }

    /// As [`Self::is_valid`], as an error.
    ///
    /// # Errors
    ///
    /// `Overwritten`.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_valid() {
            return Ok(());
        }
        Err(Error::Overwritten { symbol: self.attached.block().symbol(self.index) })
    }
}
