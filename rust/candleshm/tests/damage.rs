//! Blocks that nobody wrote like that: headers and bodies with anything in them. A header is refused with an error or
//! harmless, a body is harmless: whatever readers ask they stay within the mapping and within the machine's memory, and
//! nothing panics. A successor goes on with the block or builds a new one, and serves what it is given.

#[path = "damage/block.rs"]
mod block;
mod scratch;

use candleshm::interval::Interval;

use block::Damaged;

const HEADERS: u64 = 100_000;
const BODIES: u64 = 16_000;
const SUCCESSIONS: u64 = 4_000;

/// Numbers that look random, the same ones for a seed: Steele, Lea and Flood's `SplitMix64`.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[test]
fn a_hundred_thousand_random_headers_are_refused_or_harmless() {
    let mut damaged = Damaged::of(Interval::Minute1);
    let read = (0..HEADERS).filter(|&seed| damaged.header_is_refused_or_harmless(&mut numbers(seed))).count() as u64;
    // Neither kind is rare.
    assert!((HEADERS / 20..HEADERS * 19 / 20).contains(&read), "{read}");
}

#[test]
fn random_bodies_under_a_whole_header_are_harmless() {
    for interval in Interval::ALL {
        let mut damaged = Damaged::of(interval);
        for seed in 0..BODIES / Interval::ALL.len() as u64 {
            damaged.body_is_harmless(&mut numbers(seed));
        }
    }
}

#[test]
fn a_successor_serves_what_it_is_given_whatever_it_finds() {
    for interval in Interval::ALL {
        let mut damaged = Damaged::of(interval);
        let seeds = 0..SUCCESSIONS / Interval::ALL.len() as u64;
        let kept = seeds.clone().filter(|&seed| damaged.successor_serves(&mut numbers(seed))).count() as u64;
        assert!(0 < kept && kept < seeds.end, "{interval}: {kept} of {} blocks were taken over", seeds.end);
    }
}
