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
    /// Returns whether the candle holds as many trades as its ids imply.
    #[must_use]
    pub fn are_consistent(self) -> bool {
        if self.count == 0 {
            (self.first, self.last) == (-1, -1)
        } else {
            self.first >= 0 && self.last.checked_sub(self.first).is_some_and(|span| span + 1 == self.count)
        }
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
    /// Takes in any event of a candle.
    pub fn saw(&mut self, candle_index: u64, ids: TradeIds) -> Proof {
        let mut proof = Proof::default();
        let Some(link) = &mut self.link else { return proof };
        if candle_index <= link.candle_index || ids.count == 0 {
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

    /// Takes in the event that closed a candle, and that [`Self::saw`] before.
    pub fn closed(&mut self, candle_index: u64, ids: TradeIds) -> Proof {
        let mut proof = Proof::default();
        if self.link.is_some_and(|link| candle_index <= link.candle_index) {
            return proof;
        }
        let before = self.link.take();
        if !ids.are_consistent() {
            proof.broken = candle_index..candle_index + 1;
            return proof;
        }
        if ids.count == 0 {
            if let Some(link) = before
                && link.candle_index + 1 == candle_index
            {
                self.link = Some(Link { candle_index, unproven: link.unproven.or(Some(candle_index)), ..link });
            }
            return proof;
        }
        let follows = before.is_some_and(|link| link.last + 1 == ids.first);
        if !follows && before.is_some_and(|link| link.candle_index + 1 == candle_index) {
            proof.broken = candle_index..candle_index + 1;
        }
        self.link = Some(Link { candle_index, last: ids.last, unproven: follows.then_some(candle_index) });
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
        (chain.saw(candle_index, ids), chain.closed(candle_index, ids))
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
