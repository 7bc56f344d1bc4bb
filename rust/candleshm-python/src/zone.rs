//! `Zone`: the days of a time zone, by the only rules there are here.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "PyO3 lends what it calls methods of")]

use candleshm::zone::{VERSION, Zone};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::exceptions::ConfigError;

/// The release of the time zone database, such as 2026b.
pub(crate) const ZONES_VERSION: &str = VERSION;

/// The days of a time zone; `name` is an IANA name in any case. Days are counted from 1970-01-01.
///
/// The rules are those of `ZONES_VERSION`, for files and blocks alike; what the machine has installed does not count.
/// Raises ConfigError for a name that the database does not have.
#[pyclass(name = "Zone", frozen, eq, hash, module = "candleshm._core")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PyZone(Zone);

#[pymethods]
impl PyZone {
    #[new]
    fn new(name: &Bound<'_, PyAny>) -> PyResult<Self> {
        // A text with halves of surrogate pairs cannot be lent, and is no name either.
        let found = name.cast::<PyString>().ok().and_then(|text| Zone::find(text.to_str().ok()?));
        found.map(Self).ok_or_else(|| {
            ConfigError::new_err(format!("timezone cannot be `{name}`; allowed: an IANA name such as Asia/Shanghai"))
        })
    }

    /// As the database spells it.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Return the number of the day that an instant lies in.
    fn day_of(&self, epoch_ms: i64) -> i64 {
        self.0.day_of(epoch_ms)
    }

    /// Return the first instant at which the clock has reached a time of a day, or has jumped over it.
    #[pyo3(signature = (day, time_of_day_ms=0))]
    fn reached_ms(&self, day: i64, time_of_day_ms: i64) -> i64 {
        self.0.reached_ms(day, time_of_day_ms)
    }

    /// Return when the clocks show a time of day on a day, for the first time, in epoch milliseconds.
    ///
    /// A time that they jump over counts as reached when they would have shown it without the jump.
    fn at_ms(&self, day: i64, time_of_day_ms: i64) -> i64 {
        self.0.at_ms(day, time_of_day_ms)
    }

    /// Return how far the clock is ahead of UTC at an instant.
    fn offset_ms(&self, epoch_ms: i64) -> i64 {
        self.0.offset_ms(epoch_ms)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (&'static str,)) {
        (slf.get_type().into_any(), (slf.get().name(),))
    }

    fn __repr__(&self) -> String {
        format!("Zone('{}')", self.name())
    }
}

/// Return the names of all time zones, sorted.
#[pyfunction]
pub(crate) fn zone_names() -> Vec<&'static str> {
    let mut names: Vec<_> = Zone::names().collect();
    names.sort_unstable();
    names
}
