//! The file that holds a pool: a header page and two copies of the pool's words, of which one counts.
//!
//! `docs/ledger-format.md` describes it; a test compares the two. Python opens, locks and replaces the file.

use crate::pool;

/// First word of the file, the characters `cshmwght`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cshmwght");
/// Version of the format. A change of layout or meaning gets the next one.
pub const VERSION: u64 = 3;

/// Header word: [`MAGIC`].
pub const MAGIC_WORD: usize = 0;
/// Header word: [`VERSION`].
pub const VERSION_WORD: usize = 1;
/// Header word: [`FILE_BYTES`].
pub const SIZE_WORD: usize = 2;
/// First of the two header words with the boot id.
pub const BOOT_ID_WORD: usize = 3;
/// Header word: the number of changes, whose lowest bit tells which copy counts.
pub const CHANGES_WORD: usize = 5;
/// Header word: the process that took the lock last.
pub const CHANGED_BY_WORD: usize = 6;

const PAGE_BYTES: usize = 4096;
/// Where the first copy begins.
pub const FIRST_BYTES: usize = PAGE_BYTES;
/// Bytes of a copy, unused ones at its end included.
pub const COPY_BYTES: usize = (8 * pool::WORDS).next_multiple_of(PAGE_BYTES);
/// Where the second copy begins.
pub const SECOND_BYTES: usize = FIRST_BYTES + COPY_BYTES;
/// Size of the file.
pub const FILE_BYTES: usize = SECOND_BYTES + COPY_BYTES;

/// An owner that lives holds a lock on the byte at this offset plus its token, far behind the end of the file. The
/// offset is the same in every version, so that each can tell whether owners of another one live.
pub const OWNERS_START: u64 = 1 << 50;
