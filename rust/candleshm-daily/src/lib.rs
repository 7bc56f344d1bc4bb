//! Daily files of candles, read with every check.
//!
//! The files are Parquet, which the crate `parquet` reads. Here is what goes beyond it: that the form is the one in which
//! candleshm writes (no dictionaries, one group of rows, zstd), and the checksum over all values. It says nothing of other
//! files: they may be good, or damaged, which a general reader decides.
//!
//! ```text
//! bytes ▶ footer ▶ pages ▶ columns ▶ rows ▶ checksum
//! ```

mod file;
mod pages;

pub use file::{DailyFile, ROWS_MAX};
