//! Each candle as it becomes final for nine symbols in ten: `cargo run --example closes candleshm-spot-1m 3`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use candleshm::{Close, Error, ErrorKind, Feed, columns};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "candleshm-spot-1m".into());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(3);

    let feed = Feed::attach(&name, Some(Duration::from_mins(1)))?;
    let health = feed.health(None)?;
    println!(
        "{} {} {}: {} symbols, {} missing rows",
        health.name, health.market, health.interval, health.symbols, health.missing
    );
    let mut close = Close { quorum: 0.9, ..Close::default() };
    for _ in 0..count {
        let closed = match feed.wait_closed(&close, Some(Duration::from_mins(2)), || true) {
            Ok(closed) => closed,
            // Nothing closed, or the collector shows no life: the text says which.
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Stale) => {
                println!("{error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let group = feed.group(Some(&closed.symbols))?;
        let mut closes = vec![0.0; group.len()];
        group.last_into(columns::CLOSE, &mut closes)?;
        println!("{}: {:?}, without {:?}", closed.open_ms, closes, closed.missing);
        // The candle after it: none is left out, however long the work took.
        close.open_ms = Some(closed.end_ms);
    }
    Ok(())
}
