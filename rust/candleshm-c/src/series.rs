//! One symbol: its newest values, and copies of its rows.

use std::cell::RefCell;
use std::ffi::c_char;

use candleshm::columns::COLUMNS;
use candleshm::error::Error;
use candleshm::feed::{Holes, Window};
use candleshm::{RowState, Series};

use crate::border::{answer, argument, borrowed, handed_out, memory, put, taken_back, text};
use crate::feed::CFeed;
use crate::health::seconds;

const HOLES: i32 = 3;
const CLOSED_ONLY: i32 = 16;

thread_local! {
    /// The states of a copy on their way to C.
    static STATES: RefCell<Vec<RowState>> = const { RefCell::new(Vec::new()) };
}

/// `cshm_gap`.
#[repr(C)]
struct CGap {
    start_ms: i64,
    end_ms: i64,
    is_hole: i32,
    reserved: i32,
}

fn window_of(n: usize, flags: i32) -> Result<Window, Error> {
    if n == 0 {
        return Err(argument("n must be a positive integer: `0`"));
    }
    let holes = match flags & HOLES {
        0 => Some(Holes::Drop),
        1 => Some(Holes::Nan),
        2 => Some(Holes::Raise),
        _ => None,
    };
    let Some(holes) = holes.filter(|_| flags & !(HOLES | CLOSED_ONLY) == 0) else {
        let text = format!("flags must be one of CSHM_HOLES_*, with or without CSHM_CLOSED_ONLY: `{flags}`");
        return Err(argument(text));
    };
    Ok(Window { count: Some(n), closed_only: flags & CLOSED_ONLY != 0, holes })
}

/// Checks a column's number.
pub(crate) fn column_of(column: i32) -> Result<usize, Error> {
    let known = usize::try_from(column).ok().filter(|&column| column < COLUMNS);
    known.ok_or_else(|| argument(format!("a column must be 0 to 11: `{column}`")))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_series_of(feed: *mut CFeed, symbol: *const c_char, out: *mut *mut Series) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a place that nobody else uses.
        unsafe { put(out, std::ptr::null_mut(), "out") }?;
        // SAFETY: the header asks for a feed and a text.
        let (feed, symbol) = unsafe { (borrowed(feed, "feed")?, text(symbol, "symbol")?) };
        // SAFETY: as above.
        unsafe { handed_out(out, feed.feed.series(symbol)?) }?;
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_series_free(series: *mut Series) {
    // SAFETY: the header asks for a series that is not used any more, or NULL.
    unsafe { taken_back(series) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_last_close(series: *const Series, out: *mut f64) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a series, and a place that nobody else uses.
        unsafe { put(out, borrowed(series, "series")?.last_close()?, "out") }?;
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_live(series: *const Series, row: *mut f64, state: *mut i32) -> i32 {
    answer(|| {
        let mut newest = [f64::NAN; COLUMNS];
        // SAFETY: the header asks for a series.
        let found = unsafe { borrowed(series, "series") }?.live(&mut newest)?;
        // SAFETY: the header asks for twelve places, and one or NULL, that nobody else uses.
        unsafe {
            put(row.cast::<[f64; COLUMNS]>(), newest, "row")?;
            if !state.is_null() {
                put(state, found as i32, "state")?;
            }
        }
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_age(series: *const Series, out_s: *mut f64) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a series, and a place that nobody else uses.
        unsafe {
            let age = borrowed(series, "series")?.age()?;
            put(out_s, seconds(age.map(|age| age.as_millis() as u64)), "out_s")?;
        }
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_last_open_ms(series: *const Series) -> i64 {
    // SAFETY: the header asks for a series.
    answer(|| Ok(unsafe { borrowed(series, "series") }?.last_open_ms()?.unwrap_or(0).max(0)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_revision(series: *const Series) -> i64 {
    // SAFETY: the header asks for a series.
    answer(|| Ok(unsafe { borrowed(series, "series") }?.revision()?.into()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_candles(
    series: *const Series,
    n: usize,
    flags: i32,
    columns: *mut f64,
    stride: usize,
    states: *mut u8,
) -> i64 {
    answer(|| {
        let window = window_of(n, flags)?;
        if stride < n {
            return Err(argument(format!("stride must be n, {n}, or more: `{stride}`")));
        }
        let count = stride.checked_mul(COLUMNS - 1).and_then(|values| values.checked_add(n)).unwrap_or(usize::MAX);
        // SAFETY: the header asks for a series, and for so many places that nobody else uses.
        let (series, columns) = unsafe { (borrowed(series, "series")?, memory(columns, count, "columns")?) };
        if states.is_null() {
            return Ok(series.candles_into(&window, columns, stride, None)?.rows as i64);
        }
        // SAFETY: the header asks for as many states as slots.
        let states = unsafe { memory(states, n, "states") }?;
        let mut copy = |copied: &mut Vec<RowState>| {
            let rows = series.candles_into(&window, columns, stride, Some(copied))?.rows;
            for (place, &state) in states.iter_mut().zip(&*copied) {
                place.write(state as u8);
            }
            Ok(rows as i64)
        };
        // A thread that is ending has none of its own any more.
        if STATES.try_with(|_| ()).is_err() {
            return copy(&mut Vec::new());
        }
        STATES.with_borrow_mut(copy)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_column(series: *const Series, column: i32, n: usize, flags: i32, values: *mut f64) -> i64 {
    answer(|| {
        let (column, window) = (column_of(column)?, window_of(n, flags)?);
        // SAFETY: the header asks for a series, and for `n` places that nobody else uses.
        let (series, values) = unsafe { (borrowed(series, "series")?, memory(values, n, "values")?) };
        Ok(series.column_into(column, &window, values)?.rows as i64)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_gaps(series: *const Series, out: *mut CGap, room: usize) -> i64 {
    answer(|| {
        // SAFETY: the header asks for a series.
        let gaps = unsafe { borrowed(series, "series") }?.gaps()?;
        if room > 0 {
            // SAFETY: the header asks for `room` places that nobody else uses.
            let out = unsafe { memory(out, room, "out") }?;
            for (place, gap) in out.iter_mut().zip(&gaps) {
                let (start_ms, end_ms) = (gap.start_ms, gap.end_ms);
                place.write(CGap { start_ms, end_ms, is_hole: gap.is_hole.into(), reserved: 0 });
            }
        }
        Ok(gaps.len() as i64)
    })
}
