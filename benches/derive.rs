//! What deriving costs: in bulk, per source row, and live, per response.
//!
//! `cargo bench --package candleshm --bench derive`. Regressions here are time of every backtest that starts from
//! minutes, and time between a response and its readers.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use candleshm::columns::Row;
use candleshm::derive::Derivation;
use candleshm::interval::{Grid, Interval};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::writer::{Config, Owner, Writer};

const ROWS: i64 = 1_000_000;
const SYMBOLS: usize = 100;
const LENGTH: usize = 2880;
const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 1_700_006_400_000;
const ROUNDS: usize = 100;

/// A row as they are: prices of two decimals, volumes of five.
fn row(candle_index: i64, seed: i64) -> Row {
    let word = (candle_index * 31 + seed).cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let open_ms = START_MS + candle_index * MINUTE_MS;
    let price = |shift: u32| f64::from((word >> shift) as u16) / 100.0 + 60_000.0;
    let volume = f64::from((word >> 40) as u16) / 100.0;
    let quote = (volume * 60_000.0 * 1e8).round() / 1e8;
    [
        open_ms as f64,
        price(0),
        61_000.0,
        59_000.0,
        price(8),
        volume,
        (open_ms + MINUTE_MS - 1) as f64,
        quote,
        (word >> 50) as f64,
        volume / 2.0,
        quote / 2.0,
        0.0,
    ]
}

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

/// Returns the shortest time of a round in nanoseconds per `count`, the one least disturbed.
fn shortest(rounds: usize, count: usize, mut work: impl FnMut(usize)) -> f64 {
    let nanos = (0..rounds).map(|round| {
        let start = Instant::now();
        work(round);
        start.elapsed().as_secs_f64() * 1e9 / count as f64
    });
    nanos.fold(f64::INFINITY, f64::min)
}

fn bulk() {
    let rows: Vec<Row> = (0..ROWS).map(|candle_index| row(candle_index, 0)).collect();
    for name in ["5m", "15m", "1h", "1d", "1M", "1d@America/New_York"] {
        let target = Grid::parse(name).expect("a grid");
        let derivation = Derivation::new(Interval::Minute1.into(), target).expect("it tiles");
        let nanos = shortest(20, rows.len(), |_| {
            black_box(derivation.rows(rows.iter(), (0, i64::MAX)).expect("ascending"));
        });
        println!("bulk 1m -> {name:<22} {:>6.1} M rows/s  {nanos:>6.2} ns/row", 1e3 / nanos);
    }
}

fn live(targets: &[&str]) {
    let name = format!("bench-derive-{}", std::process::id());
    let owner = Owner { pid: 0, pid_start: 0, boot_id: [0; 2], now_ns: 0 };
    let config = Config {
        market: Market::Spot,
        price: Price::Trade,
        interval: Interval::Minute1,
        length: LENGTH,
        symbols: (0..SYMBOLS).map(|number| format!("S{number}")).collect(),
        spare_symbols: 0,
        exchange: "example".into(),
    };
    let mut writer = Writer::open(&name, &config, owner).expect("/dev/shm has room");
    for target in targets {
        let derived = format!("{name}-{}", target.replace(['@', '/'], "-"));
        writer.derive(&derived, Grid::parse(target).expect("a grid"), LENGTH, owner).expect("/dev/shm has room");
    }
    let mut candle_index = LENGTH as i64;
    let page: Vec<Row> = (0..=candle_index).map(|candle_index| row(candle_index, 0)).collect();
    let start = Instant::now();
    for index in 0..SYMBOLS {
        writer.ingest(index, &page, &answer(candle_index, LENGTH + 1), 1);
    }
    let load = start.elapsed().as_secs_f64() * 1e6 / SYMBOLS as f64;
    let update = shortest(ROUNDS, SYMBOLS, |round| {
        for index in 0..SYMBOLS {
            black_box(writer.merge(index, &[row(candle_index, round as i64 + 1)], &answer(candle_index, 2), 1));
        }
    });
    let append = shortest(ROUNDS, SYMBOLS, |_| {
        candle_index += 1;
        for index in 0..SYMBOLS {
            black_box(writer.merge(
                index,
                &[row(candle_index - 1, 0), row(candle_index, 0)],
                &answer(candle_index, 3),
                1,
            ));
        }
    });
    writer.close(true).expect("the blocks are ours");
    let what = if targets.is_empty() { "nothing derived".to_owned() } else { targets.join(" ") };
    println!("{what:<36} load {load:>7.1} us  live update {update:>6.0} ns  append {append:>6.0} ns   per symbol");
}

fn main() {
    bulk();
    for targets in [&[][..], &["5m"], &["1d"], &["1d@Asia/Shanghai"], &["5m", "15m", "1h", "1d", "1d@Asia/Shanghai"]] {
        live(targets);
    }
}
