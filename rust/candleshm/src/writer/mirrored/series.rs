//! One series as a leader tells it.

use super::{Applied, Clock};
use crate::columns::{COLUMNS, Row, bits_equal};
use crate::layout::{RowState, symbol};
use crate::merge::{Confirmations, Tally};
use crate::publish::{RingRow, SeriesState, SeriesWriter};
use crate::replica::message::{Head, Kind, Update};
use crate::ring::SeriesWords;
use crate::sync::Ordering::Relaxed;
use crate::writer::Writer;

/// What an update changes.
#[derive(Default)]
struct Changes {
    rewrite: Vec<RingRow>,
    close: Vec<u64>,
    verify: Vec<u64>,
    unverify: Vec<u64>,
    holes: Vec<u64>,
    advance: Option<u64>,
    passed: Vec<RingRow>,
    live: Option<Row>,
    tally: Tally,
}

impl Writer {
    /// Puts in what an update tells, and publishes it.
    pub(super) fn apply_update(
        &mut self,
        index: usize,
        update: &Update,
        head: &Head,
        clock: Clock,
        applied: &mut Applied,
    ) {
        let followed = &mut self.mirrored.series[index];
        // An answer holds what was told up to its number; a message of changes is newer than all with a lower one.
        let is_answer = head.kind == Kind::Answer;
        let is_newer = |told: u64| if is_answer { head.sequence >= told } else { head.sequence > told };
        let (counts, rows_count) = (is_newer(followed.told), is_newer(followed.rows_told));
        followed.told = followed.told.max(head.sequence);
        if is_answer || !update.rows.is_empty() {
            followed.rows_told = followed.rows_told.max(head.sequence);
        }
        let made_ns = if is_answer { followed.waiting_since_ns } else { Some(0) };
        if is_answer && !update.has_more {
            (followed.requested_ns, followed.waiting_since_ns) = (None, None);
            followed.differs |= update.differs;
        }
        let clock = match made_ns {
            // Whoever sent it, it left after our request: that makes what it says older rather than fresher.
            Some(made_ns) if is_answer => Clock { offset_ns: made_ns as i64 - head.sent_boot_ns as i64, ..clock },
            _ => clock,
        };
        if counts {
            self.apply_entry(index, update.presence, update.calendar);
        }
        let (before, old_head) = self.standing(index);
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let entry = words.entry;
        if old_head == 0 {
            // Nothing was published yet, so nobody has used the grid.
            entry[symbol::PHASE_DAYS].store(update.phase_days, Relaxed);
        } else if self.block.grid(index) != self.block.geometry().grid(update.phase_days) {
            return;
        }
        if update.newest.is_none() && update.rows.is_empty() && old_head == 0 {
            return;
        }
        let changes = Changes::of(words, &series.state, update, counts, rows_count);
        let is_shown = old_head > 0 || changes.advance.is_some();
        let takes_first = counts && is_shown && series.state.first_bar != update.first_bar;
        let touched = changes.touched(old_head, takes_first.then_some(update.first_bar));
        let tally = changes.tally;
        let mut writer = SeriesWriter::new(words, &mut series.state);
        if takes_first {
            writer.set_first_bar(update.first_bar);
        }
        changes.write(&mut writer, &mut series.seen);
        if writer.state().marks.head == 0 {
            return;
        }
        if counts && update.newest.is_some() {
            writer.set_revision(update.revision);
            if made_ns.is_some() {
                writer.set_received(clock.here_ms(update.received_ms).max(writer.state().marks.received_ms));
            }
        }
        applied.rows += tally.changed;
        applied.closed += tally.closed;
        self.finish(index, before, tally, || touched);
    }
}

impl Changes {
    /// Decides what an update changes in a series. `counts`: it is newer than what was told; `rows_count`: likewise of
    /// rows. Otherwise it only fills what is not there.
    fn of(words: SeriesWords<'_>, state: &SeriesState, update: &Update, counts: bool, rows_count: bool) -> Self {
        let mut changes = Self::default();
        let (head, length) = (state.marks.head, words.ring.length as u64);
        let has_live_news = matches!(update.newest, Some((RowState::Live, _)));
        // The newest final row stands in the ring, too.
        let repeated = update.newest.filter(|(state, _)| *state != RowState::Live).map(|(state, row)| RingRow {
            candle_index: update.head - 1,
            row,
            state,
        });
        let has_it =
            repeated.is_none_or(|row| update.rows.last().is_some_and(|last| last.candle_index == row.candle_index));
        let rows = || update.rows.iter().chain(repeated.iter().filter(|_| !has_it));
        let ends_final = rows().last().is_some_and(|row| {
            row.candle_index + 1 == update.head && matches!(row.state, RowState::Closed | RowState::Verified)
        });
        // Without its newest row nothing can be said of what lies beyond the head.
        let moves = update.head > head && (has_live_news || ends_final);
        let new_head = if moves { update.head } else { head };
        let bottom = new_head.saturating_sub(length);
        for row in rows().filter(|row| row.candle_index >= bottom && row.candle_index < new_head) {
            if row.candle_index < head {
                changes.below(words, state, row, rows_count);
            } else {
                changes.pass(row);
            }
        }
        if moves {
            changes.advance = Some(new_head);
            // The live row so far stays as a provisional row where nothing was told of its candle.
            let is_told =
                changes.passed.first().is_some_and(|row| row.candle_index == head) || changes.holes.contains(&head);
            if state.marks.has_live() && !is_told && head >= bottom {
                changes.passed.insert(0, RingRow { candle_index: head, row: state.newest, state: RowState::Live });
            }
        }
        if let Some((RowState::Live, row)) = update.newest
            && update.head == new_head
            && (moves || counts || !state.marks.has_live())
            && !(!moves && state.marks.has_live() && bits_equal(&row, &state.newest))
        {
            changes.live = Some(row);
            changes.tally.changed += 1;
        }
        changes
    }

    /// Takes in a row below the head. What is final stays final.
    fn below(&mut self, words: SeriesWords<'_>, state: &SeriesState, row: &RingRow, counts: bool) {
        let candle_index = row.candle_index;
        let tag = words.tag(candle_index);
        let known = if tag.candle_index() == candle_index { tag.state() } else { RowState::Missing };
        let same = tag.is_readable_of(candle_index) && bits_equal(&row.row, &words.row(candle_index));
        match (known, row.state) {
            (RowState::Closed, RowState::Verified) if same => {
                self.tally.verified += 1;
                self.verify.push(candle_index);
            }
            (RowState::Verified, RowState::Closed) if same && counts => self.unverify.push(candle_index),
            (RowState::Closed | RowState::Verified, RowState::Closed | RowState::Verified) if !same && counts => {
                self.tally.corrected += 1;
                self.rewrite(row);
            }
            (RowState::Closed | RowState::Verified, _) => {}
            (RowState::Live, RowState::Closed | RowState::Verified) if same => {
                self.tally.closed += 1;
                self.close.push(candle_index);
                self.verify.extend((row.state == RowState::Verified).then_some(candle_index));
            }
            (_, RowState::Closed | RowState::Verified) => {
                self.tally.closed += 1;
                self.rewrite(row);
            }
            (RowState::Missing | RowState::MissingFinal | RowState::Empty, RowState::Hole) => {
                self.tally.holes += 1;
                self.holes.push(candle_index);
            }
            (RowState::Live, RowState::Hole) if counts => {
                // The exchange has taken it back.
                self.tally.holes += 1;
                self.rewrite(&RingRow { candle_index, row: [f64::NAN; COLUMNS], state: RowState::Hole });
            }
            // As in a merge: nothing provisional below a final row, or where a final one was.
            (RowState::Missing | RowState::Empty, RowState::Live) if candle_index >= state.marks.final_end => {
                self.rewrite(row);
            }
            (RowState::Live, RowState::Live) if !same && counts => self.rewrite(row),
            _ => {}
        }
    }

    fn rewrite(&mut self, row: &RingRow) {
        self.tally.changed += 1;
        self.rewrite.push(*row);
    }

    /// Takes in a row that the head passes.
    fn pass(&mut self, row: &RingRow) {
        match row.state {
            RowState::Hole => {
                self.tally.holes += 1;
                self.holes.push(row.candle_index);
            }
            state => {
                self.tally.changed += 1;
                self.tally.closed += usize::from(state != RowState::Live);
                self.passed.push(*row);
            }
        }
    }

    /// Returns the candles that change.
    fn touched(&self, head: u64, first_bar: Option<u64>) -> Vec<u64> {
        let rewritten = self.rewrite.iter().map(|row| row.candle_index);
        let settled = self.close.iter().chain(&self.verify).chain(&self.unverify).chain(&self.holes).copied();
        let mut touched: Vec<u64> = rewritten.chain(settled).chain(first_bar).collect();
        if let Some(new_head) = self.advance {
            // Nothing below the first of the new rows was ever there when the series was empty.
            let from = if head == 0 { self.passed.first().map_or(new_head, |row| row.candle_index) } else { head };
            touched.extend(from..=new_head);
        } else if self.live.is_some() {
            touched.push(head);
        }
        touched
    }

    /// Writes it all; publishing is up to the caller. What was known of where these rows came from is not known any more.
    fn write(self, writer: &mut SeriesWriter<'_>, seen: &mut Confirmations) {
        let written = self.rewrite.iter().chain(&self.passed).map(|row| row.candle_index);
        let settled = self.close.iter().chain(&self.verify).chain(&self.unverify).copied();
        written.chain(settled).for_each(|candle_index| seen.untell(candle_index));
        if !self.rewrite.is_empty() {
            // Corrections are counted as the leader counts them.
            writer.rewrite(&self.rewrite, 0);
        }
        self.close.into_iter().for_each(|candle_index| writer.close(candle_index));
        self.verify.into_iter().for_each(|candle_index| writer.verify(candle_index));
        self.unverify.into_iter().for_each(|candle_index| writer.unverify(candle_index));
        writer.refresh_newest();
        match (self.advance, &self.live) {
            (Some(head), live) => writer.advance(head, &self.passed, live.as_ref()),
            (None, Some(live)) => writer.set_live(live),
            (None, None) => {}
        }
        if self.live.is_some() {
            seen.untell(writer.state().marks.head);
        }
        self.holes.into_iter().for_each(|candle_index| writer.hole(candle_index));
    }
}
