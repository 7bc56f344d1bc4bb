//! `Source`: a name, the block that is attached under it now, and the limit of age that its reader set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use candleshm::error::Error;
use pyo3::prelude::*;

use crate::attached::{Attached, heartbeat_age_ms, seconds};
use crate::errors::exceptions::{BlockNotFound, StaleData, UnknownSymbol};
use crate::errors::to_py;
use crate::following::Lookout;

/// What a feed and its series share.
pub(crate) struct Source {
    name: String,
    /// Oldest data allowed, ms.
    max_age_ms: Option<u64>,
    attached: RwLock<Arc<Attached>>,
    lookout: Lookout,
    closed: AtomicBool,
}

impl Source {
    /// Attaches to the block `name`.
    pub(crate) fn open(name: &str, max_age_ms: Option<u64>) -> PyResult<Self> {
        let attached = Attached::open(name).map_err(|error| to_py(error, name))?;
        Ok(Self {
            name: name.to_owned(),
            max_age_ms,
            attached: RwLock::new(Arc::new(attached)),
            lookout: Lookout::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Ends the use of the feed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn max_age_ms(&self) -> Option<u64> {
        self.max_age_ms
    }

    /// What `attach` was given, to the millisecond.
    pub(crate) fn max_age(&self) -> Option<f64> {
        self.max_age_ms.map(|limit_ms| limit_ms as f64 / 1e3)
    }

    /// Refuses when the feed was closed.
    #[inline]
    pub(crate) fn check_open(&self) -> PyResult<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(BlockNotFound::new_err((self.name.clone(), "this feed was closed; attach again")));
        }
        Ok(())
    }

    /// Returns the block that has the name now, as far as known.
    pub(crate) fn attached(&self) -> PyResult<Arc<Attached>> {
        self.check_open()?;
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(if self.is_good(&attached) { attached } else { self.follow(attached) })
    }

    /// Whether there is no reason to look for another block than this one.
    #[inline]
    pub(crate) fn is_good(&self, attached: &Attached) -> bool {
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

    pub(crate) fn place(&self, symbol: &str) -> PyResult<(Arc<Attached>, usize)> {
        let attached = self.attached()?;
        match attached.place(symbol) {
            Some(index) => Ok((attached, index)),
            None => Err(UnknownSymbol::new_err((symbol.to_owned(), self.name.clone()))),
        }
    }

    pub(crate) fn error(&self, error: Error) -> PyErr {
        to_py(error, &self.name)
    }

    /// Refuses to wait for a collector whose heartbeat is too old.
    pub(crate) fn check_collector(&self, attached: &Attached, what: &str) -> PyResult<()> {
        let age_ms = heartbeat_age_ms(&attached.block);
        match self.max_age_ms {
            Some(limit_ms) if age_ms > limit_ms => Err(stale(what, age_ms, limit_ms, false)),
            _ => Ok(()),
        }
    }
}

/// Returns `StaleData`.
pub(crate) fn stale(symbol: &str, age_ms: u64, limit_ms: u64, delisted: bool) -> PyErr {
    StaleData::new_err((symbol.to_owned(), seconds(age_ms), limit_ms as f64 / 1e3, delisted))
}
