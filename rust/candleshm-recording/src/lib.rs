//! What the exchange sent, kept as it came, and merged again into a block.
//!
//! A [`recorder::Recorder`] takes records of whatever changes a block from outside: responses, frames of streams, rows of
//! files, symbols, clocks. It writes them in a thread of its own and never keeps the merging threads waiting. A
//! [`reading::Reading`] gives them back as far as they are whole, and a [`player::Player`] runs them through the core's
//! parser, merge and writer, with the times that they had.
//!
//! ```text
//! merge ▶ record ▶ recorder ▶ [files] ▶ reading ▶ player ▶ parse ▶ merge ▶ publish
//! ```

mod cursor;
mod files;
pub mod format;
pub mod player;
pub mod reading;
pub mod record;
pub mod recorder;
pub mod source;
