//! Removing a block that a dead collector left behind.

use crate::block::Block;
use crate::error::Error;
use crate::layout::BlockState;
use crate::lockstep;
use crate::shared_memory::BlockFile;

/// How often to start again because the name went to another block meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// Removes the block of that name, unless a collector serves it. Its readers learn first that it is closed: they look
/// at the name from then on, and move to whatever block gets it. What a replay left beside it goes, too.
///
/// # Errors
///
/// `NotFound`, `InUse`, `Owner`, `Corrupt` when the file is not a candleshm block, `Os`.
pub fn unlink(name: &str) -> Result<(), Error> {
    for _ in 0..ATTEMPTS_MAX {
        let file = BlockFile::open(name, true)?;
        file.check_magic()?;
        file.lock()?;
        if !file.is_named()? {
            continue;
        }
        file.remove_next();
        // One that is truncated, or of another format, has no readers of ours.
        if let Ok(block) = file.map(true).and_then(|words| Block::check(name, words)) {
            block.enter(BlockState::Closed);
            block.tell(true);
        }
        lockstep::remove_left(name);
        return file.unlink();
    }
    Err(Error::InUse { name: name.into(), pid: 0 })
}
