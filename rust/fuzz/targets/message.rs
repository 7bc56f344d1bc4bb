//! Messages between hosts: whatever a sound head is followed by is refused, or reads the same once it was written again.
#![no_main]

#[path = "../../candleshm/tests/replica/parts.rs"]
mod parts;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| parts::body_is_harmless(body));
