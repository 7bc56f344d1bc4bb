//! What a server sends, in chunks: the incremental cutter and a slow, obvious reader of the whole see the same frames.
#![no_main]

#[path = "../../candleshm-stream/tests/frames_model/obvious.rs"]
mod obvious;

use libfuzzer_sys::fuzz_target;

// The first bytes say how the others arrive.
fuzz_target!(|input: &[u8]| {
    let Some((sizes, stream)) = input.split_first_chunk::<3>() else { return };
    obvious::agree(stream, &sizes.map(|size| usize::from(size) + 1));
});
