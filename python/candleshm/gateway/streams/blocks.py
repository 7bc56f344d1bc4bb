"""Which blocks have the candles that the name of a stream means."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

from candleshm._core import INTERVAL_MS, Zone
from candleshm.exchanges.base import DAY_MS, Market
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.streams.names import KlineName
from candleshm.reader.feed import Feed

__all__ = ["feeds_of"]

UTC8_MS = 8 * INTERVAL_MS["1h"]


def feeds_of(directory: BlockDirectory, market: Market, kline: KlineName) -> Sequence[Feed]:
    """Return the feeds that have the candles, the best first; empty for what the market does not stream."""
    if market != "SPOT" and (kline.is_utc8 or kline.interval == "1s"):
        return ()
    if kline.is_utc8 and kline.interval == "1d":
        feeds = directory.feeds.values()
        return [
            feed
            for feed in feeds
            if (feed.market, feed.price) == (market, "trade")
            and is_of_utc8_days(feed.interval)
            and kline.symbol in feed
        ]
    # Candles that divide eight hours open at the same moments in both time zones.
    if kline.is_utc8 and (INTERVAL_MS[kline.interval] > UTC8_MS or UTC8_MS % INTERVAL_MS[kline.interval]):
        return ()
    return directory.find(market, kline.symbol, kline.interval)


@cache
def is_of_utc8_days(interval: str) -> bool:
    """Return whether candles are the days of a time zone that is eight hours ahead of UTC all the year."""
    day, _, zone = interval.partition("@")
    if day != "1d" or not zone:
        return False
    now_ms = time.time_ns() // 1_000_000
    return all(Zone(zone).offset_ms(now_ms - days * DAY_MS) == UTC8_MS for days in (0, 182))
