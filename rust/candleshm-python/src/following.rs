//! When a feed moves from its block to another one under the same name.
//!
//! A block that was superseded or closed says so. One whose collector died and whose name was then removed by hand says
//! nothing, ever; so a feed whose collector gives no sign of life looks now and then which file stands under the name.
//! It moves only to a block in which its readers lose nothing, until the one it has is too old to be served.

use std::sync::atomic::{AtomicU64, Ordering};

use candleshm::layout::header;
use candleshm::shared_memory;
use candleshm::succession::has_all_of;

use crate::attached::{Attached, heartbeat_age_ms};
use crate::process;

/// How often a feed looks after its collector.
const LOOK_MS: u64 = 500;
/// How often it looks for a block to move to, when its own is done.
pub(crate) const FOLLOW_MS: u64 = 100;
/// A collector gives a sign of life every 500 ms; one that gave none for this long may be dead.
const QUIET_MS: u64 = 1_500;
/// A block whose collector gave no sign of life for this long is left for one that is not loaded yet.
const TOO_OLD_MS: u64 = 60_000;

/// When a feed last looked.
#[derive(Default)]
pub(crate) struct Lookout {
    /// After its collector.
    looked_ms: AtomicU64,
    /// For another block, since its own is done.
    sought_ms: AtomicU64,
}

impl Lookout {
    /// Whether it is time to look after the collector.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        process::coarse_ms().saturating_sub(self.looked_ms.load(Ordering::Relaxed)) >= LOOK_MS
    }

    /// Returns the block to move to, if there is one.
    #[cold]
    pub(crate) fn look(&self, name: &str, old: &Attached, max_age_ms: Option<u64>) -> Option<Attached> {
        let (last, pause_ms) = if old.is_current() { (&self.looked_ms, LOOK_MS) } else { (&self.sought_ms, FOLLOW_MS) };
        let (now_ms, last_ms) = (process::coarse_ms(), last.load(Ordering::Relaxed));
        // Of several threads one looks, and nobody waits for it.
        let looks = now_ms.saturating_sub(last_ms) >= pause_ms
            && last.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !looks || old.is_current() && heartbeat_age_ms(&old.block) < QUIET_MS {
            return None;
        }
        // While its own block stands there, or nothing, it keeps what it has.
        shared_memory::standing(name).ok().flatten().filter(|&standing| standing != old.id)?;
        let new = Attached::open(name).ok().filter(Attached::is_current)?;
        let too_old_ms = max_age_ms.map_or(TOO_OLD_MS, |limit_ms| limit_ms.min(TOO_OLD_MS));
        let moves = new.block.announced(header::READY) == 1
            || has_all_of(&new.block, &old.block)
            || heartbeat_age_ms(&old.block) > too_old_ms;
        moves.then_some(new)
    }
}
