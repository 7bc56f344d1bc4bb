//! Whatever happens to a block, its recording replays to the same block: from its beginning, from a checkpoint in the
//! middle, and when its oldest files are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use candleshm::columns::{COLUMNS, Row, TRADES};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::{Presence, RowState};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::wire::event;
use candleshm::wire::event_text::EventText;
use candleshm::wire::parse::parse;
use candleshm::wire::text::write_klines;
use candleshm::writer::{Config, Missing, Older, Owner, Writer};
use candleshm_recording::player::{Played, Player};
use candleshm_recording::reading::{Reading, Step as Read};
use candleshm_recording::record::{DerivedBlock, Fate, Record, add_text, bytes};
use candleshm_recording::recorder::{Place, Recorder};
use candleshm_recording::source::{checkpoint, run_of};
use proptest::prelude::*;

const MINUTE_MS: i64 = 60_000;
const LENGTH: usize = 30;
const SETTLE_MS: i64 = 1_000;
const SYMBOLS: [&str; 2] = ["AUSDT", "BUSDT"];
const START_MS: i64 = 1_700_000_000_000;
/// `CLOCK_BOOTTIME` of these tests is the exchange's time minus this.
const OFFSET_MS: i64 = START_MS - 1_000_000;
const PATIENCE: Duration = Duration::from_mins(1);

fn owner() -> Owner {
    Owner { pid: std::process::id().into(), pid_start: 1, boot_id: [1, 2], now_ns: 1_000_000_000 }
}

/// A directory and a block name of a test's own.
struct Scratch {
    directory: PathBuf,
    name: String,
}

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("recplayed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        Self { directory, name }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(i64),
    Newest(usize, usize),
    Older(usize, i64, usize, i64),
    /// The exchange's own five minutes, for the derived block.
    Fetched(usize, usize),
    Pushed(usize, i64, bool, i64),
    Garbage(usize),
    Present(usize, u8),
    Loaded(usize, i64, usize),
    Restart,
    Listed,
    Checkpoints,
}

fn step() -> impl Strategy<Value = Step> {
    let symbol = 0..SYMBOLS.len();
    prop_oneof![
        5 => prop_oneof![Just(1_i64), Just(20), Just(61), 1..900_i64].prop_map(Step::Pass),
        6 => (symbol.clone(), prop_oneof![Just(2_usize), Just(5), Just(40)]).prop_map(|(at, n)| Step::Newest(at, n)),
        3 => (symbol.clone(), 0..40_i64, 1..20_usize, 0..3_i64).prop_map(|(at, back, n, v)| Step::Older(at, back, n, v)),
        2 => (symbol.clone(), 1..20_usize).prop_map(|(at, n)| Step::Fetched(at, n)),
        5 => (symbol.clone(), 0..3_i64, any::<bool>(), 0..3_i64).prop_map(|(at, b, x, v)| Step::Pushed(at, b, x, v)),
        1 => symbol.clone().prop_map(Step::Garbage),
        1 => (symbol.clone(), 0..3_u8).prop_map(|(at, presence)| Step::Present(at, presence)),
        2 => (symbol, 0..50_i64, 1..40_usize).prop_map(|(at, back, n)| Step::Loaded(at, back, n)),
        1 => Just(Step::Restart),
        1 => Just(Step::Listed),
        2 => Just(Step::Checkpoints),
    ]
}

/// What the exchange has of a candle; `version` is how often it was restated.
fn kline(symbol: usize, open_ms: i64, span_ms: i64, version: i64) -> Option<Row> {
    let index = open_ms / MINUTE_MS;
    let word = (index * 7 + version * 3 + symbol as i64).cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    if index % 23 == 5 {
        return None;
    }
    let price = |shift: u32| 100.0 + f64::from((word >> shift) as u8) / 4.0;
    let (open, close) = (price(8), price(0));
    let trades = (word >> 60) as f64 + version as f64;
    let volume = trades * 2.0;
    let (high, low) = (open.max(close) + 0.5, open.min(close) - 0.5);
    let end_ms = open_ms + span_ms - 1;
    Some([open_ms as f64, open, high, low, close, volume, end_ms as f64, volume * 100.0, trades, 0.0, 0.0, 0.0])
}

/// Returns the newest rows of a symbol up to a time.
fn rows_until(symbol: usize, end_ms: i64, count: usize, span_ms: i64, version: i64) -> Vec<Row> {
    let newest = end_ms / span_ms;
    let row = |index: i64| kline(symbol, index * span_ms, span_ms, version);
    let mut rows: Vec<Row> = (0..).map(|back| newest - back).filter_map(row).take(count).collect();
    rows.reverse();
    rows
}

struct World {
    live: Writer,
    derived: Vec<DerivedBlock>,
    recorder: Option<Recorder>,
    now_ms: i64,
    listed: usize,
}

impl World {
    fn new(scratch: &Scratch) -> Self {
        let config = Config {
            market: Market::Spot,
            price: Price::Trade,
            interval: Interval::Minute1,
            length: LENGTH,
            symbols: SYMBOLS.map(str::to_owned).to_vec(),
            spare_symbols: 3,
            exchange: "example".into(),
        };
        let mut live = Writer::open(&scratch.name, &config, owner()).unwrap();
        let name = format!("{}-5m", scratch.name);
        let target = Grid::parse("5m").unwrap();
        live.derive_and_fetch(&name, target, target, LENGTH, owner()).unwrap();
        let derived = vec![DerivedBlock { name, interval: "5m".into(), length: LENGTH as u64, fetched: "5m".into() }];
        Self { live, derived, recorder: None, now_ms: START_MS, listed: 0 }
    }

    fn boot_ms(&self) -> u64 {
        (self.now_ms - OFFSET_MS) as u64
    }

    /// Begins to record, with all that is known so far.
    fn record(&mut self, directory: &Path, bytes_max: u64) {
        let run = run_of(&self.live, &self.derived, OFFSET_MS);
        let place = Place { directory: directory.to_owned(), bytes_max, run: 1 };
        self.recorder = Some(Recorder::start(place, run, self.boot_ms()).unwrap());
        self.checkpoint();
    }

    fn checkpoint(&self) {
        let Some(recorder) = &self.recorder else { return };
        while let Some(place) = recorder.next_checkpoint(0) {
            checkpoint(recorder, &self.live, &self.derived, place, self.boot_ms()).unwrap();
        }
    }

    fn push(&self, record: &Record<'_>) {
        if let Some(recorder) = &self.recorder {
            recorder.push(record, self.boot_ms());
        }
    }

    fn respond(&mut self, symbol: usize, rows: &[Row], window: RequestWindow, is_derived: bool) {
        let mut body = Vec::new();
        write_klines(&mut body, rows, None);
        let mut parsed = Vec::new();
        parse(&body, &mut parsed).unwrap();
        let boot_ms = self.boot_ms();
        let derived = if is_derived { self.derived[0].name.clone() } else { String::new() };
        if is_derived {
            self.live.ingest_older(&derived, symbol, &parsed, &window, boot_ms).unwrap();
        } else {
            self.live.ingest(symbol, &parsed, &window, boot_ms);
        }
        let symbol = SYMBOLS[symbol];
        self.push(&Record::Response { symbol, derived: &derived, window, fate: Fate::Merged, body: &body });
    }

    fn window(&self, limit: usize, end_ms: Option<i64>) -> RequestWindow {
        let (sent_ms, received_ms) = (self.now_ms, self.now_ms + 1);
        RequestWindow {
            sent_ms,
            received_ms,
            settle_ms: SETTLE_MS,
            limit,
            start_ms: None,
            end_ms,
            from_end: true,
            patience_ms: 10_000,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Pass(seconds) => self.now_ms += seconds * 1000,
            Step::Newest(symbol, count) => {
                let rows = rows_until(symbol, self.now_ms, count, MINUTE_MS, 0);
                self.respond(symbol, &rows, self.window(count, None), false);
            }
            Step::Older(symbol, back, count, version) => {
                let end_ms = self.now_ms - back * MINUTE_MS;
                let rows = rows_until(symbol, end_ms, count, MINUTE_MS, version);
                self.respond(symbol, &rows, self.window(count, Some(end_ms)), false);
            }
            Step::Fetched(symbol, count) => {
                let rows = rows_until(symbol, self.now_ms, count, 5 * MINUTE_MS, 0);
                self.respond(symbol, &rows, self.window(count, Some(self.now_ms)), true);
            }
            Step::Pushed(symbol, back, is_final, version) => {
                let open_ms = self.now_ms / MINUTE_MS * MINUTE_MS - back * MINUTE_MS;
                let Some(row) = kline(symbol, open_ms, MINUTE_MS, version) else { return };
                let mut text = Vec::new();
                EventText::new(SYMBOLS[symbol], "1m", None).write(&mut text, self.now_ms, &row, is_final);
                // Ids as if each candle had as many trades as it has, and a thousand ids lay between two.
                let first = open_ms / MINUTE_MS * 1000;
                let ids = format!("\"f\":{first},\"L\":{}", first + row[TRADES] as i64 - 1);
                let text = String::from_utf8(text).unwrap().replace("\"f\":-1,\"L\":-1", &ids).into_bytes();
                self.events(&[&text, br#"{"result":null,"id":1}"#]);
            }
            Step::Garbage(symbol) => self.events(&[b"{\"e\":\"kline\",", SYMBOLS[symbol].as_bytes()]),
            Step::Present(symbol, presence) => {
                let known = [Presence::Ended, Presence::Trading, Presence::Silent][presence as usize];
                self.live.set_presence(symbol, known);
                self.live.set_calendar(symbol, u64::from(presence), 5);
                self.push(&Record::Presence { symbol: SYMBOLS[symbol], presence: known as u8 });
                self.push(&Record::Calendar { symbol: SYMBOLS[symbol], calendar: presence.into(), quiet_until_ms: 5 });
            }
            Step::Loaded(symbol, back, count) => {
                let sent_ms = self.now_ms - back * MINUTE_MS;
                let rows: Vec<(Row, RowState)> = rows_until(symbol, sent_ms, count, MINUTE_MS, 0)
                    .into_iter()
                    .enumerate()
                    .map(|(place, row)| (row, if place % 3 == 0 { RowState::Verified } else { RowState::Closed }))
                    .collect();
                self.live.load(symbol, &rows, sent_ms);
                let words: Vec<u64> = rows.iter().flat_map(|(row, _)| row.map(f64::to_bits)).collect();
                let states: Vec<u8> = rows.iter().map(|&(_, state)| state as u8).collect();
                let (rows, symbol) = (bytes(&words), SYMBOLS[symbol]);
                self.push(&Record::Rows { symbol, derived: "", sent_ms, rows: &rows, states: &states });
            }
            Step::Restart => {
                self.live.forget_times();
                self.push(&Record::Restart);
            }
            Step::Listed => {
                let symbol = format!("N{}USDT", self.listed);
                self.listed += 1;
                if self.listed < 6 && self.live.add_symbol(&symbol).is_ok() {
                    self.push(&Record::Symbol(&symbol));
                    if let Some(recorder) = &self.recorder {
                        let block = self.live.block();
                        let symbols = (0..block.symbol_count()).map(|index| block.symbol(index)).collect();
                        recorder.set_symbols(symbols, block.geometry().symbol_capacity as u64);
                    }
                }
            }
            Step::Checkpoints => {
                let Some(recorder) = &self.recorder else { return };
                for place in 0..self.live.block().symbol_count() {
                    checkpoint(recorder, &self.live, &self.derived, place, self.boot_ms()).unwrap();
                }
            }
        }
    }

    fn events(&mut self, texts: &[&[u8]]) {
        let frames: Vec<_> = texts.iter().map(|text| event::parse(text)).collect();
        let (received_ms, boot_ms) = (self.now_ms + 1, self.boot_ms());
        self.live.ingest_events(frames, received_ms, boot_ms);
        let mut packed = Vec::new();
        for text in texts {
            add_text(text, &mut packed);
        }
        self.push(&Record::Frames { connection: 1, received_ms, texts: &packed });
    }
}

/// First index, states, bits of the rows, final end, revision.
type SeriesPicture = (u64, Vec<RowState>, Vec<u64>, u64, u32);

/// All that a reader and the planner can know of a block.
#[derive(Debug, PartialEq)]
struct Picture {
    series: Vec<SeriesPicture>,
    missing: Vec<Missing>,
    older: Vec<Older>,
    totals: (u64, u64),
}

fn picture(writer: &Writer, derived: &str, derived_block: &candleshm::block::Block) -> Picture {
    let mut series = Vec::new();
    for block in [writer.block(), derived_block] {
        for index in 0..block.symbol_count() {
            let reader = SeriesReader::new(block, index);
            let mut columns = vec![0.0; LENGTH * COLUMNS];
            let mut snapshot = Snapshot::default();
            let selection = Selection { count: LENGTH, closed_only: false, states: true };
            reader.copy(&selection, &mut columns, &mut snapshot).unwrap();
            let marks = reader.marks().unwrap();
            let bits = columns.iter().map(|value| value.to_bits()).collect();
            series.push((snapshot.start, snapshot.states.clone(), bits, marks.final_end, marks.revision));
        }
    }
    let places = || 0..writer.block().symbol_count();
    let header = |offset: usize| writer.block().value(offset);
    Picture {
        series,
        missing: places().map(|index| writer.missing(index).unwrap()).collect(),
        older: places().map(|index| writer.older(derived, index).unwrap()).collect(),
        totals: (header(candleshm::layout::header::MISSING), header(candleshm::layout::header::HOLES)),
    }
}

fn picture_of(writer: &Writer) -> Picture {
    let derived = writer.derived_names().remove(0);
    let block = candleshm::block::Block::open(&derived, owner().boot_id).unwrap();
    picture(writer, &derived, &block)
}

/// Plays a recording; compares the end with `expected`.
fn assert_replays(scratch: &Scratch, expected: &Picture) -> Played {
    let mut player = Player::new(&format!("{}-again", scratch.name), owner);
    let mut reading = Reading::open(&scratch.directory).unwrap();
    loop {
        match reading.step().unwrap() {
            Read::End => break,
            Read::Cut(cut) => panic!("{cut:?}"),
            Read::Record => {
                let (boot_ms, record, run) = reading.record().unwrap();
                player.play(boot_ms, &record, run).unwrap();
            }
        }
    }
    let played = player.played().clone();
    assert_eq!(played.difference, None);
    assert!(played.ended);
    assert_eq!(picture_of(player.writer().unwrap()), *expected);
    player.close().unwrap();
    played
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_recording_replays_to_the_same_block(
        before in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 1..60),
    ) {
        let scratch = Scratch::new();
        let mut world = World::new(&scratch);
        for step in &before {
            world.take(step);
        }
        world.record(&scratch.directory, 1 << 30);
        for step in &after {
            world.take(step);
        }
        prop_assert!(world.recorder.take().unwrap().end(world.boot_ms(), PATIENCE));
        let expected = picture_of(&world.live);
        let played = assert_replays(&scratch, &expected);
        prop_assert_eq!(played.left_out, 0);
        world.live.close(true).unwrap();
    }
}

#[test]
fn a_recording_without_its_oldest_files_replays_from_checkpoints() {
    let scratch = Scratch::new();
    let mut world = World::new(&scratch);
    world.record(&scratch.directory, 300_000);
    let began_ms = world.boot_ms() as i64;
    for round in 0..4000_i64 {
        world.take(&Step::Pass(7));
        let symbol = round as usize % SYMBOLS.len();
        world.take(&Step::Newest(symbol, 40));
        world.take(&Step::Pushed(symbol, 0, false, round % 3));
        world.checkpoint();
        if round % 50 == 49 {
            let recorder = world.recorder.as_ref().unwrap();
            let (written, began) = (recorder.status().written_bytes, Instant::now());
            while recorder.status().written_bytes == written {
                assert!(began.elapsed() < PATIENCE);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    let recorder = world.recorder.take().unwrap();
    assert!(recorder.end(world.boot_ms(), PATIENCE));
    assert!(recorder.status().removed_files > 3);
    let played = assert_replays(&scratch, &picture_of(&world.live));
    assert!(played.left_out > 0);
    assert!(played.records["response"] > 1000);
    let is_later = played.from_ms.zip(played.until_ms).is_some_and(|(from, until)| from - began_ms > 0 && from < until);
    assert!(is_later, "{played:?} began at {began_ms} ms");
    world.live.close(true).unwrap();
}
