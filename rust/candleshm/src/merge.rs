//! What one response changes: pure decisions, no stores.
//!
//! Merging is idempotent and total. A row is identified by the candle into which its open time falls; which of two
//! values wins depends on what the exchange sent later, never on the order in which responses happen to arrive.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use crate::columns::{COLUMNS, OPEN_TIME_MS, Row, TRADES, VOLUME, bits_equal, plausible};
use crate::interval::Grid;
use crate::layout::RowState;
use crate::price::Price;
use crate::publish::{RingRow, SeriesState};
use crate::ring::SeriesWords;

/// How far apart two responses have to agree that a row does not exist, when they do not have rows that were seen
/// before.
pub const CONTRADICTED_MS: i64 = 600_000;

/// How long after the end of its newest candle, and after `settle_ms`, what the exchange sends still counts as current:
/// the next candle takes a moment to appear.
pub const CURRENT_MS: i64 = 1_000;

/// What was requested, and when, in exchange time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestWindow {
    /// When the request was sent: a lower bound, so that nothing counts as closed too early.
    pub sent_ms: i64,
    /// When the response arrived: an upper bound.
    pub received_ms: i64,
    /// How long after its end a candle may still change.
    pub settle_ms: i64,
    /// Most rows the response could hold.
    pub limit: usize,
    /// Oldest open time requested.
    pub start_ms: Option<i64>,
    /// Newest open time requested.
    pub end_ms: Option<i64>,
    /// Whether a full response holds the newest `limit` rows of the range, not the oldest.
    pub from_end: bool,
    /// How long after its end the newest row of a response becomes final, although the response holds no later row. The
    /// response may come from a cache or a stale replica: only a later row proves that it was made after the
    /// candle's end. 0 where the rows are known to be whole.
    pub patience_ms: i64,
}

impl RequestWindow {
    /// Returns whether the response holds the whole candle `candle_index`, where `newest` is the newest candle of which
    /// it holds a row: the candle has ended and settled, and the response was made after that or waited long enough.
    pub(crate) fn is_final(&self, grid: Grid, candle_index: u64, newest: Option<u64>) -> bool {
        let end_ms = grid.end_ms(candle_index as i64);
        let is_proven = newest.is_some_and(|newest| newest > candle_index) || end_ms <= self.sent_ms - self.patience_ms;
        is_proven && end_ms <= self.sent_ms - self.settle_ms
    }

    /// Returns how long ago, when the response was received, the candle `candle_index` had ended for so long that the
    /// exchange must have a newer one; 0 while it may be the newest. Until `quiet_until_ms` there need be none.
    #[must_use]
    pub fn outdated_ms(&self, grid: Grid, candle_index: u64, quiet_until_ms: i64) -> u64 {
        let current_until_ms = grid.end_ms(candle_index as i64).max(quiet_until_ms) + self.settle_ms + CURRENT_MS;
        (self.received_ms - current_until_ms).max(0) as u64
    }
}

/// What happened to the rows of one response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows in the body.
    pub rows: usize,
    /// Rows that cannot be true.
    pub refused: usize,
    /// Of these, rows that open after the response was received.
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
    /// Rows that a response lacked for the first time.
    pub absent: usize,
    /// Final rows that the block had as they are.
    pub agreed: usize,
    /// Rows that are now verified: a response and the stream agree.
    pub verified: usize,
    /// Rows on which a response and the stream differ.
    pub conflicts: usize,
}

impl Tally {
    /// Adds the counts of another response.
    pub fn add(&mut self, other: &Self) {
        let Self {
            rows: _,
            refused,
            beyond,
            older,
            changed,
            corrected,
            closed,
            holes,
            absent,
            agreed,
            verified,
            conflicts,
        } = *other;
        self.refused += refused;
        self.beyond += beyond;
        self.older += older;
        self.changed += changed;
        self.corrected += corrected;
        self.closed += closed;
        self.holes += holes;
        self.absent += absent;
        self.agreed += agreed;
        self.verified += verified;
        self.conflicts += conflicts;
    }
}

/// A move of the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// First candle index that is not in the ring afterwards.
    pub head: u64,
    /// Rows of the ring from the old head on.
    pub rows: Vec<RingRow>,
    /// The live row, if the newest row is not final.
    pub live: Option<Row>,
}

/// The writes that one response calls for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Rows below the head to fill or replace, ascending.
    pub rewrite: Vec<RingRow>,
    /// Provisional rows confirmed bit for bit.
    pub close: Vec<u64>,
    /// Closed rows confirmed bit for bit from the other side.
    pub verify: Vec<u64>,
    /// The oldest row that has to be requested again, because response and stream differ and neither is known to be
    /// newer.
    pub suspect: Option<u64>,
    /// A move of the head.
    pub advance: Option<Advance>,
    /// Newer values of the live row, when the head stays.
    pub live: Option<Row>,
    /// A row below what was thought the symbol's first.
    pub first_bar: Option<u64>,
    /// First and last candle index of the rows that count.
    pub held: Option<(u64, u64)>,
    /// The count of it all.
    pub tally: Tally,
}

impl Plan {
    /// Returns the candles whose rows it changes, in a series whose head was `head`; where the head moves on, all
    /// candles that it passes.
    #[must_use]
    pub fn touched(&self, head: u64) -> Vec<u64> {
        let rewritten = self.rewrite.iter().map(|row| row.candle_index);
        let mut candle_indices: Vec<u64> =
            rewritten.chain(self.close.iter().chain(&self.verify).copied()).chain(self.first_bar).collect();
        if let Some(advance) = &self.advance {
            // Nothing below the first of the new rows was ever there when the series was empty.
            let from = if head == 0 { advance.rows.first().map_or(advance.head, |row| row.candle_index) } else { head };
            candle_indices.extend(from..=advance.head);
        } else if self.live.is_some() {
            candle_indices.push(head);
        }
        candle_indices
    }
}

/// When and by which way a row came from the exchange. A response counts from the sending of its request, an event from
/// the time at which the exchange made it. 0 stands for rows found at a takeover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Origin(i64);

/// The earliest of all.
const FOUND: Origin = Origin(2);

impl Origin {
    fn by_response(sent_ms: i64) -> Self {
        Self(sent_ms << 1)
    }

    fn pushed(event_ms: i64) -> Self {
        Self(event_ms << 1 | 1)
    }

    fn ms(self) -> i64 {
        self.0 >> 1
    }

    fn is_pushed(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What is known from earlier responses and events and is not in the block.
#[derive(Debug, Clone, Default)]
pub struct Confirmations {
    /// For each slot, the last origin of its row. It has a meaning only where a row of the slot's candle is known.
    origins: Vec<Origin>,
    /// Missing candles that responses should have held, with the sending times of the first and the last such request.
    absent: BTreeMap<u64, (i64, i64)>,
    /// How far apart two of these times have to be, by the newest response.
    apart_ms: i64,
}

/// Missing candles that the next request is to confirm as holes, or to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// From the oldest to the newest of them.
    pub candles: Range<u64>,
    /// Exchange time from which a request confirms them.
    pub from_ms: i64,
}

impl Confirmations {
    /// Appends all of it to a checkpoint.
    pub(crate) fn take_down(&self, words: &mut Vec<u64>) {
        words.extend([self.apart_ms as u64, self.origins.len() as u64, self.absent.len() as u64]);
        words.extend(self.origins.iter().map(|origin| origin.0 as u64));
        for (&candle_index, &(first_ms, last_ms)) in &self.absent {
            words.extend([candle_index, first_ms as u64, last_ms as u64]);
        }
    }

    /// Reads it from a checkpoint of a ring of that capacity; returns the words behind it, `None` for words that cannot
    /// be.
    pub(crate) fn put_back(words: &[u64], capacity: usize) -> Option<(Self, &[u64])> {
        let (&[apart_ms, slots, absent], rest) = words.split_first_chunk::<3>()?;
        let (slots, absent) = (usize::try_from(slots).ok()?, usize::try_from(absent).ok()?);
        if slots != 0 && slots != capacity || apart_ms > 1 << 60 {
            return None;
        }
        let (origins, rest) = rest.split_at_checked(slots)?;
        let (times, rest) = rest.split_at_checked(absent.checked_mul(3)?)?;
        let origins = origins.iter().map(|&word| Origin(word as i64)).collect();
        let absent = times.chunks_exact(3).map(|of| (of[0], (of[1] as i64, of[2] as i64))).collect();
        Some((Self { origins, absent, apart_ms: apart_ms as i64 }, rest))
    }

    /// Returns whether a response lacked `candle_index` when it should have held it.
    #[must_use]
    pub fn is_absent(&self, candle_index: u64) -> bool {
        self.absent.contains_key(&candle_index)
    }

    /// Returns which of the absent candles to request next, of those that are still missing.
    ///
    /// First come those that no response has lacked for longest, so that none keeps others waiting. Those that were
    /// lacked soon after are requested with them: the holes of pages that came at the same time cost one request.
    #[must_use]
    pub fn unconfirmed(&self, is_missing: impl Fn(u64) -> bool) -> Option<Unconfirmed> {
        let times =
            || self.absent.iter().filter(|&(&index, _)| is_missing(index)).map(|(&index, &(_, ms))| (index, ms));
        let until_ms = times().map(|(_, last_ms)| last_ms).min()? + self.apart_ms;
        let together = || times().filter(|&(_, last_ms)| last_ms <= until_ms);
        let (oldest, newest) = (together().next()?.0, together().next_back()?.0);
        let from_ms = together().map(|(_, last_ms)| last_ms).max()? + self.apart_ms;
        Some(Unconfirmed { candles: oldest..newest + 1, from_ms })
    }

    /// Returns whether `row` has other values than `known` and came later, and remembers the later time.
    ///
    /// Between two responses, and between two events, time decides. Between a response and an event it does not: a
    /// response may be older than an event that was made after its request was sent. There the candle itself decides,
    /// because it only grows.
    fn is_news(&mut self, candle_index: u64, origin: Origin, row: &Row, known: &Row) -> bool {
        let known_origin = self.origin_of(candle_index);
        let before = *known_origin;
        if before.is_pushed() == origin.is_pushed() {
            *known_origin = if origin.ms() > before.ms() { origin } else { before };
            return !bits_equal(row, known) && (origin.ms(), growth(row)) > (before.ms(), growth(known));
        }
        let is_later = (amounts(row), origin.ms()) > (amounts(known), before.ms());
        if is_later {
            *known_origin = origin;
        }
        is_later && !bits_equal(row, known)
    }

    /// Returns whether a row that claims to be final holds less than what is known from the other side, or from a later
    /// event, so that it cannot be the whole candle.
    fn is_short(&mut self, candle_index: u64, origin: Origin, row: &Row, known: &Row) -> bool {
        let before = *self.origin_of(candle_index);
        (origin.is_pushed() || before.is_pushed() && origin.ms() < before.ms()) && amounts(row) < amounts(known)
    }

    /// Forgets the times of all rows: the exchange's clock was set, and whatever comes from now on is later.
    pub fn forget_times(&mut self) {
        self.origins.fill(Origin::default());
        self.absent.clear();
    }

    /// Returns since when responses have lacked `candle_index`, as the sending time of the first such request.
    #[must_use]
    pub(crate) fn absent_since_ms(&self, candle_index: u64) -> Option<i64> {
        self.absent.get(&candle_index).map(|&(first_ms, _)| first_ms)
    }

    /// Returns whether a response held the row that is known of `candle_index`, or may have: see [`Self::find`].
    #[must_use]
    pub(crate) fn is_told(&self, candle_index: u64) -> bool {
        let slots = self.origins.len() as u64;
        slots > 0 && self.origins[(candle_index % slots) as usize] != Origin::default()
    }

    /// Lets the row of `candle_index` count as one that no response held.
    pub(crate) fn untell(&mut self, candle_index: u64) {
        if !self.origins.is_empty() {
            *self.origin_of(candle_index) = Origin::default();
        }
    }

    /// Notes a row whose origin is not known: whatever comes is later.
    pub(crate) fn find(&mut self, candle_index: u64, capacity: usize) {
        self.origins.resize(capacity, Origin::default());
        *self.origin_of(candle_index) = FOUND;
    }

    /// As [`Self::forget_times`], but which rows came from responses stays known.
    pub(crate) fn forget_when(&mut self) {
        self.origins.iter_mut().filter(|origin| **origin != Origin::default()).for_each(|origin| *origin = FOUND);
        self.absent.clear();
    }

    fn origin_of(&mut self, candle_index: u64) -> &mut Origin {
        let slot = (candle_index % self.origins.len() as u64) as usize;
        &mut self.origins[slot]
    }

    /// Returns whether the row of `candle_index` was pushed last.
    #[must_use]
    pub fn is_pushed(&mut self, candle_index: u64) -> bool {
        !self.origins.is_empty() && self.origin_of(candle_index).is_pushed()
    }
}

/// What only grows while a candle lives: trades and volume. As bits, which order amounts (never negative) as they are.
fn amounts(row: &Row) -> [u64; 2] {
    [row[TRADES], row[VOLUME]].map(f64::to_bits)
}

/// Orders rows of one candle that were said at the same time: the one with more trades is the later one, as a candle
/// only grows. The rest of the order only makes the choice independent of the order of the rows.
fn growth(row: &Row) -> ([u64; 2], [u64; COLUMNS]) {
    (amounts(row), row.map(f64::to_bits))
}

/// Decides what `rows`, parsed from `response`, change in a series.
#[must_use]
pub fn plan(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    (grid, price): (Grid, Price),
    window: &RequestWindow,
    rows: &[Row],
) -> Plan {
    let mut tally = Tally { rows: rows.len(), ..Tally::default() };
    let mut rows = admit((grid, price), window, rows, &mut tally);
    let newest_held = rows.last().map(|&(candle_index, _)| candle_index);
    let tells_newer = window.from_end || tally.rows < window.limit;
    rows.pop_if(|&mut (candle_index, row)| {
        tells_newer
            && window.end_ms.is_none_or(|end_ms| end_ms >= grid.end_ms(candle_index as i64))
            && is_old_picture(words, state, candle_index, row)
    });
    let is_final = |candle_index: u64| window.is_final(grid, candle_index, newest_held);
    plan_rows(words, state, seen, &rows, Origin::by_response(window.sent_ms), is_final, tally)
}

/// Decides what a pushed candle changes in a series. The row is plausible and not from the future.
#[must_use]
pub fn plan_pushed(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    (candle_index, row): (u64, &Row),
    event_ms: i64,
    closed: bool,
) -> Plan {
    let tally = Tally { rows: 1, ..Tally::default() };
    plan_rows(words, state, seen, &[(candle_index, row)], Origin::pushed(event_ms), |_| closed, tally)
}

fn plan_rows(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    rows: &[(u64, &Row)],
    origin: Origin,
    is_final: impl Fn(u64) -> bool,
    tally: Tally,
) -> Plan {
    seen.origins.resize(words.ring.capacity, Origin::default());
    let mut plan = Plan { tally, ..Plan::default() };
    let (Some(&(oldest_index, _)), Some(&(newest_index, newest))) = (rows.first(), rows.last()) else { return plan };
    plan.held = Some((oldest_index, newest_index));

    let head = state.marks.head;
    let at_head = rows.binary_search_by_key(&head, |&(candle_index, _)| candle_index).ok().map(|at| rows[at].1);
    let is_short = state.marks.has_live()
        && is_final(head)
        && at_head.is_some_and(|row| seen.is_short(head, origin, row, &state.newest));
    if is_short {
        plan.conflict(head);
    }
    let is_final = |candle_index: u64| is_final(candle_index) && !(is_short && candle_index == head);
    let live = (!is_final(newest_index)).then_some(*newest);
    let new_head = head.max(newest_index + u64::from(live.is_none()));
    let bottom = new_head.saturating_sub(words.ring.length as u64);
    let first_in = rows.partition_point(|&(candle_index, _)| candle_index < bottom);
    plan.tally.older = first_in;
    let (below, above) =
        rows[first_in..].split_at(rows[first_in..].partition_point(|&(candle_index, _)| candle_index < head));

    plan.first_bar =
        below.first().map(|&(candle_index, _)| candle_index).filter(|&candle_index| candle_index < state.first_bar);
    for &(candle_index, row) in below {
        plan_below(&mut plan, words, state, seen, (candle_index, row), is_final(candle_index), origin);
    }
    if new_head > head {
        plan.advance = Some(plan_advance(&mut plan.tally, state, seen, above, new_head, &is_final, origin));
    } else if let (Some(row), true) = (live, newest_index == head) {
        let newer = if state.marks.has_live() {
            seen.is_news(head, origin, &row, &state.newest)
        } else {
            *seen.origin_of(head) = origin;
            true
        };
        plan.tally.changed += usize::from(newer);
        plan.live = newer.then_some(row);
    }
    plan
}

/// Returns whether the newest row of a response that could have held newer ones shows less of its candle than was seen
/// before.
///
/// That row is the one that the exchange itself may still count as in progress: its server lags behind the others,
/// or its clock was set back. By our clock it may be over, and would be taken for final. When the candle really has so
/// few trades it comes again, before a newer one.
fn is_old_picture(words: SeriesWords<'_>, state: &SeriesState, candle_index: u64, row: &Row) -> bool {
    if state.marks.head == candle_index && state.marks.has_live() {
        row[TRADES] < state.newest[TRADES]
    } else {
        let is_known = candle_index >= state.window_start(words.ring.length)
            && words.tag(candle_index).is_readable_of(candle_index);
        is_known && row[TRADES] < words.row(candle_index)[TRADES]
    }
}

impl Plan {
    /// Notes that response and stream differ about `candle_index`, and that it has to be requested once more.
    fn conflict(&mut self, candle_index: u64) {
        self.tally.conflicts += 1;
        self.suspect = Some(self.suspect.map_or(candle_index, |oldest| oldest.min(candle_index)));
    }
}

/// Keeps the plausible rows, one for each candle, ascending.
fn admit<'a>(
    (grid, price): (Grid, Price),
    window: &RequestWindow,
    rows: &'a [Row],
    tally: &mut Tally,
) -> Vec<(u64, &'a Row)> {
    let step_ms = grid.duration_ms();
    let mut admitted: Vec<(u64, &Row)> = Vec::with_capacity(rows.len());
    let (mut previous_ms, mut previous_index) = (i64::MIN, 0);
    for row in rows {
        let open_ms = row[OPEN_TIME_MS] as i64;
        // Rows mostly follow one another, and adding is cheaper than dividing.
        let follows = step_ms.is_some_and(|step_ms| previous_ms.checked_add(step_ms) == Some(open_ms));
        let candle_index = if follows { previous_index + 1 } else { grid.index_of(open_ms) };
        (previous_ms, previous_index) = (open_ms, candle_index);
        if plausible(row, price).is_err() || candle_index < 1 || candle_index >= i64::from(u32::MAX) {
            tally.refused += 1;
        } else if grid.open_ms(candle_index) > window.received_ms {
            tally.refused += 1;
            tally.beyond += 1;
        } else {
            admitted.push((candle_index as u64, row));
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
    (candle_index, row): (u64, &Row),
    is_final: bool,
    origin: Origin,
) {
    let tag = words.tag(candle_index);
    let known = if tag.candle_index() == candle_index { tag.state() } else { RowState::Missing };
    let next = match (known, is_final) {
        (RowState::Closed | RowState::Verified, _) if origin.is_pushed() || seen.is_pushed(candle_index) => {
            match plan_final(plan, seen, (candle_index, row), &words.row(candle_index), (known, is_final), origin) {
                Some(next) => next,
                None => return,
            }
        }
        (RowState::Closed | RowState::Verified, true) => {
            let known = words.row(candle_index);
            if !seen.is_news(candle_index, origin, row, &known) {
                plan.tally.agreed += usize::from(bits_equal(row, &known));
                return;
            }
            plan.tally.corrected += 1;
            RowState::Closed
        }
        (RowState::Live, true) if seen.is_short(candle_index, origin, row, &words.row(candle_index)) => {
            return plan.conflict(candle_index);
        }
        (RowState::Live, true) if bits_equal(row, &words.row(candle_index)) => {
            *seen.origin_of(candle_index) = origin;
            plan.tally.closed += 1;
            plan.close.push(candle_index);
            return;
        }
        (RowState::Hole, true) => {
            // Readers have seen that there is none.
            plan.tally.closed += 1;
            plan.tally.corrected += 1;
            RowState::Closed
        }
        (RowState::Live | RowState::Missing | RowState::MissingFinal | RowState::Empty, true) => {
            plan.tally.closed += 1;
            RowState::Closed
        }
        (RowState::Live, false) if seen.is_news(candle_index, origin, row, &words.row(candle_index)) => RowState::Live,
        // A provisional row below a final one, or where a final one was, would take back what readers have seen.
        (RowState::Missing | RowState::Empty, false) if candle_index >= state.marks.final_end => RowState::Live,
        _ => return,
    };
    *seen.origin_of(candle_index) = origin;
    plan.tally.changed += 1;
    plan.rewrite.push(RingRow { candle_index, row: *row, state: next });
}

/// Decides about a final row that response and stream, or two events, both hold: agreement proves it, and of two
/// different rows that of a response counts, unless it is the older one.
fn plan_final(
    plan: &mut Plan,
    seen: &mut Confirmations,
    (candle_index, row): (u64, &Row),
    known: &Row,
    (state, is_final): (RowState, bool),
    origin: Origin,
) -> Option<RowState> {
    let before = *seen.origin_of(candle_index);
    if bits_equal(row, known) {
        let independent = origin.is_pushed() != before.is_pushed() && before != Origin::default();
        if is_final && independent && state == RowState::Closed {
            plan.tally.verified += 1;
            plan.verify.push(candle_index);
        }
        plan.tally.agreed += usize::from(is_final);
    } else if !is_final {
        // A closed candle does not grow, so one of the two is wrong; an event or response that holds less is just old.
        if amounts(row) > amounts(known) {
            plan.conflict(candle_index);
        }
    } else if origin.is_pushed() || seen.is_short(candle_index, origin, row, known) {
        plan.conflict(candle_index);
    } else {
        plan.tally.conflicts += 1;
        plan.tally.corrected += 1;
        return Some(RowState::Closed);
    }
    None
}

fn plan_advance(
    tally: &mut Tally,
    state: &SeriesState,
    seen: &mut Confirmations,
    above: &[(u64, &Row)],
    head: u64,
    is_final: &impl Fn(u64) -> bool,
    origin: Origin,
) -> Advance {
    let mut advance = Advance { head, rows: Vec::with_capacity(above.len() + 1), live: None };
    let live = state.marks.has_live().then_some((state.marks.head, &state.newest));
    // The live row so far stays as a provisional row if this response does not hold its candle.
    if let Some((candle_index, row)) = live
        && above.first().is_none_or(|&(first, _)| first > candle_index)
    {
        advance.rows.push(RingRow { candle_index, row: *row, state: RowState::Live });
    }
    for &(candle_index, mut row) in above {
        let state = if is_final(candle_index) { RowState::Closed } else { RowState::Live };
        let known = live.and_then(|(known_index, known)| (known_index == candle_index).then_some(known));
        match known {
            // A later request for the live row knows better.
            Some(known) if state == RowState::Live && !seen.is_news(candle_index, origin, row, known) => row = known,
            _ => *seen.origin_of(candle_index) = origin,
        }
        tally.changed += usize::from(known.is_none_or(|known| !bits_equal(known, row)));
        tally.closed += usize::from(state == RowState::Closed);
        if candle_index < head {
            advance.rows.push(RingRow { candle_index, row: *row, state });
        } else {
            advance.live = Some(*row);
        }
    }
    advance
}

/// What a response proves about candles that it does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absence {
    /// Missing candles that are now confirmed absent.
    pub holes: Vec<u64>,
    /// Candle indices whose provisional rows the exchange has taken back: holes as well, but there are values to
    /// remove.
    pub taken_back: Vec<u64>,
    /// How many candles were lacked for the first time.
    pub fresh: usize,
    /// Index of the symbol's first candle, if nothing older exists.
    pub first_bar: Option<u64>,
}

/// Returns how far apart two requests have to be sent whose responses both lack a row, before it counts as a hole: the
/// servers of the exchange may differ for a moment. Daily files are held to the same rule as a block.
#[must_use]
pub const fn hole_apart_ms(settle_ms: i64) -> i64 {
    if settle_ms > 1 { settle_ms } else { 1 }
}

/// Decides what the absence of rows in `response` proves, after its rows were merged. `held` are the first and last
/// candle index of the rows it held, if any.
///
/// One response without a row proves little: the servers of the exchange do not always agree. A second one, requested
/// at least `settle_ms` later, confirms. A response without a row behind the candle may be older than the candle,
/// and counts only after `patience_ms`. Responses with refused rows prove nothing. A response that does not have final
/// rows which are known to exist is not whole: a server that lost its memory, or a page cut short. It counts only when
/// it is repeated for `CONTRADICTED_MS`; never would be wrong, as an exchange may take back what it sent before it
/// broke down. A row that never became final may be taken back like one that never was there.
#[must_use]
#[expect(clippy::too_many_arguments, reason = "what is known, what was asked and what came")]
pub fn absence(
    words: SeriesWords<'_>,
    state: &SeriesState,
    seen: &mut Confirmations,
    grid: Grid,
    window: &RequestWindow,
    rows: &[Row],
    tally: &Tally,
    held: Option<(u64, u64)>,
) -> Absence {
    let head = state.marks.head;
    let start = state.window_start(words.ring.length);
    let is_open = |candle_index: u64| !words.tag(candle_index).is_settled_of(candle_index);
    seen.absent.retain(|&candle_index, _| candle_index >= start && is_open(candle_index));
    let (covered_start, covered_end) = coverage(grid, window, tally.rows, held);
    let covered = covered_start.max(start)..covered_end.min(head);
    let lacks_provisional =
        state.oldest_provisional(covered.start).is_some_and(|candle_index| candle_index < covered.end);
    if state.missing == 0 && !lacks_provisional || tally.refused > 0 {
        return Absence::default();
    }
    let mut held_indices: Vec<u64> =
        rows.iter().map(|row| grid.index_of(row[OPEN_TIME_MS] as i64).max(0) as u64).collect();
    held_indices.sort_unstable();
    let is_held = |candle_index: u64| held_indices.binary_search(&candle_index).is_ok();
    let newest_held = held.map(|(_, newest)| newest);
    // An old response does not have what came after it.
    let is_evident = |candle_index: u64| window.is_final(grid, candle_index, newest_held);
    let absent: Vec<u64> = covered
        .clone()
        .filter(|&candle_index| is_open(candle_index) && !is_held(candle_index) && is_evident(candle_index))
        .collect();
    if absent.is_empty() {
        return Absence::default();
    }
    let is_whole =
        covered.clone().all(|candle_index| !words.tag(candle_index).is_final_of(candle_index) || is_held(candle_index));
    let apart_ms = if is_whole { hole_apart_ms(window.settle_ms) } else { CONTRADICTED_MS.max(window.settle_ms) };
    seen.apart_ms = hole_apart_ms(window.settle_ms);
    let (mut confirmed, mut fresh) = (Vec::new(), 0);
    for candle_index in absent {
        let entry = seen.absent.entry(candle_index);
        fresh += usize::from(matches!(entry, Entry::Vacant(_)));
        let (first_ms, last_ms) = entry.or_insert((window.sent_ms, window.sent_ms));
        (*first_ms, *last_ms) = (window.sent_ms.min(*first_ms), window.sent_ms.max(*last_ms));
        if *last_ms - *first_ms >= apart_ms {
            confirmed.push(candle_index);
        }
    }
    let reaches_below = covered_start < start && start <= covered_end && tally.older == 0;
    // Nothing from below the window up to the first row: there the symbol's history begins.
    let oldest =
        (start..head).find(|&candle_index| words.tag(candle_index).is_readable_of(candle_index)).unwrap_or(head);
    let begins = reaches_below
        && (start..oldest).all(|candle_index| !is_open(candle_index) || confirmed.binary_search(&candle_index).is_ok());
    let first_bar = (begins && oldest > start).then_some(oldest);
    confirmed.retain(|&candle_index| first_bar.is_none_or(|first| candle_index >= first));
    let (taken_back, holes) =
        confirmed.into_iter().partition(|&candle_index| words.tag(candle_index).is_readable_of(candle_index));
    Absence { holes, taken_back, fresh, first_bar }
}

/// The settled candles `[start, end)` of which a response would have held every row that exists.
pub(crate) fn coverage(grid: Grid, window: &RequestWindow, rows: usize, held: Option<(u64, u64)>) -> (u64, u64) {
    let candle_index_of = |open_ms: i64| grid.index_of(open_ms).max(0) as u64;
    let full = rows >= window.limit;
    let settled_end = candle_index_of(window.sent_ms - window.settle_ms);
    // Nothing opens before the epoch, where the calendar of the exchange begins.
    let requested_start =
        window.start_ms.filter(|&start_ms| start_ms > 0).map_or(0, |start_ms| candle_index_of(start_ms - 1) + 1);
    let requested_end = window.end_ms.map_or(u64::MAX, |end_ms| candle_index_of(end_ms + 1));
    let (start, end) = match (full, held) {
        (false, _) => (requested_start, requested_end),
        (true, Some((oldest, _))) if window.from_end => (oldest, requested_end),
        (true, Some((_, newest))) => (requested_start, newest + 1),
        (true, None) => (0, 0),
    };
    (start, end.min(settled_end))
}
