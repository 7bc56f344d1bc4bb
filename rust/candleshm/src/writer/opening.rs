//! How a block comes to its owner: created, taken over from a dead one, put in the place of another.

use std::collections::HashMap;

use super::{Config, Health, News, Owner, Series, Writer, check_symbol, tell};
use crate::block::Block;
use crate::error::Error;
use crate::interval::Grid;
use crate::layout::{ABI, BlockState, Geometry, Presence, header, symbol};
use crate::publish::SeriesWriter;
use crate::segment::{self, SegmentFile};
use crate::soundness::is_sound;
use crate::sync::Ordering::{Relaxed, Release};

/// How often opening starts again because somebody else created or replaced the block meanwhile.
const OPEN_ATTEMPTS_MAX: usize = 16;

impl Writer {
    /// Creates the block, takes over one that a dead collector left with the same shape, or replaces one of another
    /// shape, or a damaged one: readers of that one see it superseded and follow.
    ///
    /// # Errors
    ///
    /// `InUse` when a live collector owns it; `Name`, `Length`, `SymbolCapacity`, `SymbolName`; `Corrupt` and
    /// `Incompatible` when something else has the name; `Os`.
    pub fn open(name: &str, config: &Config, owner: Owner) -> Result<Self, Error> {
        Self::open_on(Grid::new(config.interval), name, config, owner)
    }

    /// As [`Self::open`], for the candles of a grid of `config.interval`.
    pub(super) fn open_on(grid: Grid, name: &str, config: &Config, owner: Owner) -> Result<Self, Error> {
        segment::check_name(name)?;
        for symbol in &config.symbols {
            check_symbol(symbol)?;
        }
        let geometry =
            Geometry::new(config.market, config.interval, config.length, config.symbols.len() + config.spare_symbols)?
                .with_zone(grid.zone());
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let old = match SegmentFile::open(name, true) {
                Ok(old) => old,
                Err(Error::NotFound { .. }) => {
                    let created = Self::create(name, geometry, config, owner, 1)?;
                    if created.file.link()? {
                        return Ok(created);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !old.try_lock()? {
                let pid = old.map(false).map_or(0, |words| words[header::PID].load(Relaxed));
                return Err(Error::InUse { name: name.into(), pid });
            }
            // Between opening and locking the name may have moved on to another block.
            if !old.is_named()? {
                continue;
            }
            let generation = match Block::check(name, old.map(true)?) {
                Ok(block) if adoptable(&block, &geometry, config, owner) => {
                    return Self::take_over(block, old, config, owner);
                }
                Ok(block) => {
                    let created = Self::create(name, geometry, config, owner, block.value(header::GENERATION) + 1)?;
                    created.supersede(&block)?;
                    return Ok(created);
                }
                Err(Error::NotReady { .. }) => 1,
                Err(error) => return Err(error),
            };
            let created = Self::create(name, geometry, config, owner, generation)?;
            created.file.link_over()?;
            return Ok(created);
        }
        Err(Error::InUse { name: name.into(), pid: 0 })
    }

    fn create(name: &str, geometry: Geometry, config: &Config, owner: Owner, generation: u64) -> Result<Self, Error> {
        let file = SegmentFile::create_unnamed(name, geometry.block_bytes())?;
        let block = Block::create(name, file.map(true)?, geometry);
        block.header(header::STATE).store(BlockState::Init as u64, Relaxed);
        block.header(header::GENERATION).store(generation, Relaxed);
        let mut writer = Self {
            block,
            file,
            series: Vec::new(),
            index: HashMap::new(),
            taken_over: false,
            behind: 0,
            universe_bar: 0,
            news: News::None,
            derived: Vec::new(),
        };
        writer.sign(owner);
        for symbol in &config.symbols {
            writer.add_symbol(symbol)?;
        }
        // SYNC POINT ready: everything above is visible to whoever sees this.
        writer.block.header(header::STATE).store(BlockState::Ready as u64, Release);
        Ok(writer)
    }

    /// Puts a block for `symbols`, which begin with those of this one, with as many spare places, in the place of this
    /// one; readers see this one superseded and follow. The rows stay behind. The new memory is taken first, so without
    /// room for both blocks nothing has changed. Derived blocks are enlarged along with it.
    ///
    /// # Errors
    ///
    /// `NoMemory`, `SymbolCapacity`, `SymbolName`, `Os`: this writer goes on as it was.
    pub fn enlarge(&mut self, symbols: Vec<String>, spare_symbols: usize, owner: Owner) -> Result<(), Error> {
        for symbol in &symbols {
            check_symbol(symbol)?;
        }
        let old = *self.block.geometry();
        let geometry = Geometry::new(old.market, old.interval, old.ring.length, symbols.len() + spare_symbols)?
            .with_zone(old.zone);
        let config =
            Config { market: old.market, interval: old.interval, length: old.ring.length, symbols, spare_symbols };
        let generation = self.block.value(header::GENERATION) + 1;
        let created = Self::create(self.block.name(), geometry, &config, owner, generation)?;
        for place in 0..self.derived.len() {
            if let Err(error) = self.derived[place].enlarge(&config, owner) {
                // Those that were enlarged before it have lost their rows.
                self.catch_up_derived();
                return Err(error);
            }
        }
        if let Err(error) = created.supersede(&self.block) {
            self.catch_up_derived();
            return Err(error);
        }
        let derived = std::mem::take(&mut self.derived);
        *self = Self { derived, ..created };
        Ok(())
    }

    /// Takes the name from `old`. The new block is ready, then the old one says so, then the name moves: a reader that
    /// finds the old one superseded and still under the name keeps reading it and looks again.
    fn supersede(&self, old: &Block) -> Result<(), Error> {
        let state = old.header(header::STATE);
        let before = state.load(Relaxed);
        state.store(BlockState::Superseded as u64, Release);
        if let Err(error) = self.file.link_over() {
            // Nobody is to look for a successor that did not come.
            state.store(before, Release);
            return Err(error);
        }
        tell(old, true);
        Ok(())
    }

    fn take_over(block: Block, file: SegmentFile, config: &Config, owner: Owner) -> Result<Self, Error> {
        let mut writer = Self {
            block,
            file,
            series: Vec::new(),
            index: HashMap::new(),
            taken_over: true,
            behind: 0,
            universe_bar: 0,
            news: News::None,
            derived: Vec::new(),
        };
        writer.universe_bar = writer.block.value(header::UNIVERSE_BAR);
        writer.sign(owner);
        writer.set_health(&Health::default());
        writer.block.header(header::MISSING).store(0, Relaxed);
        writer.block.header(header::HOLES).store(0, Relaxed);
        for index in 0..writer.block.symbol_count() {
            let mut series = Series::new();
            SeriesWriter::new(writer.block.series(index), &mut series.state).recover();
            series.find_newest_settled(&writer.block, index);
            writer.count_gaps((0, 0), (series.state.missing, series.state.holes));
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

/// Whether a block left by a dead owner can go on as it is.
fn adoptable(block: &Block, geometry: &Geometry, config: &Config, owner: Owner) -> bool {
    let there = block.geometry();
    let same_shape = there.market == geometry.market
        && there.interval == geometry.interval
        && there.zone == geometry.zone
        && there.ring == geometry.ring
        && there.symbol_capacity >= config.symbols.len();
    let wanted: std::collections::HashSet<&str> = config.symbols.iter().map(String::as_str).collect();
    same_shape
        // Readers may ignore what a later minor added; whoever writes would have to keep it true.
        && block.value(header::ABI) == ABI
        && block.state() == Some(BlockState::Ready)
        && block.boot_id() == owner.boot_id
        && (0..block.symbol_count()).all(|index| wanted.contains(block.symbol(index).as_str()))
        && is_sound(block)
}
