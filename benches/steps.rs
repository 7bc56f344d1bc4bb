//! The steps of the core, each so many times: `steps NAME ROUNDS`. `instructions.py` counts what they execute.
//!
//! Two runs that differ in their rounds only differ in the instructions of the step only, so the preparation may cost
//! whatever it costs.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::hint::black_box;
use std::process::ExitCode;

use candleshm::columns::{COLUMNS, Row};
use candleshm::interval::Interval;
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::wire::event;
use candleshm::wire::parse::parse;
use candleshm::writer::{Config, Owner, Writer};

const LENGTH: usize = 2880;
const WINDOW: usize = 1440;
const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 1_700_000_040_000;

fn row(candle_index: i64, value: f64) -> Row {
    let open_ms = START_MS + candle_index * MINUTE_MS;
    let mut row = [value; COLUMNS];
    row[0] = open_ms as f64;
    row[6] = (open_ms + MINUTE_MS - 1) as f64;
    row[11] = 0.0;
    row
}

/// A response sent half a minute into `candle_index`.
fn answer(candle_index: i64, limit: usize) -> RequestWindow {
    let now_ms = START_MS + candle_index * MINUTE_MS + 30_000;
    RequestWindow {
        sent_ms: now_ms,
        received_ms: now_ms,
        settle_ms: 1000,
        limit,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    }
}

fn body(rows: i64) -> Vec<u8> {
    let row = |candle_index: i64| {
        let open_ms = START_MS + candle_index * MINUTE_MS;
        let (price, close_ms) = (90_000 + candle_index % 9_000, open_ms + MINUTE_MS - 1);
        format!(
            r#"[{open_ms},"{price}.10000000","{price}.90000000","{price}.00000000","{price}.25000000","12.34500000",{close_ms},"1110987.65432100",2345,"6.17000000","555493.82716050","0"]"#
        )
    };
    format!("[{}]", (0..rows).map(row).collect::<Vec<_>>().join(",")).into_bytes()
}

fn pushed(candle_index: i64, update: i64) -> String {
    let open_ms = START_MS + candle_index * MINUTE_MS;
    let (close_ms, event_ms, trades) = (open_ms + MINUTE_MS - 1, open_ms + 30_000, 10_000_000 + update);
    let last_id = trades + 99;
    format!(
        r#"{{"stream":"s@kline_1m","data":{{"e":"kline","E":{event_ms},"s":"S","k":{{"t":{open_ms},"T":{close_ms},"s":"S","i":"1m","f":100,"L":{last_id},"o":"83896.40","c":"83860.20","h":"83920.00","l":"83860.10","v":"114602000.602","n":{trades},"x":false,"q":"{trades}.5","V":"48.488","Q":"4068722.10360","B":"0"}}}}}}"#
    )
}

/// A block of one symbol with a full window, and the candle index of its live row.
fn full_block() -> (Writer, i64) {
    let config = Config {
        market: Market::Spot,
        price: Price::Trade,
        interval: Interval::Minute1,
        length: LENGTH,
        symbols: vec!["S".into()],
        spare_symbols: 0,
        exchange: "example".into(),
    };
    let name = format!("bench-steps-{}", std::process::id());
    let owner = Owner { pid: 0, pid_start: 0, boot_id: [0; 2], now_ns: 0 };
    let mut writer = Writer::open(&name, &config, owner).expect("/dev/shm has room for a megabyte");
    let newest = LENGTH as i64;
    let page: Vec<Row> = (0..=newest).map(|candle_index| row(candle_index, 100.0)).collect();
    writer.ingest(0, &page, &answer(newest, LENGTH + 1), 1);
    (writer, newest)
}

fn write(rounds: i64, step: impl Fn(&mut Writer, i64, i64)) {
    let (mut writer, newest) = full_block();
    for round in 0..rounds {
        step(&mut writer, newest, round);
    }
    writer.close(true).expect("nothing holds the name");
}

fn read(rounds: i64, mut step: impl FnMut(&SeriesReader<'_>)) {
    let (writer, _) = full_block();
    let reader = SeriesReader::new(writer.block(), 0);
    for _ in 0..rounds {
        step(black_box(&reader));
    }
    writer.close(true).expect("nothing holds the name");
}

fn page(newest: i64, value: f64) -> Vec<Row> {
    (0..1000).map(|back| row(newest - 999 + back, value)).collect()
}

/// Does one step so many times; returns whether there is a step of that name.
fn run(name: &str, rounds: i64) -> bool {
    match name {
        "parse-page-1000" => {
            let (body, mut rows) = (body(1000), Vec::new());
            for _ in 0..rounds {
                rows.clear();
                parse(black_box(&body), &mut rows).expect("the body is well formed");
            }
        }
        "parse-event" => {
            let text = pushed(1, 1);
            for _ in 0..rounds {
                black_box(event::parse(black_box(text.as_bytes()))).expect("the event is well formed");
            }
        }
        "ingest-event" => write(rounds, |writer, newest, round| {
            let text = pushed(newest, round);
            let now_ms = START_MS + newest * MINUTE_MS + 30_000;
            let told = writer.ingest_events([event::parse(text.as_bytes())], now_ms, now_ms as u64);
            assert_eq!(told.tally.changed, 1);
        }),
        "update-live-row" => write(rounds, |writer, newest, round| {
            black_box(writer.ingest(0, &[row(newest, 101.0 + round as f64)], &answer(newest, 2), 1));
        }),
        "close-and-open" => write(rounds, |writer, newest, round| {
            let live = newest + 1 + round;
            black_box(writer.ingest(0, &[row(live - 1, 100.0), row(live, 100.0)], &answer(live, 2), 1));
        }),
        "correct-3-rows" => write(rounds, |writer, newest, round| {
            let rows = [1002, 1001, 1000].map(|back| row(newest - back, 200.0 + round as f64));
            black_box(writer.ingest(0, &rows, &answer(newest, 1000), 1));
        }),
        "page-1000-equal" => write(rounds, |writer, newest, _| {
            black_box(writer.ingest(0, &page(newest, 100.0), &answer(newest, 1000), 1));
        }),
        "page-1000-changed" => write(rounds, |writer, newest, round| {
            black_box(writer.ingest(0, &page(newest, 300.0 + round as f64), &answer(newest, 1000), 1));
        }),
        "copy-1440-rows" => {
            let selection = Selection { count: WINDOW, closed_only: false, states: false };
            let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * WINDOW], Snapshot::default());
            read(rounds, |reader| reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes"));
        }
        "copy-1440-states" => {
            let selection = Selection { count: WINDOW, closed_only: false, states: true };
            let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * WINDOW], Snapshot::default());
            read(rounds, |reader| reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes"));
        }
        "view-1440-rows" => read(rounds, |reader| {
            let view = reader.view(WINDOW).expect("nobody writes");
            assert!(reader.is_valid(black_box(&view)));
        }),
        "newest-row" => read(rounds, |reader| {
            let mut newest = [0.0; COLUMNS];
            black_box(reader.newest(&mut newest)).expect("nobody writes");
        }),
        "last-close" => read(rounds, |reader| {
            black_box(reader.last_close());
        }),
        _ => return false,
    }
    true
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.as_slice() {
        [name, rounds] => rounds.parse().is_ok_and(|rounds| run(name, rounds)),
        _ => false,
    };
    if done { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
