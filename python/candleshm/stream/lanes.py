"""The lanes of a feed: one for each group of symbols, which keeps its place for as long as the feed lives."""

from __future__ import annotations

from collections.abc import Iterator

from candleshm.exchanges.base import Exchange
from candleshm.stream.connection import Connection
from candleshm.stream.lane import Lane
from candleshm.stream.shards import Shards

__all__ = ["Lanes"]


class Lanes:
    """A lane for each group of at most `streams_max` symbols, with the names of their streams. Belongs to one thread,
    except that any may iterate.
    """

    def __init__(self, exchange: Exchange, interval: str, streams_max: int) -> None:
        self._exchange = exchange
        self._interval = interval
        self._shards = Shards(streams_max)
        self._aligned: tuple[str, ...] = ()
        self._lanes: list[Lane] = []
        self.resting: frozenset[str] = frozenset()
        """Symbols that may send nothing, because their market does not trade."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    def align(self, symbols: tuple[str, ...]) -> bool:
        """Carry exactly `symbols`; return whether that changed anything."""
        if symbols is self._aligned:
            return False
        self._aligned = symbols
        if not self._shards.align(symbols):
            return False
        self._lanes += [Lane(group) for group in self._shards.groups[len(self._lanes) :]]
        for lane in self._lanes:
            lane.names = {self._exchange.stream_name(symbol, self._interval): symbol for symbol in lane.group}
        return True

    def connection(self, number: int) -> Connection | None:
        """Return the connection of that number, None when no lane uses it any more."""
        found = (lane.connection(number) for lane in self._lanes)
        return next((connection for connection in found if connection is not None), None)

    @property
    def connections(self) -> int:
        """How many of them have an open connection."""
        return sum(lane.open_connection is not None for lane in self._lanes)

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on an open connection."""
        return frozenset(symbol for lane in self._lanes for symbol in lane.covered)
