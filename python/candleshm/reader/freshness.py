"""Whether the data of a feed is current: the one judgement of `Health`, `ls`, `top`, the metrics and the collector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from candleshm import _core

__all__ = ["SILENT_SECONDS", "STALE_SECONDS", "Freshness"]

# A series whose data is older than this is stale, where the reader has set no `max_age`.
STALE_SECONDS = _core.STALE_MS / 1000
# A collector publishes a heartbeat every half second.
SILENT_SECONDS = _core.SILENT_MS / 1000


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the data of the symbols that trade is."""

    stale: int
    """Symbols whose data is older than the limit, or that have no data yet."""
    oldest_age: float
    """Age of the oldest data, seconds: infinite while no symbol has any, 0 when no symbol trades."""
    is_current: bool
    """Whether some data is fresh, and no more than one symbol in ten is stale (or one, in a smaller feed).

    A symbol without any data yet does not count here: `Health.loaded` speaks of those.
    """

    @classmethod
    def of(cls, ages: Sequence[float], max_age: float | None = None) -> Self:
        """Judge the ages (seconds, infinite before the first response) of the symbols that trade.

        >>> Freshness.of([0.5] * 20 + [90.0, 61.0])
        Freshness(stale=2, oldest_age=90.0, is_current=True)
        """
        return cls(*_core.freshness(ages, max_age))
