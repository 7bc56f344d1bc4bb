//! `SeriesState`: where a series of a writer stands, and when its stream last sent something.

use candleshm::error::Error;
use candleshm::writer::{Missing, Report, Writer};
use pyo3::prelude::*;

/// The state of a series.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct SeriesState {
    /// Open time of the newest row; None while the series has none.
    newest_open_ms: Option<i64>,
    /// Open time of the oldest row not yet final; None while the series has none.
    unsettled_open_ms: Option<i64>,
    /// Rows of the window that are neither there nor holes.
    missing: usize,
    /// The newest missing rows that no response lacked so far: half-open range of their open times, or None.
    newest_missing_ms: Option<(i64, i64)>,
    /// Range of the missing rows that responses lacked and that are to be confirmed next, or None.
    unconfirmed_ms: Option<(i64, i64)>,
    /// Exchange time from which a request confirms them as holes.
    confirm_from_ms: i64,
    /// When its stream brought the newest event: CLOCK_BOOTTIME, -inf for never.
    last_event_seconds: f64,
    /// How long its stream was lately silent between two events, at the longest.
    stream_pause_seconds: f64,
}

impl SeriesState {
    /// Returns where the series of a symbol stands. `offset_ms` is what the times of its events have beyond
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn of(writer: &Writer, symbol: &str, offset_ms: i64) -> Result<Self, Error> {
        let index = writer.index_of(symbol)?;
        let Report { newest_open_ms, unsettled_open_ms, missing, .. } = writer.report(index);
        let Missing { newest_ms, unconfirmed_ms, confirm_from_ms } = writer.missing(index)?;
        let (last_event_ms, pause_ms) = writer.stream_times_ms(index);
        let last_event_ms = if last_event_ms == 0 { 0 } else { last_event_ms.saturating_add_signed(-offset_ms) };
        Ok(Self {
            newest_open_ms,
            unsettled_open_ms,
            missing,
            newest_missing_ms: newest_ms,
            unconfirmed_ms,
            confirm_from_ms,
            last_event_seconds: event_seconds(last_event_ms),
            stream_pause_seconds: pause_ms as f64 / 1000.0,
        })
    }
}

/// Returns when an event came; -inf for never.
pub(crate) fn event_seconds(last_event_ms: u64) -> f64 {
    if last_event_ms == 0 { f64::NEG_INFINITY } else { last_event_ms as f64 / 1000.0 }
}
