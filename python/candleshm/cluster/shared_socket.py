"""The socket of a connection, written to by the loop's thread and by one that does not wait for the loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable

__all__ = ["SharedSocket"]


class SharedSocket:
    """Keeps what two threads write whole and in order. Belongs to the loop, but for `send`.

    The loop writes by `write` and `writelines` only. `send` writes past it, as long as the loop has nothing left to
    write itself; what the system does not take of it goes out before anything else that the loop writes.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._rest = b""
        # A descriptor of its own: the transport may close its one while `send` writes.
        self._socket: socket.socket | None = None
        if writer.get_extra_info("sslcontext") is None:
            self._socket = writer.get_extra_info("socket").dup()
            self._socket.setblocking(False)

    def send(self, data: bytes) -> bool:
        """Write from any thread, without waiting; return False where the loop has to, and nothing was written."""
        with self._lock:
            if self._socket is None or self._rest or self._writer.transport.get_write_buffer_size():
                return False
            try:
                count = self._socket.send(data)
            except BlockingIOError:
                return False
            except OSError:
                # The loop learns of it by itself, and says that the connection is lost.
                self._close()
                return False
            self._rest = data[count:]
            if self._rest:
                self._loop.call_soon_threadsafe(self.write, b"")
            return True

    def write(self, data: bytes) -> None:
        """Write in the loop's thread."""
        self.writelines((data,))

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write in the loop's thread."""
        with self._lock:
            rest, self._rest = self._rest, b""
            self._writer.write(b"".join((rest, *parts)))

    def close(self) -> None:
        """Write past the loop no longer."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
