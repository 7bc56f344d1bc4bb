//! The orderings of the block, explored by loom: `RUSTFLAGS="--cfg loom" cargo test --release --test loom`.
//!
//! Readers store nothing, so they cannot influence the writer, and what one of them can see follows from the writer's
//! stores alone. Each test therefore lets a collector write a few things to a tiny block (two columns, a window of two
//! rows in a ring of three) beside one reader, and loom tries every value that each load of the reader may return
//! under C11: that is a reader asleep for as long as it likes, and any number of readers.
//!
//! `mutants.py` leaves out one ordering after the other and demands that a test here fails.
//!
//! What loom does not explore here: stores that are reordered behind the point where a process dies and are lost with
//! it, more than seven values of one word, 2^24 rewrites during one read. A copy tries twice here instead of three
//! times.
//!
//! No test explores lost stores in general. Of the one harmful case that is known (the overwrite mark is lost while the
//! tags of its advance are not, under rows that the next owner blanks), `kill.rs` starts a test with the block that
//! such a death leaves: the next owner raises the overwrite mark before it blanks rows.

#![cfg(loom)]

mod announce;
mod head;
mod kill;
mod model;
mod provisional;
mod range;
mod rewrite;
mod seqlock;
mod symbols;
mod wait;
