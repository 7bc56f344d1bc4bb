//! The state of a block and its collector, as a struct of C that may grow at its end.

use std::ffi::c_char;
use std::mem::{MaybeUninit, offset_of};

use candleshm::feed::Health;

use crate::border::{answer, argument, borrowed, memory};
use crate::feed::{CFeed, put_text};

const MARKET_BYTES: usize = 8;
const PRICE_BYTES: usize = 8;
const TEXT_BYTES: usize = 80;

/// `cshm_health`.
#[repr(C)]
struct CHealth {
    size: u32,
    state: u32,
    ready: u32,
    loaded: u32,
    market: [c_char; MARKET_BYTES],
    interval: [c_char; TEXT_BYTES],
    exchange: [c_char; TEXT_BYTES],
    price: [c_char; PRICE_BYTES],
    generation: u64,
    length: u64,
    symbols: u64,
    symbol_capacity: u64,
    missing: u64,
    holes: u64,
    pid: u64,
    weight_used: u64,
    weight_limit: u64,
    failing: u64,
    polled: u64,
    stale: u64,
    banned_until_ms: i64,
    heartbeat_age_s: f64,
    oldest_age_s: f64,
    epoch: u64,
    source_ms: i64,
    lag_s: f64,
    replay_ms: i64,
    source: [c_char; TEXT_BYTES],
}

/// What every caller knows of it: the first version of the struct. Later fields come behind.
const KNOWN_BYTES: usize = offset_of!(CHealth, oldest_age_s) + 8;

impl CHealth {
    fn of(health: &Health) -> Self {
        Self {
            size: 0,
            state: health.state.map_or(0, |state| state as u32),
            ready: health.ready.into(),
            loaded: health.loaded.into(),
            market: chars(health.market),
            interval: chars(&health.interval),
            exchange: chars(&health.exchange),
            price: chars(health.price),
            generation: health.generation,
            length: health.length as u64,
            symbols: health.symbols as u64,
            symbol_capacity: health.symbol_capacity as u64,
            missing: health.missing,
            holes: health.holes,
            pid: health.pid,
            weight_used: health.weight_used,
            weight_limit: health.weight_limit,
            failing: health.failing,
            polled: health.polled,
            stale: health.freshness.stale as u64,
            banned_until_ms: health.banned_until_ms.unwrap_or(0) as i64,
            heartbeat_age_s: seconds(health.heartbeat_age_ms),
            oldest_age_s: seconds(health.freshness.oldest_age_ms),
            epoch: health.cluster_epoch,
            source_ms: health.source_ms.unwrap_or(0) as i64,
            lag_s: health.lag_us.map_or(f64::NAN, |lag_us| lag_us as f64 / 1e6),
            replay_ms: health.replay_ms.unwrap_or(0) as i64,
            source: chars(&health.source),
        }
    }
}

/// Returns an age in seconds, infinite for one that is not known.
pub(crate) fn seconds(age_ms: Option<u64>) -> f64 {
    age_ms.map_or(f64::INFINITY, |age_ms| age_ms as f64 / 1e3)
}

fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut places = [MaybeUninit::new(0); N];
    put_text(text, &mut places);
    // SAFETY: every place was set.
    places.map(|place| unsafe { place.assume_init() })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_get_health(feed: *const CFeed, out: *mut CHealth) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a feed, and for a struct that begins with its size.
        let (feed, size) = unsafe { (borrowed(feed, "feed")?, *borrowed(out.cast_const().cast::<u32>(), "out")?) };
        if (size as usize) < KNOWN_BYTES {
            let text = format!("size must be sizeof(cshm_health), {KNOWN_BYTES} or more, before the call: `{size}`");
            return Err(argument(text));
        }
        let bytes = (size as usize).min(size_of::<CHealth>());
        let health = CHealth { size, ..CHealth::of(&feed.feed.health(None)?) };
        // SAFETY: the header asks for memory of the size that stands in it.
        let target = unsafe { memory(out.cast::<u8>(), bytes, "out") }?;
        // SAFETY: the struct has no padding and lives until the end of the call, and is no shorter than `bytes`.
        let source = unsafe { std::slice::from_raw_parts((&raw const health).cast::<MaybeUninit<u8>>(), bytes) };
        target.copy_from_slice(source);
        Ok(0)
    })
}
