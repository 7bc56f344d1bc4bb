//! `StreamThread`: the connections of a feed, served without Python.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use candleshm::feed::clock;
use candleshm_stream::board::{Counts, News, Notice};
use candleshm_stream::streams::{Opening, Streams};
use candleshm_stream::tls::{self, Trust};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::descriptor::taken_over;
use crate::pushed::reason_name;
use crate::writer::Writer;

/// Returns a duration; what is none counts as zero.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Counts of a stream thread since its start.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct StreamCounts {
    /// Socket reads with texts.
    batches: u64,
    /// Klines of the block's market, interval and symbols.
    events: u64,
    /// Of these, klines that were older than what was known.
    stale: u64,
    /// Rows that became verified: by trade ids, or because a response had given the same values.
    verified: u64,
    /// Rows for which a response and the stream gave different values.
    conflicts: u64,
    /// Klines that cannot be true.
    refused: u64,
    /// Texts that could not be read.
    faults: u64,
}

/// What happened in a stream thread since it was last asked.
#[pyclass(frozen, get_all, module = "candleshm._core")]
pub(crate) struct StreamNews {
    /// Connections whose upgrade is done.
    opened: Vec<u64>,
    /// Replies to texts that were sent: connection and text.
    replies: Vec<(u64, Py<PyBytes>)>,
    /// Connections whose server is about to end them.
    shutting_down: Vec<u64>,
    /// Connections that are gone: number, reason, HTTP status of a refusal, whether the server misbehaved.
    ended: Vec<(u64, String, Option<u16>, bool)>,
    /// Series that have to be requested: (symbol, reason, open time of the oldest row concerned, epoch ms).
    ///
    /// As in `Pushed.repair_requests`.
    repair_requests: Vec<(String, &'static str, i64)>,
    /// Klines that cannot be true.
    refused: u64,
    /// Why a text could not be read: the newest one; None without one.
    fault: Option<String>,
    /// Why the thread ended although nobody stopped it; None otherwise.
    failure: Option<String>,
}

impl StreamNews {
    fn of(py: Python<'_>, news: News) -> Self {
        let News { notices, repairs, refused, fault, failure } = news;
        let (mut opened, mut replies, mut shutting_down, mut ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (connection, notice) in notices {
            match notice {
                Notice::Opened => opened.push(connection),
                Notice::Reply(text) => replies.push((connection, PyBytes::new(py, &text).unbind())),
                Notice::ShutsDown => shutting_down.push(connection),
                Notice::Ended(end) => ended.push((connection, end.reason, end.status, end.misbehaved)),
            }
        }
        let named = |(symbol, reason, open_ms)| (symbol, reason_name(reason), open_ms);
        let repair_requests = repairs.into_iter().map(named).collect();
        Self { opened, replies, shutting_down, ended, repair_requests, refused, fault, failure }
    }
}

/// One thread that serves the stream connections of a block: TLS, websocket, parse, merge, publish, wake.
///
/// No Python runs in it. It opens no socket and decides nothing: it is given connected sockets, says what happened, and
/// is told what to send and what to close. Methods may be called from any thread.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct StreamThread {
    streams: Streams,
    roots_file: Option<PathBuf>,
    trusted: OnceLock<Trust>,
}

impl StreamThread {
    /// Returns who is trusted; read once, when the first connection needs it.
    fn trusted(&self) -> PyResult<Trust> {
        if let Some(trusted) = self.trusted.get() {
            return Ok(trusted.clone());
        }
        let trusted = tls::trust(self.roots_file.as_deref()).map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(self.trusted.get_or_init(|| trusted).clone())
    }
}

#[pymethods]
impl StreamThread {
    /// Start the thread. Events go into the block of `writer`.
    ///
    /// `roots_file` is a PEM file of the authorities to trust, instead of the platform's (those of ``SSL_CERT_FILE``
    /// where that is set). `spin_seconds` is how long the thread polls its sockets before it sleeps: a core for a few
    /// microseconds of latency. Raises OSError when the system gives no thread.
    #[new]
    #[pyo3(signature = (writer, *, roots_file=None, spin_seconds=0.0))]
    fn new(writer: &Writer, roots_file: Option<PathBuf>, spin_seconds: f64) -> PyResult<Self> {
        let streams = Streams::start(writer.sink(), clock::now_ms, duration(spin_seconds))
            .map_err(|error| PyOSError::new_err(format!("cannot start the thread of the streams: {error}")))?;
        Ok(Self { streams, roots_file, trusted: OnceLock::new() })
    }

    /// Serve a connected TCP socket as `connection`, a number that none had before.
    ///
    /// `descriptor` is what `socket.detach()` returned; the thread closes it, also when this raises. `host` is the host
    /// and port of the URL, `target` its path and query, `streams` how many it names. With `server_name` the
    /// connection is by TLS, and the server has to show a certificate for that name. Raises ValueError when it is no
    /// socket, OSError when this machine has no certificate authorities.
    #[pyo3(signature = (connection, descriptor, *, host, target, streams, server_name=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn open(
        &self,
        py: Python<'_>,
        connection: u64,
        descriptor: i32,
        host: String,
        target: String,
        streams: u64,
        server_name: Option<String>,
    ) -> PyResult<()> {
        let tcp = taken_over(descriptor)?;
        let secure = match server_name {
            None => None,
            Some(name) => Some((name, py.detach(|| self.trusted())?)),
        };
        self.streams.open(connection, Opening { tcp, host, target, secure, streams });
        Ok(())
    }

    /// Send a text on a connection, which then carries so many `streams`. Does nothing when it is not open.
    fn send(&self, connection: u64, text: &[u8], streams: u64) {
        self.streams.send(connection, text.to_vec(), streams);
    }

    /// Begin the closing handshake of a connection.
    fn close(&self, connection: u64) {
        self.streams.close(connection);
    }

    /// End a connection at once.
    fn abort(&self, connection: u64, reason: String) {
        self.streams.abort(connection, reason);
    }

    /// Return what happened, as soon as anything did and at most after `seconds`.
    ///
    /// What is not urgent is returned at most every 50 ms.
    fn wait(&self, py: Python<'_>, seconds: f64) -> StreamNews {
        let news = py.detach(|| self.streams.board().wait(duration(seconds)));
        StreamNews::of(py, news)
    }

    /// Let a `wait` that is under way, or the next one, return at once.
    fn rouse(&self) {
        self.streams.board().rouse();
    }

    /// Counts since the start.
    #[getter]
    fn counts(&self) -> StreamCounts {
        let Counts { batches, events, stale, verified, conflicts, refused, faults } = self.streams.board().counts();
        StreamCounts { batches, events, stale, verified, conflicts, refused, faults }
    }

    /// Klines that a connection has brought; 0 for one that is not open.
    fn events(&self, connection: u64) -> u64 {
        self.streams.board().events(connection)
    }

    /// Close all connections and end the thread; return whether that was done within `seconds`.
    fn stop(&self, py: Python<'_>, seconds: f64) -> bool {
        py.detach(|| self.streams.stop(duration(seconds)))
    }
}
