//! This process as the owner of a block.

use candleshm::feed::clock;
use candleshm::writer::Owner;

/// Returns this process as the owner of a block.
pub(crate) fn owner() -> Owner {
    Owner {
        pid: std::process::id().into(),
        pid_start: clock::process_start(),
        boot_id: clock::boot_id(),
        now_ns: clock::now_ns(),
    }
}
