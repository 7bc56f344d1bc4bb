//! The one door to atomics: the standard ones normally, loom's under `cfg(loom)`, and with the feature `steps`, which
//! no release has, standard ones whose stores can be counted and stopped at.

use core::mem::MaybeUninit;
#[cfg(not(any(loom, feature = "steps")))]
pub use core::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub use core::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};
#[cfg(all(feature = "steps", not(loom)))]
pub use steps::{AtomicU64, signal_before, stores};
#[cfg(loom)]
pub use stoppable::{AtomicU64, stopped_after};

/// What a copied word is stored into: a number, or memory that was never set and must not be lent as one. Nothing else
/// is.
pub trait Target: sealed::Sealed {
    /// Stores a value.
    fn put(&mut self, value: f64);
}

impl Target for f64 {
    #[inline]
    fn put(&mut self, value: f64) {
        *self = value;
    }
}

impl Target for MaybeUninit<f64> {
    #[inline]
    fn put(&mut self, value: f64) {
        self.write(value);
    }
}

mod sealed {
    pub trait Sealed: Copy {}
    impl Sealed for f64 {}
    impl Sealed for super::MaybeUninit<f64> {}
}

/// Copies words that a writer may be changing: each word is whole, the words together may be torn.
///
/// Relaxed loads, one by one: the portable form, and the one that loom judges. The caller checks afterwards,
/// behind an acquire fence, that nothing moved. On x86-64 `shared_memory.rs` holds a faster twin for long runs.
#[inline]
pub fn copy_words<T: Target>(source: &[AtomicU64], target: &mut [T]) {
    for (to, from) in target.iter_mut().zip(source) {
        to.put(f64::from_bits(from.load(Ordering::Relaxed)));
    }
}

/// loom's words, under a writer that can be stopped for good between any two stores.
#[cfg(loom)]
mod stoppable {
    use core::cell::Cell;
    use core::sync::atomic::Ordering;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    std::thread_local! {
        // Readers never store, so one number is enough: it is the writer's. loom runs all its threads in one.
        static STORES_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// What unwinds a stopped writer.
    struct Stopped;

    /// loom's word, counting stores.
    #[derive(Debug)]
    pub struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        /// A word of that value.
        #[must_use]
        pub fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        /// loom's load.
        #[must_use]
        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        /// loom's store, unless the writer is to stop in front of it.
        pub fn store(&self, value: u64, order: Ordering) {
            STORES_LEFT.with(|left| match left.get() {
                0 => resume_unwind(Box::new(Stopped)),
                usize::MAX => {}
                stores => left.set(stores - 1),
            });
            self.0.store(value, order);
        }
    }

    /// Runs `write` up to its store number `stores`, which no longer happens; returns whether it was stopped there.
    pub fn stopped_after(stores: usize, write: impl FnOnce()) -> bool {
        STORES_LEFT.set(stores);
        let outcome = catch_unwind(AssertUnwindSafe(write));
        STORES_LEFT.set(usize::MAX);
        match outcome {
            Ok(()) => false,
            Err(payload) if payload.is::<Stopped>() => true,
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// The standard words, in a process that can be made to kill or stop itself in front of any store.
#[cfg(all(feature = "steps", not(loom)))]
mod steps {
    use core::sync::atomic::{AtomicU64 as Word, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static STORES: Word = Word::new(0);
    /// The number of the store, and the signal that comes before it.
    static SIGNAL_BEFORE: Word = Word::new(u64::MAX);
    static SIGNAL: Word = Word::new(0);

    /// The standard word, counting stores.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct AtomicU64(Word);

    impl AtomicU64 {
        /// A word of that value.
        #[must_use]
        pub const fn new(value: u64) -> Self {
            Self(Word::new(value))
        }

        /// The standard load.
        #[inline]
        #[must_use]
        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        /// The standard store, after the signal if this is the one.
        pub fn store(&self, value: u64, order: Ordering) {
            if STORES.fetch_add(1, Ordering::Relaxed) == SIGNAL_BEFORE.load(Ordering::Relaxed) {
                let signal = if SIGNAL.load(Ordering::Relaxed) == 0 { Signal::KILL } else { Signal::STOP };
                // A process can always signal itself; with one thread the signal is there when the call returns.
                let _ = kill_process(getpid(), signal);
            }
            self.0.store(value, order);
        }
    }

    /// What several processes change is none of the steps of a writer: these are not counted.
    impl AtomicU64 {
        /// The standard one.
        pub fn compare_exchange(&self, old: u64, new: u64, done: Ordering, not: Ordering) -> Result<u64, u64> {
            self.0.compare_exchange(old, new, done, not)
        }

        /// The standard one.
        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_add(value, order)
        }

        /// The standard one.
        pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_sub(value, order)
        }
    }

    /// Lets this process, which must have one thread, kill itself, or stop itself with `stop`, before store `number`,
    /// counted from 0 since the process began.
    pub fn signal_before(number: u64, stop: bool) {
        SIGNAL.store(stop.into(), Ordering::Relaxed);
        SIGNAL_BEFORE.store(number, Ordering::Relaxed);
    }

    /// Returns how many stores this process has begun.
    #[must_use]
    pub fn stores() -> u64 {
        STORES.load(Ordering::Relaxed)
    }
}
