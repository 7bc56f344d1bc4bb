"""One open page: what waits to be sent to it, and the series that it draws."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from candleshm.gateway.page.watched_series import WatchedSeries

__all__ = ["Viewer"]

# A page that is this far behind is dropped; it connects anew and begins with what is true then.
BACKLOG_BYTES_MAX = 8 * 1024 * 1024


class Viewer:
    """Messages go in from any thread and come out in the event loop that made it, in order."""

    def __init__(self) -> None:
        self.series: WatchedSeries | None = None
        self.is_slow = False
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._waiting_bytes = 0

    def put(self, *texts: str) -> None:
        """Let texts be sent. A viewer that does not keep up gets none any more and `is_slow`."""
        with self._lock:
            if self.is_slow:
                return
            self._waiting += texts
            self._waiting_bytes += sum(map(len, texts))
            if self._waiting_bytes > BACKLOG_BYTES_MAX:
                self.is_slow = True
                self._waiting.clear()
        self._loop.call_soon_threadsafe(self._filled.set)

    async def take(self) -> list[str]:
        """Return what waits, as soon as there is something; nothing once the viewer is slow."""
        await self._filled.wait()
        self._filled.clear()
        with self._lock:
            texts = list(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
        return texts
