//! Daily files of candles, read with every check.
//!
//! The files are Parquet, as any library reads them. This one reads those that candleshm writes (no statistics, no
//! dictionaries, one group of rows, zstd, page checksums) many times faster than a general reader, and says nothing of
//! others: they may be good, or damaged, which a general reader decides.
//!
//! ```text
//! bytes ▶ footer ▶ pages ▶ columns ▶ rows ▶ checksum
//! ```

mod compact;
mod deltas;
mod file;
mod footer;
mod pages;

pub use file::{DailyFile, ROWS_MAX};
