//! Rows that were kept elsewhere: what of them gets into a series, and what does not.

mod scratch;

use candleshm::columns::Row;
use candleshm::layout::RowState::{self, Closed, Hole, Live, Missing, Verified};
use candleshm::merge::RequestWindow;
use candleshm::read::SeriesReader;
use candleshm::writer::{Report, Writer};

use scratch::{Scratch, config, owner};

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_735_689_600_000;
const LENGTH: usize = 8;
/// When the rows were requested: the ninth minute had just ended.
const KEPT_MS: i64 = FIRST_MS + 9 * MINUTE_MS;

fn row(minute: i64, close: f64) -> Row {
    let open_ms = FIRST_MS + minute * MINUTE_MS;
    [open_ms as f64, 1.0, 9.0, 0.5, close, 10.0, (open_ms + 59_999) as f64, 15.0, 3.0, 5.0, 7.0, 0.0]
}

fn window(sent_ms: i64, limit: usize) -> RequestWindow {
    RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 0,
        limit,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    }
}

fn writer(scratch: &Scratch) -> Writer {
    Writer::open(scratch.name(), &config(LENGTH, &["BTCUSDT"]), owner()).expect("the name is free")
}

/// State of each minute from `start` on, read from the tags.
fn states(writer: &Writer, start: i64, end: i64) -> Vec<RowState> {
    let (words, grid) = (writer.block().series(0), writer.block().grid(0));
    (start..end).map(|minute| words.tag(grid.index_of(FIRST_MS + minute * MINUTE_MS) as u64).state()).collect()
}

fn last_close(writer: &Writer) -> f64 {
    SeriesReader::new(writer.block(), 0).last_close()
}

#[test]
fn final_rows_fill_an_empty_series_and_holes_are_requested_again() {
    let scratch = Scratch::new("kept-fill");
    let mut writer = writer(&scratch);
    let mut kept: Vec<(Row, RowState)> = (0..8).map(|minute| (row(minute, 2.0), Closed)).collect();
    kept[3].1 = Verified;
    kept[5].1 = Hole;
    let Report { tally, newest_open_ms, missing, .. } = writer.load(0, &kept, KEPT_MS);
    assert_eq!((tally.closed, tally.holes, missing), (7, 0, 1));
    assert_eq!(newest_open_ms, Some(FIRST_MS + 7 * MINUTE_MS));
    assert_eq!(states(&writer, 0, 8), [Closed, Closed, Closed, Verified, Closed, Missing, Closed, Closed]);
    assert_eq!(SeriesReader::new(writer.block(), 0).received_ms(), 0, "nobody confirmed anything now");
    assert_eq!(writer.universe_ms(), Some(FIRST_MS + 7 * MINUTE_MS));
    // Twice is as good as once.
    let again = writer.load(0, &kept, KEPT_MS);
    assert_eq!((again.tally.changed, again.tally.closed, again.tally.holes), (0, 0, 0));
}

#[test]
fn what_was_not_final_is_never_trusted() {
    let scratch = Scratch::new("kept-live");
    let mut writer = writer(&scratch);
    let kept = [
        (row(6, 2.0), Closed),
        (row(7, 2.0), Live),
        (row(8, 2.0), Missing),
        // Said to be closed, but it had not ended when it was requested.
        (row(9, 2.0), Closed),
    ];
    let report = writer.load(0, &kept, KEPT_MS);
    assert_eq!(report.newest_open_ms, Some(FIRST_MS + 6 * MINUTE_MS));
    assert_eq!(report.unsettled_open_ms, Some(FIRST_MS + 7 * MINUTE_MS));
    assert_eq!(report.missing, LENGTH - 1);
}

#[test]
fn what_is_there_counts_for_more_and_gaps_are_filled() {
    let scratch = Scratch::new("kept-there");
    let mut writer = writer(&scratch);
    // The exchange gave minutes 4 and 7, both final, and the live minute 9.
    writer.ingest(0, &[row(4, 3.0), row(7, 3.0), row(9, 3.0)], &window(FIRST_MS + 9 * MINUTE_MS + 1, 3), 17);
    let kept: Vec<(Row, RowState)> = (0..10).map(|minute| (row(minute, 2.0), Closed)).collect();
    let report = writer.load(0, &kept, FIRST_MS + 20 * MINUTE_MS);
    assert_eq!(report.tally.corrected, 0);
    assert_eq!(report.missing, 0);
    let grid = writer.block().grid(0);
    let words = writer.block().series(0);
    let close = |minute: i64| words.row(grid.index_of(FIRST_MS + minute * MINUTE_MS) as u64)[4];
    assert_eq!((close(4), close(7)), (3.0, 3.0));
    assert_eq!((close(3), close(5), close(8)), (2.0, 2.0, 2.0));
    // The live candle has ended by now, so what was kept of it is newer.
    assert_eq!(last_close(&writer), 2.0);
    assert_eq!(SeriesReader::new(writer.block(), 0).received_ms(), 17);
}

#[test]
fn the_exchange_may_restate_what_was_kept() {
    let scratch = Scratch::new("kept-restated");
    let mut writer = writer(&scratch);
    writer.load(0, &[(row(7, 2.0), Closed)], KEPT_MS);
    let report = writer.ingest(0, &[row(7, 4.0)], &window(KEPT_MS + 1, 1), 1);
    assert_eq!(report.tally.corrected, 1);
    assert_eq!(last_close(&writer), 4.0);
}

#[test]
fn rows_that_cannot_be_true_are_refused() {
    let scratch = Scratch::new("kept-refused");
    let mut writer = writer(&scratch);
    let mut wrong = row(7, 2.0);
    wrong[2] = 0.1; // high below low
    let report = writer.load(0, &[(wrong, Closed), (row(6, 2.0), Verified)], KEPT_MS);
    assert_eq!((report.tally.refused, report.tally.closed), (1, 1));
    assert_eq!(report.newest_open_ms, Some(FIRST_MS + 6 * MINUTE_MS));
}
