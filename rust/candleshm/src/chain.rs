//! Trade ids as proof: the ids of a market have no gaps, so candles that were pushed prove each other complete.
//!
//! A closed candle holds the ids of its first and last trade and the number of its trades. What that proves:
//!
//! - `count == last - first + 1`: the candle holds all of its trades.
//! - `first == last of the candle before + 1`: no trade lies between the two.
//! - the same towards the next candle that has trades: no trade is missing at the end, nor was counted too early.
//!
//! All three together prove that the candle holds every trade of its time. A candle without trades (ids -1) carries the
//! last id over, and is proven with its neighbours: no id is left for a trade of its own. The proof of a candle is
//! therefore complete only once the first trade behind it is known.
//!
//! Block trades of SPOT have ids of their own. A candle that holds some has more trades than ids: nothing is missing, and
//! nothing proves that it holds all of its block trades. It is left to responses, and its neighbours stay joined.

use std::ops::Range;

/// The trade ids of one pushed candle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TradeIds {
    /// First trade, -1 without one.
    pub first: i64,
    /// Newest trade, -1 without one.
    pub last: i64,
    /// How many trades the candle holds.
    pub count: i64,
}

impl TradeIds {
    /// Returns how many trades the candle holds beyond those with ids, negative for fewer; `None` for ids that cannot be.
    fn surplus(self) -> Option<i64> {
        if (self.first, self.last) == (-1, -1) {
            Some(self.count)
        } else {
            let span = self.last.checked_sub(self.first).filter(|span| self.first >= 0 && *span >= 0)?;
            self.count.checked_sub(span + 1)
        }
    }

    /// Returns whether the candle holds as many trades as its ids imply.
    #[must_use]
    pub fn are_consistent(self) -> bool {
        self.surplus() == Some(0)
    }

    /// Returns whether the candle holds trades without ids.
    fn has_surplus(self) -> bool {
        self.surplus().is_some_and(|surplus| surplus > 0)
    }
}

/// What an event proves about the candles before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Candle indices that are now proven.
    pub proven: Range<u64>,
    /// Candle indices of which at least one cannot be as it was pushed.
    pub broken: Range<u64>,
}

/// The ids of a series as far as they were pushed without a break.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain {
    link: Option<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// The newest candle that was pushed as closed.
    candle_index: u64,
    /// Id of the newest trade up to its end.
    last: i64,
    /// First of the candles up to `candle_index` that do not have nothing but the first trade behind them.
    unproven: Option<u64>,
}

impl Chain {
    /// Appends the chain to a checkpoint: four words.
    pub(crate) fn take_down(&self, words: &mut Vec<u64>) {
        let Link { candle_index, last, unproven } =
            self.link.unwrap_or(Link { candle_index: 0, last: 0, unproven: None });
        words.extend([self.link.is_some().into(), candle_index, last as u64, unproven.map_or(0, |first| first + 1)]);
    }

    /// Reads the chain from a checkpoint; returns the words behind it, `None` for words that cannot
    /// be.
    pub(crate) fn put_back(words: &[u64]) -> Option<(Self, &[u64])> {
        let (&[is_there, candle_index, last, unproven], rest) = words.split_first_chunk::<4>()?;
        if candle_index > u64::from(u32::MAX) || unproven > candle_index + 1 || last > 1 << 62 {
            return None;
        }
        let link = Link { candle_index, last: last as i64, unproven: unproven.checked_sub(1) };
        Some((Self { link: (is_there == 1).then_some(link) }, rest))
    }

    /// Takes in any event of a candle.
    pub fn saw(&mut self, candle_index: u64, ids: TradeIds) -> Proof {
        let mut proof = Proof::default();
        let Some(link) = &mut self.link else { return proof };
        if candle_index <= link.candle_index || ids.first < 0 {
            return proof;
        }
        let Some(unproven) = link.unproven else { return proof };
        if ids.first == link.last + 1 {
            proof.proven = unproven..link.candle_index + 1;
            link.unproven = None;
        } else if candle_index == link.candle_index + 1 {
            proof.broken = unproven..link.candle_index + 1;
            link.unproven = None;
        }
        proof
    }

    /// Takes in the event that closed a candle, and that [`Self::saw`] before; `has_block_trades` is whether the market
    /// has trades with ids of their own.
    pub fn closed(&mut self, candle_index: u64, ids: TradeIds, has_block_trades: bool) -> Proof {
        let mut proof = Proof::default();
        if self.link.is_some_and(|link| candle_index <= link.candle_index) {
            return proof;
        }
        let before = self.link.take();
        let is_left_to_responses = has_block_trades && ids.has_surplus();
        if !ids.are_consistent() && !is_left_to_responses {
            proof.broken = candle_index..candle_index + 1;
            return proof;
        }
        if ids.first < 0 {
            if let Some(link) = before
                && link.candle_index + 1 == candle_index
            {
                let unproven = if is_left_to_responses { None } else { link.unproven.or(Some(candle_index)) };
                self.link = Some(Link { candle_index, unproven, ..link });
            }
            return proof;
        }
        let follows = before.is_some_and(|link| link.last + 1 == ids.first);
        if !follows && before.is_some_and(|link| link.candle_index + 1 == candle_index) {
            proof.broken = candle_index..candle_index + 1;
        }
        let unproven = (follows && !is_left_to_responses).then_some(candle_index);
        self.link = Some(Link { candle_index, last: ids.last, unproven });
        proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(first: i64, last: i64) -> TradeIds {
        TradeIds { first, last, count: last - first + 1 }
    }

    const FLAT: TradeIds = TradeIds { first: -1, last: -1, count: 0 };

    fn close(chain: &mut Chain, candle_index: u64, ids: TradeIds) -> (Proof, Proof) {
        (chain.saw(candle_index, ids), chain.closed(candle_index, ids, true))
    }

    #[test]
    fn a_candle_is_proven_by_its_neighbours() {
        let mut chain = Chain::default();
        assert_eq!(close(&mut chain, 7, ids(10, 19)), Default::default(), "nothing is known of what came before");
        assert_eq!(close(&mut chain, 8, ids(20, 24)), Default::default(), "the first trade behind it is not known yet");
        assert_eq!(chain.saw(9, ids(25, 25)).proven, 8..9);
        assert_eq!(chain.saw(9, ids(25, 27)), Proof::default(), "once is enough");
        assert_eq!(close(&mut chain, 9, ids(25, 30)), Default::default());
        assert_eq!(chain.saw(10, ids(31, 31)).proven, 9..10);
    }

    #[test]
    fn flat_candles_wait_for_the_next_trade() {
        let mut chain = Chain::default();
        close(&mut chain, 1, ids(0, 4));
        close(&mut chain, 2, ids(5, 5));
        close(&mut chain, 3, FLAT);
        assert_eq!(chain.saw(4, FLAT), Proof::default());
        close(&mut chain, 4, FLAT);
        assert_eq!(chain.saw(5, ids(6, 6)).proven, 2..5);
        let mut chain = Chain::default();
        close(&mut chain, 3, FLAT);
        assert_eq!(chain.saw(4, ids(6, 6)), Proof::default(), "which id came before is not known");
    }

    #[test]
    fn a_missing_trade_breaks_the_chain() {
        let mut chain = Chain::default();
        close(&mut chain, 1, ids(0, 4));
        close(&mut chain, 2, ids(5, 9));
        assert_eq!(chain.saw(3, ids(11, 11)).broken, 2..3);
        assert_eq!(chain.saw(3, ids(11, 12)), Proof::default(), "once is enough");
        assert_eq!(close(&mut chain, 3, ids(11, 12)).1.broken, 3..4);
        assert_eq!(close(&mut chain, 4, TradeIds { first: 13, last: 20, count: 7 }).1.broken, 4..5);
        assert_eq!(close(&mut chain, 5, TradeIds { first: i64::MIN, last: i64::MAX, count: 1 }).1.broken, 5..6);
    }

    #[test]
    fn block_trades_have_ids_of_their_own() {
        let mut chain = Chain::default();
        close(&mut chain, 1, ids(0, 4));
        close(&mut chain, 2, ids(5, 9));
        let with_blocks = TradeIds { first: 10, last: 14, count: 7 };
        let only_blocks = TradeIds { first: -1, last: -1, count: 2 };
        assert_eq!(chain.saw(3, with_blocks).proven, 2..3);
        assert_eq!(chain.closed(3, with_blocks, true), Proof::default(), "neither proven nor broken");
        assert_eq!(close(&mut chain, 4, only_blocks), Default::default());
        assert_eq!(close(&mut chain, 5, ids(15, 16)), Default::default());
        assert_eq!(chain.saw(6, ids(17, 17)).proven, 5..6, "its neighbours are still joined by their ids");
        let mut futures = Chain::default();
        close(&mut futures, 1, ids(0, 4));
        assert_eq!(futures.closed(2, TradeIds { first: 5, last: 9, count: 6 }, false).broken, 2..3);
    }

    #[test]
    fn a_close_that_was_lost_neither_proves_nor_accuses() {
        let mut chain = Chain::default();
        close(&mut chain, 1, ids(0, 4));
        close(&mut chain, 2, ids(5, 9));
        // The close of 3 is lost, all of its events are.
        assert_eq!(close(&mut chain, 4, ids(15, 19)), Default::default());
        close(&mut chain, 5, ids(20, 21));
        assert_eq!(chain.saw(6, ids(22, 22)).proven, 5..6);
        // The close of 7 is lost, but it had no trade.
        close(&mut chain, 6, ids(22, 22));
        assert_eq!(chain.saw(8, ids(23, 23)).proven, 6..7);
    }

    #[test]
    fn events_of_the_past_change_nothing() {
        let mut chain = Chain::default();
        close(&mut chain, 1, ids(0, 4));
        close(&mut chain, 2, ids(5, 9));
        assert_eq!(close(&mut chain, 1, ids(0, 3)), Default::default());
        assert_eq!(close(&mut chain, 2, ids(5, 8)), Default::default());
        assert_eq!(chain.saw(3, ids(10, 10)).proven, 2..3);
    }
}
