//! `Series`: the candles of one symbol, in whatever block has the name.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use thread_local::ThreadLocal;

use crate::asof;
use crate::columns::{COLUMNS, OPEN_TIME_MS, Row};
use crate::error::Error;
use crate::feed::attached::{Attached, age_ms};
use crate::feed::news::{Deadline, News};
use crate::feed::source::Source;
use crate::feed::view::View;
use crate::feed::window::Window;
use crate::interval::Grid;
use crate::layout::RowState;
use crate::page::{Page, PageRequest};
use crate::read::{self, SeriesReader, Snapshot};
use crate::sync::Target;
use crate::waiting::until;

/// Where a series was last found.
#[derive(Debug, Clone)]
struct Place {
    attached: Arc<Attached>,
    index: usize,
}

/// A half-open range `[start_ms, end_ms)` of open times without a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Open time of the first row that is absent, epoch ms.
    pub start_ms: i64,
    /// Open time of the first row after the gap, epoch ms.
    pub end_ms: i64,
    /// Whether the exchange confirmed that it has no such rows; else they are not fetched yet.
    pub is_hole: bool,
}

impl Gap {
    /// Returns the open times of a range of candle indices.
    #[must_use]
    pub fn of(gap: read::Gap, grid: Grid) -> Self {
        Self { start_ms: grid.open_ms(gap.start as i64), end_ms: grid.open_ms(gap.end as i64), is_hole: gap.hole }
    }
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// How many rows.
    pub rows: usize,
    /// Where the newest slot's candle ends, epoch ms; `None` when there is no slot.
    pub end_ms: Option<i64>,
}

/// A private, consistent copy of rows, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Candles {
    values: Vec<f64>,
    /// The state of each row, of the same moment.
    pub states: Vec<RowState>,
}

impl Candles {
    /// Returns how many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Returns whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Returns a column, as numbered in [`crate::columns`].
    ///
    /// # Panics
    ///
    /// When `column` is above 11.
    #[must_use]
    pub fn column(&self, column: usize) -> &[f64] {
        let stride = self.values.len() / COLUMNS;
        &self.values[column * stride..][..self.states.len()]
    }

    /// Returns a row.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    #[must_use]
    pub fn row(&self, row: usize) -> Row {
        std::array::from_fn(|column| self.column(column)[row])
    }
}

/// The candles of one symbol. Cheap to keep; follows its symbol when the block is replaced.
///
/// Every method may return `UnknownSymbol`, when the block that took the name no longer carries the symbol,
/// `FeedClosed`, and `Contended`. Those that hand out data return `Stale` when the series was last confirmed longer ago
/// than the feed's limit, or when the symbol is delisted.
#[derive(Debug)]
pub struct Series {
    source: Arc<Source>,
    symbol: Box<str>,
    /// Where it was last found: each thread remembers by itself, as a lock costs more than a read. A block stays mapped
    /// until the last of them has looked again.
    places: ThreadLocal<RefCell<Place>>,
}

thread_local! {
    /// Whether the values of this thread are ending, and `places` with them. It has no destructor, so it never ends.
    static ENDING: Cell<bool> = const { Cell::new(false) };
    static END: End = const { End };
}

/// Tells that a thread is ending. Values that began later end earlier.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        ENDING.set(true);
    }
}

impl Clone for Series {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), symbol: self.symbol.clone(), places: ThreadLocal::new() }
    }
}

impl Series {
    pub(super) fn new(source: Arc<Source>, symbol: &str) -> Result<Self, Error> {
        let series = Self { source, symbol: symbol.into(), places: ThreadLocal::new() };
        series.found()?;
        Ok(series)
    }

    /// Returns the name of the symbol.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// Returns the name of the block.
    #[must_use]
    pub fn block_name(&self) -> &str {
        self.source.name()
    }

    /// Returns the feed's limit of age, ms.
    #[must_use]
    pub fn max_age_ms(&self) -> Option<u64> {
        self.source.max_age_ms()
    }

    /// Refuses when the feed was closed.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn check_open(&self) -> Result<(), Error> {
        self.source.check_open()
    }

    /// Returns the grid of the candles.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn grid(&self) -> Result<Grid, Error> {
        self.with(|attached, index| Ok(attached.block().grid(index)))
    }

    /// Runs `read` on the series in the block that stands under the name now.
    ///
    /// # Errors
    ///
    /// See the type.
    #[inline]
    pub fn with<T>(&self, read: impl FnOnce(&Arc<Attached>, usize) -> Result<T, Error>) -> Result<T, Error> {
        self.source.check_open()?;
        if ENDING.get() {
            return self.read_unremembered(read);
        }
        if let Some(place) = self.places.get() {
            let place = place.borrow();
            if self.source.is_good(&place.attached) {
                return read(&place.attached, place.index);
            }
        }
        let place = self.found()?;
        read(&place.attached, place.index)
    }

    /// As `with`, in a thread that remembers nothing any more: in `atexit`, or the destructors of its own values.
    #[cold]
    fn read_unremembered<T>(&self, read: impl FnOnce(&Arc<Attached>, usize) -> Result<T, Error>) -> Result<T, Error> {
        let attached = self.source.attached()?;
        let index = attached.place_of(&self.symbol)?;
        read(&attached, index)
    }

    /// Looks the symbol up in the block that has the name now.
    #[cold]
    fn found(&self) -> Result<Place, Error> {
        let attached = self.source.attached()?;
        let index = attached.place_of(&self.symbol)?;
        let place = Place { attached, index };
        if ENDING.get() {
            return Ok(place);
        }
        // While `read` runs, which may come here again, its place stays.
        if let Ok(mut old) = self.places.get_or(|| RefCell::new(place.clone())).try_borrow_mut() {
            *old = place.clone();
        }
        // Behind the first use of `places`, so that it ends before them.
        END.with(|_| ());
        Ok(place)
    }

    /// As `with`, for what hands out data.
    #[inline]
    fn with_fresh<T>(&self, read: impl FnOnce(&Arc<Attached>, usize) -> Result<T, Error>) -> Result<T, Error> {
        self.with(|attached, index| {
            self.source.check_fresh(attached, index)?;
            read(attached, index)
        })
    }

    /// Returns how many slots a window has now.
    ///
    /// # Errors
    ///
    /// `Argument` for a window of none; `Stale`, and see the type.
    pub fn available(&self, window: &Window) -> Result<usize, Error> {
        self.with_fresh(|attached, index| {
            let selection = window.selection(attached.block().geometry().ring.length, false)?;
            attached.reader(index).available(&selection)
        })
    }

    /// Copies the rows of a window, all of one moment. Column `k` of row `i` lands in `columns[k * stride + i]`; rows
    /// that are handed out are set, the other places may be. The states of the rows replace what is in `states`.
    ///
    /// At most `stride` slots are copied, the newest ones.
    ///
    /// # Errors
    ///
    /// `Argument`, `Gap`, `Stale`, and see the type.
    ///
    /// # Panics
    ///
    /// When `columns` is too short for twelve columns.
    pub fn candles_into<T: Target>(
        &self,
        window: &Window,
        columns: &mut [T],
        stride: usize,
        states: Option<&mut Vec<RowState>>,
    ) -> Result<Copied, Error> {
        assert!(stride == 0 || columns.len() > (COLUMNS - 1) * stride, "columns: {} values", columns.len());
        self.copy(window, 0, columns, stride, states)
    }

    /// As [`Self::candles_into`] for one column.
    ///
    /// # Errors
    ///
    /// `Argument`, also when `column` is above 11; `Gap`, `Stale`, and see the type.
    pub fn column_into<T: Target>(&self, column: usize, window: &Window, values: &mut [T]) -> Result<Copied, Error> {
        if column >= COLUMNS {
            return Err(Error::Argument(format!("a column must be 0 to 11: `{column}`")));
        }
        let stride = values.len();
        self.copy(window, column, values, stride, None)
    }

    fn copy<T: Target>(
        &self,
        window: &Window,
        first: usize,
        columns: &mut [T],
        stride: usize,
        states: Option<&mut Vec<RowState>>,
    ) -> Result<Copied, Error> {
        self.with_fresh(|attached, index| {
            let length = attached.block().geometry().ring.length;
            let mut selection = window.selection(length, states.is_some())?;
            selection.count = selection.count.min(stride);
            let (grid, mut snapshot) = (attached.block().grid(index), Snapshot::default());
            if selection.count > 0 {
                attached.reader(index).copy_columns(&selection, first, columns, stride, &mut snapshot)?;
            }
            window.holes.check(&self.symbol, &snapshot, grid)?;
            let rows =
                if selection.count > 0 { window.holes.apply(&snapshot, grid, first, columns, stride) } else { 0 };
            if let Some(states) = states {
                states.clear();
                states.extend(window.holes.states_of(&snapshot));
            }
            let last = snapshot.states.len().checked_sub(1);
            let end_ms = last.map(|last| grid.end_ms((snapshot.start + last as u64) as i64));
            Ok(Copied { rows, end_ms })
        })
    }

    /// Returns a copy of a window.
    ///
    /// # Errors
    ///
    /// As [`Self::candles_into`].
    pub fn candles(&self, window: &Window) -> Result<Candles, Error> {
        let stride = self.available(window)?;
        let (mut values, mut states) = (vec![0.0; COLUMNS * stride], Vec::new());
        self.candles_into(window, &mut values, stride, Some(&mut states))?;
        Ok(Candles { values, states })
    }

    /// Returns the states of the rows of a window. Never `Stale`.
    ///
    /// # Errors
    ///
    /// `Argument`, `Gap`, and see the type.
    pub fn states(&self, window: &Window) -> Result<Vec<RowState>, Error> {
        self.with(|attached, index| {
            let selection = window.selection(attached.block().geometry().ring.length, true)?;
            let mut snapshot = Snapshot::default();
            attached.reader(index).copy::<f64>(&selection, &mut [], &mut snapshot)?;
            window.holes.check(&self.symbol, &snapshot, attached.block().grid(index))?;
            Ok(window.holes.states_of(&snapshot).collect())
        })
    }

    /// Copies the newest row into `row`, and returns its state. NaN, and `Empty`, while there is none.
    ///
    /// # Errors
    ///
    /// `Stale`, and see the type.
    #[inline]
    pub fn live(&self, row: &mut Row) -> Result<RowState, Error> {
        Ok(self.with_fresh(|attached, index| attached.reader(index).newest(row))?.state)
    }

    /// Returns the close of the newest row, NaN while there is none.
    ///
    /// # Errors
    ///
    /// `Stale`, and see the type.
    #[inline]
    pub fn last_close(&self) -> Result<f64, Error> {
        self.with_fresh(|attached, index| Ok(attached.reader(index).last_close()))
    }

    /// Returns how long ago the exchange last confirmed this series; `None` before the first response. Never `Stale`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn age(&self) -> Result<Option<Duration>, Error> {
        let age_ms = self.with(|attached, index| Ok(age_ms(attached.block(), index)))?;
        Ok(age_ms.map(Duration::from_millis))
    }

    /// Returns the open time of the newest row as the exchange sent it, epoch ms. Never `Stale`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn last_open_ms(&self) -> Result<Option<i64>, Error> {
        let mut row = [0.0; COLUMNS];
        let marks = self.with(|attached, index| attached.reader(index).newest(&mut row))?;
        Ok((marks.head > 0).then_some(row[OPEN_TIME_MS] as i64))
    }

    /// Returns how often closed rows were corrected so far. Never `Stale`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn revision(&self) -> Result<u32, Error> {
        Ok(self.with(|attached, index| attached.reader(index).marks())?.revision)
    }

    /// Returns the gaps of the readable window, oldest first. Never `Stale`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn gaps(&self) -> Result<Vec<Gap>, Error> {
        self.with(|attached, index| {
            let grid = attached.block().grid(index);
            Ok(attached.reader(index).gaps()?.into_iter().map(|gap| Gap::of(gap, grid)).collect())
        })
    }

    /// Returns, for every moment (epoch ms), the newest candle that had closed by then: column `k` for moment `i` lands
    /// in `out[k * moments + i]`. NaN before the window.
    ///
    /// # Errors
    ///
    /// `Stale`, and see the type.
    ///
    /// # Panics
    ///
    /// When `out` is too short.
    pub fn asof_into(&self, moments_ms: &[i64], out: &mut [f64]) -> Result<(), Error> {
        let columns: [usize; COLUMNS] = std::array::from_fn(|column| column);
        self.with_fresh(|attached, index| {
            asof::copy(attached.reader(index), attached.block().grid(index), &columns, moments_ms, out)
        })
    }

    /// Returns rows of a range of open times, of one moment. Never `Stale`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn page(&self, request: &PageRequest) -> Result<Page, Error> {
        self.with(|attached, index| attached.reader(index).page(attached.block().grid(index), request))
    }

    /// Returns the newest `count` final slots in place; fewer if fewer exist. `None`: LENGTH of the block.
    ///
    /// # Errors
    ///
    /// `Argument` for 0; `Stale`, and see the type.
    #[inline]
    pub fn view(&self, count: Option<usize>) -> Result<View, Error> {
        let window = Window { count, closed_only: true, ..Window::default() };
        self.with_fresh(|attached, index| {
            let selection = window.selection(attached.block().geometry().ring.length, false)?;
            let marks = attached.reader(index).view(selection.count)?;
            Ok(View::new(attached.clone(), index, marks))
        })
    }

    /// Sleeps until a candle opens that is newer than the one of `after_open_ms`, or than the newest one now, and
    /// returns its open time, epoch ms. `goes_on` is asked before each sleep, at least once a second.
    ///
    /// # Errors
    ///
    /// `NothingOpened` after the timeout (`None`: for ever); `Interrupted` when `goes_on` says no, or by
    /// [`crate::Feed::interrupt`]; `Stale` when the collector published no heartbeat for the feed's limit, or the symbol
    /// is delisted; and see the type.
    pub fn wait_open(
        &self,
        after_open_ms: Option<i64>,
        timeout: Option<Duration>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<i64, Error> {
        let (deadline, interrupts) = (Deadline::after(timeout), self.source.interrupts());
        let end = self.end_of(after_open_ms)?;
        until(
            || self.news(None),
            |news| {
                let newer = self.look_newer_in(news.attached(), end)?;
                Ok(newer.map_or(ControlFlow::Continue(()), ControlFlow::Break))
            },
            |news, (), slept| {
                let slice = deadline.slice().ok_or_else(|| self.nothing_opened(timeout.unwrap_or_default()))?;
                if self.source.interrupts() != interrupts || !goes_on() {
                    return Err(Error::Interrupted);
                }
                news.pass(0, slice, slept.as_ref())
            },
        )
    }

    /// Returns the error of a wait in vain.
    #[must_use]
    pub fn nothing_opened(&self, waited: Duration) -> Error {
        Error::NothingOpened { symbol: self.symbol.to_string(), waited }
    }

    /// Takes what is announced of rows now: for those who wait by themselves. It takes part in a replay,
    /// for the thread of the number `holder`, `None` for this one.
    ///
    /// # Errors
    ///
    /// `FeedClosed`, and as a wait in a replay.
    pub fn news(&self, holder: Option<u64>) -> Result<News, Error> {
        Ok(News::of_rows(self.source.turn(holder)?))
    }

    /// Returns the candle index after that of the open time, or after the newest one.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn end_of(&self, open_ms: Option<i64>) -> Result<u64, Error> {
        self.with(|attached, index| match open_ms {
            Some(open_ms) => Ok((attached.block().grid(index).index_of(open_ms) + 1).max(0) as u64),
            None => Ok(attached.reader(index).marks()?.end()),
        })
    }

    /// Returns what [`Self::wait_open`] does, from what [`Self::end_of`] returned; `None` while there is nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_open`].
    pub fn look_newer(&self, end: u64) -> Result<Option<i64>, Error> {
        let attached = self.source.attached()?;
        self.look_newer_in(&attached, end)
    }

    fn look_newer_in(&self, attached: &Attached, end: u64) -> Result<Option<i64>, Error> {
        let index = attached.place_of(&self.symbol)?;
        let mut row = [0.0; COLUMNS];
        let marks = SeriesReader::new(attached.block(), index).newest(&mut row)?;
        if marks.end() > end {
            return Ok(Some(row[OPEN_TIME_MS] as i64));
        }
        self.source.check_collector(attached, &self.symbol)?;
        self.source.check_listed(attached, index)?;
        Ok(None)
    }
}
