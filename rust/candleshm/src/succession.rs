//! One block after another under the same name: which rows may be carried over, and when readers may follow.

use std::collections::HashMap;

use crate::block::Block;
use crate::interval::Grid;
#[cfg(feature = "collector")]
use crate::layout::{ABI, Geometry, header};
use crate::read::SeriesReader;
#[cfg(feature = "collector")]
use crate::soundness::is_sound;

/// Returns the places of a block's symbols by name.
pub(crate) fn places(block: &Block) -> HashMap<String, usize> {
    (0..block.symbol_count()).map(|index| (block.symbol(index), index)).collect()
}

/// Returns whether the rows of `old`, whose owner is dead, may be carried over into a block of the shape `new`: they
/// are the same candles, and the body is sound. Length and symbols may differ.
#[cfg(feature = "collector")]
#[must_use]
pub(crate) fn fits(old: &Block, new: &Geometry, boot_id: [u64; 2]) -> bool {
    let there = old.geometry();
    there.is_of_candles_of(new)
        && old.value(header::ABI) == ABI
        // Its times of receipt are of another clock, and its rows not of now.
        && old.value(header::REPLAY_MS) == 0
        // Times of receipt from before the last boot mean nothing.
        && old.boot_id() == boot_id
        && is_sound(old)
}

/// Returns whether readers of `old` lose nothing in `new`: every symbol that both carry is as far there, and has every
/// row that it has in `old`, as far back as the window of `new` reaches.
#[must_use]
pub fn has_all_of(new: &Block, old: &Block) -> bool {
    let (here, there) = (new.geometry(), old.geometry());
    if !here.is_of_candles_of(there) {
        return false;
    }
    let places = places(new);
    (0..old.symbol_count()).all(|index| {
        places.get(&old.symbol(index)).is_none_or(|&place| {
            let grids = (new.grid(place), old.grid(index));
            has_all_rows_of(SeriesReader::new(new, place), SeriesReader::new(old, index), grids)
        })
    })
}

fn has_all_rows_of(new: SeriesReader<'_>, old: SeriesReader<'_>, (here, there): (Grid, Grid)) -> bool {
    let (Ok(new_marks), Ok(old_marks)) = (new.marks(), old.marks()) else { return false };
    if old_marks.head == 0 {
        return true;
    }
    let start = new.window_start(&new_marks).max(old.window_start(&old_marks));
    here == there
        && new_marks.end() >= old_marks.end()
        && (start..old_marks.head).all(|candle_index| !old.is_readable(candle_index) || new.is_readable(candle_index))
}
