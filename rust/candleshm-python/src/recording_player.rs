//! `RecordingPlayer`: plays a recording into a block of its own.

use std::path::PathBuf;
use std::sync::Mutex;

use candleshm::feed::clock;
use candleshm_recording::player::Player;
use candleshm_recording::reading::{Reading, Step};
use candleshm_recording::record::Record;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::to_py;
use crate::gap::Gap;
use crate::ingested::Ingested;
use crate::process;
use crate::series_state::SeriesState;

struct Playing {
    reading: Reading,
    player: Player,
    /// File, records read from it, and why it ends there.
    cuts: Vec<(PathBuf, u64, String)>,
}

/// Plays the recording of a directory into a block of its own, through the parser, the merge and the writer.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct RecordingPlayer {
    name: String,
    playing: Mutex<Playing>,
}

impl RecordingPlayer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Playing> {
        self.playing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[pymethods]
impl RecordingPlayer {
    /// Open a recording. The block `name` is taken with its first record. Raises OSError for a directory without one.
    #[new]
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn new(directory: PathBuf, name: String) -> PyResult<Self> {
        let reading = Reading::open(&directory).map_err(|error| PyOSError::new_err(error.to_string()))?;
        let player = Player::new(&name, process::owner);
        Ok(Self { name, playing: Mutex::new(Playing { reading, player, cuts: Vec::new() }) })
    }

    /// Play up to `records` records, or up to the next note; return whether there may be more, and the note.
    ///
    /// Raises OSError when a file cannot be read, BlockInUse and what `Writer.open` raises when the block cannot be
    /// taken.
    fn play(&self, py: Python<'_>, records: u64) -> PyResult<(bool, Option<String>)> {
        py.detach(|| {
            let Playing { reading, player, cuts } = &mut *self.lock();
            for _ in 0..records {
                match reading.step().map_err(|error| PyOSError::new_err(error.to_string()))? {
                    Step::End => return Ok((false, None)),
                    Step::Cut(cut) => {
                        player.lose();
                        cuts.push((cut.path, cut.records, cut.reason));
                    }
                    Step::Record => {
                        let Some((boot_ms, record, run)) = reading.record() else { continue };
                        player.play(boot_ms, &record, run).map_err(|error| to_py(error, &self.name))?;
                        if let Record::Note(text) = record {
                            return Ok((true, Some(text.to_owned())));
                        }
                    }
                }
            }
            if let Some(writer) = player.writer() {
                writer.heartbeat(clock::now_ns());
            }
            Ok((true, None))
        })
    }

    /// Publish a heartbeat, so that readers know that somebody owns the block.
    fn heartbeat(&self) {
        if let Some(writer) = self.lock().player.writer() {
            writer.heartbeat(clock::now_ns());
        }
    }

    /// What the newest response about a series of the block changed here.
    ///
    /// None before any, and while the series waits for its checkpoint.
    fn ingested(&self, symbol: &str) -> Option<Ingested> {
        self.lock().player.merged(symbol).map(|(report, missing)| Ingested::of(report, missing))
    }

    /// The state of a series of the block; times as they were where it was recorded.
    ///
    /// None for symbols that the block does not carry, and while the series waits for its checkpoint.
    fn state(&self, symbol: &str) -> Option<SeriesState> {
        let playing = self.lock();
        let (writer, offset_ms) = playing.player.known(symbol)?;
        SeriesState::of(writer, symbol, offset_ms).ok()
    }

    /// Gaps of the readable window of a series, oldest first; none where `state` is None.
    fn gaps(&self, symbol: &str) -> Vec<Gap> {
        let playing = self.lock();
        playing.player.known(symbol).and_then(|(writer, _)| Gap::all(writer, symbol).ok()).unwrap_or_default()
    }

    /// How often what is known of all series was lost: at the start of each run, and where records are missing.
    #[getter]
    fn losses(&self) -> u64 {
        self.lock().player.losses()
    }

    /// The newest run: name, market, price, interval, length, derived (names and intervals); None before any.
    #[getter]
    fn run<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let playing = self.lock();
        let Some(run) = playing.player.run() else { return Ok(None) };
        let found = PyDict::new(py);
        found.set_item("name", &run.name)?;
        found.set_item("market", &run.market)?;
        found.set_item("price", &run.price)?;
        found.set_item("interval", &run.interval)?;
        found.set_item("length", run.length)?;
        let derived: Vec<_> = run.derived.iter().map(|block| (&block.name, &block.interval)).collect();
        found.set_item("derived", derived)?;
        Ok(Some(found))
    }

    /// Names of the blocks that are played into, the own one first; empty before the first run.
    #[getter]
    fn blocks(&self) -> Vec<String> {
        let playing = self.lock();
        let Some(writer) = playing.player.writer() else { return Vec::new() };
        std::iter::once(writer.block().name().to_owned()).chain(writer.derived_names()).collect()
    }

    /// What was played so far: records (a dict by kind), runs, left_out, differing, difference, missing, from_ms,
    /// until_ms (epoch ms), ended.
    #[getter]
    fn played<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let played = self.lock().player.played().clone();
        let found = PyDict::new(py);
        found.set_item("records", played.records)?;
        found.set_item("runs", played.runs)?;
        found.set_item("left_out", played.left_out)?;
        found.set_item("differing", played.differing)?;
        found.set_item("difference", played.difference)?;
        found.set_item("missing", played.missing)?;
        found.set_item("from_ms", played.from_ms)?;
        found.set_item("until_ms", played.until_ms)?;
        found.set_item("ended", played.ended)?;
        Ok(found)
    }

    /// Where files ended before their end: path, records read from it, reason.
    #[getter]
    fn cuts(&self) -> Vec<(PathBuf, u64, String)> {
        self.lock().cuts.clone()
    }

    /// Remove the block; safe twice.
    fn close(&self) -> PyResult<()> {
        self.lock().player.close().map_err(|error| to_py(error, &self.name))
    }
}
