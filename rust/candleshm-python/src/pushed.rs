//! `Pushed`: what a batch of frames did.

use candleshm::writer::{Pushed as CorePushed, RepairReason, RepairRequest, Writer as CoreWriter};
use pyo3::prelude::*;

/// What a batch of frames did.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct Pushed {
    /// Klines of the block's market, interval and symbols.
    events: usize,
    /// Events of other kinds, intervals or markets.
    foreign: usize,
    /// Klines of symbols that the block does not carry.
    unknown: usize,
    /// Klines that were older than what was known, and changed nothing.
    stale: usize,
    /// Klines that cannot be true.
    refused: usize,
    /// Rows that were new or had other values.
    changed: usize,
    /// Rows that became final.
    closed: usize,
    /// Rows that became verified: by trade ids, or because a response had given the same values.
    verified: usize,
    /// Rows for which a response and the stream gave different values.
    conflicts: usize,
    /// Whether the server sent notice of its shutdown.
    shuts_down: bool,
    /// Places in the batch of acknowledgements: replies to what the client sent.
    acknowledgements: Vec<usize>,
    /// Places in the batch of frames that could not be read, and why.
    faults: Vec<(usize, String)>,
    /// Series that have to be requested: (symbol, reason, open time of the oldest row concerned, epoch ms).
    ///
    /// ``rows``: the series has none yet. ``close``: a newer candle came, and one before it is not final or missing.
    /// ``suspect``: by its trade ids a row is not whole, or stream and response differ.
    repair_requests: Vec<(String, &'static str, i64)>,
}

impl Pushed {
    pub(crate) fn of(pushed: CorePushed, writer: &CoreWriter) -> Self {
        let CorePushed {
            events,
            foreign,
            unknown,
            stale,
            tally,
            acknowledgements,
            shuts_down,
            faults,
            repair_requests,
        } = pushed;
        let repair_request =
            |RepairRequest { index, need, open_ms }| (writer.block().symbol(index), reason_name(need), open_ms);
        Self {
            events,
            foreign,
            unknown,
            stale,
            refused: tally.refused,
            changed: tally.changed,
            closed: tally.closed,
            verified: tally.verified,
            conflicts: tally.conflicts,
            shuts_down,
            acknowledgements,
            faults: faults.into_iter().map(|(place, error)| (place, error.to_string())).collect(),
            repair_requests: repair_requests.into_iter().map(repair_request).collect(),
        }
    }
}

/// Returns how Python names a reason.
pub(crate) fn reason_name(reason: RepairReason) -> &'static str {
    match reason {
        RepairReason::Rows => "rows",
        RepairReason::Close => "close",
        RepairReason::Suspect => "suspect",
    }
}
