//! Waits with the GIL released that signals end, and what asyncio's thread sleeps on.

use std::time::Duration;

use candleshm::error::Error;
use candleshm::feed;
use candleshm::feed::timeout_of;
use pyo3::prelude::*;

use crate::arguments::Number;
use crate::errors::to_py;

/// Returns how long to wait: `None` for ever. Raises ConfigError.
pub(crate) fn timeout(seconds: Option<Number>) -> PyResult<Option<Duration>> {
    let Some(Number(seconds)) = seconds else { return Ok(None) };
    timeout_of(seconds).map_err(|error| to_py(error, ""))
}

/// Runs a wait on the block `name` with the GIL released. Between its sleeps signal handlers run; what they raise ends
/// the wait.
pub(crate) fn until_signalled<T: Send>(
    py: Python<'_>,
    name: &str,
    wait: impl FnOnce(&mut (dyn FnMut() -> bool + Send)) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let outcome = py.detach(|| {
        #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime")]
        wait(&mut || match Python::attach(|py| py.check_signals()) {
            Ok(()) => true,
            Err(error) => {
                raised = Some(error);
                false
            }
        })
    });
    match raised {
        Some(error) => Err(error),
        None => outcome.map_err(|error| to_py(error, name)),
    }
}

/// What a block had announced when a waiter took this.
///
/// A waiter takes it first, looks for what it waits for, and sleeps only then: whatever is published in between ends
/// the sleep at once.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct News(pub(crate) feed::News);

#[pymethods]
impl News {
    /// Sleep until the block announces something newer, one second at the longest.
    ///
    /// The caller looks again afterwards in any case: another block may have the name by now, or the collector may
    /// have died, and neither wakes anybody.
    ///
    /// In a replay it waits for a later moment. Raises ReplayEnded when this was taken at the end of a replay. A replay
    /// stands still from then on until this object is gone, or given to the next sleep as what was `slept` on before.
    #[pyo3(signature = (slept=None))]
    fn sleep(&self, py: Python<'_>, slept: Option<&Self>) -> PyResult<()> {
        py.detach(|| self.0.sleep(slept.map(|slept| &slept.0))).map_err(|error| to_py(error, ""))?;
        py.check_signals()
    }

    /// Whether a replay stands still while the caller is at work.
    #[getter]
    fn is_lockstep(&self) -> bool {
        self.0.is_lockstep()
    }
}
