//! `Writer`: the owner of a block, as the collector uses it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use candleshm::columns::Row;
use candleshm::error::Error;
use candleshm::feed::{clock, trading_ages_ms};
use candleshm::layout::Presence;
use candleshm::merge::RequestWindow;
use candleshm::wire::event;
use candleshm::wire::parse::parse;
use candleshm::writer::{Applied as CoreApplied, Fetched, Health, Missing, Writer as CoreWriter};
use candleshm_recording::record::{Fate, Record, add_text};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyTuple};

use crate::errors::exceptions::{BlockNotFound, ConfigError};
use crate::errors::{NotMerged, seconds, to_py};
use crate::event_sink::EventSink;
use crate::exchange_clock::ExchangeClock;
use crate::feed::halves;
use crate::gap::Gap;
use crate::guarded::{Guarded, Owned};
use crate::ingested::{Ingested, Older};
use crate::opening::{config_of, derived_of, open};
use crate::process;
use crate::pushed::Pushed;
use crate::recording::{Recorded, RecordingStatus, packed_rows};
use crate::replica::Applied;
use crate::rows::final_rows;
use crate::series_state::{SeriesState, event_seconds};

/// Bytes of checkpoints that go into the queue of a recording with one heartbeat.
const CHECKPOINT_BYTES_MAX: usize = 8 << 20;

thread_local! {
    /// Rows between parse and merge; each fetching thread keeps its own.
    static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

/// The one owner of a named block. Methods may be called from any thread; they are serialised inside.
#[pyclass(frozen, module = "candleshm._core")]
#[expect(clippy::struct_field_names, reason = "it is the core's writer")]
pub(crate) struct Writer {
    name: String,
    writer: Arc<Owned>,
    recorded: Recorded,
}

impl Writer {
    /// Returns where the events of streams go.
    pub(crate) fn sink(&self) -> EventSink {
        EventSink::new(Arc::clone(&self.writer), self.recorded.clone())
    }

    /// Records what is known of series that are due, up to about so many bytes.
    fn checkpoint(&self, most_bytes: usize) -> PyResult<()> {
        let mut bytes = 0;
        while bytes < most_bytes {
            let mut guarded = self.writer.enter_patiently();
            match self.work(&mut guarded, |writer| self.recorded.checkpoint(writer))? {
                Some(more) => bytes += more,
                None => break,
            }
        }
        Ok(())
    }

    /// Applies a message of another host inside the gate, without the GIL, and records it; `apply` gets local time, and
    /// returns what was done and by how much the clock of this machine is ahead of the sender's.
    fn apply_by(
        &self,
        py: Python<'_>,
        message: &[u8],
        apply: impl FnOnce(&mut CoreWriter, u64) -> (CoreApplied, i64) + Send,
    ) -> PyResult<Applied> {
        py.detach(|| {
            let now_ns = clock::now_ns();
            let mut guarded = self.writer.enter();
            let (applied, clock_offset_ns) = self.work(&mut guarded, |writer| Ok(apply(writer, now_ns)))?;
            if let (Some(recorder), None) = (self.recorded.recorder(), applied.refused) {
                let led = guarded.led.clone();
                recorder.push(&Record::Message { led, clock_offset_ns, message }, now_ns / 1_000_000);
            }
            Ok(applied)
        })
        .map(Applied::of)
    }

    /// Parses a response about the series of a symbol, of the block or of the derived block of that name, and merges its
    /// rows inside the gate; `merge` gets the place of the series, the rows and local time. All of it is recorded.
    fn respond<T: Send>(
        &self,
        py: Python<'_>,
        (symbol, derived): (&str, &str),
        body: &[u8],
        window: &RequestWindow,
        sent_seconds: f64,
        merge: impl FnOnce(&mut CoreWriter, usize, &[Row], u64) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let now_ms = clock::now_ms();
        let recorded = |fate| Record::Response { symbol, derived, window: *window, fate, body };
        py.detach(|| {
            ROWS.with_borrow_mut(|rows| {
                rows.clear();
                if let Err(error) = parse(body, rows) {
                    self.recorded.push(&recorded(Fate::Malformed));
                    return Err(to_py(error.into(), if derived.is_empty() { &self.name } else { derived }));
                }
                let packed = self.recorded.packed(&recorded(Fate::Merged), now_ms);
                let mut guarded = self.writer.enter_patiently();
                if guarded.stopped || sent_seconds < guarded.restarted_seconds {
                    self.recorded.push(&recorded(Fate::Dropped));
                    return Err(not_merged());
                }
                self.work(&mut guarded, |writer| {
                    let index = writer.index_of(symbol)?;
                    let merged = merge(writer, index, rows, now_ms)?;
                    self.recorded.push_packed(packed, now_ms);
                    Ok(merged)
                })
            })
        })
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
        let fetched = fetched.unwrap_or_default();
        let config = config_of(market, price, interval, length, symbols, spare_symbols, exchange)?;
        let derived: Vec<_> = derive.unwrap_or_default().into_iter().map(|block| derived_of(block, &fetched)).collect();
        let writer = open(py, &name, &config, &derived)?;
        let recorded = Recorded::new(derived);
        Ok(Self { writer: Guarded::own(writer, recorded.clone()), name, recorded })
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
            self.recorded.start(writer, directory, bytes_max, offset_ms)?;
            drop(guarded);
            self.checkpoint(usize::MAX)
        })
    }

    /// Record a text, JSON, that a replay shows or checks; does nothing where nothing is recorded.
    fn note(&self, text: &str) {
        self.recorded.push(&Record::Note(text));
    }

    /// What was recorded so far; None where nothing is.
    #[getter]
    fn recording(&self) -> Option<RecordingStatus> {
        self.recorded.status()
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
        let window = RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms };
        self.respond(py, (symbol, ""), body, &window, sent_seconds, |writer, index, rows, now_ms| {
            let report = writer.ingest(index, rows, &window, now_ms);
            Ok(Ingested::of(report, writer.missing(index)?))
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
        let window = RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms };
        self.respond(py, (symbol, derived), body, &window, sent_seconds, |writer, index, rows, now_ms| {
            let Fetched { mut report, conflicts } = writer.ingest_older(derived, index, rows, &window, now_ms)?;
            report.tally.conflicts = conflicts;
            let older = writer.older(derived, index)?;
            Ok((Ingested::of(report, older.missing), Older::of(older)))
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
            self.recorded.push(&Record::Filled { derived, filled });
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
                if let Some(recorder) = self.recorded.recorder() {
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
        let kept = final_rows(&rows, states.as_ref())?;
        py.detach(|| {
            let packed = self.recorded.recorder().map(|_| packed_rows(&kept));
            let record = || {
                if let Some((rows, states)) = &packed {
                    self.recorded.push(&Record::Rows { symbol, derived: derived.unwrap_or(""), sent_ms, rows, states });
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

    /// How old the data of each symbol that trades is, seconds; infinite before its first response, and while
    /// its newest candle is older than the machine's start.
    fn trading_ages(&self) -> PyResult<Vec<f64>> {
        self.with(|writer| Ok(trading_ages_ms(writer.block()).into_iter().map(seconds).collect()))
    }

    /// Return the state of the series. Raises UnknownSymbol.
    ///
    /// With a `note`, JSON, that is recorded as by `note`, between what was merged before and what will be.
    #[pyo3(signature = (symbol, note=None))]
    fn state(&self, symbol: &str, note: Option<&str>) -> PyResult<SeriesState> {
        self.with(|writer| {
            let state = SeriesState::of(writer, symbol, 0)?;
            if let Some(note) = note {
                self.recorded.push(&Record::Note(note));
            }
            Ok(state)
        })
    }

    /// Gaps of the readable window, oldest first.
    fn gaps(&self, symbol: &str) -> PyResult<Vec<Gap>> {
        self.with(|writer| Gap::all(writer, symbol))
    }

    /// Open time of the oldest candle that a full window holds at `now_ms` (exchange time).
    fn window_start_ms(&self, symbol: &str, now_ms: i64) -> PyResult<i64> {
        self.with(|writer| Ok(writer.window_start_ms(writer.index_of(symbol)?, now_ms)))
    }

    /// Add a symbol in a reserved place. Raises ConfigError when `symbol_capacity` is reached.
    fn add_symbol(&self, symbol: &str) -> PyResult<()> {
        self.with(|writer| {
            writer.add_symbol(symbol)?;
            self.recorded.push(&Record::Symbol(symbol));
            self.recorded.tell_symbols(writer);
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
                self.recorded.tell_symbols(writer);
                self.recorded.push(&Record::Enlarged { symbols, spare: spare_symbols as u64 });
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
            self.recorded.push(&Record::Calendar { symbol, calendar, quiet_until_ms });
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
            self.recorded.push(&Record::Presence { symbol: &symbol, presence: presence as u8 });
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
            self.recorded.push(&Record::Health(health));
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
            self.recorded.push(&Record::Restart);
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
            self.recorded.push(&Record::Clock { offset_ms });
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
            let mut guarded = self.writer.enter();
            guarded.led.clone_from(&led);
            self.work(&mut guarded, |writer| {
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
        self.apply_by(py, message, |writer, now_ns| {
            (writer.apply_message(message, clock_offset_ns, now_ns), clock_offset_ns)
        })
    }

    /// Apply an answer to a request that left at `requested_ns` of our CLOCK_BOOTTIME; else as `apply`.
    fn apply_answer(&self, py: Python<'_>, answer: &[u8], requested_ns: u64) -> PyResult<Applied> {
        self.apply_by(py, answer, |writer, now_ns| {
            let applied = writer.apply_answer(answer, requested_ns, now_ns);
            let clock_offset_ns = requested_ns as i64 - applied.sent_boot_ns as i64;
            (applied, clock_offset_ns)
        })
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
        if self.recorded.recorder().is_some() {
            py.detach(|| self.checkpoint(CHECKPOINT_BYTES_MAX))?;
        }
        Ok(())
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
        let Some(writer) = writer else { return Ok(()) };
        py.detach(|| self.recorded.end());
        writer.close(unlink).map_err(|error| to_py(error, &self.name))
    }
}
