//! The files of a recording: their head, and records framed by length and checksum.
//!
//! ```text
//! file   := head zstd*        a zstd frame for each batch that was written; `zstd -d` reads the whole file
//! head   := 50 2a 4d 18, 16 as u32, "CSHMREC1", run as u64      a frame that zstd skips
//! zstd   := record*           compressed
//! record := length as u32, CRC-32 of the body as u32, body
//! body   := kind as u8, CLOCK_BOOTTIME in ms as u64, what the kind has
//! ```
//!
//! The number in the magic is the version. A run is what one collector recorded between its start and its end.

/// The first bytes of a frame that decoders of zstd skip, and how many follow.
const SKIPPED: [u8; 8] = [0x50, 0x2A, 0x4D, 0x18, 16, 0, 0, 0];
/// Names the format and its version.
pub const MAGIC: [u8; 8] = *b"CSHMREC1";
/// Bytes of the head of a file.
pub const HEAD_BYTES: usize = 24;
/// How the name of a file ends.
pub const SUFFIX: &str = "cshmrec";
/// Bytes in front of the body of a record.
pub const FRAME_BYTES: usize = 8;
/// Longest body of a record. A checkpoint of the longest series has eleven megabytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Returns the head of a file of a run.
#[must_use]
pub fn head(run: u64) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&SKIPPED);
    bytes[8..16].copy_from_slice(&MAGIC);
    bytes[16..].copy_from_slice(&run.to_le_bytes());
    bytes
}

/// Returns the run that a head names; `None` for what is no head of this version.
#[must_use]
pub fn run_of(bytes: &[u8; HEAD_BYTES]) -> Option<u64> {
    let run = u64::from_le_bytes(bytes[16..].try_into().ok()?);
    (bytes[..8] == SKIPPED && bytes[8..16] == MAGIC).then_some(run)
}

/// Appends a body with its length and checksum.
pub fn frame(body: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend(body);
}
