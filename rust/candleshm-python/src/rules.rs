//! What Python takes from the core instead of keeping a copy: markets, intervals and their grids, what can be a name;
//! and the states of rows, which Python spells out for its readers and a test compares.

use candleshm::feed::{Freshness, SILENT_MS, STALE_MS};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::RowState;
use candleshm::market::Market;
use candleshm::{merge, shared_memory, symbols};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::derive::grid;
use crate::errors::exceptions::ConfigError;
use crate::errors::seconds;

/// Adds the constants.
pub(crate) fn add_constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("MARKETS", PyTuple::new(py, Market::ALL.map(Market::as_str))?)?;
    let lengths = PyDict::new(py);
    for interval in Interval::ALL {
        lengths.set_item(interval.as_str(), interval.shortest_ms())?;
    }
    module.add("INTERVAL_MS", lengths)?;
    let states = PyDict::new(py);
    for state in [
        RowState::Empty,
        RowState::Live,
        RowState::Closed,
        RowState::Verified,
        RowState::Hole,
        RowState::Missing,
        RowState::MissingFinal,
    ] {
        if let Some(name) = state_name(state) {
            states.set_item(name, state as u8)?;
        }
    }
    module.add("ROW_STATES", states)?;
    module.add("STALE_MS", STALE_MS)?;
    module.add("SILENT_MS", SILENT_MS)?;
    module.add("ZONES_VERSION", crate::zone::ZONES_VERSION)
}

/// Returns the name of a state that readers see.
fn state_name(state: RowState) -> Option<&'static str> {
    match state {
        RowState::Empty => Some("EMPTY"),
        RowState::Live => Some("LIVE"),
        RowState::Closed => Some("CLOSED"),
        RowState::Verified => Some("VERIFIED"),
        RowState::Hole => Some("HOLE"),
        RowState::Missing => Some("MISSING"),
        RowState::MissingFinal => None,
    }
}

/// Return how far apart two requests have to be sent whose responses both lack a row, before it counts as a hole.
///
/// `settle_ms` is the settle time; all are milliseconds.
#[pyfunction]
pub(crate) fn hole_apart_ms(settle_ms: i64) -> i64 {
    merge::hole_apart_ms(settle_ms)
}

/// Return where the candle ends (half-open) that opened at `open_ms`, also when it opened off the grid.
///
/// `interval` is one of the exchange's, or the days of a zone as 1d@Asia/Shanghai. For 3d the end follows from the open
/// time itself: each symbol has a grid of its own. Raises ConfigError.
#[pyfunction]
pub(crate) fn candle_end_ms(interval: &str, open_ms: i64) -> PyResult<i64> {
    let grid = match grid(interval)? {
        // Each symbol has its own days; here the candle itself shows them.
        grid if grid.interval() == Interval::Day3 => Grid::anchored(Interval::Day3, open_ms),
        grid => grid,
    };
    Ok(grid.end_ms(grid.index_of(open_ms)))
}

/// Return the open time of the first candle that opens at `start_ms` or later, and how many candles open from there
/// until before `end_ms`.
///
/// `interval` is one of the exchange's except 3d, or the days of a zone as 1d@Asia/Shanghai. Raises ConfigError.
#[pyfunction]
pub(crate) fn candles_within(interval: &str, start_ms: i64, end_ms: i64) -> PyResult<(i64, i64)> {
    let grid = grid(interval)?;
    if grid.interval() == Interval::Day3 {
        return Err(ConfigError::new_err("interval cannot be `3d`: each symbol has a grid of its own"));
    }
    let first_from = |ms: i64| grid.index_of(ms) + i64::from(grid.floor_ms(ms) < ms);
    let first = first_from(start_ms);
    Ok((grid.open_ms(first), (first_from(end_ms) - first).max(0)))
}

/// Return whether `name` can be a symbol's: 1 to 64 bytes of UTF-8, nothing that cannot be seen, no slash.
#[pyfunction]
pub(crate) fn is_symbol_name(name: &Bound<'_, PyAny>) -> bool {
    text(name).is_some_and(symbols::is_name)
}

/// Return whether `name` can name a block: no slash, no leading dot, nothing that a shell or a log would split.
#[pyfunction]
pub(crate) fn is_block_name(name: &Bound<'_, PyAny>) -> bool {
    text(name).is_some_and(|name| shared_memory::check_name(name).is_ok())
}

/// Returns the text, `None` for what is none: no str, or one with halves of surrogate pairs.
fn text<'a>(value: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    value.cast::<PyString>().ok()?.to_str().ok()
}

/// Return the fields of `candleshm.reader.freshness.Freshness` from ages in seconds.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "a Python argument")]
#[pyo3(signature = (ages, max_age))]
pub(crate) fn freshness(ages: Vec<f64>, max_age: Option<f64>) -> (usize, f64, bool) {
    let ms = |seconds: f64| seconds.is_finite().then_some((seconds * 1e3).round() as u64);
    let ages_ms: Vec<Option<u64>> = ages.iter().map(|&age| ms(age)).collect();
    let Freshness { stale, oldest_age_ms, is_current } = Freshness::of(&ages_ms, max_age.and_then(ms));
    (stale, seconds(oldest_age_ms), is_current)
}
