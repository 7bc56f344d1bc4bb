//! The core's errors as the exceptions of `candleshm.errors`.

use candleshm::error::{Error, ErrorKind};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The exception classes, defined in Python.
pub(crate) mod exceptions {
    use pyo3::import_exception;

    import_exception!(candleshm.errors, BadResponse);
    import_exception!(candleshm.errors, ConfigError);
    import_exception!(candleshm.errors, GapError);
    import_exception!(candleshm.errors, OverwrittenView);
    import_exception!(candleshm.errors, BlockCorrupt);
    import_exception!(candleshm.errors, BlockInUse);
    import_exception!(candleshm.errors, BlockIncompatible);
    import_exception!(candleshm.errors, BlockNotFound);
    import_exception!(candleshm.errors, BlockOfAnotherUser);
    import_exception!(candleshm.errors, BlockUnavailable);
    import_exception!(candleshm.errors, ReplayEnded);
    import_exception!(candleshm.errors, StaleData);
    import_exception!(candleshm.errors, UnknownSymbol);
    import_exception!(candleshm.errors, WaitTimeout);
}

use exceptions::{
    BadResponse, BlockCorrupt, BlockInUse, BlockIncompatible, BlockNotFound, BlockOfAnotherUser, BlockUnavailable,
    ConfigError, GapError, OverwrittenView, ReplayEnded, StaleData, UnknownSymbol, WaitTimeout,
};

create_exception!(
    candleshm._core,
    NotMerged,
    PyException,
    "Merging was stopped, or the exchange's time was restarted after the request had left: nothing was merged."
);

/// Returns the exception for an error that came up around the block `name`.
pub(crate) fn to_py(error: Error, name: &str) -> PyErr {
    let (kind, text) = (error.kind(), error.to_string());
    if let Some((name, reason)) = error.of_block() {
        match (kind, &error) {
            (ErrorKind::NotFound, _) => return BlockNotFound::new_err((name.to_owned(), reason)),
            (ErrorKind::Corrupt, _) => return BlockCorrupt::new_err((name.to_owned(), reason)),
            (_, Error::NoMemory { .. }) => {
                let errno = rustix::io::Errno::NOSPC.raw_os_error();
                return BlockUnavailable::new_err((name.to_owned(), reason, errno));
            }
            _ => {}
        }
    }
    match error {
        Error::Incompatible { name, found, expected } => BlockIncompatible::new_err((name, found, expected)),
        Error::Owner { name, uid, gid, mode } => BlockOfAnotherUser::new_err((name, uid, gid, mode)),
        Error::Os { name, errno, .. } => BlockUnavailable::new_err((name, text, errno)),
        Error::InUse { name, pid } => BlockInUse::new_err((name, pid)),
        Error::UnknownSymbol { symbol, name } => UnknownSymbol::new_err((symbol, name)),
        Error::Stale { symbol, age_ms, limit_ms, delisted } => {
            StaleData::new_err((symbol, seconds(age_ms), limit_ms as f64 / 1e3, delisted))
        }
        Error::ReplayEnded { name, start_ms, end_ms, now_ms } => ReplayEnded::new_err((name, start_ms, end_ms, now_ms)),
        Error::NothingPublished { .. } => timed_out(text, Vec::new()),
        Error::NothingOpened { symbol, .. } => WaitTimeout::new_err((text, (symbol,))),
        Error::NothingClosed { missing, .. } => timed_out(text, missing),
        Error::Gap { symbol, start_ms, end_ms, is_hole } => {
            GapError::new_err((symbol, start_ms, end_ms, if is_hole { "hole" } else { "missing" }))
        }
        Error::Overwritten { symbol } => OverwrittenView::new_err(symbol),
        Error::Parse(error) => bad_response(text, error.offset),
        Error::Csv(error) => bad_response(text, error.offset),
        Error::Contended => BlockCorrupt::new_err((name.to_owned(), text)),
        _ => ConfigError::new_err(text),
    }
}

/// Returns an age in seconds, infinite for one that is not known.
pub(crate) fn seconds(age_ms: Option<u64>) -> f64 {
    age_ms.map_or(f64::INFINITY, |age_ms| age_ms as f64 / 1e3)
}

/// Returns `WaitTimeout` with the symbols as a tuple.
fn timed_out(text: String, missing: Vec<String>) -> PyErr {
    Python::attach(|py| match PyTuple::new(py, missing) {
        Ok(missing) => WaitTimeout::new_err((text, missing.unbind())),
        Err(failed) => failed,
    })
}

fn bad_response(text: String, offset: usize) -> PyErr {
    let raised = BadResponse::new_err(text);
    // An attribute of the Python class, whose constructor takes it by keyword only.
    match Python::attach(|py| raised.value(py).setattr("offset", offset)) {
        Ok(()) => raised,
        Err(failed) => failed,
    }
}
