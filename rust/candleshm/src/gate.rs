//! `Gate`: a mutex for two kinds of threads, where the many cannot keep the few waiting.
//!
//! A plain mutex is not fair. Eight workers that each merge a page, one after the other, can keep a stream's frame out for
//! tens of milliseconds: who leaves takes the lock again before the one that was woken is there. Here a worker first
//! takes its turn among the workers, so that at most one of them stands at the door, and the door is held by whoever is
//! next. A frame waits for the merge that is under way, and for no other.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What only one thread at a time may use.
pub struct Gate<T> {
    /// Held by the one patient thread whose turn it is, until it has left.
    turn: Mutex<()>,
    /// Held by the thread that enters next, until it has entered.
    door: Mutex<()>,
    inside: Mutex<T>,
}

impl<T> Gate<T> {
    /// Puts a value behind a gate.
    pub fn new(value: T) -> Self {
        Self { turn: Mutex::new(()), door: Mutex::new(()), inside: Mutex::new(value) }
    }

    /// Enters as soon as the thread that is inside has left.
    pub fn enter(&self) -> MutexGuard<'_, T> {
        let _door = lock(&self.door);
        lock(&self.inside)
    }

    /// Enters after the patient threads that came before, and lets all others go first.
    pub fn enter_patiently(&self) -> Patient<'_, T> {
        let turn = lock(&self.turn);
        Patient { inside: self.enter(), _turn: turn }
    }

    /// Enters if nobody is inside.
    pub fn try_enter(&self) -> Option<MutexGuard<'_, T>> {
        match self.inside.try_lock() {
            Ok(inside) => Some(inside),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// How a patient thread ends: it leaves, and then gives up its turn.
pub struct Patient<'a, T> {
    // Fields are dropped in this order.
    inside: MutexGuard<'a, T>,
    _turn: MutexGuard<'a, ()>,
}

impl<T> Deref for Patient<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inside
    }
}

impl<T> DerefMut for Patient<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inside
    }
}

/// A thread that panicked left the gate, too: the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::TryLockError;
    use std::thread;

    use super::Gate;

    #[test]
    fn who_comes_later_enters_before_the_patient_that_wait() {
        let gate = Gate::new(Vec::new());
        thread::scope(|scope| {
            let mut first = gate.enter_patiently();
            first.push("first");
            for _ in 0..3 {
                scope.spawn(|| gate.enter_patiently().push("patient"));
            }
            scope.spawn(|| gate.enter().push("next"));
            while !matches!(gate.door.try_lock(), Err(TryLockError::WouldBlock)) {
                thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(*gate.enter(), ["first", "next", "patient", "patient", "patient"]);
    }

    #[test]
    fn a_thread_that_panics_inside_leaves_the_gate_free() {
        let gate = Gate::new(0);
        for patient in [true, false] {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _inside = patient.then(|| gate.enter_patiently());
                let _next = (!patient).then(|| gate.enter());
                panic!("inside");
            }));
            assert!(panicked.is_err());
            *gate.enter() += 1;
            *gate.enter_patiently() += 1;
            assert!(gate.try_enter().is_some());
        }
        assert_eq!(*gate.enter(), 4);
    }

    #[test]
    fn only_one_is_inside() {
        let gate = Gate::new(());
        let patient = gate.enter_patiently();
        assert!(gate.try_enter().is_none());
        drop(patient);
        let inside = gate.enter();
        assert!(gate.try_enter().is_none());
        drop(inside);
        assert!(gate.try_enter().is_some());
    }
}
