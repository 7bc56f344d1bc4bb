//! A reader in a process of its own that sleeps in the kernel until a batch is published, and how old its events were.
//!
//! `sleeper block NAME` sleeps on a block, `sleeper floor FILE` on what `floor` shares. Latency is from the stamp in an
//! event (the quote volume, see `sender`) until this process is awake. The standard input asks for the latencies since
//! it last asked, in ns: one line of JSON for each empty line.

#![allow(clippy::print_stdout)]

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candleshm::block::Block;
use candleshm::columns::QUOTE_VOLUME;
use candleshm::layout::header;
use candleshm::read::SeriesReader;
use candleshm::shared_memory::futex_wait;
use rustix::time::{ClockId, clock_gettime};

#[path = "floor_words.rs"]
mod floor_words;

const PAUSE: Duration = Duration::from_secs(1);

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sleeps for ever, and calls `awake` with the counts of batches before and after, and the time, after each sleep.
fn sleep(word: &AtomicU64, mut awake: impl FnMut(u64, u64, u64)) {
    let mut seen = word.load(Acquire);
    loop {
        futex_wait(word, seen as u32, PAUSE);
        let now_ns = boot_ns();
        let batches = word.load(Acquire);
        if batches != seen {
            awake(seen, batches, now_ns);
            seen = batches;
        }
    }
}

fn on_floor(path: &str, latencies: &Mutex<Vec<u64>>) -> io::Result<()> {
    let words = floor_words::map(path, false)?;
    sleep(&words[0], |seen, batches, now_ns| {
        let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in seen + 1..=batches {
            latencies.push(now_ns.saturating_sub(words[floor_words::place(batch)].load(Acquire)));
        }
    });
    Ok(())
}

fn on_block(name: &str, latencies: &Mutex<Vec<u64>>) -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |from: usize| u64::from_str_radix(&digits[from..from + 16], 16).map_err(io::Error::other);
    let block = Block::open(name, [half(0)?, half(16)?]).map_err(|error| io::Error::other(error.to_string()))?;
    let stamp_of = |index: usize| {
        let mut row = [0.0; _];
        SeriesReader::new(&block, index).newest(&mut row).map_or(f64::NAN, |_| row[QUOTE_VOLUME])
    };
    let mut known: Vec<f64> = (0..block.symbol_count()).map(stamp_of).collect();
    sleep(block.header(header::COMMIT_SEQ), |_, _, now_ns| {
        let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, known) in known.iter_mut().enumerate() {
            let stamp = stamp_of(index);
            if stamp.is_finite() && stamp != *known {
                latencies.push(now_ns.saturating_sub(stamp as u64));
                *known = stamp;
            }
        }
    });
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, name] = arguments.as_slice() else {
        return Err(io::Error::other("usage: sleeper floor FILE, or sleeper block NAME"));
    };
    let (kind, name) = (kind.clone(), name.clone());
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&latencies);
    let sleeper =
        std::thread::spawn(move || if kind == "floor" { on_floor(&name, &taken) } else { on_block(&name, &taken) });
    for line in io::stdin().lines() {
        line?;
        if sleeper.is_finished() {
            return sleeper.join().unwrap_or_else(|_| Err(io::Error::other("the sleeper failed")));
        }
        let taken = std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner));
        println!("{taken:?}");
    }
    Ok(())
}
