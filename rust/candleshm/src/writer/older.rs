//! Rows of a derived block that do not come by derivation: the exchange is asked for them.
//!
//! The source does not reach back so far, or has lost its own. What is fetched are candles of the block's interval, or
//! smaller ones that make it up. They are merged as the rows of any response, and where rows were derived as well the two are compared. A difference
//! is counted, and the exchange's row stands.

use super::derived::{Derived, NOTHING, Part, Source, candle_index_of};
use super::{Error, Missing, Report, Writer};
use crate::columns::{OPEN_TIME_MS, Row, plausible};
use crate::derive::{Derivation, agrees};
use crate::interval::Grid;
use crate::layout::RowState;
use crate::merge::{RequestWindow, coverage, hole_apart_ms};
use crate::read::SeriesReader;

/// What of a derived series is to be requested. Ranges are half-open, of open times in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Older {
    /// Rows that are neither there, nor confirmed absent, nor to come by derivation.
    pub rows: usize,
    /// Which of them to request next.
    pub missing: Missing,
    /// Up to where derived rows follow the newest missing range without a gap: there the two can be compared.
    pub seam_end_ms: i64,
    /// Rows that the exchange sent otherwise than they are derived now.
    pub suspect_ms: Option<(i64, i64)>,
}

/// What a response about a derived series did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fetched {
    /// As of any response.
    pub report: Report,
    /// Rows that differ from the derived ones.
    pub conflicts: usize,
}

/// What a response tells about the candles of a derived block.
struct Told {
    rows: Vec<Row>,
    window: RequestWindow,
    /// Rows that cannot be true; nothing is made of such a response.
    refused: usize,
}

impl Writer {
    /// Sets whether the derived block of that name has what is to be fetched: before, readers do not see it as ready.
    ///
    /// # Errors
    ///
    /// `Name`.
    pub fn set_filled(&mut self, name: &str, filled: bool) -> Result<(), Error> {
        self.derived_named(name)?.filled = filled;
        Ok(())
    }

    /// Returns what is to be requested for a series of the derived block of that name; nothing as long as nothing of
    /// it could be derived.
    ///
    /// # Errors
    ///
    /// `Name`.
    pub fn older(&self, name: &str, index: usize) -> Result<Older, Error> {
        let named = self.derived.iter().find(|derived| derived.writer.block.name() == name);
        let derived = named.ok_or_else(|| Error::Name { name: name.to_owned() })?;
        derived.older(&self.source(index), index)
    }

    /// As [`Self::ingest`], of a response about a derived series: to a request for the candles that are fetched for it.
    /// Rows from the oldest that is not final on are left out.
    ///
    /// # Errors
    ///
    /// `Name`.
    pub fn ingest_older(
        &mut self,
        name: &str,
        index: usize,
        rows: &[Row],
        window: &RequestWindow,
        now_boot_ms: u64,
    ) -> Result<Fetched, Error> {
        let named = self.derived.iter().position(|derived| derived.writer.block.name() == name);
        let place = named.ok_or_else(|| Error::Name { name: name.to_owned() })?;
        let source = Source { words: self.block.series(index), state: &self.series[index].state };
        Ok(self.derived[place].ingest(&source, index, rows, window, now_boot_ms))
    }

    fn source(&self, index: usize) -> Source<'_> {
        Source { words: self.block.series(index), state: &self.series[index].state }
    }
}

impl Derived {
    fn older(&self, source: &Source<'_>, index: usize) -> Result<Older, Error> {
        let Part { index, ref suspect, .. } = self.series[index];
        let (block, series) = (&self.writer.block, &self.writer.series[index]);
        let (words, state) = (block.series(index), &series.state);
        if self.fetched.is_none() || state.marks.head == 0 || source.state.marks.end() == 0 {
            return Ok(Older::default());
        }
        let grid = self.derivation.target();
        let times_of = |start: u64, end: u64| (grid.open_ms(start as i64), grid.open_ms(end as i64));
        let suspect_ms = suspect.first().zip(suspect.last()).map(|(&oldest, &newest)| times_of(oldest, newest + 1));
        if state.shown_gaps(words).0 == 0 {
            return Ok(Older { suspect_ms, ..Older::default() });
        }
        let reader = SeriesReader::new(block, index);
        let (shown, reach) = (reader.shown()?, source.reach(&self.derivation));
        let is_wanted = |candle_index: u64| {
            candle_index < reach && shown.contains(&candle_index) && reader.is_missing(candle_index)
        };
        let newest =
            reader.newest_missing(|candle_index| candle_index >= reach || series.seen.is_absent(candle_index))?;
        let unconfirmed = series.seen.unconfirmed(is_wanted);
        let is_derived = |&candle_index: &u64| reader.is_final(candle_index) && !series.seen.is_told(candle_index);
        let seam_end = newest
            .as_ref()
            .map_or(0, |range| range.end + (range.end..state.marks.final_end).take_while(is_derived).count() as u64);
        Ok(Older {
            rows: shown.clone().filter(|&candle_index| is_wanted(candle_index)).count(),
            missing: Missing {
                newest_ms: newest.map(|range| times_of(range.start, range.end)),
                unconfirmed_ms: unconfirmed.as_ref().map(|found| times_of(found.candles.start, found.candles.end)),
                confirm_from_ms: unconfirmed.map_or(0, |found| found.from_ms),
            },
            seam_end_ms: grid.open_ms(seam_end as i64),
            suspect_ms,
        })
    }

    fn ingest(
        &mut self,
        source: &Source<'_>,
        index: usize,
        rows: &[Row],
        window: &RequestWindow,
        now_boot_ms: u64,
    ) -> Fetched {
        let at = self.series[index].index;
        let grid = self.derivation.target();
        let Some(fetched) = self.fetched.filter(|_| self.writer.series[at].state.marks.head > 0) else {
            return Fetched { report: self.writer.report(at), conflicts: 0 };
        };
        let told = if fetched == grid { self.cut(at, rows, window) } else { self.fold(at, fetched, rows, window) };
        if told.refused > 0 {
            let mut report = self.writer.report(at);
            (report.tally.rows, report.tally.refused) = (rows.len(), told.refused);
            return Fetched { report, conflicts: 0 };
        }
        let Told { mut rows, window, .. } = told;
        let (conflicts, agreed) = self.compare(source, at, &mut rows, &window);
        let report = self.writer.merge(at, &rows, &window, now_boot_ms);
        let series = &mut self.writer.series[at];
        for candle_index in agreed {
            series.seen.untell(candle_index);
        }
        let held = held(grid, &rows);
        let (start, end) = coverage(grid, &window, rows.len(), held);
        self.series[index].suspect.retain(|candle_index| !(start..end).contains(candle_index));
        self.writer.commit();
        Fetched { report, conflicts }
    }

    /// Returns a response about candles of this block without those that are not settled here.
    fn cut(&self, at: usize, rows: &[Row], window: &RequestWindow) -> Told {
        let (grid, end) = (self.derivation.target(), self.writer.series[at].state.marks.final_end);
        let end_ms = grid.open_ms(end as i64);
        let kept: Vec<Row> = rows.iter().filter(|row| (row[OPEN_TIME_MS] as i64) < end_ms).copied().collect();
        let limit = window.limit.saturating_sub(rows.len() - kept.len());
        let until_ms = window.end_ms.map_or(end_ms - 1, |until_ms| until_ms.min(end_ms - 1));
        let refused = kept.iter().filter(|row| plausible(row, self.writer.block.geometry().price).is_err()).count();
        Told { rows: kept, window: RequestWindow { limit, end_ms: Some(until_ms), ..*window }, refused }
    }

    /// Makes candles of this block of smaller ones of the exchange. One without all its rows counts when a second
    /// response lacks them as well.
    fn fold(&self, at: usize, fetched: Grid, rows: &[Row], window: &RequestWindow) -> Told {
        let series = &self.writer.series[at];
        let target = self.derivation.target();
        let refused = rows.iter().filter(|row| plausible(row, self.writer.block.geometry().price).is_err()).count();
        let mut small: Vec<(u64, &Row)> =
            rows.iter().map(|row| (fetched.index_of(row[OPEN_TIME_MS] as i64).max(0) as u64, row)).collect();
        small.sort_by_key(|&(candle_index, _)| candle_index);
        small.dedup_by_key(|&mut (candle_index, _)| candle_index);
        let ends = small.first().zip(small.last()).map(|(oldest, newest)| (oldest.0, newest.0));
        let (start, mut end) = coverage(fetched, window, rows.len(), ends);
        let newest = ends.map(|(_, newest)| newest);
        while end > start && !window.is_final(fetched, end - 1, newest) {
            end -= 1;
        }
        let mut told = Told { rows: Vec::new(), window: *window, refused };
        let Ok(derivation) = Derivation::new(fetched, target) else { return told };
        let parts_of = |candle_index: u64| {
            let (first, last) = derivation.parts_of(candle_index as i64);
            (first.max(0) as u64, last.max(0) as u64)
        };
        let first = candle_index_of(&derivation, start);
        let first = if parts_of(first).0 < start { first + 1 } else { first };
        let newest_end = candle_index_of(&derivation, end).min(series.state.marks.final_end);
        told.window = RequestWindow {
            limit: usize::MAX,
            start_ms: (start > 0).then(|| target.open_ms(first as i64)),
            end_ms: Some(target.open_ms(newest_end.max(first) as i64) - 1),
            patience_ms: 0,
            ..*window
        };
        let window_start = series.state.window_start(self.writer.block.geometry().ring.length);
        for candle_index in first.max(window_start)..newest_end {
            let (part_start, part_end) = parts_of(candle_index);
            let parts =
                small.partition_point(|part| part.0 < part_start)..small.partition_point(|part| part.0 < part_end);
            let mut fold = self.derivation.fold();
            small[parts.clone()].iter().for_each(|(_, row)| fold.push(row, RowState::Closed));
            let is_whole = parts.len() as u64 == part_end - part_start;
            let is_confirmed = series
                .seen
                .absent_since_ms(candle_index)
                .is_some_and(|since_ms| window.sent_ms - since_ms >= hole_apart_ms(window.settle_ms));
            let (open_ms, end_ms) = (target.open_ms(candle_index as i64), target.end_ms(candle_index as i64));
            if let Some((row, _)) = fold.finish(open_ms, end_ms, true)
                && (is_whole || is_confirmed)
            {
                told.rows.push(row);
            }
        }
        told
    }

    /// Compares final rows of a response with derived ones. Returns how many differ, and which do not; of these the
    /// derived row stays.
    fn compare(&self, source: &Source<'_>, at: usize, rows: &mut [Row], window: &RequestWindow) -> (usize, Vec<u64>) {
        let (words, series) = (self.writer.block.series(at), &self.writer.series[at]);
        let grid = self.derivation.target();
        let newest = held(grid, rows).map(|(_, newest)| newest);
        let (mut conflicts, mut agreed) = (0, Vec::new());
        let mut scratch = NOTHING;
        for row in rows {
            let candle_index = grid.index_of(row[OPEN_TIME_MS] as i64).max(0) as u64;
            if !window.is_final(grid, candle_index, newest) {
                continue;
            }
            let is_there = words.tag(candle_index).is_final_of(candle_index);
            let is_derived = is_there && !series.seen.is_told(candle_index);
            let derived = source
                .derive(&self.derivation, candle_index, &mut scratch)
                .filter(|&(_, state)| matches!(state, RowState::Closed | RowState::Verified))
                .map(|(row, _)| row)
                .or_else(|| is_derived.then(|| words.row(candle_index)));
            match derived {
                Some(derived) if agrees(row, &derived) => {
                    if is_derived {
                        *row = words.row(candle_index);
                    }
                    agreed.push(candle_index);
                }
                Some(_) => conflicts += 1,
                None => {}
            }
        }
        (conflicts, agreed)
    }
}

/// Returns the first and the last candle of rows.
fn held(grid: Grid, rows: &[Row]) -> Option<(u64, u64)> {
    let indices = || rows.iter().map(|row| grid.index_of(row[OPEN_TIME_MS] as i64).max(0) as u64);
    indices().min().zip(indices().max())
}
