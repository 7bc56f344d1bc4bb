//! Copies of a block on other hosts: what is told of it, and how a copy finds what it lacks.
//!
//! The owner's host tells followers what changed ([`shadow`]), each second where every series stands ([`digest`]), and
//! sends the rows that a follower names ([`request`]). All of it are [`message`]s, whichever way they travel: nothing
//! here knows a network.

pub mod checksum;
pub mod digest;
pub mod message;
pub mod request;
pub mod shadow;

/// Returns the shard of a symbol: FNV-1a of its name, modulo `shards`.
///
/// # Panics
///
/// When `shards` is 0.
#[must_use]
pub fn shard_of(symbol: &str, shards: u32) -> u32 {
    (fnv(symbol.as_bytes()) % u64::from(shards)) as u32
}

/// Returns the FNV-1a hash of bytes.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_those_of_the_published_hash() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
        assert!((0..64).all(|number| shard_of(&format!("S{number}USDT"), 1) == 0));
        let mut counts = [0; 4];
        (0..400).for_each(|number| counts[shard_of(&format!("S{number}USDT"), 4) as usize] += 1);
        assert!(counts.iter().all(|&count| count > 60), "{counts:?}");
    }
}
