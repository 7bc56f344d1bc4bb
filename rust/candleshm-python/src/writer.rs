//! `Writer`: the owner of a block, as the collector uses it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use candleshm::columns::{COLUMNS, Row, plausible};
use candleshm::error::Error;
use candleshm::feed::{self, clock, trading_ages_ms};
use candleshm::gate::Gate;
use candleshm::interval::Interval;
use candleshm::layout::{Presence, RowState};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::wire::archive_csv::parse_csv;
use candleshm::wire::event;
use candleshm::wire::parse::parse;
use candleshm::writer::{
    Config, Fetched, Health, Missing, Older as CoreOlder, Pushed as CorePushed, RepairReason, RepairRequest, Report,
    Writer as CoreWriter,
};
use candleshm_recording::record::{DerivedBlock, Fate, Health as RecordedHealth, Record, Window, add_text};
use candleshm_recording::recorder::Recorder;
use candleshm_recording::source::{checkpoint, checkpoint_bytes};
use candleshm_stream::board::Counts;
use candleshm_stream::streams::{Merged, Sink};
use numpy::{PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyTuple};

use crate::array::new_columns;
use crate::derive::grid;
use crate::errors::exceptions::{BlockNotFound, ConfigError};
use crate::errors::{NotMerged, seconds, to_py};
use crate::feed::halves;
use crate::gap::Gap;
use crate::process;
use crate::recording::{self, RecordingStatus, packed_rows};
use crate::replica::Applied;

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
    fn of(report: Report, missing_rows: Missing) -> Self {
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
    fn of(older: CoreOlder) -> Self {
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

/// Returns when an event came; -inf for never.
fn event_seconds(last_event_ms: u64) -> f64 {
    if last_event_ms == 0 { f64::NEG_INFINITY } else { last_event_ms as f64 / 1000.0 }
}

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
    fn of(pushed: CorePushed, writer: &CoreWriter) -> Self {
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

/// Bytes of checkpoints that go into the queue of a recording with one heartbeat.
const CHECKPOINT_BYTES_MAX: usize = 8 << 20;
/// How long the end of a collector waits for the disk of its recording.
const END_MAX: Duration = Duration::from_secs(2);

/// Returns a request window as it is recorded.
fn window_of(window: &RequestWindow) -> Window {
    let RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms } = *window;
    Window { sent_ms, received_ms, settle_ms, limit: limit as u64, start_ms, end_ms, from_end, patience_ms }
}

/// Returns health as it is recorded.
fn recorded_health(health: &Health) -> RecordedHealth {
    let Health { ready, weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms } =
        *health;
    let words = [weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms];
    RecordedHealth { ready, words }
}

thread_local! {
    /// Rows between parse and merge; each fetching thread keeps its own.
    static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

/// What serialises the threads. None is inside while Python runs, nor while it waits for the GIL.
type Owned = Gate<Guarded>;

/// A writer, and what it still merges.
struct Guarded {
    /// None once closed.
    writer: Option<CoreWriter>,
    /// Whether nothing is merged any more.
    stopped: bool,
    /// Responses to requests that left before are not merged; local seconds.
    restarted_seconds: f64,
    /// By what clock the streams' events are judged; None before it is known.
    exchange_clock: Option<ExchangeClock>,
    /// What is merged is also given to it, by the thread that is inside.
    recorder: Arc<OnceLock<Recorder>>,
}

/// The latest that the exchange's clock can show: it was measured once, and clocks drift.
#[derive(Clone, Copy)]
struct ExchangeClock {
    measured_seconds: f64,
    upper_ms: f64,
    drift: f64,
}

impl ExchangeClock {
    fn latest_ms(self, now_ms: u64) -> i64 {
        let passed_ms = now_ms as f64 - self.measured_seconds * 1000.0;
        (self.upper_ms + passed_ms + passed_ms.abs() * self.drift).ceil() as i64
    }
}

/// The events of streams, on their way into a block.
pub(crate) struct EventSink {
    writer: Arc<Owned>,
    recorder: Arc<OnceLock<Recorder>>,
    /// The connection and texts of the read that is merged next, where it is recorded.
    received: (u64, Vec<u8>),
}

impl Sink for EventSink {
    fn received(&mut self, connection: u64, texts: &mut dyn Iterator<Item = &[u8]>) {
        if self.recorder.get().is_some() {
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
        if let Some(recorder) = self.recorder.get() {
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

/// The writers of this process, for `forget_writers`.
static WRITERS: Mutex<Vec<Weak<Owned>>> = Mutex::new(Vec::new());

/// Lets go of every writer, without a word to the blocks: to be called in a forked child.
///
/// A child shares the parent's lock on a block. Were it to keep the file open, a collector that dies would go on owning
/// its block for as long as any process that it once forked is alive.
#[pyfunction]
pub(crate) fn forget_writers() {
    // What another thread of the parent held at the moment of the fork stays locked in the child for ever.
    if let Ok(mut writers) = WRITERS.try_lock() {
        for writer in writers.drain(..).filter_map(|writer| writer.upgrade()) {
            if let Some(mut writer) = writer.try_enter() {
                drop(writer.writer.take());
                if let Some(recorder) = writer.recorder.get() {
                    recorder.forget();
                }
            }
        }
    }
}

/// Parse a klines body: its rows as they stand there, float64 (n, 12), and how many rows cannot be true.
///
/// Those are left out: non-finite, high < low, negative volume, negative prices unless `price` is premium. Raises
/// BadResponse (with `.offset`).
#[pyfunction]
#[pyo3(signature = (body, price="trade"))]
pub(crate) fn parse_klines<'py>(
    py: Python<'py>,
    body: &[u8],
    price: &str,
) -> PyResult<(Bound<'py, PyArray2<f64>>, usize)> {
    rows_of(py, price_of(price)?, |rows| parse(body, rows).map_err(Error::from))
}

/// Returns the price of that name.
pub(crate) fn price_of(name: &str) -> PyResult<Price> {
    Price::parse(name).ok_or_else(|| {
        let known = Price::ALL.map(Price::as_str).join(" | ");
        ConfigError::new_err(format!("price cannot be `{name}`; allowed: {known}"))
    })
}

/// Parse a file of the exchange's archive, times in ms: its rows as they stand there, and how many cannot be true.
///
/// With or without the header, in milliseconds or microseconds. As for `parse_klines` otherwise.
#[pyfunction]
#[pyo3(signature = (file, price="trade"))]
pub(crate) fn parse_archive_csv<'py>(
    py: Python<'py>,
    file: &[u8],
    price: &str,
) -> PyResult<(Bound<'py, PyArray2<f64>>, usize)> {
    rows_of(py, price_of(price)?, |rows| parse_csv(file, rows).map_err(Error::from))
}

/// Returns the rows that can be true, and how many cannot.
fn rows_of(
    py: Python<'_>,
    price: Price,
    read: impl FnOnce(&mut Vec<Row>) -> Result<(), Error> + Send,
) -> PyResult<(Bound<'_, PyArray2<f64>>, usize)> {
    let (rows, found) = py.detach(|| {
        let mut rows = Vec::new();
        read(&mut rows).map_err(|error| to_py(error, ""))?;
        let found = rows.len();
        rows.retain(|row| plausible(row, price).is_ok());
        PyResult::Ok((rows, found))
    })?;
    let array = new_columns(py, rows.len(), |values| {
        for (column, values) in values.chunks_exact_mut(rows.len().max(1)).enumerate() {
            values.iter_mut().zip(&rows).for_each(|(value, row)| *value = row[column]);
        }
        Ok(())
    })?;
    Ok((array, found - rows.len()))
}

/// The one owner of a named block. Methods may be called from any thread; they are serialised inside.
#[pyclass(frozen, module = "candleshm._core")]
#[expect(clippy::struct_field_names, reason = "it is the core's writer, and what records it")]
pub(crate) struct Writer {
    name: String,
    writer: Arc<Owned>,
    derived: Vec<DerivedBlock>,
    recorder: Arc<OnceLock<Recorder>>,
}

impl Writer {
    /// Returns where the events of streams go.
    pub(crate) fn sink(&self) -> EventSink {
        EventSink { writer: Arc::clone(&self.writer), recorder: Arc::clone(&self.recorder), received: (0, Vec::new()) }
    }

    /// Records what was just done, if anything is recorded; to be called inside the gate.
    fn record(&self, record: &Record<'_>) {
        if let Some(recorder) = self.recorder.get() {
            recorder.push(record, clock::now_ms());
        }
    }

    /// As [`Self::record`], of a record that was packed before the gate.
    fn record_packed(&self, packed: Option<Vec<u8>>, boot_ms: u64) {
        if let (Some(recorder), Some(packed)) = (self.recorder.get(), packed) {
            recorder.push_body(packed, boot_ms);
        }
    }

    /// Tells the recorder which symbols there are.
    fn tell_symbols(&self, writer: &CoreWriter) {
        if let Some(recorder) = self.recorder.get() {
            let block = writer.block();
            let symbols = (0..block.symbol_count()).map(|index| block.symbol(index)).collect();
            recorder.set_symbols(symbols, block.geometry().symbol_capacity as u64);
        }
    }

    /// Records what is known of series that are due, as far as the queue has room for it.
    fn checkpoint(&self, recorder: &Recorder, most_bytes: usize) -> PyResult<()> {
        let mut bytes = 0;
        while bytes < most_bytes {
            let mut guarded = self.writer.enter_patiently();
            let is_done = self.work(&mut guarded, |writer| {
                let size = checkpoint_bytes(writer, &self.derived);
                let Some(place) = recorder.next_checkpoint(size) else { return Ok(true) };
                bytes += checkpoint(recorder, writer, &self.derived, place, clock::now_ms())?;
                Ok(false)
            })?;
            if is_done {
                break;
            }
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut CoreWriter) -> Result<T, Error>) -> PyResult<T> {
        self.work(&mut self.writer.enter(), work)
    }

    fn work<T>(&self, guarded: &mut Guarded, work: impl FnOnce(&mut CoreWriter) -> Result<T, Error>) -> PyResult<T> {
        match guarded.writer.as_mut() {
            Some(writer) => work(writer).map_err(|error| to_py(error, &self.name)),
            None => Err(BlockNotFound::new_err((self.name.clone(), "this writer was closed"))),
        }
    }
}

fn not_merged() -> PyErr {
    NotMerged::new_err("merging was stopped, or the exchange's time was restarted after the request had left")
}

/// Returns seconds per symbol, in the order of the block.
///
/// The thread of the streams asks for them several times a second, also while a larger block is filled: it waits for
/// that without the GIL, or the whole program would wait.
fn by_symbol<'py>(
    py: Python<'py>,
    writer: &Writer,
    seconds: impl FnOnce(&CoreWriter) -> Vec<f64> + Send,
) -> PyResult<Bound<'py, PyDict>> {
    let pairs = py.detach(|| {
        writer.with(|writer| {
            let block = writer.block();
            let symbols = (0..block.symbol_count()).map(|index| block.symbol(index));
            Ok(symbols.zip(seconds(writer)).collect::<Vec<_>>())
        })
    })?;
    pairs.into_py_dict(py)
}

#[pymethods]
impl Writer {
    /// Create the block, take over the one a dead collector left, or supersede it when its shape differs.
    ///
    /// Rows of the same market, interval and symbol come over from a block of another LENGTH or other symbols, each as
    /// it was and as old as it was.
    ///
    /// `derive` are names, intervals (`5m`, `1d@Asia/Shanghai`) and LENGTHs: further blocks of the same symbols, whose
    /// candles are derived from this block's in the same calls, each published before waiters of either are woken.
    /// Whatever is done to this block (symbols, trading, health, heartbeat, close) is done to them.
    ///
    /// `fetched` are, by the names of derived blocks, the intervals of which the exchange has candles for rows that do
    /// not come by derivation: that of the block, or a smaller one that makes it up; see `older`.
    ///
    /// `exchange` says whose candles these are. A block that a collector of another exchange left is replaced without
    /// its rows; an empty one stands for any.
    ///
    /// Raises BlockInUse (a live collector owns it), ConfigError (name, interval, length), BlockCorrupt,
    /// OSError (ENOSPC: /dev/shm is too small).
    #[staticmethod]
    #[pyo3(name = "open", signature = (name, *, market, interval, length, symbols, spare_symbols=0, derive=None, fetched=None, exchange="", price="trade"))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn py_open(
        py: Python<'_>,
        name: String,
        market: &str,
        interval: &str,
        length: usize,
        symbols: Vec<String>,
        spare_symbols: usize,
        derive: Option<Vec<(String, String, usize)>>,
        fetched: Option<HashMap<String, String>>,
        exchange: &str,
        price: &str,
    ) -> PyResult<Self> {
        let derive = derive.unwrap_or_default();
        let fetched = fetched.unwrap_or_default();
        let targets = derive
            .iter()
            .map(|(name, target, _)| Ok((grid(target)?, fetched.get(name).map(|interval| grid(interval)).transpose()?)))
            .collect::<PyResult<Vec<_>>>()?;
        let market = Market::parse(market)
            .ok_or_else(|| ConfigError::new_err(format!("market is not SPOT, UM or CM: `{market}`")))?;
        let price = price_of(price)?;
        if market == Market::Spot && price != Price::Trade {
            return Err(ConfigError::new_err(format!("price cannot be `{}` with market SPOT", price.as_str())));
        }
        let config = Config {
            market,
            price,
            interval: Interval::parse(interval).ok_or_else(|| {
                let known = Interval::ALL.map(Interval::as_str).join(" ");
                ConfigError::new_err(format!("interval is not one of {known}: `{interval}`"))
            })?,
            length,
            symbols,
            spare_symbols,
            exchange: exchange.to_owned(),
        };
        let opened = py.detach(|| {
            let mut writer = CoreWriter::open(&name, &config, process::owner()).map_err(|error| (error, &name))?;
            for ((derived, _, length), (target, fetched)) in derive.iter().zip(targets) {
                let opened = match fetched {
                    Some(fetched) => writer.derive_and_fetch(derived, target, fetched, *length, process::owner()),
                    None => writer.derive(derived, target, *length, process::owner()),
                };
                if let Err(error) = opened {
                    writer.abandon();
                    return Err((error, derived));
                }
            }
            Ok(writer)
        });
        let writer = opened.map_err(|(error, name)| to_py(error, name))?;
        let recorder = Arc::new(OnceLock::new());
        let writer = Arc::new(Gate::new(Guarded {
            writer: Some(writer),
            stopped: false,
            restarted_seconds: f64::NEG_INFINITY,
            exchange_clock: None,
            recorder: Arc::clone(&recorder),
        }));
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(&writer));
        let derived = derive
            .into_iter()
            .map(|(name, interval, length)| {
                let fetched = fetched.get(&name).cloned().unwrap_or_default();
                DerivedBlock { name, interval, length: length as u64, fetched }
            })
            .collect();
        Ok(Self { name, writer, derived, recorder })
    }

    /// Record from now on what changes the block, into files of `directory`.
    ///
    /// It must exist and be of this block only. Together the files have at most `bytes_max`; the oldest go first.
    /// `offset_ms` is what the exchange's clock (epoch ms) shows beyond CLOCK_BOOTTIME in ms; a replay's clock starts
    /// from it. A thread of its own writes. Where the disk is too slow or full records are dropped, never candles: see
    /// `recording`. A second call does nothing. Raises OSError when the first file cannot be written.
    #[pyo3(signature = (directory, *, bytes_max, offset_ms))]
    fn record_into(&self, py: Python<'_>, directory: PathBuf, bytes_max: u64, offset_ms: i64) -> PyResult<()> {
        py.detach(|| {
            let guarded = self.writer.enter();
            let Some(writer) = guarded.writer.as_ref() else { return Ok(()) };
            if self.recorder.get().is_none() {
                let recorder = recording::start(writer, &self.derived, directory, bytes_max, offset_ms)?;
                let _ = self.recorder.set(recorder);
            }
            drop(guarded);
            self.recorder.get().map_or(Ok(()), |recorder| self.checkpoint(recorder, usize::MAX))
        })
    }

    /// Record a text, JSON, that a replay shows or checks; does nothing where nothing is recorded.
    fn note(&self, text: &str) {
        self.record(&Record::Note(text));
    }

    /// What was recorded so far; None where nothing is.
    #[getter]
    fn recording(&self) -> Option<RecordingStatus> {
        self.recorder.get().map(|recorder| RecordingStatus::of(recorder.status()))
    }

    /// The name of the block.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Whether the block is that of a collector that died, with its rows.
    #[getter]
    fn taken_over(&self) -> PyResult<bool> {
        self.with(|writer| Ok(writer.is_taken_over()))
    }

    /// Rows that came over from the block of another shape that this one replaced.
    #[getter]
    fn carried_rows(&self) -> PyResult<usize> {
        self.with(|writer| Ok(writer.carried_rows()))
    }

    /// The symbols that the block carries, in its order.
    #[getter]
    fn symbols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let symbols = self.with(|writer| {
            let block = writer.block();
            Ok((0..block.symbol_count()).map(|index| block.symbol(index)).collect::<Vec<_>>())
        })?;
        PyTuple::new(py, symbols)
    }

    /// Names of the blocks derived from this one.
    #[getter]
    fn derived<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.with(|writer| Ok(writer.derived_names()))?)
    }

    /// How many symbols the block has room for.
    #[getter]
    fn symbol_capacity(&self) -> PyResult<usize> {
        self.with(|writer| Ok(writer.block().geometry().symbol_capacity))
    }

    /// Parse a klines body, merge it, publish it and wake waiters: one call, the GIL released throughout.
    ///
    /// `sent_ms` and `received_ms` are exchange time when the request left and when its response was there. A row is
    /// closed when its end lies at least `settle_ms` before `sent_ms`. `start_ms`, `end_ms` and `limit` are those of
    /// the request; with `from_end` a full response holds the newest `limit` rows of that range, not the oldest. Rows
    /// that should be final, inside the range, and are not in the response become holes when a second response agrees
    /// whose request left at least `settle_ms` later; below the oldest row of the exchange they count as before the
    /// first candle.
    ///
    /// The newest row of a response becomes final, and what lies behind it a hole, only `patience_ms` after its end: a
    /// response may be outdated, and only a later row in it proves that it is not. The series counts as received no
    /// later than its newest candle can have been the exchange's newest.
    ///
    /// `sent_seconds` is the local time at which the request left, as `restart_time` counts it.
    ///
    /// Several threads parse at the same time; only the merge waits for others.
    ///
    /// Raises BadResponse (with `.offset`) for a malformed body: nothing of it is published. UnknownSymbol. NotMerged
    /// after `stop_merging`, and for a request that left before the time was restarted.
    #[pyo3(signature = (symbol, body, *, sent_ms, received_ms, settle_ms, limit, start_ms=None, end_ms=None, from_end=false, patience_ms=0, sent_seconds=f64::INFINITY))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn ingest(
        &self,
        py: Python<'_>,
        symbol: &str,
        body: &[u8],
        sent_ms: i64,
        received_ms: i64,
        settle_ms: i64,
        limit: usize,
        start_ms: Option<i64>,
        end_ms: Option<i64>,
        from_end: bool,
        patience_ms: i64,
        sent_seconds: f64,
    ) -> PyResult<Ingested> {
        let answer = RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms };
        let now_ms = clock::now_ms();
        py.detach(|| {
            ROWS.with_borrow_mut(|rows| {
                rows.clear();
                let recorded = |fate| Record::Response { symbol, derived: "", window: window_of(&answer), fate, body };
                if let Err(error) = parse(body, rows) {
                    self.record(&recorded(Fate::Malformed));
                    return Err(to_py(error.into(), &self.name));
                }
                let packed = self.recorder.get().map(|_| recorded(Fate::Merged).pack(now_ms));
                let mut guarded = self.writer.enter_patiently();
                if guarded.stopped || sent_seconds < guarded.restarted_seconds {
                    self.record(&recorded(Fate::Dropped));
                    return Err(not_merged());
                }
                self.work(&mut guarded, |writer| {
                    let index = writer.index_of(symbol)?;
                    let report = writer.ingest(index, rows, &answer, now_ms);
                    self.record_packed(packed, now_ms);
                    Ok(Ingested::of(report, writer.missing(index)?))
                })
            })
        })
    }

    /// As `ingest`, of a response about rows of the derived block `derived` that do not come by derivation.
    ///
    /// The request was for the interval that is fetched for that block (see `open`). Where rows were derived as well
    /// the exchange's stand; `conflicts` counts the differences. Rows from the oldest that is not final on are left
    /// out. Returns what it changed, and what is to be requested next. Raises as `ingest`, ConfigError for another
    /// name.
    #[pyo3(signature = (derived, symbol, body, *, sent_ms, received_ms, settle_ms, limit, start_ms=None, end_ms=None, patience_ms=0, sent_seconds=f64::INFINITY))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn ingest_older(
        &self,
        py: Python<'_>,
        derived: &str,
        symbol: &str,
        body: &[u8],
        sent_ms: i64,
        received_ms: i64,
        settle_ms: i64,
        limit: usize,
        start_ms: Option<i64>,
        end_ms: Option<i64>,
        patience_ms: i64,
        sent_seconds: f64,
    ) -> PyResult<(Ingested, Older)> {
        let from_end = true;
        let answer = RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms };
        let now_ms = clock::now_ms();
        py.detach(|| {
            ROWS.with_borrow_mut(|rows| {
                rows.clear();
                let recorded = |fate| Record::Response { symbol, derived, window: window_of(&answer), fate, body };
                if let Err(error) = parse(body, rows) {
                    self.record(&recorded(Fate::Malformed));
                    return Err(to_py(error.into(), derived));
                }
                let packed = self.recorder.get().map(|_| recorded(Fate::Merged).pack(now_ms));
                let mut guarded = self.writer.enter_patiently();
                if guarded.stopped || sent_seconds < guarded.restarted_seconds {
                    self.record(&recorded(Fate::Dropped));
                    return Err(not_merged());
                }
                self.work(&mut guarded, |writer| {
                    let index = writer.index_of(symbol)?;
                    let Fetched { mut report, conflicts } =
                        writer.ingest_older(derived, index, rows, &answer, now_ms)?;
                    self.record_packed(packed, now_ms);
                    report.tally.conflicts = conflicts;
                    let older = writer.older(derived, index)?;
                    Ok((Ingested::of(report, older.missing), Older::of(older)))
                })
            })
        })
    }

    /// What is to be requested of each series of the derived block `derived`, by symbol.
    ///
    /// Series that lack nothing, or of which nothing could be derived so far, are left out. Raises ConfigError for
    /// another name.
    fn older<'py>(&self, py: Python<'py>, derived: &str) -> PyResult<Bound<'py, PyDict>> {
        let found = py.detach(|| {
            self.with(|writer| {
                let count = writer.block().symbol_count();
                let of = |index| Ok((writer.block().symbol(index), writer.older(derived, index)?));
                (0..count).map(of).collect::<Result<Vec<_>, Error>>()
            })
        })?;
        let wanting = found.into_iter().filter(|(_, older)| older.rows > 0 || older.suspect_ms.is_some());
        wanting.map(|(symbol, older)| (symbol, Older::of(older))).collect::<Vec<_>>().into_py_dict(py)
    }

    /// Set whether the derived block `derived` has what is to be fetched; readers see it as ready only then.
    fn set_filled(&self, derived: &str, filled: bool) -> PyResult<()> {
        self.with(|writer| {
            writer.set_filled(derived, filled)?;
            self.record(&Record::Filled { derived, filled });
            Ok(())
        })
    }

    /// Parse the text frames of one socket read, merge, publish and wake waiters once; the GIL is released.
    ///
    /// `received_ms` is the exchange time that had certainly not passed when they came. An event replaces what is known
    /// of its candle when it is newer: by its time against events, by trades and volume against responses. ``x: true``
    /// makes the row final; a final row of a response is never overwritten. Frames that cannot be read are reported,
    /// and the others count. Several threads parse at the same time. Raises NotMerged after `stop_merging`.
    #[pyo3(signature = (frames, *, received_ms))]
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn ingest_events(&self, py: Python<'_>, frames: Vec<PyBackedBytes>, received_ms: i64) -> PyResult<Pushed> {
        let now_ms = clock::now_ms();
        py.detach(|| {
            let parsed: Vec<_> = frames.iter().map(|frame| event::parse(frame)).collect();
            let mut guarded = self.writer.enter();
            if guarded.stopped {
                return Err(not_merged());
            }
            self.work(&mut guarded, |writer| {
                let pushed = writer.ingest_events(parsed, received_ms, now_ms);
                if let Some(recorder) = self.recorder.get() {
                    let mut texts = Vec::new();
                    for frame in &frames {
                        add_text(frame, &mut texts);
                    }
                    recorder.push(&Record::Frames { connection: 0, received_ms, texts: &texts }, now_ms);
                }
                Ok(Pushed::of(pushed, writer))
            })
        })
    }

    /// Merge rows that were kept elsewhere, publish them and wake waiters.
    ///
    /// `rows` is float64 (n, 12) and `states` uint8 (n,), as `Series.candles` and `Series.states` give them with
    /// `holes="nan"`; without states all are closed. Closed and verified rows go where the series has none that is
    /// final, holes where it has nothing; what is there already takes precedence. Rows of another state are left out,
    /// and so are those that had not ended at `sent_ms`, the exchange time at which the rows were requested: what was
    /// live then is never trusted. The series does not count as confirmed by it: its age stays.
    ///
    /// With `derived` they go into the derived block of that name; that has to be before its source gets rows.
    ///
    /// Raises UnknownSymbol, ConfigError for other shapes.
    #[pyo3(signature = (symbol, rows, states=None, *, sent_ms, derived=None))]
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    fn load_rows(
        &self,
        py: Python<'_>,
        symbol: &str,
        rows: PyReadonlyArray2<'_, f64>,
        states: Option<PyReadonlyArray1<'_, u8>>,
        sent_ms: i64,
        derived: Option<&str>,
    ) -> PyResult<Ingested> {
        let (rows, states) = (rows.as_array(), states.as_ref().map(PyReadonlyArray1::as_array));
        if rows.ncols() != COLUMNS || states.is_some_and(|states| states.len() != rows.nrows()) {
            return Err(ConfigError::new_err("rows is not float64 (n, 12), or states not uint8 (n,)"));
        }
        // The others say nothing that is final.
        let state_of = |row: usize| {
            let Some(states) = states else { return Some(RowState::Closed) };
            [RowState::Closed, RowState::Verified].into_iter().find(|state| *state as u8 == states[row])
        };
        let kept: Vec<(Row, RowState)> = (0..rows.nrows())
            .filter_map(|row| Some((std::array::from_fn(|column| rows[[row, column]]), state_of(row)?)))
            .collect();
        py.detach(|| {
            let packed = self.recorder.get().map(|_| packed_rows(&kept));
            let record = || {
                if let Some((rows, states)) = &packed {
                    self.record(&Record::Rows { symbol, derived: derived.unwrap_or(""), sent_ms, rows, states });
                }
            };
            self.with(|writer| {
                if let Some(name) = derived {
                    let report = writer.load_derived(name, symbol, &kept, sent_ms)?;
                    record();
                    return Ok(Ingested::of(report, Missing::default()));
                }
                let index = writer.index_of(symbol)?;
                let report = writer.load(index, &kept, sent_ms);
                record();
                Ok(Ingested::of(report, writer.missing(index)?))
            })
        })
    }

    /// When the stream of each symbol brought its newest event: CLOCK_BOOTTIME, -inf for never.
    fn last_event_seconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        by_symbol(py, self, |writer| writer.last_event_ms().into_iter().map(event_seconds).collect())
    }

    /// How old the data of each symbol that trades is, seconds; infinite before its first response.
    fn trading_ages(&self) -> PyResult<Vec<f64>> {
        self.with(|writer| Ok(trading_ages_ms(writer.block()).into_iter().map(seconds).collect()))
    }

    /// Return the state of the series. Raises UnknownSymbol.
    fn state(&self, symbol: &str) -> PyResult<SeriesState> {
        self.with(|writer| {
            let index = writer.index_of(symbol)?;
            let Report { newest_open_ms, unsettled_open_ms, missing, .. } = writer.report(index);
            let Missing { newest_ms, unconfirmed_ms, confirm_from_ms } = writer.missing(index)?;
            let newest_missing_ms = newest_ms;
            let (last_event_ms, pause_ms) = writer.stream_times_ms(index);
            Ok(SeriesState {
                newest_open_ms,
                unsettled_open_ms,
                missing,
                newest_missing_ms,
                unconfirmed_ms,
                confirm_from_ms,
                last_event_seconds: event_seconds(last_event_ms),
                stream_pause_seconds: pause_ms as f64 / 1000.0,
            })
        })
    }

    /// Gaps of the readable window, oldest first.
    fn gaps(&self, symbol: &str) -> PyResult<Vec<Gap>> {
        self.with(|writer| {
            let index = writer.index_of(symbol)?;
            let grid = writer.block().grid(index);
            Ok(writer.gaps(index)?.into_iter().map(|gap| Gap::of(feed::Gap::of(gap, grid))).collect())
        })
    }

    /// Open time of the oldest candle that a full window holds at `now_ms` (exchange time).
    fn window_start_ms(&self, symbol: &str, now_ms: i64) -> PyResult<i64> {
        self.with(|writer| Ok(writer.window_start_ms(writer.index_of(symbol)?, now_ms)))
    }

    /// Add a symbol in a reserved place. Raises ConfigError when `symbol_capacity` is reached.
    fn add_symbol(&self, symbol: &str) -> PyResult<()> {
        self.with(|writer| {
            writer.add_symbol(symbol)?;
            self.record(&Record::Symbol(symbol));
            self.tell_symbols(writer);
            Ok(())
        })
    }

    /// Put a block for these symbols, with the same rows, in the place of this one; readers follow.
    ///
    /// Raises BlockUnavailable when there is no room for both, with this one as it was; BlockInUse when the name
    /// was removed and another collector has taken it.
    #[pyo3(signature = (symbols, spare_symbols=0))]
    fn enlarge(&self, py: Python<'_>, symbols: Vec<String>, spare_symbols: usize) -> PyResult<()> {
        py.detach(|| {
            self.with(|writer| {
                writer.enlarge(&symbols, spare_symbols, process::owner())?;
                self.tell_symbols(writer);
                self.record(&Record::Enlarged { symbols, spare: spare_symbols as u64 });
                Ok(())
            })
        })
    }

    /// Put the block, and those derived from it, back under their names where these were removed or taken.
    ///
    /// A new block with the same rows takes the name, and readers follow. Returns the name of each that was
    /// gone, with None where it is back, or the error: BlockInUse when another live collector has the name,
    /// BlockCorrupt and BlockUnavailable when something else has it or there is no room.
    fn keep_names(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<PyErr>)>> {
        let outcomes = py.detach(|| self.with(|writer| Ok(writer.keep_names(process::owner()))))?;
        let raised = |(name, outcome): (String, Result<(), Error>)| {
            let error = outcome.err().map(|error| to_py(error, &name));
            (name, error)
        };
        Ok(outcomes.into_iter().map(raised).collect())
    }

    /// Store what the calendar of a symbol says: two halves of 32 bits, as docs/segment-format.md has them.
    ///
    /// Until `quiet_until_ms` (exchange time) no newer candle of it need come, and responses without one are current.
    fn set_calendar(&self, symbol: &str, low: u32, high: u32, quiet_until_ms: i64) -> PyResult<()> {
        self.with(|writer| {
            let index = writer.index_of(symbol)?;
            let calendar = u64::from(high) << 32 | u64::from(low);
            writer.set_calendar(index, calendar, quiet_until_ms);
            self.record(&Record::Calendar { symbol, calendar, quiet_until_ms });
            Ok(())
        })
    }

    /// What the calendar of a symbol says, as (low, high); zeroes while it says nothing.
    fn calendar(&self, symbol: &str) -> PyResult<(u32, u32)> {
        self.with(|writer| Ok(halves(writer.block().calendar(writer.index_of(symbol)?))))
    }

    /// Mark a symbol as trading (the default) or ended; `silent` is one that trades without new candles.
    ///
    /// Closes and panels wait for neither an ended nor a silent one. Only an ended one is `StaleData` at any age.
    #[pyo3(signature = (symbol, trading, *, silent=false))]
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn set_trading(&self, symbol: String, trading: bool, silent: bool) -> PyResult<()> {
        let presence = match (trading, silent) {
            (true, false) => Presence::Trading,
            (true, true) => Presence::Silent,
            (false, _) => Presence::Ended,
        };
        self.with(|writer| {
            let index = writer.index_of(&symbol)?;
            writer.set_presence(index, presence);
            self.record(&Record::Presence { symbol: &symbol, presence: presence as u8 });
            Ok(())
        })
    }

    /// Publish what readers see as `Feed.health`.
    ///
    /// `last_error` is the kind of the newest failure and when it was (epoch ms), as the format document lists them.
    #[pyo3(signature = (*, ready, weight_used, weight_limit, banned_until_ms, failing=0, polled=0, last_error=(0, 0)))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn set_health(
        &self,
        ready: bool,
        weight_used: u64,
        weight_limit: u64,
        banned_until_ms: Option<u64>,
        failing: u64,
        polled: u64,
        last_error: (u64, u64),
    ) -> PyResult<()> {
        let health = Health {
            ready,
            weight_used,
            weight_limit,
            banned_until_ms: banned_until_ms.unwrap_or(0),
            failing,
            polled,
            last_error: last_error.0,
            last_error_ms: last_error.1,
        };
        self.with(|writer| {
            writer.set_health(&health);
            self.record(&Record::Health(recorded_health(&health)));
            Ok(())
        })
    }

    /// Let whatever is merged from now on count as newer: the exchange's clock was set.
    ///
    /// `now_seconds` is local time; a response to a request that left before it is not merged any more.
    fn restart_time(&self, now_seconds: f64) -> PyResult<()> {
        let mut guarded = self.writer.enter();
        guarded.restarted_seconds = now_seconds;
        self.work(&mut guarded, |writer| {
            writer.forget_times();
            self.record(&Record::Restart);
            Ok(())
        })
    }

    /// Let the events of a `StreamThread` be judged by this measurement of the exchange's clock.
    ///
    /// At local time `measured_seconds` it showed `lower_ms` at least and `upper_ms` at most; two clocks run apart by
    /// at most `drift` seconds per second. Before the first measurement no event is merged. Readers of the block are
    /// told the middle, see `Feed.exchange_ms`.
    fn set_exchange_clock(&self, measured_seconds: f64, lower_ms: f64, upper_ms: f64, drift: f64) {
        let mut guarded = self.writer.enter();
        guarded.exchange_clock = Some(ExchangeClock { measured_seconds, upper_ms, drift });
        if let Some(writer) = &guarded.writer {
            let offset_ms = (f64::midpoint(lower_ms, upper_ms) - measured_seconds * 1000.0).round() as i64;
            writer.set_exchange_offset(offset_ms);
            self.record(&Record::Clock { offset_ms });
        }
    }

    /// Let `ingest` and `ingest_events` raise NotMerged from now on; what is being merged is finished first.
    fn stop_merging(&self, py: Python<'_>) {
        py.detach(|| self.writer.enter().stopped = true);
    }

    /// Say how the symbols are divided into shards, and which of these this process leads itself.
    ///
    /// Those refuse messages; the symbols of all others come by `apply`. Before the first call, and with 0 shards,
    /// nothing is applied. Raises ConfigError for a shard that there is not.
    fn follow(&self, py: Python<'_>, shards: u32, led: Vec<u32>) -> PyResult<()> {
        if let Some(shard) = led.iter().find(|shard| **shard >= shards) {
            return Err(ConfigError::new_err(format!("shard cannot be {shard}; there are {shards}")));
        }
        py.detach(|| {
            self.with(|writer| {
                writer.follow(shards, led);
                Ok(())
            })
        })
    }

    /// Apply a message of changes, an answer or a heartbeat: publish what it tells and wake waiters.
    ///
    /// `clock_offset_ns` is this machine's CLOCK_BOOTTIME minus the leader's, the lowest that it can be: ages of data
    /// come out too high rather than too low. Answers need none (0), and may come from anybody: they were made after
    /// their request. Whatever cannot be used is refused, see `Applied.refused`, and changes nothing.
    /// The GIL is released. NotMerged is not raised: `stop_merging` stops only what comes from the exchange.
    fn apply(&self, py: Python<'_>, message: &[u8], clock_offset_ns: i64) -> PyResult<Applied> {
        py.detach(|| self.with(|writer| Ok(writer.apply_message(message, clock_offset_ns, clock::now_ns()))))
            .map(Applied::of)
    }

    /// Apply an answer to a request that left at `requested_ns` of our CLOCK_BOOTTIME; else as `apply`.
    fn apply_answer(&self, py: Python<'_>, answer: &[u8], requested_ns: u64) -> PyResult<Applied> {
        py.detach(|| self.with(|writer| Ok(writer.apply_answer(answer, requested_ns, clock::now_ns()))))
            .map(Applied::of)
    }

    /// Return requests for exactly what this block has otherwise than a heartbeat says, at most `limit`.
    ///
    /// None where all agrees, and where the heartbeat is not of the newest epoch or was not applied before. Series that
    /// were requested are left out until their answer was applied, or for 3 s: call it again with the same heartbeat
    /// after each answer, and with each new one. The GIL is released.
    #[pyo3(signature = (heartbeat, limit=8))]
    fn differences<'py>(&self, py: Python<'py>, heartbeat: &[u8], limit: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let requests = py.detach(|| self.with(|writer| Ok(writer.differences(heartbeat, limit, clock::now_ns()))))?;
        Ok(requests.into_iter().map(|request| PyBytes::new(py, &request)).collect())
    }

    /// Publish where the candles come from in a cluster, for `Feed.health`: the leader's epoch and its host/pid.
    ///
    /// For a leader's own block; `apply` does it in those of followers. Epoch 0 stands for a collector that is alone in
    /// its cluster; with an empty source, for no cluster.
    fn set_source(&self, epoch: u64, source: &str) -> PyResult<()> {
        self.with(|writer| {
            writer.set_source(epoch, source, 0, 0);
            Ok(())
        })
    }

    /// Publish a heartbeat; to be called every 500 ms.
    fn heartbeat(&self, py: Python<'_>) -> PyResult<()> {
        self.with(|writer| {
            writer.heartbeat(clock::now_ns());
            Ok(())
        })?;
        match self.recorder.get() {
            Some(recorder) => py.detach(|| self.checkpoint(recorder, CHECKPOINT_BYTES_MAX)),
            None => Ok(()),
        }
    }

    /// Newest open time at which every trading symbol is closed, verified or a hole.
    #[getter]
    fn universe_ms(&self) -> PyResult<Option<i64>> {
        self.with(|writer| Ok(writer.universe_ms()))
    }

    /// Mark the block CLOSED, wake every waiter, release the lock and, with `unlink`, remove the name.
    #[pyo3(signature = (*, unlink=true))]
    fn close(&self, py: Python<'_>, unlink: bool) -> PyResult<()> {
        let writer = self.writer.enter().writer.take();
        if let (Some(recorder), true) = (self.recorder.get(), writer.is_some()) {
            py.detach(|| recorder.end(clock::now_ms(), END_MAX));
        }
        match writer {
            Some(writer) => writer.close(unlink).map_err(|error| to_py(error, &self.name)),
            None => Ok(()),
        }
    }
}
