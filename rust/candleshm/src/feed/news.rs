//! How a reader waits: until when, and asleep on which word of the header.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::feed::attached::Attached;
use crate::feed::following::FOLLOW_MS;
use crate::layout::header;
use crate::shared_memory;
use crate::waiting::Seen;

/// Longest sleep in one go: signals and a replaced block are noticed after this long at the latest.
const SLICE: Duration = Duration::from_secs(1);

/// The time left of a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// `None` waits for ever, and so does what no clock can tell.
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Returns how long to sleep in one go, `None` when the time is over.
    pub(super) fn slice(self) -> Option<Duration> {
        let Some(end) = self.0 else { return Some(SLICE) };
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        left.map(|left| left.min(SLICE))
    }
}

/// What a block had announced when a waiter took this.
///
/// A waiter takes it first, looks for what it waits for, and sleeps only then: whatever is published in between ends
/// the sleep at once.
#[derive(Debug)]
pub struct News {
    attached: Arc<Attached>,
    /// Word of the header.
    offset: usize,
    seen: Seen,
}

impl News {
    /// Takes what is announced of closes.
    pub(super) fn of_closes(attached: Arc<Attached>) -> Self {
        Self::of(attached, header::CLOSE_SEQ)
    }

    /// Takes what is announced of rows of every kind.
    pub(super) fn of_rows(attached: Arc<Attached>) -> Self {
        Self::of(attached, header::COMMIT_SEQ)
    }

    fn of(attached: Arc<Attached>, offset: usize) -> Self {
        let seen = Seen::of(attached.block().header(offset));
        Self { attached, offset, seen }
    }

    pub(super) fn attached(&self) -> &Arc<Attached> {
        &self.attached
    }

    /// Sleeps until the block announces something newer, one second at the longest.
    ///
    /// The caller looks again afterwards in any case: another block may have the name by now, or the collector may
    /// have died, and neither wakes anybody.
    pub fn sleep(&self) {
        self.sleep_for(SLICE);
    }

    /// Returns whether the block has announced something newer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Seen::of(self.attached.block().header(self.offset)) != self.seen
    }

    /// Returns whether the block is done, so that another one may have its name.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.attached.is_current()
    }

    /// As [`Self::sleep`], for at most so long.
    pub fn sleep_for(&self, slice: Duration) {
        // Nobody is woken by a block that is done when another one is there.
        let slice = if self.attached.is_current() { slice } else { slice.min(Duration::from_millis(FOLLOW_MS)) };
        shared_memory::futex_wait(self.attached.block().header(self.offset), self.seen.number(), slice);
    }
}
