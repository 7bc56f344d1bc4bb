//! `hot write NAME`: the fastest writer there is, until it is killed. `hot read NAME SECONDS`: this crate's reader beside
//! it; prints the same JSON as `outsider hot`.
//!
//! Every row holds one value in all its value columns, whose whole part is its candle, counted from `START_MS`. So a row
//! of two writes shows, and a row in the place of another one.

#![expect(clippy::print_stdout, reason = "a program that another one reads")]

use std::time::{Duration, Instant};

use candleshm::columns::{CLOSE, CLOSE_TIME_MS, COLUMNS, IGNORE, OPEN_TIME_MS, Row, TRADES};
use candleshm::feed::clock;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::writer::{Config, Owner, Writer};
use candleshm::{Error, Feed, Holes, Interval, Market, RowState, Series, Window};

const START_MS: i64 = 1_700_000_040_000;
const SECOND_MS: i64 = 1_000;
const LENGTH: usize = 256;
const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];

fn row(candle: i64, fraction: f64) -> Row {
    let (open_ms, value) = (START_MS + candle * SECOND_MS, candle as f64 + fraction);
    std::array::from_fn(|column| match column {
        OPEN_TIME_MS => open_ms as f64,
        CLOSE_TIME_MS => (open_ms + SECOND_MS - 1) as f64,
        TRADES => value.trunc(),
        IGNORE => 0.0,
        _ => value,
    })
}

fn response(sent_ms: i64, limit: usize) -> RequestWindow {
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

/// Live updates, closes, outages that are filled late, and restated stretches of closed rows, without a pause.
fn write(name: &str) -> Result<(), Error> {
    let owner =
        Owner { pid: std::process::id().into(), pid_start: 1, boot_id: clock::boot_id(), now_ns: clock::now_ns() };
    let config = Config {
        market: Market::Spot,
        price: Price::Trade,
        interval: Interval::Second1,
        length: LENGTH,
        symbols: SYMBOLS.map(str::to_owned).to_vec(),
        spare_symbols: 0,
        exchange: String::new(),
    };
    let mut writer = Writer::open(name, &config, owner)?;
    let length = LENGTH as i64;
    for candle in length.. {
        let now_ms = START_MS + candle * SECOND_MS;
        for index in 0..SYMBOLS.len() {
            let is_out = candle % 97 > 92;
            if !is_out {
                if candle == length {
                    let page: Vec<Row> = (0..length).map(|old| row(old, 0.0)).collect();
                    writer.ingest(index, &page, &response(now_ms + 1, page.len()), clock::now_ms());
                }
                for tick in 0..4 {
                    let rows = [row(candle - 1, 0.0), row(candle, f64::from(tick + 1) / 16.0)];
                    writer.ingest(index, &rows, &response(now_ms + 100 + i64::from(tick), 1_000), clock::now_ms());
                }
            }
            if candle % 3 == 0 {
                let page: Vec<Row> =
                    (candle - 60..candle - 5).map(|old| row(old, (candle % 7) as f64 / 1_024.0)).collect();
                let window = RequestWindow { end_ms: Some(now_ms - 5_000), ..response(now_ms + 500, 1_000) };
                writer.ingest(index, &page, &window, clock::now_ms());
            }
        }
        writer.heartbeat(clock::now_ns());
        if candle == length {
            println!("writing");
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    reads: u64,
    rows: u64,
    torn: u64,
    foreign: u64,
    order: u64,
    refused: u64,
}

impl Tally {
    fn judge(&mut self, row: &Row, last: &mut f64) {
        let value = row[CLOSE];
        let candle = (row[OPEN_TIME_MS] - START_MS as f64) / SECOND_MS as f64;
        let is_alike = (0..COLUMNS).all(|column| match column {
            OPEN_TIME_MS | CLOSE_TIME_MS | IGNORE => true,
            TRADES => row[column] == value.trunc(),
            _ => row[column] == value,
        });
        self.rows += 1;
        self.torn += u64::from(!is_alike);
        self.foreign += u64::from(value.floor() != candle);
        self.order += u64::from(candle <= *last);
        *last = candle;
    }

    fn json(&self, name: &str) -> String {
        let Self { reads, rows, torn, foreign, order, refused } = self;
        format!(
            "\"{name}\":{{\"reads\":{reads},\"rows\":{rows},\"torn\":{torn},\"foreign\":{foreign},\"order\":{order},\
             \"refused\":{refused}}}"
        )
    }
}

fn is_row(state: RowState) -> bool {
    matches!(state, RowState::Live | RowState::Closed | RowState::Verified)
}

/// Copies rows, with states or without, and judges them.
fn copy(series: &Series, count: usize, with_states: bool, columns: &mut [f64], tally: &mut Tally) -> Result<(), Error> {
    let window = Window::newest(count).holes(Holes::Nan);
    let mut states = Vec::new();
    let copied = series.candles_into(&window, columns, LENGTH, with_states.then_some(&mut states))?;
    let mut last = -1.0;
    tally.reads += 1;
    for at in 0..copied.rows {
        let row: Row = std::array::from_fn(|column| columns[column * LENGTH + at]);
        let is_there = if with_states { is_row(states[at]) } else { !row[CLOSE].is_nan() };
        if is_there {
            tally.judge(&row, &mut last);
        }
    }
    Ok(())
}

fn read(name: &str, seconds: f64) -> Result<(), Error> {
    let feed = Feed::attach(name, None)?;
    let series: Vec<Series> = SYMBOLS.iter().map(|symbol| feed.series(symbol)).collect::<Result<_, _>>()?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut columns = vec![0.0; COLUMNS * LENGTH];
    let [mut candles, mut precise, mut views, mut newest] = [(); 4].map(|()| Tally::default());
    let mut turn = 0;
    while turn % 64 != 0 || Instant::now() < until {
        let series = &series[turn % SYMBOLS.len()];
        let count = if turn.is_multiple_of(7) { LENGTH } else { 16 + turn % 64 };
        copy(series, count, false, &mut columns, &mut candles)?;
        copy(series, count, true, &mut columns, &mut precise)?;
        let view = series.view(Some(count))?;
        for column in 0..COLUMNS {
            for (at, value) in view.values(column).enumerate() {
                columns[column * LENGTH + at] = value;
            }
        }
        if view.is_valid() {
            let mut last = -1.0;
            views.reads += 1;
            for at in 0..view.len() {
                let row: Row = std::array::from_fn(|column| columns[column * LENGTH + at]);
                if !row[CLOSE].is_nan() {
                    views.judge(&row, &mut last);
                }
            }
        } else {
            views.refused += 1;
        }
        for _ in 0..16 {
            let mut row = [0.0; COLUMNS];
            if is_row(series.live(&mut row)?) {
                newest.reads += 1;
                newest.judge(&row, &mut -1.0);
            }
        }
        turn += 1;
    }
    let ways = [("candles", candles), ("precise", precise), ("view", views), ("newest", newest)];
    println!("{{{}}}", ways.map(|(name, tally)| tally.json(name)).join(","));
    Ok(())
}

fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", name] => write(name),
        ["read", name, seconds] => read(name, seconds.parse().expect("a number of seconds")),
        _ => panic!("usage: hot write NAME | hot read NAME SECONDS"),
    }
}
