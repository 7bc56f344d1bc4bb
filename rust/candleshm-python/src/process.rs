//! This process as the owner of a block.

use candleshm::feed::clock;
use candleshm::writer::Owner;

/// Returns this process as the owner of a block.
pub(crate) fn owner() -> Owner {
    // The 22nd field of proc(5)'s stat, counted behind the command's closing parenthesis, which may itself hold blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let start = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(19)?.parse().ok());
    Owner {
        pid: std::process::id().into(),
        pid_start: start.unwrap_or(0),
        boot_id: clock::boot_id(),
        now_ns: clock::now_ns(),
    }
}
