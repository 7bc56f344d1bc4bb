//! The blocks of this machine, by name.

use candleshm::{removal, shared_memory};
use pyo3::prelude::*;

use crate::errors::to_py;

/// Names of all files that may be blocks.
#[pyfunction(name = "block_names")]
pub(crate) fn py_block_names() -> PyResult<Vec<String>> {
    shared_memory::names().map_err(|error| to_py(error, ""))
}

/// Whether a process owns the block.
#[pyfunction(name = "is_owned")]
pub(crate) fn py_is_owned(name: &str) -> PyResult<bool> {
    shared_memory::is_owned(name).map_err(|error| to_py(error, name))
}

/// Removes a block that no collector serves.
#[pyfunction(name = "unlink")]
pub(crate) fn py_unlink(name: &str) -> PyResult<()> {
    removal::unlink(name).map_err(|error| to_py(error, name))
}
