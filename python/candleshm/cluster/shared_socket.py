"""The socket of a connection, written to by the loop's thread and by one that does not wait for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from candleshm._core import Outlet

__all__ = ["SharedSocket"]

# What the system did not take is looked at again after so long.
LOOK_SECONDS = 0.002


class SharedSocket:
    """Keeps what two threads write whole and in order. Belongs to the loop, but for `send` and `settle`.

    The loop writes by `write` and `writelines` only. `send`, and whoever has the `outlet`, writes past it as long as
    the loop has nothing left to write itself; what the system does not take of it goes out before anything else that
    the loop writes.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._is_watched = False
        self.outlet: Outlet | None = None
        """Where threads write past the loop; None with TLS, which only the loop speaks."""
        if writer.get_extra_info("sslcontext") is None:
            # A descriptor of its own: the transport may close its one while somebody sends.
            self.outlet = Outlet(writer.get_extra_info("socket").dup().detach())

    def send(self, data: bytes) -> bool:
        """Write from any thread, without waiting; return False where the loop has to, and nothing was written."""
        if self.outlet is None or not self.outlet.send(data):
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Have the loop write what the system did not take of what was sent past it. May be called from any thread."""
        if self.outlet is not None and self.outlet.has_rest:
            self._loop.call_soon_threadsafe(self.write, b"")

    def write(self, data: bytes) -> None:
        """Write in the loop's thread."""
        self.writelines((data,))

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write in the loop's thread."""
        if self.outlet is None:
            self._writer.write(b"".join(parts))
            return
        rest = self.outlet.claim()
        self._writer.write(b"".join((rest, *parts)))
        if not self._is_watched:
            self._watch(self.outlet)

    def close(self) -> None:
        """Write past the loop no longer."""
        if self.outlet is not None:
            self.outlet.close()

    def _watch(self, outlet: Outlet) -> None:
        """Give the socket free once the system has taken everything."""
        self._is_watched = self._writer.transport.get_write_buffer_size() > 0
        if self._is_watched:
            self._loop.call_later(LOOK_SECONDS, self._watch, outlet)
        else:
            outlet.release()
