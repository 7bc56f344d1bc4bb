//! Slot arithmetic: where the tag and the twelve words of a candle lie.
//!
//! ```text
//! tags      | C words: one per slot, guarding both copies |
//! column k  | slot 0 .. C-1 | the same again | 8 words of padding |
//! ```
//!
//! Bar `b` lies in slot `b % C` of every column, and once more `C` words further on, so that any window of up to `C`
//! candle indices is one contiguous run.

use crate::layout::{ROW_WORDS, RingShape, RowWords, Tag};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The words of one series: its entry in the symbol table and its data.
#[derive(Clone, Copy)]
pub struct SeriesWords<'a> {
    /// The symbol's entry: seqlock, counters, name.
    pub entry: &'a [AtomicU64],
    /// Tags and columns.
    pub data: &'a [AtomicU64],
    /// Shape of the ring.
    pub ring: RingShape,
}

impl<'a> SeriesWords<'a> {
    /// Returns the tag word of the slot that `candle_index` falls into.
    #[inline]
    #[must_use]
    pub fn tag_word(&self, candle_index: u64) -> &'a AtomicU64 {
        &self.data[self.slot(candle_index)]
    }

    /// Returns the tag of the slot that `candle_index` falls into; relaxed, so the caller orders it.
    #[inline]
    #[must_use]
    pub fn tag(&self, candle_index: u64) -> Tag {
        Tag(self.tag_word(candle_index).load(Relaxed))
    }

    /// Returns the run of `count` words of column `column` that begins with the first copy of candle index `start`.
    #[inline]
    #[must_use]
    pub fn column(&self, column: usize, start: u64, count: usize) -> &'a [AtomicU64] {
        debug_assert!(count <= self.ring.capacity);
        let from = self.ring.capacity + column * self.ring.column_stride_words() + self.slot(start);
        &self.data[from..from + count]
    }

    /// Returns the row of `candle_index` word by word; relaxed, so the caller orders it.
    #[must_use]
    pub fn row(&self, candle_index: u64) -> RowWords {
        let first = self.ring.capacity + self.slot(candle_index);
        let stride = self.ring.column_stride_words();
        core::array::from_fn(|column| f64::from_bits(self.data[first + column * stride].load(Relaxed)))
    }

    /// Stores both copies of the row of `candle_index`; relaxed, so the caller orders it.
    pub fn store_row(&self, candle_index: u64, row: &RowWords) {
        let slot = self.slot(candle_index);
        for (column, value) in row.iter().enumerate().take(ROW_WORDS) {
            let base = self.ring.capacity + column * self.ring.column_stride_words() + slot;
            self.data[base].store(value.to_bits(), Relaxed);
            self.data[base + self.ring.capacity].store(value.to_bits(), Relaxed);
        }
    }

    #[inline]
    fn slot(&self, candle_index: u64) -> usize {
        (candle_index % self.ring.capacity as u64) as usize
    }
}
