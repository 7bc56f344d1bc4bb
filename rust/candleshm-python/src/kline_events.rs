//! `KlineEvents`: what changed in the series of a block, as events of kline streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use candleshm::columns::OPEN_TIME_MS;
use candleshm::feed::{self, Attached, clock};
use candleshm::read::SeriesReader;
use candleshm::watch::{Change, Watch};
use candleshm::wire::event_text::{EventText, frame};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::errors::to_py;
use crate::feed::Feed;
use crate::klines::{Digits, decimals_of};
use crate::waiting::News;

/// What changed in the watched series of a feed, as events of kline streams in the exchange's wording.
///
/// The newest candle is told whenever it changes, with ``"x":false``; each candle once more when it is final, with
/// ``"x":true``: once and in order, also those that closed while nobody looked, as far back as the window reaches.
/// While a candle is missing, later ones wait to be told as final. Holes are passed over, and corrections of final
/// rows are not told. It follows the feed to another block without telling anything twice. Methods may be called
/// from any thread.
///
/// >>> events = KlineEvents(feed)  # doctest: +SKIP
/// >>> events.watch("BTCUSDT", (2, 5, 7, 8))  # doctest: +SKIP
/// >>> news = events.announced()  # doctest: +SKIP
/// >>> for symbol, event in events.take(): print(event)  # doctest: +SKIP
/// >>> news.sleep()  # doctest: +SKIP
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct KlineEvents {
    feed: feed::Feed,
    watched: Mutex<Watched>,
}

/// The watched series, and the block in which they were looked up.
#[derive(Default)]
struct Watched {
    attached: Option<Arc<Attached>>,
    series: Vec<WatchedSeries>,
}

struct WatchedSeries {
    symbol: Py<PyString>,
    name: String,
    /// Its place in the block, while that carries it.
    place: Option<usize>,
    text: EventText,
    watch: Watch,
}

/// An event, and where its series stands among the watched.
struct Event {
    open_ms: i64,
    series: usize,
    text: Vec<u8>,
}

#[pymethods]
impl KlineEvents {
    #[new]
    fn py_new(feed: &Bound<'_, Feed>) -> PyResult<Self> {
        let feed = feed.get().feed.clone();
        feed.check_open().map_err(|error| to_py(error, ""))?;
        Ok(Self { feed, watched: Mutex::default() })
    }

    /// Tell of a symbol from now on, beginning with its newest candle; `decimals` as for `Series.klines_text`.
    ///
    /// Of a symbol that is watched already only the decimals are taken over. Raises UnknownSymbol, ConfigError.
    fn watch(&self, symbol: &Bound<'_, PyString>, decimals: Option<Digits>) -> PyResult<()> {
        let (name, decimals) = (symbol.to_str()?, decimals_of(decimals)?);
        let grid = self.feed.series(name).and_then(|series| series.grid()).map_err(|error| to_py(error, ""))?;
        let text = EventText::new(name, grid.interval().as_str(), decimals);
        let mut watched = self.lock();
        if let Some(series) = watched.series.iter_mut().find(|series| series.name == name) {
            series.text = text;
        } else {
            let (symbol, name) = (symbol.clone().unbind(), name.to_owned());
            watched.series.push(WatchedSeries { symbol, name, place: None, text, watch: Watch::new() });
        }
        Ok(())
    }

    /// Tell of a symbol no more. Watched again, it begins anew.
    fn unwatch(&self, symbol: &str) {
        self.lock().series.retain(|series| series.name != symbol);
    }

    /// Return what the block has announced so far, to sleep on. Take it before `take`, and no change is missed.
    fn announced(&self) -> PyResult<News> {
        Ok(News(self.feed.news_of_rows().map_err(|error| to_py(error, ""))?))
    }

    /// Return the events since the last call as (symbol, JSON), those of older candles first.
    ///
    /// ``E`` is the exchange's clock now, or, where the collector has not measured it, when the row was received.
    /// ``f`` and ``L`` are -1: a block has no ids of trades. Raises BlockNotFound once the feed was closed.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyString>, Bound<'py, PyBytes>)>> {
        let attached = self.feed.attached().map_err(|error| to_py(error, ""))?;
        let mut watched = self.lock();
        let events = watched.take(&attached);
        let symbols: Vec<_> = events.iter().map(|event| watched.series[event.series].symbol.clone_ref(py)).collect();
        drop(watched);
        let symbols = symbols.into_iter().map(|symbol| symbol.into_bound(py));
        Ok(symbols.zip(events.iter().map(|event| PyBytes::new(py, &event.text))).collect())
    }

    fn __len__(&self) -> usize {
        self.lock().series.len()
    }
}

impl KlineEvents {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn take(&mut self, attached: &Arc<Attached>) -> Vec<Event> {
        if !self.attached.as_ref().is_some_and(|there| Arc::ptr_eq(there, attached)) {
            self.attached = Some(attached.clone());
            for series in &mut self.series {
                series.place = None;
                series.watch.look_anew();
            }
        }
        let exchange_ms = attached.exchange_ms();
        let mut events = Vec::new();
        for (place, series) in self.series.iter_mut().enumerate() {
            if series.place.is_none() {
                series.place = attached.place(&series.name);
            }
            let Some(index) = series.place else { continue };
            let reader = attached.reader(index);
            let tell = |Change { row, is_final, .. }: Change| {
                let mut text = Vec::new();
                series.text.write(&mut text, exchange_ms.unwrap_or_else(|| received_ms(&reader)), &row, is_final);
                events.push(Event { open_ms: row[OPEN_TIME_MS] as i64, series: place, text });
            };
            // A series that is contended is looked at again the next time.
            let _ = series.watch.take(&reader, tell);
        }
        events.sort_by_key(|event| event.open_ms);
        events
    }
}

/// When the newest response or event of a series was received, by this machine's clock, epoch ms.
fn received_ms(reader: &SeriesReader<'_>) -> i64 {
    let epoch_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as i64);
    epoch_ms - clock::now_ms().saturating_sub(reader.received_ms()) as i64
}

/// Return an event as a server's whole websocket frame; with `stream_name` in the wrapper of combined streams.
#[pyfunction]
#[pyo3(signature = (event, stream_name))]
pub(crate) fn frame_text<'py>(py: Python<'py>, event: &[u8], stream_name: Option<&str>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &frame(event, stream_name))
}
