//! Seconds, as callers in other languages give them, as durations.

use std::time::Duration;

use crate::error::Error;

/// Returns the limit of age for data that is handed out, from seconds; what no `Duration` can hold is no limit at all.
///
/// # Errors
///
/// `Argument` unless it is above 0.
pub fn max_age_of(seconds: f64) -> Result<Duration, Error> {
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(Error::Argument(format!("max_age must be a positive number of seconds, or None: `{seconds}`")));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Returns how long to wait, from seconds; `None`, for ever, for more than a `Duration` can hold.
///
/// # Errors
///
/// `Argument` unless it is 0 or more.
pub fn timeout_of(seconds: f64) -> Result<Option<Duration>, Error> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(Error::Argument(format!("timeout must be a number of seconds, 0 or more: `{seconds}`")));
    }
    Ok(Duration::try_from_secs_f64(seconds).ok())
}
