//! `Source`: a name, the block that is attached under it now, and the limit of age that its reader set.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;
use crate::feed::attached::{Attached, age_ms};
use crate::feed::following::Lookout;
use crate::feed::turns::{Turn, Turns};
use crate::layout::header;
use crate::shared_memory;
use crate::waiting::Seen;

/// Says that a number of `stepped` is one.
const STEPPED: u64 = 1 << 32;

/// What a feed and its series share.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    /// Oldest data allowed, ms.
    max_age_ms: Option<u64>,
    attached: RwLock<Arc<Attached>>,
    lookout: Lookout,
    turns: Turns,
    closed: AtomicBool,
    /// How often the waits of this feed were interrupted.
    interrupts: AtomicU64,
    /// What was announced when the last step ended, and a bit that says so; 0 before the first.
    stepped: AtomicU64,
}

impl Source {
    /// Attaches to the block `name`.
    pub(super) fn open(name: &str, max_age_ms: Option<u64>) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            max_age_ms,
            attached: RwLock::new(Arc::new(Attached::open(name)?)),
            lookout: Lookout::default(),
            turns: Turns::default(),
            closed: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            stepped: AtomicU64::new(0),
        })
    }

    /// Ends the use of the feed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.turns.leave();
    }

    /// Takes part in the replay that the block is of, if it is of one. To be called before each look of a wait.
    /// `holder` is the number of the thread for which is waited, `None` for this one.
    pub(super) fn turn(&self, holder: Option<u64>) -> Result<(Turn, Arc<Attached>), Error> {
        let attached = self.attached()?;
        Ok((self.turns.take(&attached, holder)?, attached))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn max_age_ms(&self) -> Option<u64> {
        self.max_age_ms
    }

    /// Refuses when the feed was closed.
    #[inline]
    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::FeedClosed { name: self.name.clone() });
        }
        Ok(())
    }

    /// Returns the block that has the name now, as far as known.
    pub(super) fn attached(&self) -> Result<Arc<Attached>, Error> {
        self.check_open()?;
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(if self.is_good(&attached) { attached } else { self.follow(attached) })
    }

    /// Whether there is no reason to look for another block than this one.
    #[inline]
    pub(super) fn is_good(&self, attached: &Attached) -> bool {
        attached.is_current() && !self.lookout.is_due()
    }

    /// Moves to another block if it is time, see [`Lookout`]; the old one stays readable.
    #[cold]
    fn follow(&self, old: Arc<Attached>) -> Arc<Attached> {
        let Some(new) = self.lookout.look(&self.name, &old, self.max_age_ms) else { return old };
        let mut attached = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&attached, &old) {
            *attached = Arc::new(new);
            // Every series that still holds it comes here again.
            old.leave();
        }
        attached.clone()
    }

    /// Refuses a series whose data may not be handed out.
    #[inline]
    pub(super) fn check_fresh(&self, attached: &Attached, index: usize) -> Result<(), Error> {
        let Some(limit_ms) = self.max_age_ms else { return Ok(()) };
        let block = attached.block();
        let age_ms = age_ms(block, index);
        let is_young = is_within(age_ms, limit_ms);
        if is_young && !block.has_ended(index) {
            return Ok(());
        }
        Err(stale(block.symbol(index), age_ms, limit_ms, is_young))
    }

    /// Refuses to wait for a collector whose heartbeat is too old. `what` is what waits for it.
    pub(super) fn check_collector(&self, attached: &Attached, what: &str) -> Result<(), Error> {
        let age_ms = attached.heartbeat_age_ms();
        match self.max_age_ms {
            Some(limit_ms) if !is_within(age_ms, limit_ms) => Err(stale(what.to_owned(), age_ms, limit_ms, false)),
            _ => Ok(()),
        }
    }

    /// Refuses to wait for a symbol that is delisted, where data has to be young.
    pub(super) fn check_listed(&self, attached: &Attached, index: usize) -> Result<(), Error> {
        let block = attached.block();
        match self.max_age_ms {
            Some(limit_ms) if block.has_ended(index) => {
                Err(stale(block.symbol(index), age_ms(block, index), limit_ms, true))
            }
            _ => Ok(()),
        }
    }

    /// Returns what was announced when the last step ended.
    pub(super) fn stepped(&self) -> Option<Seen> {
        let stepped = self.stepped.load(Ordering::Relaxed);
        (stepped & STEPPED != 0).then(|| Seen::new(stepped as u32))
    }

    pub(super) fn set_stepped(&self, seen: Seen) {
        self.stepped.store(STEPPED | u64::from(seen.number()), Ordering::Relaxed);
    }

    pub(super) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::SeqCst)
    }

    /// Ends the waits that are under way.
    pub(super) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::SeqCst);
        // Waiters of other processes look, find nothing, and sleep again. A waiter of this one that is just about to
        // sleep finds out when its slice ends.
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner).clone();
        for word in [header::COMMIT_SEQ, header::CLOSE_SEQ] {
            shared_memory::futex_wake(attached.block().header(word));
        }
    }
}

/// Whether an age is within a limit; one that is not known is within none but the highest.
fn is_within(age_ms: Option<u64>, limit_ms: u64) -> bool {
    age_ms.unwrap_or(u64::MAX) <= limit_ms
}

fn stale(symbol: String, age_ms: Option<u64>, limit_ms: u64, delisted: bool) -> Error {
    Error::Stale { symbol, age_ms, limit_ms, delisted }
}
