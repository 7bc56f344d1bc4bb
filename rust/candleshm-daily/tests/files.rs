//! Files as they lie on disk: whole, changed and made up. `tests/test_daily_decoding.py` compares with pyarrow.

use candleshm::columns::{COLUMNS, OPEN_TIME_MS};
use candleshm_daily::DailyFile;
use proptest::prelude::*;

/// A day of 1h.
const FILE: &[u8] = include_bytes!("../../fuzz/seeds/daily/hours.parquet");
const HOUR_MS: f64 = 3_600_000.0;

#[test]
fn a_file_is_read_with_what_is_known_about_it() {
    let file = DailyFile::read(FILE).unwrap();
    assert!(file.about.starts_with(br#"{"format":1,"market":"SPOT","symbol":"BTCUSDT","interval":"1h""#));
    let rows = file.values.as_chunks::<COLUMNS>().0;
    assert_eq!(rows.len(), 24);
    assert!(rows.windows(2).all(|pair| pair[1][OPEN_TIME_MS] - pair[0][OPEN_TIME_MS] == HOUR_MS));
}

#[test]
fn a_thread_reads_one_file_after_another() {
    let first = DailyFile::read(FILE).unwrap();
    assert_eq!(DailyFile::read(&FILE[1..]), None);
    assert_eq!(DailyFile::read(FILE), Some(first));
}

proptest! {
    #[test]
    fn changed_bytes_are_found_or_mean_nothing(
        changes in prop::collection::vec((0..FILE.len(), any::<u8>()), 1..8), size in 0..=2 * FILE.len()
    ) {
        let mut bytes = FILE.to_vec();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        bytes.truncate(size);
        if let Some(file) = DailyFile::read(&bytes) {
            prop_assert_eq!(file, DailyFile::read(FILE).unwrap());
        }
    }

    #[test]
    fn made_up_footers_are_read_within_their_bounds(footer in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = b"PAR1".to_vec();
        bytes.extend(&footer);
        bytes.extend((footer.len() as u32).to_le_bytes());
        bytes.extend(b"PAR1");
        prop_assert_eq!(DailyFile::read(&bytes), None);
    }
}
