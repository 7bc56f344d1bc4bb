//! The newest candles of many symbols in named shared memory: one writer, any number of readers, no locks.
//!
//! The hot path is one line of files:
//!
//! ```text
//! bytes -> wire/parse.rs -> merge.rs -> publish.rs -> [shared memory] -> read.rs -> values
//! ```
//!
//! [`wire::parse::parse`] turns a response body into rows. [`merge::plan`] decides what they change, without storing
//! anything. [`publish::SeriesWriter`] stores the change under readers that never see half a row.
//! [`read::SeriesReader`] copies rows out, or lends them in place and checks afterwards that they did not change.
//! [`writer::Writer`] connects the first three and owns the block.
//!
//! Modules in reading order:
//!
//! - [`interval`], [`zone`]: candle indices and open times. [`columns`]: the twelve values of a row. [`market`].
//! - [`layout`]: the format of a block. [`symbols`]: its symbol table. [`ring`]: the slot of a candle index.
//! - [`seqlock`]: the newest row. [`announce`]: words that tell readers what was stored before them.
//! - [`publish`], [`read`], [`panel`], [`asof`], [`page`], [`watch`]: storing and reading rows.
//! - [`wire`]: what the exchange sends, as rows, and its text of them. [`merge`], [`chain`] (proof by trade ids), [`mod@derive`]
//!   (resampling).
//! - [`shared_memory`]: the operating system. [`block`], [`soundness`], [`succession`] (one block after another),
//!   [`removal`].
//! - [`writer`]: the owner of a block. [`gate`]: how threads take turns at it. Beside it, [`pool`]: how much request
//!   weight may still be spent, and [`ledger`]: the file that holds a pool.
//!
//! What the crate never does: read a clock, the network or the environment; wait for a reader; allocate while a reader
//! could see half of a change.

pub mod announce;
pub mod columns;
pub mod error;
pub mod interval;
pub mod layout;
pub mod market;
pub mod publish;
pub mod read;
pub mod ring;
pub mod seqlock;
pub mod symbols;
pub mod sync;
pub mod waiting;
pub mod wire;
pub mod zone;

#[cfg(not(loom))]
pub mod asof;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod chain;
pub mod derive;
#[cfg(not(loom))]
pub mod feed;
#[cfg(not(loom))]
pub mod gate;
#[cfg(not(loom))]
pub mod ledger;
#[cfg(not(loom))]
pub mod merge;
#[cfg(not(loom))]
pub mod page;
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
pub mod watch;
#[cfg(not(loom))]
pub mod writer;

#[cfg(not(loom))]
pub use feed::{Feed, Series};
