//! The readers' clock: `CLOCK_BOOTTIME` of the machine, which heartbeats and times of receipt are stored in.

use std::sync::LazyLock;

use rustix::time::{ClockId, clock_gettime};

/// By how many nanoseconds the time namespace of this process is ahead of the machine's `CLOCK_BOOTTIME`.
static OFFSET_NS: LazyLock<i64> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let boottime = text.lines().find_map(|line| line.strip_prefix("boottime")).unwrap_or_default();
    let mut parts = boottime.split_whitespace().map(|part| part.parse::<i64>().unwrap_or(0));
    let (seconds, nanoseconds) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
});

/// Returns `CLOCK_BOOTTIME` of the machine in nanoseconds: it runs through suspend and is never set. What the time
/// namespace of a container adds is taken off, so that heartbeats mean the same to all who share a block.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let own_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    own_ns.saturating_sub(*OFFSET_NS).max(0) as u64
}

/// Returns `CLOCK_BOOTTIME` of the machine in milliseconds.
#[inline]
#[must_use]
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// Returns some clock in milliseconds, a few late, for a fraction of the price. It stops while the machine sleeps.
#[inline]
pub(super) fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Returns the kernel's boot id; zeroes where there is none, so that blocks of one boot still match.
#[must_use]
pub fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |from: usize| digits.get(from..from + 16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    [half(0), half(16)]
}

/// Returns when this process started, in clock ticks since boot; 0 where it cannot be told.
#[must_use]
pub fn process_start() -> u64 {
    // The 22nd field of proc(5)'s stat, counted behind the command's closing parenthesis, which may itself hold blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(19)?.parse().ok()).unwrap_or(0)
}
