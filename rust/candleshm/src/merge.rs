//! What one answer changes: pure decisions, no stores.
//!
//! Merging is idempotent and total. A row is identified by the bar its open time falls into; which of two values wins
//! depends on what the exchange said later, never on the order in which answers happen to arrive.

use std::collections::BTreeMap;

use crate::columns::{COLUMNS, OPEN_TIME_MS, Row, TRADES, VOLUME, bits_equal, plausible};
use crate::interval::Grid;
use crate::layout::RowState;
use crate::publish::{RingRow, SeriesState};
use crate::ring::SeriesWords;

/// How far apart two answers have to agree that a row does not exist, when they lack rows that were seen before.
pub const CONTRADICTED_MS: i64 = 600_000;

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
    /// First and last bar of the rows that count.
    pub held: Option<(u64, u64)>,
    /// The count of it all.
    pub tally: Tally,
}

impl Plan {
    /// Returns the bars whose rows it changes, in a series whose head was `head`; where the head moves on, all bars that
    /// it passes.
    #[must_use]
    pub fn touched(&self, head: u64) -> Vec<u64> {
        let rewritten = self.rewrite.iter().map(|row| row.bar);
        let mut bars: Vec<u64> = rewritten.chain(self.close.iter().copied()).chain(self.first_bar).collect();
        if let Some(advance) = &self.advance {
            // Nothing below the first of the new rows was ever there when the series was empty.
            let from = if head == 0 { advance.rows.first().map_or(advance.head, |row| row.bar) } else { head };
            bars.extend(from..=advance.head);
        } else if self.live.is_some() {
            bars.push(head);
        }
        bars
    }
}

/// What earlier answers said that the block does not hold.
#[derive(Debug, Clone, Default)]
pub struct Confirmations {
    /// Per slot, when the newest request left whose answer held the row there; 0 for rows found at a takeover. Means
    /// something only where a row of the slot's bar is known.
    sent_ms: Vec<i64>,
    /// Missing bars that answers should have held, with the sending times of the first and the last such request.
    absent: BTreeMap<u64, (i64, i64)>,
}

impl Confirmations {
    /// Returns whether `row` has other values than `known` and was said later, and remembers the later time.
    fn is_news(&mut self, bar: u64, sent_ms: i64, row: &Row, known: &Row) -> bool {
        let known_ms = self.sent_ms_of(bar);
        let before_ms = std::mem::replace(known_ms, sent_ms.max(*known_ms));
        !bits_equal(row, known) && (sent_ms, growth(row)) > (before_ms, growth(known))
    }

    fn sent_ms_of(&mut self, bar: u64) -> &mut i64 {
        let slot = (bar % self.sent_ms.len() as u64) as usize;
        &mut self.sent_ms[slot]
    }
}

/// Orders rows of one candle that were said at the same time: the one with more trades is the later one, as a candle
/// only grows. The rest of the order only makes the choice independent of the order of the rows.
fn growth(row: &Row) -> ([u64; 2], [u64; COLUMNS]) {
    ([row[TRADES], row[VOLUME]].map(f64::to_bits), row.map(f64::to_bits))
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
    let mut rows = admit(grid, answer, rows, &mut tally);
    seen.sent_ms.resize(words.ring.capacity, 0);
    let mut plan = Plan { tally, ..Plan::default() };
    let tells_newer = answer.from_end || tally.rows < answer.limit;
    rows.pop_if(|&mut (bar, row)| {
        tells_newer
            && answer.end_ms.is_none_or(|end_ms| end_ms >= grid.end_ms(bar as i64))
            && is_old_picture(words, state, bar, row)
    });
    let (Some(&(oldest_bar, _)), Some(&(newest_bar, newest))) = (rows.first(), rows.last()) else { return plan };
    plan.held = Some((oldest_bar, newest_bar));

    let is_final = |bar: u64| grid.end_ms(bar as i64) <= answer.sent_ms - answer.settle_ms;
    let head = state.marks.head;
    let live = (!is_final(newest_bar)).then_some(*newest);
    let new_head = head.max(newest_bar + u64::from(live.is_none()));
    let bottom = new_head.saturating_sub(words.ring.length as u64);
    let first_in = rows.partition_point(|&(bar, _)| bar < bottom);
    plan.tally.older = first_in;
    let (below, above) = rows[first_in..].split_at(rows[first_in..].partition_point(|&(bar, _)| bar < head));

    plan.first_bar = below.first().map(|&(bar, _)| bar).filter(|&bar| bar < state.first_bar);
    for &(bar, row) in below {
        plan_below(&mut plan, words, state, seen, (bar, row), is_final(bar), answer.sent_ms);
    }
    if new_head > head {
        plan.advance = Some(plan_advance(&mut plan.tally, state, seen, above, new_head, &is_final, answer.sent_ms));
    } else if let (Some(row), true) = (live, newest_bar == head) {
        let newer = if state.marks.has_live() {
            seen.is_news(head, answer.sent_ms, &row, &state.newest)
        } else {
            *seen.sent_ms_of(head) = answer.sent_ms;
            true
        };
        plan.tally.changed += usize::from(newer);
        plan.live = newer.then_some(row);
    }
    plan
}

/// Says whether the newest row of an answer that could have held newer ones shows less of its candle than was seen
/// before.
///
/// That row is the one that the exchange itself may still count as in progress: its server lags behind the others,
/// or its clock was set back. By our clock it may be over, and would be taken for final. When the candle really has so
/// few trades it comes again, before a newer one.
fn is_old_picture(words: SeriesWords<'_>, state: &SeriesState, bar: u64, row: &Row) -> bool {
    if state.marks.head == bar && state.marks.has_live() {
        row[TRADES] < state.newest[TRADES]
    } else {
        let is_known = bar >= state.window_start(words.ring.length) && words.tag(bar).is_readable_of(bar);
        is_known && row[TRADES] < words.row(bar)[TRADES]
    }
}

/// Keeps the rows that can be true, one per bar, ascending.
fn admit<'a>(grid: Grid, answer: &Answer, rows: &'a [Row], tally: &mut Tally) -> Vec<(u64, &'a Row)> {
    let step_ms = grid.duration_ms();
    let mut admitted: Vec<(u64, &Row)> = Vec::with_capacity(rows.len());
    let (mut previous_ms, mut previous_bar) = (i64::MIN, 0);
    for row in rows {
        let open_ms = row[OPEN_TIME_MS] as i64;
        // Rows mostly follow one another, and adding is cheaper than dividing.
        let follows = step_ms.is_some_and(|step_ms| previous_ms.checked_add(step_ms) == Some(open_ms));
        let bar = if follows { previous_bar + 1 } else { grid.ordinal(open_ms) };
        (previous_ms, previous_bar) = (open_ms, bar);
        if plausible(row).is_err() || bar < 1 || bar >= i64::from(u32::MAX) {
            tally.refused += 1;
        } else if grid.open_ms(bar) > answer.received_ms {
            tally.refused += 1;
            tally.beyond += 1;
        } else {
            admitted.push((bar as u64, row));
        }
    }
    if !admitted.is_sorted_by(|a, b| a.0 < b.0) {
        admitted.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| growth(b.1).cmp(&growth(a.1))));
        admitted.dedup_by_key(|row| row.0);
    }
    admitted
}

fn plan_below(
    plan: &mut Plan,
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    (bar, row): (u64, &Row),
    is_final: bool,
    sent_ms: i64,
) {
    let tag = words.tag(bar);
    let known = if tag.bar() == bar { tag.state() } else { RowState::Missing };
    let next = match (known, is_final) {
        (RowState::Closed | RowState::Verified, true) if seen.is_news(bar, sent_ms, row, &words.row(bar)) => {
            plan.tally.corrected += 1;
            RowState::Closed
        }
        (RowState::Live, true) if bits_equal(row, &words.row(bar)) => {
            *seen.sent_ms_of(bar) = sent_ms;
            plan.tally.closed += 1;
            plan.close.push(bar);
            return;
        }
        (RowState::Live | RowState::Hole | RowState::Missing | RowState::MissingFinal | RowState::Empty, true) => {
            plan.tally.closed += 1;
            RowState::Closed
        }
        (RowState::Live, false) if seen.is_news(bar, sent_ms, row, &words.row(bar)) => RowState::Live,
        // A provisional row below a final one, or where a final one was, would take back what readers were told.
        (RowState::Missing | RowState::Empty, false) if bar >= state.marks.final_bar => RowState::Live,
        _ => return,
    };
    *seen.sent_ms_of(bar) = sent_ms;
    plan.tally.changed += 1;
    plan.rewrite.push(RingRow { bar, row: *row, state: next });
}

fn plan_advance(
    tally: &mut Tally,
    state: &SeriesState,
    seen: &mut Confirmations,
    above: &[(u64, &Row)],
    head: u64,
    is_final: &impl Fn(u64) -> bool,
    sent_ms: i64,
) -> Advance {
    let mut advance = Advance { head, rows: Vec::with_capacity(above.len() + 1), live: None };
    let live = state.marks.has_live().then_some((state.marks.head, &state.newest));
    // The live row so far stays as a provisional row when this answer does not hold its bar.
    if let Some((bar, row)) = live
        && above.first().is_none_or(|&(first, _)| first > bar)
    {
        advance.rows.push(RingRow { bar, row: *row, state: RowState::Live });
    }
    for &(bar, mut row) in above {
        let state = if is_final(bar) { RowState::Closed } else { RowState::Live };
        let known = live.and_then(|(known_bar, known)| (known_bar == bar).then_some(known));
        match known {
            // Whoever asked later for the live row knows better.
            Some(known) if state == RowState::Live && !seen.is_news(bar, sent_ms, row, known) => row = known,
            _ => *seen.sent_ms_of(bar) = sent_ms,
        }
        tally.changed += usize::from(known.is_none_or(|known| !bits_equal(known, row)));
        tally.closed += usize::from(state == RowState::Closed);
        if bar < head {
            advance.rows.push(RingRow { bar, row: *row, state });
        } else {
            advance.live = Some(*row);
        }
    }
    advance
}

/// What an answer says about bars that it does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absence {
    /// Missing bars that are now confirmed absent.
    pub holes: Vec<u64>,
    /// Bars whose provisional rows the exchange has taken back: holes as well, but there are values to remove.
    pub taken_back: Vec<u64>,
    /// The symbol's first bar, when nothing older exists.
    pub first_bar: Option<u64>,
}

/// Decides what the absence of rows in `answer` proves, after its rows were merged. `held` are the first and last bar
/// of the rows it held, if any.
///
/// One answer without a row proves little: the exchange's servers are not always of one mind. A second one, asked at
/// least `settle_ms` later, confirms. Answers with refused rows prove nothing. One that lacks final rows which are known
/// to exist is not whole: a server that lost its memory, or a page cut short. It counts only when it is repeated for
/// `CONTRADICTED_MS`; never would be wrong, as an exchange may take back what it said before it broke down. A row that
/// never became final may be taken back like one that never was there.
#[must_use]
#[expect(clippy::too_many_arguments, reason = "what is known, what was asked and what came")]
pub fn absence(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    grid: Grid,
    answer: &Answer,
    rows: &[Row],
    tally: &Tally,
    held: Option<(u64, u64)>,
) -> Absence {
    let head = state.marks.head;
    let start = state.window_start(words.ring.length);
    let is_open = |bar: u64| !words.tag(bar).is_settled_of(bar);
    seen.absent.retain(|&bar, _| bar >= start && is_open(bar));
    let (covered_start, covered_end) = coverage(grid, answer, tally.rows, held);
    let covered = covered_start.max(start)..covered_end.min(head);
    let lacks_provisional = state.oldest_provisional(covered.start).is_some_and(|bar| bar < covered.end);
    if state.missing == 0 && !lacks_provisional || tally.refused > 0 {
        return Absence::default();
    }
    let mut told: Vec<u64> = rows.iter().map(|row| grid.ordinal(row[OPEN_TIME_MS] as i64).max(0) as u64).collect();
    told.sort_unstable();
    let is_told = |bar: u64| told.binary_search(&bar).is_ok();
    let absent: Vec<u64> = covered.clone().filter(|&bar| is_open(bar) && !is_told(bar)).collect();
    if absent.is_empty() {
        return Absence::default();
    }
    let is_whole = covered.clone().all(|bar| !words.tag(bar).is_final_of(bar) || is_told(bar));
    let apart_ms = if is_whole { answer.settle_ms.max(1) } else { CONTRADICTED_MS.max(answer.settle_ms) };
    let mut confirmed = Vec::new();
    for bar in absent {
        let (first_ms, last_ms) = seen.absent.entry(bar).or_insert((answer.sent_ms, answer.sent_ms));
        (*first_ms, *last_ms) = (answer.sent_ms.min(*first_ms), answer.sent_ms.max(*last_ms));
        if *last_ms - *first_ms >= apart_ms {
            confirmed.push(bar);
        }
    }
    let reaches_below = covered_start < start && start <= covered_end && tally.older == 0;
    // Nothing from below the window up to the first row: there the symbol's history begins.
    let oldest = (start..head).find(|&bar| words.tag(bar).is_readable_of(bar)).unwrap_or(head);
    let begins = reaches_below && (start..oldest).all(|bar| !is_open(bar) || confirmed.binary_search(&bar).is_ok());
    let first_bar = (begins && oldest > start).then_some(oldest);
    confirmed.retain(|&bar| first_bar.is_none_or(|first| bar >= first));
    let (taken_back, holes) = confirmed.into_iter().partition(|&bar| words.tag(bar).is_readable_of(bar));
    Absence { holes, taken_back, first_bar }
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
