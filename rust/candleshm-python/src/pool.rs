//! The words of a weight pool, in two copies of which one counts, guarded by a lock of the kernel.

use std::fs::File;
use std::sync::Mutex;

use candleshm::ledger;
use candleshm::pool::{self, Claim, Named, Pool};
use candleshm::sync::{AtomicU64, Ordering, fence};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::words_of;

/// The words that `look` returns.
const LOOKED_AT: [pool::Number; 7] =
    [pool::LIMIT, pool::WINDOW, pool::SHARE, pool::BLOCKED_UNTIL, pool::IN_FLIGHT, pool::FINISHED, pool::REAPED_AT];

struct Lock {
    /// `None` once closed, and always for words that only this process uses.
    file: Option<File>,
    is_shared: bool,
}

/// The words of a weight pool. Every method that changes them is one transaction: it changes the copy that does not
/// count, and one store of one word makes that copy the one that counts. No method waits: while another process holds
/// the lock, or if the owner `token` does not stand at `place`, it changes nothing and returns None or False.
///
/// `header` is u64, `copies` are two of `WORDS` u64, all zero for a new pool, and `lock_path` names the file that
/// other processes lock as well. Raises ValueError, OSError.
#[pyclass(frozen, module = "candleshm._core")]
pub(crate) struct PoolWords {
    header: PyBuffer<u64>,
    copies: [PyBuffer<u64>; 2],
    lock: Mutex<Lock>,
    /// This process; a forked child cannot use the words.
    process: u32,
}

#[pymethods]
impl PoolWords {
    #[new]
    #[pyo3(signature = (header, copies, lock_path=None))]
    fn new(
        header: PyBuffer<u64>,
        copies: (PyBuffer<u64>, PyBuffer<u64>),
        lock_path: Option<std::path::PathBuf>,
    ) -> PyResult<Self> {
        let copies = [copies.0, copies.1];
        let fits =
            copies.iter().all(|copy| copy.item_count() == pool::WORDS && !copy.readonly() && copy.is_c_contiguous());
        if !fits || header.item_count() <= ledger::CHANGED_BY_WORD || header.readonly() || !header.is_c_contiguous() {
            return Err(PyValueError::new_err(
                "header and copies of a pool must be writable and contiguous u64, and a copy must have PoolWords.WORDS of them",
            ));
        }
        let is_shared = lock_path.is_some();
        let file = lock_path.map(File::open).transpose()?;
        Ok(Self { header, copies, lock: Mutex::new(Lock { file, is_shared }), process: std::process::id() })
    }

    #[classattr]
    const WORDS: usize = pool::WORDS;
    #[classattr]
    const LIMIT: usize = pool::LIMIT.place();
    #[classattr]
    const WINDOW: usize = pool::WINDOW.place();
    #[classattr]
    const SHARE: usize = pool::SHARE.place();
    #[classattr]
    const BLOCKED_UNTIL: usize = pool::BLOCKED_UNTIL.place();
    #[classattr]
    const IN_FLIGHT: usize = pool::IN_FLIGHT.place();
    #[classattr]
    const FINISHED: usize = pool::FINISHED.place();
    #[classattr]
    const REAPED_AT: usize = pool::REAPED_AT.place();
    #[classattr]
    const OWNERS_MAX: usize = pool::OWNERS_MAX;
    #[classattr]
    const TOKEN_MAX: u64 = pool::TOKEN_MAX;
    #[classattr]
    const MAGIC: u64 = ledger::MAGIC;
    #[classattr]
    const VERSION: u64 = ledger::VERSION;
    #[classattr]
    const CHANGES_WORD: usize = ledger::CHANGES_WORD;
    #[classattr]
    const HEADER_BYTES: usize = ledger::FIRST_BYTES;
    #[classattr]
    const COPY_BYTES: usize = ledger::COPY_BYTES;
    #[classattr]
    const OWNERS_START: u64 = ledger::OWNERS_START;
    #[classattr]
    const SHARE_UNNAMED: f64 = pool::SHARE_UNNAMED;
    #[classattr]
    const PROBE_SECONDS: f64 = pool::PROBE_SECONDS;
    #[classattr]
    const HELD_SECONDS_MAX: f64 = pool::HELD_SECONDS_MAX;

    /// Book a request and return 0.0, or return how many seconds it has to wait.
    #[allow(clippy::too_many_arguments, reason = "one call is one transaction; Python names the arguments")]
    fn claim(
        &self,
        place: usize,
        token: u64,
        weight: f64,
        now: f64,
        closing: bool,
        urgent: bool,
        loading: bool,
    ) -> Option<f64> {
        self.transact(place, token, |pool| pool.claim(place, Claim { weight, closing, urgent, loading }, now))
    }

    /// Book the end of a request, with the used weight that the exchange stated.
    fn finished(&self, place: usize, token: u64, weight: f64, now: f64, reported: Option<f64>) -> bool {
        self.transact(place, token, |pool| pool.count_finished(place, weight, now, reported)).is_some()
    }

    /// Book a request that is sent now, whether it may be or not.
    fn sent(&self, place: usize, token: u64, weight: f64, now: f64, closing: bool) -> bool {
        self.transact(place, token, |pool| pool.count_sent(place, weight, now, closing)).is_some()
    }

    /// Stop all requests until then.
    fn stop(&self, place: usize, token: u64, until: f64) -> bool {
        self.transact(place, token, |pool| pool.stop(until)).is_some()
    }

    /// Take share, window, limit and weight of closing candles as an owner names them.
    fn name(&self, place: usize, token: u64, named: [f64; 4], now: f64) -> bool {
        self.transact(place, token, |pool| pool.name(place, named_by(named), now)).is_some()
    }

    /// Take an owner out of the queue.
    fn give_up(&self, place: usize, token: u64) -> bool {
        self.transact(place, token, |pool| pool.give_up(place)).is_some()
    }

    /// Free the place of an owner; its requests in flight count as finished now.
    fn leave(&self, place: usize, token: u64, now: f64) -> bool {
        self.transact(place, token, |pool| pool.end(place, now)).is_some()
    }

    /// Give an owner a place and return it, or 0 when all places are taken.
    #[allow(clippy::too_many_arguments, reason = "one call is one owner; Python names the arguments")]
    fn join(
        &self,
        token: u64,
        pid: u64,
        assumed: (f64, f64),
        named: [f64; 4],
        in_flight: f64,
        now: f64,
    ) -> Option<usize> {
        self.change(|pool| Some(pool.join(token, pid, assumed, named_by(named), in_flight, now).unwrap_or(0)))
    }

    /// Return place, token and process id of every owner.
    fn owners(&self) -> Vec<(usize, u64, u64)> {
        Pool::new(&self.copied()).owners().into_iter().map(|owner| (owner.place, owner.token, owner.pid)).collect()
    }

    /// Return whether the owner `token` stands at `place`.
    fn holds(&self, place: usize, token: u64) -> bool {
        Pool::new(self.words(self.changes())).holds(place, token)
    }

    /// Free the places of owners whose process died, where they still stand at their places.
    fn end_dead(&self, dead: Vec<(usize, u64)>, now: f64) -> bool {
        let end = |pool: Pool<'_>| {
            pool.set(pool::REAPED_AT, now);
            for (place, token) in dead {
                if pool.holds(place, token) {
                    pool.end(place, now);
                }
            }
            Some(())
        };
        self.change(end).is_some()
    }

    /// Close the lock: from now on nothing can be changed.
    fn close(&self) {
        // In a forked child a thread that no longer exists may hold it; then nobody can take it, which has the same effect.
        if let Ok(mut lock) = self.lock.try_lock() {
            lock.file = None;
        }
    }

    /// Return one of the words that count. Raises ValueError.
    fn look(&self, place: usize) -> PyResult<f64> {
        let word = LOOKED_AT.into_iter().find(|word| word.place() == place).ok_or_else(|| {
            PyValueError::new_err(format!("a pool has no word for `look` at {place}; use a constant such as IN_FLIGHT"))
        })?;
        Ok(Pool::new(self.words(self.changes())).get(word))
    }

    /// Return the id of the process that changed the words last.
    fn changed_by(&self) -> u64 {
        words_of(&self.header)[ledger::CHANGED_BY_WORD].load(Ordering::Relaxed)
    }

    /// Return the weight that counts at a moment. Takes no lock.
    fn used(&self, now: f64) -> f64 {
        Pool::new(&self.copied()).used(now)
    }

    /// Return how many seconds a request would have to wait. Takes no lock.
    fn delay(&self, weight: f64, now: f64, closing: bool) -> f64 {
        Pool::new(&self.copied()).delay(weight, now, closing)
    }

    /// Return whether what loads has had its burst, which still counts. Takes no lock.
    fn is_burst_spent(&self, now: f64) -> bool {
        Pool::new(self.words(self.changes())).is_burst_spent(now)
    }

    /// Return whether the words that count can be those of a pool.
    fn are_plausible(&self) -> bool {
        Pool::new(&self.copied()).is_plausible()
    }

    /// Copy what counts from other words into these, which no other process may use yet.
    fn assume(&self, other: &PoolWords) {
        for (to, from) in self.words(self.changes()).iter().zip(other.copied()) {
            to.store(from.into_inner(), Ordering::Relaxed);
        }
    }
}

impl PoolWords {
    fn transact<T>(&self, place: usize, token: u64, change: impl FnOnce(Pool<'_>) -> T) -> Option<T> {
        self.change(|pool| pool.holds(place, token).then(|| change(pool)))
    }

    /// Makes a change unless somebody else is making one. A change that returns `None` is dropped.
    fn change<T>(&self, change: impl FnOnce(Pool<'_>) -> Option<T>) -> Option<T> {
        let lock = self.lock.try_lock().ok()?;
        if lock.is_shared {
            lock.file.as_ref()?.try_lock().ok()?;
            words_of(&self.header)[ledger::CHANGED_BY_WORD].store(self.process.into(), Ordering::Relaxed);
        }
        let changes = self.changes();
        // Pairs with the fence in `copied`: a reader that reads a word of this change also sees that the one before counts.
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

    /// The one store that makes the change visible to everybody; if we die before it, nobody sees any of it.
    fn count(&self) {
        // A release: never before the stores of the change. It pairs with `changes`, which reads without a lock.
        words_of(&self.header)[ledger::CHANGES_WORD].store(self.changes().wrapping_add(1), Ordering::Release);
    }

    /// Copies what counts, and copies again if it changed meanwhile: the change after the next one is made in that copy.
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
        words_of(&self.header)[ledger::CHANGES_WORD].load(Ordering::Acquire)
    }

    fn words(&self, changes: u64) -> &[AtomicU64] {
        words_of(&self.copies[(changes & 1) as usize])
    }
}

/// What an owner names, in the order in which Python passes it.
fn named_by([share, window, limit, closing]: [f64; 4]) -> Named {
    Named { share, window, limit, closing }
}
