//! `Outlet`: a socket that a loop of Python owns, written to past the loop as well.

use candleshm_stream::outlet::{Outlet as CoreOutlet, Sent};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::descriptor::taken_over;

/// Where a thread writes to the socket of an event loop without waiting for it. Any thread may call any method.
///
/// What each of the two writes comes out whole and in its order: the loop claims the socket before it writes, and
/// releases it once the system took everything.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct Outlet {
    pub(crate) core: CoreOutlet,
}

#[pymethods]
impl Outlet {
    /// Take over the descriptor of a connected TCP socket, such as `socket.dup().detach()` returns.
    ///
    /// Raises ValueError for what is no such descriptor, OSError for one that has to block.
    #[new]
    fn py_new(descriptor: i32) -> PyResult<Self> {
        let socket = taken_over(descriptor)?;
        socket.set_nonblocking(true)?;
        Ok(Self { core: CoreOutlet::new(socket) })
    }

    /// Send without waiting; return False where the loop has to, and nothing was sent.
    ///
    /// What the system took only in part, the loop has to write: see `has_rest`.
    fn send(&self, py: Python<'_>, data: &[u8]) -> bool {
        py.detach(|| self.core.send(data)) != Sent::Not
    }

    /// Whether the loop has to write the rest of something.
    #[getter]
    fn has_rest(&self) -> bool {
        self.core.has_rest()
    }

    /// Claim the socket for the loop, and return what it has to write first.
    fn claim<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let rest = py.detach(|| self.core.claim());
        PyBytes::new(py, &rest)
    }

    /// Give the socket free: the system took all that the loop had to write.
    fn release(&self) {
        self.core.release();
    }

    /// Send nothing more past the loop.
    fn close(&self) {
        self.core.close();
    }
}
