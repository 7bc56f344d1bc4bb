//! A symbol that is added while somebody looks at the symbol table.

use candleshm::layout::{SYMBOL_BYTES, symbol};
use candleshm::symbols;
use candleshm::sync::{AtomicU64, Ordering::Relaxed, stopped_after};

use crate::model::{Met, explore_words};

const ENTRY_WORDS: usize = SYMBOL_BYTES / 8;
/// The count, and entries for two symbols.
const TABLE_WORDS: usize = 1 + 2 * ENTRY_WORDS;

fn entry(table: &[AtomicU64], index: usize) -> &[AtomicU64] {
    &table[1 + index * ENTRY_WORDS..][..ENTRY_WORDS]
}

fn add(table: &[AtomicU64], index: usize, name: &str) {
    symbols::add(&table[0], entry(table, index), index, name);
}

#[track_caller]
fn is_whole(table: &[AtomicU64], index: usize, name: &str) {
    assert_eq!(symbols::name(entry(table, index)), name);
    assert_eq!(entry(table, index)[symbol::TRADING].load(Relaxed), 1);
    assert!(f64::from_bits(entry(table, index)[symbol::LAST_CLOSE].load(Relaxed)).is_nan());
}

#[test]
fn a_counted_symbol_is_whole() {
    let met = Met::default();
    let seen = met.clone();
    explore_words(
        TABLE_WORDS,
        |table| add(table, 0, "BTCUSDT"),
        |table| add(table, 1, "1000000MOGUSDT"),
        move |table| {
            let count = symbols::count(&table[0]);
            is_whole(table, 0, "BTCUSDT");
            if count == 2 {
                is_whole(table, 1, "1000000MOGUSDT");
            }
            seen.met(count as usize - 1);
        },
    );
    met.all(2);
}

/// The next owner writes its own symbol where a dead one had begun another.
#[test]
fn an_uncounted_symbol_is_written_again() {
    let whole = (0..).take_while(|&stores| {
        let stopped = std::sync::Arc::new(std::sync::Mutex::new(false));
        let end = std::sync::Arc::clone(&stopped);
        explore_words(
            TABLE_WORDS,
            |table| add(table, 0, "BTCUSDT"),
            move |table| {
                let cut = stopped_after(stores, || add(table, 1, "1000000MOGUSDT"));
                *end.lock().unwrap() = cut;
                if cut {
                    assert_eq!(symbols::count(&table[0]), 1);
                    add(table, 1, "ETHUSDT");
                }
            },
            move |table| {
                if symbols::count(&table[0]) == 2 {
                    let name = symbols::name(entry(table, 1));
                    assert!(name == "ETHUSDT" || name == "1000000MOGUSDT", "{name}");
                    is_whole(table, 1, &name);
                }
            },
        );
        *stopped.lock().unwrap()
    });
    assert!(whole.count() > 3);
}
