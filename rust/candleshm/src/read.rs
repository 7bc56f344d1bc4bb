//! How a series is read: loads only, never waiting for the writer.
//!
//! Bulk copies race with the writer on purpose. What makes a copy good is checked afterwards, behind an acquire fence:
//! either that nothing in the window can have moved (`rev` and the watermark, the fast check), or row by row that the
//! tag is the same before and after (the precise check). `docs/segment-format.md`, section "The reader", has the
//! argument; `tests/loom` the proof for small cases.

use std::ops::Range;

use crate::error::Error;
use crate::layout::{ROW_WORDS, RowState, RowWords, Tag, symbol};
use crate::ring::SeriesWords;
use crate::seqlock::{self, Marks};
#[cfg(not(loom))]
use crate::shared_memory::copy_run;
#[cfg(loom)]
use crate::sync::copy_words as copy_run;
use crate::sync::{
    Ordering::{Acquire, Relaxed},
    Target, fence,
};

/// How often a copy starts again because something moved; afterwards rows in motion are reported missing.
const ATTEMPTS_MAX: usize = if cfg!(loom) { 2 } else { 3 };
/// Beyond this many rewrites row versions (modulo 2^24) could be mistaken for older ones.
const VERSION_SPAN: u64 = 1 << 23;

/// Which rows to copy.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// Newest time slots; LENGTH is the most there is.
    pub count: usize,
    /// Only rows that are final, and none above the first that is not.
    pub closed_only: bool,
    /// Whether the states of all rows are wanted, closed apart from verified.
    pub states: bool,
}

/// A consistent copy: one entry per time slot, ascending.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Bar of the first slot.
    pub start: u64,
    /// State of each slot. Slots that are missing or holes have no row: their values mean nothing.
    pub states: Vec<RowState>,
}

/// A window of final rows, used where they lie.
#[derive(Debug, Clone)]
pub struct ViewMarks {
    /// Bar of the first row.
    pub start: u64,
    /// Rows.
    pub count: usize,
    rev: u64,
    /// Which rows are there, when not all are.
    present: Option<Vec<bool>>,
}

impl ViewMarks {
    /// Returns whether no row is a hole or missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.present.is_none()
    }

    /// Returns whether the row at that place is there: no hole and not missing.
    #[inline]
    #[must_use]
    pub fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present[row])
    }
}

/// A half-open range of open times without rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first candle without a row.
    pub start: u64,
    /// The candle after the last one without a row.
    pub end: u64,
    /// Whether the exchange confirmed it.
    pub hole: bool,
}

/// The reader of one series.
#[derive(Clone, Copy)]
pub struct SeriesReader<'a> {
    words: SeriesWords<'a>,
}

impl<'a> SeriesReader<'a> {
    /// Reads the series of a block.
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub fn new(block: &'a crate::block::Block, index: usize) -> Self {
        Self { words: block.series(index) }
    }

    /// Reads a series wherever its words lie.
    #[must_use]
    pub fn of(words: SeriesWords<'a>) -> Self {
        Self { words }
    }

    /// Returns the bounds of the ring and what the newest row is.
    ///
    /// # Errors
    ///
    /// `Contended`, see [`seqlock::read`].
    #[inline]
    pub fn marks(&self) -> Result<Marks, Error> {
        seqlock::read_marks(self.words.entry)
    }

    /// Copies the newest row into `row`; its state is in the marks. NaN while there is none.
    ///
    /// # Errors
    ///
    /// `Contended`.
    #[inline]
    pub fn newest(&self, row: &mut RowWords) -> Result<Marks, Error> {
        let marks = seqlock::read(self.words.entry, row)?;
        // Only a damaged block has another state and a row.
        if marks.head == 0 || !matches!(marks.state, RowState::Live | RowState::Closed | RowState::Verified) {
            *row = [f64::NAN; ROW_WORDS];
        }
        Ok(marks)
    }

    /// Returns a number that every publication changes. Marks and rows that are read afterwards are at least as new: to
    /// read them is to load this word again first.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.words.entry[symbol::VERSION].load(Relaxed)
    }

    /// Returns the close of the newest row, NaN while there is none.
    #[inline]
    #[must_use]
    pub fn last_close(&self) -> f64 {
        seqlock::last_close(self.words.entry)
    }

    /// Returns `CLOCK_BOOTTIME` of the newest response in ms, 0 before the first.
    #[inline]
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        seqlock::received_ms(self.words.entry)
    }

    /// Returns how many slots a selection finds now.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn available(&self, selection: &Selection) -> Result<usize, Error> {
        let marks = self.marks()?;
        let (start, end, live) = self.range_of(&marks, selection);
        Ok((end - start) as usize + usize::from(live))
    }

    /// Copies the newest slots. Column `k` of slot `i` lands in `columns[k * stride + i]`, where `stride` is the
    /// selection's count. Every slot that the snapshot names is set, the others are left as they were.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `columns` is shorter than the selection needs.
    pub fn copy<T: Target>(
        &self,
        selection: &Selection,
        columns: &mut [T],
        snapshot: &mut Snapshot,
    ) -> Result<(), Error> {
        self.copy_columns(selection, 0, columns, selection.count, snapshot)
    }

    /// As [`Self::copy`], from column `first` on, as many as `columns` has room for, `stride` values apart.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `stride` is smaller than the selection's count.
    pub fn copy_columns<T: Target>(
        &self,
        selection: &Selection,
        first: usize,
        columns: &mut [T],
        stride: usize,
        snapshot: &mut Snapshot,
    ) -> Result<(), Error> {
        let mut target = Columns { first, values: columns, stride };
        let mut try_fast = !selection.states;
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == ATTEMPTS_MAX;
            match self.try_copy(selection, try_fast, last, &mut target, snapshot)? {
                Outcome::Good => return Ok(()),
                // The fast check tells only that something moved; the tags tell where.
                Outcome::FastFailed => try_fast = false,
                Outcome::Moved => attempt += 1,
            }
        }
    }

    fn try_copy<T: Target>(
        &self,
        selection: &Selection,
        try_fast: bool,
        last: bool,
        to: &mut Columns<'_, T>,
        snapshot: &mut Snapshot,
    ) -> Result<Outcome, Error> {
        let rev = self.rev();
        let mut newest = [0.0; ROW_WORDS];
        let marks = seqlock::read(self.words.entry, &mut newest)?;
        let (start, end, live) = self.range_of(&marks, selection);
        let in_ring = (end - start) as usize;
        // Below this candle index `rev` and the watermark vouch for every row, from it on the tags do.
        let tagged = if try_fast && start >= marks.final_start { end.min(marks.final_end).max(start) } else { start };

        let tags: Vec<Tag> = (tagged..end).map(|candle_index| self.words.tag(candle_index)).collect();
        // SYNC POINT row: the values loaded below are at least as new as the tags loaded above.
        fence(Acquire);
        for (column, target) in (to.first..ROW_WORDS).zip(to.values.chunks_mut(to.stride)) {
            copy_run(self.words.column(column, start, in_ring), &mut target[..in_ring]);
            if live {
                target[in_ring].put(newest[column]);
            }
        }
        // SYNC POINT rewrite, reuse: a value stored after the checks' stores were made visible is rejected below.
        fence(Acquire);
        if tagged > start && !self.is_untouched(rev, start) {
            return Ok(Outcome::FastFailed);
        }

        snapshot.start = start;
        snapshot.states.clear();
        snapshot.states.resize((tagged - start) as usize, RowState::Closed);
        let mut moved = self.words.entry[symbol::REV].load(Relaxed).wrapping_sub(rev) >= 2 * VERSION_SPAN;
        for (candle_index, before) in (tagged..end).zip(tags) {
            let after = self.words.tag(candle_index);
            // Closed may turn into verified meanwhile: they differ in bit 0 only and stand for the same values.
            let still = (before.0 ^ after.0) & !1 == 0;
            // A newer candle index in the slot means that the head went on since it was read.
            moved |= !still || before.candle_index() > candle_index;
            snapshot.states.push(match before.state() {
                _ if before.is_readable_of(candle_index) && still => before.state(),
                RowState::Hole if before.candle_index() == candle_index && still => RowState::Hole,
                _ => RowState::Missing,
            });
        }
        if live {
            snapshot.states.push(RowState::Live);
        }
        Ok(if moved && !last { Outcome::Moved } else { Outcome::Good })
    }

    /// Copies the candles `[start, start + count)` of some columns, NaN where there is no row. Column `k` of the
    /// list and candle index `start + i` land in `out[k * stride + i]`. Rows that are not final count only with
    /// `provisional`, the live row among them.
    ///
    /// # Errors
    ///
    /// `Contended`.
    ///
    /// # Panics
    ///
    /// When `out` is too short.
    pub fn copy_range(
        &self,
        columns: &[usize],
        start: u64,
        count: usize,
        provisional: bool,
        out: &mut [f64],
        stride: usize,
    ) -> Result<(), Error> {
        let mut try_fast = true;
        let mut attempt = 0;
        loop {
            let rev = self.rev();
            let mut newest = [0.0; ROW_WORDS];
            let marks = seqlock::read(self.words.entry, &mut newest)?;
            let end = start + count as u64;
            let to = end.min(marks.head);
            let from = self.start_of(&marks, to, count).max(start).min(to);
            let fast = try_fast && from >= marks.final_start && to <= marks.final_end;
            let tags: Vec<Tag> =
                if fast { Vec::new() } else { (from..to).map(|candle_index| self.words.tag(candle_index)).collect() };
            // SYNC POINT row: as in `copy`.
            fence(Acquire);
            let (lead, run) = (from.saturating_sub(start) as usize, (to - from) as usize);
            for (list, &column) in columns.iter().enumerate() {
                let target = &mut out[list * stride..list * stride + count];
                copy_run(self.words.column(column, from, run), &mut target[lead..lead + run]);
                target[..lead].fill(f64::NAN);
                target[lead + run..].fill(f64::NAN);
                if provisional && marks.has_live() && (start..end).contains(&marks.head) {
                    target[(marks.head - start) as usize] = newest[column];
                }
            }
            // SYNC POINT rewrite, reuse: as in `copy`.
            fence(Acquire);
            if fast {
                if from == to || self.is_untouched(rev, from) {
                    return Ok(());
                }
                try_fast = false;
                continue;
            }
            let mut moved = self.words.entry[symbol::REV].load(Relaxed).wrapping_sub(rev) >= 2 * VERSION_SPAN;
            for (row, before) in tags.into_iter().enumerate() {
                let candle_index = from + row as u64;
                let still = (before.0 ^ self.words.tag(candle_index).0) & !1 == 0;
                moved |= !still || before.candle_index() > candle_index;
                let claimed =
                    if provisional { before.is_readable_of(candle_index) } else { before.is_final_of(candle_index) };
                if !(claimed && still) {
                    for list in 0..columns.len() {
                        out[list * stride + lead + row] = f64::NAN;
                    }
                }
            }
            attempt += 1;
            if !moved || attempt == ATTEMPTS_MAX {
                return Ok(());
            }
        }
    }

    /// Returns the marks of the newest `count` final slots, to be used where they lie: see [`Self::column`]. Fewer when
    /// a row among them is half written, or its slot is taken: the view then begins behind it.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn view(&self, count: usize) -> Result<ViewMarks, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let rev = self.rev();
            let marks = self.marks()?;
            let end = marks.final_end;
            let start = self.start_of(&marks, end, count);
            let mut view = ViewMarks { start, count: (end - start) as usize, rev, present: None };
            if start >= marks.final_start {
                // SYNC POINT row: what is computed uses values at least as new as the marks.
                fence(Acquire);
                return Ok(view);
            }
            let tags: Vec<Tag> = (start..end).map(|candle_index| self.words.tag(candle_index)).collect();
            // SYNC POINT row: likewise, as new as the tags.
            fence(Acquire);
            let went_on = (start..end).zip(&tags).any(|(candle_index, tag)| tag.candle_index() > candle_index);
            if went_on && attempt < ATTEMPTS_MAX {
                continue;
            }
            let mut present: Vec<bool> =
                (start..end).zip(&tags).map(|(candle_index, tag)| tag.is_final_of(candle_index)).collect();
            // A slot without a row is lent only if it is blank, and its candle's own.
            let lendable = |row: usize| {
                present[row] || tags[row].candle_index() == start + row as u64 && self.is_blank(&view, row)
            };
            if let Some(row) = (0..view.count).rev().find(|&row| !lendable(row)) {
                view.start += row as u64 + 1;
                view.count -= row + 1;
                present.drain(..=row);
            }
            view.present = present.contains(&false).then_some(present);
            return Ok(view);
        }
    }

    /// Returns whether every row of the view is still what it was, and every slot without a row still blank. To be
    /// checked after the rows were used.
    #[inline]
    #[must_use]
    pub fn is_valid(&self, view: &ViewMarks) -> bool {
        // SYNC POINT rewrite, reuse: as in `copy`.
        fence(Acquire);
        (self.is_untouched(view.rev, view.start) || self.is_valid_precisely(view)) && self.is_blank_where_absent(view)
    }

    #[cold]
    fn is_valid_precisely(&self, view: &ViewMarks) -> bool {
        if self.words.entry[symbol::REV].load(Relaxed).wrapping_sub(view.rev) >= VERSION_SPAN {
            return false;
        }
        (0..view.count).all(|row| {
            let candle_index = view.start + row as u64;
            let tag = self.words.tag(candle_index);
            let age = view.rev.wrapping_sub(tag.version()) & Tag::VERSION_MASK;
            if view.is_present(row) {
                tag.is_final_of(candle_index) && age < VERSION_SPAN
            } else {
                tag.candle_index() == candle_index
            }
        })
    }

    /// Whether the slots without a row have stayed blank. Users of the view see their words, and a row may be coming
    /// in, word by word. For one candle, words go from NaN to values and never back: what is NaN now was NaN at
    /// every load before.
    #[inline]
    fn is_blank_where_absent(&self, view: &ViewMarks) -> bool {
        view.is_complete() || (0..view.count).all(|row| view.is_present(row) || self.is_blank(view, row))
    }

    /// Whether all words that a view lends of a row are NaN.
    fn is_blank(&self, view: &ViewMarks, row: usize) -> bool {
        (0..ROW_WORDS).all(|column| f64::from_bits(self.column(view, column)[row].load(Relaxed)).is_nan())
    }

    /// Returns where the words of a view's column lie.
    #[inline]
    #[must_use]
    pub fn column(&self, view: &ViewMarks, column: usize) -> &'a [crate::sync::AtomicU64] {
        self.words.column(column, view.start, view.count)
    }

    /// Returns the candle indices of the newest LENGTH slots, the live row's included, that lie in the ring.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn shown(&self) -> Result<Range<u64>, Error> {
        let everything = Selection { count: self.words.ring.length, closed_only: false, states: false };
        let (start, end, _) = self.range_of(&self.marks()?, &everything);
        Ok(start..end)
    }

    /// Returns the gaps among the newest LENGTH slots, the live row's included, oldest first.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn gaps(&self) -> Result<Vec<Gap>, Error> {
        let mut gaps: Vec<Gap> = Vec::new();
        for candle_index in self.shown()? {
            let tag = self.words.tag(candle_index);
            // A newer candle index in the slot: the head went on since it was read, and the window with it.
            if tag.is_readable_of(candle_index) || tag.candle_index() > candle_index {
                continue;
            }
            let hole = tag.is_settled_of(candle_index);
            match gaps.last_mut() {
                Some(gap) if gap.end == candle_index && gap.hole == hole => gap.end += 1,
                _ => gaps.push(Gap { start: candle_index, end: candle_index + 1, hole }),
            }
        }
        Ok(gaps)
    }

    /// Returns the newest run of missing rows of the readable window, half-open, without a look at what is older.
    /// Candles that `is_absent` are passed over.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn newest_missing(&self, is_absent: impl Fn(u64) -> bool) -> Result<Option<Range<u64>>, Error> {
        let Range { start, end } = self.shown()?;
        let is_missing = |candle_index: u64| self.is_missing(candle_index) && !is_absent(candle_index);
        Ok((start..end).rev().find(|&newest| is_missing(newest)).map(|newest| {
            let older = (start..newest).rev().take_while(|&candle_index| is_missing(candle_index)).count();
            newest - older as u64..newest + 1
        }))
    }

    /// Returns whether the slot of `candle_index` has neither a row nor the mark of a hole, nor a newer candle.
    #[must_use]
    pub fn is_missing(&self, candle_index: u64) -> bool {
        let tag = self.words.tag(candle_index);
        !(tag.is_readable_of(candle_index) || tag.candle_index() > candle_index || tag.is_settled_of(candle_index))
    }

    /// Returns the oldest candle index of the readable window.
    #[must_use]
    pub fn window_start(&self, marks: &Marks) -> u64 {
        self.start_of(marks, marks.head, self.words.ring.length)
    }

    /// Returns whether the ring has a row of `candle_index`, final or not.
    #[must_use]
    pub fn is_readable(&self, candle_index: u64) -> bool {
        self.words.tag(candle_index).is_readable_of(candle_index)
    }

    /// Returns whether the ring has a final row of `candle_index`.
    #[must_use]
    pub fn is_final(&self, candle_index: u64) -> bool {
        self.words.tag(candle_index).is_final_of(candle_index)
    }

    /// Returns whether the exchange confirmed that it has no row of `candle_index`.
    #[must_use]
    pub fn is_hole(&self, candle_index: u64) -> bool {
        let tag = self.words.tag(candle_index);
        tag.is_settled_of(candle_index) && !tag.is_final_of(candle_index)
    }

    /// Returns the index of the symbol's very first candle, if it is known.
    #[must_use]
    pub fn first_candle(&self) -> Option<u64> {
        Some(self.words.entry[symbol::FIRST_BAR].load(Relaxed)).filter(|&candle_index| candle_index > 0)
    }

    /// Returns whether nothing more is to come for `candle_index`: closed, verified, a hole, or outside the series.
    #[must_use]
    pub fn is_settled(&self, candle_index: u64) -> bool {
        let Ok(marks) = self.marks() else { return false };
        let tag = self.words.tag(candle_index);
        let settled = candle_index < marks.head
            && (candle_index < self.window_start(&marks)
                || tag.is_settled_of(candle_index)
                || tag.candle_index() > candle_index);
        // SYNC POINT row: a reader that has seen a candle counted as settled finds its row settled.
        fence(Acquire);
        settled
    }

    /// Returns the index of the newest candle that is closed, verified or a hole.
    #[must_use]
    pub fn newest_settled(&self) -> Option<u64> {
        let marks = self.marks().ok()?;
        let start = self.window_start(&marks);
        (start..marks.head).rev().find(|&candle_index| self.words.tag(candle_index).is_settled_of(candle_index))
    }

    /// Loads `rev`, before anything that it is to vouch for.
    #[inline]
    fn rev(&self) -> u64 {
        let rev = self.words.entry[symbol::REV].load(Relaxed);
        // SYNC POINT mark: the marks of every rewrite counted in `rev` are visible from here on.
        fence(Acquire);
        rev
    }

    /// The fast check, behind an acquire fence: no row was rewritten since `rev`, and the head has not come round to
    /// the slots from `start` on.
    #[inline]
    fn is_untouched(&self, rev: u64, start: u64) -> bool {
        self.words.entry[symbol::REV].load(Relaxed) == rev
            && self.words.entry[symbol::WMARK].load(Relaxed) <= start + self.words.ring.capacity as u64
    }

    /// The candles `[start, end)` of the ring that a selection covers, and whether the live row is part of it.
    fn range_of(&self, marks: &Marks, selection: &Selection) -> (u64, u64, bool) {
        let live = marks.has_live() && !selection.closed_only;
        let end = if selection.closed_only { marks.final_end } else { marks.head };
        let count = selection.count.min(self.words.ring.length) - usize::from(live);
        (self.start_of(marks, end, count), end, live)
    }

    /// The first of at most `count` slots in front of `end`, inside the window and not before the first candle.
    #[inline]
    fn start_of(&self, marks: &Marks, end: u64, count: usize) -> u64 {
        let count = count.min(self.words.ring.length) as u64;
        let first = self.words.entry[symbol::FIRST_BAR].load(Relaxed);
        let window = marks.head.saturating_sub(self.words.ring.length as u64);
        end.saturating_sub(count).max(window).max(first).min(end)
    }
}

/// Where columns are copied to.
struct Columns<'a, T> {
    first: usize,
    values: &'a mut [T],
    /// From one column to the next.
    stride: usize,
}

enum Outcome {
    Good,
    FastFailed,
    Moved,
}
