//! The blocks of this machine, by name.

use candleshm::interval::Interval;
use candleshm::layout::Geometry;
use candleshm::market::Market;
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

/// Return the size of a block in bytes. Raises ConfigError for sizes that no block can have.
#[pyfunction]
pub(crate) fn block_bytes(length: usize, symbol_capacity: usize) -> PyResult<usize> {
    // Neither the market nor the interval changes the size.
    Geometry::new(Market::Spot, Interval::Minute1, length, symbol_capacity)
        .map(Geometry::block_bytes)
        .map_err(|error| to_py(error, ""))
}

/// Share the blocks of this process with the group of that number, None for nobody.
///
/// Blocks made from here on have mode 0640 and that group; those of other users that have both are believed.
#[pyfunction]
pub(crate) fn share_with(group: Option<u32>) {
    shared_memory::share_with(group);
}

/// Remove a block that no collector serves.
#[pyfunction(name = "unlink")]
pub(crate) fn py_unlink(name: &str) -> PyResult<()> {
    removal::unlink(name).map_err(|error| to_py(error, name))
}
