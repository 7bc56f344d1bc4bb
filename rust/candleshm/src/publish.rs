//! How one series is written: the only stores into tags, rows and latch, each under readers that never see half a row.
//!
//! The operations and their orderings are those of `docs/segment-format.md`, section "The writer"; the comments here
//! name what each ordering is for, the tests in `tests/loom` fail when one is left out. There is one writer per
//! block. It may be stopped for good between any two stores: readers go on with what is published, and the next owner
//! starts with [`SeriesWriter::recover`] and simply does the work again.

use crate::latch::{self, Marks};
use crate::layout::{ROW_WORDS, RowState, RowWords, Tag, symbol};
use crate::ring::SeriesWords;
use crate::sync::{
    Ordering::{Relaxed, Release},
    fence,
};

/// A row of the ring on its way into the block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingRow {
    /// Where it belongs.
    pub bar: u64,
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
    /// The newest row, as `marks.state` says.
    pub newest: RowWords,
    /// The symbol's first bar, 0 while unknown.
    pub first_bar: u64,
    /// Rows of the window that are not there and not known to be holes.
    pub missing: usize,
    /// Rows of the window known to be holes.
    pub holes: usize,
    /// Bars of provisional rows in the ring, ascending.
    provisional: Vec<u64>,
    version: u64,
    rev: u64,
    wmark: u64,
}

impl SeriesState {
    /// State of a series without rows.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            marks: Marks::EMPTY,
            newest: [f64::NAN; ROW_WORDS],
            first_bar: 0,
            missing: 0,
            holes: 0,
            provisional: Vec::new(),
            version: 0,
            rev: 0,
            wmark: 0,
        }
    }

    /// Returns the oldest bar of the readable window in front of `head`.
    #[must_use]
    pub fn window_start(&self, length: usize) -> u64 {
        self.marks.head.saturating_sub(length as u64).max(self.first_bar).min(self.marks.head)
    }

    /// Returns how many rows are missing, and how many are holes, of the LENGTH slots that readers are shown, the live
    /// row's among them. Beside a live row the window holds one more, for who wants closed rows only.
    #[must_use]
    pub fn shown_gaps(&self, words: SeriesWords<'_>) -> (usize, usize) {
        let start = self.window_start(words.ring.length);
        let is_shown = !self.marks.has_live() || self.marks.head - start < words.ring.length as u64;
        let (missing, holes) = if is_shown { (0, 0) } else { unreadable(words.tag(start), start) };
        (self.missing - missing, self.holes - holes)
    }

    /// Returns the oldest provisional bar of the ring from `start` on.
    #[must_use]
    pub fn oldest_provisional(&self, start: u64) -> Option<u64> {
        self.provisional.iter().copied().find(|&bar| bar >= start)
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

    /// Sets when the newest answer was received. Becomes visible with the next publish.
    pub fn set_received(&mut self, received_ms: u64) {
        self.state.marks.received_ms = received_ms;
    }

    /// Makes the marks and the newest row visible.
    pub fn publish(&mut self) {
        let state = &mut *self.state;
        state.version = latch::publish(self.words.entry, state.version, &state.marks, &state.newest);
    }

    /// Puts a newer live row in front, or the same one with newer values. Becomes visible with the next publish.
    pub fn set_live(&mut self, row: &RowWords) {
        self.state.newest = *row;
        self.state.marks.state = RowState::Live;
    }

    /// Moves the head to `new_head`: `rows` are the rows of the ring from the old head on, ascending; whatever they
    /// leave out is missing. Without a live row the newest of `rows` is repeated in the latch. Becomes visible with the
    /// next publish.
    pub fn advance(&mut self, new_head: u64, rows: &[RingRow], live: Option<&RowWords>) {
        let capacity = self.words.ring.capacity as u64;
        let old_head = self.state.marks.head;
        debug_assert!(new_head > old_head);
        debug_assert!(live.is_some() || rows.last().is_some_and(|row| row.bar + 1 == new_head));
        let from = old_head.max(new_head.saturating_sub(capacity));
        self.leave_window(new_head);
        // Readers of a window that begins before `wmark - capacity` reject it, whatever they copied.
        self.state.wmark = self.state.wmark.max(new_head);
        self.words.entry[symbol::WMARK].store(self.state.wmark, Relaxed);
        for bar in from..new_head {
            self.store_tag(bar, RowState::Missing, Relaxed);
        }
        // SYNC POINT reuse: whoever reads a word stored below sees the marks and the watermark stored above.
        fence(Release);
        let mut rows = rows.iter().skip_while(|row| row.bar < from).peekable();
        for bar in from..new_head {
            if let Some(row) = rows.next_if(|row| row.bar == bar) {
                self.words.store_row(bar, &row.row);
                // SYNC POINT row: pairs with the acquire fence behind the reader's first load of the tags.
                self.store_tag(bar, row.state, Release);
                if row.state == RowState::Live {
                    self.state.provisional.push(bar);
                }
            } else {
                self.words.store_row(bar, &[f64::NAN; ROW_WORDS]);
            }
        }
        self.state.marks.head = new_head;
        for bar in from..new_head {
            self.count_in(bar);
        }
        match live {
            Some(row) => self.set_live(row),
            None => self.repeat_newest(),
        }
        self.settle_marks();
    }

    /// Replaces, fills or blanks (holes) rows of the ring, ascending and below the head. A provisional row may only go to a bar at or
    /// above `final_bar` that never was final. `corrections` of the rows were closed before, with other values.
    /// Becomes wholly visible with the next publish.
    pub fn rewrite(&mut self, rows: &[RingRow], corrections: u32) {
        let (solid, final_bar) = (self.state.marks.solid, self.state.marks.final_bar);
        let in_fast_window = |bar: u64| (solid..final_bar).contains(&bar);
        if let Some(last) = rows.iter().rev().find(|row| in_fast_window(row.bar)) {
            // From here on windows with these rows look at their tags.
            self.state.marks.solid = last.bar + 1;
            self.publish();
        }
        let rev = self.state.rev.wrapping_add(1);
        for row in rows {
            debug_assert!(row.bar < self.state.marks.head);
            let was = self.words.tag(row.bar);
            let was_final = was.is_final_of(row.bar) || was.bar() == row.bar && was.state() == RowState::MissingFinal;
            debug_assert!(row.state != RowState::Live || !was_final && row.bar >= final_bar);
            let mark = if was_final { RowState::MissingFinal } else { RowState::Missing };
            self.count_out(row.bar);
            self.words.tag_word(row.bar).store(Tag::new(row.bar, rev, mark).0, Relaxed);
        }
        // SYNC POINT mark: who sees the new `rev` sees the rows marked.
        fence(Release);
        self.state.rev = rev;
        self.words.entry[symbol::REV].store(rev, Relaxed);
        // SYNC POINT rewrite: who reads a word stored below sees the new `rev`, and the marks.
        fence(Release);
        for row in rows {
            self.words.store_row(row.bar, &row.row);
        }
        for row in rows {
            // SYNC POINT row.
            self.words.tag_word(row.bar).store(Tag::new(row.bar, rev, row.state).0, Release);
            self.count_in(row.bar);
            if row.state == RowState::Live {
                if let Err(at) = self.state.provisional.binary_search(&row.bar) {
                    self.state.provisional.insert(at, row.bar);
                }
            } else {
                self.state.provisional.retain(|&bar| bar != row.bar);
            }
        }
        self.state.marks.revision = self.state.marks.revision.wrapping_add(corrections);
        if !self.state.marks.has_live() && rows.last().is_some_and(|row| row.bar + 1 == self.state.marks.head) {
            self.repeat_newest();
        }
        // Whatever was lowered for the rewrite is final again.
        self.state.marks.solid = solid;
        self.settle_marks();
    }

    /// Declares a provisional row final that was confirmed bit for bit: only its tag changes. Becomes wholly visible
    /// with the next publish.
    pub fn close(&mut self, bar: u64) {
        let tag = self.words.tag(bar);
        debug_assert!(tag.bar() == bar && tag.state() == RowState::Live);
        // SYNC POINT row: a reader that sees the state must see the values it stands for.
        self.words.tag_word(bar).store(tag.with_state(RowState::Closed).0, Release);
        self.state.provisional.retain(|&provisional| provisional != bar);
        // `final_bar` moves past the row only behind the store of its tag.
        self.settle_marks();
    }

    /// Declares a closed row independently confirmed.
    pub fn verify(&mut self, bar: u64) {
        let tag = self.words.tag(bar);
        if tag.bar() == bar && tag.state() == RowState::Closed {
            // SYNC POINT row.
            self.words.tag_word(bar).store(tag.with_state(RowState::Verified).0, Release);
        }
    }

    /// Takes the state of the ring's newest row over into the latch, where the latch repeats it. Becomes visible with
    /// the next publish.
    pub fn refresh_newest(&mut self) {
        if !self.state.marks.has_live() && self.state.marks.head > 0 {
            self.repeat_newest();
        }
    }

    /// Declares that the exchange has no row for `bar`, which is missing.
    pub fn hole(&mut self, bar: u64) {
        let tag = self.words.tag(bar);
        debug_assert!(tag.bar() == bar && !tag.is_readable_of(bar));
        self.count_out(bar);
        // SYNC POINT row.
        self.words.tag_word(bar).store(tag.with_state(RowState::Hole).0, Release);
        self.count_in(bar);
    }

    /// Declares `bar` the symbol's very first: what lies below it is not missing.
    pub fn set_first_bar(&mut self, bar: u64) {
        let before = self.state.window_start(self.words.ring.length);
        self.state.first_bar = bar;
        let after = self.state.window_start(self.words.ring.length);
        for bar in before.min(after)..before.max(after) {
            let tag = self.words.tag(bar);
            let (missing, holes) = unreadable(tag, bar);
            if after > before {
                self.state.missing -= missing;
                self.state.holes -= holes;
            } else {
                self.state.missing += missing;
                self.state.holes += holes;
            }
        }
        self.words.entry[symbol::FIRST_BAR].store(bar, Release);
    }

    /// Fills a series that nobody can see yet with what one of the same symbol holds in another block, in a ring of any
    /// length: the rows with their states, what is known to be absent, the newest row, the revision and the time of the
    /// newest answer. Nothing becomes fresher or more certain by it. The other owner is dead, or the caller. Publishes.
    pub fn carry(&mut self, from: SeriesWords<'_>) {
        let mut newest = [f64::NAN; ROW_WORDS];
        // Nobody writes there, so the first attempt is accepted.
        let marks = latch::read(from.entry, &mut newest).unwrap_or(Marks::EMPTY);
        let head = marks.head;
        if head == 0 {
            return;
        }
        let below = |count: usize| head.saturating_sub(count as u64);
        let (window, their_window) = (below(self.words.ring.length), below(from.ring.length));
        for bar in below(self.words.ring.capacity)..head {
            let tag = from.tag(bar);
            let is_theirs = bar >= below(from.ring.capacity) && tag.bar() == bar;
            let state = if bar >= their_window {
                // As in a recovery: a slot that an advance took before it was cut may have held a final row.
                if is_theirs { tag.state() } else { RowState::MissingFinal }
            } else if is_theirs && tag.is_final_of(bar) && bar < window {
                // What has left a window is not put right any more, so it does not come back into one.
                tag.state()
            } else {
                RowState::Missing
            };
            let has_row = matches!(state, RowState::Live | RowState::Closed | RowState::Verified);
            self.words.store_row(bar, &if has_row { from.row(bar) } else { [f64::NAN; ROW_WORDS] });
            self.store_tag(bar, state, Relaxed);
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
        let marks = latch::read(self.words.entry, &mut row).unwrap_or(Marks::EMPTY);
        if marks.head == 0 && !marks.has_live() {
            // No row was published yet: the latch holds zeroes.
            row = [f64::NAN; ROW_WORDS];
        }
        let word = |offset: usize| self.words.entry[offset].load(Relaxed);
        *self.state = SeriesState {
            marks,
            newest: row,
            first_bar: word(symbol::FIRST_BAR),
            version: word(symbol::VERSION),
            rev: word(symbol::REV),
            wmark: word(symbol::WMARK),
            ..SeriesState::empty()
        };
        let head = marks.head;
        if head == 0 && self.state.first_bar > 0 {
            // Of a series that was not published nothing is known: its first answer may have been cut short.
            self.set_first_bar(0);
        }
        self.raise_watermark();
        for bar in self.state.window_start(self.words.ring.length)..head {
            if self.words.tag(bar).bar() != bar {
                self.reclaim(bar);
            }
            self.count_in(bar);
            let tag = self.words.tag(bar);
            if tag.bar() == bar && tag.state() == RowState::Live {
                self.state.provisional.push(bar);
            }
        }
        if !marks.has_live() && head > 0 && self.words.tag(head - 1).is_final_of(head - 1) {
            self.repeat_newest();
        }
        // A rewrite may have been cut after its marks: only the tags tell from where on every row is final.
        self.state.marks.solid = self.state.marks.final_bar.max(self.window_final());
        self.state.marks.final_bar = self.state.marks.solid;
        self.extend_solid();
        if self.state.marks != marks || !same_bits(&self.state.newest, &row) {
            self.publish();
        }
    }

    /// Raises the watermark above every bar that a cut advance put into a slot of the window. That advance raised it
    /// itself, but the death may have taken this store and left the tags: without it a reader with an older latch would
    /// accept the blank rows that are about to come.
    fn raise_watermark(&mut self) {
        let window = self.state.window_start(self.words.ring.length)..self.state.marks.head;
        let taken = window.filter_map(|bar| Some(self.words.tag(bar).bar()).filter(|&other| other > bar)).max();
        if let Some(bar) = taken.filter(|&bar| bar >= self.state.wmark) {
            self.state.wmark = bar + 1;
            self.words.entry[symbol::WMARK].store(self.state.wmark, Relaxed);
        }
    }

    /// Gives a slot of the window back to its bar: an advance beyond the whole ring had taken it and was cut before it
    /// was published. Whether the row was final is not known any more, so only a final one may come.
    fn reclaim(&self, bar: u64) {
        // SYNC POINT reuse: whoever reads a word stored below sees the dead owner's tag, which we have seen, and the
        // watermark, which was raised above it.
        fence(Release);
        self.words.store_row(bar, &[f64::NAN; ROW_WORDS]);
        // SYNC POINT row: who sees the slot back at its bar sees it blank.
        self.store_tag(bar, RowState::MissingFinal, Release);
    }

    /// Lowest provisional bar of the window, the head when there is none.
    fn window_final(&self) -> u64 {
        let head = self.state.marks.head;
        let start = head.saturating_sub(self.words.ring.length as u64);
        self.state.oldest_provisional(start).unwrap_or(head)
    }

    /// Moves `final_bar` up to the lowest provisional row and lets `solid` follow.
    fn settle_marks(&mut self) {
        let final_bar = self.state.marks.final_bar.max(self.window_final());
        // Bars that become part of `[.., final)`: the highest one that is not final is the new bound of `solid`.
        let start = self.state.marks.final_bar.max(self.state.window_start(self.words.ring.length));
        let gap = (start..final_bar).rev().find(|&bar| !self.words.tag(bar).is_final_of(bar));
        self.state.marks.final_bar = final_bar;
        let solid = self.state.marks.solid.max(self.state.window_start(self.words.ring.length));
        self.state.marks.solid = gap.map_or(solid, |bar| bar + 1);
        self.extend_solid();
    }

    /// Lets `solid` go down as long as the rows below it are final.
    fn extend_solid(&mut self) {
        let start = self.state.window_start(self.words.ring.length);
        while self.state.marks.solid > start
            && self.words.tag(self.state.marks.solid - 1).is_final_of(self.state.marks.solid - 1)
        {
            self.state.marks.solid -= 1;
        }
    }

    /// Repeats the ring's newest row in the latch: there is no live row.
    fn repeat_newest(&mut self) {
        let bar = self.state.marks.head - 1;
        self.state.newest = self.words.row(bar);
        let tag = self.words.tag(bar);
        // Never provisional: it would look like the row of `head`.
        debug_assert!(tag.is_final_of(bar));
        self.state.marks.state = tag.state();
    }

    fn store_tag(&self, bar: u64, state: RowState, order: crate::sync::Ordering) {
        self.words.tag_word(bar).store(Tag::new(bar, self.state.rev, state).0, order);
    }

    /// Counts out the bars that leave the window when the head moves, while their tags are still theirs.
    fn leave_window(&mut self, new_head: u64) {
        let length = self.words.ring.length;
        let start = new_head.saturating_sub(length as u64);
        for bar in self.state.window_start(length)..start.min(self.state.marks.head) {
            self.count_out(bar);
        }
        self.state.provisional.retain(|&bar| bar >= start);
    }

    fn count_in(&mut self, bar: u64) {
        if bar >= self.state.window_start(self.words.ring.length) {
            let (missing, holes) = unreadable(self.words.tag(bar), bar);
            self.state.missing += missing;
            self.state.holes += holes;
        }
    }

    fn count_out(&mut self, bar: u64) {
        let (missing, holes) = unreadable(self.words.tag(bar), bar);
        self.state.missing -= missing;
        self.state.holes -= holes;
    }
}

fn same_bits(a: &RowWords, b: &RowWords) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Counts a bar as (missing, hole).
fn unreadable(tag: Tag, bar: u64) -> (usize, usize) {
    match tag.state() {
        _ if tag.is_readable_of(bar) => (0, 0),
        RowState::Hole if tag.bar() == bar => (0, 1),
        _ => (1, 0),
    }
}
