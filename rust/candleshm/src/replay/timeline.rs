//! The moments of a replay in order, and what happens in each.

use crate::columns::Row;
use crate::derive::Derivation;
use crate::error::Error;
use crate::interval::{Grid, Interval};
use crate::layout::RowState;
use crate::price::Price;
use crate::replay::line::{Inside, Line, Making, NEVER};
use crate::writer::{Arrival, Writer};

/// All symbols of a replay, from its start to its end.
#[derive(Debug)]
pub(super) struct Timeline {
    grid: Grid,
    making: Option<Making>,
    lines: Vec<Line>,
    /// When something happens next to each line.
    next_ms: Vec<i64>,
    start_ms: i64,
    end_ms: i64,
    /// Open time up to which all rows were given.
    given_ms: i64,
    /// Open time of the oldest candle that is shown.
    oldest_ms: i64,
    arrival: Arrival,
}

impl Timeline {
    pub(super) fn new(
        (interval, price): (Interval, Price),
        inside: Option<Inside>,
        symbols: &[String],
        (start_ms, end_ms): (i64, i64),
    ) -> Result<Self, Error> {
        let grid = Grid::new(interval);
        let making = match inside {
            None => None,
            Some(Inside::Steps) => Some(Making::Steps),
            Some(Inside::Seconds) => {
                Some(Making::Seconds(Derivation::new(Grid::new(Interval::Second1), grid)?.with_price(price)))
            }
        };
        if start_ms <= 0 || end_ms <= start_ms {
            return Err(Error::Argument(format!(
                "a replay must start after 1970 and end after its start: `{start_ms}` to `{end_ms}`"
            )));
        }
        let lines: Vec<Line> = symbols.iter().map(|symbol| Line::new(symbol.clone(), grid, end_ms)).collect();
        let next_ms = vec![NEVER; lines.len()];
        let arrival = Arrival::default();
        let (given_ms, oldest_ms) = (start_ms, start_ms);
        Ok(Self { grid, making, lines, next_ms, start_ms, end_ms, given_ms, oldest_ms, arrival })
    }

    fn line(&mut self, symbol: &str) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.name == symbol)
    }

    /// Returns the open time from which rows are needed: all before it were given.
    pub(super) fn given_ms(&self) -> i64 {
        self.given_ms
    }

    /// Notes that all rows that open before `given_ms` were given.
    pub(super) fn set_given(&mut self, given_ms: i64) {
        self.given_ms = given_ms;
        for (line, next_ms) in self.lines.iter().zip(&mut self.next_ms) {
            *next_ms = line.next_ms(self.making.as_ref(), self.start_ms);
        }
    }

    /// Asks for rows from so many candles before the start on.
    pub(super) fn reach_back(&mut self, warm_rows: usize) {
        let start = self.grid.index_of(self.start_ms);
        self.oldest_ms = self.grid.open_ms(start.saturating_sub(warm_rows as i64)).max(1);
        self.given_ms = self.oldest_ms;
    }

    pub(super) fn give(&mut self, symbol: &str, rows: Vec<(Row, RowState)>) {
        if let Some(line) = self.line(symbol) {
            line.give(rows);
        }
    }

    pub(super) fn give_seconds(&mut self, symbol: &str, rows: &[Row]) {
        if let Some(line) = self.line(symbol) {
            line.give_seconds(rows);
        }
    }

    pub(super) fn set_life(&mut self, symbol: &str, listed_ms: Option<i64>, ended_ms: Option<i64>) {
        if let Some(line) = self.line(symbol) {
            line.set_life(listed_ms, ended_ms);
        }
    }

    /// Returns the symbols that are listed when the replay starts.
    pub(super) fn first_symbols(&self) -> Vec<String> {
        let is_there = |line: &&Line| line.listed_ms().is_none_or(|listed_ms| listed_ms <= self.start_ms);
        self.lines.iter().filter(is_there).map(|line| line.name.clone()).collect()
    }

    /// Puts the rows that are there from the start.
    pub(super) fn warm(&mut self, writer: &mut Writer, warm_rows: usize) -> Result<(), Error> {
        for line in &mut self.lines {
            line.warm(warm_rows, self.start_ms, &mut self.arrival);
            if line.listed_ms().is_none_or(|listed_ms| listed_ms <= self.start_ms) {
                let index = writer.index_of(&line.name)?;
                line.place = Some(index);
                if let Some((open_ms, is_cut)) = line.beginning(&self.arrival, self.oldest_ms) {
                    writer.begin_replayed(index, open_ms, is_cut);
                }
                writer.put(index, &self.arrival, self.start_ms as u64);
            }
        }
        self.set_given(self.given_ms);
        Ok(())
    }

    /// Returns the next moment, if the rows for it were given; `None` while they were not. The last one is the end.
    pub(super) fn next_ms(&self) -> Option<i64> {
        let next_ms = self.next_ms.iter().copied().min().unwrap_or(NEVER).min(self.end_ms);
        // A candle that opens at this moment may already be known by its open.
        let is_given = if self.making.is_some() { next_ms < self.given_ms } else { next_ms <= self.given_ms };
        (is_given || self.given_ms >= self.end_ms).then_some(next_ms)
    }

    /// Publishes a moment: everything that happens in it, without waking anybody.
    pub(super) fn publish(&mut self, writer: &mut Writer, now_ms: i64) -> Result<(), Error> {
        writer.set_replayed(now_ms as u64);
        for (line, next_ms) in self.lines.iter_mut().zip(&mut self.next_ms) {
            if *next_ms > now_ms {
                continue;
            }
            let index = if let Some(index) = line.place {
                index
            } else {
                writer.add_symbol(&line.name)?;
                *line.place.insert(writer.index_of(&line.name)?)
            };
            line.pass(self.making.as_ref(), now_ms, &mut self.arrival);
            if let Some((open_ms, is_cut)) = line.beginning(&self.arrival, self.oldest_ms) {
                writer.begin_replayed(index, open_ms, is_cut);
            }
            writer.put(index, &self.arrival, now_ms as u64);
            if line.ends(now_ms) {
                writer.end_replayed(index);
            }
            *next_ms = line.next_ms(self.making.as_ref(), self.start_ms);
        }
        writer.commit_quietly();
        Ok(())
    }
}
