//! `DailyFile`: the rows of a file and what is known about them, once every check has passed.

use std::fmt::Write;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use candleshm::columns::{CLOSE_TIME_MS, COLUMNS, NAMES, OPEN_TIME_MS};
use parquet::basic::{Compression, ConvertedType, Type};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetStatisticsPolicy};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader, SerializedPageReader};
use sha2::{Digest, Sha256};

use crate::pages::Unpacked;

/// Rows of a file, at most: a day of 25 hours of 1s.
pub const ROWS_MAX: usize = 90_000;
/// Rows that are put together and hashed in one go: they stay near.
const ROWS_AT_ONCE: usize = 64;
const WORD: usize = 8;

const ABOUT: &str = "candleshm";
const CHECKSUM: &str = "candleshm.sha256";

/// What a daily file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DailyFile {
    /// What is known about the rows, as JSON, byte for byte as it was written.
    pub about: Vec<u8>,
    /// The values of all rows, row by row.
    pub values: Vec<f64>,
}

impl DailyFile {
    /// Reads a file of candles in the form in which candleshm writes them.
    ///
    /// `None` is no verdict: the file is damaged, or it is of another form. Checked are: the columns, their names, order
    /// and types; the encoding and the CRC of every page; that all rows are there, and how many they may be; the SHA-256
    /// over what is known and all values. Whether the rows are those of the days that they are said to be is for the
    /// caller.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        // The crate has places where damaged bytes panic.
        catch_unwind(|| Self::decoded(bytes)).ok().flatten()
    }

    fn decoded(bytes: &[u8]) -> Option<Self> {
        let options = ReadOptionsBuilder::new()
            .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_encoding_stats_as_mask(true)
            .with_reader_properties(ReaderProperties::builder().set_read_bloom_filter(false).build())
            .build();
        let bytes = Arc::new(Bytes::copy_from_slice(bytes));
        let file = SerializedFileReader::new_with_options(Bytes::clone(&bytes), options).ok()?;
        let footer = file.metadata();
        let rows = rows_of(footer)?;
        let known = footer.file_metadata().key_value_metadata()?;
        let (about, checksum) = (text(known, ABOUT)?, text(known, CHECKSUM)?);
        let mut columns = Vec::with_capacity(rows * COLUMNS);
        let mut times = Vec::new();
        for place in 0..COLUMNS {
            let chunk = footer.row_group(0).column(place);
            let column = chunk.column_descr_ptr();
            // The crate would make what packs and unpacks anew for each column, which takes longer than unpacking does.
            let packed = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build().ok()?;
            let pages = SerializedPageReader::new(Arc::clone(&bytes), &packed, rows, None).ok()?;
            let pages = Unpacked::new(pages, is_time(place), rows);
            let (_, count, _) = match get_column_reader(column, Box::new(pages)) {
                ColumnReader::Int64ColumnReader(mut reader) => {
                    times.clear();
                    let read = reader.read_records(rows, None, None, &mut times).ok()?;
                    columns.extend(times.iter().map(|&time| time as f64));
                    read
                }
                ColumnReader::DoubleColumnReader(mut reader) => {
                    reader.read_records(rows, None, None, &mut columns).ok()?
                }
                _ => return None,
            };
            if count != rows || columns.len() != (place + 1) * rows {
                return None;
            }
        }
        let mut digest = Sha256::new_with_prefix(about);
        let values = in_rows(&columns, rows, &mut digest);
        let sum = digest.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        (sum == checksum).then(|| Self { about: about.as_bytes().to_vec(), values })
    }
}

/// Returns how many rows a file has; `None` when its columns are not those of candles as candleshm writes them.
fn rows_of(footer: &ParquetMetaData) -> Option<usize> {
    let rows = usize::try_from(footer.file_metadata().num_rows()).ok()?;
    let [group] = footer.row_groups() else { return None };
    let schema = footer.file_metadata().schema_descr();
    let is_ours = (1..=ROWS_MAX).contains(&rows)
        && usize::try_from(group.num_rows()) == Ok(rows)
        && schema.root_schema().get_fields().len() == COLUMNS
        && schema.num_columns() == COLUMNS
        && group.num_columns() == COLUMNS;
    if !is_ours {
        return None;
    }
    for (place, (column, chunk)) in schema.columns().iter().zip(group.columns()).enumerate() {
        let is_expected = column.path().parts() == [NAMES[place]]
            && column.physical_type() == if is_time(place) { Type::INT64 } else { Type::DOUBLE }
            && column.logical_type_ref().is_none()
            && column.converted_type() == ConvertedType::NONE
            && column.max_def_level() == 0
            && column.max_rep_level() == 0
            && matches!(chunk.compression(), Compression::ZSTD(_))
            && chunk.column_path().parts() == [NAMES[place]]
            && usize::try_from(chunk.num_values()) == Ok(rows)
            && chunk.dictionary_page_offset().is_none()
            && chunk.data_page_offset() >= 0
            && chunk.compressed_size() >= 0;
        if !is_expected {
            return None;
        }
    }
    Some(rows)
}

/// Whether the values of a column are whole numbers on disk.
fn is_time(column: usize) -> bool {
    column == OPEN_TIME_MS || column == CLOSE_TIME_MS
}

/// Returns the text of a key; `None` when it is not there, empty, or there twice, which others may read differently.
fn text<'a>(known: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let mut found = known.iter().filter(|pair| pair.key == key);
    let pair = found.next()?;
    pair.value.as_deref().filter(|text| !text.is_empty() && found.next().is_none())
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
