//! `libcandleshm`: the core's feed for C, C++ and whatever can call C.
//!
//! `include/candleshm.h` declares and explains every function; a test compares it with what is exported here. This crate
//! converts pointers and errors, catches panics, and decides nothing.

mod border;
mod environment;
mod feed;
mod health;
mod many;
mod series;
mod view;
mod waits;
