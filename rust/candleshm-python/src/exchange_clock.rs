//! `ExchangeClock`: what the exchange's clock can show at most.

/// The latest that the exchange's clock can show: it was measured once, and clocks drift.
#[derive(Clone, Copy)]
pub(crate) struct ExchangeClock {
    pub(crate) measured_seconds: f64,
    pub(crate) upper_ms: f64,
    pub(crate) drift: f64,
}

impl ExchangeClock {
    /// Returns the exchange time that surely was not passed at `CLOCK_BOOTTIME` `now_ms`.
    pub(crate) fn latest_ms(self, now_ms: u64) -> i64 {
        let passed_ms = now_ms as f64 - self.measured_seconds * 1000.0;
        (self.upper_ms + passed_ms + passed_ms.abs() * self.drift).ceil() as i64
    }
}
