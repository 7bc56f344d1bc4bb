//! How a block takes the place of another without a row lost: of its own owner, enlarged or put back under a name that
//! somebody removed, or of a dead one of another shape.

use super::{Config, Owner, Series, Writer, check_symbol};
use crate::block::Block;
use crate::error::Error;
use crate::layout::{BlockState, Geometry, header, symbol};
use crate::publish::SeriesWriter;
use crate::shared_memory::BlockFile;
use crate::succession::places;
use crate::sync::Ordering::Relaxed;

/// How often to start again because the name went to another block meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// Words of the header that a block of the same owner starts with.
const KEPT: [usize; 12] = [
    header::READY,
    header::WEIGHT_USED,
    header::WEIGHT_LIMIT,
    header::BANNED_UNTIL_MS,
    header::EXCHANGE_OFFSET_MS,
    header::FAILING,
    header::POLLED,
    header::LAST_ERROR,
    header::LAST_ERROR_MS,
    header::CLUSTER_EPOCH,
    header::SOURCE_MS,
    header::LAG_US,
];

impl Writer {
    /// Puts a block for `symbols`, which begin with those of this one, with as many spare places, in the place of this
    /// one; readers see this one superseded and follow. The rows come along. The new memory is taken first, so without
    /// room for both blocks this one stays. Derived blocks are enlarged before it.
    ///
    /// # Errors
    ///
    /// `NoMemory`, `SymbolCapacity`, `SymbolName`, `Os`: this writer goes on as it was. `InUse` when the name was
    /// removed and another collector has taken it.
    pub fn enlarge(&mut self, symbols: &[String], spare_symbols: usize, owner: Owner) -> Result<(), Error> {
        for symbol in symbols {
            check_symbol(symbol)?;
        }
        let symbol_capacity = symbols.len() + spare_symbols;
        for derived in &mut self.derived {
            derived.writer_mut().replace(symbol_capacity, owner)?;
        }
        self.replace(symbol_capacity, owner)?;
        symbols.iter().try_for_each(|symbol| self.add_symbol(symbol))
    }

    /// Looks whether the block and those derived from it still stand under their names, and puts a new block there,
    /// with the same rows, for one that does not: new readers find it, and readers of the old one follow. Returns what
    /// became of each that did not stand there.
    ///
    /// The errors are `InUse` when another collector has taken the name; `Corrupt` and `Owner` when a file, a link or a
    /// directory stands there that is not ours to remove; `NoMemory`, `Os`. The block stays as it was.
    pub fn keep_names(&mut self, owner: Owner) -> Vec<(String, Result<(), Error>)> {
        let mut outcomes = Vec::new();
        self.keep_name(owner, &mut outcomes);
        for derived in &mut self.derived {
            derived.writer_mut().keep_name(owner, &mut outcomes);
        }
        outcomes
    }

    fn keep_name(&mut self, owner: Owner, outcomes: &mut Vec<(String, Result<(), Error>)>) {
        let outcome = match self.file.is_named() {
            Ok(true) => return,
            Ok(false) => self.replace(self.block.geometry().symbol_capacity, owner),
            Err(error) => Err(error),
        };
        outcomes.push((self.block.name().to_owned(), outcome));
    }

    /// Puts a block with that many places, and the same rows, in the place of this one.
    fn replace(&mut self, symbol_capacity: usize, owner: Owner) -> Result<(), Error> {
        // Nothing is built, and no memory taken, for a name that another one keeps.
        self.rival()?;
        let old = *self.block.geometry();
        let geometry = Geometry::new(old.market, old.interval, old.ring.length, symbol_capacity)?
            .with_zone(old.zone)
            .with_price(old.price);
        let config = Config {
            market: old.market,
            price: old.price,
            interval: old.interval,
            length: old.ring.length,
            symbols: (0..self.series.len()).map(|index| self.block.symbol(index)).collect(),
            spare_symbols: 0,
            exchange: self.block.exchange(),
        };
        let generation = self.block.value(header::GENERATION) + 1;
        let mut created = Self::create(self.block.name(), geometry, &config, owner, generation, Some(&self.block), 0)?;
        created.block.set_source(&self.block.source());
        for word in KEPT {
            created.block.announce(word, self.block.value(word));
        }
        for (index, series) in self.series.iter().enumerate() {
            created.block.entry(index)[symbol::TRADING].store(series.presence as u64, Relaxed);
            created.series[index].presence = series.presence;
        }
        // What every series had final it still has.
        created.universe_bar = self.universe_bar;
        created.block.announce(header::UNIVERSE_BAR, self.universe_bar);
        created.settle_universe();
        created.take_name_of(self)?;
        for (series, known) in created.series.iter_mut().zip(std::mem::take(&mut self.series)) {
            // What is known from responses and events stays known.
            let state = std::mem::replace(&mut series.state, known.state.clone());
            *series = Series { state, newest_settled: series.newest_settled, ..known };
        }
        let derived = std::mem::take(&mut self.derived);
        let (taken_over, carried_rows) = (self.taken_over, self.carried_rows);
        let mut mirrored = std::mem::take(&mut self.mirrored);
        mirrored.look_anew();
        *self = Self { derived, taken_over, carried_rows, news: self.news, mirrored, ..created };
        Ok(())
    }

    /// Fills the series of a block that nobody can see yet with the rows of `old`.
    pub(super) fn carry(&mut self, old: &Block) {
        let places = places(old);
        for index in 0..self.series.len() {
            let Some(&place) = places.get(&self.block.symbol(index)) else { continue };
            let (from, words) = (old.series(place), self.block.series(index));
            for word in [symbol::PHASE_DAYS, symbol::CALENDAR] {
                words.entry[word].store(from.entry[word].load(Relaxed), Relaxed);
            }
            let mut series = Series::new();
            SeriesWriter::new(words, &mut series.state).carry(from);
            series.find_newest_settled(&self.block, index);
            let state = &series.state;
            let slots = (state.marks.head - state.window_start(words.ring.length)) as usize;
            self.carried_rows += slots - state.missing - state.holes + usize::from(state.marks.has_live());
            self.count_gaps((0, 0), state.shown_gaps(words));
            self.series[index] = series;
        }
        self.settle_universe();
    }

    /// Gives this block, which has no name yet, the name of `old`, this owner's own.
    fn take_name_of(&self, old: &Self) -> Result<(), Error> {
        for _ in 0..ATTEMPTS_MAX {
            let rival = old.rival()?;
            let linked = supersede(&old.block, || match rival {
                Rival::Nothing => self.file.link(),
                Rival::None | Rival::Leftover(_) => self.file.link_over().map(|()| true),
            })?;
            if linked {
                if let Rival::Leftover(file) = rival
                    && let Ok(block) = file.map(true).and_then(|words| Block::check(old.block.name(), words))
                {
                    block.enter(BlockState::Superseded);
                    block.tell(true);
                }
                return Ok(());
            }
        }
        Err(Error::InUse { name: old.block.name().into(), pid: 0 })
    }

    /// Returns what stands under the block's name instead of the block.
    fn rival(&self) -> Result<Rival, Error> {
        for _ in 0..ATTEMPTS_MAX {
            if self.file.is_named()? {
                return Ok(Rival::None);
            }
            let file = match BlockFile::open(self.block.name(), true) {
                Ok(file) => file,
                Err(Error::NotFound { .. }) => return Ok(Rival::Nothing),
                Err(error) => return Err(error),
            };
            file.check_magic()?;
            file.lock()?;
            if file.is_named()? {
                return Ok(Rival::Leftover(file));
            }
        }
        Err(Error::InUse { name: self.block.name().into(), pid: 0 })
    }
}

/// Lets `link` take the name of `old` for a new block; returns false when something else has it. The new block is
/// ready, then the old one is marked superseded, then the name moves: a reader that finds the old one superseded and
/// still under the name keeps reading it and looks again.
pub(super) fn supersede(old: &Block, link: impl FnOnce() -> Result<bool, Error>) -> Result<bool, Error> {
    let before = old.state().unwrap_or(BlockState::Ready);
    old.enter(BlockState::Superseded);
    let linked = link();
    if linked == Ok(true) {
        old.tell(true);
    } else {
        // No reader may look for a block that was never published.
        old.enter(before);
    }
    linked
}

/// What stands under the name of a block.
enum Rival {
    /// The block itself.
    None,
    /// Nothing at all.
    Nothing,
    /// A block whose owner is dead: one that took the name meanwhile. Locked.
    Leftover(BlockFile),
}
