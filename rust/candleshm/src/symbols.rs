//! The symbol table: entries are written whole, then counted; readers look at counted ones only.

use crate::layout::{Presence, SYMBOL_NAME_BYTES, symbol, words_of};
use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Writes the entry of a symbol and counts it: `index` is its place, the first one that is not counted.
pub fn add(count: &AtomicU64, entry: &[AtomicU64], index: usize, name: &str) {
    // All of the name's words: a writer that died here may have left a longer one.
    let padded = words_of(name.as_bytes()).chain(std::iter::repeat(0));
    for (word, value) in entry[symbol::NAME..].iter().zip(padded) {
        word.store(value, Relaxed);
    }
    entry[symbol::LAST_CLOSE].store(f64::NAN.to_bits(), Relaxed);
    entry[symbol::TRADING].store(Presence::Trading as u64, Relaxed);
    // SYNC POINT symbol: a counted symbol is wholly there; one whose writer died before is simply written again.
    count.store(index as u64 + 1, Release);
}

/// Returns how many symbols are counted; all of them are wholly visible afterwards.
#[must_use]
pub fn count(count: &AtomicU64) -> u64 {
    let count = count.load(Relaxed);
    // SYNC POINT symbol: pairs with the release store of the count.
    fence(Acquire);
    count
}

/// Returns the name in a symbol's entry; what is not UTF-8 is replaced.
#[must_use]
pub fn name(entry: &[AtomicU64]) -> String {
    let words = &entry[symbol::NAME..];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(SYMBOL_NAME_BYTES);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
