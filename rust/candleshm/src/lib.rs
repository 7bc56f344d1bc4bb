//! The newest Binance candles of hundreds of symbols, in named shared memory: attach, and read them in place.
//!
//! A collector (`candleshm serve`) keeps a *block* fresh: the candles of one market and interval, under a name in
//! `/dev/shm`. Any number of processes read it, without a lock and without a call.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use candleshm::{Feed, Window, columns};
//!
//! # fn main() -> Result<(), candleshm::Error> {
//! let feed = Feed::attach("candleshm-spot-1m", Some(Duration::from_mins(1)))?;
//! let btc = feed.series("BTCUSDT")?;
//! println!("{}", btc.last_close()?);
//!
//! // A private, consistent copy of the newest 100 slots, the live one included; and the states of the same moment.
//! let candles = btc.candles(&Window::newest(100))?;
//! println!("{:?} {:?}", candles.column(columns::CLOSE), candles.states.last());
//!
//! // Final rows where they lie, without a copy. Believe nothing before `check` said that no row changed meanwhile.
//! let view = btc.view(Some(1440))?;
//! let mean = view.values(columns::CLOSE).sum::<f64>() / view.len() as f64;
//! view.check()?;
//! println!("{mean}");
//!
//! // Sleep until the next candle is final for all symbols that trade.
//! let closed = feed.wait_closed(&candleshm::Close::default(), None, || true)?;
//! println!("{} of {} symbols", closed.open_ms, closed.symbols.len());
//! # Ok(())
//! # }
//! ```
//!
//! - [`Feed`]: a name, and the block that stands under it now. It moves to a block that takes the name. It hands out
//!   [`Series`], health, waits for closes, and values of many symbols at once ([`feed::Group`], [`feed::Panel`]).
//! - [`Series`]: the candles of one symbol: copies ([`Window`], [`Candles`]), the newest row, [`View`]s, waits.
//! - [`columns`]: the twelve values of a row. [`RowState`]: what a row is worth.
//! - [`Error`]: what can go wrong, as text for people; [`ErrorKind`]: what a program can do about it.
//!
//! With `max_age`, data that the exchange confirmed longer ago is an error instead of a value. Everything is `Send` and
//! `Sync`. Only Linux is supported, as the blocks are.
//!
//! # The feature `collector`
//!
//! Whoever writes blocks needs more: the parsers of what the exchange sends, the merge, the writer, the weight pool. The
//! feature `collector` makes these modules public, and the parts of a block with them. They serve the collector that
//! comes with this crate, and change with it: no stable API.
//!
//! The hot path is one line of files:
//!
//! ```text
//! bytes -> wire/parse.rs -> merge.rs -> publish.rs -> [shared memory] -> read.rs -> values
//! ```
//!
//! `wire::parse::parse` turns a response body into rows. `merge::plan` decides what they change, without storing
//! anything. `publish::SeriesWriter` stores the change under readers that never see half a row.
//! `read::SeriesReader` copies rows out, or lends them in place and checks afterwards that they did not change.
//! `writer::Writer` connects the first three and owns the block.
//!
//! Modules in reading order:
//!
//! - `interval`, `zone`: candle indices and open times. `columns`: the twelve values of a row. `market`.
//! - `layout`: the format of a block. `symbols`: its symbol table. `ring`: the slot of a candle index.
//! - `seqlock`: the newest row. `announce`: words that tell readers what was stored before them. `waiting`: sleeping on
//!   them.
//! - `publish`, `read`, `panel`, `asof`, `page`, `watch`: storing and reading rows.
//! - `wire`: what the exchange sends, as rows, and its text of them. `merge`, `chain` (proof by trade ids), `derive`
//!   (resampling).
//! - `shared_memory`: the operating system. `block`, `soundness`, `succession` (one block after another), `removal`.
//! - `lockstep`: how a replay awaits its readers. `condition`: what a collector says about itself.
//! - `feed`: readers that follow a name and wait. It reads the machine's clocks; to all else time is an argument.
//! - `replica`: what copies of a block on other hosts are told, and what they request.
//! - `writer`: the owner of a block. `replay`: history, written as if it happened. `gate`: how threads take turns at it.
//!   Beside it, `pool`: how much request weight may still be spent, and `ledger`: the file that holds a pool.
//!
//! What the crate never does: read the network or the environment; wait for a reader; allocate while a reader could see
//! half of a change.
// Readers alone use a part of what the modules below offer.
#![cfg_attr(not(feature = "collector"), allow(dead_code, unused_imports, unreachable_pub, clippy::pedantic))]

pub mod columns;
pub mod error;
#[cfg(not(loom))]
pub mod feed;

// With the feature `collector` the parts of a block are public, without it they are the crate's own.
#[cfg(feature = "collector")]
pub mod announce;
#[cfg(all(not(loom), feature = "collector"))]
pub mod asof;
#[cfg(all(not(loom), feature = "collector"))]
pub mod block;
#[cfg(feature = "collector")]
pub mod interval;
#[cfg(feature = "collector")]
pub mod layout;
#[cfg(all(not(loom), feature = "collector"))]
pub mod lockstep;
#[cfg(feature = "collector")]
pub mod market;
#[cfg(all(not(loom), feature = "collector"))]
pub mod page;
#[cfg(all(not(loom), feature = "collector"))]
pub mod panel;
#[cfg(feature = "collector")]
pub mod price;
#[cfg(feature = "collector")]
pub mod read;
#[cfg(all(not(loom), feature = "collector"))]
pub mod replay;
#[cfg(feature = "collector")]
pub mod ring;
#[cfg(feature = "collector")]
pub mod seqlock;
#[cfg(all(not(loom), feature = "collector"))]
pub mod shared_memory;
#[cfg(all(not(loom), feature = "collector"))]
pub mod succession;
#[cfg(feature = "collector")]
pub mod symbols;
#[cfg(feature = "collector")]
pub mod sync;
#[cfg(feature = "collector")]
pub mod waiting;
#[cfg(feature = "collector")]
pub mod wire;
#[cfg(feature = "collector")]
pub mod zone;

// What only owners of blocks use.
#[cfg(all(not(loom), feature = "collector"))]
pub mod chain;
#[cfg(all(not(loom), feature = "collector"))]
pub mod condition;
#[cfg(feature = "collector")]
pub mod derive;
#[cfg(all(not(loom), feature = "collector"))]
pub mod gate;
#[cfg(all(not(loom), feature = "collector"))]
pub mod ledger;
#[cfg(all(not(loom), feature = "collector"))]
pub mod merge;
#[cfg(all(not(loom), feature = "collector"))]
pub mod pool;
#[cfg(feature = "collector")]
pub mod publish;
#[cfg(all(not(loom), feature = "collector"))]
pub mod removal;
#[cfg(all(not(loom), feature = "collector"))]
pub mod replica;
#[cfg(all(not(loom), feature = "collector"))]
pub mod soundness;
#[cfg(all(not(loom), feature = "collector"))]
pub mod watch;
#[cfg(all(not(loom), feature = "collector"))]
pub mod writer;

#[cfg(not(feature = "collector"))]
macro_rules! private {
    ($($module:ident)*) => { $(mod $module;)* };
}
#[cfg(not(feature = "collector"))]
private! {
    announce asof block interval layout lockstep market page panel price read
    ring seqlock shared_memory succession symbols sync waiting wire zone
}

pub use error::{Corruption, Error, ErrorKind};
#[cfg(not(loom))]
pub use feed::{Candles, Close, Closed, Feed, Gap, Health, Holes, Series, View, Window};
pub use interval::{Grid, Interval};
pub use layout::{BlockState, RowState};
pub use market::Market;
#[cfg(not(loom))]
pub use page::{Incomplete, Page, PageRequest};
pub use sync::Target;
