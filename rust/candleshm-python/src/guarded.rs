//! `Guarded`: a writer behind the gate that its threads pass one after the other, and all writers of this process.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use candleshm::gate::Gate;
use candleshm::writer::Writer as CoreWriter;
use pyo3::prelude::*;

use crate::exchange_clock::ExchangeClock;
use crate::recording::Recorded;

/// What serialises the threads. None is inside while Python runs, nor while it waits for the GIL.
pub(crate) type Owned = Gate<Guarded>;

/// A writer, and what it still merges.
pub(crate) struct Guarded {
    /// None once closed.
    pub(crate) writer: Option<CoreWriter>,
    /// Whether nothing is merged any more.
    pub(crate) stopped: bool,
    /// Responses to requests that left before are not merged; local seconds.
    pub(crate) restarted_seconds: f64,
    /// Shards of the block that this process leads itself.
    pub(crate) led: Vec<u32>,
    /// By what clock the streams' events are judged; None before it is known.
    pub(crate) exchange_clock: Option<ExchangeClock>,
    /// What is merged is also given to it, by the thread that is inside.
    recorded: Recorded,
}

/// The writers of this process, for `forget_writers`.
static WRITERS: Mutex<Vec<Weak<Owned>>> = Mutex::new(Vec::new());

impl Guarded {
    /// Puts a writer behind a gate, and notes that this process has it.
    pub(crate) fn own(writer: CoreWriter, recorded: Recorded) -> Arc<Owned> {
        let guarded = Self {
            writer: Some(writer),
            stopped: false,
            restarted_seconds: f64::NEG_INFINITY,
            led: Vec::new(),
            exchange_clock: None,
            recorded,
        };
        let owned = Arc::new(Gate::new(guarded));
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(&owned));
        owned
    }
}

/// Lets go of every writer, without a word to the blocks: to be called in a forked child.
///
/// A child shares the parent's lock on a block. Were it to keep the file open, a collector that dies would go on owning
/// its block for as long as any process that it once forked is alive.
#[pyfunction]
pub(crate) fn forget_writers() {
    // What another thread of the parent held at the moment of the fork stays locked in the child for ever.
    if let Ok(mut writers) = WRITERS.try_lock() {
        for writer in writers.drain(..).filter_map(|writer| writer.upgrade()) {
            if let Some(mut writer) = writer.try_enter() {
                drop(writer.writer.take());
                writer.recorded.forget();
            }
        }
    }
}
