//! `Attached`: one mapped block, the places of its symbols, and how old its data is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use candleshm::block::Block;
use candleshm::error::Error;
use candleshm::layout::{BlockState, header};
use candleshm::read::SeriesReader;
use candleshm::shared_memory::FileId;

use crate::process;

/// How far a response may seem ahead: it may be booked between our reading of the clock and that of the block.
const AHEAD_MS: u64 = 1_000;

/// A block and the places of its symbols.
pub(crate) struct Attached {
    pub(crate) block: Block,
    pub(crate) id: FileId,
    /// Whether the feed has moved to another block.
    left: AtomicBool,
    places: RwLock<Places>,
}

#[derive(Default)]
struct Places {
    symbols: Vec<String>,
    index: HashMap<String, usize>,
}

impl Attached {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let (block, id) = Block::open_with_id(name, process::boot_id())?;
        Ok(Self { block, id, left: AtomicBool::new(false), places: RwLock::default() })
    }

    /// Returns the place of a symbol; the table is read again when it has grown.
    pub(crate) fn place(&self, symbol: &str) -> Option<usize> {
        self.with_places(|places| places.index.get(symbol).copied())
    }

    pub(crate) fn symbols(&self) -> Vec<String> {
        self.with_places(|places| places.symbols.clone())
    }

    fn with_places<T>(&self, read: impl Fn(&Places) -> T) -> T {
        let count = self.block.symbol_count();
        {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            if places.symbols.len() >= count {
                return read(&places);
            }
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for index in places.symbols.len()..count {
            let symbol = self.block.symbol(index);
            places.index.insert(symbol.clone(), index);
            places.symbols.push(symbol);
        }
        read(&places)
    }

    /// Remembers that the feed has moved to another block.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether the block itself gives no reason to move to another one.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.block.state() == Some(BlockState::Ready) && !self.left.load(Ordering::Relaxed)
    }
}

/// Returns an age in seconds, infinite for `u64::MAX`.
pub(crate) fn seconds(age_ms: u64) -> f64 {
    if age_ms == u64::MAX { f64::INFINITY } else { age_ms as f64 / 1e3 }
}

/// The exchange's clock now, epoch ms, if it was measured.
pub(crate) fn exchange_ms(block: &Block) -> Option<i64> {
    block.exchange_offset_ms().map(|offset_ms| offset_ms.saturating_add(process::now_ms() as i64))
}

/// Returns the low and the high half of a calendar.
pub(crate) fn halves(calendar: u64) -> (u32, u32) {
    (calendar as u32, (calendar >> 32) as u32)
}

/// Milliseconds since the collector's last heartbeat, `u64::MAX` when that lies in the future.
pub(crate) fn heartbeat_age_ms(block: &Block) -> u64 {
    let (heartbeat_ms, now_ms) = (block.value(header::HEARTBEAT_NS) / 1_000_000, process::now_ms());
    if heartbeat_ms > now_ms + AHEAD_MS { u64::MAX } else { now_ms.saturating_sub(heartbeat_ms) }
}

/// Milliseconds since the newest response, `u64::MAX` when there was none, or when it lies in the future, as only in a
/// damaged block.
#[inline]
pub(crate) fn age_ms(attached: &Attached, index: usize, now_ms: u64) -> u64 {
    age_in_block_ms(&attached.block, index, now_ms)
}

/// The ages in seconds of all series whose symbols trade.
pub(crate) fn trading_ages(block: &Block, now_ms: u64) -> Vec<f64> {
    (0..block.symbol_count())
        .filter(|&index| block.is_trading(index))
        .map(|index| seconds(age_in_block_ms(block, index, now_ms)))
        .collect()
}

#[inline]
fn age_in_block_ms(block: &Block, index: usize, now_ms: u64) -> u64 {
    match SeriesReader::new(block, index).received_ms() {
        0 => u64::MAX,
        received_ms if received_ms > now_ms + AHEAD_MS => u64::MAX,
        received_ms => now_ms.saturating_sub(received_ms),
    }
}
