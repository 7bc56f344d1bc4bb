//! What the exchange sends, as rows: response bodies, stream events, files of its archive.

pub mod archive_csv;
pub mod event;
pub mod parse;
