"""The stalled streams of a feed: found, logged, and due for an attempt."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from candleshm.exchanges.base import StreamRules
from candleshm.stream.lane import Lane
from candleshm.stream.outage import Outage
from candleshm.stream.watchdog import Watchdog, stall_seconds
from candleshm.system.block_log import BlockLog

__all__ = ["Stalls"]


class Stalls:
    """Which streams are stalled, and for which symbols REST had newer rows. `suspect` may be called from any thread."""

    def __init__(self, rules: StreamRules, log: BlockLog, now: Callable[[], float]) -> None:
        self._rules = rules
        self._log = log
        self._now = now
        self._watchdog = Watchdog(rules)
        self._outage = Outage()
        self._suspects: dict[str, float] = {}
        self._wanted_seconds: dict[str, float] = {}
        self.down: frozenset[str] = frozenset()
        """Symbols without events since their stream stalled or lost its connection. Replaced, never changed, so that
        any thread may read it."""

    def want(self, symbols: Iterable[str]) -> None:
        """Watch exactly these symbols."""
        now = self._now()
        self._wanted_seconds = {symbol: self._wanted_seconds.get(symbol, now) for symbol in symbols}

    def suspect(self, symbol: str) -> None:
        """Note that REST had a newer row which the stream of `symbol` should have sent."""
        self._suspects.setdefault(symbol, self._now())

    def needs_look(self, lanes: Sequence[Lane]) -> bool:
        """Return whether a stream can be stalled, or was: where only changes are sent, that takes a suspicion."""
        is_quiet = self._rules.on_change and not self._suspects and not self.down
        return not is_quiet or any(lane.open_connection is None or lane.causes for lane in lanes)

    def look(self, lanes: Sequence[Lane], last_event_seconds: Mapping[str, float]) -> None:
        """Find and log stalled streams, and let their lanes do something about them."""
        now = self._now()
        # A copy, for other threads may add to them meanwhile.
        suspects = dict(self._suspects)
        for symbol, since in tuple(suspects.items()):
            if last_event_seconds.get(symbol, math.inf) > since:
                del suspects[symbol]
                self._suspects.pop(symbol, None)
        by_lane = [
            self._watchdog.stalled(lane.subscribed_seconds(), last_event_seconds, suspects, now) for lane in lanes
        ]
        stalled = [symbol for symbols in by_lane for symbol in symbols]
        failed = dict.fromkeys(stalled, "subscribed, but no data arrives")
        failed |= self._unconnected(lanes, last_event_seconds, now)
        for line in self._outage.look(failed, last_event_seconds, self._wanted_seconds, self._idle(lanes), now):
            self._log.log(logging.WARNING if line.is_warning else logging.INFO, "%s", line.text)
        self.down = frozenset(self._outage.since)
        due = self._watchdog.due(stalled, now, self.down)
        for lane, symbols in zip(lanes, by_lane, strict=True):
            lane.remedy(symbols, due, self.down, now)

    def _unconnected(
        self, lanes: Sequence[Lane], last_event_seconds: Mapping[str, float], now: float
    ) -> dict[str, str]:
        """Return the symbols that were without a connection for longer than a stream may send nothing, and why."""
        limit = now - stall_seconds(self._rules)
        return {
            symbol: lane.reason
            for lane in lanes
            if lane.open_connection is None
            for symbol in lane.group
            if max(last_event_seconds.get(symbol, -math.inf), self._wanted_seconds.get(symbol, now)) < limit
        }

    def _idle(self, lanes: Sequence[Lane]) -> set[str]:
        """Return the symbols that may send nothing: only changes are sent, and other streams of the connection flow."""
        if not self._rules.on_change:
            return set()
        return {
            symbol
            for lane in lanes
            if lane.open_connection is not None and lane.open_connection.events
            for symbol in lane.covered
            if symbol not in self._suspects
        }
