//! Derived blocks against a slow reference: after every response each derived row is what the rows of the source block
//! make it, through gaps, holes, corrections, days of 23 and 25 hours, and a collector that dies.

mod scratch;

use candleshm::block::Block;
use candleshm::columns::{
    CLOSE, CLOSE_TIME_MS, COLUMNS, HIGH, LOW, OPEN, QUOTE_VOLUME, Row, TRADES, VOLUME, bits_equal,
};
use candleshm::derive::Derivation;
use candleshm::error::Error;
use candleshm::interval::{Grid, Interval};
use candleshm::layout::RowState;
use candleshm::merge::RequestWindow;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::writer::{Config, Writer};
use proptest::prelude::*;

use scratch::{BOOT_ID, Scratch, config, owner};

const STEP_MS: i64 = 900_000;
const LENGTH: usize = 110;
const SETTLE_MS: i64 = 1_000;
const TARGETS: [&str; 4] = ["30m", "1h", "1d", "1d@America/New_York"];

/// What the exchange has: a candle is a function of its index and of how often it was restated.
fn kline(candle_index: i64, version: i64) -> Option<Row> {
    let word = (candle_index * 7 + version * 3).cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Some candles are absent for good, some are without a trade.
    if candle_index % 23 == 5 || candle_index % 97 < 5 {
        return None;
    }
    let trades = if candle_index % 5 == 2 { 0 } else { word >> 60 };
    let price = |shift: u32| 100.0 + f64::from((word >> shift) as u8) / 100.0;
    let lots = if trades == 0 { 0 } else { (word >> 20) & 0xFFFF_FFFF };
    let (open, close) = if trades == 0 { (price(0), price(0)) } else { (price(8), price(0)) };
    let volume = lots as f64 / 1e8;
    let open_ms = candle_index * STEP_MS;
    let mut row = [0.0; COLUMNS];
    row[..5].copy_from_slice(&[open_ms as f64, open, open.max(close) + 0.5, open.min(close) - 0.5, close]);
    if trades == 0 {
        (row[HIGH], row[LOW]) = (close, close);
    }
    row[5..9].copy_from_slice(&[
        volume,
        (open_ms + STEP_MS - 1) as f64,
        (volume * close * 1e8).round() / 1e8,
        trades as f64,
    ]);
    // The engine stopped within the row before a long hole.
    if candle_index % 97 == 96 {
        row[CLOSE_TIME_MS] -= 12_345.0;
    }
    Some(row)
}

#[derive(Debug, Clone)]
enum Step {
    /// Seconds pass.
    Pass(i64),
    /// The newest rows are requested.
    Newest(usize),
    /// Rows further back are: from how far, how many, restated how often.
    Older(i64, usize, i64),
    /// The same twice, settle apart: what is absent is confirmed.
    Twice(usize),
    /// A response to a request of so many seconds ago arrives only now.
    Late(i64, usize),
    TakeOver,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![Just(30), Just(300), Just(2_000), Just(20_000), 1..9_000_i64].prop_map(Step::Pass),
        6 => prop_oneof![Just(2_usize), Just(5), Just(40), Just(120)].prop_map(Step::Newest),
        3 => (0..130_i64, 1..60_usize, 0..3_i64).prop_map(|(back, count, version)| Step::Older(back, count, version)),
        2 => prop_oneof![Just(3_usize), Just(60), Just(200)].prop_map(Step::Twice),
        2 => (1..40_000_i64, 1..60_usize).prop_map(|(seconds, count)| Step::Late(seconds, count)),
        1 => Just(Step::TakeOver),
    ];
    prop::collection::vec(step, 1..40)
}

fn target_name(scratch: &Scratch, target: &str) -> String {
    format!("{}-{}", scratch.name(), target.replace(['@', '/'], "-"))
}

fn open(scratch: &Scratch) -> Result<Writer, Error> {
    let config = Config { interval: Interval::Minute15, ..config(LENGTH, &["BTCUSDT"]) };
    let mut writer = Writer::open(scratch.name(), &config, owner())?;
    for target in TARGETS {
        writer.derive(&target_name(scratch, target), Grid::parse(target).expect("a grid"), LENGTH, owner())?;
    }
    Ok(writer)
}

/// The rows of a series, as (candle index, state, row).
fn rows_of(name: &str) -> (u64, Vec<(u64, RowState, Row)>) {
    let block = Block::open(name, BOOT_ID).expect("the block is there");
    let reader = SeriesReader::new(&block, 0);
    let mut columns = vec![0.0; LENGTH * COLUMNS];
    let mut snapshot = Snapshot::default();
    let selection = Selection { count: LENGTH, closed_only: false, states: true };
    reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
    let rows = snapshot.states.iter().enumerate().map(|(place, &state)| {
        let row = std::array::from_fn(|column| columns[column * LENGTH + place]);
        (snapshot.start + place as u64, state, row)
    });
    (reader.marks().expect("nobody writes").final_end, rows.collect())
}

/// The candle that these rows make, the slow way.
fn reference(grid: Grid, candle_index: u64, parts: &[(RowState, Row)], whole: bool) -> (RowState, Option<Row>) {
    let rows: Vec<&Row> = parts.iter().filter(|(state, _)| *state != RowState::Hole).map(|(_, row)| row).collect();
    let Some(last) = rows.last() else { return (RowState::Hole, None) };
    let live = !whole || parts.iter().any(|(state, _)| *state == RowState::Live);
    let traded: Vec<&&Row> = rows.iter().filter(|row| row[TRADES] > 0.0).collect();
    let sum = |column: usize| {
        let units: i128 = rows.iter().map(|row| (row[column] * 1e8).round() as i128).sum();
        format!("{}.{:08}", units / 100_000_000, units % 100_000_000).parse::<f64>().expect("a number")
    };
    let end_ms = grid.end_ms(candle_index as i64) as f64;
    let mut row = [0.0; COLUMNS];
    row[0] = grid.open_ms(candle_index as i64) as f64;
    row[OPEN] = traded.first().map_or(last[CLOSE], |row| row[OPEN]);
    row[HIGH] = traded.iter().map(|row| row[HIGH]).fold(f64::NAN, f64::max);
    row[LOW] = traded.iter().map(|row| row[LOW]).fold(f64::NAN, f64::min);
    if traded.is_empty() {
        (row[HIGH], row[LOW]) = (last[CLOSE], last[CLOSE]);
    }
    row[CLOSE] = last[CLOSE];
    row[VOLUME] = sum(VOLUME);
    row[CLOSE_TIME_MS] = if live { end_ms - 1.0 } else { last[CLOSE_TIME_MS] };
    row[QUOTE_VOLUME] = sum(QUOTE_VOLUME);
    row[TRADES] = rows.iter().map(|row| row[TRADES]).sum();
    (if live { RowState::Live } else { RowState::Closed }, Some(row))
}

/// Whether the newest candle cannot be derived, so that the series stays as it was from its newest row on.
fn grid_is_stalled(grid: Grid, source: &[(u64, RowState, Row)], newest_target: u64) -> bool {
    let start = (grid.open_ms(newest_target as i64) / STEP_MS) as u64;
    source.iter().any(|(candle_index, state, _)| *candle_index >= start && *state == RowState::Missing)
        || source.first().is_none_or(|(candle_index, ..)| *candle_index > start)
}

fn received_ms(name: &str) -> u64 {
    SeriesReader::new(&Block::open(name, BOOT_ID).expect("the block is there"), 0).received_ms()
}

/// Counts of what was compared, so that a test that compares nothing fails.
#[derive(Default)]
struct Seen {
    closed: usize,
    live: usize,
    holes: usize,
    missing: usize,
}

fn compare(scratch: &Scratch, seen: &mut Seen) {
    let (_, source) = rows_of(scratch.name());
    let (Some(&(oldest, ..)), Some(&(newest, ..))) = (source.first(), source.last()) else { return };
    let first_bar = {
        let block = Block::open(scratch.name(), BOOT_ID).expect("the block is there");
        block.entry(0)[candleshm::layout::symbol::FIRST_BAR].load(std::sync::atomic::Ordering::Relaxed)
    };
    for target in TARGETS {
        let grid = Grid::parse(target).expect("a grid");
        let (final_end, derived) = rows_of(&target_name(scratch, target));
        let newest_target = grid.index_of(newest as i64 * STEP_MS) as u64;
        for candle_index in grid.index_of(oldest as i64 * STEP_MS) as u64..=newest_target {
            let start = grid.open_ms(candle_index as i64) / STEP_MS;
            let end = (grid.end_ms(candle_index as i64) / STEP_MS) as u64;
            if (start as u64) < oldest && first_bar != oldest {
                continue;
            }
            let parts: Vec<(RowState, Row)> = source
                .iter()
                .filter(|(part, ..)| (start as u64..end).contains(part))
                .map(|&(_, state, row)| (state, row))
                .collect();
            let found = derived.iter().find(|(there, ..)| *there == candle_index);
            if parts.iter().any(|(state, _)| *state == RowState::Missing) {
                // The newest that could be derived stands as it was before the gap.
                let state = found.map_or(RowState::Missing, |found| found.1);
                let is_newest = derived.last().is_some_and(|(last, ..)| *last == candle_index);
                assert!(
                    state == RowState::Missing || is_newest && state == RowState::Live,
                    "{target} {candle_index}: {state:?}"
                );
                seen.missing += 1;
                continue;
            }
            let newest_is_live = source.last().is_some_and(|(_, state, _)| *state == RowState::Live);
            let (state, row) = reference(grid, candle_index, &parts, end <= newest + u64::from(!newest_is_live));
            let stalled = grid_is_stalled(grid, &source, newest_target);
            if stalled && derived.last().is_none_or(|(last, ..)| *last <= candle_index) {
                continue;
            }
            let &(_, there, values) =
                found.unwrap_or_else(|| panic!("{target} {candle_index} is not there, {state:?}"));
            if state == RowState::Live && candle_index < final_end {
                assert_eq!(there, RowState::Missing, "{target} {candle_index}");
                continue;
            }
            assert_eq!(there, state, "{target} {candle_index} of {parts:?}");
            match row {
                Some(row) => assert!(bits_equal(&row, &values), "{target} {candle_index}: {row:?} {values:?}"),
                None => seen.holes += 1,
            }
            seen.closed += usize::from(state == RowState::Closed);
            seen.live += usize::from(state == RowState::Live);
        }
        if !grid_is_stalled(grid, &source, newest_target) {
            assert_eq!(received_ms(&target_name(scratch, target)), received_ms(scratch.name()), "{target} is as fresh");
        }
        // Backtests agree: what is final is what `rows` makes of the same rows.
        let derivation = Derivation::new(Interval::Minute15.into(), grid).expect("it tiles");
        let known = source.iter().rposition(|(_, state, _)| *state == RowState::Missing).map_or(0, |place| place + 1);
        let finals = source[known..].iter().take_while(|(_, state, _)| *state != RowState::Live);
        let finals: Vec<_> = finals.collect();
        let (Some((first, ..)), Some((last, ..))) = (finals.first(), finals.last()) else { continue };
        let range_ms = (*first as i64 * STEP_MS, (*last as i64 + 1) * STEP_MS);
        let rows = finals.iter().filter(|(_, state, _)| *state == RowState::Closed).map(|(_, _, row)| row);
        for row in derivation.rows(rows, range_ms).expect("ascending") {
            let candle_index = grid.index_of(row[0] as i64) as u64;
            let found = derived.iter().find(|(there, state, _)| *there == candle_index && *state == RowState::Closed);
            let stalled = grid_is_stalled(grid, &source, newest_target);
            let Some((_, _, values)) = found else {
                assert!(
                    stalled && derived.last().is_none_or(|(last, ..)| *last <= candle_index),
                    "{target} {candle_index}"
                );
                continue;
            };
            assert!(bits_equal(&row, values), "{target} {candle_index}: {row:?} {values:?}");
        }
    }
}

fn ask(writer: &mut Writer, now_ms: i64, start_ms: i64, limit: usize, version: i64) {
    let window = RequestWindow {
        sent_ms: now_ms,
        received_ms: now_ms,
        settle_ms: SETTLE_MS,
        limit,
        start_ms: Some(start_ms),
        end_ms: None,
        from_end: false,
        patience_ms: 0,
    };
    let first = start_ms.div_euclid(STEP_MS);
    let rows: Vec<Row> = (first..=now_ms / STEP_MS)
        .filter_map(|candle_index| {
            let mut row = kline(candle_index, version)?;
            if (candle_index + 1) * STEP_MS > now_ms {
                // A candle in progress has had fewer trades.
                row[TRADES] = (row[TRADES] - 1.0).max(row[TRADES].min(1.0));
            }
            Some(row)
        })
        .take(limit)
        .collect();
    writer.ingest(0, &rows, &window, now_ms as u64);
}

fn live(steps: &[Step], seen: &mut Seen) {
    let scratch = Scratch::new("derived");
    // The clocks of New York go back on 2025-11-02 at 06:00 UTC.
    let mut now_ms = 1_761_868_800_000 + 3 * STEP_MS;
    let mut writer = open(&scratch).expect("a new block");
    for step in steps {
        match *step {
            Step::Pass(seconds) => now_ms += seconds * 1_000,
            Step::Newest(count) => ask(&mut writer, now_ms, (now_ms / STEP_MS - count as i64) * STEP_MS, 1_000, 0),
            Step::Older(back, count, version) => {
                ask(&mut writer, now_ms, (now_ms / STEP_MS - back) * STEP_MS, count, version);
            }
            Step::Twice(count) => {
                for _ in 0..2 {
                    ask(&mut writer, now_ms, (now_ms / STEP_MS - count as i64) * STEP_MS, 1_000, 0);
                    now_ms += SETTLE_MS;
                }
            }
            Step::Late(seconds, count) => {
                let then_ms = now_ms - seconds * 1_000;
                ask(&mut writer, then_ms, (then_ms / STEP_MS - count as i64) * STEP_MS, 1_000, 0);
            }
            Step::TakeOver => {
                drop(writer);
                writer = open(&scratch).expect("the same block");
                assert!(writer.is_taken_over());
            }
        }
        compare(&scratch, seen);
    }
    writer.close(true).expect("the blocks are there");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_derived_row_is_what_the_source_makes_it(steps in steps()) {
        live(&steps, &mut Seen::default());
    }
}

#[test]
fn a_long_life() {
    let mut seen = Seen::default();
    let mut steps = vec![Step::Newest(10), Step::Newest(120), Step::Older(120, 60, 0), Step::Twice(130)];
    for round in 0..400 {
        steps.extend([Step::Pass(450), Step::Newest(3)]);
        steps.extend(match round % 50 {
            10 => vec![Step::Twice(130)],
            20 => vec![Step::Older(40, 20, 2)],
            30 => vec![Step::Pass(30_000), Step::Newest(5), Step::Older(40, 60, 0)],
            40 => vec![Step::TakeOver],
            _ => vec![],
        });
    }
    live(&steps, &mut seen);
    let Seen { closed, live, holes, missing } = seen;
    assert!(closed > 10_000 && live > 1_000 && holes > 100 && missing > 100, "{closed} {live} {holes} {missing}");
}

#[test]
fn a_correction_revises_the_derived_candle() {
    let scratch = Scratch::new("derived-corrected");
    let mut writer = open(&scratch).expect("a new block");
    let now_ms = 1_761_868_800_000;
    ask(&mut writer, now_ms, now_ms - 20 * STEP_MS, 1_000, 0);
    let newest = |target: &str| {
        let block = Block::open(&target_name(&scratch, target), BOOT_ID).expect("the block is there");
        let news = block.value(candleshm::layout::header::CLOSE_SEQ);
        (SeriesReader::new(&block, 0).marks().expect("nobody writes").revision, news)
    };
    assert_eq!(newest("1h").0, 0);
    let before = newest("1h").1;
    ask(&mut writer, now_ms + 1, now_ms - 14 * STEP_MS, 3, 1);
    let (revision, after) = newest("1h");
    assert!(revision > 0 && after == before + 1, "{revision} {before} {after}");
    writer.close(true).expect("the blocks are there");
}

#[test]
fn a_candle_that_lacks_a_row_grows_old() {
    let scratch = Scratch::new("derived-stalled");
    let mut writer = open(&scratch).expect("a new block");
    let now_ms = 1_761_890_400_000; // 06:00 UTC
    let day = target_name(&scratch, "1d");
    // Twice, as always: some of the rows are holes, and confirmed.
    let mut twice = |sent_ms: i64, start_ms: i64| {
        ask(&mut writer, sent_ms - 2_000, start_ms, 1_000, 0);
        ask(&mut writer, sent_ms, start_ms, 1_000, 0);
    };
    twice(now_ms, now_ms - 120 * STEP_MS);
    let before_ms = received_ms(scratch.name());
    assert_eq!(received_ms(&day), before_ms);
    let later_ms = now_ms + 10 * STEP_MS;
    twice(later_ms, later_ms - 2 * STEP_MS);
    assert!(received_ms(scratch.name()) > before_ms);
    assert_eq!(received_ms(&day), before_ms);
    twice(later_ms + 10_000, now_ms - 5 * STEP_MS);
    assert_eq!(received_ms(&day), received_ms(scratch.name()));
    assert!(received_ms(&day) > before_ms);
    writer.close(true).expect("the blocks are there");
}

#[test]
fn what_is_whole_is_there_also_when_the_newest_candle_lacks_a_row() {
    let scratch = Scratch::new("derived-whole");
    let mut writer = open(&scratch).expect("a new block");
    let gap = 1_957_696; // the first quarter of an hour; another one is absent 23 quarters before
    assert!(kline(gap, 0).is_none() && gap % 4 == 0);
    ask(&mut writer, (gap + 1) * STEP_MS + 2_000, (gap - 22) * STEP_MS, 1_000, 0);
    // Of older quarters nothing was asked yet.
    let there = |rows: &[(u64, RowState, Row)]| -> Vec<(u64, RowState)> {
        let rows = rows.iter().map(|&(hour, state, _)| (hour, state));
        rows.skip_while(|&(_, state)| state == RowState::Missing).collect()
    };
    let newest = (gap / 4) as u64;
    let whole: Vec<(u64, RowState)> = (newest - 5..newest).map(|hour| (hour, RowState::Closed)).collect();
    let hours = target_name(&scratch, "1h");
    assert_eq!(there(&rows_of(&hours).1), whole);
    assert_eq!(received_ms(&hours), 0, "it is not current");
    // The gap turns out to be a hole: the newest hour is live.
    ask(&mut writer, (gap + 1) * STEP_MS + 9_000, (gap - 22) * STEP_MS, 1_000, 0);
    assert_eq!(there(&rows_of(&hours).1)[whole.len()..], [(newest, RowState::Live)]);
    assert_eq!(received_ms(&hours), received_ms(scratch.name()));
    writer.close(true).expect("the blocks are there");
}

#[test]
fn what_left_the_source_before_it_was_loaded_is_not_missing() {
    let scratch = Scratch::new("derived-late");
    let mut writer = open(&scratch).expect("a new block");
    let now_ms = 1_761_912_000_000; // on the hour, with all rows around it
    // The newest rows come first. Two hours close before the older rows do.
    ask(&mut writer, now_ms, now_ms - 2 * STEP_MS, 1_000, 0);
    let later_ms = now_ms + 8 * STEP_MS;
    for sent_ms in [later_ms, later_ms + 2_000] {
        ask(&mut writer, sent_ms, later_ms - (LENGTH as i64 + 2) * STEP_MS, 1_000, 0);
    }
    let missing =
        |name: &str| Block::open(name, BOOT_ID).expect("the block is there").value(candleshm::layout::header::MISSING);
    assert_eq!(missing(scratch.name()), 0);
    for target in ["30m", "1h"] {
        let name = target_name(&scratch, target);
        assert_eq!(missing(&name), 0, "{target}");
        let (_, rows) = rows_of(&name);
        assert!(rows.iter().all(|(_, state, _)| *state != RowState::Missing), "{target}");
        assert!(rows.len() >= 25, "{target}: {} are there", rows.len());
    }
    writer.close(true).expect("the blocks are there");
}

#[test]
fn rows_that_left_the_source_stay() {
    let scratch = Scratch::new("derived-long");
    let mut writer = open(&scratch).expect("a new block");
    let start_ms = 1_761_868_800_000;
    for hour in 0..200 {
        ask(&mut writer, start_ms + hour * 4 * STEP_MS + 2_000, start_ms + (hour - 2) * 4 * STEP_MS, 1_000, 0);
    }
    let (_, hours) = rows_of(&target_name(&scratch, "1h"));
    assert!(hours.len() > LENGTH - 5, "the source holds 27 hours, {} are there", hours.len());
    drop(writer);
    let writer = open(&scratch).expect("the same block");
    assert_eq!(rows_of(&target_name(&scratch, "1h")).1.len(), hours.len(), "also after a takeover");
    drop(writer);
}

/// What the exchange itself says of hours that lie within these quarters: the sums of them.
fn hours_of(quarters: std::ops::Range<i64>) -> Vec<Row> {
    let rows: Vec<Row> = quarters.clone().filter_map(|index| kline(index, 0)).collect();
    let derivation = Derivation::new(Interval::Minute15.into(), Interval::Hour1.into()).expect("it tiles");
    derivation.rows(rows.iter(), (quarters.start * STEP_MS, quarters.end * STEP_MS)).expect("ascending")
}

#[test]
fn older_rows_are_merged_and_compared() {
    const HOUR_MS: i64 = 4 * STEP_MS;
    let scratch = Scratch::new("derived-older");
    let name = target_name(&scratch, "1h");
    let start = || {
        let config = Config { interval: Interval::Minute15, ..config(LENGTH, &["BTCUSDT"]) };
        let mut writer = Writer::open(scratch.name(), &config, owner()).expect("nobody serves it");
        let hour = Interval::Hour1.into();
        writer.derive_and_fetch(&name, hour, hour, LENGTH, owner()).expect("nobody serves it");
        writer
    };
    let mut writer = start();
    assert_eq!(writer.older(&name, 0).expect("a series").rows, 0, "before there is a row nothing is known to lack");
    let now_ms = 1_761_868_800_000 + 20 * STEP_MS;
    let from_ms = now_ms - 300 * STEP_MS;
    ask(&mut writer, now_ms + 2_000, from_ms, 1_000, 0);
    ask(&mut writer, now_ms + 4_000, from_ms, 1_000, 0);
    let older = writer.older(&name, 0).expect("a series");
    let (start_ms, end_ms) = older.missing.newest_ms.expect("hours before the quarters");
    assert_eq!(older.rows as i64, (end_ms - start_ms) / HOUR_MS);
    assert!(older.rows > 80 && older.seam_end_ms > end_ms, "{older:?}");
    let answer = |writer: &mut Writer, until_ms: i64, spoiled: Option<i64>, sent_ms: i64| {
        let mut rows = hours_of((start_ms - HOUR_MS) / STEP_MS..until_ms / STEP_MS);
        for row in rows.iter_mut().filter(|row| Some(row[0] as i64) == spoiled) {
            row[HIGH] += 1.0;
        }
        let window = RequestWindow {
            sent_ms,
            received_ms: sent_ms,
            settle_ms: SETTLE_MS,
            limit: 1_000,
            start_ms: None,
            end_ms: Some(until_ms - 1),
            from_end: true,
            patience_ms: 0,
        };
        writer.ingest_older(&name, 0, &rows, &window, 1).expect("a series")
    };
    let suspect_ms = end_ms + HOUR_MS;
    let high = || {
        let (_, rows) = rows_of(&target_name(&scratch, "1h"));
        rows.iter().find(|(_, _, row)| row[0] as i64 == suspect_ms).expect("the row").2[HIGH]
    };
    let derived_high = high();
    let fetched = answer(&mut writer, end_ms + 4 * HOUR_MS, Some(suspect_ms), now_ms + 5_000);
    assert_eq!((fetched.conflicts, fetched.report.tally.corrected), (1, 1));
    answer(&mut writer, end_ms + 4 * HOUR_MS, Some(suspect_ms), now_ms + 9_000);
    assert_eq!(writer.older(&name, 0).expect("a series").rows, 0);
    assert_eq!(high(), derived_high + 1.0, "the exchange's row stands");
    // Also when the quarters are told again, and after a kill: then the exchange is asked, and what it says stands.
    ask(&mut writer, now_ms + 20_000, from_ms, 1_000, 0);
    assert_eq!(high(), derived_high + 1.0);
    drop(writer);
    let mut writer = start();
    assert_eq!(high(), derived_high + 1.0);
    assert_eq!(writer.older(&name, 0).expect("a series").suspect_ms, Some((suspect_ms, suspect_ms + HOUR_MS)));
    let fetched = answer(&mut writer, end_ms + 4 * HOUR_MS, None, now_ms + 30_000);
    assert_eq!((fetched.conflicts, fetched.report.tally.corrected), (0, 1));
    assert_eq!(high(), derived_high);
    assert_eq!(writer.older(&name, 0).expect("a series").suspect_ms, None);
    writer.close(true).expect("the blocks are there");
}

#[test]
fn a_start_that_fails_leaves_what_was_there_and_nothing_else() {
    let scratch = Scratch::new("derived-abandoned");
    let hours = target_name(&scratch, "1h");
    let start = || {
        let config = Config { interval: Interval::Minute15, ..config(LENGTH, &["BTCUSDT"]) };
        let mut writer = Writer::open(scratch.name(), &config, owner()).expect("nobody serves it");
        writer.derive(&hours, Interval::Hour1.into(), LENGTH, owner()).expect("nobody serves it");
        writer
    };
    start().abandon();
    assert!(scratch.files().is_empty());
    // A collector that died left the source, but no hours.
    let config = Config { interval: Interval::Minute15, ..config(LENGTH, &["BTCUSDT"]) };
    drop(Writer::open(scratch.name(), &config, owner()).expect("a new block"));
    start().abandon();
    assert_eq!(scratch.files(), [scratch.name()]);
}

#[test]
fn what_cannot_be_derived_is_refused() {
    let scratch = Scratch::new("derived-refused");
    let mut writer = Writer::open(scratch.name(), &config(100, &["BTCUSDT"]), owner()).expect("a new block");
    let name = target_name(&scratch, "x");
    let too_long = writer.derive(&name, Interval::Hour2.into(), 100, owner());
    assert_eq!(too_long, Err(Error::Window { target: "2h".into(), parts: 120, length: 100 }));
    let itself = writer.derive(&name, Interval::Minute1.into(), 100, owner());
    assert_eq!(itself, Err(Error::Derivation { source: "1m".into(), target: "1m".into() }));
    assert!(writer.derived_names().is_empty());
}
