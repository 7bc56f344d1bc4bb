"""One open page: the connection to it, and the series that it draws."""

from __future__ import annotations

import asyncio

from websockets.frames import Frame, Opcode

from candleshm.gateway.page.watched_series import WatchedSeries
from candleshm.gateway.streams.protocol import StreamProtocol

__all__ = ["Viewer", "frames_of"]

# A page that is this far behind is dropped; it connects anew and begins with what is true then.
UNSENT_BYTES_MAX = 4 * 1024 * 1024
VIOLATION = 1008


def frames_of(*texts: bytes) -> bytes:
    """Return texts as websocket frames: encoded once, whatever the number of viewers."""
    return b"".join(Frame(Opcode.TEXT, text).serialize(mask=False) for text in texts)


class Viewer:
    """Takes frames from any thread, and writes them in the event loop that made it, in order."""

    def __init__(self, connection: StreamProtocol) -> None:
        self.series: WatchedSeries | None = None
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    def put(self, frames: bytes) -> None:
        """Let frames be sent, unless the page does not keep up: then its connection ends."""
        if frames:
            self._loop.call_soon_threadsafe(self._write, frames)

    def _write(self, frames: bytes) -> None:
        if self._connection.unsent_bytes > UNSENT_BYTES_MAX:
            self._connection.close(VIOLATION, "the page does not keep up")
        else:
            self._connection.write(frames)
