//! The one owner of a block: opens it, merges answers into it, tells waiters, gives it back. It also owns the blocks of
//! candles derived from its own.

mod derived;

use std::collections::HashMap;

use crate::block::Block;
use crate::chain::{Chain, TradeIds};
use crate::columns::{COLUMNS, OPEN_TIME_MS, Row, TRADES, plausible};
use crate::derive::Derivation;
use crate::error::Error;
use crate::event::{self, Event, Frame, FrameError};
use crate::interval::{Grid, Interval};
use crate::layout::{ABI, BlockState, Geometry, RowState, SYMBOL_NAME_BYTES, header, symbol};
use crate::market::Market;
use crate::merge::{self, Absence, Answer, Confirmations, Plan, Tally};
use crate::publish::{RingRow, SeriesState, SeriesWriter};
use crate::read::{Gap, SeriesReader};
use crate::ring::SeriesWords;
use crate::segment::{self, SegmentFile};
use crate::soundness::is_sound;
use crate::symbols;
use crate::sync::Ordering::{Relaxed, Release};

use derived::Derived;
/// How far the clocks of the exchange's servers may lie apart: an event that is ahead of the measured time by more is
/// not believed.
const SERVERS_APART_MS: i64 = 1000;

/// Events after which a pause counts a third.
const PAUSE_FADES: u64 = 64;

/// How often opening starts again because somebody else created or replaced the block meanwhile.
const OPEN_ATTEMPTS_MAX: usize = 16;

/// Who owns a block, and since when; the core itself reads neither clock nor process table.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// Process id.
    pub pid: u64,
    /// When the process started, in clock ticks since boot.
    pub pid_start: u64,
    /// The kernel's boot id.
    pub boot_id: [u64; 2],
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub now_ns: u64,
}

/// What a block is to carry.
#[derive(Debug, Clone)]
pub struct Config {
    /// The market of all symbols.
    pub market: Market,
    /// The interval of all candles.
    pub interval: Interval,
    /// Candles of a full window, the live one included.
    pub length: usize,
    /// The symbols, in order.
    pub symbols: Vec<String>,
    /// Places kept for symbols that are added later.
    pub spare_symbols: usize,
}

/// Numbers for readers that the collector knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    /// Every symbol was loaded.
    pub ready: bool,
    /// Request weight used in the current window.
    pub weight_used: u64,
    /// Request weight allowed in a window.
    pub weight_limit: u64,
    /// End of a ban, epoch ms; 0 when not banned.
    pub banned_until_ms: u64,
}

/// What one answer did, and where the series stands now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Counts of the answer's rows.
    pub tally: Tally,
    /// Open time of the newest row as the exchange sent it, if there is a row.
    pub newest_open_ms: Option<i64>,
    /// Open time of the oldest candle that is not final yet, if there is a row.
    pub unsettled_open_ms: Option<i64>,
    /// Rows of the window that are neither there nor confirmed absent.
    pub missing: usize,
    /// Open time of the oldest row that has to be asked for again: answer and stream differ about it.
    pub doubted_open_ms: Option<i64>,
}

/// Why a series has to be looked after although its stream flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has no row yet, so that events say nothing to it.
    Rows,
    /// A newer candle came, and one before it is not final or missing.
    Close,
    /// Trade ids say that a row is not whole, or that the stream and an answer differ about it.
    Doubt,
}

/// A series that has to be looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Its place.
    pub index: usize,
    /// Why.
    pub need: Need,
    /// Open time of the oldest row that it is about; 0 without one.
    pub open_ms: i64,
}

/// What a batch of frames did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pushed {
    /// Klines of the block's interval and market.
    pub events: usize,
    /// Events of other kinds, intervals and markets.
    pub foreign: usize,
    /// Klines of symbols that the block does not carry.
    pub unknown: usize,
    /// Klines older than what was known.
    pub stale: usize,
    /// Counts of the rows, as for an answer.
    pub tally: Tally,
    /// Places in the batch of answers to what the client sent.
    pub answers: Vec<usize>,
    /// Whether the server announced its end.
    pub shuts_down: bool,
    /// Frames that could not be read, and why.
    pub faults: Vec<(usize, FrameError)>,
    /// Series that have to be looked after.
    pub notices: Vec<Notice>,
}

struct Series {
    state: SeriesState,
    seen: Confirmations,
    /// Trade ids of what was pushed.
    chain: Chain,
    /// Bar and time of the newest event.
    newest_event: (u64, i64),
    /// `CLOCK_BOOTTIME` of its receipt, ms; 0 before the first.
    heard_ms: u64,
    /// Longest time that lately passed between two events, ms; fades with each event.
    pause_ms: u64,
    /// Newest bar that is closed, verified or a hole; 0 while there is none.
    newest_settled: u64,
    trading: bool,
}

/// The owner of a block.
pub struct Writer {
    block: Block,
    file: SegmentFile,
    series: Vec<Series>,
    index: HashMap<String, usize>,
    taken_over: bool,
    /// Awaited series whose newest settled bar is not beyond the universe bar: while there is one, it cannot move.
    behind: usize,
    universe_bar: u64,
    /// Whether something changed that waiters were not told of, and whether a row became final.
    news: News,
    derived: Vec<Derived>,
}

/// What of a series counts in the block's totals.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Missing rows and holes.
    gaps: (usize, usize),
    behind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    Changed,
    Closed,
}

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
    fn open_on(grid: Grid, name: &str, config: &Config, owner: Owner) -> Result<Self, Error> {
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
            writer.block.entry(index)[symbol::TRADING].store(1, Relaxed);
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

    /// Derives the candles of another interval, or of the days of a time zone, into a block of their own: of the same
    /// symbols, with the same LENGTH, taken over or replaced as any block is. From here on it is changed along with this
    /// one, and always first: who was told of a change here finds it there.
    ///
    /// # Errors
    ///
    /// `Derivation`, `Window` when a candle of the target has more parts than this block has rows, and as
    /// [`Self::open`].
    pub fn derive(&mut self, name: &str, target: Grid, owner: Owner) -> Result<(), Error> {
        let geometry = *self.block.geometry();
        let derivation = Derivation::new(geometry.grid(0), target)?;
        let (parts, length) = (derivation.parts_max(), geometry.ring.length);
        if parts > length {
            return Err(Error::Window { target: target.name(), parts, length });
        }
        let symbols: Vec<String> = (0..self.series.len()).map(|index| self.block.symbol(index)).collect();
        let config = Config {
            market: geometry.market,
            interval: target.interval(),
            length,
            spare_symbols: geometry.symbol_capacity - symbols.len(),
            symbols,
        };
        let mut writer = Self::open_on(target, name, &config, owner)?;
        if writer.block.geometry().symbol_capacity < geometry.symbol_capacity {
            // What was taken over could not follow when symbols are added here.
            writer.close(false)?;
            writer = Self::open_on(target, name, &config, owner)?;
        }
        let mut derived = Derived::new(derivation, writer);
        for index in 0..self.series.len() {
            derived.seat(&self.block.symbol(index))?;
        }
        self.derived.push(derived);
        self.catch_up_derived();
        Ok(())
    }

    /// Derives everything that the rows of this block reach.
    fn catch_up_derived(&mut self) {
        for derived in &mut self.derived {
            for (index, series) in self.series.iter().enumerate() {
                derived.set_trading(index, series.trading);
                derived.catch_up(self.block.series(index), &series.state, index);
            }
            derived.commit();
        }
    }

    /// Returns the names of the blocks derived from this one.
    #[must_use]
    pub fn derived_names(&self) -> Vec<String> {
        self.derived.iter().map(|derived| derived.writer().block.name().to_owned()).collect()
    }

    fn sign(&self, owner: Owner) {
        self.block.header(header::BOOT_ID).store(owner.boot_id[0], Relaxed);
        self.block.header(header::BOOT_ID + 1).store(owner.boot_id[1], Relaxed);
        self.block.header(header::PID).store(owner.pid, Relaxed);
        self.block.header(header::PID_START).store(owner.pid_start, Relaxed);
        self.heartbeat(owner.now_ns);
    }

    /// Returns the block.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Returns whether the block was taken over from a dead owner, with the rows that were in it.
    #[must_use]
    pub fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Returns the place of a symbol.
    ///
    /// # Errors
    ///
    /// `UnknownSymbol`.
    pub fn index_of(&self, symbol: &str) -> Result<usize, Error> {
        self.index.get(symbol).copied().ok_or_else(|| Error::UnknownSymbol { symbol: symbol.into() })
    }

    /// Adds a symbol in a reserved place; one that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// `SymbolsFull`, `SymbolName`.
    pub fn add_symbol(&mut self, symbol: &str) -> Result<(), Error> {
        check_symbol(symbol)?;
        if self.index.contains_key(symbol) {
            return Ok(());
        }
        let index = self.series.len();
        if index == self.block.geometry().symbol_capacity {
            return Err(Error::SymbolsFull { capacity: index });
        }
        for derived in &mut self.derived {
            derived.seat(symbol)?;
        }
        symbols::add(self.block.header(header::SYMBOL_COUNT), self.block.entry(index), index, symbol);
        self.series.push(Series::new());
        self.index.insert(symbol.to_owned(), index);
        Ok(())
    }

    /// Marks a symbol as trading or delisted.
    pub fn set_trading(&mut self, index: usize, trading: bool) {
        for derived in &mut self.derived {
            derived.set_trading(index, trading);
        }
        self.block.entry(index)[symbol::TRADING].store(trading.into(), Relaxed);
        self.series[index].trading = trading;
        self.settle_universe();
        // Who waits for a close may wait no longer for this symbol.
        self.news = News::Closed;
        self.commit();
    }

    /// Merges the rows of one answer into a series, publishes the result and wakes waiters. `now_boot_ms` is
    /// `CLOCK_BOOTTIME`.
    pub fn ingest(&mut self, index: usize, rows: &[Row], answer: &Answer, now_boot_ms: u64) -> Report {
        let report = self.merge(index, rows, answer, now_boot_ms);
        self.commit();
        report
    }

    /// Wakes waiters, if anything changed since the last time: those of derived candles first.
    pub fn commit(&mut self) {
        for derived in &mut self.derived {
            derived.commit();
        }
        if self.news > News::None {
            tell(&self.block, self.news == News::Closed);
            self.news = News::None;
        }
    }

    /// As [`Self::ingest`] without waking anybody: a batch ends with one [`Self::commit`].
    pub fn merge(&mut self, index: usize, rows: &[Row], answer: &Answer, now_boot_ms: u64) -> Report {
        let (before, head) = self.standing(index);
        let known_end = head + u64::from(self.series[index].state.marks.has_live());
        let plan = self.apply(index, rows, answer);
        let mut tally = plan.tally;
        let (words, grid) = (self.block.series(index), self.block.grid(index));
        let series = &mut self.series[index];
        // A full page that begins at `start_ms` says nothing of what lies behind it. An answer that does not reach what is
        // known already, an empty one or one of an old cache, confirms nothing.
        let open_ended = answer.end_ms.is_none() && (answer.from_end || rows.len() < answer.limit);
        let told_end = plan.held.map_or(0, |(_, newest)| newest + 1);
        if open_ended && told_end >= known_end || told_end > head {
            series.state.marks.received_ms = now_boot_ms;
        }
        let Absence { holes, taken_back, first_bar } =
            merge::absence(words, &series.state, &mut series.seen, grid, answer, rows, &tally, plan.held);
        let mut writer = SeriesWriter::new(words, &mut series.state);
        if let Some(bar) = first_bar {
            writer.set_first_bar(bar);
        }
        for &bar in &holes {
            writer.hole(bar);
        }
        if !taken_back.is_empty() {
            let blank = |&bar: &u64| RingRow { bar, row: [f64::NAN; COLUMNS], state: RowState::Hole };
            writer.rewrite(&taken_back.iter().map(blank).collect::<Vec<_>>(), 0);
        }
        tally.holes = holes.len() + taken_back.len();
        let doubted_open_ms = plan.doubt.map(|bar| grid.open_ms(bar as i64));
        let report = self.finish(index, before, tally, || {
            plan.touched(head).into_iter().chain(holes).chain(taken_back).chain(first_bar).collect()
        });
        Report { doubted_open_ms, ..report }
    }

    /// Merges rows that were kept elsewhere, each with its state, as an answer would that was asked for at `sent_ms`
    /// (exchange time), publishes the result and wakes waiters.
    ///
    /// Closed and verified rows go where the series has none that is final, and holes where it has nothing at all; what
    /// is there already counts for more. Any other state is left out, and so are rows that had not ended at `sent_ms`:
    /// a row that was live is never trusted. The series does not become fresher by it.
    pub fn load(&mut self, index: usize, rows: &[(Row, RowState)], sent_ms: i64) -> Report {
        let (before, head) = self.standing(index);
        let is_kept = |state: RowState| matches!(state, RowState::Closed | RowState::Verified);
        // The bars of all rows below depend on it.
        self.anchor(index, rows.iter().filter(|(_, state)| is_kept(*state)).map(|(row, _)| row));
        let (words, grid) = (self.block.series(index), self.block.grid(index));
        let bar_of = |row: &Row| grid.ordinal(row[OPEN_TIME_MS] as i64).max(0) as u64;
        let fills = |&&(ref row, state): &&(Row, RowState)| {
            let bar = bar_of(row);
            is_kept(state) && grid.end_ms(bar as i64) <= sent_ms && bar >= 1 && !words.tag(bar).is_final_of(bar)
        };
        let filling: Vec<(Row, RowState)> = rows.iter().filter(fills).copied().collect();
        let plain: Vec<Row> = filling.iter().map(|(row, _)| *row).collect();
        let answer = Answer {
            sent_ms,
            received_ms: sent_ms,
            settle_ms: 0,
            limit: plain.len(),
            start_ms: None,
            end_ms: None,
            from_end: true,
        };
        let plan = self.apply(index, &plain, &answer);
        let mut tally = plan.tally;
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let window = series.state.window_start(words.ring.length)..series.state.marks.head;
        let mut writer = SeriesWriter::new(words, &mut series.state);
        for (row, state) in &filling {
            if *state == RowState::Verified {
                writer.verify(bar_of(row));
            }
        }
        for (row, _) in rows.iter().filter(|(_, state)| *state == RowState::Hole) {
            let bar = bar_of(row);
            let tag = words.tag(bar);
            if window.contains(&bar) && !tag.is_readable_of(bar) && !tag.is_settled_of(bar) {
                writer.hole(bar);
                tally.holes += 1;
            }
        }
        let touched = || plan.touched(head).into_iter().chain(rows.iter().map(|(row, _)| bar_of(row))).collect();
        let report = self.finish(index, before, tally, touched);
        self.commit();
        report
    }

    /// Returns what of a series counts in the block's totals, and its head.
    fn standing(&self, index: usize) -> (Standing, u64) {
        (self.series[index].standing(self.universe_bar), self.series[index].state.marks.head)
    }

    /// Lets the grid of a series without rows begin at the oldest of `rows`: 3d candles count from a symbol's first day.
    fn anchor<'a>(&self, index: usize, rows: impl Iterator<Item = &'a Row>) {
        if self.series[index].state.marks.head == 0
            && let Some(first) = rows.filter(|row| plausible(row).is_ok()).map(|row| row[OPEN_TIME_MS] as i64).min()
        {
            // Nothing was published yet, so nobody has used the grid.
            let grid = Grid::anchored(self.block.geometry().interval, first);
            self.block.entry(index)[symbol::PHASE_DAYS].store(grid.phase_days().into(), Relaxed);
        }
    }

    /// Writes what `rows` change in a series, and returns it.
    fn apply(&mut self, index: usize, rows: &[Row], answer: &Answer) -> Plan {
        self.anchor(index, rows.iter());
        let (words, grid) = (self.block.series(index), self.block.grid(index));
        let series = &mut self.series[index];
        let plan = merge::plan(words, &series.state, &mut series.seen, grid, answer, rows);
        store(words, series, &plan);
        plan
    }

    /// Publishes a series after its writes, and brings in line what depends on it: the block's totals, and what is
    /// derived of the bars in `touched`.
    fn finish(&mut self, index: usize, before: Standing, tally: Tally, touched: impl FnOnce() -> Vec<u64>) -> Report {
        SeriesWriter::new(self.block.series(index), &mut self.series[index].state).publish();
        let became_final = tally.closed + tally.corrected + tally.holes > 0;
        let news = match (became_final, tally.changed + tally.verified > 0) {
            (true, _) => News::Closed,
            (false, true) => News::Changed,
            (false, false) => News::None,
        };
        self.settle(index, before, news);
        if !self.derived.is_empty() {
            self.update_derived(index, touched());
        }
        Report { tally, ..self.report(index) }
    }

    /// Brings the block's totals in line with a series that was written to: `before` is where it stood.
    fn settle(&mut self, index: usize, before: Standing, news: News) {
        let series = &mut self.series[index];
        series.find_newest_settled(&self.block, index);
        let after = series.standing(self.universe_bar);
        self.count_gaps(before.gaps, after.gaps);
        self.behind = self.behind + usize::from(after.behind) - usize::from(before.behind);
        if news == News::Closed && self.behind == 0 {
            self.settle_universe();
        }
        self.news = self.news.max(news);
    }

    /// Derives again what the bars in `touched` are part of.
    fn update_derived(&mut self, index: usize, mut touched: Vec<u64>) {
        touched.sort_unstable();
        touched.dedup();
        for derived in &mut self.derived {
            derived.update(self.block.series(index), &self.series[index].state, index, &touched);
        }
    }

    /// Merges the events of one socket read, publishes what they change and wakes waiters once. `received_ms` is the
    /// exchange time that surely was not passed when they came, `now_boot_ms` is `CLOCK_BOOTTIME`.
    pub fn ingest_events<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a [u8]>,
        received_ms: i64,
        now_boot_ms: u64,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        for (place, frame) in frames.into_iter().enumerate() {
            match event::parse(frame) {
                Ok(Frame::Kline(event)) => self.push(&event, received_ms, now_boot_ms, &mut pushed),
                Ok(Frame::Shutdown) => pushed.shuts_down = true,
                Ok(Frame::Answer) => pushed.answers.push(place),
                Ok(Frame::Other) => pushed.foreign += 1,
                Err(error) => pushed.faults.push((place, error)),
            }
        }
        self.commit();
        pushed
    }

    fn push(&mut self, event: &Event<'_>, received_ms: i64, now_boot_ms: u64, pushed: &mut Pushed) {
        let Geometry { market, interval, .. } = *self.block.geometry();
        let is_ours = event.interval == interval.as_str()
            && event.family.is_none_or(|family| market.family().is_none_or(|ours| ours == family));
        let Some(&index) = self.index.get(&*event.symbol).filter(|_| is_ours) else {
            *(if is_ours { &mut pushed.unknown } else { &mut pushed.foreign }) += 1;
            return;
        };
        pushed.events += 1;
        pushed.tally.rows += 1;
        let grid = self.block.grid(index);
        let bar = grid.ordinal(event.row[OPEN_TIME_MS] as i64);
        let beyond = grid.open_ms(bar) > received_ms + SERVERS_APART_MS;
        if beyond || plausible(&event.row).is_err() || bar < 1 || bar >= i64::from(u32::MAX) {
            pushed.tally.refused += 1;
            pushed.tally.beyond += usize::from(beyond);
            return;
        }
        let bar = bar as u64;
        let (before, head) = self.standing(index);
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let notice = |need, bar: u64| Notice { index, need, open_ms: grid.open_ms(bar as i64) };
        if series.state.marks.end() == 0 {
            // Without a first answer nobody knows where the series begins.
            if bar > series.newest_event.0 {
                series.newest_event = (bar, 0);
                pushed.notices.push(notice(Need::Rows, bar));
            }
            return;
        }
        let event_ms = event.event_ms.min(received_ms + SERVERS_APART_MS);
        let is_newest = (bar, event_ms) > series.newest_event;
        if is_newest {
            series.newest_event = (bar, event_ms);
            if series.heard_ms > 0 {
                let pause_ms = now_boot_ms.saturating_sub(series.heard_ms);
                series.pause_ms = pause_ms.max(series.pause_ms - series.pause_ms / PAUSE_FADES);
            }
            series.heard_ms = now_boot_ms;
            series.state.marks.received_ms = now_boot_ms;
        }
        let row = (bar, &event.row);
        let plan = merge::plan_pushed(words, &series.state, &mut series.seen, row, event_ms, event.closed);
        let mut tally = plan.tally;
        pushed.stale += usize::from(!is_newest && tally.changed + tally.closed + tally.verified == 0);
        store(words, series, &plan);
        let ids = TradeIds { first: event.first_id, last: event.last_id, count: event.row[TRADES] as i64 };
        let mut doubt = plan.doubt;
        // Only what the block has as it was pushed can be proven by what was pushed.
        let stands = event.closed && words.tag(bar).is_final_of(bar) && series.seen.is_pushed(bar);
        let proofs = [Some(series.chain.saw(bar, ids)), stands.then(|| series.chain.closed(bar, ids))];
        let mut verified = Vec::new();
        for proof in proofs.into_iter().flatten() {
            for bar in proof.proven {
                let tag = words.tag(bar);
                if tag.bar() == bar && tag.state() == RowState::Closed && series.seen.is_pushed(bar) {
                    SeriesWriter::new(words, &mut series.state).verify(bar);
                    verified.push(bar);
                }
            }
            if !proof.broken.is_empty() {
                doubt = Some(doubt.map_or(proof.broken.start, |oldest| oldest.min(proof.broken.start)));
            }
        }
        tally.verified += verified.len();
        if tally.verified > 0 {
            SeriesWriter::new(words, &mut series.state).refresh_newest();
        }
        if let Some(advance) = &plan.advance {
            let final_bar = series.state.marks.final_bar;
            let has_gap = advance.head - head > advance.rows.len() as u64;
            if final_bar < advance.head || has_gap {
                pushed.notices.push(notice(Need::Close, final_bar));
            }
        }
        if let Some(bar) = doubt {
            pushed.notices.push(notice(Need::Doubt, bar));
        }
        self.finish(index, before, tally, || plan.touched(head).into_iter().chain(verified).collect());
        pushed.tally.add(&tally);
    }

    /// Returns, for each series, when its stream was last heard: `CLOCK_BOOTTIME` in ms, 0 for never.
    #[must_use]
    pub fn heard_ms(&self) -> Vec<u64> {
        self.series.iter().map(|series| series.heard_ms).collect()
    }

    /// Returns, for each series, the longest time that lately passed between two events of its stream, in ms.
    #[must_use]
    pub fn pauses_ms(&self) -> Vec<u64> {
        self.series.iter().map(|series| series.pause_ms).collect()
    }

    /// Returns where a series stands, with the counts of an answer at zero.
    #[must_use]
    pub fn report(&self, index: usize) -> Report {
        let SeriesState { marks, newest, missing, .. } = &self.series[index].state;
        let loaded = marks.head > 0;
        Report {
            tally: Tally::default(),
            newest_open_ms: loaded.then_some(newest[OPEN_TIME_MS] as i64),
            unsettled_open_ms: loaded.then(|| self.block.grid(index).open_ms(marks.final_bar as i64)),
            missing: *missing,
            doubted_open_ms: None,
        }
    }

    /// Returns the gaps of a series' window, oldest first.
    ///
    /// # Errors
    ///
    /// None in practice: the only writer is the caller.
    pub fn gaps(&self, index: usize) -> Result<Vec<Gap>, Error> {
        SeriesReader::new(&self.block, index).gaps()
    }

    /// Returns the open time of the oldest candle of a full window whose live candle is open at `now_ms`.
    #[must_use]
    pub fn window_start_ms(&self, index: usize, now_ms: i64) -> i64 {
        let grid = self.block.grid(index);
        grid.open_ms(grid.ordinal(now_ms) - self.block.geometry().ring.length as i64)
    }

    /// Returns the open time that every trading symbol has final, if there is one.
    #[must_use]
    pub fn universe_ms(&self) -> Option<i64> {
        (self.universe_bar > 0).then(|| self.block.grid(0).open_ms(self.universe_bar as i64))
    }

    /// Publishes a sign of life. `now_ns` is `CLOCK_BOOTTIME`.
    pub fn heartbeat(&self, now_ns: u64) {
        self.block.header(header::HEARTBEAT_NS).store(now_ns, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().heartbeat(now_ns));
    }

    /// Publishes what the collector knows about itself.
    pub fn set_health(&self, health: &Health) {
        self.block.header(header::READY).store(health.ready.into(), Relaxed);
        self.block.header(header::WEIGHT_USED).store(health.weight_used, Relaxed);
        self.block.header(header::WEIGHT_LIMIT).store(health.weight_limit, Relaxed);
        self.block.header(header::BANNED_UNTIL_MS).store(health.banned_until_ms, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().set_health(health));
    }

    /// Ends the block, and those derived from it: readers see it closed and every waiter wakes up. The name goes unless
    /// `unlink` is false; what readers have mapped stays readable.
    ///
    /// # Errors
    ///
    /// `Os` when the name cannot be removed.
    pub fn close(self, unlink: bool) -> Result<(), Error> {
        let closed: Vec<_> = self.derived.into_iter().map(|derived| derived.close(unlink)).collect();
        self.block.header(header::STATE).store(BlockState::Closed as u64, Release);
        tell(&self.block, true);
        if unlink {
            self.file.unlink()?;
        }
        closed.into_iter().collect()
    }

    /// Lets go after a start that failed: what a dead collector left stays as it was, for the next one, and what is new
    /// goes.
    pub fn abandon(mut self) {
        for derived in std::mem::take(&mut self.derived) {
            derived.abandon();
        }
        if !self.taken_over {
            // The start has failed for a reason of its own, which is the one to be told.
            let _ = self.close(true);
        }
    }

    /// Keeps the block's totals when one series' (missing, holes) change.
    fn count_gaps(&self, before: (usize, usize), after: (usize, usize)) {
        let count = |offset: usize, before: usize, after: usize| {
            let word = self.block.header(offset);
            word.store(word.load(Relaxed).wrapping_add(after as u64).wrapping_sub(before as u64), Relaxed);
        };
        count(header::MISSING, before.0, after.0);
        count(header::HOLES, before.1, after.1);
    }

    /// Moves the universe bar up to the newest bar that every awaited series has final.
    fn settle_universe(&mut self) {
        let awaited = || (0..self.series.len()).filter(|&index| self.series[index].is_awaited());
        let settled = |bar: u64| awaited().all(|index| SeriesReader::new(&self.block, index).is_settled(bar));
        if let Some(newest) = awaited().map(|index| self.series[index].newest_settled).min() {
            let length = self.block.geometry().ring.length as u64;
            let oldest = self.universe_bar.saturating_add(1).max(newest.saturating_sub(length));
            if let Some(bar) = (oldest..=newest).rev().find(|&bar| settled(bar)) {
                self.universe_bar = bar;
                self.block.header(header::UNIVERSE_BAR).store(bar, Relaxed);
            }
        }
        self.behind = self.series.iter().filter(|series| series.is_behind(self.universe_bar)).count();
    }
}

impl Series {
    fn new() -> Self {
        Self {
            state: SeriesState::empty(),
            seen: Confirmations::default(),
            chain: Chain::default(),
            newest_event: (0, 0),
            heard_ms: 0,
            pause_ms: 0,
            newest_settled: 0,
            trading: true,
        }
    }

    /// Whether the universe waits for it: it trades, and has had a row.
    fn is_awaited(&self) -> bool {
        self.trading && self.state.marks.head > 0
    }

    fn standing(&self, universe_bar: u64) -> Standing {
        Standing { gaps: (self.state.missing, self.state.holes), behind: self.is_behind(universe_bar) }
    }

    fn is_behind(&self, universe_bar: u64) -> bool {
        self.is_awaited() && self.newest_settled <= universe_bar
    }

    fn find_newest_settled(&mut self, block: &Block, index: usize) {
        let words = block.series(index);
        let head = self.state.marks.head;
        let start = self.newest_settled.max(self.state.window_start(words.ring.length)).max(1);
        if let Some(bar) = (start..head).rev().find(|&bar| words.tag(bar).is_settled_of(bar)) {
            self.newest_settled = bar;
        }
    }
}

/// Stores what a plan says. It becomes wholly visible with the next publication.
fn store(words: SeriesWords<'_>, series: &mut Series, plan: &Plan) {
    let mut writer = SeriesWriter::new(words, &mut series.state);
    if let Some(bar) = plan.first_bar {
        writer.set_first_bar(bar);
    }
    if !plan.rewrite.is_empty() {
        writer.rewrite(&plan.rewrite, plan.tally.corrected as u32);
    }
    for &bar in &plan.close {
        writer.close(bar);
    }
    for &bar in &plan.verify {
        writer.verify(bar);
    }
    if !plan.verify.is_empty() {
        writer.refresh_newest();
    }
    if let Some(advance) = &plan.advance {
        writer.advance(advance.head, &advance.rows, advance.live.as_ref());
    }
    if let Some(live) = &plan.live {
        writer.set_live(live);
    }
}

/// Wakes everybody who waits for news, and those who wait for a close.
fn tell(block: &Block, closed: bool) {
    let wake = |offset: usize| {
        let word = block.header(offset);
        // Only the writer stores here; release, so that who sees the number sees what it announces.
        word.store(word.load(Relaxed).wrapping_add(1), Release);
        segment::futex_wake(word);
    };
    wake(header::COMMIT_SEQ);
    if closed {
        wake(header::CLOSE_SEQ);
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

fn check_symbol(symbol: &str) -> Result<(), Error> {
    if symbol.is_empty() || symbol.len() > SYMBOL_NAME_BYTES || symbol.contains('\0') {
        return Err(Error::SymbolName { symbol: symbol.into() });
    }
    Ok(())
}
