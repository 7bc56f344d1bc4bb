//! The one door to locks: the standard ones, and loom's under `cfg(loom)`.

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Duration;

/// Locks; a thread that panicked leaves nothing half done here, so the others go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps until notified or, where there is time, for so long.
#[cfg(not(loom))]
pub(crate) fn sleep<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, duration: Duration) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, duration).unwrap_or_else(PoisonError::into_inner).0
}

/// Sleeps until notified: loom has no time, so a wake-up that is missing shows as a deadlock.
#[cfg(loom)]
pub(crate) fn sleep<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, _: Duration) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
