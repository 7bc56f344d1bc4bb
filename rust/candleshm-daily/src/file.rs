//! `DailyFile`: the rows of a file and what is known about them, once every check has passed.

use std::cell::RefCell;
use std::fmt::Write;

use candleshm::columns::COLUMNS;
use sha2::{Digest, Sha256};

use crate::footer::{Footer, is_time};
use crate::pages::Unpacker;

/// Rows of a file, at most: a day of 25 hours of 1s.
pub const ROWS_MAX: usize = 90_000;
/// Rows that are put together and hashed in one go: they stay near.
const ROWS_AT_ONCE: usize = 64;
const WORD: usize = 8;
/// A thread keeps memory for columns of so many rows: twelve days of 1m, a month of 15m; longer files are rare.
const ROWS_KEPT: usize = 16_384;

/// What reads a file, with memory that is used again: a fresh page of memory costs as much as unpacking it.
struct Workshop {
    unpacker: Unpacker<'static>,
    columns: Vec<f64>,
}

thread_local! {
    static WORKSHOP: RefCell<Option<Workshop>> = const { RefCell::new(None) };
}

/// What a daily file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DailyFile<'a> {
    /// What is known about the rows, as JSON, byte for byte as it was written.
    pub about: &'a [u8],
    /// The values of all rows, row by row.
    pub values: Vec<f64>,
}

impl<'a> DailyFile<'a> {
    /// Reads a file of candles in the form in which candleshm writes them.
    ///
    /// `None` is no verdict: the file is damaged, or it is of another form. Checked are: the columns, their names, order
    /// and types; the CRC of every page; that all pages are there and nothing else; the SHA-256 over what is known and
    /// all values. Whether the rows are those of the days that they are said to be is for the caller.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let footer = Footer::of(bytes)?;
        if footer.rows == 0 || footer.rows > ROWS_MAX {
            return None;
        }
        let mut digest = Sha256::new_with_prefix(footer.about);
        let values = WORKSHOP.with_borrow_mut(|workshop| {
            let Workshop { unpacker, columns } = if let Some(workshop) = workshop {
                workshop
            } else {
                workshop.insert(Workshop { unpacker: Unpacker::new()?, columns: Vec::new() })
            };
            let mut many = Vec::new();
            let columns = if footer.rows > ROWS_KEPT { &mut many } else { columns };
            columns.resize(footer.rows * COLUMNS, 0.0);
            for (column, values) in columns.chunks_exact_mut(footer.rows).enumerate() {
                unpacker.column(footer.columns[column], is_time(column), values)?;
            }
            Some(in_rows(columns, footer.rows, &mut digest))
        })?;
        let text = digest.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        (text.as_bytes() == footer.checksum).then_some(Self { about: footer.about, values })
    }
}

/// Returns the values row by row, and adds them to a digest in that order.
fn in_rows(columns: &[f64], rows: usize, digest: &mut Sha256) -> Vec<f64> {
    let mut values = vec![0.0; columns.len()];
    let mut bytes = [0; ROWS_AT_ONCE * COLUMNS * WORD];
    for (part, target) in values.chunks_mut(ROWS_AT_ONCE * COLUMNS).enumerate() {
        let first = part * ROWS_AT_ONCE;
        for (column, source) in columns.chunks_exact(rows).enumerate() {
            let source = &source[first..rows.min(first + ROWS_AT_ONCE)];
            for (row, value) in target.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(source) {
                row[column] = *value;
            }
        }
        for (word, value) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(&*target) {
            *word = value.to_le_bytes();
        }
        digest.update(&bytes[..target.len() * WORD]);
    }
    values
}
