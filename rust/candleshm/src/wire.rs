//! What the exchange sends, as rows: response bodies, stream events, files of its archive. And rows as its text.

pub mod archive_csv;
pub mod event;
pub mod event_text;
pub mod parse;
pub mod text;
