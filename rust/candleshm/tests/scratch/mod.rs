//! A block name of a test's own in `/dev/shm`, removed with everything that belongs to it when the test ends.
#![allow(dead_code, reason = "no test needs all of it")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use candleshm::interval::Interval;
use candleshm::market::Market;
use candleshm::price::Price;
use candleshm::writer::{Config, Owner};

/// The boot id that tests pretend to run under.
pub(crate) const BOOT_ID: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// A block name that nothing else uses.
pub(crate) struct Scratch {
    name: String,
}

impl Scratch {
    /// Makes up a name.
    pub(crate) fn new(purpose: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("candleshm-test-{purpose}-{}-{count}", std::process::id()) }
    }

    /// Returns the name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns where the file of that name lies.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.name)
    }

    /// Returns the files in `/dev/shm` that bear the name, temporary ones and those of derived blocks included.
    pub(crate) fn files(&self) -> Vec<String> {
        std::fs::read_dir("/dev/shm")
            .expect("/dev/shm can be listed")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|file| {
                *file == self.name
                    || file.starts_with(&format!("{}-", self.name))
                    || *file == format!(".{}.next", self.name)
            })
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for file in self.files() {
            let _ = std::fs::remove_file(PathBuf::from("/dev/shm").join(file));
        }
    }
}

/// The calling process as an owner.
pub(crate) fn owner() -> Owner {
    Owner { pid: std::process::id().into(), pid_start: 1, boot_id: BOOT_ID, now_ns: 1_000_000_000 }
}

/// What a small SPOT block of 1m candles is to carry.
pub(crate) fn config(length: usize, symbols: &[&str]) -> Config {
    Config {
        market: Market::Spot,
        price: Price::Trade,
        interval: Interval::Minute1,
        length,
        symbols: symbols.iter().map(|&symbol| symbol.to_owned()).collect(),
        spare_symbols: 0,
        exchange: "example".into(),
    }
}
