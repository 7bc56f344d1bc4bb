//! `Replay`: rows that Python gives, published in order of time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use candleshm::columns::{COLUMNS, Row};
use candleshm::interval::Interval;
use candleshm::layout::RowState;
use candleshm::market::Market;
use candleshm::replay::{Inside, More, Plan, Replay as CoreReplay};
use candleshm::writer::Config;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::derive::grid;
use crate::errors::exceptions::ConfigError;
use crate::errors::to_py;
use crate::parsed::price_of;
use crate::process;
use crate::waiting::until_signalled;

/// The replays of this process, for `forget_replays`.
static REPLAYS: Mutex<Vec<Weak<CoreReplay>>> = Mutex::new(Vec::new());

/// Lets go of every replay, without a word to the blocks: to be called in a forked child, as `forget_writers`.
#[pyfunction]
pub(crate) fn forget_replays() {
    if let Ok(mut replays) = REPLAYS.try_lock() {
        replays.drain(..).filter_map(|replay| replay.upgrade()).for_each(|replay| replay.forget());
    }
}

/// What `more` raised.
type Raised = Arc<Mutex<Option<PyErr>>>;

/// Publishes given rows in order of time, in lockstep with those who read.
///
/// `symbols` are all that will ever be listed. `derived` are names, intervals and LENGTHs of further blocks, as
/// `Writer.open` takes them. Candles that close after `start_ms` and until `end_ms` are shown, each when it closes;
/// with `inside` they are shown before: "steps" in four steps, "1s" as candles of 1s make them.
///
/// With a `speed` the replayed clock runs so many times as fast as the real one, from the first wait or `run` on.
/// Without it time moves when everybody who ever waited waits again, once `consumers` have.
///
/// `more` is called with the open time from which rows are needed, epoch ms. It gives rows of all symbols, and returns
/// the open time up to which all were given. What it raises ends the replay, and comes out of `step` and `run`.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct Replay {
    replay: Arc<CoreReplay>,
    raised: Raised,
}

#[pymethods]
impl Replay {
    #[new]
    #[pyo3(signature = (name, *, market, interval, length, symbols, start_ms, end_ms, more, price="trade", derived=None, exchange="", inside=None, speed=None, consumers=1))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn py_new(
        name: &str,
        market: &str,
        interval: &str,
        length: usize,
        symbols: Vec<String>,
        start_ms: i64,
        end_ms: i64,
        more: Py<PyAny>,
        price: &str,
        derived: Option<Vec<(String, String, usize)>>,
        exchange: &str,
        inside: Option<&str>,
        speed: Option<f64>,
        consumers: usize,
    ) -> PyResult<Self> {
        let market = Market::parse(market)
            .ok_or_else(|| ConfigError::new_err(format!("market is not SPOT, UM or CM: `{market}`")))?;
        let interval = Interval::parse(interval)
            .ok_or_else(|| ConfigError::new_err(format!("interval is not one of the exchange's: `{interval}`")))?;
        let inside = match inside {
            None => None,
            Some("steps") => Some(Inside::Steps),
            Some("1s") => Some(Inside::Seconds),
            Some(other) => {
                return Err(ConfigError::new_err(format!("inside must be 'steps', '1s' or None: `{other}`")));
            }
        };
        let derived = derived.unwrap_or_default();
        let derived = derived.into_iter().map(|(name, target, length)| Ok((name, grid(&target)?, length)));
        let plan = Plan {
            config: Config {
                market,
                price: price_of(price)?,
                interval,
                length,
                symbols,
                spare_symbols: 0,
                exchange: exchange.to_owned(),
            },
            derived: derived.collect::<PyResult<_>>()?,
            start_ms,
            end_ms,
            inside,
            speed,
            consumers,
        };
        let raised = Raised::default();
        let replay = CoreReplay::new(name, plan, calling(more, raised.clone())).map_err(|error| to_py(error, name))?;
        let replay = Arc::new(replay);
        let mut replays = REPLAYS.lock().unwrap_or_else(PoisonError::into_inner);
        replays.retain(|replay| replay.strong_count() > 0);
        replays.push(Arc::downgrade(&replay));
        Ok(Self { replay, raised })
    }

    /// The name of the block.
    #[getter]
    fn name(&self) -> &str {
        self.replay.name()
    }

    /// Give base candles of a symbol that are to come, ascending: float64 (n, 12), and uint8 (n,) of `ROW_STATES`.
    ///
    /// May be called many times; candles at or before the newest one that was given are left out. Closed and verified
    /// rows are shown, holes become known with the next row; what is left out or in another state is missing. A row of
    /// NaN lies behind the row before it. A symbol that the replay does not have is passed over.
    ///
    /// Raises ConfigError for other shapes.
    #[expect(clippy::needless_pass_by_value, reason = "Python arguments")]
    fn give(
        &self,
        py: Python<'_>,
        symbol: &str,
        rows: PyReadonlyArray2<'_, f64>,
        states: PyReadonlyArray1<'_, u8>,
    ) -> PyResult<()> {
        let (count, states) = (rows.as_array().nrows(), states.as_array());
        if states.len() != count {
            return Err(ConfigError::new_err(format!("states must be uint8 of as many rows: `{}`", states.len())));
        }
        let state_of = |number: u8| {
            let known = [RowState::Closed, RowState::Verified, RowState::Hole];
            known.into_iter().find(|state| *state as u8 == number).unwrap_or(RowState::Missing)
        };
        let rows: Vec<(Row, RowState)> =
            rows_of(&rows)?.zip(states.iter()).map(|(row, &state)| (row, state_of(state))).collect();
        py.detach(|| self.replay.give(symbol, rows));
        Ok(())
    }

    /// Give candles of 1s of a symbol that are to come, ascending: float64 (n, 12). Raises ConfigError.
    #[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
    fn give_inside(&self, py: Python<'_>, symbol: &str, rows: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        let rows: Vec<Row> = rows_of(&rows)?.collect();
        py.detach(|| self.replay.give_inside(symbol, rows));
        Ok(())
    }

    /// Say when the first candle of a symbol opens, and when its last one ends, epoch ms; None where that is not
    /// known, or not within the replay. To be called before `begin`.
    ///
    /// A symbol that is listed after the start joins the block then. One that ended is awaited no longer.
    #[pyo3(signature = (symbol, listed_ms, ended_ms))]
    fn set_life(&self, py: Python<'_>, symbol: &str, listed_ms: Option<i64>, ended_ms: Option<i64>) {
        py.detach(|| self.replay.set_life(symbol, listed_ms, ended_ms));
    }

    /// Take the name, and publish the newest `warm_rows` candles of before the start: now readers can attach.
    ///
    /// Calls `more` with the open time of the oldest of them.
    ///
    /// Raises BlockInUse (a live process owns the name), ConfigError (also when a collector left the block of that
    /// name), OSError, and what `more` raises.
    fn begin(&self, py: Python<'_>, warm_rows: usize) -> PyResult<()> {
        let begun = py.detach(|| self.replay.begin(warm_rows, process::owner()));
        self.outcome(begun)
    }

    /// The replayed time, epoch ms.
    #[getter]
    fn now_ms(&self) -> i64 {
        self.replay.now_ms()
    }

    /// How many readers take part, and how many of them are at work: time waits for these.
    #[getter]
    fn readers(&self) -> (usize, usize) {
        self.replay.readers()
    }

    /// Why time stands still although somebody waits for it, as text; None while it moves on, or nobody waits.
    #[getter]
    fn held_up(&self) -> Option<String> {
        self.replay.held_up().map(|held_up| held_up.to_string())
    }

    /// Publish the next moment without awaiting anybody; return False, and do nothing, at the end.
    ///
    /// Raises what `more` raises.
    fn step(&self, py: Python<'_>) -> PyResult<bool> {
        let stepped = py.detach(|| self.replay.step());
        self.outcome(stepped)
    }

    /// Go on to the end, with whoever waits. Nobody is awaited before the first moment.
    ///
    /// Raises what `more` raises, and what signal handlers raise.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let ran = until_signalled(py, self.replay.name(), |goes_on| self.replay.run(goes_on));
        match self.take_raised() {
            Some(raised) => Err(raised),
            None => ran,
        }
    }

    /// End the run and remove the names. What readers have mapped stays readable; their waits raise `ReplayEnded`.
    ///
    /// May be called twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.replay.close()).map_err(|error| to_py(error, self.replay.name()))
    }
}

impl Replay {
    fn take_raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn outcome<T>(&self, outcome: Result<T, candleshm::error::Error>) -> PyResult<T> {
        match self.take_raised() {
            Some(raised) => Err(raised),
            None => outcome.map_err(|error| to_py(error, self.replay.name())),
        }
    }
}

/// Returns what calls Python's `more` from a thread without the GIL, and keeps what it raises.
fn calling(more: Py<PyAny>, raised: Raised) -> More {
    Box::new(move |from_ms| {
        Python::attach(|py| more.call1(py, (from_ms,)).and_then(|given_ms| given_ms.extract(py)))
            .map_err(|error| *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error))
            .ok()
    })
}

/// Returns the rows of an array. Raises ConfigError for another shape.
fn rows_of<'a>(array: &'a PyReadonlyArray2<'_, f64>) -> PyResult<Box<dyn Iterator<Item = Row> + 'a>> {
    let rows = array.as_array();
    if rows.ncols() != COLUMNS {
        return Err(ConfigError::new_err(format!(
            "rows must be float64 of shape (n, {COLUMNS}): `{:?}`",
            rows.shape()
        )));
    }
    // Rows of files lie one behind the other.
    Ok(match array.as_slice() {
        Ok(values) if rows.is_standard_layout() => Box::new(values.as_chunks::<COLUMNS>().0.iter().copied()),
        _ => Box::new((0..rows.nrows()).map(move |row| std::array::from_fn(|column| rows[[row, column]]))),
    })
}
