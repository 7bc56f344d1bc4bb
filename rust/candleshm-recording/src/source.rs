//! What a recording takes from a writer: how its block was opened, and what is known of its series.

use candleshm::error::Error;
use candleshm::layout::{CAPACITY_SPARE, ROW_WORDS};
use candleshm::writer::Writer;

use crate::record::{DerivedBlock, Record, Run, bytes};
use crate::recorder::Recorder;

/// Returns how a block is as a recording of it begins. `offset_ms` is epoch ms minus `CLOCK_BOOTTIME` in ms.
#[must_use]
pub fn run_of(writer: &Writer, derived: &[DerivedBlock], offset_ms: i64) -> Run {
    let block = writer.block();
    let geometry = block.geometry();
    Run {
        name: block.name().to_owned(),
        market: geometry.market.as_str().to_owned(),
        price: geometry.price.as_str().to_owned(),
        interval: geometry.interval.as_str().to_owned(),
        length: geometry.ring.length as u64,
        symbols: (0..block.symbol_count()).map(|index| block.symbol(index)).collect(),
        capacity: geometry.symbol_capacity as u64,
        exchange: block.exchange(),
        derived: derived.to_vec(),
        offset_ms,
        is_whole: !writer.has_rows(),
    }
}

/// Returns about how large the checkpoints of one symbol are.
#[must_use]
pub fn checkpoint_bytes(writer: &Writer, derived: &[DerivedBlock]) -> usize {
    let own = writer.block().geometry().ring.capacity;
    let rows: usize = derived.iter().map(|block| block.length as usize + CAPACITY_SPARE).sum();
    (own + rows) * (ROW_WORDS + 2) * 8
}

/// Records all that is known of the series at a place, of the block and of those derived from it, and returns how many
/// bytes that is. Nothing may be merged meanwhile.
///
/// # Errors
///
/// `Name` for a derived block that there is not.
pub fn checkpoint(
    recorder: &Recorder,
    writer: &Writer,
    derived: &[DerivedBlock],
    place: usize,
    boot_ms: u64,
) -> Result<usize, Error> {
    let block = writer.block();
    let count = block.symbol_count();
    let mut total = 0;
    if place < count {
        let symbol = block.symbol(place);
        for name in std::iter::once("").chain(derived.iter().map(|block| block.name.as_str())) {
            let words = bytes(&writer.checkpoint((!name.is_empty()).then_some(name), place)?);
            total += words.len();
            recorder.push(&Record::Checkpoint { symbol: &symbol, derived: name, words: &words }, boot_ms);
        }
    }
    recorder.checkpointed(place, count);
    Ok(total)
}
