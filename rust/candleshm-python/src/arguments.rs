//! Arguments that Python would convert silently although they mean something else here: True as 1, seconds as
//! milliseconds, a text as a list of its letters.

use std::ops::Deref;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::exceptions::ConfigError;
use crate::waiting;

/// Milliseconds from here to [`MILLISECONDS_MAX`] are the years 1973 to 5138; seconds of our days lie below.
const MILLISECONDS_MIN: f64 = 1e11;
/// Microseconds and nanoseconds of our days lie above.
const MILLISECONDS_MAX: f64 = 1e14;
/// Smaller values, such as 0, mean "from the beginning".
const SECONDS_MIN: f64 = 1e8;

fn refuse_bool(object: Borrowed<'_, '_, PyAny>, allowed: &str) -> PyResult<()> {
    // NumPy's count, too.
    if object.extract::<bool>().is_ok() {
        return Err(ConfigError::new_err(format!("`{}` is not a number; allowed: {allowed}", object.str()?)));
    }
    Ok(())
}

/// A number of rows, as the caller passed it.
#[derive(Clone, Copy)]
pub(crate) struct Count(pub(crate) i64);

impl FromPyObject<'_, '_> for Count {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        refuse_bool(object, "a positive integer")?;
        Ok(Self(object.extract()?))
    }
}

/// A number, not a truth value: seconds, or a share.
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) f64);

impl FromPyObject<'_, '_> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        refuse_bool(object, "a number such as 60.0")?;
        Ok(Self(object.extract()?))
    }
}

/// The symbols that a call is about.
pub(crate) struct Symbols(Vec<String>);

impl Deref for Symbols {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl FromPyObject<'_, '_> for Symbols {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return Err(ConfigError::new_err(format!(
                "symbols cannot be the text `{}`; allowed: a list such as ['BTCUSDT']",
                text.to_str()?
            )));
        }
        Ok(Self(object.extract()?))
    }
}

/// Raise ConfigError for a timeout that is no duration.
#[pyfunction]
#[pyo3(name = "check_timeout")]
pub(crate) fn py_check_timeout(timeout: Option<Number>) -> PyResult<()> {
    waiting::timeout(timeout).map(|_| ())
}

/// A moment: epoch milliseconds, or a datetime with a time zone.
#[derive(Clone, Copy)]
pub(crate) struct Moment(pub(crate) i64);

impl FromPyObject<'_, '_> for Moment {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        refuse_bool(object, "epoch milliseconds")?;
        let ms: i64 = if let Ok(ms) = object.extract() {
            ms
        } else {
            let moments = object.py().import("candleshm.reader.moments")?;
            moments.call_method1("moment_of", (object,))?.extract()?
        };
        check_moment(ms as f64)?;
        Ok(Self(ms))
    }
}

/// Raise ConfigError for a moment that is evidently in seconds, microseconds or nanoseconds.
#[pyfunction]
pub(crate) fn check_moment(moment_ms: f64) -> PyResult<()> {
    let unit = match moment_ms.abs() {
        size if size > SECONDS_MIN && size < MILLISECONDS_MIN => "seconds",
        size if size >= MILLISECONDS_MAX => "microseconds or nanoseconds",
        _ => return Ok(()),
    };
    Err(ConfigError::new_err(format!("times are epoch milliseconds; `{moment_ms:.0}` looks like {unit}")))
}

/// As [`check_moment`], for many at once.
pub(crate) fn check_moments(moments_ms: &[i64]) -> PyResult<()> {
    for &moment_ms in moments_ms {
        check_moment(moment_ms as f64)?;
    }
    Ok(())
}

/// The error for an argument that is no array of moments.
pub(crate) fn not_contiguous() -> PyErr {
    ConfigError::new_err("times must be a contiguous int64 array of epoch milliseconds")
}
