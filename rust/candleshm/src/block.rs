//! A mapped block whose header was checked: where everything in it lies.

use crate::announce;
use crate::error::Error;
use crate::interval::Grid;
use crate::layout::{
    BlockState, EXCHANGE_BYTES, Geometry, Presence, SOURCE_BYTES, SYMBOL_BYTES, header, symbol, words_of,
};
use crate::ring::SeriesWords;
use crate::shared_memory::{self, BlockFile, FileId, Mapping};
use crate::symbols;
use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// A block, open for reading or writing. Every offset used is computed from a geometry that was compared with the
/// mapped size; nothing read from the block is used as an offset.
#[derive(Debug)]
pub struct Block {
    name: String,
    mapping: Mapping,
    geometry: Geometry,
}

impl Block {
    /// Opens the block of that name for reading, and returns the id of its file. `boot_id` is the kernel's.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotReady`, `Leftover` (from before the last boot), `Incompatible`, `Corrupt`, `Name`, `Os`.
    pub fn open_with_id(name: &str, boot_id: [u64; 2]) -> Result<(Self, FileId), Error> {
        let file = BlockFile::open(name, false)?;
        let block = Self::check(name, file.map(false)?)?;
        if block.boot_id() != boot_id {
            return Err(Error::Leftover { name: name.into() });
        }
        Ok((block, file.id()?))
    }

    /// As [`Self::open_with_id`], for readers that do not follow the name.
    ///
    /// # Errors
    ///
    /// As [`Self::open_with_id`].
    pub fn open(name: &str, boot_id: [u64; 2]) -> Result<Self, Error> {
        Self::open_with_id(name, boot_id).map(|(block, _)| block)
    }

    /// As [`Self::open`], to write into it: only for its owner.
    pub(crate) fn open_to_write(name: &str, boot_id: [u64; 2]) -> Result<Self, Error> {
        let block = Self::check(name, BlockFile::open(name, true)?.map(true)?)?;
        if block.boot_id() != boot_id {
            return Err(Error::Leftover { name: name.into() });
        }
        Ok(block)
    }

    /// Checks the header of a mapping.
    pub(crate) fn check(name: &str, mapping: Mapping) -> Result<Self, Error> {
        let geometry = Geometry::load(name, &mapping)?;
        let block = Self { name: name.into(), mapping, geometry };
        match block.state() {
            Some(BlockState::Init) | None => Err(Error::NotReady { name: name.into() }),
            Some(_) => Ok(block),
        }
    }

    /// A block that is being created: the geometry is the caller's.
    pub(crate) fn create(name: &str, mapping: Mapping, geometry: Geometry) -> Self {
        geometry.store(&mapping);
        Self { name: name.into(), mapping, geometry }
    }

    /// Returns the name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns a word of the header.
    #[inline]
    #[must_use]
    pub fn header(&self, offset: usize) -> &AtomicU64 {
        &self.mapping[offset]
    }

    /// Returns the value of a word of the header, relaxed.
    #[inline]
    #[must_use]
    pub fn value(&self, offset: usize) -> u64 {
        self.mapping[offset].load(Relaxed)
    }

    /// Returns where the block is in its life. Everything stored before a state was is visible afterwards.
    #[inline]
    #[must_use]
    pub fn state(&self) -> Option<BlockState> {
        let word = self.value(header::STATE);
        // SYNC POINT ready: pairs with the release store of the state.
        fence(Acquire);
        BlockState::from_word(word)
    }

    /// Lets the block enter a state of its life: readers that see it see everything that was stored before. Only for
    /// its owner.
    pub(crate) fn enter(&self, state: BlockState) {
        // SYNC POINT ready: pairs with the fence in `state`.
        self.header(header::STATE).store(state as u64, Release);
    }

    /// Wakes all that wait for news or for a close. Only the owner calls this.
    pub(crate) fn tell(&self, closed: bool) {
        self.announce_news(closed);
        self.wake(closed);
    }

    /// Announces that there is news, or a close as well, and wakes nobody. Only the owner calls this.
    pub(crate) fn announce_news(&self, closed: bool) {
        announce::count_up(self.header(header::COMMIT_SEQ));
        if closed {
            announce::count_up(self.header(header::CLOSE_SEQ));
        }
    }

    /// Wakes all that wait for what was announced.
    pub(crate) fn wake(&self, closed: bool) {
        shared_memory::futex_wake(self.header(header::COMMIT_SEQ));
        if closed {
            shared_memory::futex_wake(self.header(header::CLOSE_SEQ));
        }
    }

    /// Returns a word of the header that announces something: `commit_seq`, `close_seq`, `ready`, `universe_bar`. What
    /// was published before it is visible afterwards.
    #[must_use]
    pub fn announced(&self, offset: usize) -> u64 {
        announce::load(self.header(offset))
    }

    /// Announces a value in a word of the header. Only for its owner.
    pub(crate) fn announce(&self, offset: usize, value: u64) {
        announce::store(self.header(offset), value);
    }

    /// Returns the boot id of the kernel under which the block was written.
    #[must_use]
    pub fn boot_id(&self) -> [u64; 2] {
        [self.value(header::BOOT_ID), self.value(header::BOOT_ID + 1)]
    }

    /// Returns the exchange's clock (epoch ms) minus `CLOCK_BOOTTIME` in ms, as the owner measured it last.
    #[must_use]
    pub fn exchange_offset_ms(&self) -> Option<i64> {
        Some(self.value(header::EXCHANGE_OFFSET_MS) as i64).filter(|&offset_ms| offset_ms != 0)
    }

    /// Returns the replayed time, epoch ms, in a block of a replay: the clock of its times of receipt.
    #[inline]
    #[must_use]
    pub fn replay_ms(&self) -> Option<u64> {
        Some(self.value(header::REPLAY_MS)).filter(|&replay_ms| replay_ms != 0)
    }

    /// Returns whose candles these are; empty where it is not known.
    #[must_use]
    pub fn exchange(&self) -> String {
        self.text(header::EXCHANGE, EXCHANGE_BYTES)
    }

    /// Stores whose candles these are.
    pub fn set_exchange(&self, name: &str) {
        self.set_text(header::EXCHANGE, EXCHANGE_BYTES, name);
    }

    /// Returns host and process of the leader that the candles come from; empty outside a cluster.
    #[must_use]
    pub fn source(&self) -> String {
        self.text(header::SOURCE, SOURCE_BYTES)
    }

    /// Stores host and process of the leader that the candles come from.
    #[cfg(feature = "collector")]
    pub(crate) fn set_source(&self, source: &str) {
        self.set_text(header::SOURCE, SOURCE_BYTES, source);
    }

    fn text(&self, from: usize, bytes: usize) -> String {
        let bytes: Vec<u8> = (from..from + bytes / 8).flat_map(|word| self.value(word).to_le_bytes()).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    fn set_text(&self, from: usize, bytes: usize, text: &str) {
        let text = &text[..text.floor_char_boundary(bytes)];
        let words = words_of(text.as_bytes()).chain(std::iter::repeat(0));
        for (word, value) in (from..from + bytes / 8).zip(words) {
            self.header(word).store(value, Relaxed);
        }
    }

    /// Returns how many symbols are in use; all of them are wholly visible afterwards.
    #[must_use]
    pub fn symbol_count(&self) -> usize {
        let count = symbols::count(self.header(header::SYMBOL_COUNT));
        (count as usize).min(self.geometry.symbol_capacity)
    }

    /// Returns the name of a symbol; what is not UTF-8 is replaced.
    #[must_use]
    pub fn symbol(&self, index: usize) -> String {
        symbols::name(self.entry(index))
    }

    /// Returns the grid of a symbol's candles.
    #[must_use]
    pub fn grid(&self, index: usize) -> Grid {
        self.geometry.grid(self.entry(index)[symbol::PHASE_DAYS].load(Relaxed))
    }

    /// Returns whether a symbol trades and gives candles, so that closes and panels wait for it.
    #[must_use]
    pub fn is_trading(&self, index: usize) -> bool {
        self.entry(index)[symbol::TRADING].load(Relaxed) == Presence::Trading as u64
    }

    /// Returns whether the trading of a symbol has ended.
    #[must_use]
    pub fn has_ended(&self, index: usize) -> bool {
        self.entry(index)[symbol::TRADING].load(Relaxed) == Presence::Ended as u64
    }

    /// Returns the calendar of a symbol, 0 while it has none: see [`symbol::CALENDAR`].
    #[must_use]
    pub fn calendar(&self, index: usize) -> u64 {
        self.entry(index)[symbol::CALENDAR].load(Relaxed)
    }

    /// Returns the words of a series.
    ///
    /// # Panics
    ///
    /// When `index` is not below the symbol capacity.
    #[inline]
    #[must_use]
    pub fn series(&self, index: usize) -> SeriesWords<'_> {
        assert!(index < self.geometry.symbol_capacity);
        let words = self.geometry.ring.data_words();
        let from = self.geometry.data_offset_words() + index * words;
        SeriesWords { entry: self.entry(index), data: &self.mapping[from..from + words], ring: self.geometry.ring }
    }

    /// Returns a symbol's entry.
    ///
    /// # Panics
    ///
    /// When `index` is not below the symbol capacity.
    #[inline]
    #[must_use]
    pub fn entry(&self, index: usize) -> &[AtomicU64] {
        assert!(index < self.geometry.symbol_capacity);
        let from = self.geometry.symbols_offset_words() + index * SYMBOL_BYTES / 8;
        &self.mapping[from..from + SYMBOL_BYTES / 8]
    }
}
