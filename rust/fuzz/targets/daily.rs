//! The bytes of a daily file: what is read has the rows that it says, and its checksum holds; nothing else is believed.
#![no_main]

use candleshm::columns::COLUMNS;
use candleshm_daily::{DailyFile, ROWS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(file) = DailyFile::read(input) {
        assert!(file.values.len().is_multiple_of(COLUMNS) && file.values.len() <= ROWS_MAX * COLUMNS);
        assert!(!file.about.is_empty());
    }
});
