//! A socket that Python opened and gave away.

use std::net::TcpStream;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;

use pyo3::PyResult;
use pyo3::exceptions::PyValueError;

/// Takes over the file descriptor of a connected TCP socket.
///
/// # Errors
///
/// `ValueError` for what is no descriptor of a socket; nothing is closed then.
pub(crate) fn taken_over(descriptor: RawFd) -> PyResult<TcpStream> {
    let is_socket =
        std::fs::metadata(format!("/proc/self/fd/{descriptor}")).is_ok_and(|metadata| metadata.file_type().is_socket());
    if descriptor < 0 || !is_socket {
        return Err(PyValueError::new_err(format!("{descriptor} is not the descriptor of a socket")));
    }
    // SAFETY: the descriptor is open, as was just seen, and nobody else owns it: the caller has let go of it with
    // `socket.detach()`, as `StreamThread.open` demands.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(TcpStream::from(owned))
}
