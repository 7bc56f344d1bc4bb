//! What stands in a file of a recording, behind its head: every byte is read as far as records are whole, and no further.
#![no_main]

use std::io::Cursor;

use candleshm_recording::reading::next_body;
use candleshm_recording::record::{Record, texts, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (mut from, mut body) = (Cursor::new(input), Vec::new());
    while next_body(&mut from, &mut body) == Ok(true) {
        check(&body);
    }
    check(input);
});

/// What is read as a record is written as the same bytes.
fn check(body: &[u8]) {
    let Some((boot_ms, record)) = Record::unpack(body) else { return };
    if let Record::Frames { texts: bytes, .. } | Record::Checkpoint { words: bytes, .. } = &record {
        let _ = (texts(bytes), words(bytes));
    }
    assert_eq!(record.pack(boot_ms), body);
}
