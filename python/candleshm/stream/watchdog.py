"""Which streams are stalled, and when to do something about them. Pure: times go in, decisions come out.

A SPOT stream sends every candle at a fixed rate, traded or not, so three periods without an event are a fault of the
stream. A futures stream sends when something changed: there it is stalled only if REST had a newer row, which the
collector finds out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from candleshm.exchanges.base import StreamRules

__all__ = ["PERIODS_MAX", "Watchdog", "stall_seconds"]

# So many periods may pass without an event.
PERIODS_MAX = 3
# On futures, idle symbols are requested by REST; at 0.25 s a period that would be all the time.
ON_CHANGE_SECONDS = 3.0
# A stalled stream is subscribed again, a stalled connection replaced, less and less often.
RESUBSCRIBE_SECONDS = 2.0
RESUBSCRIBE_SECONDS_MAX = 300.0


def stall_seconds(rules: StreamRules) -> float:
    """Return how long a stream may send nothing before its symbol is requested by REST."""
    return max(PERIODS_MAX * rules.push_seconds, ON_CHANGE_SECONDS if rules.on_change else 0.0)


@dataclass(slots=True)
class _Attempts:
    seconds: float
    count: int


class Watchdog:
    """Which streams of a feed are stalled, and which of them need an attempt now."""

    def __init__(self, rules: StreamRules) -> None:
        self._rules = rules
        self._stall_seconds = stall_seconds(rules)
        self._attempts: dict[str, _Attempts] = {}

    def stalled(
        self,
        subscribed_seconds: Mapping[str, float],
        last_event_seconds: Mapping[str, float],
        suspects: Mapping[str, float],
        now_seconds: float,
    ) -> list[str]:
        """Return the symbols whose stream should have sent an event since it was subscribed.

        `suspects` are symbols of which REST had a newer row, and since when; on futures only these can be stalled. A
        row that REST has may be pushed a moment later.
        """
        limit = now_seconds - self._stall_seconds
        symbols: Iterable[str] = subscribed_seconds
        if self._rules.on_change:
            symbols = [symbol for symbol, since in suspects.items() if since < limit and symbol in subscribed_seconds]
        return [
            symbol
            for symbol in symbols
            if subscribed_seconds[symbol] < limit and last_event_seconds.get(symbol, 0.0) < limit
        ]

    def due(self, symbols: Iterable[str], now_seconds: float, unproven: Collection[str] = ()) -> dict[str, int]:
        """Return those of the stalled `symbols` whose stream needs an attempt now, with the attempt number.

        `symbols` are all that are stalled, `unproven` those that were and have sent nothing since: a new subscription
        makes a stream look well for a while, and only data proves it. The attempts of all others are forgotten.
        """
        stalled = set(symbols)
        kept = stalled | set(unproven)
        self._attempts = {symbol: attempts for symbol, attempts in self._attempts.items() if symbol in kept}
        due = {}
        for symbol in sorted(stalled):
            attempts = self._attempts.setdefault(symbol, _Attempts(-float("inf"), 0))
            pause_seconds = min(RESUBSCRIBE_SECONDS_MAX, RESUBSCRIBE_SECONDS * 2.0**attempts.count)
            if now_seconds >= attempts.seconds + pause_seconds:
                attempts.seconds, attempts.count = now_seconds, attempts.count + 1
                due[symbol] = attempts.count
        return due
