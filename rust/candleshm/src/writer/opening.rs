//! How a block comes to its owner: created, taken over from a dead one, put in the place of a dead one's.

use std::collections::HashMap;

use super::mirrored::Mirrored;
use super::replacing::supersede;
use super::{Config, Health, News, Owner, Series, Writer, check_symbol};
use crate::block::Block;
use crate::error::Error;
use crate::interval::Grid;
use crate::layout::{ABI, BlockState, EXCHANGE_BYTES, Geometry, Presence, header, symbol};
use crate::publish::SeriesWriter;
use crate::shared_memory::{self, BlockFile};
use crate::soundness::is_sound;
use crate::succession::fits;
use crate::sync::Ordering::Relaxed;

/// How often opening starts again because somebody else created or replaced the block meanwhile.
const OPEN_ATTEMPTS_MAX: usize = 16;

impl Writer {
    /// Creates the block, takes over one that a dead collector left with the same shape, or replaces one of another
    /// shape, or a damaged one: readers of that one see it superseded and follow. Rows of the same candles come along,
    /// unless the block is damaged.
    ///
    /// # Errors
    ///
    /// `InUse` when a live collector owns it; `Name`, `Length`, `SymbolCapacity`, `SymbolName`; `Corrupt` and
    /// `Incompatible` when something else has the name; `Os`.
    pub fn open(name: &str, config: &Config, owner: Owner) -> Result<Self, Error> {
        Self::open_on(Grid::new(config.interval), name, config, owner, 0)
    }

    /// As [`Self::open`], for the candles of a grid of `config.interval`; in a block of a replay whose clock shows
    /// `replay_ms`, unless that is 0. Neither kind takes over, or takes rows from, what the other kind left.
    pub(super) fn open_on(
        grid: Grid,
        name: &str,
        config: &Config,
        owner: Owner,
        replay_ms: u64,
    ) -> Result<Self, Error> {
        shared_memory::check_name(name)?;
        for symbol in &config.symbols {
            check_symbol(symbol)?;
        }
        let geometry =
            Geometry::new(config.market, config.interval, config.length, config.symbols.len() + config.spare_symbols)?
                .with_zone(grid.zone())
                .with_price(config.price);
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let old = match BlockFile::open(name, true) {
                Ok(old) => old,
                Err(Error::NotFound { .. }) => {
                    let created = Self::create(name, geometry, config, owner, 1, None, replay_ms)?;
                    if created.file.link()? {
                        return Ok(created);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            old.lock()?;
            // Between opening and locking the name may have moved on to another block.
            if !old.is_named()? {
                continue;
            }
            let generation = match Block::check(name, old.map(true)?) {
                Ok(block) if replay_ms != 0 && block.value(header::REPLAY_MS) == 0 => {
                    return Err(Error::Argument(format!(
                        "a replay cannot take the name of the block that a collector left; choose another name, or \
                         `candleshm rm` the block: `{}`",
                        block.name()
                    )));
                }
                Ok(block) if replay_ms == 0 && may_take_over(&block, &geometry, config, owner) => {
                    old.share()?;
                    return Self::take_over(block, old, config, owner);
                }
                Ok(block) => {
                    let generation = block.value(header::GENERATION) + 1;
                    let is_kept =
                        replay_ms == 0 && fits(&block, &geometry, owner.boot_id) && may_be_of(&block, &config.exchange);
                    let kept = is_kept.then_some(&block);
                    let created = Self::create(name, geometry, config, owner, generation, kept, replay_ms)?;
                    supersede(&block, || created.file.link_over().map(|()| true))?;
                    return Ok(created);
                }
                Err(Error::NotReady { .. }) => 1,
                Err(error) => return Err(error),
            };
            let created = Self::create(name, geometry, config, owner, generation, None, replay_ms)?;
            created.file.link_over()?;
            return Ok(created);
        }
        Err(Error::InUse { name: name.into(), pid: 0 })
    }

    /// Creates a block that has no name yet, with the rows of `old` in it where there is one.
    pub(super) fn create(
        name: &str,
        geometry: Geometry,
        config: &Config,
        owner: Owner,
        generation: u64,
        old: Option<&Block>,
        replay_ms: u64,
    ) -> Result<Self, Error> {
        let file = BlockFile::create_unnamed(name, geometry.block_bytes())?;
        let block = Block::create(name, file.map(true)?, geometry);
        block.header(header::STATE).store(BlockState::Init as u64, Relaxed);
        block.header(header::GENERATION).store(generation, Relaxed);
        block.header(header::REPLAY_MS).store(replay_ms, Relaxed);
        let mut writer = Self {
            block,
            file,
            series: Vec::new(),
            index: HashMap::new(),
            taken_over: false,
            carried_rows: 0,
            behind: 0,
            universe_bar: 0,
            news: News::None,
            derived: Vec::new(),
            mirrored: Mirrored::default(),
        };
        writer.sign(owner);
        writer.block.set_exchange(&config.exchange);
        for symbol in &config.symbols {
            writer.add_symbol(symbol)?;
        }
        if let Some(old) = old {
            writer.carry(old);
        }
        writer.block.enter(BlockState::Ready);
        Ok(writer)
    }

    fn take_over(block: Block, file: BlockFile, config: &Config, owner: Owner) -> Result<Self, Error> {
        let mut writer = Self {
            block,
            file,
            series: Vec::new(),
            index: HashMap::new(),
            taken_over: true,
            carried_rows: 0,
            behind: 0,
            universe_bar: 0,
            news: News::None,
            derived: Vec::new(),
            mirrored: Mirrored::default(),
        };
        writer.universe_bar = writer.block.value(header::UNIVERSE_BAR);
        writer.sign(owner);
        if !config.exchange.is_empty() {
            writer.block.set_exchange(&config.exchange);
        }
        writer.set_health(&Health::default());
        // Where the rows come from, its new owner says.
        writer.set_source(0, "", 0, 0);
        writer.block.header(header::MISSING).store(0, Relaxed);
        writer.block.header(header::HOLES).store(0, Relaxed);
        for index in 0..writer.block.symbol_count() {
            let mut series = Series::new();
            SeriesWriter::new(writer.block.series(index), &mut series.state).recover();
            series.find_newest_settled(&writer.block, index);
            writer.count_gaps((0, 0), series.state.shown_gaps(writer.block.series(index)));
            writer.index.insert(writer.block.symbol(index), index);
            writer.block.entry(index)[symbol::TRADING].store(Presence::Trading as u64, Relaxed);
            writer.series.push(series);
        }
        for symbol in
            config.symbols.iter().filter(|symbol| !writer.index.contains_key(*symbol)).cloned().collect::<Vec<_>>()
        {
            writer.add_symbol(&symbol)?;
        }
        writer.settle_universe();
        Ok(writer)
    }

    fn sign(&self, owner: Owner) {
        self.block.header(header::BOOT_ID).store(owner.boot_id[0], Relaxed);
        self.block.header(header::BOOT_ID + 1).store(owner.boot_id[1], Relaxed);
        self.block.header(header::PID).store(owner.pid, Relaxed);
        self.block.header(header::PID_START).store(owner.pid_start, Relaxed);
        self.heartbeat(owner.now_ns);
    }
}

/// Whether the rows of a block may be those of an exchange: candles of another one must not get among them.
fn may_be_of(block: &Block, exchange: &str) -> bool {
    let there = block.exchange();
    there.is_empty() || exchange.is_empty() || there == exchange[..exchange.floor_char_boundary(EXCHANGE_BYTES)]
}

/// Whether a block left by a dead owner can go on as it is.
fn may_take_over(block: &Block, geometry: &Geometry, config: &Config, owner: Owner) -> bool {
    let there = block.geometry();
    let same_shape = there.is_of_candles_of(geometry)
        && there.ring == geometry.ring
        && there.symbol_capacity >= config.symbols.len();
    let wanted: std::collections::HashSet<&str> = config.symbols.iter().map(String::as_str).collect();
    same_shape
        // Readers may ignore what a later minor added; a writer would have to keep it true.
        && block.value(header::ABI) == ABI
        && block.value(header::REPLAY_MS) == 0
        && block.state() == Some(BlockState::Ready)
        && block.boot_id() == owner.boot_id
        && may_be_of(block, &config.exchange)
        && (0..block.symbol_count()).all(|index| wanted.contains(block.symbol(index).as_str()))
        && is_sound(block)
}
