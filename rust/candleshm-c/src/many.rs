//! Many symbols at once, in the places that C knows.

use crate::border::{answer, argument, borrowed, filled};
use crate::feed::CFeed;
use crate::series::column_of;

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_last(feed: *mut CFeed, column: i32, values: *mut f64, room: usize) -> i64 {
    answer(|| {
        let column = column_of(column)?;
        // SAFETY: the header asks for a feed.
        let feed = unsafe { borrowed(feed, "feed") }?;
        let group = feed.feed.all()?;
        feed.check_places(group.attached())?;
        if room > 0 {
            // SAFETY: the header asks for `room` places that nobody else uses.
            group.last_into(column, unsafe { filled(values, room.min(group.len()), f64::NAN, "values") }?)?;
        }
        Ok(group.len() as i64)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_panel(
    feed: *mut CFeed,
    column: i32,
    n: usize,
    live: i32,
    values: *mut f64,
    open_ms: *mut i64,
) -> i64 {
    answer(|| {
        let column = column_of(column)?;
        // SAFETY: the header asks for a feed.
        let feed = unsafe { borrowed(feed, "feed") }?;
        let places = feed.places();
        let count = places.checked_mul(n).ok_or_else(|| argument(format!("n is too large: `{n}`")))?;
        // SAFETY: the header asks for so many places that nobody else uses.
        let values = unsafe { filled(values, count, f64::NAN, "values") }?;
        let group = feed.feed.all()?;
        feed.check_places(group.attached())?;
        let panel = group.panel(Some(n), live != 0)?;
        let rows = panel.rows();
        if group.len() == places && rows == n {
            panel.copy_into(&[column], values)?;
        } else {
            // A symbol was added that C has no room for, or a block with fewer has the name, or there are fewer rows.
            let mut all = vec![f64::NAN; group.len() * rows];
            panel.copy_into(&[column], &mut all)?;
            spread(&all, rows, values, n);
        }
        if !open_ms.is_null() {
            // SAFETY: the header asks for `n` places that nobody else uses, or NULL.
            let opens = unsafe { filled(open_ms, rows, 0, "open_ms") }?;
            opens.iter_mut().zip(panel.open_ms()).for_each(|(place, open_ms)| *place = open_ms);
        }
        Ok(rows as i64)
    })
}

/// Copies runs of `rows` values to places that are `stride` apart, as many as both have.
fn spread(from: &[f64], rows: usize, to: &mut [f64], stride: usize) {
    if rows > 0 {
        for (target, source) in to.chunks_exact_mut(stride).zip(from.chunks_exact(rows)) {
            target[..rows].copy_from_slice(source);
        }
    }
}
