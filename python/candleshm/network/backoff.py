"""Exponential backoff: how long to wait before attempt number n. Nothing here sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double: `first_seconds * 2 ** (attempt - 1)`, at most `limit_seconds`, less a random part.

    The random part is up to `jitter` of the delay, so that many series that failed together do not return together.
    The exchange recommends 200, 400, 800 ms after its 503; the defaults follow it.
    """

    first_seconds: float = 0.2
    limit_seconds: float = 60.0
    jitter: float = 0.25

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Return the delay after failure number `attempt`, counted from 1."""
        # The exponent is bounded, or the power of a series that failed for days would no longer fit a float.
        delay_seconds = min(self.limit_seconds, self.first_seconds * 2.0 ** min(max(attempt, 1) - 1, 64))
        return delay_seconds * (1 - self.jitter * random.random())
