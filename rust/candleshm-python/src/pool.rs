//! The words of a weight pool, in two copies of which one counts, behind a lock that is the kernel's.

use std::fs::File;
use std::sync::Mutex;

use candleshm::pool::{self, Claim, Pool};
use candleshm::sync::{AtomicU64, Ordering, fence};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::words_of;

/// Header words: which copy counts (the lowest bit) and who changed the words last.
const CHANGES: usize = 5;
const CHANGED_BY: usize = 6;

struct Lock {
    /// `None` once closed, and always for words that only this process has.
    file: Option<File>,
    is_shared: bool,
}

/// A weight pool's words. Every method that changes them is one transaction: it changes the copy that does not
/// count, which then counts by one store of one word. None of them waits: where the words are not to be had now, or
/// the place is not that owner's, they change nothing and return None or False.
///
/// `header` is u64, `copies` are two of `WORDS` float64, all zero for a new pool, and `lock_path` names the file that
/// other processes lock as well. Raises ValueError, OSError.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct PoolWords {
    header: PyBuffer<u64>,
    copies: [PyBuffer<f64>; 2],
    lock: Mutex<Lock>,
    /// This process; a forked child has no part in it.
    process: u32,
}

#[pymethods]
impl PoolWords {
    #[new]
    #[pyo3(signature = (header, copies, lock_path=None))]
    fn new(
        header: PyBuffer<u64>,
        copies: (PyBuffer<f64>, PyBuffer<f64>),
        lock_path: Option<std::path::PathBuf>,
    ) -> PyResult<Self> {
        let copies = [copies.0, copies.1];
        let fits =
            copies.iter().all(|copy| copy.item_count() == pool::WORDS && !copy.readonly() && copy.is_c_contiguous());
        if !fits || header.item_count() <= CHANGED_BY || header.readonly() || !header.is_c_contiguous() {
            return Err(PyValueError::new_err("a pool has a fixed number of words, and they can be written"));
        }
        let is_shared = lock_path.is_some();
        let file = lock_path.map(File::open).transpose()?;
        Ok(Self { header, copies, lock: Mutex::new(Lock { file, is_shared }), process: std::process::id() })
    }

    #[classattr]
    const WORDS: usize = pool::WORDS;
    #[classattr]
    const LIMIT: usize = pool::LIMIT;
    #[classattr]
    const WINDOW: usize = pool::WINDOW;
    #[classattr]
    const SHARE: usize = pool::SHARE;
    #[classattr]
    const BLOCKED_UNTIL: usize = pool::BLOCKED_UNTIL;
    #[classattr]
    const IN_FLIGHT: usize = pool::IN_FLIGHT;
    #[classattr]
    const ANSWERED: usize = pool::ANSWERED;
    #[classattr]
    const REAPED_AT: usize = pool::REAPED_AT;
    #[classattr]
    const OWNERS_MAX: usize = pool::OWNERS_MAX;
    #[classattr]
    const SHARE_UNNAMED: f64 = pool::SHARE_UNNAMED;
    #[classattr]
    const PROBE_SECONDS: f64 = pool::PROBE_SECONDS;
    #[classattr]
    const HELD_SECONDS_MAX: f64 = pool::HELD_SECONDS_MAX;

    /// Book a request and return 0.0, or return how long it has to wait.
    #[allow(clippy::too_many_arguments, reason = "one call is one transaction; Python names the arguments")]
    fn claim(&self, place: usize, number: f64, weight: f64, now: f64, closing: bool, urgent: bool) -> Option<f64> {
        self.transact(place, number, |pool| pool.claim(place, Claim { weight, closing, urgent }, now))
    }

    /// Book the end of a request, with the used weight that the exchange stated.
    fn answered(&self, place: usize, number: f64, weight: f64, now: f64, reported: Option<f64>) -> bool {
        self.transact(place, number, |pool| pool.count_answered(place, weight, now, reported)).is_some()
    }

    /// Book a request that leaves now, whether it may or not.
    fn sent(&self, place: usize, number: f64, weight: f64, now: f64, closing: bool) -> bool {
        self.transact(place, number, |pool| pool.count_sent(place, weight, now, closing)).is_some()
    }

    /// Let nothing leave until then.
    fn stop(&self, place: usize, number: f64, until: f64) -> bool {
        self.transact(place, number, |pool| pool.stop(until)).is_some()
    }

    /// Take share, window, limit and weight of closing candles as an owner names them.
    fn name(&self, place: usize, number: f64, named: [f64; 4], now: f64) -> bool {
        self.transact(place, number, |pool| pool.name(place, named, now)).is_some()
    }

    /// Take an owner out of the queue.
    fn give_up(&self, place: usize, number: f64) -> bool {
        self.transact(place, number, |pool| pool.give_up(place)).is_some()
    }

    /// Free the place of an owner; its weight in flight counts as answered now.
    fn leave(&self, place: usize, number: f64, now: f64) -> bool {
        self.transact(place, number, |pool| pool.end(place, now)).is_some()
    }

    /// Give an owner a place and return it, zero when all are taken.
    #[allow(clippy::too_many_arguments, reason = "one call is one owner; Python names the arguments")]
    fn join(
        &self,
        number: f64,
        process: (f64, f64),
        assumed: (f64, f64),
        named: [f64; 4],
        in_flight: f64,
        now: f64,
    ) -> Option<usize> {
        self.change(|pool| Some(pool.join(number, process, assumed, named, in_flight, now).unwrap_or(0)))
    }

    /// Return place, number, process id and start of the process of every owner.
    fn owners(&self) -> Vec<(usize, f64, f64, f64)> {
        Pool::new(&self.copied()).owners()
    }

    /// Free the places of owners whose process died, those of `dead` that are still the same.
    fn end_dead(&self, dead: Vec<(usize, f64)>, now: f64) -> bool {
        let end = |pool: Pool<'_>| {
            pool.set(pool::REAPED_AT, now);
            for (place, number) in dead {
                if place < pool::WORDS && pool.holds(place, number) {
                    pool.end(place, now);
                }
            }
            Some(())
        };
        self.change(end).is_some()
    }

    /// Close the lock: nothing can be changed any more.
    fn close(&self) {
        // In a forked child a thread may have had it that is no more; then nobody gets it any more, which will do.
        if let Ok(mut lock) = self.lock.try_lock() {
            lock.file = None;
        }
    }

    /// Return one of the words that count. Raises ValueError.
    fn look(&self, place: usize) -> PyResult<f64> {
        let words = self.words(self.changes());
        let word = words.get(place).ok_or_else(|| PyValueError::new_err("no such word"))?;
        Ok(f64::from_bits(word.load(Ordering::Relaxed)))
    }

    /// Return the id of the process that changed the words last.
    fn changed_by(&self) -> u64 {
        words_of(&self.header)[CHANGED_BY].load(Ordering::Relaxed)
    }

    /// Return the weight that counts at a moment, without waiting for anybody.
    fn used(&self, now: f64) -> f64 {
        Pool::new(&self.copied()).used(now)
    }

    /// Return how long a request would have to wait, without waiting for anybody.
    fn delay(&self, weight: f64, now: f64, closing: bool) -> f64 {
        Pool::new(&self.copied()).delay(weight, now, closing)
    }

    /// Return whether the words that count can be a pool's.
    fn are_plausible(&self) -> bool {
        Pool::new(&self.copied()).is_plausible()
    }

    /// Copy what counts from other words into these, which nobody else has.
    fn assume(&self, other: &PoolWords) {
        for (to, from) in self.words(self.changes()).iter().zip(other.copied()) {
            to.store(from.into_inner(), Ordering::Relaxed);
        }
    }
}

impl PoolWords {
    fn transact<T>(&self, place: usize, number: f64, change: impl FnOnce(Pool<'_>) -> T) -> Option<T> {
        self.change(|pool| (place < pool::WORDS && pool.holds(place, number)).then(|| change(pool)))
    }

    /// Makes a change, if nobody else is at it; what returns `None` has changed nothing.
    fn change<T>(&self, change: impl FnOnce(Pool<'_>) -> Option<T>) -> Option<T> {
        let lock = self.lock.try_lock().ok()?;
        if lock.is_shared {
            lock.file.as_ref()?.try_lock().ok()?;
            words_of(&self.header)[CHANGED_BY].store(self.process.into(), Ordering::Relaxed);
        }
        let changes = self.changes();
        // Pairs with the fence in `copied`: who reads a word of this change sees that the one before it counts.
        fence(Ordering::Release);
        let pool = Pool::new(self.words(changes.wrapping_add(1)));
        pool.copy_from(Pool::new(self.words(changes)));
        let done = change(pool);
        if done.is_some() {
            self.count();
        }
        if let Some(file) = &lock.file {
            // Cannot fail for an open file; closing it would release the lock as well.
            let _ = file.unlock();
        }
        done
    }

    /// The one store by which everybody sees the change, or, if we die before, nobody.
    fn count(&self) {
        // A release: never before the stores of the change. It pairs with `changes`, where somebody looks without a lock.
        words_of(&self.header)[CHANGES].store(self.changes().wrapping_add(1), Ordering::Release);
    }

    /// Copies what counts, again until nothing changed meanwhile: the change after the next one is made in that copy.
    fn copied(&self) -> Vec<AtomicU64> {
        loop {
            let changes = self.changes();
            let copied = self.words(changes).iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect();
            fence(Ordering::Acquire);
            if self.changes() == changes {
                return copied;
            }
        }
    }

    fn changes(&self) -> u64 {
        words_of(&self.header)[CHANGES].load(Ordering::Acquire)
    }

    fn words(&self, changes: u64) -> &[AtomicU64] {
        words_of(&self.copies[(changes & 1) as usize])
    }
}
