//! Words of the header that announce something: the numbers that waiters sleep on, `ready`, `universe_bar`. A reader
//! that reads one of them sees everything that was published before it was stored.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Announces a value.
pub fn store(word: &AtomicU64, value: u64) {
    // SYNC POINT announcement: pairs with the fence in `load`.
    word.store(value, Release);
}

/// Announces that there is news. Only one writer stores here.
pub fn count_up(word: &AtomicU64) {
    store(word, word.load(Relaxed).wrapping_add(1));
}

/// Returns what is announced; what was published before it is visible afterwards. A waiter loads the number before
/// it looks at the rows, so that it misses no change.
#[must_use]
pub fn load(word: &AtomicU64) -> u64 {
    let value = word.load(Relaxed);
    // SYNC POINT announcement: pairs with the release store.
    fence(Acquire);
    value
}
