"""Requests to the simulated exchange and its responses: counts and records that a test can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from candleshm.sim.rest.limits import WeightPool


@dataclass(frozen=True)
class Served:
    """One request: exchange time at which it was there, its target, what it got (status 0: no response), its weight."""

    received_ms: int
    method: str
    target: str
    status: int
    weight: int


@dataclass(frozen=True)
class RequestCount:
    """How many requests of one kind there were. ``status`` is 0 when a fault left them without a whole response."""

    path: str
    symbol: str | None
    status: int
    count: int


@dataclass(frozen=True)
class PoolStats:
    """Weight of a pool: used in the newest window, allowed, in all, and the most in any 60 seconds."""

    used: int
    limit: int
    total: int
    peak_60s: int


@dataclass(frozen=True)
class Stats:
    """Counts since the start. ``pools`` has the keys SPOT, FUTURES and FUNDING (the last two for UM and CM)."""

    requests: tuple[RequestCount, ...]
    pools: dict[str, PoolStats]

    def count(self, path: str | None = None, symbol: str | None = None, status: int | None = None) -> int:
        """Return how many requests match; ``path`` is the end of a path, None matches all."""
        return sum(
            item.count
            for item in self.requests
            if (path is None or item.path.endswith(path))
            and symbol in {None, item.symbol}
            and status in {None, item.status}
        )


def summarize(counts: Counter[tuple[str, str | None, int]], pools: dict[str, WeightPool]) -> Stats:
    """Return the counts as a value of its own."""
    return Stats(
        tuple(RequestCount(path, symbol, status, count) for (path, symbol, status), count in counts.items()),
        {name: PoolStats(pool.used, pool.limit, pool.total, pool.peak_60s) for name, pool in pools.items()},
    )


@dataclass
class StreamConnection:
    """One connection to the stream side, as it is or was.

    ``status`` is the handshake's (0: no response yet), ``closed_ms`` None while it is open. ``messages`` counts what
    the client sent, pongs included; ``events`` what it was sent. ``code`` and ``reason`` are those of the close
    frame; a connection that ended without one has code 1006.
    """

    number: int
    opened_ms: int
    market: str
    target: str
    status: int = 0
    streams: tuple[str, ...] = ()
    messages: int = 0
    pings: int = 0
    pongs: int = 0
    events: int = 0
    closed_ms: int | None = None
    code: int = 1006
    reason: str = ""


class Pushed(NamedTuple):
    """One event for one connection: its ``E``, the candle's opening, whether it was final, and the fault it met."""

    at_ms: int
    connection: int
    stream: str
    open_ms: int
    closed: bool
    fault: str | None
