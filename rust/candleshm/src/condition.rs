//! `Health`: what a collector says about itself, in the header of its block, to followers, and in a recording.

use crate::layout::header;

/// Numbers for readers that the collector knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Every symbol was loaded.
    pub ready: bool,
    /// Request weight used in the current window.
    pub weight_used: u64,
    /// Request weight allowed in a window.
    pub weight_limit: u64,
    /// End of a ban, epoch ms; 0 when not banned.
    pub banned_until_ms: u64,
    /// Symbols whose newest request failed.
    pub failing: u64,
    /// Symbols that are kept fresh by requests instead of streams.
    pub polled: u64,
    /// The kind of the newest failure of a request; 0 for none.
    pub last_error: u64,
    /// When that was, epoch ms.
    pub last_error_ms: u64,
}

impl Health {
    /// Words of the header that hold the numbers beside `ready`, in the order in which they are sent and recorded.
    pub(crate) const WORDS: [usize; 7] = [
        header::WEIGHT_USED,
        header::WEIGHT_LIMIT,
        header::BANNED_UNTIL_MS,
        header::FAILING,
        header::POLLED,
        header::LAST_ERROR,
        header::LAST_ERROR_MS,
    ];

    /// Returns the numbers beside `ready`, in their order.
    #[must_use]
    pub fn numbers(&self) -> [u64; 7] {
        let Self { ready: _, weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms } =
            *self;
        [weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms]
    }

    /// Returns the health with these numbers, in their order.
    #[must_use]
    pub fn of(ready: bool, numbers: [u64; 7]) -> Self {
        let [weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms] = numbers;
        Self { ready, weight_used, weight_limit, banned_until_ms, failing, polled, last_error, last_error_ms }
    }
}
