//! Final rows where they lie.

use candleshm::Series;
use candleshm::feed::View;

use crate::border::{answer, borrowed, handed_out, put, taken_back};
use crate::series::column_of;

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_open(series: *const Series, n: usize, out: *mut *mut View) -> i64 {
    answer(|| {
        // SAFETY: the header asks for a place that nobody else uses.
        unsafe { put(out, std::ptr::null_mut(), "out") }?;
        // SAFETY: the header asks for a series.
        let series = unsafe { borrowed(series, "series") }?;
        let view = series.view(Some(n))?;
        let rows = view.len() as i64;
        // SAFETY: as above.
        unsafe { handed_out(out, view) }?;
        Ok(rows)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_column(view: *const View, column: i32) -> *const f64 {
    let mut words = std::ptr::null();
    let _: i32 = answer(|| {
        // SAFETY: the header asks for a view.
        words = unsafe { borrowed(view, "view") }?.words(column_of(column)?).as_ptr().cast();
        Ok(0)
    });
    words
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_complete(view: *const View) -> i32 {
    // SAFETY: the header asks for a view.
    answer(|| Ok(unsafe { borrowed(view, "view") }?.is_complete().into()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_valid(view: *const View) -> i32 {
    // SAFETY: the header asks for a view.
    answer(|| Ok(unsafe { borrowed(view, "view") }?.is_valid().into()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_check(view: *const View) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a view.
        unsafe { borrowed(view, "view") }?.check()?;
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_view_close(view: *mut View) {
    // SAFETY: the header asks for a view that is not used any more, or NULL.
    unsafe { taken_back(view) };
}
