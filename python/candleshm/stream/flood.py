"""How much a connection may bring. Pure: counts go in, a reason to end the connection comes out.

A stream pushes at most four candles a second, and some more after a pause. A server that sends many times as much, or
pings, parts, replies and other things without a candle in them, would cost a core and fill the log.
"""

from __future__ import annotations

__all__ = ["Flood"]

WINDOW_SECONDS = 10.0
FRAMES_MAX, FRAMES_PER_STREAM = 20_000, 200
OTHERS_MAX = 2_000


class Flood:
    """What one connection brought in the current window."""

    def __init__(self) -> None:
        self._since_seconds = float("-inf")
        self._frames = self._others = 0

    def look(self, frames: int, others: int, streams: int, now_seconds: float) -> str:
        """Count texts, and frames of other kinds; return the reason to end the connection, or an empty text."""
        if now_seconds - self._since_seconds > WINDOW_SECONDS:
            self._since_seconds, self._frames, self._others = now_seconds, 0, 0
        self._frames += frames
        self._others += others
        if self._others > OTHERS_MAX:
            return f"{self._others} frames without a candle in {WINDOW_SECONDS:g} s"
        if self._frames > FRAMES_MAX + FRAMES_PER_STREAM * streams:
            return f"{self._frames} frames in {WINDOW_SECONDS:g} s for {streams} streams"
        return ""
