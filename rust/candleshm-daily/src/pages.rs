//! The pages of a column: each is checked against its checksum before it is unpacked.

use zstd::bulk::Decompressor;

use crate::compact::{Compact, I32, STRUCT};
use crate::deltas;

const DATA_PAGE: i64 = 0;
const PLAIN: i64 = 0;
const DELTA_BINARY_PACKED: i64 = 5;
/// How a page says which values are missing, which none is.
const RLE: i64 = 3;
/// Bytes of a value.
const WORD: usize = 8;
/// What a page of differences may have more than its numbers.
const DELTAS_OVER: usize = 4096;

/// What unpacks pages, with the memory that it needs for that.
pub(crate) struct Unpacker<'a> {
    zstd: Decompressor<'a>,
    page: Vec<u8>,
    numbers: Vec<i64>,
}

/// What the head of a page says.
#[derive(Debug, Default)]
struct Head {
    kind: Option<i64>,
    bytes: usize,
    packed_bytes: usize,
    crc: Option<i64>,
    values: usize,
    encoding: Option<i64>,
}

impl Unpacker<'_> {
    pub(crate) fn new() -> Option<Self> {
        Some(Self { zstd: Decompressor::new().ok()?, page: Vec::new(), numbers: Vec::new() })
    }

    /// Sets all values of a column out of its pages; `None` when they are not as they were written, or of another form.
    pub(crate) fn column(&mut self, pages: &[u8], is_time: bool, values: &mut [f64]) -> Option<()> {
        let (mut from, mut place) = (pages, 0);
        while place < values.len() {
            let (head, rest) = Head::of(from)?;
            let (packed, rest) = rest.split_at_checked(head.packed_bytes)?;
            from = rest;
            let target = values[place..].get_mut(..head.values)?;
            place += head.values;
            let bytes_max = head.values * WORD + if is_time { DELTAS_OVER + head.values } else { 0 };
            let is_whole = head.kind == Some(DATA_PAGE)
                && head.crc.map(|crc| crc as i32 as u32) == Some(crc32fast::hash(packed))
                && head.values > 0
                && head.bytes <= bytes_max;
            if !is_whole {
                return None;
            }
            self.page.resize(head.bytes, 0);
            if self.zstd.decompress_to_buffer(packed, self.page.as_mut_slice()).ok()? != head.bytes {
                return None;
            }
            match (head.encoding?, is_time) {
                (PLAIN, false) if head.bytes == head.values * WORD => {
                    for (value, word) in target.iter_mut().zip(self.page.as_chunks().0) {
                        *value = f64::from_le_bytes(*word);
                    }
                }
                (DELTA_BINARY_PACKED, true) => {
                    self.numbers.clear();
                    deltas::append(&self.page, head.values, &mut self.numbers)?;
                    for (value, &number) in target.iter_mut().zip(&self.numbers) {
                        *value = number as f64;
                    }
                }
                _ => return None,
            }
        }
        from.is_empty().then_some(())
    }
}

impl Head {
    /// Reads the head of a page, and returns what stands behind it.
    fn of(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (mut head, mut from) = (Self::default(), Compact::new(bytes));
        from.fields(|from, field, kind| match (field, kind) {
            (1, I32) => from.number().map(|number| head.kind = Some(number)),
            (2, I32) => from.count().map(|count| head.bytes = count),
            (3, I32) => from.count().map(|count| head.packed_bytes = count),
            (4, I32) => from.number().map(|number| head.crc = Some(number)),
            (5, STRUCT) => from.fields(|from, field, kind| match (field, kind) {
                (1, I32) => from.count().map(|count| head.values = count),
                (2, I32) => from.number().map(|number| head.encoding = Some(number)),
                (3 | 4, I32) => (from.number()? == RLE).then_some(()),
                (5, STRUCT) => from.fields(|_, _, _| None), // statistics, without any
                _ => None,
            }),
            _ => None,
        })?;
        Some((head, from.rest()))
    }
}
