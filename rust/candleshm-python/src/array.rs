//! NumPy arrays made by hand: new ones to fill, and read-only ones over a block's memory.
//!
//! Besides the core's `shared_memory.rs` the only file with `unsafe`: NumPy's C API is raw.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use candleshm::columns::COLUMNS;
use candleshm::sync::AtomicU64;
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API, npy_intp};
use numpy::{Element, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PySlice;

use crate::errors::exceptions::ConfigError;

/// Returns a new Fortran-ordered float64 array of shape (rows, 12), filled by `fill`, which is given all its values in
/// memory order, zero so far.
pub(crate) fn new_columns<'py>(
    py: Python<'py>,
    rows: usize,
    fill: impl FnOnce(&mut [f64]) -> PyResult<()>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    // Never uninitialised memory: no safe code may be lent that, though it were to store only.
    let array = PyArray2::<f64>::zeros(py, [rows, COLUMNS], true);
    // SAFETY: the array is contiguous, new, initialised, and known only here, so the exclusive borrow is one.
    fill(unsafe { array.as_slice_mut()? })?;
    Ok(array)
}

/// What memory that nobody set holds in debug builds: a NaN that no row has.
const UNSET: f64 = f64::from_bits(0x7FF8_C0DE_C0DE_C0DE);

/// As [`new_columns`] without the zeroes: `fill` is given memory that was never set, sets the first rows of every column
/// and returns how many. Only these are handed out.
pub(crate) fn new_unset_columns<'py>(
    py: Python<'py>,
    rows: usize,
    fill: impl FnOnce(&mut [MaybeUninit<f64>]) -> PyResult<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: nobody sees the array before it is returned; until then its values are lent as what they are: not set.
    let array = unsafe { PyArray2::<f64>::new(py, [rows, COLUMNS], true) };
    // SAFETY: the array is contiguous, aligned, of this many values, new, and known only here, so the exclusive borrow
    // is one; and a `MaybeUninit` may hold what was never set.
    let values = unsafe { std::slice::from_raw_parts_mut(array.data().cast::<MaybeUninit<f64>>(), rows * COLUMNS) };
    if cfg!(debug_assertions) {
        values.fill(MaybeUninit::new(UNSET));
    }
    let set = fill(values)?;
    debug_assert!(
        array.readonly().as_array().rows().into_iter().take(set).flatten().all(|x| x.to_bits() != UNSET.to_bits()),
        "not all of {set} rows are set"
    );
    if set == rows { Ok(array.into_any()) } else { first_rows(array.as_any(), set) }
}

/// Returns a new one-dimensional float64 array, filled by `fill`, which is given its values, zero so far.
pub(crate) fn new_values<'py>(
    py: Python<'py>,
    count: usize,
    fill: impl FnOnce(&mut [f64]) -> PyResult<()>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let array = PyArray1::<f64>::zeros(py, [count], false);
    // SAFETY: the array is contiguous, new, initialised, and known only here, so the exclusive borrow is one.
    fill(unsafe { array.as_slice_mut()? })?;
    Ok(array)
}

/// As [`new_values`], in `out` where it is given: a writable, contiguous float64 array of `count` values.
pub(crate) fn values_in<'py>(
    py: Python<'py>,
    count: usize,
    out: Option<Bound<'py, PyArray1<f64>>>,
    fill: impl FnOnce(&mut [f64]) -> PyResult<()>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let Some(out) = out else { return new_values(py, count, fill) };
    let wrong = || ConfigError::new_err(format!("out must be a writable, contiguous float64 array of {count} values"));
    {
        // NumPy's own bookkeeping refuses read-only arrays and those that are borrowed already.
        let mut borrowed = out.try_readwrite().map_err(|_| wrong())?;
        let values = borrowed.as_slice_mut().map_err(|_| wrong())?;
        if values.len() != count {
            return Err(wrong());
        }
        fill(values)?;
    }
    Ok(out)
}

/// Returns `array[:rows]`. The slice is made by Python: pyo3's `PySlice::new` never lets go of its integers.
pub(crate) fn first_rows<'py>(array: &Bound<'py, PyAny>, rows: usize) -> PyResult<Bound<'py, PyAny>> {
    array.get_item(array.py().get_type::<PySlice>().call1((rows,))?)
}

/// A read-only float64 array over words of a block: 1-D when `columns` is `None`, else (words, columns) with the given
/// distance in words from one column to the next. `owner` keeps the mapping alive as long as the array lives.
pub(crate) fn lend<'py>(
    owner: Bound<'py, PyAny>,
    words: &[AtomicU64],
    columns: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let mut shape = [words.len() as npy_intp, COLUMNS as npy_intp];
    let mut strides = [size_of::<f64>() as npy_intp, (columns.unwrap_or(0) * size_of::<f64>()) as npy_intp];
    let dimensions: c_int = if columns.is_some() { 2 } else { 1 };
    // SAFETY: shape and strides stay inside the mapping: `words` is one column's window, and the ring's geometry, which
    // was checked against the mapped size, puts the other columns `columns` words apart. Without NPY_ARRAY_WRITEABLE
    // NumPy does not store into it, and its base gives no writable buffer. NumPy's own loads may race with the writer's
    // stores: each value is one aligned machine word, and `valid()` tells whether the window stayed whole.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, NpyTypes::PyArray_Type),
            f64::get_dtype(py).into_dtype_ptr(),
            dimensions,
            shape.as_mut_ptr(),
            strides.as_mut_ptr(),
            words.as_ptr().cast_mut().cast(),
            0,
            ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        // Steals the reference to the owner, also when it fails.
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), owner.into_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array)
    }
}

/// Lends the memory of a writable, contiguous buffer of 8-byte elements as words.
pub(crate) fn words_of<T: pyo3::buffer::Element>(buffer: &PyBuffer<T>) -> &[AtomicU64] {
    assert!(!buffer.readonly() && buffer.is_c_contiguous() && buffer.item_size() == size_of::<AtomicU64>());
    // SAFETY: the buffer is contiguous and its elements, which `PyBuffer` checked to be aligned, are as large as words;
    // it keeps its memory for as long as it lives. Whatever else changes that memory, in this process or another, does
    // it by whole words.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.item_count()) }
}
