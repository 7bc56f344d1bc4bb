//! Damaged blocks: the bytes say which words hold what instead.
#![no_main]

#[path = "../../candleshm/tests/damage/block.rs"]
mod block;
#[path = "../../candleshm/tests/scratch/mod.rs"]
mod scratch;

use candleshm::interval::Interval;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut words = bytes.chunks(4);
    // Short words that are wide: bytes are what a fuzzer has least of.
    let mut numbers =
        || words.next().map_or(0, |word| word.iter().fold(0, |number: u64, &byte| number << 16 | u64::from(byte)));
    let interval = Interval::ALL[numbers() as usize % Interval::ALL.len()];
    let mut damaged = block::Damaged::of(interval);
    match numbers() % 3 {
        0 => drop(damaged.header_is_refused_or_harmless(&mut numbers)),
        1 => damaged.body_is_harmless(&mut numbers),
        _ => drop(damaged.successor_serves(&mut numbers)),
    }
});
