"""Whether the data of a feed is current: the one judgement of `Health`, `ls`, `top`, the metrics and the collector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["SILENT_SECONDS", "STALE_SECONDS", "Freshness"]

# A series whose data is older than this is stale, where the reader has set no `max_age`.
STALE_SECONDS = 60.0
# A collector gives a sign of life every half second.
SILENT_SECONDS = 5.0
# So many of the symbols that trade may be stale while the feed as a whole is current.
STALE_PART = 10


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the data of the symbols that trade is."""

    stale: int
    """Symbols whose data is older than the limit; of these some were never answered for."""
    oldest_age: float
    """Age of the oldest data, seconds: infinite while no symbol has any, 0 when no symbol trades."""
    is_current: bool
    """Whether some data is fresh, and no more than one symbol in ten is stale (or one, in a smaller feed).

    A symbol that was never answered for does not count here: whether the feed is loaded says what that means.
    """

    @classmethod
    def of(cls, ages: Sequence[float], max_age: float | None = None) -> Self:
        """Judge the ages (seconds, infinite before the first answer) of the symbols that trade.

        >>> Freshness.of([0.5] * 20 + [90.0, 61.0])
        Freshness(stale=2, oldest_age=90.0, is_current=True)
        """
        limit = STALE_SECONDS if max_age is None or math.isinf(max_age) else max_age
        stale = sum(age > limit for age in ages)
        answered = [age for age in ages if math.isfinite(age)]
        aged = sum(age > limit for age in answered)
        oldest_age = max(answered, default=math.inf if ages else 0.0)
        is_current = not ages or (aged < len(answered) and aged <= max(1, len(ages) // STALE_PART))
        return cls(stale, oldest_age, is_current)
