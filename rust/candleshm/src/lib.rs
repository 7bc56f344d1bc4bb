//! The newest candles of many symbols in named shared memory: one writer, any number of readers, no locks.
//!
//! The hot path is one line of files:
//!
//! ```text
//! bytes -> parse.rs -> merge.rs -> publish.rs -> [shared memory] -> read.rs -> values
//! ```
//!
//! [`parse::parse`] turns a response body into rows; [`merge::plan`] decides what they change, without storing
//! anything; [`publish::SeriesWriter`] stores it under readers that never see half a row; [`read::SeriesReader`]
//! copies rows out, or lends them where they lie and says afterwards whether they stayed. [`writer::Writer`] strings
//! the first three together and owns the block.
//!
//! Modules in reading order: [`interval`] and [`zone`] (candle indices and open times), [`columns`] (the twelve values of a row),
//! [`layout`] (the block's format), [`announce`] (words that say what is there), [`symbols`] (the symbol table), [`ring`] (where a candle index lies), [`latch`] (the newest
//! row), [`publish`], [`read`], [`panel`], [`asof`], [`parse`], [`event`], [`merge`], [`chain`], [`derive`] (bigger
//! candles), [`shared_memory`] (the operating system), [`block`], [`soundness`], [`succession`] (one block after another),
//! [`writer`], [`removal`]. Beside them, [`pool`]: how much
//! request weight may still be spent, and [`archive_csv`]: the exchange's files of old candles.
//!
//! What it never does: read a clock, the network, the environment; wait for a reader; allocate while a reader could
//! see half of a change.

pub mod announce;
pub mod archive_csv;
pub mod columns;
pub mod error;
pub mod event;
pub mod interval;
pub mod latch;
pub mod layout;
pub mod market;
pub mod parse;
pub mod publish;
pub mod read;
pub mod ring;
pub mod symbols;
pub mod sync;
pub mod zone;

#[cfg(not(loom))]
pub mod asof;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod chain;
pub mod derive;
#[cfg(not(loom))]
pub mod merge;
#[cfg(not(loom))]
pub mod panel;
#[cfg(not(loom))]
pub mod pool;
#[cfg(not(loom))]
pub mod removal;
#[cfg(not(loom))]
pub mod shared_memory;
#[cfg(not(loom))]
pub mod soundness;
#[cfg(not(loom))]
pub mod succession;
#[cfg(not(loom))]
pub mod writer;
