//! The symbol table: entries are written whole, then counted; readers look at counted ones only.

use crate::layout::{Presence, SYMBOL_NAME_BYTES, symbol, words_of};
use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Returns whether `name` can be a symbol's: 1 to 64 bytes of UTF-8 without blanks, slashes, control characters, and
/// characters that cannot be seen. Some real names are not ASCII; none could begin a line, hide one, or lead to another
/// directory.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=SYMBOL_NAME_BYTES).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(is_shown)
}

fn is_shown(character: char) -> bool {
    // Soft hyphens, joiners, marks that turn the direction of writing, byte order marks; private use, tags.
    const UNSEEN: [(char, char); 10] = [
        ('\u{ad}', '\u{ad}'),
        ('\u{61c}', '\u{61c}'),
        ('\u{180e}', '\u{180e}'),
        ('\u{200b}', '\u{200f}'),
        ('\u{202a}', '\u{202e}'),
        ('\u{2060}', '\u{206f}'),
        ('\u{e000}', '\u{f8ff}'),
        ('\u{feff}', '\u{feff}'),
        ('\u{fff9}', '\u{fffb}'),
        ('\u{e0000}', char::MAX),
    ];
    !(matches!(character, '/' | '\\')
        || character.is_whitespace()
        || character.is_control()
        || UNSEEN.iter().any(|&(first, last)| (first..=last).contains(&character)))
}

/// Writes the entry of a symbol and counts it: `index` is its place, the first one that is not counted.
pub fn add(count: &AtomicU64, entry: &[AtomicU64], index: usize, name: &str) {
    // All of the name's words: a writer that died here may have left a longer one.
    let padded = words_of(name.as_bytes()).chain(std::iter::repeat(0));
    for (word, value) in entry[symbol::NAME..].iter().zip(padded) {
        word.store(value, Relaxed);
    }
    entry[symbol::LAST_CLOSE].store(f64::NAN.to_bits(), Relaxed);
    entry[symbol::TRADING].store(Presence::Trading as u64, Relaxed);
    entry[symbol::CALENDAR].store(0, Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_a_symbol_s() {
        for name in ["BTCUSDT", "BTCUSD_PERP", "BTCUSDT_230630", "币安人生USDT", "1000SATSUSDT", "ö", &"X".repeat(64)]
        {
            assert!(is_name(name), "{name}");
        }
        let long = "X".repeat(65);
        for name in [
            "",
            " ",
            "BTC USDT",
            "BTC\u{a0}USDT",
            "BTC\n",
            "BTC\0",
            "\u{1b}[2J",
            "../BTC",
            "..",
            "BTC\\USDT",
            "\u{202e}BTC",
            "BTC\u{200b}",
            "\u{feff}BTC",
            "\u{2028}",
            "\u{e0041}",
            &long,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
