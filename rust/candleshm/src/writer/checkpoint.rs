//! Checkpoints: all that a writer knows of a series, as words, from which another writer of the same shape goes on.
//!
//! ```text
//! entry words without the name | tags | first copies of the columns | what stands in no block
//! ```

use super::derived::NOTHING;
use super::{News, Writer};
use crate::chain::Chain;
use crate::error::{Corruption, Error};
use crate::layout::{Presence, ROW_WORDS, header, symbol};
use crate::merge::Confirmations;
use crate::publish::{SeriesState, SeriesWriter};
use crate::ring::SeriesWords;
use crate::soundness::is_sound_series;
use crate::sync::Ordering::Relaxed;

/// Words of an entry that a checkpoint holds: all but the name.
const ENTRY_WORDS: usize = symbol::NAME;

impl Writer {
    /// Returns whether any series has a row, those of derived blocks included.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.series.iter().any(|series| series.state.marks.end() > 0)
            || self.derived.iter().any(|derived| derived.writer.has_rows())
    }

    /// Returns what is known of a series: of the block's own one with `derived` `None`, else of the derived block of
    /// that name.
    ///
    /// # Errors
    ///
    /// `Name` when no such block is derived.
    pub fn checkpoint(&self, derived: Option<&str>, index: usize) -> Result<Vec<u64>, Error> {
        let Some(name) = derived else {
            let mut words = Vec::new();
            self.take_down(index, &mut words);
            return Ok(words);
        };
        let named = self.derived.iter().find(|derived| derived.writer.block.name() == name);
        let derived = named.ok_or_else(|| Error::Name { name: name.to_owned() })?;
        let part = &derived.series[index];
        let mut words = Vec::new();
        derived.writer.take_down(part.index, &mut words);
        words.push(part.current.into());
        words.extend(&part.suspect);
        Ok(words)
    }

    /// Puts a series where [`Self::checkpoint`] of a writer of the same shape found it. Waiters are woken. `offset_ms` is
    /// added to times of `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    ///
    /// `Name` when no such block is derived. `Corrupt` for words that are of another shape or cannot be: the series may
    /// then hold anything, and the writer is of no more use.
    pub fn restore(&mut self, derived: Option<&str>, index: usize, words: &[u64], offset_ms: i64) -> Result<(), Error> {
        let corrupt = |writer: &Self| Error::Corrupt {
            name: writer.block.name().to_owned(),
            what: Corruption::Field { field: "checkpoint", value: index as u64 },
        };
        let Some(name) = derived else {
            let rest = self.put_back(index, words, offset_ms).ok_or_else(|| corrupt(self))?;
            return if rest.is_empty() { Ok(()) } else { Err(corrupt(self)) };
        };
        let derived = self.derived_named(name)?;
        let at = derived.series[index].index;
        let rest = derived.writer.put_back(at, words, offset_ms).ok_or_else(|| corrupt(&derived.writer))?;
        let (&current, suspect) = rest.split_first().ok_or_else(|| corrupt(&derived.writer))?;
        let part = &mut derived.series[index];
        part.prefix = NOTHING;
        part.current = current == 1;
        part.suspect = suspect.iter().copied().collect();
        Ok(())
    }

    fn take_down(&self, index: usize, words: &mut Vec<u64>) {
        let SeriesWords { entry, data, ring } = self.block.series(index);
        words.extend(entry[..ENTRY_WORDS].iter().map(|word| word.load(Relaxed)));
        words.extend(data[..ring.capacity].iter().map(|word| word.load(Relaxed)));
        for column in 0..ROW_WORDS {
            let first = ring.capacity + column * ring.column_stride_words();
            words.extend(data[first..first + ring.capacity].iter().map(|word| word.load(Relaxed)));
        }
        let series = &self.series[index];
        words.extend([
            series.newest_event.0,
            series.newest_event.1 as u64,
            series.last_event_ms,
            series.pause_ms,
            series.quiet_until_ms as u64,
        ]);
        series.chain.take_down(words);
        series.seen.take_down(words);
    }

    /// Returns the words behind those of the series; `None` for words that cannot be.
    fn put_back<'a>(&mut self, index: usize, words: &'a [u64], offset_ms: i64) -> Option<&'a [u64]> {
        let (before, _) = self.standing(index);
        let SeriesWords { entry, data, ring } = self.block.series(index);
        let (entry_words, rest) = words.split_at_checked(ENTRY_WORDS)?;
        let (tags, rest) = rest.split_at_checked(ring.capacity)?;
        let (columns, rest) = rest.split_at_checked(ROW_WORDS * ring.capacity)?;
        for (word, &value) in entry.iter().zip(entry_words) {
            word.store(value, Relaxed);
        }
        for (word, &value) in data.iter().zip(tags) {
            word.store(value, Relaxed);
        }
        for (column, values) in columns.chunks_exact(ring.capacity).enumerate() {
            let first = ring.capacity + column * ring.column_stride_words();
            for copy in [first, first + ring.capacity] {
                for (word, &value) in data[copy..].iter().zip(values) {
                    word.store(value, Relaxed);
                }
            }
        }
        if !is_sound_series(self.block.series(index), self.block.grid(index)) {
            return None;
        }
        let (own, rest) = rest.split_first_chunk::<5>()?;
        let (chain, rest) = Chain::put_back(rest)?;
        let (seen, rest) = Confirmations::put_back(rest, ring.capacity)?;
        let words = self.block.series(index);
        let series = &mut self.series[index];
        series.newest_event = (own[0], own[1] as i64);
        let shifted = |boot_ms: u64| if boot_ms == 0 { 0 } else { boot_ms.saturating_add_signed(offset_ms) };
        (series.last_event_ms, series.pause_ms, series.quiet_until_ms) = (shifted(own[2]), own[3], own[4] as i64);
        (series.chain, series.seen) = (chain, seen);
        series.presence = match words.entry[symbol::TRADING].load(Relaxed) {
            0 => Presence::Ended,
            1 => Presence::Trading,
            _ => Presence::Silent,
        };
        series.state = SeriesState::empty();
        let mut writer = SeriesWriter::new(words, &mut series.state);
        writer.recover();
        let received_ms = shifted(writer.state().marks.received_ms);
        writer.set_received(received_ms);
        writer.publish();
        series.newest_settled = 0;
        series.find_newest_settled(&self.block, index);
        let after = series.state.shown_gaps(self.block.series(index));
        self.count_gaps(before.gaps, after);
        // Nobody waits for what this series had before.
        let newest = self.series.iter().map(|series| series.state.marks.head).max().unwrap_or(0);
        if self.universe_bar >= newest {
            self.universe_bar = 0;
            self.block.announce(header::UNIVERSE_BAR, 0);
        }
        self.settle_universe();
        self.news = News::Closed;
        self.commit();
        Some(rest)
    }
}
