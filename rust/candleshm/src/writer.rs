//! The one owner of a block: opens it, merges responses into it, wakes waiters, gives it back. It also owns the blocks
//! of candles derived from its own.

mod checkpoint;
mod derived;
mod mirrored;
mod older;
mod opening;
mod pushed;
mod replacing;
mod replayed;

use std::collections::HashMap;
use std::ops::Range;

use crate::block::Block;
use crate::chain::Chain;
use crate::columns::{COLUMNS, OPEN_TIME_MS, Row, plausible};
use crate::error::Error;
use crate::interval::{Grid, Interval};
use crate::layout::{BlockState, Presence, RowState, header, symbol};
use crate::market::Market;
use crate::merge::{self, Absence, Confirmations, Plan, RequestWindow, Tally};
use crate::price::Price;
use crate::publish::{RingRow, SeriesState, SeriesWriter};
use crate::read::{Gap, SeriesReader};
use crate::ring::SeriesWords;
use crate::shared_memory::BlockFile;
use crate::symbols;
use crate::sync::Ordering::Relaxed;

pub use crate::condition::Health;
use derived::Derived;
pub use mirrored::Applied;
use mirrored::Mirrored;
pub use older::{Fetched, Older};
pub use pushed::{Pushed, RepairReason, RepairRequest};
pub use replayed::Arrival;

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
    /// What their prices are.
    pub price: Price,
    /// The interval of all candles.
    pub interval: Interval,
    /// Candles of a full window, the live one included.
    pub length: usize,
    /// The symbols, in order.
    pub symbols: Vec<String>,
    /// Places kept for symbols that are added later.
    pub spare_symbols: usize,
    /// Whose candles these are, in at most [`EXCHANGE_BYTES`](crate::layout::EXCHANGE_BYTES); empty where that is unknown.
    pub exchange: String,
}

/// What one response changed, and the state of the series after it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Counts of the response's rows.
    pub tally: Tally,
    /// Open time of the newest row as the exchange sent it, if there is a row.
    pub newest_open_ms: Option<i64>,
    /// Open time of the oldest candle that is not final yet, if there is a row.
    pub unsettled_open_ms: Option<i64>,
    /// Rows that are neither there nor confirmed absent, of the LENGTH slots that readers are shown.
    pub missing: usize,
    /// Open time of the oldest row that has to be requested again, because response and stream differ on it.
    pub suspect_open_ms: Option<i64>,
}

/// Missing rows of a series, as half-open ranges of their open times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// The newest ones that no response lacked so far.
    pub newest_ms: Option<(i64, i64)>,
    /// Ones that responses lacked, from the oldest to the newest, to be confirmed as holes by the next request.
    pub unconfirmed_ms: Option<(i64, i64)>,
    /// Exchange time from which a request confirms them.
    pub confirm_from_ms: i64,
}

struct Series {
    state: SeriesState,
    seen: Confirmations,
    /// Trade ids of what was pushed.
    chain: Chain,
    /// Bar and time of the newest event.
    newest_event: (u64, i64),
    /// `CLOCK_BOOTTIME` of its receipt, ms; 0 before the first.
    last_event_ms: u64,
    /// Longest time that lately passed between two events, ms; fades with each event.
    pause_ms: u64,
    /// Index of the newest candle that is closed, verified or a hole; 0 while there is none.
    newest_settled: u64,
    presence: Presence,
    /// Until when, in exchange time, no newer candle need come: the end of a session without trading.
    quiet_until_ms: i64,
}

/// The owner of a block.
pub struct Writer {
    block: Block,
    file: BlockFile,
    series: Vec<Series>,
    index: HashMap<String, usize>,
    taken_over: bool,
    /// Rows that came over from the block that this one replaced.
    carried_rows: usize,
    /// Awaited series whose newest settled candle is not beyond the universe index; while there is one, that index
    /// cannot move.
    behind: usize,
    universe_bar: u64,
    /// Whether something changed since waiters were last woken, and whether a row became final.
    news: News,
    derived: Vec<Derived>,
    /// What comes from leaders of a cluster.
    mirrored: Mirrored,
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

    /// Returns how many rows came over from the block that this one replaced.
    #[must_use]
    pub fn carried_rows(&self) -> usize {
        self.carried_rows
    }

    /// Returns the place of a symbol.
    ///
    /// # Errors
    ///
    /// `UnknownSymbol`.
    pub fn index_of(&self, symbol: &str) -> Result<usize, Error> {
        self.index
            .get(symbol)
            .copied()
            .ok_or_else(|| Error::UnknownSymbol { symbol: symbol.into(), name: self.block.name().into() })
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
            derived.add_symbol(symbol)?;
        }
        symbols::add(self.block.header(header::SYMBOL_COUNT), self.block.entry(index), index, symbol);
        self.series.push(Series::new());
        self.index.insert(symbol.to_owned(), index);
        Ok(())
    }

    /// Marks a symbol as trading, silent or ended. Only one that trades is waited for.
    pub fn set_presence(&mut self, index: usize, presence: Presence) {
        self.set_presence_quietly(index, presence);
        self.commit();
    }

    /// As [`Self::set_presence`] without waking anybody.
    fn set_presence_quietly(&mut self, index: usize, presence: Presence) {
        for derived in &mut self.derived {
            derived.set_presence_quietly(index, presence);
        }
        self.block.entry(index)[symbol::TRADING].store(presence as u64, Relaxed);
        self.series[index].presence = presence;
        self.settle_universe();
        // Waiters for a close need not wait for this symbol any longer.
        self.news = News::Closed;
    }

    /// Stores what the calendar of a symbol says, and until when (exchange time) no newer candle of it need come.
    pub fn set_calendar(&mut self, index: usize, calendar: u64, quiet_until_ms: i64) {
        for derived in &mut self.derived {
            derived.set_calendar(index, calendar, quiet_until_ms);
        }
        self.block.entry(index)[symbol::CALENDAR].store(calendar, Relaxed);
        self.series[index].quiet_until_ms = quiet_until_ms;
    }

    /// Merges the rows of one response into a series, publishes the result and wakes waiters. `now_boot_ms` is
    /// `CLOCK_BOOTTIME`.
    pub fn ingest(&mut self, index: usize, rows: &[Row], window: &RequestWindow, now_boot_ms: u64) -> Report {
        let report = self.merge(index, rows, window, now_boot_ms);
        self.commit();
        report
    }

    /// Wakes waiters, if anything changed since the last time: those of derived candles first.
    pub fn commit(&mut self) {
        for derived in &mut self.derived {
            derived.commit();
        }
        if self.news > News::None {
            self.block.tell(self.news == News::Closed);
            self.news = News::None;
        }
    }

    /// As [`Self::ingest`] without waking anybody: a batch ends with one [`Self::commit`].
    pub fn merge(&mut self, index: usize, rows: &[Row], window: &RequestWindow, now_boot_ms: u64) -> Report {
        let (before, head) = self.standing(index);
        let known_end = head + u64::from(self.series[index].state.marks.has_live());
        let plan = self.apply(index, rows, window);
        let mut tally = plan.tally;
        let (words, grid) = (self.block.series(index), self.block.grid(index));
        let series = &mut self.series[index];
        // A full page that begins at `start_ms` proves nothing about what lies behind it. A response that does not
        // reach what is known already, an empty one or one of an old cache, confirms nothing.
        let open_ended = window.end_ms.is_none() && (window.from_end || rows.len() < window.limit);
        let told_end = plan.held.map_or(0, |(_, newest)| newest + 1);
        if open_ended && told_end >= known_end || told_end > head {
            // A response can be as new as its newest candle at most, however fresh it is itself.
            let outdated_ms =
                plan.held.map_or(0, |(_, newest)| window.outdated_ms(grid, newest, series.quiet_until_ms));
            let current_ms = now_boot_ms.saturating_sub(outdated_ms);
            series.state.marks.received_ms = series.state.marks.received_ms.max(current_ms);
        }
        let Absence { holes, taken_back, fresh, first_bar } =
            merge::absence(words, &series.state, &mut series.seen, grid, window, rows, &tally, plan.held);
        let mut writer = SeriesWriter::new(words, &mut series.state);
        if let Some(candle_index) = first_bar {
            writer.set_first_bar(candle_index);
        }
        for &candle_index in &holes {
            writer.hole(candle_index);
        }
        if !taken_back.is_empty() {
            let blank = |&candle_index: &u64| RingRow { candle_index, row: [f64::NAN; COLUMNS], state: RowState::Hole };
            writer.rewrite(&taken_back.iter().map(blank).collect::<Vec<_>>(), 0);
        }
        tally.holes = holes.len() + taken_back.len();
        tally.absent = fresh;
        let suspect_open_ms = plan.suspect.map(|candle_index| grid.open_ms(candle_index as i64));
        let report = self.finish(index, before, tally, || {
            plan.touched(head).into_iter().chain(holes).chain(taken_back).chain(first_bar).collect()
        });
        Report { suspect_open_ms, ..report }
    }

    /// Merges rows that were kept elsewhere, each with its state, as a response to a request sent at `sent_ms`
    /// (exchange time), publishes the result and wakes waiters.
    ///
    /// Closed and verified rows go where the series has none that is final; what is there already counts for more. Any
    /// other state is left out, and so are rows that had not ended at `sent_ms`: a row that was live is never trusted,
    /// and that a row was not there proves nothing any more. The series does not become fresher by it.
    pub fn load(&mut self, index: usize, rows: &[(Row, RowState)], sent_ms: i64) -> Report {
        let (before, head) = self.standing(index);
        let is_kept = |state: RowState| matches!(state, RowState::Closed | RowState::Verified);
        // The indices of all rows below depend on it.
        self.anchor(index, rows.iter().filter(|(_, state)| is_kept(*state)).map(|(row, _)| row));
        let (words, grid) = (self.block.series(index), self.block.grid(index));
        let candle_index_of = |row: &Row| grid.index_of(row[OPEN_TIME_MS] as i64).max(0) as u64;
        let fills = |&&(ref row, state): &&(Row, RowState)| {
            let candle_index = candle_index_of(row);
            is_kept(state)
                && grid.end_ms(candle_index as i64) <= sent_ms
                && candle_index >= 1
                && !words.tag(candle_index).is_final_of(candle_index)
        };
        let filling: Vec<(Row, RowState)> = rows.iter().filter(fills).copied().collect();
        let plain: Vec<Row> = filling.iter().map(|(row, _)| *row).collect();
        let window = RequestWindow {
            sent_ms,
            received_ms: sent_ms,
            settle_ms: 0,
            limit: plain.len(),
            start_ms: None,
            end_ms: None,
            from_end: true,
            patience_ms: 0,
        };
        let plan = self.apply(index, &plain, &window);
        let tally = plan.tally;
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let mut writer = SeriesWriter::new(words, &mut series.state);
        for (row, state) in &filling {
            if *state == RowState::Verified {
                writer.verify(candle_index_of(row));
            }
        }
        let touched =
            || plan.touched(head).into_iter().chain(rows.iter().map(|(row, _)| candle_index_of(row))).collect();
        let report = self.finish(index, before, tally, touched);
        self.commit();
        report
    }

    /// Returns what of a series counts in the block's totals, and its head.
    fn standing(&self, index: usize) -> (Standing, u64) {
        let series = &self.series[index];
        (series.standing(self.block.series(index), self.universe_bar), series.state.marks.head)
    }

    /// Lets the grid of a series without rows begin at the oldest of `rows`: 3d candles count from a symbol's first
    /// day.
    fn anchor<'a>(&self, index: usize, rows: impl Iterator<Item = &'a Row>) {
        let price = self.block.geometry().price;
        if self.series[index].state.marks.head == 0
            && let Some(first) =
                rows.filter(|row| plausible(row, price).is_ok()).map(|row| row[OPEN_TIME_MS] as i64).min()
        {
            self.anchor_at(index, first);
        }
    }

    /// Lets the grid of a series without rows begin at an open time: nobody has used it yet.
    fn anchor_at(&self, index: usize, first_open_ms: i64) {
        let grid = Grid::anchored(self.block.geometry().interval, first_open_ms);
        self.block.entry(index)[symbol::PHASE_DAYS].store(grid.phase_days().into(), Relaxed);
    }

    /// Writes what `rows` change in a series, and returns it.
    fn apply(&mut self, index: usize, rows: &[Row], window: &RequestWindow) -> Plan {
        self.anchor(index, rows.iter());
        let (words, grid, price) = (self.block.series(index), self.block.grid(index), self.block.geometry().price);
        let series = &mut self.series[index];
        let plan = merge::plan(words, &series.state, &mut series.seen, (grid, price), window, rows);
        store(words, series, &plan);
        plan
    }

    /// Publishes a series after its writes, and brings in line what depends on it: the block's totals, and what is
    /// derived from the candles in `touched`.
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
        let after = series.standing(self.block.series(index), self.universe_bar);
        self.count_gaps(before.gaps, after.gaps);
        self.behind = self.behind + usize::from(after.behind) - usize::from(before.behind);
        if news == News::Closed && self.behind == 0 {
            self.settle_universe();
        }
        self.news = self.news.max(news);
    }

    /// Returns where a series stands, with the counts of a response at zero.
    #[must_use]
    pub fn report(&self, index: usize) -> Report {
        let state = &self.series[index].state;
        let SeriesState { marks, newest, .. } = state;
        let loaded = marks.head > 0;
        Report {
            tally: Tally::default(),
            newest_open_ms: loaded.then_some(newest[OPEN_TIME_MS] as i64),
            unsettled_open_ms: loaded.then(|| self.block.grid(index).open_ms(marks.final_end as i64)),
            missing: state.shown_gaps(self.block.series(index)).0,
            suspect_open_ms: None,
        }
    }

    /// Returns which of the missing rows of a series' window to request next.
    ///
    /// # Errors
    ///
    /// None in practice: the only writer is the caller.
    pub fn missing(&self, index: usize) -> Result<Missing, Error> {
        let Series { state, seen, .. } = &self.series[index];
        if state.shown_gaps(self.block.series(index)).0 == 0 {
            return Ok(Missing::default());
        }
        let (grid, reader) = (self.block.grid(index), SeriesReader::new(&self.block, index));
        let times_of = |range: &Range<u64>| (grid.open_ms(range.start as i64), grid.open_ms(range.end as i64));
        let newest = reader.newest_missing(|candle_index| seen.is_absent(candle_index))?;
        let shown = reader.shown()?;
        let unconfirmed =
            seen.unconfirmed(|candle_index| shown.contains(&candle_index) && reader.is_missing(candle_index));
        Ok(Missing {
            newest_ms: newest.as_ref().map(times_of),
            unconfirmed_ms: unconfirmed.as_ref().map(|found| times_of(&found.candles)),
            confirm_from_ms: unconfirmed.map_or(0, |found| found.from_ms),
        })
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
        grid.open_ms(grid.index_of(now_ms) - self.block.geometry().ring.length as i64)
    }

    /// Returns the open time that every trading symbol has final, if there is one.
    #[must_use]
    pub fn universe_ms(&self) -> Option<i64> {
        (self.universe_bar > 0).then(|| self.block.grid(0).open_ms(self.universe_bar as i64))
    }

    /// Lets whatever comes from now on count as later than all before: the exchange's clock was set.
    pub fn forget_times(&mut self) {
        for series in &mut self.series {
            series.seen.forget_times();
            series.newest_event = (0, 0);
        }
        self.derived.iter_mut().for_each(Derived::forget_times);
    }

    /// Publishes a sign of life. `now_ns` is `CLOCK_BOOTTIME`.
    pub fn heartbeat(&self, now_ns: u64) {
        self.block.header(header::HEARTBEAT_NS).store(now_ns, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().heartbeat(now_ns));
    }

    /// Publishes what the exchange's clock shows (epoch ms) beyond `CLOCK_BOOTTIME` in ms.
    pub fn set_exchange_offset(&self, offset_ms: i64) {
        self.block.header(header::EXCHANGE_OFFSET_MS).store(offset_ms as u64, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().set_exchange_offset(offset_ms));
    }

    /// Publishes where the candles come from in a cluster: the leader's epoch, host and process, when its newest message
    /// was sent by the exchange's clock (epoch ms, 0 while it is not known), and how long that was on its way.
    pub fn set_source(&self, epoch: u64, source: &str, sent_ms: u64, lag_us: u64) {
        self.block.set_source(source);
        self.block.header(header::CLUSTER_EPOCH).store(epoch, Relaxed);
        self.block.header(header::SOURCE_MS).store(sent_ms, Relaxed);
        self.block.header(header::LAG_US).store(lag_us, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().set_source(epoch, source, sent_ms, lag_us));
    }

    /// Publishes what the collector knows about itself. A block that follows leaders is not ready before these have told
    /// of every symbol.
    pub fn set_health(&self, health: &Health) {
        let ready = health.ready && !self.awaits_symbols();
        self.block.announce(header::READY, ready.into());
        for (word, number) in Health::WORDS.into_iter().zip(health.numbers()) {
            self.block.header(word).store(number, Relaxed);
        }
        for derived in &self.derived {
            derived.writer().set_health(&Health { ready: ready && derived.filled, ..*health });
        }
    }

    /// Ends the block, and those derived from it: readers see it closed and every waiter wakes up. The name goes unless
    /// `unlink` is false; what readers have mapped stays readable.
    ///
    /// # Errors
    ///
    /// `Os` when the name cannot be removed.
    pub fn close(self, unlink: bool) -> Result<(), Error> {
        let closed: Vec<_> = self.derived.into_iter().map(|derived| derived.close(unlink)).collect();
        self.block.enter(BlockState::Closed);
        self.block.tell(true);
        if unlink {
            self.file.unlink()?;
        }
        closed.into_iter().collect()
    }

    /// Lets go after a start that failed: what a dead collector left stays as it was, or as it came over into a new
    /// block, for the next one; what is only new goes.
    pub fn abandon(mut self) {
        for derived in std::mem::take(&mut self.derived) {
            derived.abandon();
        }
        if !self.taken_over && self.carried_rows == 0 {
            // The start has failed for a reason of its own, and that is the one to report.
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

    /// Moves the universe candle index up to the newest candle that every awaited series has final.
    fn settle_universe(&mut self) {
        let awaited = || (0..self.series.len()).filter(|&index| self.series[index].is_awaited());
        let settled =
            |candle_index: u64| awaited().all(|index| SeriesReader::new(&self.block, index).is_settled(candle_index));
        if let Some(newest) = awaited().map(|index| self.series[index].newest_settled).min() {
            let length = self.block.geometry().ring.length as u64;
            let oldest = self.universe_bar.saturating_add(1).max(newest.saturating_sub(length));
            if let Some(candle_index) = (oldest..=newest).rev().find(|&candle_index| settled(candle_index)) {
                self.universe_bar = candle_index;
                self.block.announce(header::UNIVERSE_BAR, candle_index);
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
            last_event_ms: 0,
            pause_ms: 0,
            newest_settled: 0,
            presence: Presence::Trading,
            quiet_until_ms: 0,
        }
    }

    /// Whether the universe waits for it: it trades, and has had a row.
    fn is_awaited(&self) -> bool {
        self.presence == Presence::Trading && self.state.marks.head > 0
    }

    fn standing(&self, words: SeriesWords<'_>, universe_bar: u64) -> Standing {
        Standing { gaps: self.state.shown_gaps(words), behind: self.is_behind(universe_bar) }
    }

    fn is_behind(&self, universe_bar: u64) -> bool {
        self.is_awaited() && self.newest_settled <= universe_bar
    }

    fn find_newest_settled(&mut self, block: &Block, index: usize) {
        let words = block.series(index);
        let head = self.state.marks.head;
        let start = self.newest_settled.max(self.state.window_start(words.ring.length)).max(1);
        if let Some(candle_index) =
            (start..head).rev().find(|&candle_index| words.tag(candle_index).is_settled_of(candle_index))
        {
            self.newest_settled = candle_index;
        }
    }
}

/// Carries out a plan. It becomes wholly visible with the next publication.
fn store(words: SeriesWords<'_>, series: &mut Series, plan: &Plan) {
    let mut writer = SeriesWriter::new(words, &mut series.state);
    if let Some(candle_index) = plan.first_bar {
        writer.set_first_bar(candle_index);
    }
    if !plan.rewrite.is_empty() {
        writer.rewrite(&plan.rewrite, plan.tally.corrected as u32);
    }
    for &candle_index in &plan.close {
        writer.close(candle_index);
    }
    for &candle_index in &plan.verify {
        writer.verify(candle_index);
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

fn check_symbol(symbol: &str) -> Result<(), Error> {
    if !symbols::is_name(symbol) {
        return Err(Error::SymbolName { symbol: symbol.into() });
    }
    Ok(())
}
