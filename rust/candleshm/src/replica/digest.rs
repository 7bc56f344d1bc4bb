//! Digests: what a series holds as one number, kept up as its rows change.
//!
//! Each settled row (closed, verified, a hole) has a hash of its candle index, state and twelve words; the digest of a
//! range is the wrapping sum of them. Two blocks with equal digests hold the same bytes, but for a chance of one in 2^64.

use std::ops::Range;

use crate::layout::{RowState, RowWords, Tag};
use crate::ring::SeriesWords;
use crate::sync::{Ordering::Acquire, fence};

/// Candles of one bucket, as a power of two: the sums of buckets tell which rows of a series differ.
pub const BUCKET_BITS: u32 = 4;

/// Returns the hash of a row.
#[must_use]
pub fn hash_of(candle_index: u64, state: RowState, row: &RowWords) -> u64 {
    let seed = mixed(candle_index << 8 | state as u64);
    if state == RowState::Hole {
        return seed;
    }
    mixed(
        row.iter()
            .fold(seed, |hash, value| (hash.rotate_left(25) ^ value.to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    )
}

/// The finalizer of `SplitMix64`.
fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// The hashes of a series' rows, as they were when last looked at.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    /// Per slot, the tag under which its row was looked at; 0 for none.
    seen: Vec<u64>,
    /// Per slot, the hash of that row.
    hashes: Vec<u64>,
    /// Which candles are summed up.
    window: Range<u64>,
    sum: u64,
    /// Whether equal tags prove nothing: the rows lie in another block now.
    anew: bool,
}

/// A row that is not as it was when last looked at.
pub type Changed<'a> = &'a mut dyn FnMut(u64, RowState, RowWords);

impl Digest {
    /// Returns the candles that the sum is about.
    #[must_use]
    pub fn window(&self) -> Range<u64> {
        self.window.clone()
    }

    /// Returns the sum of the settled rows of the window.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the sum of the settled rows of a range.
    #[must_use]
    pub fn sum_of(&self, range: Range<u64>) -> u64 {
        if range == self.window {
            return self.sum;
        }
        range.fold(0, |sum: u64, candle_index| sum.wrapping_add(self.settled(candle_index)))
    }

    /// Returns the sums of the buckets that a range touches, each of its candles inside the range only.
    #[must_use]
    pub fn buckets(&self, range: &Range<u64>) -> Vec<u64> {
        buckets_of(range).map(|bucket| self.sum_of(bucket)).collect()
    }

    /// Returns whether a row of the range is settled.
    #[must_use]
    pub fn has_settled(&self, mut range: Range<u64>) -> bool {
        range.any(|candle_index| self.settled(candle_index) != 0)
    }

    /// Looks at every row the next time: they lie in another block now.
    pub fn look_anew(&mut self) {
        self.anew = true;
    }

    /// Looks at the rows from `from` to the end of `window` again, and tells those that changed, ascending. Returns
    /// false when some were just being written: they are to be looked at again. A row that is gone counts as it was:
    /// what was final stays final.
    pub fn look(&mut self, words: SeriesWords<'_>, window: Range<u64>, from: u64, changed: Changed<'_>) -> bool {
        if self.seen.len() != words.ring.capacity {
            *self = Self {
                seen: vec![0; words.ring.capacity],
                hashes: vec![0; words.ring.capacity],
                window: window.clone(),
                sum: 0,
                anew: true,
            };
        }
        let (from, mut stable) = (from.max(window.start), true);
        let is_whole = self.anew || from == window.start || self.window.is_empty() || window.start < self.window.start;
        let from = if is_whole { window.start } else { from };
        if is_whole {
            self.sum = 0;
        } else {
            let left = self.sum_of_rows(self.window.start..window.start.min(self.window.end));
            let again = self.sum_of_rows(from..self.window.end.max(from));
            self.sum = self.sum.wrapping_sub(left).wrapping_sub(again);
        }
        for candle_index in from..window.end {
            stable &= self.look_at(words, candle_index, changed);
            self.sum = self.sum.wrapping_add(self.settled(candle_index));
        }
        self.window = window;
        self.anew &= !(is_whole && stable);
        stable
    }

    fn look_at(&mut self, words: SeriesWords<'_>, candle_index: u64, changed: Changed<'_>) -> bool {
        let slot = (candle_index % self.seen.len() as u64) as usize;
        let tag = words.tag(candle_index);
        if tag.0 == self.seen[slot] && !self.anew {
            return true;
        }
        if tag.candle_index() != candle_index {
            return tag.candle_index() < candle_index;
        }
        let was = Tag(self.seen[slot]);
        let state = tag.state();
        match state {
            RowState::Live | RowState::Closed | RowState::Verified | RowState::Hole => {
                // SYNC POINT row: the values loaded below are at least as new as the tag loaded above.
                fence(Acquire);
                let row = words.row(candle_index);
                // SYNC POINT rewrite, reuse: a value of a later row is found out below.
                fence(Acquire);
                if words.tag(candle_index) != tag {
                    return false;
                }
                let hash = hash_of(candle_index, state, &row);
                let is_known = was.candle_index() == candle_index && self.hashes[slot] == hash && was.state() == state;
                (self.seen[slot], self.hashes[slot]) = (tag.0, hash);
                if !is_known {
                    changed(candle_index, state, row);
                }
                true
            }
            _ if was.is_settled_of(candle_index) => false,
            _ => {
                (self.seen[slot], self.hashes[slot]) = (tag.0, 0);
                true
            }
        }
    }

    fn sum_of_rows(&self, range: Range<u64>) -> u64 {
        range.fold(0, |sum: u64, candle_index| sum.wrapping_add(self.settled(candle_index)))
    }

    /// Returns the hash of a settled row, 0 for any other.
    fn settled(&self, candle_index: u64) -> u64 {
        if self.seen.is_empty() {
            return 0;
        }
        let slot = (candle_index % self.seen.len() as u64) as usize;
        if Tag(self.seen[slot]).is_settled_of(candle_index) { self.hashes[slot] } else { 0 }
    }
}

/// Returns the parts of a range that lie in one bucket each.
pub fn buckets_of(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let (start, end) = (range.start, range.end);
    let last = if start < end { ((end - 1) >> BUCKET_BITS) + 1 } else { start >> BUCKET_BITS };
    (start >> BUCKET_BITS..last)
        .map(move |bucket| (bucket << BUCKET_BITS).max(start)..((bucket + 1) << BUCKET_BITS).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_counts() {
        let row: RowWords = core::array::from_fn(|column| column as f64 + 0.5);
        let hash = hash_of(7, RowState::Closed, &row);
        assert_ne!(hash, hash_of(8, RowState::Closed, &row));
        assert_ne!(hash, hash_of(7, RowState::Verified, &row));
        for column in 0..row.len() {
            for bit in [0, 31, 63] {
                let mut other = row;
                other[column] = f64::from_bits(other[column].to_bits() ^ 1 << bit);
                assert_ne!(hash, hash_of(7, RowState::Closed, &other), "{column} {bit}");
            }
        }
        let mut other = row;
        other.swap(3, 4);
        assert_ne!(hash, hash_of(7, RowState::Closed, &other));
    }

    #[test]
    fn buckets_cover_a_range_once() {
        for (start, end) in [(0, 0), (5, 5), (0, 16), (3, 17), (16, 33), (31, 100)] {
            let parts: Vec<_> = buckets_of(&(start..end)).collect();
            assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (start..end).collect::<Vec<_>>());
            assert!(parts.iter().all(|part| part.start >> BUCKET_BITS == (part.end - 1) >> BUCKET_BITS));
        }
    }
}
