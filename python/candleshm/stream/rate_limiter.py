"""A rate limit: so many times in so many seconds, in any window. Pure; it never sleeps."""

from __future__ import annotations

from collections import deque

__all__ = ["RateLimiter"]


class RateLimiter:
    """At most `count` times in any `seconds`."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=count)

    def take(self, now_seconds: float) -> bool:
        """Do it once, if that is allowed at `now_seconds`; return whether it was."""
        if not self.is_free(now_seconds):
            return False
        self._taken.append(now_seconds)
        return True

    def is_free(self, now_seconds: float) -> bool:
        """Return whether `take` would be allowed."""
        return len(self._taken) < self._count or now_seconds - self._taken[0] >= self._seconds
