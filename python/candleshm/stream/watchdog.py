"""What silence means. Pure: times go in, judgements come out.

A spot stream pushes every candle at a fixed pace, traded or not, so three periods without an event are a fault of the
stream. A futures stream pushes when something changed: there silence is a fault only if an answer by REST shows that
something did, which is for the scheduler to find out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from candleshm.exchanges.base import StreamRules

__all__ = ["PERIODS_MAX", "Watchdog", "silence_seconds"]

# So many periods may pass without an event.
PERIODS_MAX = 3
# On futures quiet symbols are asked about by REST; at 0.25 s a period that would be every moment.
ON_CHANGE_SECONDS = 3.0
# Nothing at all on a connection, not even a pong: it is dead, whatever TCP says. Asked first, given up later.
PING_SECONDS = 3.0
DEAD_SECONDS = 7.0
# A stream that stays mute is subscribed again, a connection that stays mute replaced, ever less often.
HEAL_SECONDS = 2.0
HEAL_SECONDS_MAX = 300.0


def silence_seconds(rules: StreamRules) -> float:
    """Return how long a stream may be silent before its symbol is asked about by REST."""
    return max(PERIODS_MAX * rules.push_seconds, ON_CHANGE_SECONDS if rules.on_change else 0.0)


@dataclass(slots=True)
class _Healing:
    seconds: float
    attempts: int


class Watchdog:
    """Which streams of a feed are mute, and when to do something about it."""

    def __init__(self, rules: StreamRules) -> None:
        self._rules = rules
        self._silence_seconds = silence_seconds(rules)
        self._healing: dict[str, _Healing] = {}

    def silent(
        self,
        subscribed_seconds: Mapping[str, float],
        heard_seconds: Mapping[str, float],
        suspects: Mapping[str, float],
        now_seconds: float,
    ) -> list[str]:
        """Return the symbols whose stream should have been heard since it was subscribed.

        `suspects` are those of which an answer by REST knew something newer, and since when; on futures only they can
        be mute. What an answer knows may be pushed a moment later.
        """
        limit = now_seconds - self._silence_seconds
        symbols: Iterable[str] = subscribed_seconds
        if self._rules.on_change:
            symbols = [symbol for symbol, since in suspects.items() if since < limit and symbol in subscribed_seconds]
        return [
            symbol
            for symbol in symbols
            if subscribed_seconds[symbol] < limit and heard_seconds.get(symbol, 0.0) < limit
        ]

    def due(self, symbols: Iterable[str], now_seconds: float, unheard: Collection[str] = ()) -> dict[str, int]:
        """Return those of the mute `symbols` about whose stream something is to be done now, for the how manieth time.

        `symbols` are all that are mute, `unheard` those that were and have not been heard since: a remedy makes a
        stream look well for a while, and only data proves it. Of all others it is forgotten that they were mute.
        """
        mute = set(symbols)
        kept = mute | set(unheard)
        self._healing = {symbol: healing for symbol, healing in self._healing.items() if symbol in kept}
        due = {}
        for symbol in sorted(mute):
            healing = self._healing.setdefault(symbol, _Healing(-float("inf"), 0))
            pause_seconds = min(HEAL_SECONDS_MAX, HEAL_SECONDS * 2.0**healing.attempts)
            if now_seconds >= healing.seconds + pause_seconds:
                healing.seconds, healing.attempts = now_seconds, healing.attempts + 1
                due[symbol] = healing.attempts
        return due
