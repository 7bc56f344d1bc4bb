//! `Ingested` and `Older`: what a response did to a series, and what is to be requested of one next.

use candleshm::writer::{Missing, Older as CoreOlder, Report};
use pyo3::prelude::*;

/// What one response did to a series, and the state of the series afterwards.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct Ingested {
    /// Rows in the body.
    rows: usize,
    /// Rows that cannot be true: non-finite, high < low, negative volume, beyond the exchange's clock.
    refused: usize,
    /// Of these, rows that open after `received_ms`: a reason to measure the clock again.
    beyond: usize,
    /// Rows older than the window.
    older: usize,
    /// Rows that were new or had other values.
    changed: usize,
    /// Of these, rows that had been closed already.
    corrected: usize,
    /// Rows that became final by this response.
    closed: usize,
    /// Rows that were confirmed not to exist.
    holes: usize,
    /// Rows that a response lacked for the first time.
    absent: usize,
    /// Final rows that the block had as they are.
    agreed: usize,
    /// Of these, rows that became verified: the stream had given the same values.
    verified: usize,
    /// Rows for which the response and the stream gave different values.
    conflicts: usize,
    /// Open time of the newest row; None while the series has none.
    newest_open_ms: Option<i64>,
    /// Open time of the oldest row not yet final: the next refresh starts here.
    unsettled_open_ms: Option<i64>,
    /// Rows of the window that are neither there nor holes.
    missing: usize,
    /// The newest missing rows that no response lacked so far: half-open range of their open times, or None.
    newest_missing_ms: Option<(i64, i64)>,
    /// Range of the missing rows that responses lacked and that are to be confirmed next, or None.
    unconfirmed_ms: Option<(i64, i64)>,
    /// Exchange time from which a request confirms them as holes.
    confirm_from_ms: i64,
    /// Open time of the oldest suspect row, which has to be requested again; None without one.
    suspect_open_ms: Option<i64>,
}

impl Ingested {
    pub(crate) fn of(report: Report, missing_rows: Missing) -> Self {
        let Report { tally, newest_open_ms, unsettled_open_ms, missing, suspect_open_ms } = report;
        Self {
            rows: tally.rows,
            refused: tally.refused,
            beyond: tally.beyond,
            older: tally.older,
            changed: tally.changed,
            corrected: tally.corrected,
            closed: tally.closed,
            holes: tally.holes,
            absent: tally.absent,
            agreed: tally.agreed,
            verified: tally.verified,
            conflicts: tally.conflicts,
            newest_open_ms,
            unsettled_open_ms,
            missing,
            newest_missing_ms: missing_rows.newest_ms,
            unconfirmed_ms: missing_rows.unconfirmed_ms,
            confirm_from_ms: missing_rows.confirm_from_ms,
            suspect_open_ms,
        }
    }
}

/// What of a derived series is to be requested, because it does not come by derivation.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct Older {
    /// Rows that are neither there, nor holes, nor to come by derivation.
    rows: usize,
    /// The newest of them that no response lacked so far: half-open range of their open times, or None.
    missing_ms: Option<(i64, i64)>,
    /// Range of those that responses lacked and that are to be confirmed next, or None.
    unconfirmed_ms: Option<(i64, i64)>,
    /// Exchange time from which a request confirms them as holes.
    confirm_from_ms: i64,
    /// Up to where derived rows follow `missing_ms` without a gap, to be compared with the response.
    seam_end_ms: i64,
    /// Range of the rows that the exchange sent otherwise than they are derived now, or None.
    suspect_ms: Option<(i64, i64)>,
}

impl Older {
    pub(crate) fn of(older: CoreOlder) -> Self {
        let CoreOlder { rows, missing, seam_end_ms, suspect_ms } = older;
        Self {
            rows,
            missing_ms: missing.newest_ms,
            unconfirmed_ms: missing.unconfirmed_ms,
            confirm_from_ms: missing.confirm_from_ms,
            seam_end_ms,
            suspect_ms,
        }
    }
}
