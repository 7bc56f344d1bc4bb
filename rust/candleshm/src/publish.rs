//! How one series is written: the only stores into tags, rows and seqlock, each under readers that never see half a
//! row.
//!
//! The operations and their orderings are those of `docs/segment-format.md`, section "The writer"; the comments here
//! name what each ordering is for, the tests in `tests/loom` fail when one is left out. There is one writer per
//! block. It may be stopped for good between any two stores: readers go on with what is published, and the next owner
//! starts with [`SeriesWriter::recover`] and simply does the work again.

use crate::layout::{ROW_WORDS, RowState, RowWords, Tag, symbol};
use crate::ring::SeriesWords;
use crate::seqlock::{self, Marks};
use crate::sync::{
    Ordering::{Relaxed, Release},
    fence,
};

/// A row of the ring on its way into the block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingRow {
    /// Where it belongs.
    pub candle_index: u64,
    /// Its values.
    pub row: RowWords,
    /// Live (provisional), closed or verified.
    pub state: RowState,
}

/// What the writer knows of a series without looking into the block.
#[derive(Debug, Clone)]
pub struct SeriesState {
    /// As last published, or about to be: [`SeriesWriter::publish`] makes it visible.
    pub marks: Marks,
    /// The newest row, in the state of `marks.state`.
    pub newest: RowWords,
    /// Index of the symbol's first candle, 0 while unknown.
    pub first_bar: u64,
    /// Whether `first_bar` is only where the rows of a replay begin: the symbol may have older candles.
    pub is_cut: bool,
    /// Rows of the window that are not there and not known to be holes.
    pub missing: usize,
    /// Rows of the window known to be holes.
    pub holes: usize,
    /// Candle indices of provisional rows in the ring, ascending.
    provisional: Vec<u64>,
    version: u64,
    rev: u64,
    overwrite_mark: u64,
}

impl SeriesState {
    /// State of a series without rows.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            marks: Marks::EMPTY,
            newest: [f64::NAN; ROW_WORDS],
            first_bar: 0,
            is_cut: false,
            missing: 0,
            holes: 0,
            provisional: Vec::new(),
            version: 0,
            rev: 0,
            overwrite_mark: 0,
        }
    }

    /// Returns the oldest candle index of the readable window in front of `head`.
    #[must_use]
    pub fn window_start(&self, length: usize) -> u64 {
        self.marks.head.saturating_sub(length as u64).max(self.first_bar).min(self.marks.head)
    }

    /// Returns how many rows are missing, and how many are holes, of the LENGTH slots that readers are shown, the live
    /// row's among them. Beside a live row the window holds one more, for readers that want closed rows only.
    #[must_use]
    pub fn shown_gaps(&self, words: SeriesWords<'_>) -> (usize, usize) {
        let start = self.window_start(words.ring.length);
        let is_shown = !self.marks.has_live() || self.marks.head - start < words.ring.length as u64;
        let (missing, holes) = if is_shown { (0, 0) } else { unreadable(words.tag(start), start) };
        (self.missing - missing, self.holes - holes)
    }

    /// Returns the index of the oldest provisional candle of the ring from `start` on.
    #[must_use]
    pub fn oldest_provisional(&self, start: u64) -> Option<u64> {
        self.provisional.iter().copied().find(|&candle_index| candle_index >= start)
    }
}

/// The writer of one series.
pub struct SeriesWriter<'a> {
    words: SeriesWords<'a>,
    state: &'a mut SeriesState,
}

impl<'a> SeriesWriter<'a> {
    /// Borrows a series for a few writes.
    pub fn new(words: SeriesWords<'a>, state: &'a mut SeriesState) -> Self {
        Self { words, state }
    }

    /// Returns what is known of the series, changes included that are not published yet.
    #[must_use]
    pub fn state(&self) -> &SeriesState {
        self.state
    }

    /// Sets when the newest response was received. Becomes visible with the next publish.
    pub fn set_received(&mut self, received_ms: u64) {
        self.state.marks.received_ms = received_ms;
    }

    /// Sets how many corrections there were, as the owner of the block that this one follows counts them. Becomes
    /// visible with the next publish.
    pub fn set_revision(&mut self, revision: u32) {
        self.state.marks.revision = revision;
    }

    /// Makes the marks and the newest row visible.
    pub fn publish(&mut self) {
        let state = &mut *self.state;
        state.version = seqlock::publish(self.words.entry, state.version, &state.marks, &state.newest);
    }

    /// Puts a newer live row in front, or the same one with newer values. Becomes visible with the next publish.
    pub fn set_live(&mut self, row: &RowWords) {
        self.state.newest = *row;
        self.state.marks.state = RowState::Live;
    }

    /// Moves the head to `new_head`: `rows` are the rows of the ring from the old head on, ascending; whatever they
    /// leave out is missing. Without a live row the newest of `rows` is repeated in the seqlock. Becomes visible with
    /// the next publish.
    pub fn advance(&mut self, new_head: u64, rows: &[RingRow], live: Option<&RowWords>) {
        let capacity = self.words.ring.capacity as u64;
        let old_head = self.state.marks.head;
        debug_assert!(new_head > old_head);
        let newest = rows.last().filter(|row| row.candle_index + 1 == new_head && row.state != RowState::Live);
        debug_assert!(live.is_some() || newest.is_some());
        let from = old_head.max(new_head.saturating_sub(capacity));
        self.leave_window(new_head);
        // Readers of a window that begins before `overwrite_mark - capacity` reject it, whatever they copied.
        self.state.overwrite_mark = self.state.overwrite_mark.max(new_head);
        self.words.entry[symbol::WMARK].store(self.state.overwrite_mark, Relaxed);
        for candle_index in from..new_head {
            self.store_tag(candle_index, RowState::Missing, Relaxed);
        }
        // SYNC POINT reuse: a reader that reads a word stored below sees the marks and the watermark stored above.
        fence(Release);
        let mut rows = rows.iter().skip_while(|row| row.candle_index < from).peekable();
        for candle_index in from..new_head {
            if let Some(row) = rows.next_if(|row| row.candle_index == candle_index) {
                self.words.store_row(candle_index, &row.row);
                // SYNC POINT row: pairs with the acquire fence behind the reader's first load of the tags.
                self.store_tag(candle_index, row.state, Release);
                if row.state == RowState::Live {
                    self.state.provisional.push(candle_index);
                }
            } else {
                self.words.store_row(candle_index, &[f64::NAN; ROW_WORDS]);
            }
        }
        self.state.marks.head = new_head;
        for candle_index in from..new_head {
            self.count_in(candle_index);
        }
        match (live, newest) {
            (Some(row), _) => self.set_live(row),
            // To read back what was stored a moment ago would wait for all of these stores.
            (None, Some(newest)) => {
                self.state.newest = newest.row;
                self.state.marks.state = newest.state;
            }
            (None, None) => self.repeat_newest(),
        }
        self.settle_marks();
    }

    /// Replaces, fills or blanks (holes) rows of the ring, ascending and below the head. A provisional row may only go
    /// to a candle at or above `final_end` that was never final. `corrections` of the rows were closed before,
    /// with other values. Becomes wholly visible with the next publish.
    pub fn rewrite(&mut self, rows: &[RingRow], corrections: u32) {
        let (final_start, final_end) = (self.state.marks.final_start, self.state.marks.final_end);
        let in_fast_window = |candle_index: u64| (final_start..final_end).contains(&candle_index);
        if let Some(last) = rows.iter().rev().find(|row| in_fast_window(row.candle_index)) {
            // From here on windows with these rows look at their tags.
            self.state.marks.final_start = last.candle_index + 1;
            self.publish();
        }
        let rev = self.state.rev.wrapping_add(1);
        for row in rows {
            debug_assert!(row.candle_index < self.state.marks.head);
            let was = self.words.tag(row.candle_index);
            let was_final = was.is_final_of(row.candle_index)
                || was.candle_index() == row.candle_index && was.state() == RowState::MissingFinal;
            debug_assert!(row.state != RowState::Live || !was_final && row.candle_index >= final_end);
            let mark = if was_final { RowState::MissingFinal } else { RowState::Missing };
            self.count_out(row.candle_index);
            self.words.tag_word(row.candle_index).store(Tag::new(row.candle_index, rev, mark).0, Relaxed);
        }
        // SYNC POINT mark: a reader that sees the new `rev` sees the rows marked.
        fence(Release);
        self.state.rev = rev;
        self.words.entry[symbol::REV].store(rev, Relaxed);
        // SYNC POINT rewrite: a reader that reads a word stored below sees the new `rev`, and the marks.
        fence(Release);
        for row in rows {
            self.words.store_row(row.candle_index, &row.row);
        }
        for row in rows {
            // SYNC POINT row.
            self.words.tag_word(row.candle_index).store(Tag::new(row.candle_index, rev, row.state).0, Release);
            self.count_in(row.candle_index);
            if row.state == RowState::Live {
                if let Err(at) = self.state.provisional.binary_search(&row.candle_index) {
                    self.state.provisional.insert(at, row.candle_index);
                }
            } else {
                self.state.provisional.retain(|&candle_index| candle_index != row.candle_index);
            }
        }
        self.state.marks.revision = self.state.marks.revision.wrapping_add(corrections);
        if !self.state.marks.has_live() && rows.last().is_some_and(|row| row.candle_index + 1 == self.state.marks.head)
        {
            self.repeat_newest();
        }
        // Whatever was lowered for the rewrite is final again.
        self.state.marks.final_start = final_start;
        self.settle_marks();
    }

    /// Declares a provisional row final that was confirmed bit for bit: only its tag changes. Becomes wholly visible
    /// with the next publish.
    pub fn close(&mut self, candle_index: u64) {
        let tag = self.words.tag(candle_index);
        debug_assert!(tag.candle_index() == candle_index && tag.state() == RowState::Live);
        // SYNC POINT row: a reader that sees the state must see the values it stands for.
        self.words.tag_word(candle_index).store(tag.with_state(RowState::Closed).0, Release);
        self.state.provisional.retain(|&provisional| provisional != candle_index);
        // `final_end` moves past the row only behind the store of its tag.
        self.settle_marks();
    }

    /// Declares a closed row independently confirmed.
    pub fn verify(&mut self, candle_index: u64) {
        let tag = self.words.tag(candle_index);
        if tag.candle_index() == candle_index && tag.state() == RowState::Closed {
            // SYNC POINT row.
            self.words.tag_word(candle_index).store(tag.with_state(RowState::Verified).0, Release);
        }
    }

    /// Declares a verified row closed: what confirmed it is not known where it comes from now. Its values stay.
    pub fn unverify(&mut self, candle_index: u64) {
        let tag = self.words.tag(candle_index);
        if tag.candle_index() == candle_index && tag.state() == RowState::Verified {
            // SYNC POINT row.
            self.words.tag_word(candle_index).store(tag.with_state(RowState::Closed).0, Release);
        }
    }

    /// Takes the state of the ring's newest row over into the seqlock, where the seqlock repeats it. Becomes visible
    /// with the next publish.
    pub fn refresh_newest(&mut self) {
        if !self.state.marks.has_live() && self.state.marks.head > 0 {
            self.repeat_newest();
        }
    }

    /// Declares that the exchange has no row for `candle_index`, which is missing.
    pub fn hole(&mut self, candle_index: u64) {
        let tag = self.words.tag(candle_index);
        debug_assert!(tag.candle_index() == candle_index && !tag.is_readable_of(candle_index));
        self.count_out(candle_index);
        // SYNC POINT row.
        self.words.tag_word(candle_index).store(tag.with_state(RowState::Hole).0, Release);
        self.count_in(candle_index);
    }

    /// Declares `candle_index` the symbol's very first: what lies below it is not missing.
    pub fn set_first_bar(&mut self, candle_index: u64) {
        let before = self.state.window_start(self.words.ring.length);
        self.state.first_bar = candle_index;
        let after = self.state.window_start(self.words.ring.length);
        for candle_index in before.min(after)..before.max(after) {
            let tag = self.words.tag(candle_index);
            let (missing, holes) = unreadable(tag, candle_index);
            if after > before {
                self.state.missing -= missing;
                self.state.holes -= holes;
            } else {
                self.state.missing += missing;
                self.state.holes += holes;
            }
        }
        self.words.entry[symbol::FIRST_BAR].store(candle_index, Release);
    }

    /// Fills a series that nobody can see yet with what one of the same symbol holds in another block, in a ring of any
    /// length: the rows with their states, what is known to be absent, the newest row, the revision and the time of the
    /// newest response. Nothing becomes fresher or more certain by it. The other owner is dead, or the caller.
    /// Publishes.
    pub fn carry(&mut self, from: SeriesWords<'_>) {
        let mut newest = [f64::NAN; ROW_WORDS];
        // Nobody writes there, so the first attempt is accepted.
        let marks = seqlock::read(from.entry, &mut newest).unwrap_or(Marks::EMPTY);
        let head = marks.head;
        if head == 0 {
            return;
        }
        let below = |count: usize| head.saturating_sub(count as u64);
        let (window, their_window) = (below(self.words.ring.length), below(from.ring.length));
        for candle_index in below(self.words.ring.capacity)..head {
            let tag = from.tag(candle_index);
            let is_theirs = candle_index >= below(from.ring.capacity) && tag.candle_index() == candle_index;
            let state = if candle_index >= their_window {
                // As in a recovery: a slot that an advance took before it was cut may have held a final row.
                if is_theirs { tag.state() } else { RowState::MissingFinal }
            } else if is_theirs && tag.is_final_of(candle_index) && candle_index < window {
                // What has left a window is not put right any more, so it does not come back into one.
                tag.state()
            } else {
                RowState::Missing
            };
            let has_row = matches!(state, RowState::Live | RowState::Closed | RowState::Verified);
            self.words.store_row(candle_index, &if has_row { from.row(candle_index) } else { [f64::NAN; ROW_WORDS] });
            self.store_tag(candle_index, state, Relaxed);
        }
        let first_bar = from.entry[symbol::FIRST_BAR].load(Relaxed);
        self.words.entry[symbol::FIRST_BAR].store(first_bar, Relaxed);
        self.words.entry[symbol::WMARK].store(head, Relaxed);
        self.state.marks = marks;
        self.state.newest = newest;
        self.publish();
        self.recover();
    }

    /// Takes a series over from an owner that died, perhaps in the middle of a write. Publishes when the bounds found
    /// differ from those published.
    pub fn recover(&mut self) {
        let mut row = [f64::NAN; ROW_WORDS];
        // Nobody writes now, so the first attempt is accepted.
        let marks = seqlock::read(self.words.entry, &mut row).unwrap_or(Marks::EMPTY);
        if marks.head == 0 && !marks.has_live() {
            // No row was published yet: the seqlock holds zeroes.
            row = [f64::NAN; ROW_WORDS];
        }
        let word = |offset: usize| self.words.entry[offset].load(Relaxed);
        *self.state = SeriesState {
            marks,
            newest: row,
            first_bar: word(symbol::FIRST_BAR),
            version: word(symbol::VERSION),
            rev: word(symbol::REV),
            overwrite_mark: word(symbol::WMARK),
            ..SeriesState::empty()
        };
        let head = marks.head;
        if head == 0 && self.state.first_bar > 0 {
            // Nothing is known of a series that was not published: its first response may have been cut short.
            self.set_first_bar(0);
        }
        self.raise_watermark();
        for candle_index in self.state.window_start(self.words.ring.length)..head {
            if self.words.tag(candle_index).candle_index() != candle_index {
                self.reclaim(candle_index);
            }
            self.count_in(candle_index);
            let tag = self.words.tag(candle_index);
            if tag.candle_index() == candle_index && tag.state() == RowState::Live {
                self.state.provisional.push(candle_index);
            }
        }
        if !marks.has_live() && head > 0 && self.words.tag(head - 1).is_final_of(head - 1) {
            self.repeat_newest();
        }
        // A rewrite may have been cut after its marks: only the tags tell from where on every row is final.
        self.state.marks.final_start = self.state.marks.final_end.max(self.window_final());
        self.state.marks.final_end = self.state.marks.final_start;
        self.extend_final_start();
        if self.state.marks != marks || !same_bits(&self.state.newest, &row) {
            self.publish();
        }
    }

    /// Raises the watermark above every candle that a cut advance put into a slot of the window. That advance
    /// raised it itself, but the death may have taken this store and left the tags: without it a reader with an older
    /// seqlock would accept the blank rows that are about to come.
    fn raise_watermark(&mut self) {
        let window = self.state.window_start(self.words.ring.length)..self.state.marks.head;
        let taken = window
            .filter_map(|candle_index| {
                Some(self.words.tag(candle_index).candle_index()).filter(|&other| other > candle_index)
            })
            .max();
        if let Some(candle_index) = taken.filter(|&candle_index| candle_index >= self.state.overwrite_mark) {
            self.state.overwrite_mark = candle_index + 1;
            self.words.entry[symbol::WMARK].store(self.state.overwrite_mark, Relaxed);
        }
    }

    /// Gives a slot of the window back to its candle: an advance beyond the whole ring had taken it and was cut
    /// before it was published. Whether the row was final is not known any more, so only a final one may come.
    fn reclaim(&self, candle_index: u64) {
        // SYNC POINT reuse: a reader that reads a word stored below sees the dead owner's tag, which we have seen, and
        // the watermark, which was raised above it.
        fence(Release);
        self.words.store_row(candle_index, &[f64::NAN; ROW_WORDS]);
        // SYNC POINT row: a reader that sees the slot back at its candle sees it blank.
        self.store_tag(candle_index, RowState::MissingFinal, Release);
    }

    /// Index of the oldest provisional candle of the window, the head if there is none.
    fn window_final(&self) -> u64 {
        let head = self.state.marks.head;
        let start = head.saturating_sub(self.words.ring.length as u64);
        self.state.oldest_provisional(start).unwrap_or(head)
    }

    /// Moves `final_end` up to the lowest provisional row and lets `final_start` follow.
    fn settle_marks(&mut self) {
        let final_end = self.state.marks.final_end.max(self.window_final());
        // Candle indices that become part of `[.., final)`: the highest one that is not final is the new bound of
        // `final_start`.
        let start = self.state.marks.final_end.max(self.state.window_start(self.words.ring.length));
        let gap =
            (start..final_end).rev().find(|&candle_index| !self.words.tag(candle_index).is_final_of(candle_index));
        self.state.marks.final_end = final_end;
        let final_start = self.state.marks.final_start.max(self.state.window_start(self.words.ring.length));
        self.state.marks.final_start = gap.map_or(final_start, |candle_index| candle_index + 1);
        self.extend_final_start();
    }

    /// Lets `final_start` go down as long as the rows below it are final.
    fn extend_final_start(&mut self) {
        let start = self.state.window_start(self.words.ring.length);
        while self.state.marks.final_start > start
            && self.words.tag(self.state.marks.final_start - 1).is_final_of(self.state.marks.final_start - 1)
        {
            self.state.marks.final_start -= 1;
        }
    }

    /// Repeats the ring's newest row in the seqlock: there is no live row.
    fn repeat_newest(&mut self) {
        let candle_index = self.state.marks.head - 1;
        self.state.newest = self.words.row(candle_index);
        let tag = self.words.tag(candle_index);
        // Never provisional: it would look like the row of `head`.
        debug_assert!(tag.is_final_of(candle_index));
        self.state.marks.state = tag.state();
    }

    fn store_tag(&self, candle_index: u64, state: RowState, order: crate::sync::Ordering) {
        self.words.tag_word(candle_index).store(Tag::new(candle_index, self.state.rev, state).0, order);
    }

    /// Counts out the candles that leave the window when the head moves, while their tags are still theirs.
    fn leave_window(&mut self, new_head: u64) {
        let length = self.words.ring.length;
        let start = new_head.saturating_sub(length as u64);
        for candle_index in self.state.window_start(length)..start.min(self.state.marks.head) {
            self.count_out(candle_index);
        }
        self.state.provisional.retain(|&candle_index| candle_index >= start);
    }

    fn count_in(&mut self, candle_index: u64) {
        if candle_index >= self.state.window_start(self.words.ring.length) {
            let (missing, holes) = unreadable(self.words.tag(candle_index), candle_index);
            self.state.missing += missing;
            self.state.holes += holes;
        }
    }

    fn count_out(&mut self, candle_index: u64) {
        let (missing, holes) = unreadable(self.words.tag(candle_index), candle_index);
        self.state.missing -= missing;
        self.state.holes -= holes;
    }
}

fn same_bits(a: &RowWords, b: &RowWords) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Counts a candle as (missing, hole).
fn unreadable(tag: Tag, candle_index: u64) -> (usize, usize) {
    match tag.state() {
        _ if tag.is_readable_of(candle_index) => (0, 0),
        RowState::Hole if tag.candle_index() == candle_index => (0, 1),
        _ => (1, 0),
    }
}
