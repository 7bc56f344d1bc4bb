//! The seqlock: the newest row of a series and the bounds of its ring, published whole.
//!
//! Four slots take turns. The writer fills the slot after the published one and then moves the version on; a reader
//! copies the published slot and accepts it when the version has moved by less than three, because only the fourth
//! publication after it reuses the slot. Nobody waits for anybody: a writer stopped between two stores leaves the
//! published slot untouched.

use crate::columns::CLOSE;
use crate::error::Error;
use crate::layout::{ROW_WORDS, RowState, RowWords, Tag, slot, symbol};
use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    copy_words, fence,
};

/// How often a reader tries to copy a seqlock before it gives up. Each failure means three publications within the
/// few nanoseconds of one copy.
const ATTEMPTS_MAX: usize = if cfg!(loom) { 2 } else { 4096 };

/// The bits of a candle index.
const CANDLE_INDEX_MASK: u64 = 0xFFFF_FFFF;

/// What a seqlock holds besides the newest row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The first candle index that is not in the ring; 0 while the series is empty.
    pub head: u64,
    /// The lowest index from which every row below `final_end` is closed or verified.
    pub final_start: u64,
    /// Index of the oldest provisional candle of the window, `head` if there is none. Never moves down.
    pub final_end: u64,
    /// State of the newest row. `Live`: it is the row of `head`, not in the ring. Otherwise it repeats the ring's
    /// newest row, `head - 1`, because the next candle has not been seen yet.
    pub state: RowState,
    /// Corrections of closed rows so far.
    pub revision: u32,
    /// `CLOCK_BOOTTIME` of the newest response, ms.
    pub received_ms: u64,
}

impl Marks {
    /// Marks of a series without rows.
    pub const EMPTY: Self =
        Self { head: 0, final_start: 0, final_end: 0, state: RowState::Empty, revision: 0, received_ms: 0 };

    /// Returns whether `head` is the index of a live row.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.state == RowState::Live
    }

    /// Returns the index after that of the newest row.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.head + u64::from(self.has_live())
    }
}

/// Publishes `marks` and `row` as the version after `version` and returns that.
///
/// SYNC POINT seqlock: the fence keeps the stores of earlier publications, and of everything they announced, before
/// the stores into the slot; the release store of the version pairs with the load and fence in [`read`].
#[must_use]
pub fn publish(entry: &[AtomicU64], version: u64, marks: &Marks, row: &RowWords) -> u64 {
    fence(Release);
    let version = version.wrapping_add(1);
    let words = slot_words(entry, version);
    words[slot::HEAD].store(marks.head, Relaxed);
    words[slot::SOLID_FINAL].store(marks.final_start | marks.final_end << 32, Relaxed);
    words[slot::STATE_REVISION].store(marks.state as u64 | u64::from(marks.revision) << 32, Relaxed);
    words[slot::RECEIVED_MS].store(marks.received_ms, Relaxed);
    for (word, value) in words[slot::ROW..].iter().zip(row) {
        word.store(value.to_bits(), Relaxed);
    }
    entry[symbol::LAST_CLOSE].store(row[CLOSE.min(ROW_WORDS - 1)].to_bits(), Relaxed);
    entry[symbol::VERSION].store(version, Release);
    version
}

/// Returns the newest marks and, copied into `row`, the newest row.
///
/// # Errors
///
/// `Contended` when the writer kept publishing faster than the copy, which takes thousands of coincidences.
#[inline]
pub fn read(entry: &[AtomicU64], row: &mut RowWords) -> Result<Marks, Error> {
    read_with(entry, |words| copy_words(&words[slot::ROW..slot::ROW + ROW_WORDS], row))
}

/// Returns the newest marks.
///
/// # Errors
///
/// `Contended`, as [`read`].
#[inline]
pub fn read_marks(entry: &[AtomicU64]) -> Result<Marks, Error> {
    read_with(entry, |_| ())
}

#[inline]
fn read_with(entry: &[AtomicU64], mut copy: impl FnMut(&[AtomicU64])) -> Result<Marks, Error> {
    for _ in 0..ATTEMPTS_MAX {
        // SYNC POINT seqlock: load and fence pair with the release store in `publish`. Readers use relaxed loads and
        // fences throughout: on pages mapped read-only nothing else is promised to work.
        let version = entry[symbol::VERSION].load(Relaxed);
        fence(Acquire);
        let words = slot_words(entry, version);
        // Candle indices are 32 bits wide, and no mark lies above the head: whatever stands in a damaged block, windows
        // keep within the ring and sums of candle indices within 64 bits.
        let head = words[slot::HEAD].load(Relaxed) & CANDLE_INDEX_MASK;
        let final_start_end = words[slot::SOLID_FINAL].load(Relaxed);
        let state_revision = words[slot::STATE_REVISION].load(Relaxed);
        let received_ms = words[slot::RECEIVED_MS].load(Relaxed);
        copy(words);
        // A word of a later publication read above makes that publication's fence, and so the version before it,
        // visible to the load below.
        fence(Acquire);
        if entry[symbol::VERSION].load(Relaxed).wrapping_sub(version) < 3 {
            return Ok(Marks {
                head,
                final_start: final_start_end & CANDLE_INDEX_MASK,
                final_end: (final_start_end >> 32).min(head),
                // Without a head there is no row, whatever a damaged block says of it.
                state: if head == 0 { RowState::Empty } else { Tag(state_revision).state() },
                revision: (state_revision >> 32) as u32,
                received_ms,
            });
        }
    }
    Err(Error::Contended)
}

/// Returns when the newest response was received. One word, so no copy to validate: a slot that is being reused holds a
/// newer time, which is as true.
#[inline]
#[must_use]
pub fn received_ms(entry: &[AtomicU64]) -> u64 {
    let version = entry[symbol::VERSION].load(Relaxed);
    fence(Acquire);
    slot_words(entry, version)[slot::RECEIVED_MS].load(Relaxed)
}

/// Returns the close of the newest row, NaN while there is none.
#[inline]
#[must_use]
pub fn last_close(entry: &[AtomicU64]) -> f64 {
    f64::from_bits(entry[symbol::LAST_CLOSE].load(Relaxed))
}

#[inline]
fn slot_words(entry: &[AtomicU64], version: u64) -> &[AtomicU64] {
    let from = symbol::SLOTS + (version & 3) as usize * symbol::SLOT_WORDS;
    &entry[from..from + symbol::SLOT_WORDS]
}
