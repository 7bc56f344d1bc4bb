//! `Health`: the state of a block and its collector, and whether its data is current.

use crate::feed::attached::{Attached, trading_ages_ms};
use crate::layout::{BlockState, header};

/// A series whose data is older than this is stale, where the reader has set no limit, ms.
pub const STALE_MS: u64 = 60_000;
/// A collector without a heartbeat for this long shows no life, ms. The heartbeat comes every 500 ms.
pub const SILENT_MS: u64 = 5_000;
/// A leader of a cluster that said nothing for longer than this is silent, us.
const LEADER_SILENT_US: u64 = 3_000_000;
/// One in so many of the symbols that trade may be stale while the feed as a whole is current.
const STALE_PART: usize = 10;

/// How old the data of the symbols that trade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Symbols whose data is older than the limit, or that have no data yet.
    pub stale: usize,
    /// Age of the oldest data, ms: `None` while no symbol has any, 0 when no symbol trades.
    pub oldest_age_ms: Option<u64>,
    /// Whether some data is fresh, and no more than one symbol in ten is stale (or one, in a smaller feed). A symbol
    /// without any data yet does not count here: [`Health::loaded`] speaks of those.
    pub is_current: bool,
}

impl Freshness {
    /// Judges the ages of the symbols that trade by a limit, ms.
    #[must_use]
    pub fn of(ages_ms: &[Option<u64>], limit_ms: Option<u64>) -> Self {
        let limit_ms = limit_ms.filter(|&limit_ms| limit_ms < u64::MAX).unwrap_or(STALE_MS);
        let known = ages_ms.iter().flatten();
        let aged = known.clone().filter(|&&age_ms| age_ms > limit_ms).count();
        let unknown = ages_ms.len() - known.clone().count();
        let oldest_age_ms = known.clone().max().copied().or(ages_ms.is_empty().then_some(0));
        let is_current = ages_ms.is_empty() || aged < known.count() && aged <= (ages_ms.len() / STALE_PART).max(1);
        Self { stale: aged + unknown, oldest_age_ms, is_current }
    }
}

/// A block and its collector at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The block's name.
    pub name: String,
    /// `SPOT`, `UM` or `CM`.
    pub market: &'static str,
    /// What the prices are: `trade`, `mark`, `index` or `premium`.
    pub price: &'static str,
    /// Length of a candle, such as `1m` or `1d@Asia/Shanghai`.
    pub interval: String,
    /// Whose candles these are: `binance`, or host and port of another exchange; empty where it is not known.
    pub exchange: String,
    /// Candles of a full window, the live one included.
    pub length: usize,
    /// Symbols that the block carries.
    pub symbols: usize,
    /// Symbols that the block has room for.
    pub symbol_capacity: usize,
    /// Blocks that have stood under the name one after the other.
    pub generation: u64,
    /// Of the block, not of its data; `None` in a damaged block.
    pub state: Option<BlockState>,
    /// The replayed time, epoch ms, in a block of a replay. Ages are of this clock then.
    pub replay_ms: Option<u64>,
    /// The collector's process.
    pub pid: u64,
    /// Since the collector's last heartbeat, ms; `None` when that lies in the future.
    pub heartbeat_age_ms: Option<u64>,
    /// Whether every symbol was loaded once.
    pub loaded: bool,
    /// About this moment: every symbol was loaded, there was a heartbeat within 5 s, and the data is current, or a
    /// replay's.
    pub ready: bool,
    /// How old the data is.
    pub freshness: Freshness,
    /// Rows of all windows that are not fetched yet.
    pub missing: u64,
    /// Rows of all windows that the exchange confirmed not to have.
    pub holes: u64,
    /// The exchange's request weight that counts in its current minute.
    pub weight_used: u64,
    /// The weight that the exchange allows in a minute.
    pub weight_limit: u64,
    /// Until when the exchange refuses requests, epoch ms.
    pub banned_until_ms: Option<u64>,
    /// Symbols whose newest request failed.
    pub failing: u64,
    /// Symbols that are kept fresh by requests instead of streams.
    pub polled: u64,
    /// Host and process of the leader that the candles come from, or of a collector that is alone in its cluster; empty
    /// outside one.
    pub source: String,
    /// The epoch of that leader; 0 outside a cluster, and of a collector that is alone in its one.
    pub cluster_epoch: u64,
    /// When its newest message was sent, by the exchange's clock, epoch ms.
    pub source_ms: Option<u64>,
    /// How long that message was on its way, us, or since when it was sent, once nothing came for more than 3 s; `None`
    /// where nothing can come.
    pub lag_us: Option<u64>,
    /// The kind of the newest failure of a request, as on the format's page, and when it was, epoch ms; 0 for none.
    pub last_error: (u64, u64),
}

impl Health {
    /// Returns the state as a word: that of the block, `replay` while one is under way, `unknown` in a damaged block.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match (self.state, self.replay_ms) {
            (Some(BlockState::Ready), Some(_)) => "replay",
            (state, _) => state.map_or("unknown", BlockState::as_str),
        }
    }

    pub(super) fn of(name: &str, attached: &Attached, limit_ms: Option<u64>) -> Self {
        let block = attached.block();
        let geometry = block.geometry();
        let (state, heartbeat_age_ms) = (block.state(), attached.heartbeat_age_ms());
        let loaded = block.announced(header::READY) == 1;
        let freshness = Freshness::of(&trading_ages_ms(block), limit_ms);
        let cluster_epoch = block.value(header::CLUSTER_EPOCH);
        let source_ms = Some(block.value(header::SOURCE_MS)).filter(|&sent_ms| sent_ms > 0);
        let lag_us = (cluster_epoch > 0).then(|| block.value(header::LAG_US));
        let is_served = matches!(state, Some(BlockState::Ready | BlockState::Superseded));
        let is_alive = heartbeat_age_ms.is_some_and(|age_ms| age_ms <= SILENT_MS);
        Self {
            name: name.to_owned(),
            market: geometry.market.as_str(),
            price: geometry.price.as_str(),
            interval: geometry.grid(0).name(),
            exchange: block.exchange(),
            length: geometry.ring.length,
            symbols: block.symbol_count(),
            symbol_capacity: geometry.symbol_capacity,
            generation: block.value(header::GENERATION),
            state,
            replay_ms: block.replay_ms(),
            pid: block.value(header::PID),
            heartbeat_age_ms,
            loaded,
            // A replay waits for its readers, so none of them may wait for its data.
            ready: loaded && is_served && is_alive && (freshness.is_current || block.replay_ms().is_some()),
            freshness,
            missing: block.value(header::MISSING),
            holes: block.value(header::HOLES),
            weight_used: block.value(header::WEIGHT_USED),
            weight_limit: block.value(header::WEIGHT_LIMIT),
            banned_until_ms: Some(block.value(header::BANNED_UNTIL_MS)).filter(|&until_ms| until_ms > 0),
            failing: block.value(header::FAILING),
            polled: block.value(header::POLLED),
            source: block.source(),
            cluster_epoch,
            source_ms,
            lag_us: lag_us.map(|lag_us| lag_now_us(lag_us, source_ms, attached.exchange_ms())),
            last_error: (block.value(header::LAST_ERROR), block.value(header::LAST_ERROR_MS)),
        }
    }
}

/// Returns how far a follower is behind: what the newest message of its leader took, which was sent at `source_ms`, or
/// the time since then, if nothing followed for so long that its leader is silent. Leaders say something every second.
fn lag_now_us(lag_us: u64, source_ms: Option<u64>, exchange_ms: Option<i64>) -> u64 {
    let (Some(source_ms), Some(exchange_ms)) = (source_ms, exchange_ms) else { return lag_us };
    let since_us = (exchange_ms.max(0) as u64).saturating_sub(source_ms).saturating_mul(1_000);
    if since_us.saturating_sub(lag_us) > LEADER_SILENT_US { since_us } else { lag_us }
}

#[cfg(test)]
mod tests {
    use super::lag_now_us;

    #[test]
    fn a_lag_grows_while_nothing_comes() {
        assert_eq!(lag_now_us(3_000, Some(1_000_000), Some(1_000_500)), 3_000);
        assert_eq!(lag_now_us(3_000, Some(1_000_000), Some(1_060_000)), 60_000_000);
        // A message that took long has just come.
        assert_eq!(lag_now_us(5_000_000, Some(1_000_000), Some(1_005_100)), 5_000_000);
        // A leader's own block, an unknown clock, a clock that is behind.
        assert_eq!(lag_now_us(0, None, Some(1_060_000)), 0);
        assert_eq!(lag_now_us(3_000, Some(1_000_000), None), 3_000);
        assert_eq!(lag_now_us(3_000, Some(1_000_000), Some(-5)), 3_000);
    }
}
