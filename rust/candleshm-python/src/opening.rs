//! How the block of a writer is opened: what Python says, as the core takes it.

use std::collections::HashMap;

use candleshm::interval::Interval;
use candleshm::market::Market;
use candleshm::price::Price;
use candleshm::writer::{Config, Writer};
use candleshm_recording::record::DerivedBlock;
use pyo3::prelude::*;

use crate::derive::grid;
use crate::errors::exceptions::ConfigError;
use crate::errors::to_py;
use crate::parsed::price_of;
use crate::process;

/// Returns what a block is to be. Raises ConfigError.
pub(crate) fn config_of(
    market: &str,
    price: &str,
    interval: &str,
    length: usize,
    symbols: Vec<String>,
    spare_symbols: usize,
    exchange: &str,
) -> PyResult<Config> {
    let market = Market::parse(market)
        .ok_or_else(|| ConfigError::new_err(format!("market is not SPOT, UM or CM: `{market}`")))?;
    let price = price_of(price)?;
    if market == Market::Spot && price != Price::Trade {
        return Err(ConfigError::new_err(format!("price cannot be `{}` with market SPOT", price.as_str())));
    }
    let interval = Interval::parse(interval).ok_or_else(|| {
        let known = Interval::ALL.map(Interval::as_str).join(" ");
        ConfigError::new_err(format!("interval is not one of {known}: `{interval}`"))
    })?;
    Ok(Config { market, price, interval, length, symbols, spare_symbols, exchange: exchange.to_owned() })
}

/// Returns a derived block of that name, interval and length; `fetched` are intervals by the names of blocks.
pub(crate) fn derived_of(
    (name, interval, length): (String, String, usize),
    fetched: &HashMap<String, String>,
) -> DerivedBlock {
    let fetched = fetched.get(&name).cloned().unwrap_or_default();
    DerivedBlock { name, interval, length: length as u64, fetched }
}

/// Opens a block, and those derived from it. Raises what `Writer.open` raises.
pub(crate) fn open(py: Python<'_>, name: &str, config: &Config, derived: &[DerivedBlock]) -> PyResult<Writer> {
    let fetched = |block: &DerivedBlock| Some(&block.fetched).filter(|fetched| !fetched.is_empty()).map(|it| grid(it));
    let targets = derived
        .iter()
        .map(|block| Ok((grid(&block.interval)?, fetched(block).transpose()?)))
        .collect::<PyResult<Vec<_>>>()?;
    py.detach(|| {
        let mut writer = Writer::open(name, config, process::owner()).map_err(|error| to_py(error, name))?;
        for (DerivedBlock { name, length, .. }, (target, fetched)) in derived.iter().zip(targets) {
            let length = *length as usize;
            let opened = match fetched {
                Some(fetched) => writer.derive_and_fetch(name, target, fetched, length, process::owner()),
                None => writer.derive(name, target, length, process::owner()),
            };
            if let Err(error) = opened {
                writer.abandon();
                return Err(to_py(error, name));
            }
        }
        Ok(writer)
    })
}
