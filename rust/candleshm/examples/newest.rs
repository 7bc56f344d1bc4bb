//! The newest candles of a symbol, as a copy: `cargo run --example newest candleshm-spot-1m BTCUSDT`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use candleshm::{Error, Feed, RowState, Window, columns};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "candleshm-spot-1m".into());
    let symbol = arguments.next().unwrap_or_else(|| "BTCUSDT".into());

    // Data that the exchange confirmed longer ago than a minute is an error, not a value.
    let feed = Feed::attach(&name, Some(Duration::from_mins(1)))?;
    let series = feed.series(&symbol)?;
    println!("{symbol} {}", series.last_close()?);

    let candles = series.candles(&Window::newest(5))?;
    let (opens, closes) = (candles.column(columns::OPEN_TIME_MS), candles.column(columns::CLOSE));
    for ((open_ms, close), state) in opens.iter().zip(closes).zip(&candles.states) {
        let still = if *state == RowState::Live { " and may still change" } else { "" };
        println!("{open_ms} {close}{still}");
    }
    Ok(())
}
