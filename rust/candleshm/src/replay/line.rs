//! What happens to one symbol in a replay, in order of time: its listing, its candles, its end.

use std::collections::VecDeque;

use crate::columns::{CLOSE, COLUMNS, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, Row, TAKER_BUY_QUOTE_VOLUME};
use crate::columns::{TAKER_BUY_VOLUME, TRADES, VOLUME};
use crate::derive::{Derivation, Fold};
use crate::interval::Grid;
use crate::layout::RowState;
use crate::publish::RingRow;
use crate::writer::Arrival;

/// A time that never comes.
pub(super) const NEVER: i64 = i64::MAX;
/// In how many steps a candle is shown that is known only as a whole.
const STEPS: i64 = 4;
/// Length of a candle of which live rows are made.
const SECOND_MS: i64 = 1_000;
/// How many candles of a symbol are kept at hand.
const NEAR_ROWS: usize = 16;

/// What is shown of a candle before it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Its open, its low and high in the order that its direction implies, and its close, a quarter of it apart.
    Steps,
    /// What its candles of 1s come to, each second.
    Seconds,
}

/// How live rows are made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Making {
    Steps,
    Seconds(Derivation),
}

/// Rows that were given in one go.
#[derive(Debug)]
struct Given {
    rows: Vec<(Row, RowState)>,
    /// How many of them were taken over.
    place: usize,
    /// Index of the candle of the next one, if it does not say when it opens.
    next: i64,
}

/// A symbol on its way through time.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Its place in the block, once it is listed.
    pub(super) place: Option<usize>,
    /// Whether it has had a row.
    has_begun: bool,
    /// When the replay ends: candles that end later are not shown.
    end_ms: i64,
    grid: Grid,
    /// The candles that come next, ascending: closed, verified, or holes. One that is no hole is among them as long as
    /// there is one at all.
    near: VecDeque<RingRow>,
    /// What is still to come behind them, as it was given. It is taken over many rows at a time: the rows of one symbol
    /// lie far from those of the next.
    given: VecDeque<Given>,
    /// Candles of 1s that are still to come.
    seconds: VecDeque<Row>,
    /// Index behind the newest candle that was taken over, and behind the newest that has closed.
    given_end: u64,
    closed_end: u64,
    /// The candle that is live, and how many of its steps were shown.
    steps: (u64, i64),
    /// The seconds of the candle that is live.
    fold: (u64, Fold),
    listed_ms: Option<i64>,
    ended_ms: Option<i64>,
}

impl Line {
    pub(super) fn new(name: String, grid: Grid, end_ms: i64) -> Self {
        Self {
            name,
            place: None,
            has_begun: false,
            end_ms,
            grid,
            near: VecDeque::with_capacity(NEAR_ROWS),
            given: VecDeque::new(),
            seconds: VecDeque::new(),
            given_end: 0,
            closed_end: 0,
            steps: (0, 0),
            fold: (0, Fold::of(crate::price::Price::Trade)),
            listed_ms: None,
            ended_ms: None,
        }
    }

    pub(super) fn set_life(&mut self, listed_ms: Option<i64>, ended_ms: Option<i64>) {
        (self.listed_ms, self.ended_ms) = (listed_ms, ended_ms);
    }

    /// When its first candle opens, if that is known.
    pub(super) fn listed_ms(&self) -> Option<i64> {
        self.listed_ms
    }

    /// Takes candles that are to come; those at or before what it has are left out. A row without an open time lies
    /// one candle behind the row before it.
    pub(super) fn give(&mut self, rows: Vec<(Row, RowState)>) {
        self.given.push_back(Given { rows, place: 0, next: 0 });
        self.come_near();
    }

    /// Takes over the candles that come next, once none is at hand that closes.
    fn come_near(&mut self) {
        while self.front().is_none()
            && let Some(mut given) = self.given.pop_front()
        {
            self.take_over(&mut given);
            if given.place < given.rows.len() {
                self.given.push_front(given);
            }
        }
    }

    /// Takes over some of the rows that were given in one go.
    fn take_over(&mut self, given: &mut Given) {
        if given.place == 0 {
            let known = given.rows.iter().position(|(row, _)| !row[OPEN_TIME_MS].is_nan());
            let Some(known) = known else {
                given.place = given.rows.len();
                return;
            };
            let first_ms = given.rows[known].0[OPEN_TIME_MS] as i64;
            if self.given_end == 0 {
                // 3d candles count from a symbol's first day.
                self.grid = Grid::anchored(self.grid.interval(), self.listed_ms.unwrap_or(first_ms));
            }
            given.next = self.grid.index_of(first_ms) - known as i64;
        }
        let end = given.rows.len().min(given.place + NEAR_ROWS);
        for &(row, state) in &given.rows[given.place..end] {
            let candle_index =
                if row[OPEN_TIME_MS].is_nan() { given.next } else { self.grid.index_of(row[OPEN_TIME_MS] as i64) };
            given.next = candle_index + 1;
            let candle_index = candle_index.max(0) as u64;
            let counts = match state {
                RowState::Closed | RowState::Verified => !row[CLOSE].is_nan(),
                RowState::Hole => true,
                _ => false,
            };
            if counts && candle_index >= self.given_end.max(1) && self.end_of(candle_index) <= self.end_ms {
                let row = if state == RowState::Hole { [f64::NAN; COLUMNS] } else { row };
                self.near.push_back(RingRow { candle_index, row, state });
                self.given_end = candle_index + 1;
            }
        }
        given.place = end;
    }

    /// Takes candles of 1s that are to come, ascending.
    pub(super) fn give_seconds(&mut self, rows: &[Row]) {
        let newest_ms = self.seconds.back().map_or(f64::NEG_INFINITY, |row| row[OPEN_TIME_MS]);
        let end_ms = (self.end_ms - SECOND_MS) as f64;
        let counts = |row: &&Row| (newest_ms..end_ms + 1.0).contains(&row[OPEN_TIME_MS]) && !row[CLOSE].is_nan();
        self.seconds.extend(rows.iter().filter(counts).filter(|row| row[OPEN_TIME_MS] > newest_ms));
    }

    /// The candle that closes next.
    fn front(&self) -> Option<&RingRow> {
        self.near.iter().find(|row| row.state != RowState::Hole)
    }

    fn end_of(&self, candle_index: u64) -> i64 {
        self.grid.end_ms(candle_index as i64)
    }

    /// When the next step of a candle is shown, [`NEVER`] once it is whole.
    fn step_ms(&self, candle_index: u64) -> i64 {
        let shown = if self.steps.0 == candle_index { self.steps.1 } else { 0 };
        if shown == STEPS {
            return NEVER;
        }
        let open_ms = self.grid.open_ms(candle_index as i64);
        open_ms + (self.end_of(candle_index) - open_ms) * shown / STEPS
    }

    /// Returns when something happens next. `starts_ms` is when the replay starts: whatever was before is over.
    pub(super) fn next_ms(&self, making: Option<&Making>, start_ms: i64) -> i64 {
        let front = self.front();
        let close_ms = front.map_or(NEVER, |row| self.end_of(row.candle_index));
        let inside_ms = match making {
            None => NEVER,
            Some(Making::Steps) => front.map_or(NEVER, |row| self.step_ms(row.candle_index)),
            Some(Making::Seconds(_)) => self.seconds.front().map_or(NEVER, |row| row[OPEN_TIME_MS] as i64 + SECOND_MS),
        };
        let joins_ms = if self.place.is_none() { self.listed_ms.unwrap_or(start_ms) } else { NEVER };
        let first_ms = close_ms.min(inside_ms).min(joins_ms);
        first_ms.min(self.ended_ms.unwrap_or(NEVER)).max(start_ms)
    }

    /// Returns what has happened by `now_ms` since it was asked last.
    pub(super) fn pass(&mut self, making: Option<&Making>, now_ms: i64, arrival: &mut Arrival) {
        arrival.rows.clear();
        arrival.live = None;
        while let Some(candle_index) = self.front().map(|row| row.candle_index)
            && self.end_of(candle_index) <= now_ms
        {
            self.take_until(candle_index + 1, arrival);
        }
        match making {
            None => {}
            Some(Making::Steps) => self.pass_steps(now_ms, arrival),
            Some(Making::Seconds(derivation)) => self.pass_seconds(derivation, now_ms, arrival),
        }
    }

    /// Lets all candles below an index close.
    fn take_until(&mut self, end: u64, arrival: &mut Arrival) {
        loop {
            let count = self.near.iter().take_while(|row| row.candle_index < end).count();
            if count == 0 {
                return;
            }
            self.closed_end = self.near[count - 1].candle_index + 1;
            arrival.rows.extend(self.near.drain(..count));
            self.come_near();
        }
    }

    fn pass_steps(&mut self, now_ms: i64, arrival: &mut Arrival) {
        let Some(front) = self.front().copied() else { return };
        let mut shown = None;
        while self.step_ms(front.candle_index) <= now_ms {
            let step = if self.steps.0 == front.candle_index { self.steps.1 } else { 0 };
            self.steps = (front.candle_index, step + 1);
            shown = Some(step);
        }
        if let Some(step) = shown {
            self.take_until(front.candle_index, arrival);
            arrival.live = Some(so_far(&front.row, step));
        }
    }

    fn pass_seconds(&mut self, derivation: &Derivation, now_ms: i64, arrival: &mut Arrival) {
        let mut live = None;
        while let Some(second) = self.seconds.pop_front_if(|row| row[OPEN_TIME_MS] as i64 + SECOND_MS <= now_ms) {
            let candle_index = self.grid.index_of(second[OPEN_TIME_MS] as i64).max(0) as u64;
            if self.fold.0 != candle_index {
                self.fold = (candle_index, derivation.fold());
            }
            self.fold.1.push(&second, RowState::Closed);
            live = Some(candle_index);
        }
        if let Some(candle_index) = live
            && candle_index >= self.closed_end
            && self.end_of(candle_index) > now_ms
            && let Some((row, _)) =
                self.fold.1.finish(self.grid.open_ms(candle_index as i64), self.end_of(candle_index), false)
        {
            self.take_until(candle_index, arrival);
            arrival.live = Some(row);
        }
    }

    /// Takes out what closed by `now_ms`, the newest `count` candles of it, as rows that are there from the start.
    pub(super) fn warm(&mut self, count: usize, now_ms: i64, arrival: &mut Arrival) {
        self.pass(None, now_ms, arrival);
        let newest = arrival.rows.last().map_or(0, |row| row.candle_index + 1);
        let oldest = (self.grid.index_of(now_ms).max(0) as u64).saturating_sub(count as u64);
        arrival.rows.retain(|row| row.candle_index >= oldest);
        let first = arrival.rows.iter().position(|row| row.state != RowState::Hole).unwrap_or(arrival.rows.len());
        arrival.rows.drain(..first);
        self.closed_end = self.closed_end.max(newest);
        while self.seconds.pop_front_if(|row| row[OPEN_TIME_MS] as i64 + SECOND_MS <= now_ms).is_some() {}
    }

    /// Returns where the candles of the series begin for its readers, as (open time, whether there may be older ones),
    /// with the first rows that it gets; `None` after these.
    pub(super) fn beginning(&mut self, arrival: &Arrival, oldest_ms: i64) -> Option<(i64, bool)> {
        if self.has_begun {
            return None;
        }
        let live_ms = arrival.live.as_ref().map(|row| row[OPEN_TIME_MS] as i64);
        let first_ms = arrival.rows.first().map(|row| self.grid.open_ms(row.candle_index as i64)).or(live_ms)?;
        self.has_begun = true;
        Some(match self.listed_ms {
            Some(listed_ms) if listed_ms >= oldest_ms => (listed_ms.min(first_ms), false),
            _ => (first_ms, true),
        })
    }

    /// Whether its trading ends by `now_ms`; it does so once.
    pub(super) fn ends(&mut self, now_ms: i64) -> bool {
        self.ended_ms.take_if(|ended_ms| *ended_ms <= now_ms).is_some()
    }
}

/// What is known of a candle after a step, from 0 to 3. Volumes come with the whole candle: nobody knows when in it they
/// came. A candle with trades has had one.
fn so_far(row: &Row, step: i64) -> Row {
    let rises = row[CLOSE] >= row[OPEN];
    let (near, far) = if rises { (row[LOW], row[HIGH]) } else { (row[HIGH], row[LOW]) };
    let seen = [row[OPEN], near, far, row[CLOSE]];
    let seen = &seen[..=(step as usize).min(3)];
    let mut live = *row;
    live[HIGH] = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    live[LOW] = seen.iter().copied().fold(f64::INFINITY, f64::min);
    live[CLOSE] = seen[seen.len() - 1];
    for column in [VOLUME, QUOTE_VOLUME, TAKER_BUY_VOLUME, TAKER_BUY_QUOTE_VOLUME, COLUMNS - 1] {
        live[column] = 0.0;
    }
    live[TRADES] = live[TRADES].min(1.0);
    live
}
