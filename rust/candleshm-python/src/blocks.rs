//! The blocks of this machine, by name.

use candleshm::{removal, shared_memory};
use pyo3::prelude::*;

use crate::errors::to_py;

/// Return the names of all shared memory that may be blocks.
#[pyfunction(name = "block_names")]
pub(crate) fn py_block_names() -> PyResult<Vec<String>> {
    shared_memory::names().map_err(|error| to_py(error, ""))
}

/// Return whether a process owns the block that has this name now. Raises `BlockNotFound`, `BlockUnavailable`.
#[pyfunction(name = "is_owned")]
pub(crate) fn py_is_owned(name: &str) -> PyResult<bool> {
    shared_memory::is_owned(name).map_err(|error| to_py(error, name))
}

/// Remove a block that no collector serves.
#[pyfunction(name = "unlink")]
pub(crate) fn py_unlink(name: &str) -> PyResult<()> {
    removal::unlink(name).map_err(|error| to_py(error, name))
}
