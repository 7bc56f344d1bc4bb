//! Files of the archive: the reader and a slow, obvious one accept the same and read the same bits.
#![no_main]

#[path = "../../candleshm/tests/csv_model/obvious.rs"]
mod obvious;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| obvious::agree(file));
