//! A page: of the rows whose open times lie in a range, the oldest or the newest so many, all of one moment.
//!
//! It is what a klines response is made of, so it is whole or it says what it lacks: a row that is not fetched yet, or
//! rows that are older than the window. Holes are left out, and count for nothing.

use std::ops::Range;

use crate::columns::{COLUMNS, OPEN_TIME_MS, Row};
use crate::error::Error;
use crate::interval::Grid;
use crate::read::SeriesReader;
use crate::seqlock::Marks;
use crate::wire::text::is_writable;

/// How often a page is begun again because rows that were there have moved.
const ATTEMPTS_MAX: usize = 3;

const ALL_COLUMNS: [usize; COLUMNS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Which rows a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The earliest open time, as the exchange sent it; `None`: from the symbol's first candle on.
    pub low_ms: Option<i64>,
    /// The latest open time; `None`: up to the newest row.
    pub high_ms: Option<i64>,
    /// Most rows.
    pub limit: usize,
    /// Whether the newest rows are wanted, not the oldest.
    pub newest: bool,
    /// Whether the first candle that the series knows is the symbol's first. In a block of derived candles it may be the
    /// first that could be derived.
    pub knows_first: bool,
}

/// Why a page has no rows although it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// The row of the candle that opens then is not fetched yet, or is being rewritten.
    Missing(i64),
    /// Rows are wanted that are older than the window, which begins then; `None` while it has no row at all.
    Before(Option<i64>),
}

/// Rows of one moment, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows; none when it is `incomplete`.
    pub rows: Vec<Row>,
    /// Open time of the oldest row that may still change: the live row's, or an older one's that is not final.
    pub unsettled_ms: Option<i64>,
    /// What is not there of what was requested.
    pub incomplete: Option<Incomplete>,
}

impl Page {
    fn incomplete(why: Incomplete) -> Self {
        Self { incomplete: Some(why), ..Self::default() }
    }
}

impl SeriesReader<'_> {
    /// Returns a page of a series whose candles lie on `grid`.
    ///
    /// # Errors
    ///
    /// `Contended`.
    pub fn page(&self, grid: Grid, request: &PageRequest) -> Result<Page, Error> {
        let mut attempt = 1;
        loop {
            match self.try_page(grid, request)? {
                Ok(page) => return Ok(page),
                Err(_) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(Moved(candle_index)) => {
                    return Ok(Page::incomplete(Incomplete::Missing(grid.open_ms(candle_index as i64))));
                }
            }
        }
    }

    fn try_page(&self, grid: Grid, request: &PageRequest) -> Result<Result<Page, Moved>, Error> {
        let marks = self.marks()?;
        if marks.end() == 0 {
            return Ok(Ok(Page::incomplete(Incomplete::Before(None))));
        }
        let window_start = self.window_start(&marks);
        let low = request.low_ms.map_or(0, |low_ms| grid.index_of(low_ms).max(0) as u64);
        let high = request.high_ms.map_or(i64::MAX, |high_ms| grid.index_of(high_ms)).min(marks.end() as i64 - 1);
        if request.limit == 0 || high < 0 || low > high as u64 {
            return Ok(Ok(Page::default()));
        }
        // Where the first candle is not known there are older ones, for all that is known.
        let is_cut = low < window_start && !(request.knows_first && self.first_candle() == Some(window_start));
        let before = Page::incomplete(Incomplete::Before(Some(grid.open_ms(window_start as i64))));
        if is_cut && (!request.newest || (high as u64) < window_start) {
            return Ok(Ok(before));
        }
        let walk = self.walk(low.max(window_start)..high as u64 + 1, request, &marks);
        let page = match self.copy_walk(&walk, request)? {
            Ok(page) => page,
            Err(moved) => return Ok(Err(moved)),
        };
        Ok(Ok(if page.rows.len() == request.limit {
            page
        } else if let Some(missing) = walk.missing {
            Page::incomplete(Incomplete::Missing(grid.open_ms(missing as i64)))
        } else if is_cut {
            before
        } else {
            page
        }))
    }

    /// Goes through candles in the order of the request until there are enough rows, or one is missing.
    fn walk(&self, candles: Range<u64>, request: &PageRequest, marks: &Marks) -> Walk {
        let mut walk = Walk { candles: Vec::new(), missing: None };
        // The first and the last candle may have opened outside the range, though they reach into it: two more.
        let most = request.limit.saturating_add(2);
        for place in 0..candles.end.saturating_sub(candles.start) {
            let candle_index = if request.newest { candles.end - 1 - place } else { candles.start + place };
            let is_live = marks.has_live() && candle_index == marks.head;
            if is_live || self.is_readable(candle_index) {
                // Before its values are copied: what is final now stays so.
                walk.candles.push((candle_index, !is_live && self.is_final(candle_index)));
                if walk.candles.len() == most {
                    break;
                }
            } else if !self.is_hole(candle_index) {
                walk.missing = Some(candle_index);
                break;
            }
        }
        walk
    }

    /// Copies the rows that a page may have, and takes those that it does.
    fn copy_walk(&self, walk: &Walk, request: &PageRequest) -> Result<Result<Page, Moved>, Error> {
        let mut page = Page::default();
        let candles = || walk.candles.iter().map(|&(candle_index, _)| candle_index);
        let (Some(first), Some(last)) = (candles().min(), candles().max()) else { return Ok(Ok(page)) };
        let count = (last - first) as usize + 1;
        let mut values = vec![0.0; COLUMNS * count];
        self.copy_range(&ALL_COLUMNS, first, count, true, &mut values, count)?;
        for &(candle_index, is_final) in &walk.candles {
            let slot = (candle_index - first) as usize;
            let row: Row = std::array::from_fn(|column| values[column * count + slot]);
            if !is_writable(&row) {
                return Ok(Err(Moved(candle_index)));
            }
            let open_ms = row[OPEN_TIME_MS] as i64;
            if request.low_ms.is_some_and(|low_ms| open_ms < low_ms)
                || request.high_ms.is_some_and(|high_ms| open_ms > high_ms)
            {
                continue;
            }
            if !is_final {
                page.unsettled_ms = Some(page.unsettled_ms.map_or(open_ms, |unsettled_ms| unsettled_ms.min(open_ms)));
            }
            page.rows.push(row);
            if page.rows.len() == request.limit {
                break;
            }
        }
        if request.newest {
            page.rows.reverse();
        }
        Ok(Ok(page))
    }
}

/// The candles that a page may have.
struct Walk {
    /// Those with a row, and whether it is final, in the order of the request.
    candles: Vec<(u64, bool)>,
    /// The one that is missing behind them.
    missing: Option<u64>,
}

/// The row of this candle was there, and is not any more.
struct Moved(u64);
