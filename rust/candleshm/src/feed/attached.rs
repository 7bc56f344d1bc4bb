//! `Attached`: one mapped block, the places of its symbols, and how old its data is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::block::Block;
use crate::error::Error;
use crate::feed::clock;
use crate::layout::{BlockState, header};
use crate::read::SeriesReader;
use crate::shared_memory::FileId;

/// How far a response may seem ahead: it may be booked between our reading of the clock and that of the block.
const AHEAD_MS: u64 = 1_000;

/// A block that a feed is or was attached to. It stays mapped and readable for as long as somebody holds it.
#[derive(Debug)]
pub struct Attached {
    block: Block,
    id: FileId,
    /// Whether the feed has moved to another block.
    left: AtomicBool,
    places: RwLock<Places>,
}

#[derive(Debug, Default)]
struct Places {
    symbols: Vec<String>,
    index: HashMap<String, usize>,
}

impl Attached {
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        let (block, id) = Block::open_with_id(name, clock::boot_id())?;
        Ok(Self { block, id, left: AtomicBool::new(false), places: RwLock::default() })
    }

    /// Returns the mapped block.
    #[inline]
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Returns the reader of the series at that place.
    #[inline]
    #[must_use]
    pub fn reader(&self, index: usize) -> SeriesReader<'_> {
        SeriesReader::new(&self.block, index)
    }

    /// Returns the place of a symbol; the table is read again when it has grown.
    #[must_use]
    pub fn place(&self, symbol: &str) -> Option<usize> {
        self.with_places(|places| places.index.get(symbol).copied())
    }

    /// Returns the place of a symbol that must be there.
    pub(super) fn place_of(&self, symbol: &str) -> Result<usize, Error> {
        let unknown = || Error::UnknownSymbol { symbol: symbol.into(), name: self.block.name().into() };
        self.place(symbol).ok_or_else(unknown)
    }

    /// Returns the symbols in the block's order.
    #[must_use]
    pub fn symbols(&self) -> Vec<String> {
        self.with_places(|places| places.symbols.clone())
    }

    /// Returns the symbols at some places.
    pub(super) fn names_of(&self, indices: &[usize]) -> Vec<String> {
        self.with_places(|places| indices.iter().filter_map(|&index| places.symbols.get(index).cloned()).collect())
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
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether the block itself gives no reason to move to another one.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.block.state() == Some(BlockState::Ready) && !self.left.load(Ordering::Relaxed)
    }

    /// Milliseconds since the collector's last heartbeat, `None` when that lies in the future.
    #[must_use]
    pub fn heartbeat_age_ms(&self) -> Option<u64> {
        let (heartbeat_ms, now_ms) = (self.block.value(header::HEARTBEAT_NS) / 1_000_000, clock::now_ms());
        (heartbeat_ms <= now_ms + AHEAD_MS).then(|| now_ms.saturating_sub(heartbeat_ms))
    }

    /// The exchange's clock now, epoch ms, if it was measured; in a replay the replayed time.
    #[must_use]
    pub fn exchange_ms(&self) -> Option<i64> {
        if let Some(replay_ms) = self.block.replay_ms() {
            return Some(replay_ms as i64);
        }
        self.block.exchange_offset_ms().map(|offset_ms| offset_ms.saturating_add(clock::now_ms() as i64))
    }
}

/// What the clock shows, in ms, that the times of receipt of a block are of.
#[inline]
fn now_ms_of(block: &Block) -> u64 {
    block.replay_ms().unwrap_or_else(clock::now_ms)
}

/// Milliseconds since the newest response about a series, `None` when there was none, or when it lies in the future, as
/// only in a damaged block. In a replay, in replayed time, since its newest row.
#[inline]
pub(super) fn age_ms(block: &Block, index: usize) -> Option<u64> {
    age_at_ms(block, index, now_ms_of(block))
}

#[inline]
fn age_at_ms(block: &Block, index: usize, now_ms: u64) -> Option<u64> {
    match SeriesReader::new(block, index).received_ms() {
        0 => None,
        received_ms if received_ms > now_ms + AHEAD_MS => None,
        received_ms => Some(now_ms.saturating_sub(received_ms)),
    }
}

/// The ages in milliseconds of all series whose symbols trade, `None` for those without a response.
#[must_use]
pub fn trading_ages_ms(block: &Block) -> Vec<Option<u64>> {
    let now_ms = now_ms_of(block);
    let trading = (0..block.symbol_count()).filter(|&index| block.is_trading(index));
    trading.map(|index| age_at_ms(block, index, now_ms)).collect()
}
