//! How a reader waits: until when, and asleep on which word of the header.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candleshm::layout::header;
use candleshm::shared_memory;
use pyo3::prelude::*;

use crate::arguments::{Number, check_timeout};
use crate::attached::Attached;
use crate::following::FOLLOW_MS;

/// Longest sleep in one go: signals and a replaced block are noticed after this long at the latest.
const SLICE: Duration = Duration::from_secs(1);

/// The time left of a wait.
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Option<f64>) -> PyResult<Self> {
        check_timeout(timeout.map(Number))?;
        match timeout {
            None => Ok(Self(None)),
            Some(seconds) => {
                Ok(Self(Duration::try_from_secs_f64(seconds).ok().and_then(|d| Instant::now().checked_add(d))))
            }
        }
    }

    /// Returns how long to sleep in one go, `None` when the time is over.
    pub(crate) fn slice(&self) -> Option<Duration> {
        match self.0 {
            None => Some(SLICE),
            Some(end) => {
                end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).map(|left| left.min(SLICE))
            }
        }
    }
}

/// What a block had announced when a waiter took this.
///
/// A waiter takes it first, looks for what it waits for, and sleeps only then: whatever is published in between ends
/// the sleep at once.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct News {
    attached: Arc<Attached>,
    /// Word of the header.
    offset: usize,
    seen: u32,
}

impl News {
    /// Takes what is announced of closes.
    pub(crate) fn of_closes(attached: Arc<Attached>) -> Self {
        Self::of(attached, header::CLOSE_SEQ)
    }

    /// Takes what is announced of rows of every kind.
    pub(crate) fn of_rows(attached: Arc<Attached>) -> Self {
        Self::of(attached, header::COMMIT_SEQ)
    }

    fn of(attached: Arc<Attached>, offset: usize) -> Self {
        let seen = attached.block.announced(offset) as u32;
        Self { attached, offset, seen }
    }

    pub(crate) fn attached(&self) -> &Arc<Attached> {
        &self.attached
    }

    /// Sleeps until there is something newer, for `slice` at the longest; the GIL is released, signal handlers run.
    pub(crate) fn sleep_for(&self, py: Python<'_>, slice: Duration) -> PyResult<()> {
        // Nobody is woken by a block that is done when another one is there.
        let slice = if self.attached.is_current() { slice } else { slice.min(Duration::from_millis(FOLLOW_MS)) };
        py.detach(|| shared_memory::futex_wait(self.attached.block.header(self.offset), self.seen, slice));
        py.check_signals()
    }
}

#[pymethods]
impl News {
    /// Sleep until the block announces something newer, one second at the longest.
    ///
    /// The caller looks again afterwards in any case: another block may have the name by now, or the collector may
    /// have died, and neither wakes anybody.
    fn sleep(&self, py: Python<'_>) -> PyResult<()> {
        self.sleep_for(py, SLICE)
    }
}
