//! The block's format as offsets. `docs/segment-format.md` is the same as prose; `tests/format.rs` holds the two
//! together (the document's table against these constants, its hash, and golden bytes).
//!
//! Everything is a little-endian 64-bit word, so a block is lent out as `&[AtomicU64]`.

use crate::error::{Corruption, Error};
use crate::interval::{Grid, Interval};
use crate::market::Market;
use crate::price::Price;
use crate::sync::AtomicU64;
use crate::zone::{ZONE_NAME_BYTES, Zone};

#[cfg(not(target_endian = "little"))]
compile_error!("the block's format is little endian and is read in place");

/// The first eight bytes of every block.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CANDLSHM");
/// Changes when a reader of the old format would misread the new one.
pub const ABI_MAJOR: u32 = 1;
/// Changes when words that were reserved get a meaning that old readers may ignore.
pub const ABI_MINOR: u32 = 4;
/// Both as they lie in the header.
pub const ABI: u64 = ABI_MAJOR as u64 | (ABI_MINOR as u64) << 32;
/// SHA-256 of the table between the `layout-table` markers of `docs/segment-format.md`.
pub const LAYOUT_HASH: [u8; 32] = [
    0xce, 0xf0, 0xdc, 0xd9, 0xde, 0x0a, 0x5e, 0x17, 0x96, 0xdc, 0x86, 0x36, 0xcf, 0xfd, 0xdb, 0xb8, 0x72, 0xfb, 0xeb,
    0xa3, 0xea, 0xa9, 0x1f, 0x88, 0xe2, 0x74, 0x38, 0x31, 0xd3, 0x66, 0x9c, 0xb1,
];

/// A page: the header's size and the alignment of both arrays behind it.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of one symbol's entry in the symbol table.
pub const SYMBOL_BYTES: usize = 640;
/// Longest symbol name in bytes of UTF-8.
pub const SYMBOL_NAME_BYTES: usize = 64;
/// Longest name of an exchange in bytes of UTF-8; the rest of a longer one is left out.
pub const EXCHANGE_BYTES: usize = 64;
/// Longest name of a leader in bytes of UTF-8; the rest of a longer one is left out.
pub const SOURCE_BYTES: usize = 64;
/// Slots beyond LENGTH, so that a view survives 64 closes before its oldest row is overwritten.
pub const CAPACITY_SPARE: usize = 64;
/// Padding words behind each column's two copies: it spreads the columns over cache sets.
pub const COLUMN_PAD_WORDS: usize = 8;
/// Words of one published row: twelve columns (two under loom, which explores every order of every word).
pub const ROW_WORDS: usize = if cfg!(loom) { 2 } else { 12 };

/// One row as it lies in the block.
pub type RowWords = [f64; ROW_WORDS];

/// Word offsets in the header page.
pub mod header {
    /// `CANDLSHM`.
    pub const MAGIC: usize = 0;
    /// Major in the low half, minor in the high half.
    pub const ABI: usize = 1;
    /// Four words.
    pub const LAYOUT_HASH: usize = 2;
    /// Counts the blocks that have stood under the name one after the other.
    pub const GENERATION: usize = 6;
    /// [`super::BlockState`], stored last at creation.
    pub const STATE: usize = 7;
    /// Size of the whole block.
    pub const BLOCK_BYTES: usize = 8;
    /// [`super::market_code`].
    pub const MARKET: usize = 9;
    /// [`crate::interval::Interval::code`], or [`super::ZONE_DAY_CODE`].
    pub const INTERVAL: usize = 10;
    /// Candles of a full window, the live one included.
    pub const LENGTH: usize = 11;
    /// Slots of the ring.
    pub const CAPACITY: usize = 12;
    /// Places in the symbol table.
    pub const SYMBOL_CAPACITY: usize = 13;
    /// Where the symbol table begins.
    pub const SYMBOLS_OFFSET: usize = 14;
    /// Where the first symbol's data begin.
    pub const DATA_OFFSET: usize = 15;
    /// From one symbol's entry to the next.
    pub const SYMBOL_STRIDE: usize = 16;
    /// From one symbol's data to the next.
    pub const DATA_STRIDE: usize = 17;
    /// From one column to the next.
    pub const COLUMN_STRIDE: usize = 18;
    /// Two words: the kernel's boot id.
    pub const BOOT_ID: usize = 20;
    /// The owner's process.
    pub const PID: usize = 24;
    /// When that process started, in clock ticks since boot.
    pub const PID_START: usize = 25;
    /// `CLOCK_BOOTTIME` of the owner's last sign of life, nanoseconds.
    pub const HEARTBEAT_NS: usize = 26;
    /// Symbols in use; only grows.
    pub const SYMBOL_COUNT: usize = 32;
    /// Futex (low half): published batches.
    pub const COMMIT_SEQ: usize = 40;
    /// Futex (low half): batches in which a row became final.
    pub const CLOSE_SEQ: usize = 48;
    /// Index of the newest candle that every trading symbol has final; 0 while there is none.
    pub const UNIVERSE_BAR: usize = 56;
    /// 1 once every symbol was loaded.
    pub const READY: usize = 64;
    /// Rows of all windows not fetched yet.
    pub const MISSING: usize = 65;
    /// Rows of all windows confirmed absent.
    pub const HOLES: usize = 66;
    /// Request weight used in the current window.
    pub const WEIGHT_USED: usize = 67;
    /// Request weight the collector allows itself in a window.
    pub const WEIGHT_LIMIT: usize = 68;
    /// End of a ban, epoch ms; 0 when not banned.
    pub const BANNED_UNTIL_MS: usize = 69;
    /// Eight words, since minor 1: the time zone of [`super::ZONE_DAY_CODE`], zero padded; zeroes with other intervals.
    pub const ZONE: usize = 72;
    /// Since minor 2: the exchange's clock (epoch ms) minus `CLOCK_BOOTTIME` in ms, signed; 0 while it was not measured.
    pub const EXCHANGE_OFFSET_MS: usize = 80;
    /// Eight words, since minor 2: whose candles these are, zero padded; zeroes where it is not known.
    pub const EXCHANGE: usize = 81;
    /// Since minor 2: symbols whose newest request failed.
    pub const FAILING: usize = 89;
    /// Since minor 2: symbols that are kept fresh by requests instead of streams.
    pub const POLLED: usize = 90;
    /// Since minor 2: the kind of the newest failure of a request, as the format document lists them; 0 for none.
    pub const LAST_ERROR: usize = 91;
    /// Since minor 2: when that was, epoch ms.
    pub const LAST_ERROR_MS: usize = 92;
    /// Since minor 3: [`crate::price::Price::code`].
    pub const PRICE: usize = 93;
    /// Since minor 4: the replayed time, epoch ms, in a block of a replay, whose times of receipt are of this clock; 0 in
    /// any other.
    pub const REPLAY_MS: usize = 94;
    /// Since minor 4: the epoch of the leader of a cluster whose message was applied last; 0 outside a cluster.
    pub const CLUSTER_EPOCH: usize = 95;
    /// Since minor 4: when that message was sent, by the exchange's clock, epoch ms; 0 while it is not known.
    pub const SOURCE_MS: usize = 96;
    /// Since minor 4: how long it was on its way, us.
    pub const LAG_US: usize = 97;
    /// Eight words, since minor 4: host and process of that leader, zero padded; zeroes outside a cluster.
    pub const SOURCE: usize = 98;
}

/// Word offsets in a symbol's entry.
pub mod symbol {
    /// Version of the seqlock; slot `version & 3` is the published one.
    pub const VERSION: usize = 0;
    /// Close of the newest row; NaN while there is none.
    pub const LAST_CLOSE: usize = 1;
    /// Counts rewrites of ring rows.
    pub const REV: usize = 2;
    /// Every row below `overwrite_mark - capacity` may be overwritten.
    pub const WMARK: usize = 3;
    /// Index of the symbol's very first candle; 0 while unknown.
    pub const FIRST_BAR: usize = 4;
    /// Phase of the 3d grid in days.
    pub const PHASE_DAYS: usize = 5;
    /// A `Presence`.
    pub const TRADING: usize = 6;
    /// Since minor 3, two halves in minutes since the epoch, or a kind in the high one: for a continuous contract its
    /// last roll and the delivery of the present contract, for a `TRADIFI_PERPETUAL` the end and the kind of its session.
    pub const CALENDAR: usize = 7;
    /// The first of four seqlock slots.
    pub const SLOTS: usize = 8;
    /// Words of one seqlock slot.
    pub const SLOT_WORDS: usize = 16;
    /// The name, zero padded UTF-8.
    pub const NAME: usize = 72;
}

/// Word offsets in a seqlock slot.
pub mod slot {
    /// First candle index that is not in the ring: the live row's, if there is one.
    pub const HEAD: usize = 0;
    /// `final_start` in the low half, `final` in the high half.
    pub const SOLID_FINAL: usize = 1;
    /// State of the row below in the low half, API revision in the high half.
    pub const STATE_REVISION: usize = 2;
    /// `CLOCK_BOOTTIME` of the newest response, ms.
    pub const RECEIVED_MS: usize = 3;
    /// The newest row.
    pub const ROW: usize = 4;
}

const _: () = {
    assert!(symbol::SLOTS + 4 * symbol::SLOT_WORDS == symbol::NAME);
    assert!(symbol::NAME * 8 + SYMBOL_NAME_BYTES == SYMBOL_BYTES);
    assert!(slot::ROW + 12 == symbol::SLOT_WORDS);
    assert!(header::ZONE > header::BANNED_UNTIL_MS);
    assert!(header::ZONE * 8 + ZONE_NAME_BYTES <= header::EXCHANGE_OFFSET_MS * 8);
    assert!(header::EXCHANGE_OFFSET_MS < header::EXCHANGE);
    assert!(header::EXCHANGE * 8 + EXCHANGE_BYTES <= header::FAILING * 8);
    assert!(header::SOURCE * 8 + SOURCE_BYTES <= PAGE_BYTES);
    // Words that the writer stores often stand on cache lines of their own.
    assert!(header::SYMBOL_COUNT.is_multiple_of(8) && header::COMMIT_SEQ.is_multiple_of(8));
    assert!(header::CLOSE_SEQ.is_multiple_of(8) && header::UNIVERSE_BAR.is_multiple_of(8));
};

/// The interval code of a block whose candles are days of a time zone. It is not one of [`Interval`]'s: a reader that
/// does not know time zones refuses it.
pub const ZONE_DAY_CODE: u32 = 17;

/// The life of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum BlockState {
    /// Being written for the first time.
    Init = 1,
    /// The layout stands.
    Ready = 2,
    /// Another block stands under the name, or will in a moment.
    Superseded = 3,
    /// The collector has ended.
    Closed = 4,
}

impl BlockState {
    /// Returns the state a stored word stands for.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Init),
            2 => Some(Self::Ready),
            3 => Some(Self::Superseded),
            4 => Some(Self::Closed),
            _ => None,
        }
    }

    /// Returns the state as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Ready => "ready",
            Self::Superseded => "superseded",
            Self::Closed => "closed",
        }
    }
}

/// Whether a symbol is there, as stored in its entry. Any other number counts as silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Presence {
    /// Delisted, halted or removed: its rows stay, and no new ones come.
    Ended = 0,
    /// It trades: closes and panels wait for it.
    Trading = 1,
    /// The exchange lists it as trading and gives no new candle of it: nothing waits for it until one comes.
    Silent = 2,
}

/// What a row is worth. Closed and verified differ in bit 0 only: a reader may see one turn into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowState {
    /// Before the first candle.
    Empty = 0,
    /// Not final yet.
    Live = 1,
    /// Final.
    Closed = 2,
    /// Final, and an independent proof agreed.
    Verified = 3,
    /// The exchange confirmed twice that it has no such row.
    Hole = 4,
    /// Not fetched yet.
    Missing = 5,
    /// A rewrite of a final row was begun and not ended: to readers the same as missing.
    MissingFinal = 7,
}

/// A row's tag: candle index (32 bits), version (24), state (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Row versions are `rev` modulo 2^24.
    pub const VERSION_MASK: u64 = 0xFF_FFFF;

    /// Returns the tag of `candle_index` in `state`, written at `rev`.
    #[must_use]
    pub fn new(candle_index: u64, rev: u64, state: RowState) -> Self {
        Self(candle_index << 32 | (rev & Self::VERSION_MASK) << 8 | state as u64)
    }

    /// Returns the index of the candle that the slot holds.
    #[must_use]
    pub fn candle_index(self) -> u64 {
        self.0 >> 32
    }

    /// Returns the version of the row, modulo 2^24.
    #[must_use]
    pub fn version(self) -> u64 {
        self.0 >> 8 & Self::VERSION_MASK
    }

    /// Returns the row's state; a number without a meaning counts as missing.
    #[must_use]
    pub fn state(self) -> RowState {
        match self.0 & 0xFF {
            0 => RowState::Empty,
            1 => RowState::Live,
            2 => RowState::Closed,
            3 => RowState::Verified,
            4 => RowState::Hole,
            7 => RowState::MissingFinal,
            _ => RowState::Missing,
        }
    }

    /// Returns the tag with another state and the same candle index and version.
    #[must_use]
    pub fn with_state(self, state: RowState) -> Self {
        Self(self.0 & !0xFF | state as u64)
    }

    /// Returns whether this is the tag of a closed or verified row of `candle_index`.
    #[must_use]
    pub fn is_final_of(self, candle_index: u64) -> bool {
        self.candle_index() == candle_index && matches!(self.state(), RowState::Closed | RowState::Verified)
    }

    /// Returns whether this is the tag of a row of `candle_index` that readers may see.
    #[must_use]
    pub fn is_readable_of(self, candle_index: u64) -> bool {
        self.candle_index() == candle_index
            && matches!(self.state(), RowState::Live | RowState::Closed | RowState::Verified)
    }

    /// Returns whether `candle_index` needs no more waiting: closed, verified or a hole.
    #[must_use]
    pub fn is_settled_of(self, candle_index: u64) -> bool {
        self.candle_index() == candle_index
            && matches!(self.state(), RowState::Closed | RowState::Verified | RowState::Hole)
    }
}

/// Returns a format as people read it: the ABI numbers, and the first bytes of the layout hash.
fn format_name(major: u32, minor: u32, hash: &[u8]) -> String {
    let first = hash.iter().take(4).fold(0, |number, &byte| number << 8 | u32::from(byte));
    format!("{major}.{minor} ({first:08x})")
}

/// Shape of one series' ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingShape {
    /// Candles of a full window, the live one included.
    pub length: usize,
    /// Slots; row of candle index `b` lies in slot `b % capacity`, and once more `capacity` words further on.
    pub capacity: usize,
}

impl RingShape {
    /// Words from one column to the next.
    #[must_use]
    pub fn column_stride_words(self) -> usize {
        2 * self.capacity + COLUMN_PAD_WORDS
    }

    /// Words of one symbol's tags and columns, rounded up to cache lines.
    #[must_use]
    pub fn data_words(self) -> usize {
        (self.capacity + ROW_WORDS * self.column_stride_words()).next_multiple_of(8)
    }
}

/// Returns bytes as the words in which they lie in a block, the last one padded with zeroes.
pub fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

/// What is added to the code of a market in a block whose prices are not those of trades: a reader that does not know
/// [`header::PRICE`] must not take them for trades, and refuses the code.
const OTHER_PRICES: u64 = 2;

/// Returns the number that a block holds for its market.
#[must_use]
pub fn market_code(market: Market, price: Price) -> u64 {
    u64::from(market.code()) + if price == Price::Trade { 0 } else { OTHER_PRICES }
}

/// Returns the market of such a number.
#[must_use]
pub fn market_of_code(code: u64) -> Option<Market> {
    Market::from_code(code).or_else(|| Market::from_code(code.checked_sub(OTHER_PRICES)?))
}

/// Everything that a block's offsets follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The market whose symbols the block carries.
    pub market: Market,
    /// What their prices are.
    pub price: Price,
    /// Interval of all its candles.
    pub interval: Interval,
    /// The time zone whose days they are, if it is not UTC's intervals.
    pub zone: Option<Zone>,
    /// Shape of each ring.
    pub ring: RingShape,
    /// Places in the symbol table.
    pub symbol_capacity: usize,
}

/// Limits of LENGTH; the symbol limit keeps every offset far from overflow.
pub const LENGTH_RANGE: core::ops::RangeInclusive<usize> = 2..=100_000;
/// Most symbols that one block can carry.
pub const SYMBOL_CAPACITY_MAX: usize = 16_384;

impl Geometry {
    /// Returns the geometry of a new block.
    ///
    /// # Errors
    ///
    /// `Length` and `SymbolCapacity` when a number is out of its range.
    pub fn new(market: Market, interval: Interval, length: usize, symbol_capacity: usize) -> Result<Self, Error> {
        if !LENGTH_RANGE.contains(&length) {
            return Err(Error::Length { length });
        }
        if !(1..=SYMBOL_CAPACITY_MAX).contains(&symbol_capacity) {
            return Err(Error::SymbolCapacity { capacity: symbol_capacity });
        }
        let capacity = (length + CAPACITY_SPARE).next_multiple_of(8);
        Ok(Self {
            market,
            price: Price::Trade,
            interval,
            zone: None,
            ring: RingShape { length, capacity },
            symbol_capacity,
        })
    }

    /// Returns the same geometry for candles of another price.
    #[must_use]
    pub fn with_price(self, price: Price) -> Self {
        Self { price, ..self }
    }

    /// Returns the same geometry for days of a time zone.
    #[must_use]
    pub fn with_zone(self, zone: Option<Zone>) -> Self {
        Self { zone, ..self }
    }

    /// Returns whether both blocks hold candles of the same kind: what one has of a symbol may lie in the other.
    #[must_use]
    pub fn is_of_candles_of(&self, other: &Self) -> bool {
        (self.market, self.price, self.interval, self.zone) == (other.market, other.price, other.interval, other.zone)
    }

    /// Returns the grid of the candles, whose phase for `3d` is each symbol's own.
    #[must_use]
    pub fn grid(&self, phase_days: u64) -> Grid {
        self.zone.map_or_else(|| Grid::with_phase(self.interval, phase_days), Grid::days_in)
    }

    /// Word at which the symbol table begins.
    #[must_use]
    pub fn symbols_offset_words(self) -> usize {
        PAGE_BYTES / 8
    }

    /// Word at which the first symbol's data begin.
    #[must_use]
    pub fn data_offset_words(self) -> usize {
        (PAGE_BYTES + SYMBOL_BYTES * self.symbol_capacity).next_multiple_of(PAGE_BYTES) / 8
    }

    /// Size of the whole block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        (8 * (self.data_offset_words() + self.symbol_capacity * self.ring.data_words())).next_multiple_of(PAGE_BYTES)
    }

    /// The header words that follow from the geometry, as (offset, value): written at creation, compared at opening.
    fn words(self) -> [(usize, u64); 12] {
        [
            (header::BLOCK_BYTES, self.block_bytes() as u64),
            (header::MARKET, market_code(self.market, self.price)),
            (header::PRICE, u64::from(self.price.code())),
            (header::INTERVAL, u64::from(self.zone.map_or(self.interval.code(), |_| ZONE_DAY_CODE))),
            (header::LENGTH, self.ring.length as u64),
            (header::CAPACITY, self.ring.capacity as u64),
            (header::SYMBOL_CAPACITY, self.symbol_capacity as u64),
            (header::SYMBOLS_OFFSET, 8 * self.symbols_offset_words() as u64),
            (header::DATA_OFFSET, 8 * self.data_offset_words() as u64),
            (header::SYMBOL_STRIDE, SYMBOL_BYTES as u64),
            (header::DATA_STRIDE, 8 * self.ring.data_words() as u64),
            (header::COLUMN_STRIDE, 8 * self.ring.column_stride_words() as u64),
        ]
    }

    /// Writes the identity and the geometry into a new block's header.
    pub fn store(self, words: &[AtomicU64]) {
        use crate::sync::Ordering::Relaxed;
        words[header::MAGIC].store(MAGIC, Relaxed);
        words[header::ABI].store(ABI, Relaxed);
        for (word, value) in words[header::LAYOUT_HASH..].iter().zip(words_of(&LAYOUT_HASH)) {
            word.store(value, Relaxed);
        }
        for (offset, value) in self.words() {
            words[offset].store(value, Relaxed);
        }
        for (word, value) in words[header::ZONE..].iter().zip(words_of(self.zone.map_or("", Zone::name).as_bytes())) {
            word.store(value, Relaxed);
        }
    }

    /// Reads a header and checks that it is ours, of this format, and that every offset follows from the geometry.
    ///
    /// After this no offset taken from the block is ever used: they are all computed from the returned geometry, which
    /// was compared with the mapped size.
    ///
    /// # Errors
    ///
    /// `Incompatible` for another ABI or layout, `Corrupt` for anything else.
    pub fn load(name: &str, words: &[AtomicU64]) -> Result<Self, Error> {
        use crate::sync::Ordering::Relaxed;
        let corrupt = |what| Error::Corrupt { name: name.into(), what };
        let word = |offset: usize| words[offset].load(Relaxed);
        if words.len() < PAGE_BYTES / 8 {
            return Err(corrupt(Corruption::Truncated { bytes: words.len() * 8 }));
        }
        if word(header::MAGIC) != MAGIC {
            return Err(corrupt(Corruption::Foreign));
        }
        let (major, minor) = (word(header::ABI) as u32, (word(header::ABI) >> 32) as u32);
        let hash: Vec<u8> = (0..4).flat_map(|i| word(header::LAYOUT_HASH + i).to_le_bytes()).collect();
        if major != ABI_MAJOR || hash != LAYOUT_HASH {
            return Err(Error::Incompatible {
                name: name.into(),
                found: format_name(major, minor, &hash),
                expected: format_name(ABI_MAJOR, ABI_MINOR, &LAYOUT_HASH),
            });
        }
        let field = |field, offset: usize| corrupt(Corruption::Field { field, value: word(offset) });
        let market = market_of_code(word(header::MARKET)).ok_or_else(|| field("market", header::MARKET))?;
        let price = Price::from_code(word(header::PRICE)).ok_or_else(|| field("price", header::PRICE))?;
        let zone = if word(header::INTERVAL) == u64::from(ZONE_DAY_CODE) {
            let bytes: Vec<u8> = (0..ZONE_NAME_BYTES / 8).flat_map(|i| word(header::ZONE + i).to_le_bytes()).collect();
            let name = String::from_utf8_lossy(&bytes);
            Some(Zone::find(name.trim_end_matches('\0')).ok_or_else(|| field("time zone", header::ZONE))?)
        } else {
            None
        };
        let interval = match zone {
            Some(_) => Some(Interval::Day1),
            None => u32::try_from(word(header::INTERVAL)).ok().and_then(Interval::from_code),
        };
        let interval = interval.ok_or_else(|| field("interval", header::INTERVAL))?;
        let length = usize::try_from(word(header::LENGTH)).unwrap_or(usize::MAX);
        let symbol_capacity = usize::try_from(word(header::SYMBOL_CAPACITY)).unwrap_or(usize::MAX);
        let geometry = Self::new(market, interval, length, symbol_capacity).map_err(|error| match error {
            Error::Length { .. } => field("length", header::LENGTH),
            _ => field("symbol capacity", header::SYMBOL_CAPACITY),
        })?;
        let geometry = geometry.with_zone(zone).with_price(price);
        if let Some((offset, _)) = geometry.words().into_iter().find(|&(offset, value)| word(offset) != value) {
            return Err(field("a size or offset", offset));
        }
        if words.len() * 8 != geometry.block_bytes() {
            return Err(corrupt(Corruption::Truncated { bytes: words.len() * 8 }));
        }
        if word(header::SYMBOL_COUNT) > symbol_capacity as u64 {
            return Err(field("symbol count", header::SYMBOL_COUNT));
        }
        Ok(geometry)
    }
}
