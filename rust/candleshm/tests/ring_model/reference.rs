//! A series as a map from candle index to row: slow, without a ring, a tag or a seqlock, and obviously right.

use std::collections::{BTreeMap, BTreeSet};

use candleshm::columns::{Row, TRADES, VOLUME, bits_equal};
use candleshm::interval::Grid;
use candleshm::layout::RowState;
use candleshm::merge::{CONTRADICTED_MS, CURRENT_MS, RequestWindow, Tally};
use candleshm::read::Gap;
use candleshm::writer::Missing;

/// A row as the exchange sent it, and what whoever made it up knows about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kline {
    /// The candle it describes.
    pub(crate) candle_index: u64,
    /// Whether it can be true, the clock aside.
    pub(crate) plausible: bool,
    /// Its values.
    pub(crate) row: Row,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    row: Row,
    is_final: bool,
    sent_ms: i64,
}

/// One series.
#[derive(Debug)]
pub(crate) struct Reference {
    grid: Grid,
    length: u64,
    rows: BTreeMap<u64, Known>,
    holes: BTreeSet<u64>,
    /// When candles were requested in vain: the first and the last sending time.
    absent: BTreeMap<u64, (i64, i64)>,
    /// First candle index that is not in the ring.
    pub(crate) head: u64,
    /// First candle index that is not final; never goes down.
    pub(crate) final_end: u64,
    /// The symbol's very first candle index, 0 while unknown.
    pub(crate) first_bar: u64,
    /// Corrections of closed rows.
    pub(crate) revision: u32,
    /// When the newest response came.
    pub(crate) received_ms: u64,
}

impl Reference {
    pub(crate) fn new(grid: Grid, length: usize) -> Self {
        Self {
            grid,
            length: length as u64,
            rows: BTreeMap::new(),
            holes: BTreeSet::new(),
            absent: BTreeMap::new(),
            head: 0,
            final_end: 0,
            first_bar: 0,
            revision: 0,
            received_ms: 0,
        }
    }

    /// The oldest candle index of the window.
    pub(crate) fn window_start(&self) -> u64 {
        self.head.saturating_sub(self.length).max(self.first_bar).min(self.head)
    }

    /// The row of `candle_index`, if it may be shown.
    pub(crate) fn row(&self, candle_index: u64) -> Option<&Row> {
        self.rows.get(&candle_index).map(|known| &known.row)
    }

    /// What the row of `candle_index` is worth.
    pub(crate) fn state(&self, candle_index: u64) -> RowState {
        match self.rows.get(&candle_index) {
            Some(known) if known.is_final => RowState::Closed,
            Some(_) => RowState::Live,
            None if self.holes.contains(&candle_index) => RowState::Hole,
            None => RowState::Missing,
        }
    }

    /// Whether the newest row is one that may still change.
    pub(crate) fn has_live(&self) -> bool {
        self.rows.contains_key(&self.head)
    }

    /// The newest row.
    pub(crate) fn newest(&self) -> Option<&Row> {
        self.rows.last_key_value().map(|(_, known)| &known.row)
    }

    /// The candle indices of the newest LENGTH slots, the live row's included, that lie in the ring.
    fn shown(&self) -> std::ops::Range<u64> {
        let end = self.head + u64::from(self.has_live());
        end.saturating_sub(self.length).max(self.window_start())..self.head
    }

    /// Candle indices in a state, of those shown.
    pub(crate) fn count(&self, state: RowState) -> usize {
        self.shown().filter(|&candle_index| self.state(candle_index) == state).count()
    }

    /// Whether nothing more is to come for `candle_index`, which lies in the window.
    pub(crate) fn is_settled(&self, candle_index: u64) -> bool {
        matches!(self.state(candle_index), RowState::Closed | RowState::Hole)
    }

    /// Runs of candle indices without a row.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for candle_index in self.shown().filter(|candle_index| !self.rows.contains_key(candle_index)) {
            let hole = self.holes.contains(&candle_index);
            match gaps.last_mut() {
                Some(gap) if gap.end == candle_index && gap.hole == hole => gap.end += 1,
                _ => gaps.push(Gap { start: candle_index, end: candle_index + 1, hole }),
            }
        }
        gaps
    }

    /// What to request next of the missing rows: the newest run that was never lacked; and from the oldest to the
    /// newest of those that were not lacked for longest, give or take the settle time, with the time that confirms them.
    pub(crate) fn missing(&self, settle_ms: i64) -> Missing {
        let missing = || self.shown().filter(|&candle_index| self.state(candle_index) == RowState::Missing);
        let never: BTreeSet<u64> = missing().filter(|candle_index| !self.absent.contains_key(candle_index)).collect();
        let newest = never.last().map(|&newest| {
            let oldest = (0..=newest).rev().take_while(|candle_index| never.contains(candle_index)).last();
            (oldest.expect("the newest is one of them"), newest)
        });
        let lacked = || missing().filter_map(|index| self.absent.get(&index).map(|&(_, last_ms)| (index, last_ms)));
        let apart_ms = settle_ms.max(1);
        let group: Vec<(u64, i64)> =
            lacked().filter(|&(_, last_ms)| lacked().all(|(_, other_ms)| last_ms - other_ms <= apart_ms)).collect();
        let times_of =
            |(oldest, newest): (u64, u64)| (self.grid.open_ms(oldest as i64), self.grid.open_ms(newest as i64 + 1));
        Missing {
            newest_ms: newest.map(times_of),
            unconfirmed_ms: group.first().zip(group.last()).map(|(oldest, newest)| times_of((oldest.0, newest.0))),
            confirm_from_ms: group.iter().map(|&(_, last_ms)| last_ms + apart_ms).max().unwrap_or(0),
        }
    }

    /// What only the collector's process knows is lost with it.
    pub(crate) fn forget(&mut self) {
        self.absent.clear();
        for known in self.rows.values_mut() {
            known.sent_ms = 0;
        }
    }

    /// Takes in a response; returns the counts and the final candles whose values changed.
    pub(crate) fn merge(&mut self, request: &RequestWindow, klines: &[Kline], now_boot_ms: u64) -> (Tally, Vec<u64>) {
        let mut tally = Tally { rows: klines.len(), ..Tally::default() };
        let mut revised = Vec::new();
        let mut best: BTreeMap<u64, Row> = BTreeMap::new();
        for kline in klines {
            let beyond = self.grid.open_ms(kline.candle_index as i64) > request.received_ms;
            if !kline.plausible || beyond {
                tally.refused += 1;
                tally.beyond += usize::from(kline.plausible);
            } else if best.get(&kline.candle_index).is_none_or(|other| rank(&kline.row) > rank(other)) {
                best.insert(kline.candle_index, kline.row);
            }
        }
        let present: BTreeSet<u64> = best.keys().copied().collect();
        // A picture with a later row was made after the candle's end; any other may be an old one, for a while.
        let waits_ms = |candle_index: u64| if present.last() > Some(&candle_index) { 0 } else { request.patience_ms };
        let is_final = |candle_index: u64| {
            self.grid.end_ms(candle_index as i64) + request.settle_ms.max(waits_ms(candle_index)) <= request.sent_ms
        };
        // The newest row, when it shows less than was seen before, is an old picture of a candle still in progress.
        if let Some((&newest, row)) = best.last_key_value()
            && (request.from_end || klines.len() < request.limit)
            && request.end_ms.is_none_or(|end_ms| end_ms >= self.grid.end_ms(newest as i64))
            && self.rows.get(&newest).is_some_and(|known| row[TRADES] < known.row[TRADES])
        {
            best.remove(&newest);
        }
        let held = best.first_key_value().map(|(&candle_index, _)| candle_index)
            ..best.last_key_value().map(|(&candle_index, _)| candle_index);

        let (old_head, old_final) = (self.head, self.final_end);
        let old_newest = self.rows.last_key_value().map(|(&candle_index, _)| candle_index);
        if let Some(newest) = held.end {
            self.head = self.head.max(if is_final(newest) { newest + 1 } else { newest });
        }
        let bottom = self.head.saturating_sub(self.length);
        for (&candle_index, row) in &best {
            if candle_index < bottom {
                tally.older += 1;
                continue;
            }
            self.first_bar = self.first_bar.min(candle_index);
            let new = Known { row: *row, is_final: is_final(candle_index), sent_ms: request.sent_ms };
            let old = self.rows.get(&candle_index).copied();
            let agrees = |old: Known| old.is_final && new.is_final && bits_equal(&old.row, &new.row);
            tally.agreed += usize::from(old.is_some_and(agrees));
            let wins = match old {
                // The rows of a final response outrank those of an early one, and later rows outrank the
                // rest.
                Some(old) => (new.is_final, new.sent_ms, rank(&new.row)) >= (old.is_final, old.sent_ms, rank(&old.row)),
                // Below `final` readers know that every row is final, and that a hole has no row.
                None => new.is_final || candle_index >= old_final && !self.holes.contains(&candle_index),
            };
            if !wins {
                continue;
            }
            let was_final = old.is_some_and(|old| old.is_final);
            // That there was no row was published as well.
            tally.corrected += usize::from(self.holes.contains(&candle_index));
            let changed = old.is_none_or(|old| !bits_equal(&old.row, &new.row));
            tally.changed += usize::from(changed);
            tally.closed += usize::from(new.is_final && !was_final);
            if was_final && changed {
                tally.corrected += 1;
                revised.push(candle_index);
            }
            self.holes.remove(&candle_index);
            self.rows.insert(candle_index, new);
        }
        self.revision += tally.corrected as u32;
        // What is older than the window is gone for good.
        self.rows = self.rows.split_off(&bottom);
        self.holes = self.holes.split_off(&bottom);
        let provisional = self.rows.iter().find(|&(&candle_index, known)| candle_index < self.head && !known.is_final);
        self.final_end = self.final_end.max(provisional.map_or(self.head, |(&candle_index, _)| candle_index));

        let full = klines.len() >= request.limit;
        let open_ended = request.end_ms.is_none() && (request.from_end || !full);
        if open_ended && held.end >= old_newest || held.end.is_some_and(|candle_index| candle_index >= old_head) {
            // A candle that ended a while ago may come from a response that is as old.
            let ended_ms = held.end.map_or(i64::MAX, |candle_index| self.grid.end_ms(candle_index as i64));
            let late_ms = request.received_ms.saturating_sub(ended_ms).saturating_sub(request.settle_ms + CURRENT_MS);
            self.received_ms = self.received_ms.max(now_boot_ms - (late_ms.max(0) as u64).min(now_boot_ms));
        }
        (tally.holes, tally.absent) = self.conclude(request, &tally, full, held, &present);
        (tally, revised)
    }

    /// Concludes that rows which a response does not hold do not exist; returns the number of new holes, and
    /// of rows that were lacked for the first time.
    fn conclude(
        &mut self,
        request: &RequestWindow,
        tally: &Tally,
        full: bool,
        held: std::ops::Range<Option<u64>>,
        present: &BTreeSet<u64>,
    ) -> (usize, usize) {
        let would_hold = |candle_index: u64| {
            let (open_ms, end_ms) = (self.grid.open_ms(candle_index as i64), self.grid.end_ms(candle_index as i64));
            let shown = match (full, request.from_end) {
                (false, _) => true,
                (true, true) => held.start.is_some_and(|oldest| candle_index >= oldest),
                (true, false) => held.end.is_some_and(|newest| candle_index <= newest),
            };
            shown
                && request.start_ms.is_none_or(|start_ms| open_ms >= start_ms)
                && request.end_ms.is_none_or(|requested_end_ms| end_ms - 1 <= requested_end_ms)
                && end_ms <= request.sent_ms - request.settle_ms
        };
        let is_evident = |candle_index: u64| {
            held.end > Some(candle_index)
                || self.grid.end_ms(candle_index as i64) + request.patience_ms <= request.sent_ms
        };
        let start = self.window_start();
        let open: Vec<u64> = (start..self.head).filter(|&candle_index| !self.is_settled(candle_index)).collect();
        self.absent.retain(|candle_index, _| open.contains(candle_index));
        let lacks = |candle_index: u64| {
            would_hold(candle_index) && !present.contains(&candle_index) && is_evident(candle_index)
        };
        if tally.refused > 0 || !open.iter().any(|candle_index| lacks(*candle_index)) {
            return (0, 0);
        }
        let forgotten = (start..self.head).any(|candle_index| {
            would_hold(candle_index) && self.state(candle_index) == RowState::Closed && !present.contains(&candle_index)
        });
        let apart_ms = if forgotten { CONTRADICTED_MS } else { request.settle_ms };
        let known_absent = self.absent.len();
        let mut confirmed = BTreeSet::new();
        for &candle_index in open.iter().filter(|candle_index| lacks(**candle_index)) {
            let (first_ms, last_ms) = self.absent.get(&candle_index).copied().unwrap_or((i64::MAX, i64::MIN));
            let span = (first_ms.min(request.sent_ms), last_ms.max(request.sent_ms));
            self.absent.insert(candle_index, span);
            if span.1 - span.0 >= apart_ms.max(request.settle_ms).max(1) {
                confirmed.insert(candle_index);
            }
        }
        let fresh = self.absent.len() - known_absent;
        let oldest = (start..self.head).find(|candle_index| self.rows.contains_key(candle_index)).unwrap_or(self.head);
        let nothing_below = start > 0 && would_hold(start - 1) && tally.older == 0;
        let begins = oldest > start
            && nothing_below
            && open.iter().all(|candle_index| *candle_index >= oldest || confirmed.contains(candle_index));
        if begins {
            self.first_bar = oldest;
            confirmed = confirmed.split_off(&oldest);
        }
        // Rows that never became final may turn out never to have been.
        self.rows.retain(|candle_index, _| !confirmed.contains(candle_index));
        self.holes.extend(&confirmed);
        let provisional = self.rows.iter().find(|&(&candle_index, known)| candle_index < self.head && !known.is_final);
        self.final_end = self.final_end.max(provisional.map_or(self.head, |(&candle_index, _)| candle_index));
        (confirmed.len(), fresh)
    }
}

/// Which of two rows of one candle was made later when nothing else tells: a candle only grows.
fn rank(row: &Row) -> (u64, u64, [u64; 12]) {
    (row[TRADES] as u64, row[VOLUME] as u64, row.map(f64::to_bits))
}
