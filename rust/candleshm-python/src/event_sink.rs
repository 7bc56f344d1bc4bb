//! `EventSink`: where the thread of the streams puts their events.

use std::sync::Arc;

use candleshm::feed::clock;
use candleshm::wire::event;
use candleshm::writer::RepairRequest;
use candleshm_recording::record::{Record, add_text};
use candleshm_stream::board::Counts;
use candleshm_stream::streams::{Merged, Sink};

use crate::guarded::Owned;
use crate::recording::Recorded;

/// The events of streams, on their way into a block.
pub(crate) struct EventSink {
    writer: Arc<Owned>,
    recorded: Recorded,
    /// The connection and texts of the read that is merged next, where it is recorded.
    received: (u64, Vec<u8>),
}

impl EventSink {
    pub(crate) fn new(writer: Arc<Owned>, recorded: Recorded) -> Self {
        Self { writer, recorded, received: (0, Vec::new()) }
    }
}

impl Sink for EventSink {
    fn received(&mut self, connection: u64, texts: &mut dyn Iterator<Item = &[u8]>) {
        if self.recorded.recorder().is_some() {
            self.received.0 = connection;
            self.received.1.clear();
            texts.for_each(|text| add_text(text, &mut self.received.1));
        }
    }

    fn merge(&mut self, frames: Vec<Result<event::Frame<'_>, event::FrameError>>) -> Option<Merged> {
        let now_ms = clock::now_ms();
        let mut guarded = self.writer.enter();
        let received_ms = guarded.exchange_clock.filter(|_| !guarded.stopped)?.latest_ms(now_ms);
        let writer = guarded.writer.as_mut()?;
        let pushed = writer.ingest_events(frames, received_ms, now_ms);
        if let Some(recorder) = self.recorded.recorder() {
            let (connection, ref texts) = self.received;
            recorder.push(&Record::Frames { connection, received_ms, texts }, now_ms);
        }
        let counts = Counts {
            batches: 1,
            events: pushed.events as u64,
            stale: pushed.stale as u64,
            verified: pushed.tally.verified as u64,
            conflicts: pushed.tally.conflicts as u64,
            refused: pushed.tally.refused as u64,
            faults: pushed.faults.len() as u64,
        };
        let named = |RepairRequest { index, need, open_ms }| (writer.block().symbol(index), need, open_ms);
        Some(Merged {
            counts,
            replies: pushed.acknowledgements,
            shuts_down: pushed.shuts_down,
            fault: pushed.faults.first().map(|(_, error)| error.to_string()),
            repairs: pushed.repair_requests.into_iter().map(named).collect(),
        })
    }
}
