//! The exchange's streams in one thread: sockets, TLS, websocket frames, and then the core's parse, merge and publish.
//!
//! No Python runs here, and no object of Python is made for a frame or a batch. Somebody else decides which streams
//! there are, opens the sockets (by what address or proxy), and says when to replace a connection: [`streams::Streams`]
//! takes commands, and [`board::Board`] says what happened.
//!
//! ```text
//! socket ▶ tls ▶ frames ▶ session ▶ [core: parse ▶ merge ▶ publish ▶ wake]
//! ```

pub mod board;
pub mod frames;
pub mod handshake;
pub mod nats;
pub mod outlet;
pub mod session;
// It merges into a block, and loom has none.
#[cfg(not(loom))]
pub mod streams;
mod sync;
pub mod tls;
