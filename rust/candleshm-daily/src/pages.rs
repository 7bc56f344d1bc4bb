//! The pages of a column: the crate `parquet` finds and checks them, and they are unpacked with a thread's own context.

use std::cell::RefCell;

use bytes::Bytes;
use parquet::basic::Encoding::{DELTA_BINARY_PACKED, PLAIN};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;

/// Bytes of a value.
const WORD: usize = 8;
/// What a page of differences may have more than its numbers.
const DELTAS_OVER: usize = 4096;

thread_local! {
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Pages that are unpacked as they are read; any other form than that of our files is an error.
pub(crate) struct Unpacked {
    packed: SerializedPageReader<Bytes>,
    is_time: bool,
    rows: usize,
}

impl Unpacked {
    /// Takes the pages of a column whose metadata say that nothing is packed, so that they come as they lie in the file.
    pub(crate) fn new(packed: SerializedPageReader<Bytes>, is_time: bool, rows: usize) -> Self {
        Self { packed, is_time, rows }
    }

    /// Unpacks a page into as many bytes as its values take, at most.
    fn unpack(&self, mut page: Page) -> Result<Page> {
        let other = || ParquetError::General("of another form".into());
        let Page::DataPage { buf, num_values, encoding, .. } = &mut page else { return Err(other()) };
        let (values, expected) = (*num_values as usize, if self.is_time { DELTA_BINARY_PACKED } else { PLAIN });
        if *encoding != expected || values > self.rows {
            return Err(other());
        }
        let bytes_max = values * WORD + if self.is_time { DELTAS_OVER + values } else { 0 };
        let bytes = ZSTD.with_borrow_mut(|zstd| {
            let zstd = match zstd {
                Some(zstd) => zstd,
                None => zstd.insert(Decompressor::new()?),
            };
            zstd.decompress(buf, bytes_max)
        })?;
        *buf = Bytes::from(bytes);
        Ok(page)
    }
}

impl Iterator for Unpacked {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Unpacked {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.packed.get_next_page()?.map(|page| self.unpack(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.packed.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.packed.skip_next_page()
    }
}
