//! What parsing costs per row, for the bodies the collector asks for: the refresh of one symbol (2 rows), the cheapest
//! page of the futures markets (99), and the largest pages (1000 on SPOT, 1500 on UM and CM).
//!
//! Every response goes through this function; a regression here is paid once per symbol and refresh.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use candleshm::wire::parse::parse;

/// Rows parsed per size: enough for a steady median, over in well under a second.
const ROWS_PER_SIZE: usize = 600_000;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "parse of SPOT rows with 12 columns, the row vector reused")?;
    writeln!(out, "{:>6} {:>9} {:>8} {:>12} {:>15}", "rows", "bytes", "runs", "min ns/row", "median ns/row")?;
    for count in [2, 99, 1000, 1500] {
        let body = spot_body(count);
        let runs = ROWS_PER_SIZE / count;
        let mut rows = Vec::new();
        let mut times: Vec<Duration> = (0..runs)
            .map(|_| {
                rows.clear();
                let start = Instant::now();
                parse(black_box(&body), &mut rows).expect("the body is well formed");
                let elapsed = start.elapsed();
                black_box(&rows);
                elapsed
            })
            .collect();
        assert_eq!(rows.len(), count);
        times.sort_unstable();
        let per_row = |time: Duration| time.as_nanos() as f64 / count as f64;
        let (min, median) = (per_row(times[0]), per_row(times[runs / 2]));
        writeln!(out, "{count:>6} {:>9} {runs:>8} {min:>12.1} {median:>15.1}", body.len())?;
    }
    Ok(())
}

/// Writes a body as SPOT sends it: 8 decimals, prices padded with zeros, quote volumes of up to 18 digits.
fn spot_body(count: usize) -> Vec<u8> {
    let mut state = 2026_u64;
    // A linear congruential generator (Knuth's MMIX constants); its upper bits are good enough for digits.
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let rows: Vec<String> = (0..count as u64)
        .map(|minute| {
            let open_ms = 1_735_689_600_000 + 60_000 * minute;
            let mut price = || format!("{}.{:02}000000", 90_000 + below(9_000), below(100));
            let prices = [price(), price(), price(), price()].map(|price| format!("\"{price}\"")).join(",");
            let mut volumes =
                || (format!("{}.{:05}000", below(400), below(100_000)), below(40_000_000), below(100_000_000));
            let (volume, quote, quote_fraction) = volumes();
            let (taker_volume, taker_quote, taker_quote_fraction) = volumes();
            format!(
                "[{open_ms},{prices},\"{volume}\",{},\"{quote}.{quote_fraction:08}\",{},\"{taker_volume}\",\
                 \"{taker_quote}.{taker_quote_fraction:08}\",\"0\"]",
                open_ms + 59_999,
                below(9_000),
            )
        })
        .collect();
    format!("[{}]", rows.join(",")).into_bytes()
}
