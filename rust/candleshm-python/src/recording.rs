//! `Recorded`: the recording of a writer, and what the writer gives to it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candleshm::columns::Row;
use candleshm::error::Error;
use candleshm::feed::clock;
use candleshm::layout::RowState;
use candleshm::writer::Writer as CoreWriter;
use candleshm_recording::record::{DerivedBlock, Record, bytes};
use candleshm_recording::recorder::{Place, Recorder, Status};
use candleshm_recording::source::{checkpoint, checkpoint_bytes, run_of};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// How long the end of a collector waits for the disk of its recording.
const END_MAX: Duration = Duration::from_secs(2);

/// What was recorded so far.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct RecordingStatus {
    /// Bytes written since the start.
    written_bytes: u64,
    /// Records that were dropped, because the disk was too slow or full.
    missing_records: u64,
    /// Old files that were removed, to stay below the bound.
    removed_files: u64,
    /// Why nothing can be written now; None while all is well.
    error: Option<String>,
}

/// The recording of a writer, once there is one. Records are given to it by the thread that is inside the writer's gate.
#[derive(Clone)]
pub(crate) struct Recorded {
    recorder: Arc<OnceLock<Recorder>>,
    derived: Arc<[DerivedBlock]>,
}

impl Recorded {
    /// Returns the recording of a writer with these derived blocks; it has not begun.
    pub(crate) fn new(derived: Vec<DerivedBlock>) -> Self {
        Self { recorder: Arc::new(OnceLock::new()), derived: derived.into() }
    }

    /// Returns what takes records; `None` while nothing is recorded.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.get()
    }

    /// Returns what was recorded so far; `None` where nothing is.
    pub(crate) fn status(&self) -> Option<RecordingStatus> {
        let Status { written_bytes, missing_records, removed_files, error } = self.recorder.get()?.status();
        Some(RecordingStatus { written_bytes, missing_records, removed_files, error })
    }

    /// Begins to record a block as it is; does nothing where it is recorded.
    pub(crate) fn start(
        &self,
        writer: &CoreWriter,
        directory: PathBuf,
        bytes_max: u64,
        offset_ms: i64,
    ) -> PyResult<()> {
        if self.recorder.get().is_none() {
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let run = run_of(writer, &self.derived, offset_ms);
            let place = Place { directory, bytes_max, run: epoch.as_nanos() as u64 };
            let recorder = Recorder::start(place, run, clock::now_ms());
            let _ = self.recorder.set(recorder.map_err(|error| PyOSError::new_err(error.to_string()))?);
        }
        Ok(())
    }

    /// Records what was just done.
    pub(crate) fn push(&self, record: &Record<'_>) {
        if let Some(recorder) = self.recorder.get() {
            recorder.push(record, clock::now_ms());
        }
    }

    /// As [`Self::push`], of a record that [`Self::packed`] gave.
    pub(crate) fn push_packed(&self, packed: Option<Vec<u8>>, boot_ms: u64) {
        if let (Some(recorder), Some(packed)) = (self.recorder.get(), packed) {
            recorder.push_body(packed, boot_ms);
        }
    }

    /// Packs a record, where one will be needed; may be called outside of the gate.
    pub(crate) fn packed(&self, record: &Record<'_>, boot_ms: u64) -> Option<Vec<u8>> {
        self.recorder.get().map(|_| record.pack(boot_ms))
    }

    /// Tells which symbols there are.
    pub(crate) fn tell_symbols(&self, writer: &CoreWriter) {
        if let Some(recorder) = self.recorder.get() {
            let block = writer.block();
            let symbols = (0..block.symbol_count()).map(|index| block.symbol(index)).collect();
            recorder.set_symbols(symbols, block.geometry().symbol_capacity as u64);
        }
    }

    /// Records what is known of the series that is due, if one is and the queue has room for it, and returns how many
    /// bytes that is.
    pub(crate) fn checkpoint(&self, writer: &CoreWriter) -> Result<Option<usize>, Error> {
        let size = checkpoint_bytes(writer, &self.derived);
        let due = self.recorder.get().and_then(|recorder| Some((recorder, recorder.next_checkpoint(size)?)));
        due.map(|(recorder, place)| checkpoint(recorder, writer, &self.derived, place, clock::now_ms())).transpose()
    }

    /// Ends the recording in order, as far as the disk allows.
    pub(crate) fn end(&self) {
        if let Some(recorder) = self.recorder.get() {
            recorder.end(clock::now_ms(), END_MAX);
        }
    }

    /// Lets go in a forked child.
    pub(crate) fn forget(&self) {
        if let Some(recorder) = self.recorder.get() {
            recorder.forget();
        }
    }
}

/// Returns the bytes of rows, and their states.
pub(crate) fn packed_rows(rows: &[(Row, RowState)]) -> (Vec<u8>, Vec<u8>) {
    let words: Vec<u64> = rows.iter().flat_map(|(row, _)| row.map(f64::to_bits)).collect();
    (bytes(&words), rows.iter().map(|&(_, state)| state as u8).collect())
}
