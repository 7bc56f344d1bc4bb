//! The footer of a Parquet file: which columns it has, where their pages lie, and what is known about the rows.

use candleshm::columns::{CLOSE_TIME_MS, COLUMNS, NAMES, OPEN_TIME_MS};

use crate::compact::{BYTES, Compact, I16, I32, I64, LIST, STRUCT};

/// What stands at both ends of a file.
const MAGIC: &[u8] = b"PAR1";
/// The length of the footer and the magic behind it.
const TAIL_BYTES: usize = 8;
/// Types of values, as the format counts them.
const INT64: i64 = 2;
const FLOAT64: i64 = 5;
const ZSTD: i64 = 6;
/// No value may be missing.
const REQUIRED: i64 = 0;

const ABOUT: &[u8] = b"candleshm";
const CHECKSUM: &[u8] = b"candleshm.sha256";

/// Whether the values of a column are whole numbers on disk.
pub(crate) fn is_time(column: usize) -> bool {
    column == OPEN_TIME_MS || column == CLOSE_TIME_MS
}

/// What a footer says of a file of candles in the form that candleshm writes.
#[derive(Debug, Default)]
pub(crate) struct Footer<'a> {
    pub(crate) rows: usize,
    /// The bytes of each column's pages.
    pub(crate) columns: [&'a [u8]; COLUMNS],
    /// What is known about the rows, as it was written.
    pub(crate) about: &'a [u8],
    /// The checksum over that and the values, as text.
    pub(crate) checksum: &'a [u8],
}

impl<'a> Footer<'a> {
    /// Reads the footer of a file; `None` for another form, or what is none.
    pub(crate) fn of(file: &'a [u8]) -> Option<Self> {
        let content = file.strip_prefix(MAGIC)?.strip_suffix(MAGIC)?;
        let (content, length) = content.split_last_chunk()?;
        let start = file.len().checked_sub(TAIL_BYTES + u32::from_le_bytes(*length) as usize)?;
        let text = content.get(start.checked_sub(MAGIC.len())?..)?;
        let (mut footer, mut is_schema_there, mut groups) = (Self::default(), false, 0);
        let mut footer_bytes = Compact::new(text);
        footer_bytes.fields(|from, field, kind| match (field, kind) {
            (2, LIST) => {
                is_schema_there = true;
                schema(from)
            }
            (3, I64) => from.count().map(|rows| footer.rows = rows),
            (4, LIST) => from.list(STRUCT, |from, place| {
                groups = place + 1;
                footer.group(from, file.get(..start)?)
            }),
            (5, LIST) => from.list(STRUCT, |from, _| footer.metadata(from)),
            (1, I32) | (6, BYTES) => from.skip(kind),
            // How values are ordered: by their type, one for each column.
            (7, LIST) => from.list(STRUCT, |from, _| {
                from.fields(|from, field, kind| match (field, kind) {
                    (1, STRUCT) => from.fields(|_, _, _| None),
                    _ => None,
                })
            }),
            _ => None,
        })?;
        if !footer_bytes.rest().is_empty() {
            return None;
        }
        let is_ours = is_schema_there && groups == 1 && !footer.about.is_empty() && !footer.checksum.is_empty();
        is_ours.then_some(footer)
    }

    /// The only group of rows.
    fn group(&mut self, from: &mut Compact<'a>, pages: &'a [u8]) -> Option<()> {
        let (mut count, mut rows) = (0, None);
        from.fields(|from, field, kind| match (field, kind) {
            (1, LIST) => from.list(STRUCT, |from, place| {
                count = place + 1;
                let chunk = chunk(from, place, (pages, self.rows))?;
                self.columns.get_mut(place).map(|column| *column = chunk)
            }),
            (3, I64) => from.count().map(|number| rows = Some(number)),
            (2 | 5 | 6, I64) | (7, I16) => from.skip(kind),
            _ => None,
        })?;
        (count == COLUMNS && rows == Some(self.rows)).then_some(())
    }

    fn metadata(&mut self, from: &mut Compact<'a>) -> Option<()> {
        let (mut key, mut value) = (None, None);
        from.fields(|from, field, kind| match (field, kind) {
            (1, BYTES) => from.binary().map(|bytes| key = Some(bytes)),
            (2, BYTES) => from.binary().map(|bytes| value = Some(bytes)),
            _ => None,
        })?;
        let place = match key? {
            ABOUT => &mut self.about,
            CHECKSUM => &mut self.checksum,
            _ => return Some(()),
        };
        // What stands there twice may be read differently by others.
        if place.is_empty() {
            *place = value?;
            Some(())
        } else {
            None
        }
    }
}

/// Checks that the columns are those of a candle: names, order, types, none with missing values.
fn schema(from: &mut Compact<'_>) -> Option<()> {
    let mut count = 0;
    from.list(STRUCT, |from, place| {
        count = place + 1;
        let (mut of, mut repetition, mut name, mut children) = (None, None, None, None);
        from.fields(|from, field, kind| match (field, kind) {
            (1, I32) => from.number().map(|number| of = Some(number)),
            (3, I32) => from.number().map(|number| repetition = Some(number)),
            (4, BYTES) => from.binary().map(|bytes| name = Some(bytes)),
            (5, I32) => from.count().map(|number| children = Some(number)),
            (9, I32) => from.skip(kind),
            _ => None,
        })?;
        let is_expected = match place.checked_sub(1) {
            None => {
                of.is_none()
                    && name.is_some()
                    && children == Some(COLUMNS)
                    && repetition.unwrap_or(REQUIRED) == REQUIRED
            }
            Some(column) => {
                of == Some(if is_time(column) { INT64 } else { FLOAT64 })
                    && repetition == Some(REQUIRED)
                    && name == NAMES.get(column).map(|name| name.as_bytes())
                    && children.is_none()
            }
        };
        is_expected.then_some(())
    })?;
    (count == COLUMNS + 1).then_some(())
}

/// Returns the bytes of a column's pages.
fn chunk<'a>(from: &mut Compact<'a>, column: usize, (pages, rows): (&'a [u8], usize)) -> Option<&'a [u8]> {
    let (mut codec, mut bytes, mut offset, mut values, mut name) = (None, None, None, None, None);
    from.fields(|from, field, kind| match (field, kind) {
        (3, STRUCT) => from.fields(|from, field, kind| match (field, kind) {
            (1, I32) => (from.number()? == if is_time(column) { INT64 } else { FLOAT64 }).then_some(()),
            (2, LIST) => from.list(I32, |from, _| from.number()?.ge(&0).then_some(())),
            (3, LIST) => from.list(BYTES, |from, place| {
                name = if place == 0 { Some(from.binary()?) } else { return None };
                Some(())
            }),
            (4, I32) => from.number().map(|number| codec = Some(number)),
            (5, I64) => from.count().map(|number| values = Some(number)),
            (6, I64) => from.skip(kind),
            (7, I64) => from.count().map(|number| bytes = Some(number)),
            (9, I64) => from.count().map(|number| offset = Some(number)),
            // How many pages have which encoding.
            (13, LIST) => from.list(STRUCT, |from, _| {
                from.fields(|from, field, kind| match (field, kind) {
                    (1..=3, I32) => from.number()?.ge(&0).then_some(()),
                    _ => None,
                })
            }),
            _ => None, // an index, a dictionary, statistics
        }),
        (2, I64) => from.skip(kind),
        _ => None, // in another file, encrypted
    })?;
    let offset = offset?;
    let is_ours = codec == Some(ZSTD)
        && values == Some(rows)
        && name == NAMES.get(column).map(|name| name.as_bytes())
        && offset >= MAGIC.len();
    if is_ours { pages.get(offset..offset.checked_add(bytes?)?) } else { None }
}
