//! The mean close of the newest day, without a copy: `cargo run --example mean candleshm-spot-1m BTCUSDT`.
#![allow(clippy::print_stdout)]

use candleshm::{Error, Feed, columns};

/// How often a mean is computed anew because a row changed meanwhile.
const ATTEMPTS_MAX: usize = 3;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "candleshm-spot-1m".into());
    let symbol = arguments.next().unwrap_or_else(|| "BTCUSDT".into());
    let series = Feed::attach(&name, None)?.series(&symbol)?;
    for attempt in 1.. {
        let view = series.view(Some(1440))?;
        // Slots without a row are NaN.
        let closes = view.values(columns::CLOSE).filter(|close| !close.is_nan());
        let (sum, count) = closes.fold((0.0, 0_u32), |(sum, count), close| (sum + close, count + 1));
        // Nothing computed from a view may be believed before this.
        match view.check() {
            Err(Error::Overwritten { .. }) if attempt < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
            Ok(()) => {
                println!("{symbol} {} of {count} candles", sum / f64::from(count));
                break;
            }
        }
    }
    Ok(())
}
