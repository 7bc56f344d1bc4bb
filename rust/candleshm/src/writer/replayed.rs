//! Rows of a replay: put where they belong as the files have them, at the moment at which they were known.
//!
//! Nothing is merged: each candle comes once, in order of time, with the state that it is to have. What is derived from
//! the rows follows as ever.

use super::{Config, Error, News, Owner, Series, Writer};
use crate::columns::{OPEN_TIME_MS, Row};
use crate::interval::Grid;
use crate::layout::{Presence, RowState, header};
use crate::publish::{RingRow, SeriesWriter};
use crate::sync::Ordering::Relaxed;

/// What becomes known of a series in one moment.
#[derive(Debug, Default)]
pub struct Arrival {
    /// Candles that closed, from the oldest to the newest, behind all that the series has: closed, verified, or holes,
    /// whose rows do not count. What is left out between them is missing. The newest is no hole unless `live` is behind.
    pub rows: Vec<RingRow>,
    /// The candle behind them that is live from now on, with its values so far.
    pub live: Option<Row>,
}

impl Arrival {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.live.is_none()
    }
}

impl Writer {
    /// As [`Self::open`], for a block of a replay whose clock shows `replay_ms`. A block that a dead replay left is
    /// replaced, without its rows.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `Argument` when a collector left the block that has the name, or for a time of 0.
    pub fn open_replayed(name: &str, config: &Config, owner: Owner, replay_ms: u64) -> Result<Self, Error> {
        if replay_ms == 0 {
            return Err(Error::Argument("a replay must begin after 1970: `0`".into()));
        }
        Self::open_on(Grid::new(config.interval), name, config, owner, replay_ms)
    }

    /// Moves the clock of the replay, before the rows of the moment are put.
    pub fn set_replayed(&self, replay_ms: u64) {
        self.block.header(header::REPLAY_MS).store(replay_ms, Relaxed);
        self.derived.iter().for_each(|derived| derived.writer().set_replayed(replay_ms));
    }

    /// Says from where on a series has candles, before its first row: from its listing, or, with `is_cut`, only from
    /// where the replay shows them. What lies below is not missing.
    pub fn begin_replayed(&mut self, index: usize, first_open_ms: i64, is_cut: bool) {
        if self.series[index].state.marks.head > 0 {
            return;
        }
        self.anchor_at(index, first_open_ms);
        let first_bar = self.block.grid(index).index_of(first_open_ms).max(0) as u64;
        let state = &mut self.series[index].state;
        state.is_cut = is_cut;
        SeriesWriter::new(self.block.series(index), state).set_first_bar(first_bar);
    }

    /// Publishes what became known of a series, without waking anybody: a moment ends with one [`Self::commit_quietly`].
    pub fn put(&mut self, index: usize, arrival: &Arrival, replay_ms: u64) {
        if arrival.is_empty() {
            return;
        }
        let before = self.standing(index).0;
        let words = self.block.series(index);
        let Series { state, .. } = &mut self.series[index];
        let known_head = state.marks.head;
        let live_index =
            arrival.live.as_ref().map(|row| self.block.grid(index).index_of(row[OPEN_TIME_MS] as i64).max(0) as u64);
        let head = live_index.unwrap_or_else(|| arrival.rows.last().map_or(known_head, |row| row.candle_index + 1));
        let mut writer = SeriesWriter::new(words, state);
        let oldest = head.saturating_sub(words.ring.capacity as u64);
        if head > known_head {
            let has_holes = arrival.rows.iter().any(|row| row.state == RowState::Hole);
            if has_holes {
                let rows: Vec<RingRow> =
                    arrival.rows.iter().filter(|row| row.state != RowState::Hole).copied().collect();
                writer.advance(head, &rows, arrival.live.as_ref());
                for hole in arrival.rows.iter().filter(|row| row.state == RowState::Hole && row.candle_index >= oldest)
                {
                    writer.hole(hole.candle_index);
                }
            } else {
                writer.advance(head, &arrival.rows, arrival.live.as_ref());
            }
        } else if let Some(live) = &arrival.live {
            writer.set_live(live);
        }
        writer.set_received(replay_ms);
        writer.publish();
        let news = if arrival.rows.is_empty() { News::Changed } else { News::Closed };
        self.settle(index, before, news);
        if !self.derived.is_empty() {
            // Nothing below the oldest of the rows was there before.
            let from =
                if known_head > 0 { known_head } else { arrival.rows.first().map_or(head, |row| row.candle_index) };
            self.update_derived(index, (from.max(oldest)..head + u64::from(arrival.live.is_some())).collect());
        }
    }

    /// As [`Self::commit`], and wakes nobody: [`Self::wake`] does that for many moments.
    pub fn commit_quietly(&mut self) {
        self.derived.iter_mut().for_each(|derived| derived.writer_mut().commit_quietly());
        if self.news > News::None {
            self.block.announce_news(self.news == News::Closed);
            self.news = News::None;
        }
    }

    /// Wakes whoever waits for what was committed quietly.
    pub fn wake(&self) {
        self.derived.iter().for_each(|derived| derived.writer().wake());
        self.block.wake(true);
    }

    /// Wakes everybody who waits, so that they look how far the replay has come.
    pub fn wake_all(&self) {
        self.derived.iter().for_each(|derived| derived.writer().wake_all());
        self.block.tell(true);
    }

    /// Ends a symbol: closes and panels wait for it no longer.
    pub fn end_replayed(&mut self, index: usize) {
        self.set_presence_quietly(index, Presence::Ended);
    }
}
