//! Waiting for a candle to open, and for one to close.

use std::time::Duration;

use candleshm::error::Error;
use candleshm::feed::{Close, timeout_of};
use candleshm::{Closed, Series};

use crate::border::{answer, argument, borrowed, filled};
use crate::feed::CFeed;

/// Below zero: for ever.
fn timeout(seconds: f64) -> Result<Option<Duration>, Error> {
    if seconds < 0.0 { Ok(None) } else { timeout_of(seconds) }
}

/// The newest candle, or the next close, is what 0 means.
fn named(open_ms: i64) -> Option<i64> {
    Some(open_ms).filter(|&open_ms| open_ms != 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_wait_open(series: *const Series, after_open_ms: i64, timeout_s: f64) -> i64 {
    answer(|| {
        // SAFETY: the header asks for a series.
        let series = unsafe { borrowed(series, "series") }?;
        series.wait_open(named(after_open_ms), timeout(timeout_s)?, || true)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_wait_closed(
    feed: *mut CFeed,
    open_ms: i64,
    quorum: f64,
    timeout_s: f64,
    missing: *mut u8,
) -> i64 {
    answer(|| {
        // SAFETY: the header asks for a feed, and for a byte for each symbol, or NULL.
        let (feed, mut marks) = unsafe {
            let feed = borrowed(feed, "feed")?;
            let marks = if missing.is_null() { None } else { Some(filled(missing, feed.places(), 0, "missing")?) };
            (feed, marks)
        };
        let mut mark = |symbols: &[String]| {
            let (Some(marks), Ok(attached)) = (&mut marks, feed.feed.attached()) else { return };
            for place in symbols.iter().filter_map(|symbol| attached.place(symbol)) {
                if let Some(byte) = marks.get_mut(place) {
                    *byte = 1;
                }
            }
        };
        if open_ms < 0 {
            return Err(argument(format!("open_ms must not be negative: `{open_ms}`")));
        }
        let close = Close { open_ms: named(open_ms), symbols: None, quorum };
        let closed = feed.feed.wait_closed(&close, timeout(timeout_s)?, || true);
        match &closed {
            Ok(closed) => mark(&closed.missing),
            Err(Error::NothingClosed { missing, .. }) => mark(missing),
            // The core does not count for whom it was interrupted; a wait without time does.
            Err(Error::Interrupted) => match feed.feed.wait_closed(&close, Some(Duration::ZERO), || true) {
                Ok(Closed { missing, .. }) | Err(Error::NothingClosed { missing, .. }) => mark(&missing),
                Err(_) => {}
            },
            Err(_) => {}
        }
        if !missing.is_null() {
            feed.check_places(&*feed.feed.attached()?)?;
        }
        Ok(closed?.open_ms)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_interrupt(feed: *mut CFeed) {
    // SAFETY: the header asks for a feed.
    match unsafe { borrowed(feed, "feed") } {
        // It returns nothing, so it leaves the message of an earlier failure as it is.
        Ok(feed) => feed.feed.interrupt(),
        Err(error) => {
            let _: i32 = answer(|| Err(error));
        }
    }
}
