//! What one batch costs the writer: 500 symbols, 2880 rows each, values parsed already; and pushed events, parsed here.
//!
//! `cargo bench --package candleshm --bench ingest`. A regression here is time that a collector with hundreds of
//! symbols spends between a response and its readers.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use candleshm::columns::Row;
use candleshm::interval::Interval;
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::wire::event;
use candleshm::writer::{Config, Owner, Writer};

const SYMBOLS: usize = 500;
const LENGTH: usize = 2880;
const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 1_700_000_040_000;
const ROUNDS: usize = 40;
const TARGET_EVENTS_PER_SECOND: f64 = 1e6;
/// Events of one socket read, as `live.py` has them, and as many as one read holds under load.
const BATCHES: [usize; 2] = [11, 250];

fn row(candle_index: i64, value: f64) -> Row {
    let open_ms = START_MS + candle_index * MINUTE_MS;
    let mut row = [value; 12];
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

/// The text of an event about the live row, as the exchange's streams push it; `update` makes it differ from others.
fn pushed(number: usize, candle_index: i64, update: usize) -> String {
    let open_ms = START_MS + candle_index * MINUTE_MS;
    let (close_ms, event_ms, trades) = (open_ms + MINUTE_MS - 1, open_ms + 30_000, 10_000_000 + update);
    let last_id = trades + 99;
    format!(
        r#"{{"stream":"s{number}@kline_1m","data":{{"e":"kline","E":{event_ms},"s":"S{number}","k":{{"t":{open_ms},"T":{close_ms},"s":"S{number}","i":"1m","f":100,"L":{last_id},"o":"83896.40","c":"83860.20","h":"83920.00","l":"83860.10","v":"114602000.602","n":{trades},"x":false,"q":"{trades}.5","V":"48.488","Q":"4068722.10360","B":"0"}}}}}}"#
    )
}

fn timed(name: &str, rounds: usize, mut work: impl FnMut(usize)) -> f64 {
    let mut micros: Vec<f64> = (0..rounds)
        .map(|round| {
            let start = Instant::now();
            work(round);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("{name:<44} p50 {:>9.1} us   min {:>9.1} us", micros[rounds / 2], micros[0]);
    micros[rounds / 2]
}

fn main() {
    let config = Config {
        market: Market::Spot,
        price: Price::Trade,
        interval: Interval::Minute1,
        length: LENGTH,
        symbols: (0..SYMBOLS).map(|number| format!("S{number}")).collect(),
        spare_symbols: 0,
        exchange: "example".into(),
    };
    let name = format!("bench-{}", std::process::id());
    let owner = Owner { pid: 0, pid_start: 0, boot_id: [0; 2], now_ns: 0 };
    let mut writer = Writer::open(&name, &config, owner).expect("/dev/shm has room for 300 MB");
    let mut candle_index = LENGTH as i64;
    let page: Vec<Row> = (0..=candle_index).map(|candle_index| row(candle_index, 100.0)).collect();
    let start = Instant::now();
    for index in 0..SYMBOLS {
        writer.ingest(index, &page, &answer(candle_index, LENGTH + 1), 1);
    }
    println!("load {SYMBOLS} x {LENGTH} rows {:>31.1} ms", start.elapsed().as_secs_f64() * 1e3);

    timed("500 live rows updated", ROUNDS, |round| {
        for index in 0..SYMBOLS {
            let rows = [row(candle_index, 101.0 + round as f64)];
            black_box(writer.merge(index, &rows, &answer(candle_index, 2), 1));
        }
        writer.commit();
    });
    timed("500 rows closed, 500 live rows opened", ROUNDS, |_| {
        candle_index += 1;
        for index in 0..SYMBOLS {
            let rows = [row(candle_index - 1, 100.0), row(candle_index, 100.0)];
            black_box(writer.merge(index, &rows, &answer(candle_index, 2), 1));
        }
        writer.commit();
    });
    timed("3 closed rows of 500 symbols corrected", ROUNDS, |round| {
        for index in 0..SYMBOLS {
            let rows = [0, 1, 2].map(|back| row(candle_index - 1000 - back, 200.0 + round as f64));
            black_box(writer.merge(index, &rows, &answer(candle_index, 1000), 1));
        }
        writer.commit();
    });
    let same: Vec<Row> = (0..1000).map(|back| row(candle_index - 999 + back, 100.0)).collect();
    writer.ingest(0, &same, &answer(candle_index, 1000), 1);
    timed("1000-row page, all equal", 10 * ROUNDS, |_| {
        black_box(writer.ingest(0, &same, &answer(candle_index, 1000), 1));
    });
    timed("1000-row page, all changed", 10 * ROUNDS, |round| {
        let page: Vec<Row> = (0..1000).map(|back| row(candle_index - 999 + back, 300.0 + round as f64)).collect();
        black_box(writer.ingest(0, &page, &answer(candle_index, 1000), 1));
    });
    candle_index += 1;
    let now_ms = START_MS + candle_index * MINUTE_MS + 30_000;
    for (turn, batch) in BATCHES.into_iter().enumerate() {
        let updates = (0..ROUNDS).map(|round| ROUNDS * turn + round);
        let texts: Vec<Vec<String>> =
            updates.map(|update| (0..SYMBOLS).map(|index| pushed(index, candle_index, update)).collect()).collect();
        let name = format!("{SYMBOLS} pushed events, in batches of {batch}");
        let micros = timed(&name, ROUNDS, |round| {
            for frames in texts[round].chunks(batch) {
                let parsed = frames.iter().map(|text| event::parse(text.as_bytes()));
                let told = writer.ingest_events(parsed, now_ms, now_ms as u64);
                assert_eq!(told.tally.changed, frames.len(), "an event changed nothing: {told:?}");
            }
        });
        let events_per_second = SYMBOLS as f64 / micros * 1e6;
        let verdict = if events_per_second >= TARGET_EVENTS_PER_SECOND { "met" } else { "MISSED" };
        println!("{:<44} {events_per_second:>13.0} events/s, target {TARGET_EVENTS_PER_SECOND:.0}: {verdict}", "");
    }
    writer.close(true).expect("nothing holds the name");
}
