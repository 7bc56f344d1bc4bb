//! A block of derived candles, changed along with the block they are derived from.
//!
//! A derived row is never guessed. Where a row that it is made of is missing, it is missing, too: it comes with the
//! missing row. When that concerns the newest candle, the series ends before it, and its age stays, until the newest
//! candle can be derived again. What is final stays final: a row is taken back neither because rows it was made of have
//! left the source's window, nor because they are being loaded again.
//!
//! What cannot be derived, because the source does not reach back so far, may be fetched from the exchange (`older.rs`).
//! A row that the exchange itself sent stands: a derivation that differs from it has it requested again.

use std::collections::BTreeSet;

use super::{Config, Error, News, Owner, Report, Writer};
use crate::columns::{OPEN_TIME_MS, Row, bits_equal};
use crate::derive::{Derivation, Fold, agrees};
use crate::interval::Grid;
use crate::layout::{Presence, RowState, RowWords, header};
use crate::price::Price;
use crate::publish::{RingRow, SeriesState, SeriesWriter};
use crate::ring::SeriesWords;

/// The writer of derived candles.
pub(super) struct Derived {
    pub(super) derivation: Derivation,
    /// The candles that are fetched where none can be derived: those of the block, or smaller ones of the exchange.
    pub(super) fetched: Option<Grid>,
    /// Whether every series has what is to be fetched.
    pub(super) filled: bool,
    pub(super) writer: Writer,
    pub(super) series: Vec<Part>,
}

/// The series of one symbol.
pub(super) struct Part {
    /// Its place in the derived block; that of the source is its place here.
    pub(super) index: usize,
    pub(super) prefix: Prefix,
    /// Whether the newest candle is derived of all that there is.
    pub(super) current: bool,
    /// Candles of which the exchange sent another row than is derived now; they are to be requested again.
    pub(super) suspect: BTreeSet<u64>,
}

/// The final rows of the newest candle, added up: the next row is all that is to be added.
#[derive(Clone, Copy)]
pub(super) struct Prefix {
    candle_index: u64,
    /// Source candles that are in the fold, from `start` to `end`.
    start: u64,
    end: u64,
    fold: Fold,
}

pub(super) const NOTHING: Prefix = Prefix { candle_index: 0, start: 0, end: 0, fold: Fold::of(Price::Trade) };

/// The rows that a candle is made of.
pub(super) struct Source<'a> {
    pub(super) words: SeriesWords<'a>,
    pub(super) state: &'a SeriesState,
}

impl Source<'_> {
    /// Index of the oldest candle that still has its slot. That is below the window: rows there are no longer
    /// requested.
    fn oldest(&self) -> u64 {
        self.state.marks.head.saturating_sub(self.words.ring.capacity as u64)
    }

    /// Whether the symbol's first candle is known and within reach.
    fn begins(&self) -> bool {
        self.state.first_bar > 0 && !self.state.is_cut && self.state.first_bar >= self.oldest()
    }

    /// Returns the oldest derived candle that lies wholly in the window: those below it do not come by derivation.
    pub(super) fn reach(&self, derivation: &Derivation) -> u64 {
        let start = self.state.window_start(self.words.ring.length);
        let candle_index = candle_index_of(derivation, start);
        candle_index + u64::from((derivation.parts_of(candle_index as i64).0.max(0) as u64) < start && !self.begins())
    }

    /// Folds the rows of a derived candle; `None` if one is missing or out of reach.
    pub(super) fn derive(
        &self,
        derivation: &Derivation,
        candle_index: u64,
        prefix: &mut Prefix,
    ) -> Option<(RowWords, RowState)> {
        let (start, end) = derivation.parts_of(candle_index as i64);
        let (start, end) = (start.max(0) as u64, end.max(0) as u64);
        let start = if self.begins() { start.max(self.state.first_bar) } else { start };
        if start < self.oldest() {
            return None;
        }
        let head = self.state.marks.head;
        if prefix.candle_index != candle_index || prefix.start != start {
            *prefix = Prefix { candle_index, start, end: start, fold: derivation.fold() };
        }
        for source_index in prefix.end..end.min(head) {
            let tag = self.words.tag(source_index);
            if tag.is_final_of(source_index) {
                prefix.fold.push(&self.words.row(source_index), tag.state());
            } else if tag.is_settled_of(source_index) {
                prefix.fold.push_hole();
            } else {
                break;
            }
            prefix.end = source_index + 1;
        }
        let mut fold = prefix.fold;
        for source_index in prefix.end..end.min(head) {
            let tag = self.words.tag(source_index);
            if tag.is_readable_of(source_index) {
                fold.push(&self.words.row(source_index), tag.state());
            } else if tag.is_settled_of(source_index) {
                fold.push_hole();
            } else {
                return None;
            }
        }
        if head < end && self.state.marks.has_live() {
            fold.push(&self.state.newest, RowState::Live);
        }
        let target = derivation.target();
        fold.finish(target.open_ms(candle_index as i64), target.end_ms(candle_index as i64), end <= head)
    }
}

impl Writer {
    /// Derives the candles of another interval, or of the days of a time zone, into a block of their own: of the same
    /// symbols, with a LENGTH of its own, taken over or replaced as any block is. From here on it is changed along with
    /// this one, and always first: a reader that sees a change here finds it there.
    ///
    /// # Errors
    ///
    /// `Derivation`, `Window` when a candle of the target has more parts than this block has rows, and as
    /// [`Self::open`].
    pub fn derive(&mut self, name: &str, target: Grid, length: usize, owner: Owner) -> Result<(), Error> {
        self.derive_into(name, target, None, length, owner)
    }

    /// As [`Self::derive`], with older rows to be fetched: candles of `fetched`, which are those of the target or make
    /// it up. See [`Self::older`].
    ///
    /// # Errors
    ///
    /// As [`Self::derive`], `Derivation` also for candles of `fetched` that do not make up the target.
    pub fn derive_and_fetch(
        &mut self,
        name: &str,
        target: Grid,
        fetched: Grid,
        length: usize,
        owner: Owner,
    ) -> Result<(), Error> {
        if fetched != target {
            Derivation::new(fetched, target)?;
        }
        self.derive_into(name, target, Some(fetched), length, owner)
    }

    fn derive_into(
        &mut self,
        name: &str,
        target: Grid,
        fetched: Option<Grid>,
        length: usize,
        owner: Owner,
    ) -> Result<(), Error> {
        let geometry = *self.block.geometry();
        let derivation = Derivation::new(geometry.grid(0), target)?.with_price(geometry.price);
        let (parts, rows) = (derivation.parts_max(), geometry.ring.length);
        if parts > rows {
            return Err(Error::Window { target: target.name(), parts, length: rows });
        }
        let symbols: Vec<String> = (0..self.series.len()).map(|index| self.block.symbol(index)).collect();
        let config = Config {
            market: geometry.market,
            price: geometry.price,
            interval: target.interval(),
            length,
            spare_symbols: geometry.symbol_capacity - symbols.len(),
            exchange: self.block.exchange(),
            symbols,
        };
        let replay_ms = self.block.value(header::REPLAY_MS);
        let mut writer = Self::open_on(target, name, &config, owner, replay_ms)?;
        if writer.block.geometry().symbol_capacity < geometry.symbol_capacity {
            // What was taken over could not follow when symbols are added here.
            writer.close(false)?;
            writer = Self::open_on(target, name, &config, owner, replay_ms)?;
        }
        let mut derived = Derived::new(derivation, fetched, writer);
        for index in 0..self.series.len() {
            derived.add_symbol(&self.block.symbol(index))?;
        }
        self.derived.push(derived);
        self.catch_up_derived();
        Ok(())
    }

    /// As [`Self::load`], into the block of that name which is derived from this one, before rows are loaded here: what
    /// is older than the rows that will be here cannot be derived again.
    ///
    /// # Errors
    ///
    /// `Name` when no such block is derived, `UnknownSymbol`.
    pub fn load_derived(
        &mut self,
        name: &str,
        symbol: &str,
        rows: &[(Row, RowState)],
        sent_ms: i64,
    ) -> Result<Report, Error> {
        let derived = self.derived_named(name)?;
        let (writer, is_fetched) = (&mut derived.writer, derived.fetched.is_some());
        let index = writer.index_of(symbol)?;
        let grid = writer.block.grid(index);
        // Days of a zone whose rules have changed since are others.
        let is_candle = |row: &Row| {
            let open_ms = row[OPEN_TIME_MS] as i64;
            grid.open_ms(grid.index_of(open_ms)) == open_ms
        };
        let rows: Vec<(Row, RowState)> = rows.iter().filter(|(row, _)| is_candle(row)).copied().collect();
        let report = writer.load(index, &rows, sent_ms);
        let state = &mut writer.series[index].state;
        if !is_fetched
            && state.first_bar == 0
            && let Some((oldest, _)) = rows.first()
        {
            // Below it nothing can be derived, and so nothing is missing.
            let mut series = SeriesWriter::new(writer.block.series(index), state);
            series.set_first_bar(grid.index_of(oldest[OPEN_TIME_MS] as i64).max(0) as u64);
            series.publish();
        }
        writer.commit();
        Ok(report)
    }

    /// Returns the derived block of that name.
    pub(super) fn derived_named(&mut self, name: &str) -> Result<&mut Derived, Error> {
        let named = self.derived.iter_mut().find(|derived| derived.writer.block.name() == name);
        named.ok_or_else(|| Error::Name { name: name.to_owned() })
    }

    /// Derives everything that the rows of this block reach.
    pub(super) fn catch_up_derived(&mut self) {
        for derived in &mut self.derived {
            for (index, series) in self.series.iter().enumerate() {
                derived.set_presence(index, series.presence);
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

    /// Derives again the candles that contain those in `touched`.
    pub(super) fn update_derived(&mut self, index: usize, mut touched: Vec<u64>) {
        touched.sort_unstable();
        touched.dedup();
        for derived in &mut self.derived {
            derived.update(self.block.series(index), &self.series[index].state, index, &touched);
        }
    }
}

impl Derived {
    /// Puts derived candles into the block of `writer`.
    pub(super) fn new(derivation: Derivation, fetched: Option<Grid>, writer: Writer) -> Self {
        Self { derivation, fetched, filled: fetched.is_none(), writer, series: Vec::new() }
    }

    /// Returns the owner of the block.
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns the owner of the block, to have it replaced by one with the same rows.
    pub(super) fn writer_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Gives the next symbol of the source its place.
    pub(super) fn add_symbol(&mut self, symbol: &str) -> Result<(), Error> {
        self.writer.add_symbol(symbol)?;
        let index = self.writer.index_of(symbol)?;
        self.series.push(Part { index, prefix: NOTHING, current: false, suspect: BTreeSet::new() });
        if self.fetched.is_some() {
            self.find(index);
        }
        Ok(())
    }

    /// Takes a series as an earlier owner left it: of its rows it is not known which the exchange sent, and what is
    /// older than them is to be fetched.
    fn find(&mut self, index: usize) {
        let words = self.writer.block.series(index);
        let series = &mut self.writer.series[index];
        let head = series.state.marks.head;
        if head == 0 {
            return;
        }
        let before = series.standing(words, self.writer.universe_bar);
        let mut writer = SeriesWriter::new(words, &mut series.state);
        writer.set_first_bar(0);
        writer.publish();
        for candle_index in series.state.window_start(words.ring.length)..head {
            if words.tag(candle_index).is_final_of(candle_index) {
                series.seen.find(candle_index, words.ring.capacity);
            }
        }
        self.writer.settle(index, before, News::None);
    }

    /// As [`Writer::forget_times`]; which rows the exchange sent stays known.
    pub(super) fn forget_times(&mut self) {
        self.writer.series.iter_mut().for_each(|series| series.seen.forget_when());
    }

    /// As [`Writer::set_presence`], for the symbol at that place of the source.
    pub(super) fn set_presence(&mut self, index: usize, presence: Presence) {
        self.writer.set_presence(self.series[index].index, presence);
    }

    /// As [`Self::set_presence`] without waking anybody.
    pub(super) fn set_presence_quietly(&mut self, index: usize, presence: Presence) {
        self.writer.set_presence_quietly(self.series[index].index, presence);
    }

    /// As [`Writer::set_calendar`], for the symbol at that place of the source.
    pub(super) fn set_calendar(&mut self, index: usize, calendar: u64, quiet_until_ms: i64) {
        self.writer.set_calendar(self.series[index].index, calendar, quiet_until_ms);
    }

    /// As [`Writer::commit`].
    pub(super) fn commit(&mut self) {
        self.writer.commit();
    }

    /// As [`Writer::close`].
    pub(super) fn close(self, unlink: bool) -> Result<(), Error> {
        self.writer.close(unlink)
    }

    /// As [`Writer::abandon`].
    pub(super) fn abandon(self) {
        self.writer.abandon();
    }

    /// Derives everything that a series of the source reaches, as after a takeover.
    pub(super) fn catch_up(&mut self, words: SeriesWords<'_>, state: &SeriesState, index: usize) {
        let touched: Vec<u64> = (state.window_start(words.ring.length)..state.marks.end()).collect();
        self.update(words, state, index, &touched);
    }

    /// Derives again the candles that contain those in `touched`, ascending, and publishes them.
    pub(super) fn update(&mut self, words: SeriesWords<'_>, state: &SeriesState, index: usize, touched: &[u64]) {
        let source = Source { words, state };
        if state.marks.end() == 0 {
            return;
        }
        let derivation = self.derivation;
        let part = &mut self.series[index];
        if touched.iter().any(|&candle_index| (part.prefix.start..part.prefix.end).contains(&candle_index)) {
            part.prefix = NOTHING;
        }
        let mine = self.writer.block.series(part.index);
        let before = self.writer.series[part.index].standing(mine, self.writer.universe_bar);
        let series = &mut self.writer.series[part.index];
        let is_fetched = self.fetched.is_some();
        let seen = &mut series.seen;
        let mut writer = SeriesWriter::new(mine, &mut series.state);
        if let Some(first) = first_bar(&source, &derivation, writer.state(), is_fetched) {
            writer.set_first_bar(first);
        }
        let mut scratch = NOTHING;
        if !is_fetched && let Some(first) = first_left(&source, &derivation, mine, writer.state(), &mut scratch) {
            writer.set_first_bar(first);
        }
        let newest = candle_index_of(&derivation, state.marks.end() - 1);
        let mut changes = Changes::default();
        let head = writer.state().marks.head;
        let mut next = writer.state().window_start(mine.ring.length);
        for &source_index in touched {
            let candle_index = candle_index_of(&derivation, source_index);
            if (next..head).contains(&candle_index) && candle_index < newest {
                let derived = source.derive(&derivation, candle_index, &mut scratch);
                let is_told = is_fetched && seen.is_told(candle_index);
                changes.below(mine, writer.state(), candle_index, derived, is_told);
                next = candle_index + 1;
            }
        }
        if touched.last().is_some_and(|&last| candle_index_of(&derivation, last) >= newest) {
            let derived = source.derive(&derivation, newest, &mut part.prefix);
            part.current = derived.is_some();
            if newest < head {
                changes.below(mine, writer.state(), newest, derived, is_fetched && seen.is_told(newest));
            } else if derived.is_some() || candle_index_of(&derivation, touched[0]) < newest {
                // The head passes candles that may have been derived before there was a newest row behind them. Without
                // a newest row, as when a batch ends in a gap, it passes those that are whole.
                let is_final = derived.is_some_and(|(_, row_state)| row_state != RowState::Live);
                let new_head = newest + u64::from(is_final);
                let oldest = new_head.saturating_sub(mine.ring.length as u64).max(writer.state().first_bar).max(head);
                for candle_index in oldest..newest {
                    if let Some(passed) = source.derive(&derivation, candle_index, &mut scratch) {
                        changes.pass(candle_index, passed);
                    }
                }
                match derived {
                    Some(derived) => changes.newest(writer.state(), newest, derived),
                    None => changes.end_behind_final(head),
                }
            }
        }
        // In these slots there may have been other candles.
        let written = changes.rewrite.iter().chain(&changes.passed).map(|row| row.candle_index);
        written.chain(std::mem::take(&mut changes.settled)).for_each(|candle_index| seen.untell(candle_index));
        part.suspect.append(&mut changes.suspect);
        let news = changes.write(&mut writer);
        if part.current {
            writer.set_received(state.marks.received_ms);
        }
        writer.publish();
        self.writer.settle(part.index, before, news);
    }
}

/// What an update changes in a derived series.
#[derive(Default)]
struct Changes {
    rewrite: Vec<RingRow>,
    corrected: u32,
    close: Vec<u64>,
    verify: Vec<u64>,
    holes: Vec<u64>,
    advance: Option<u64>,
    passed: Vec<RingRow>,
    live: Option<RowWords>,
    /// Candles that the exchange sent as they are derived.
    settled: Vec<u64>,
    /// Candles that the exchange sent otherwise.
    suspect: BTreeSet<u64>,
}

impl Changes {
    /// Takes in a candle that was derived below the head. A row that the exchange sent itself (`is_told`) stands.
    fn below(
        &mut self,
        words: SeriesWords<'_>,
        state: &SeriesState,
        candle_index: u64,
        derived: Option<(RowWords, RowState)>,
        is_told: bool,
    ) {
        let Some((row, next)) = derived else { return };
        let tag = words.tag(candle_index);
        let known = if tag.candle_index() == candle_index { tag.state() } else { RowState::Missing };
        if is_told && tag.is_final_of(candle_index) && matches!(next, RowState::Closed | RowState::Verified) {
            if agrees(&words.row(candle_index), &row) {
                self.settled.push(candle_index);
                self.verify.extend((known == RowState::Closed && next == RowState::Verified).then_some(candle_index));
            } else {
                self.suspect.insert(candle_index);
            }
            return;
        }
        let same = tag.is_readable_of(candle_index) && bits_equal(&row, &words.row(candle_index));
        match (known, next) {
            (RowState::Closed | RowState::Verified, RowState::Closed | RowState::Verified) if !same => {
                self.corrected += 1;
                self.rewrite.push(RingRow { candle_index, row, state: next });
            }
            (RowState::Closed, RowState::Verified) => self.verify.push(candle_index),
            (RowState::Live, RowState::Closed | RowState::Verified) if same => {
                self.close.push(candle_index);
                self.verify.extend((next == RowState::Verified).then_some(candle_index));
            }
            (RowState::Closed | RowState::Verified, _) | (_, RowState::Hole) if known != RowState::Missing => {}
            (RowState::Live, RowState::Live) if same => {}
            (_, RowState::Hole) => self.holes.push(candle_index),
            (RowState::Hole, RowState::Closed | RowState::Verified) => {
                self.corrected += 1;
                self.rewrite.push(RingRow { candle_index, row, state: next });
            }
            (_, RowState::Closed | RowState::Verified) => self.rewrite.push(RingRow { candle_index, row, state: next }),
            // As in a merge: nothing provisional below a final row, or where a final one was.
            (RowState::Live | RowState::Missing | RowState::Empty, RowState::Live)
                if candle_index >= state.marks.final_end =>
            {
                self.rewrite.push(RingRow { candle_index, row, state: next });
            }
            _ => {}
        }
    }

    /// Takes in a derived candle that the head passes.
    fn pass(&mut self, candle_index: u64, (row, state): (RowWords, RowState)) {
        if state == RowState::Hole {
            self.holes.push(candle_index);
        } else {
            self.passed.push(RingRow { candle_index, row, state });
        }
    }

    /// Lets the head move behind the newest final candle that it passes, as there is no row behind it; what follows
    /// that one waits until there is.
    fn end_behind_final(&mut self, head: u64) {
        let newest = self.passed.iter().rfind(|row| row.state != RowState::Live);
        let end = newest.map_or(head, |row| row.candle_index + 1);
        self.passed.retain(|row| row.candle_index < end);
        self.holes.retain(|&candle_index| candle_index < end);
        self.advance = (end > head).then_some(end);
    }

    /// Takes in the newest row, from the head on.
    fn newest(&mut self, state: &SeriesState, candle_index: u64, (row, row_state): (RowWords, RowState)) {
        let marks = &state.marks;
        if row_state == RowState::Live {
            self.advance = (candle_index > marks.head).then_some(candle_index);
            let known = candle_index == marks.head && marks.has_live() && bits_equal(&row, &state.newest);
            self.live = (!known).then_some(row);
        } else {
            self.advance = Some(candle_index + 1);
            self.passed.push(RingRow { candle_index, row, state: row_state });
        }
    }

    /// Writes it all; publishing is up to the caller.
    fn write(self, writer: &mut SeriesWriter<'_>) -> News {
        let is_final = |row: &RingRow| row.state != RowState::Live;
        let closes = !(self.close.is_empty() && self.holes.is_empty())
            || self.rewrite.iter().any(is_final)
            || self.passed.iter().any(is_final);
        let changes = !self.rewrite.is_empty() || self.advance.is_some() || self.live.is_some();
        if !self.rewrite.is_empty() {
            writer.rewrite(&self.rewrite, self.corrected);
        }
        self.close.into_iter().for_each(|candle_index| writer.close(candle_index));
        self.verify.into_iter().for_each(|candle_index| writer.verify(candle_index));
        match (self.advance, &self.live) {
            (Some(head), live) => writer.advance(head, &self.passed, live.as_ref()),
            (None, Some(live)) => writer.set_live(live),
            (None, None) => {}
        }
        self.holes.into_iter().for_each(|candle_index| writer.hole(candle_index));
        match (closes, changes) {
            (true, _) => News::Closed,
            (false, true) => News::Changed,
            (false, false) => News::None,
        }
    }
}

pub(super) fn candle_index_of(derivation: &Derivation, source_index: u64) -> u64 {
    derivation.target_of(source_index).max(0) as u64
}

/// Returns the first index of a derived series if it has changed. It is the one with the symbol's
/// first candle, or, while that is unknown or out of reach, the first that the source's window held whole when the
/// series was empty: what lies below cannot be derived, and is not missing. Where that is fetched, it is.
fn first_bar(source: &Source<'_>, derivation: &Derivation, mine: &SeriesState, is_fetched: bool) -> Option<u64> {
    if is_fetched && !source.begins() {
        return None;
    }
    let first = if source.begins() {
        candle_index_of(derivation, source.state.first_bar)
    } else {
        let start = source.state.window_start(source.words.ring.length);
        let candle_index = candle_index_of(derivation, start);
        candle_index + u64::from((derivation.parts_of(candle_index as i64).0.max(0) as u64) < start)
    };
    let wanted = source.begins() || mine.marks.head == 0 || first < mine.first_bar;
    (wanted && first != mine.first_bar).then_some(first)
}

/// Returns the first index of a derived series if what was the first has left the source's window before the rows that
/// it is made of were loaded, as happens when a candle closes during a start: they are no longer requested, so it is not
/// missing either.
fn first_left(
    source: &Source<'_>,
    derivation: &Derivation,
    words: SeriesWords<'_>,
    mine: &SeriesState,
    scratch: &mut Prefix,
) -> Option<u64> {
    if source.begins() || mine.first_bar < mine.window_start(words.ring.length) {
        return None;
    }
    let window = source.state.window_start(source.words.ring.length);
    let is_left = |candle_index: u64, scratch: &mut Prefix| {
        !words.tag(candle_index).is_settled_of(candle_index)
            && (derivation.parts_of(candle_index as i64).0.max(0) as u64) < window
            && source.derive(derivation, candle_index, scratch).is_none()
    };
    let first = (mine.first_bar..mine.marks.head).find(|&candle_index| !is_left(candle_index, scratch))?;
    (first != mine.first_bar).then_some(first)
}
