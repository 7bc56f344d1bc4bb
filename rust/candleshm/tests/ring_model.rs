//! The real writer and every reader path against a reference that is obviously right, after each step of random lives:
//! responses in any order, overlapping, shuffled, wrong, late, with jumps, gaps, corrections and takeovers between
//! them. `rust/fuzz` lives the same lives with a fuzzer's choices.

#[path = "ring_model/life.rs"]
mod life;
#[path = "ring_model/reference.rs"]
mod reference;
mod scratch;
#[path = "ring_model/world.rs"]
mod world;

use candleshm::interval::Interval;
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;

use life::lives;
use world::live;

/// Every interval has a share of the lives.
#[test]
fn writer_and_readers_agree_with_the_reference() {
    for interval in Interval::ALL {
        let cases = Cases { cases: Cases::default().cases / 8, failure_persistence: None, ..Cases::default() };
        proptest!(cases, |(life in lives(interval))| live(&life));
    }
}
