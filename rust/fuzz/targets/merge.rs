//! Lives of a block as in `tests/ring_model.rs`, grown from seeds that the fuzzer keeps when they reach new code.
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
    // A seed, not the choices themselves: proptest's generator that passes bytes through says zero for ever once they are
    // used up, and a choice that zero is refused for never ends.
    let mut seed = [0; 32];
    for (at, byte) in choices.iter().enumerate() {
        seed[at % 32] ^= byte.rotate_left(at as u32 / 32);
    }
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    if let Ok(life) = life::lives(interval).new_tree(&mut runner) {
        world::live(&life.current());
    }
});
