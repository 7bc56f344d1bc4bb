//! Bodies: the parser and a slow, obvious one accept the same and read the same bits.
#![no_main]

#[path = "../../candleshm/tests/parse_model/obvious.rs"]
mod obvious;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| obvious::agree(body));
