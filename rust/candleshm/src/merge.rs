//! What one answer changes: pure decisions, no stores.
//!
//! Merging is idempotent and total. A row is identified by the bar its open time falls into; which of two values wins
//! depends on what the exchange said later, never on the order in which answers happen to arrive.

use std::collections::BTreeMap;

use crate::columns::{OPEN_TIME_MS, Row, TRADES, VOLUME, bits_equal, plausible};
use crate::interval::Grid;
use crate::layout::RowState;
use crate::publish::{RingRow, SeriesState};
use crate::ring::SeriesWords;

/// What was asked, and when, in exchange time.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When the request left; at the latest this late, so that nothing counts as closed too early.
    pub sent_ms: i64,
    /// When the answer was there; at the earliest this early.
    pub received_ms: i64,
    /// How long after its end a candle may still change.
    pub settle_ms: i64,
    /// Most rows the answer could hold.
    pub limit: usize,
    /// Oldest open time asked for.
    pub start_ms: Option<i64>,
    /// Newest open time asked for.
    pub end_ms: Option<i64>,
    /// Whether a full answer holds the newest `limit` rows of the range, not the oldest.
    pub from_end: bool,
}

/// What happened to the rows of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows in the body.
    pub rows: usize,
    /// Rows that cannot be true.
    pub refused: usize,
    /// Of these, rows that open after the answer was received.
    pub beyond: usize,
    /// Rows older than the window.
    pub older: usize,
    /// Rows that were new or had other values.
    pub changed: usize,
    /// Of these, rows that had been closed already.
    pub corrected: usize,
    /// Rows that became final.
    pub closed: usize,
    /// Rows now confirmed absent.
    pub holes: usize,
}

/// A move of the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// First bar that is not in the ring afterwards.
    pub head: u64,
    /// Rows of the ring from the old head on.
    pub rows: Vec<RingRow>,
    /// The live row, if the newest row is not final.
    pub live: Option<Row>,
}

/// The writes that one answer asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Rows below the head to fill or replace, ascending.
    pub rewrite: Vec<RingRow>,
    /// Provisional rows confirmed bit for bit.
    pub close: Vec<u64>,
    /// A move of the head.
    pub advance: Option<Advance>,
    /// Newer values of the live row, when the head stays.
    pub live: Option<Row>,
    /// A row below what was thought the symbol's first.
    pub first_bar: Option<u64>,
    /// The count of it all.
    pub tally: Tally,
}

/// What earlier answers said that the block does not hold.
#[derive(Debug, Clone, Default)]
pub struct Confirmations {
    /// Sending time of the newest request whose answer was merged.
    newest_sent_ms: i64,
    /// Missing bars that an answer should have held, with the sending time of the first such request.
    absent: BTreeMap<u64, i64>,
}

/// Decides what `rows`, parsed from `answer`, change in a series.
#[must_use]
pub fn plan(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    grid: Grid,
    answer: &Answer,
    rows: &[Row],
) -> Plan {
    let mut tally = Tally { rows: rows.len(), ..Tally::default() };
    let rows = admit(grid, answer, rows, &mut tally);
    let late = answer.sent_ms < seen.newest_sent_ms;
    seen.newest_sent_ms = seen.newest_sent_ms.max(answer.sent_ms);
    let mut plan = Plan { tally, ..Plan::default() };
    let Some(&(newest_bar, newest)) = rows.last() else { return plan };

    let is_final = |bar: u64| grid.end_ms(bar as i64) <= answer.sent_ms - answer.settle_ms;
    let head = state.marks.head;
    let live = (!is_final(newest_bar)).then_some(newest);
    let new_head = head.max(newest_bar + u64::from(live.is_none()));
    let bottom = new_head.saturating_sub(words.ring.length as u64);
    let first_in = rows.partition_point(|&(bar, _)| bar < bottom);
    plan.tally.older = first_in;
    let (below, above) = rows[first_in..].split_at(rows[first_in..].partition_point(|&(bar, _)| bar < head));

    plan.first_bar = below.first().map(|&(bar, _)| bar).filter(|&bar| bar < state.first_bar);
    for &(bar, row) in below {
        plan_below(&mut plan, words, state, bar, &row, is_final(bar), late);
    }
    if new_head > head {
        plan.advance = Some(plan_advance(&mut plan.tally, state, above, new_head, live, &is_final));
    } else if let (Some(row), true) = (live, newest_bar == head) {
        let newer = !state.marks.has_live() || (!late && !bits_equal(&row, &state.newest));
        plan.tally.changed += usize::from(newer);
        plan.live = newer.then_some(row);
    }
    plan
}

/// Keeps the rows that can be true, one per bar, ascending.
fn admit(grid: Grid, answer: &Answer, rows: &[Row], tally: &mut Tally) -> Vec<(u64, Row)> {
    let mut admitted: Vec<(u64, Row)> = Vec::with_capacity(rows.len());
    for row in rows {
        let open_ms = row[OPEN_TIME_MS] as i64;
        let bar = grid.ordinal(open_ms);
        if plausible(row).is_err() || bar < 1 || bar >= i64::from(u32::MAX) {
            tally.refused += 1;
        } else if grid.open_ms(bar) > answer.received_ms {
            tally.refused += 1;
            tally.beyond += 1;
        } else {
            admitted.push((bar as u64, *row));
        }
    }
    // Of two rows of one bar in one body the one with more trades is the later one: a candle only grows.
    let growth = |row: &Row| [row[TRADES], row[VOLUME]].map(f64::to_bits);
    if !admitted.is_sorted_by(|a, b| a.0 < b.0) {
        let bits = |row: &Row| row.map(f64::to_bits);
        admitted.sort_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| growth(&b.1).cmp(&growth(&a.1))).then_with(|| bits(&b.1).cmp(&bits(&a.1)))
        });
        admitted.dedup_by_key(|row| row.0);
    }
    admitted
}

fn plan_below(
    plan: &mut Plan,
    words: SeriesWords<'_>,
    state: &SeriesState,
    bar: u64,
    row: &Row,
    is_final: bool,
    late: bool,
) {
    let tag = words.tag(bar);
    let known = if tag.bar() == bar { tag.state() } else { RowState::Missing };
    let equal = || bits_equal(row, &words.row(bar));
    let next = match (known, is_final) {
        (RowState::Closed | RowState::Verified, true) if !late && !equal() => {
            plan.tally.corrected += 1;
            RowState::Closed
        }
        (RowState::Live, true) if equal() => {
            plan.tally.closed += 1;
            plan.close.push(bar);
            return;
        }
        (RowState::Live | RowState::Hole | RowState::Missing | RowState::MissingFinal | RowState::Empty, true) => {
            plan.tally.closed += 1;
            RowState::Closed
        }
        (RowState::Live, false) if !late && !equal() => RowState::Live,
        // A provisional row below a final one, or where a final one was, would take back what readers were told.
        (RowState::Missing | RowState::Empty, false) if bar >= state.marks.final_bar => RowState::Live,
        _ => return,
    };
    plan.tally.changed += 1;
    plan.rewrite.push(RingRow { bar, row: *row, state: next });
}

fn plan_advance(
    tally: &mut Tally,
    state: &SeriesState,
    above: &[(u64, Row)],
    head: u64,
    live: Option<Row>,
    is_final: &impl Fn(u64) -> bool,
) -> Advance {
    let mut rows = Vec::with_capacity(above.len() + 1);
    // The live row so far stays as a provisional row when this answer does not hold its bar.
    if state.marks.has_live() && above.first().is_none_or(|&(bar, _)| bar > state.marks.head) {
        rows.push(RingRow { bar: state.marks.head, row: state.newest, state: RowState::Live });
    }
    for &(bar, row) in above.iter().filter(|&&(bar, _)| bar < head) {
        let state = if is_final(bar) { RowState::Closed } else { RowState::Live };
        tally.closed += usize::from(state == RowState::Closed);
        rows.push(RingRow { bar, row, state });
    }
    tally.changed += above.len();
    Advance { head, rows, live }
}

/// What an answer says about bars that it does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absence {
    /// Missing bars that are now confirmed absent.
    pub holes: Vec<u64>,
    /// The symbol's first bar, when nothing older exists.
    pub first_bar: Option<u64>,
}

/// Decides what the absence of rows in `answer` proves, after its rows were merged. `oldest_bar` and `newest_bar` are
/// the first and last bar of the rows it held, if any.
///
/// One answer without a row proves little: the exchange's servers are not always of one mind. A second one, asked at
/// least `settle_ms` later, confirms. Answers with refused rows prove nothing.
#[must_use]
pub fn absence(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    grid: Grid,
    answer: &Answer,
    tally: &Tally,
    held: Option<(u64, u64)>,
) -> Absence {
    let head = state.marks.head;
    let start = state.window_start(words.ring.length);
    let is_missing = |bar: u64| {
        let tag = words.tag(bar);
        !tag.is_readable_of(bar) && !tag.is_settled_of(bar)
    };
    seen.absent.retain(|&bar, _| bar >= start && is_missing(bar));
    if state.missing == 0 || tally.refused > 0 {
        return Absence::default();
    }
    let (covered_start, covered_end) = coverage(grid, answer, tally.rows, held);
    let reaches_below = covered_start < start && tally.older == 0;
    let mut confirmed = Vec::new();
    for bar in covered_start.max(start)..covered_end.min(head) {
        if is_missing(bar) {
            let first_ms = *seen.absent.entry(bar).or_insert(answer.sent_ms);
            if answer.sent_ms - first_ms >= answer.settle_ms.max(1) {
                confirmed.push(bar);
            }
        }
    }
    // Nothing from below the window up to the first row: there the symbol's history begins.
    let oldest = (start..head).find(|&bar| words.tag(bar).is_readable_of(bar)).unwrap_or(head);
    let begins = reaches_below && (start..oldest).all(|bar| !is_missing(bar) || confirmed.binary_search(&bar).is_ok());
    let first_bar = (begins && oldest > start).then_some(oldest);
    confirmed.retain(|&bar| first_bar.is_none_or(|first| bar >= first));
    Absence { holes: confirmed, first_bar }
}

/// The settled bars `[start, end)` of which an answer would have held every row that exists.
fn coverage(grid: Grid, answer: &Answer, rows: usize, held: Option<(u64, u64)>) -> (u64, u64) {
    let bar_of = |open_ms: i64| grid.ordinal(open_ms).max(0) as u64;
    let full = rows >= answer.limit;
    let settled_end = bar_of(answer.sent_ms - answer.settle_ms);
    let asked_start = answer.start_ms.map_or(0, |start_ms| bar_of(start_ms - 1) + 1);
    let asked_end = answer.end_ms.map_or(u64::MAX, |end_ms| bar_of(end_ms + 1));
    let (start, end) = match (full, held) {
        (false, _) => (asked_start, asked_end),
        (true, Some((oldest, _))) if answer.from_end => (oldest, asked_end),
        (true, Some((_, newest))) => (asked_start, newest + 1),
        (true, None) => (0, 0),
    };
    (start, end.min(settled_end))
}
