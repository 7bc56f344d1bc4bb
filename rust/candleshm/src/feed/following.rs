//! When a feed moves from its block to another one under the same name.
//!
//! A block that was superseded or closed is marked so. One whose collector died and whose name was then removed by hand is
//! not; so a feed whose collector has stopped its heartbeat checks now and then which file has the name. It moves only to
//! a block in which its readers lose nothing, until the one it has is too old to be served.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::feed::attached::Attached;
use crate::feed::clock;
use crate::layout::header;
use crate::shared_memory;
use crate::succession::has_all_of;

/// Interval between checks of the heartbeat.
const LOOK_MS: u64 = 500;
/// Interval between checks for another block, when its own is superseded or closed.
pub(super) const FOLLOW_MS: u64 = 100;
/// The heartbeat comes every 500 ms; a collector without one for this long may be dead.
const QUIET_MS: u64 = 1_500;
/// A block without a heartbeat for this long is left for one that is not loaded yet.
const TOO_OLD_MS: u64 = 60_000;

/// When a feed last checked.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// The heartbeat.
    looked_ms: AtomicU64,
    /// For another block.
    sought_ms: AtomicU64,
}

impl Lookout {
    /// Whether it is time to check the heartbeat.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        clock::coarse_ms().saturating_sub(self.looked_ms.load(Ordering::Relaxed)) >= LOOK_MS
    }

    /// Returns the block to move to, if there is one.
    #[cold]
    pub(super) fn look(&self, name: &str, old: &Attached, max_age_ms: Option<u64>) -> Option<Attached> {
        let (last, pause_ms) = if old.is_current() { (&self.looked_ms, LOOK_MS) } else { (&self.sought_ms, FOLLOW_MS) };
        let (now_ms, last_ms) = (clock::coarse_ms(), last.load(Ordering::Relaxed));
        // One of several threads checks, and the others do not wait for it.
        let looks = now_ms.saturating_sub(last_ms) >= pause_ms
            && last.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let silent_ms = old.heartbeat_age_ms().unwrap_or(u64::MAX);
        if !looks || old.is_current() && silent_ms < QUIET_MS {
            return None;
        }
        // While its own block has the name, or none has, it keeps what it has.
        shared_memory::standing(name).ok().flatten().filter(|&standing| standing != old.id())?;
        let new = Attached::open(name).ok().filter(Attached::is_current)?;
        let too_old_ms = max_age_ms.map_or(TOO_OLD_MS, |limit_ms| limit_ms.min(TOO_OLD_MS));
        let moves =
            new.block().announced(header::READY) == 1 || has_all_of(new.block(), old.block()) || silent_ms > too_old_ms;
        moves.then_some(new)
    }
}
