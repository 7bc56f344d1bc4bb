"""Which series stay behind the exchange's clock while others go on. Pure.

A series that trades has a newer candle a moment after its newest one ended: without trades the exchange sends a flat
one. A series without a newer candle was halted or delisted, or the exchange fails to send its data. So the list of
symbols is requested, see `listing`; and whatever the list has, closes of the others do not wait for it for ever: after
one candle's length, but ten seconds at least and a minute at most, it is silent. It counts again with its next candle.

While the market of a TradFi perpetual does not trade, its series may be flat or have no candles at all. One without is
resting: closes do not wait for it, which is no reason to look at the list of symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from candleshm.collector.loading import FAILURES_MAX
from candleshm.collector.series_plan import PollPolicy, SeriesPlan
from candleshm.exchanges.base import INTERVAL_MS, candle_end_ms

__all__ = ["Laggards"]

# How long after the end of its newest candle a series without a newer one lags.
LAG_MS = 5_000
SILENT_SECONDS = (10.0, 60.0)


@dataclass(slots=True)
class _Lag:
    """Since when a series lags, and since when it does while others go on (local seconds)."""

    since_seconds: float
    behind_seconds: float | None = None


class Laggards:
    """Belongs to the loop, which lets it look about once a second."""

    def __init__(self, policy: PollPolicy) -> None:
        self._policy = policy
        shortest, longest = SILENT_SECONDS
        self._silent_seconds = min(longest, max(shortest, INTERVAL_MS[policy.interval] / 1000))
        self._lags: dict[str, _Lag] = {}
        self.silent: frozenset[str] = frozenset()
        """Symbols that closes no longer wait for, though they trade."""
        self.resting: frozenset[str] = frozenset()
        """Symbols that closes do not wait for, because their market does not trade, or has just begun to."""

    @property
    def since_seconds(self) -> dict[str, float]:
        """Since when each series lags that does, local seconds."""
        return {symbol: lag.since_seconds for symbol, lag in self._lags.items()}

    def look(self, plans: Iterable[SeriesPlan], now_seconds: float, now_ms: int) -> None:
        """Compare every series with the exchange's clock, which has surely reached `now_ms`."""
        lagging, resting, going_on = set(), set(), 0
        for plan in plans:
            if not plan.trading or plan.newest_open_ms is None:
                continue
            end_ms = candle_end_ms(self._policy.interval, plan.newest_open_ms)
            due_ms = max(end_ms, plan.quiet_until_ms) + LAG_MS
            if end_ms + LAG_MS <= now_ms < due_ms:
                resting.add(plan.symbol)
            elif now_ms < due_ms:
                going_on += 1
            elif plan.tail_sent_ms >= due_ms or plan.failures >= FAILURES_MAX:
                # A response could have shown something newer. A series that was not requested yet, after an outage or
                # for want of weight, does not lag.
                lagging.add(plan.symbol)
        self._lags = {symbol: self._lags.get(symbol) or _Lag(now_seconds) for symbol in lagging}
        for lag in self._lags.values():
            if not going_on:
                lag.behind_seconds = None
            elif lag.behind_seconds is None:
                lag.behind_seconds = now_seconds
        self.silent = frozenset(
            symbol
            for symbol, lag in self._lags.items()
            if symbol in self.silent
            or symbol in self.resting
            or (lag.behind_seconds is not None and now_seconds - lag.behind_seconds >= self._silent_seconds)
        )
        self.resting = frozenset(resting)
