"""Whether anything still arrives on a connection, and the pings and pongs that show it. Pure."""

from __future__ import annotations

from candleshm.stream.rate_limiter import RateLimiter
from candleshm.stream.watchdog import DEAD_SECONDS, PING_SECONDS

__all__ = ["Liveness"]


class Liveness:
    """When a connection last received anything, and which ping still needs its pong."""

    def __init__(self, now_seconds: float) -> None:
        self.received_seconds = now_seconds
        self._is_pinged = False
        self._pongs = RateLimiter(1, 1.0)
        self._ping: bytes | None = None

    def received(self, now_seconds: float) -> None:
        """Note that something arrived."""
        self.received_seconds = now_seconds
        self._is_pinged = False

    def is_dead(self, now_seconds: float) -> bool:
        """Return whether nothing arrived for so long that the connection is given up."""
        return now_seconds - self.received_seconds > DEAD_SECONDS

    def needs_ping(self, now_seconds: float) -> bool:
        """Return whether a ping should find out if the connection is alive."""
        return now_seconds - self.received_seconds > PING_SECONDS and not self._is_pinged

    def pinged(self) -> None:
        """Note that a ping was sent."""
        self._is_pinged = True

    def ping(self, payload: bytes) -> None:
        """Note a ping of the server. Of several that arrive together only the newest gets a pong."""
        self._ping = payload

    def pong(self, now_seconds: float) -> bytes | None:
        """Return the payload of a pong that is due, at most one a second."""
        if self._ping is None or not self._pongs.take(now_seconds):
            return None
        payload, self._ping = self._ping, None
        return payload
