//! What a body must add up to before its block is taken over.
//!
//! The header is checked whenever a block is opened, the body is not: readers are safe whatever stands in it, and a
//! check would be out of date the next moment. A new owner, however, continues from the marks that it finds. With a
//! head from the next century it would refuse every candle for being too old, and never publish again; so it checks
//! first, and builds a new block if the marks are unsound. What a death in the middle of a write leaves is always
//! sound.

use std::collections::HashSet;

use crate::block::Block;
use crate::columns::OPEN_TIME_MS;
use crate::interval::Grid;
use crate::layout::{ROW_WORDS, RowState, RowWords, header, symbol};
use crate::ring::SeriesWords;
use crate::seqlock;
use crate::sync::Ordering::Relaxed;

/// Returns whether a new owner can continue the block. Only the owner calls this: nobody else may be writing.
#[must_use]
pub fn is_sound(block: &Block) -> bool {
    let series = || 0..block.symbol_count();
    let names: HashSet<String> = series().map(|index| block.symbol(index)).collect();
    let newest_head =
        series().filter_map(|index| seqlock::read_marks(block.series(index).entry).ok()?.head.into()).max();
    // A candle was settled everywhere only if some series is beyond it.
    let universe_bar = block.value(header::UNIVERSE_BAR);
    names.len() == block.symbol_count()
        && (universe_bar == 0 || newest_head.is_some_and(|head| universe_bar < head))
        && series().all(|index| is_sound_series(block.series(index), block.grid(index)))
}

/// Returns whether the marks are possible, and every row is the candle whose slot it is in.
pub(crate) fn is_sound_series(words: SeriesWords<'_>, grid: Grid) -> bool {
    let mut newest = [f64::NAN; ROW_WORDS];
    let Ok(marks) = seqlock::read(words.entry, &mut newest) else { return false };
    let word = |offset: usize| words.entry[offset].load(Relaxed);
    if marks.head == 0 {
        return marks.state == RowState::Empty && u32::try_from(word(symbol::WMARK)).is_ok();
    }
    let is_of = |row: &RowWords, candle_index: u64| grid.index_of(row[OPEN_TIME_MS] as i64) == candle_index as i64;
    let newest_index = if marks.has_live() { marks.head } else { marks.head - 1 };
    let is_right = |candle_index: u64| {
        let tag = words.tag(candle_index);
        let is_allowed = tag.state() != RowState::Live || candle_index >= marks.final_end;
        !tag.is_readable_of(candle_index) || is_allowed && is_of(&words.row(candle_index), candle_index)
    };
    let start = marks.head.saturating_sub(words.ring.length as u64);
    matches!(marks.state, RowState::Live | RowState::Closed | RowState::Verified)
        && is_of(&newest, newest_index)
        && word(symbol::FIRST_BAR) <= marks.head
        && (marks.head..=u64::from(u32::MAX)).contains(&word(symbol::WMARK))
        && (start..marks.head).all(is_right)
}
