//! Closes: `Closed`, a candle that became final, and the symbols for which it is awaited.

use std::sync::Arc;

use candleshm::block::Block;
use candleshm::interval::Grid;
use candleshm::read::SeriesReader;
use candleshm::zone::utc_text;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::attached::Attached;
use crate::derive::note_ended;
use crate::errors::exceptions::{ConfigError, WaitTimeout};

/// A candle that closed. Equal closes compare equal, also after pickling.
///
/// >>> closed = feed.wait_closed()  # doctest: +SKIP
/// >>> closed.open_time_ms, closed.symbols, closed.missing  # doctest: +SKIP
/// (1700000040000, ('BTCUSDT', 'ETHUSDT'), ())
#[pyclass(frozen, get_all, module = "candleshm")]
pub(crate) struct Closed {
    /// Open time of the candle, epoch ms.
    open_time_ms: i64,
    /// The awaited symbols that have it final: closed, verified or a hole.
    symbols: Py<PyTuple>,
    /// The awaited symbols that do not have it final; empty with a quorum of 1.0.
    missing: Py<PyTuple>,
}

#[pymethods]
impl Closed {
    #[new]
    fn py_new(open_time_ms: i64, symbols: Py<PyTuple>, missing: Py<PyTuple>) -> Self {
        Self { open_time_ms, symbols, missing }
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        Ok(self.open_time_ms == other.open_time_ms
            && self.symbols.bind(py).eq(&other.symbols)?
            && self.missing.bind(py).eq(&other.missing)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.open_time_ms, &self.symbols, &self.missing).into_pyobject(py)?.hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (i64, Py<PyTuple>, Py<PyTuple>)) {
        let (py, this) = (slf.py(), slf.get());
        (slf.get_type(), (this.open_time_ms, this.symbols.clone_ref(py), this.missing.clone_ref(py)))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let missing = match self.missing.bind(py).len() {
            0 => String::new(),
            count => format!(", {count} missing"),
        };
        format!("<Closed {}: {} symbols{missing}>", utc_text(self.open_time_ms), self.symbols.bind(py).len())
    }
}

/// The series whose closes are awaited, and how many of them are enough.
pub(crate) struct Awaited {
    attached: Arc<Attached>,
    indices: Vec<usize>,
    grid: Grid,
    needed: usize,
}

impl Awaited {
    pub(crate) fn new(attached: Arc<Attached>, indices: Vec<usize>, quorum: f64) -> PyResult<Self> {
        check_quorum(quorum)?;
        let grid = common_grid(&attached.block, &indices)?;
        let needed = ((quorum * indices.len() as f64).ceil() as usize).max(1);
        Ok(Self { attached, indices, grid, needed })
    }

    pub(crate) fn grid(&self) -> Grid {
        self.grid
    }

    /// Returns the open time after the newest one that enough of the series have final.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        let end_ms = |&index: &usize| {
            let candle_index = SeriesReader::new(&self.attached.block, index).newest_settled()?;
            Some(self.attached.block.grid(index).end_ms(candle_index as i64))
        };
        let mut newest: Vec<i64> = self.indices.iter().filter_map(end_ms).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.get(self.needed - 1).copied()
    }

    /// Returns how many candles from that index on enough of the series have final.
    pub(crate) fn closed_since(&self, candle_index: i64) -> i64 {
        self.next_ms().map_or(0, |next_ms| (self.grid.index_of(next_ms) - candle_index).max(0))
    }

    /// Returns the close of the candle, if enough of the series have it final.
    pub(crate) fn closed(&self, py: Python<'_>, open_ms: Option<i64>) -> PyResult<Option<Closed>> {
        let Some(open_ms) = open_ms else { return Ok(None) };
        let (closed, missing) = self.parts(Some(open_ms));
        if closed.len() < self.needed {
            return Ok(None);
        }
        note_ended(self.grid.end_ms(self.grid.index_of(open_ms)));
        Ok(Some(Closed {
            open_time_ms: self.grid.floor_ms(open_ms),
            symbols: PyTuple::new(py, self.names(&closed))?.unbind(),
            missing: PyTuple::new(py, self.names(&missing))?.unbind(),
        }))
    }

    /// Returns `WaitTimeout` with the symbols that do not have the candle final.
    pub(crate) fn timed_out(&self, py: Python<'_>, open_ms: Option<i64>, waited: f64) -> PyErr {
        let (closed, missing) = self.parts(open_ms);
        let candle = open_ms.map_or_else(|| "next candle".into(), |ms| format!("candle of {}", utc_text(ms)));
        let text = format!(
            "no close within {waited} s: {} of {} symbols have the {candle} final",
            closed.len(),
            self.indices.len()
        );
        match PyTuple::new(py, self.names(&missing)) {
            Ok(missing) => WaitTimeout::new_err((text, missing.unbind())),
            Err(error) => error,
        }
    }

    /// Splits the series into those that have the candle final, and the others.
    fn parts(&self, open_ms: Option<i64>) -> (Vec<usize>, Vec<usize>) {
        let block = &self.attached.block;
        self.indices.iter().partition(|&&index| {
            open_ms.is_some_and(|open_ms| {
                SeriesReader::new(block, index).is_settled(block.grid(index).index_of(open_ms).max(0) as u64)
            })
        })
    }

    fn names(&self, indices: &[usize]) -> Vec<String> {
        indices.iter().map(|&index| self.attached.block.symbol(index)).collect()
    }
}

/// The one grid of all these series. Only 3d candles lie on different ones.
pub(crate) fn common_grid(block: &Block, indices: &[usize]) -> PyResult<Grid> {
    let grid = block.grid(indices.first().copied().unwrap_or(0));
    match indices.iter().find(|&&index| block.grid(index) != grid) {
        None => Ok(grid),
        Some(&other) => Err(ConfigError::new_err(format!(
            "the {} candles of {} and {} open on different days; request symbols whose candles open together",
            grid.interval().as_str(),
            block.symbol(indices[0]),
            block.symbol(other)
        ))),
    }
}

fn check_quorum(quorum: f64) -> PyResult<()> {
    if quorum > 0.0 && quorum <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new_err(format!("quorum must be above 0 and at most 1: `{quorum}`")))
}
