//! Lives of a block: the bytes make the choices that proptest makes in `tests/ring_model.rs`.
#![no_main]

#[path = "../../candleshm/tests/ring_model/life.rs"]
mod life;
#[path = "../../candleshm/tests/ring_model/reference.rs"]
mod reference;
#[path = "../../candleshm/tests/scratch/mod.rs"]
mod scratch;
#[path = "../../candleshm/tests/ring_model/world.rs"]
mod world;

use candleshm::interval::Interval;
use libfuzzer_sys::fuzz_target;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fuzz_target!(|bytes: &[u8]| {
    let [interval, choices @ ..] = bytes else { return };
    let interval = Interval::ALL[*interval as usize % Interval::ALL.len()];
    // Behind its last byte the generator says zero for ever, and a choice that zero is refused for never ends.
    let mut choices = choices.to_vec();
    choices.extend((0..1_u32 << 16).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_be_bytes()));
    let random = TestRng::from_seed(RngAlgorithm::PassThrough, &choices);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    if let Ok(life) = life::lives(interval).new_tree(&mut runner) {
        world::live(&life.current());
    }
});
