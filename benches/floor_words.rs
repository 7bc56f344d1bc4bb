//! The words that `floor` shares with `sleeper`: a count of batches, and the stamps of the newest ones.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap};

const WORDS: usize = 512;

/// Where the stamp of a batch is.
pub(crate) fn place(batch: u64) -> usize {
    1 + batch as usize % (WORDS - 1)
}

/// Maps the words for the life of the process.
pub(crate) fn map(path: &str, writable: bool) -> io::Result<&'static [AtomicU64]> {
    let file = File::options().read(true).write(writable).create(writable).truncate(false).open(path)?;
    if writable {
        file.set_len(WORDS as u64 * 8)?;
    }
    let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    // SAFETY: a new mapping at a place of the kernel's choice, of a file that is never made shorter.
    let start = unsafe { mmap(std::ptr::null_mut(), WORDS * 8, protection, MapFlags::SHARED, &file, 0) }?;
    // SAFETY: the mapping is page aligned, as long as this, and never taken away; all sides use atomics.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), WORDS) })
}
