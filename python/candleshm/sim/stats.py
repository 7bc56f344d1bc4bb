"""What the simulated exchange was asked and what it said: counts a test can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from candleshm.sim.limits import WeightPool


@dataclass(frozen=True)
class Served:
    """One request: exchange time at which it was there, its target, what it got (status 0: no answer), its weight."""

    received_ms: int
    method: str
    target: str
    status: int
    weight: int


@dataclass(frozen=True)
class RequestCount:
    """How many requests of one kind there were. ``status`` is 0 when a fault left them without a whole answer."""

    path: str
    symbol: str | None
    status: int
    count: int


@dataclass(frozen=True)
class PoolStats:
    """Weight of a pool: used in the newest clock minute, allowed, in all, and the most in any 60 seconds."""

    used: int
    limit: int
    total: int
    peak_60s: int


@dataclass(frozen=True)
class Stats:
    """Counts since the start. ``pools`` has the keys SPOT and FUTURES (UM and CM share one)."""

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
