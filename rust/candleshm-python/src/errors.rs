//! The core's errors as the exceptions of `candleshm.errors`.

use candleshm::error::{Corruption, Error};
use candleshm::layout::{ABI_MAJOR, ABI_MINOR, LAYOUT_HASH};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

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
    import_exception!(candleshm.errors, StaleData);
    import_exception!(candleshm.errors, UnknownSymbol);
    import_exception!(candleshm.errors, WaitTimeout);
}

use exceptions::{
    BadResponse, BlockCorrupt, BlockInUse, BlockIncompatible, BlockNotFound, BlockOfAnotherUser, BlockUnavailable,
    ConfigError, UnknownSymbol,
};

create_exception!(
    candleshm._core,
    NotMerged,
    PyException,
    "Merging was stopped, or the exchange's time was restarted after the request had left: nothing was merged."
);

/// Returns the exception for an error that came up around the block `name`.
pub(crate) fn to_py(error: Error, name: &str) -> PyErr {
    let text = error.to_string();
    match error {
        Error::NotFound { name } => {
            BlockNotFound::new_err((name, "no block has that name; `candleshm ls` lists the blocks"))
        }
        Error::NotReady { name } => BlockNotFound::new_err((name, "it is still being initialised; try again")),
        Error::Leftover { name } => {
            BlockNotFound::new_err((name, "it is left over from before the last boot; start its collector again"))
        }
        Error::Owner { name, uid, gid, mode } => BlockOfAnotherUser::new_err((name, uid, gid, mode)),
        Error::InUse { name, pid } => BlockInUse::new_err((name, pid)),
        Error::Incompatible { name, major, minor, hash } => BlockIncompatible::new_err((
            name,
            format_name(major, minor, hash),
            format_name(ABI_MAJOR, ABI_MINOR, [LAYOUT_HASH[0], LAYOUT_HASH[1], LAYOUT_HASH[2], LAYOUT_HASH[3]]),
        )),
        Error::Corrupt { name, what: what @ Corruption::NotAFile } => BlockCorrupt::new_err((name, what.to_string())),
        Error::Corrupt { name, what: what @ Corruption::Foreign } => {
            BlockCorrupt::new_err((name.clone(), format!("{what}; if no program needs it, remove /dev/shm/{name}")))
        }
        Error::Corrupt { name, what } => {
            BlockCorrupt::new_err((name, format!("{what}; `candleshm rm` removes a block that no collector serves")))
        }
        Error::Name { .. }
        | Error::Length { .. }
        | Error::SymbolCapacity { .. }
        | Error::SymbolsFull { .. }
        | Error::SymbolName { .. }
        | Error::Derivation { .. }
        | Error::Window { .. }
        | Error::Unsorted { .. } => ConfigError::new_err(text),
        Error::UnknownSymbol { symbol } => UnknownSymbol::new_err((symbol, name.to_owned())),
        Error::Parse(error) => bad_response(text, error.offset),
        Error::Csv(error) => bad_response(text, error.offset),
        Error::Contended => BlockCorrupt::new_err((name.to_owned(), text)),
        Error::NoMemory { name, bytes } => BlockUnavailable::new_err((
            name,
            format!(
                "/dev/shm has no room for its {} MiB; enlarge it, or serve fewer symbols or a smaller length",
                bytes >> 20
            ),
            rustix::io::Errno::NOSPC.raw_os_error(),
        )),
        Error::Os { name, errno, .. } => BlockUnavailable::new_err((name, text, errno)),
    }
}

fn bad_response(text: String, offset: usize) -> PyErr {
    let raised = BadResponse::new_err(text);
    // An attribute of the Python class, whose constructor takes it by keyword only.
    match Python::attach(|py| raised.value(py).setattr("offset", offset)) {
        Ok(()) => raised,
        Err(failed) => failed,
    }
}

fn format_name(major: u32, minor: u32, hash: [u8; 4]) -> String {
    format!("{major}.{minor} ({:08x})", u32::from_be_bytes(hash))
}
