//! What a watcher of a series is told, beside a list of all candles: random lives of a block, looked at now and then.

mod scratch;

use std::collections::BTreeMap;

use candleshm::columns::{CLOSE, Row, TRADES};
use candleshm::interval::{Grid, Interval};
use candleshm::merge::RequestWindow;
use candleshm::read::SeriesReader;
use candleshm::watch::{Change, Watch};
use candleshm::writer::Writer;
use proptest::prelude::*;

use scratch::{Scratch, config, owner};

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_735_689_600_000;
const LENGTH: usize = 8;
const SETTLE_MS: i64 = 1_000;

/// What happens to a block.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time goes on by so many seconds, and the live candle trades.
    Pass(i64),
    /// A response with the newest rows.
    Poll(usize),
    /// A response for rows that are older by so many candles.
    Repair(i64, usize),
    /// The exchange never has a candle that is to come in so many minutes.
    Hole(i64),
    /// The exchange corrects the candle that is older by so many.
    Correct(i64),
    /// The owner dies, and another one takes over.
    TakeOver,
    /// The watcher looks.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..90_i64).prop_map(Step::Pass),
        1 => (200..1_500_i64).prop_map(Step::Pass),
        6 => (1..6_usize).prop_map(Step::Poll),
        3 => ((0..10_i64), (1..6_usize)).prop_map(|(older, rows)| Step::Repair(older, rows)),
        1 => (1..5_i64).prop_map(Step::Hole),
        1 => (1..6_i64).prop_map(Step::Correct),
        1 => Just(Step::TakeOver),
        6 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..120)
}

/// The exchange: what it has of each minute.
struct Exchange {
    now_ms: i64,
    versions: BTreeMap<i64, f64>,
    holes: Vec<i64>,
}

impl Exchange {
    fn minute(&self) -> i64 {
        (self.now_ms - FIRST_MS) / MINUTE_MS
    }

    fn row(&self, minute: i64) -> Option<Row> {
        if self.holes.contains(&minute) || minute < 0 || minute > self.minute() {
            return None;
        }
        let open_ms = FIRST_MS + minute * MINUTE_MS;
        let seconds = (self.now_ms - open_ms).min(MINUTE_MS) as f64 / 1e3;
        let close = 1.0 + seconds / 100.0 + self.versions.get(&minute).copied().unwrap_or(0.0);
        Some([open_ms as f64, 1.0, 99.0, 0.5, close, 10.0, (open_ms + 59_999) as f64, 15.0, seconds, 5.0, 7.0, 0.0])
    }

    /// Answers with the newest `limit` rows up to a minute.
    fn respond(&self, last: Option<i64>, limit: usize) -> (Vec<Row>, RequestWindow) {
        let newest = last.unwrap_or(self.minute());
        let mut rows: Vec<Row> = (0..=newest).rev().filter_map(|minute| self.row(minute)).take(limit).collect();
        rows.reverse();
        let window = RequestWindow {
            sent_ms: self.now_ms,
            received_ms: self.now_ms,
            settle_ms: SETTLE_MS,
            limit,
            start_ms: None,
            end_ms: last.map(|minute| FIRST_MS + minute * MINUTE_MS),
            from_end: true,
            patience_ms: 0,
        };
        (rows, window)
    }
}

/// What the watcher has been told, and what it must be told.
#[derive(Default)]
struct Judge {
    /// The oldest candle not told as final.
    next: Option<u64>,
    live: Option<(u64, Row)>,
}

impl Judge {
    /// Compares what was told at one look with the block, which nobody writes to meanwhile.
    fn check(&mut self, reader: SeriesReader<'_>, told: &[Change]) {
        let mut newest = [f64::NAN; 12];
        let marks = reader.newest(&mut newest).expect("nobody writes");
        if marks.end() == 0 {
            assert!(told.is_empty());
            return;
        }
        let start = reader.window_start(&marks);
        let begin = if marks.head > 0 && !reader.is_settled(marks.head - 1) { marks.head - 1 } else { marks.head };
        let mut next = self.next.unwrap_or(begin).max(start);
        let mut wanted = Vec::new();
        while next < marks.head && (reader.is_final(next) || reader.is_hole(next)) {
            if reader.is_final(next) {
                let mut row = [0.0; 12];
                reader
                    .copy_range(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], next, 1, false, &mut row, 1)
                    .expect("nobody writes");
                wanted.push(Change { candle_index: next, row, is_final: true });
            }
            next += 1;
        }
        if marks.has_live() && self.live != Some((marks.head, newest)) {
            self.live = Some((marks.head, newest));
            wanted.push(Change { candle_index: marks.head, row: newest, is_final: false });
        }
        self.next = Some(next);
        assert_eq!(told, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_candle_is_told_as_final_once_and_in_order(steps in steps()) {
        let scratch = Scratch::new("watch");
        let mut writer = Writer::open(scratch.name(), &config(LENGTH, &["BTCUSDT"]), owner()).expect("a new block");
        let mut exchange = Exchange { now_ms: FIRST_MS + 3 * MINUTE_MS, versions: BTreeMap::new(), holes: Vec::new() };
        let mut watch = Watch::new();
        let mut judge = Judge::default();
        let mut all_final: Vec<(u64, Row)> = Vec::new();
        let grid = Grid::new(Interval::Minute1);
        for step in steps {
            let response = match step {
                Step::Pass(seconds) => {
                    exchange.now_ms += seconds * 1_000;
                    None
                }
                Step::Poll(limit) => Some(exchange.respond(None, limit)),
                Step::Repair(older, limit) => Some(exchange.respond(Some((exchange.minute() - older).max(0)), limit)),
                Step::Hole(ahead) => {
                    let minute = exchange.minute() + ahead;
                    exchange.holes.push(minute);
                    None
                }
                Step::Correct(older) => {
                    let minute = exchange.minute() - older;
                    *exchange.versions.entry(minute).or_default() += 0.001;
                    None
                }
                Step::TakeOver => {
                    drop(writer);
                    writer = Writer::open(scratch.name(), &config(LENGTH, &["BTCUSDT"]), owner()).expect("its block");
                    watch.look_anew();
                    None
                }
                Step::Look => {
                    let mut told = Vec::new();
                    let reader = SeriesReader::new(writer.block(), 0);
                    watch.take(&reader, |change| told.push(change)).expect("nobody writes");
                    judge.check(reader, &told);
                    all_final.extend(told.iter().filter(|told| told.is_final).map(|told| (told.candle_index, told.row)));
                    told.clear();
                    watch.take(&reader, |change| told.push(change)).expect("nobody writes");
                    prop_assert!(told.is_empty(), "nothing was published since");
                    None
                }
            };
            if let Some((rows, window)) = response {
                writer.ingest(0, &rows, &window, 77);
            }
        }
        prop_assert!(all_final.is_sorted_by(|a, b| a.0 < b.0), "once each, and in order");
        for (candle_index, row) in all_final {
            prop_assert_eq!(grid.index_of(row[0] as i64) as u64, candle_index);
            // Corrections raise the close by thousandths: it traded for the whole minute.
            prop_assert_eq!(row[TRADES], 60.0, "{}", row[CLOSE]);
        }
    }
}

#[test]
fn a_watcher_begins_with_the_live_row_and_tells_what_closed_behind_its_back() {
    let scratch = Scratch::new("watch-begin");
    let mut writer = Writer::open(scratch.name(), &config(LENGTH, &["BTCUSDT"]), owner()).expect("a new block");
    let mut exchange =
        Exchange { now_ms: FIRST_MS + 9 * MINUTE_MS + 30_000, versions: BTreeMap::new(), holes: Vec::new() };
    let mut watch = Watch::new();
    let mut look = |writer: &Writer| {
        let mut told = Vec::new();
        let first = Grid::new(Interval::Minute1).index_of(FIRST_MS) as u64;
        let tell = |change: Change| told.push((change.candle_index - first, change.is_final));
        watch.take(&SeriesReader::new(writer.block(), 0), tell).expect("nobody writes");
        told
    };
    assert_eq!(look(&writer), [], "a series without rows");
    let poll = |writer: &mut Writer, exchange: &Exchange, limit| {
        let (rows, window) = exchange.respond(None, limit);
        writer.ingest(0, &rows, &window, 77);
    };
    poll(&mut writer, &exchange, 10);
    assert_eq!(look(&writer), [(9, false)], "nothing that was final before");
    poll(&mut writer, &exchange, 10);
    assert_eq!(look(&writer), [], "the same values");
    exchange.now_ms += 3 * MINUTE_MS;
    poll(&mut writer, &exchange, 10);
    assert_eq!(look(&writer), [(9, true), (10, true), (11, true), (12, false)]);
    exchange.now_ms += 2 * MINUTE_MS;
    poll(&mut writer, &exchange, 2);
    assert_eq!(look(&writer), [(14, false)], "12 may still change: it waits, and 13 behind it");
    poll(&mut writer, &exchange, 3);
    assert_eq!(look(&writer), [(12, true), (13, true)]);
    exchange.now_ms += 30 * MINUTE_MS;
    poll(&mut writer, &exchange, 20);
    let told = look(&writer);
    assert_eq!(told.first(), Some(&(36, true)), "the window begins there");
    assert_eq!(told.len(), LENGTH + 1);
}
