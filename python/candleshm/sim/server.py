"""The socket side: HTTP/1.1 with keep-alive, and what it is upgraded to, on one event loop in a thread of its own.

What is delivered and how (whole, cut short, in drops, not at all) is decided elsewhere; here it really happens.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

Manner = Literal["whole", "cut", "trickle", "reset", "hang"]

_HEAD_SIZE_MAX = 16_384
_BODY_SIZE_MAX = 1_048_576
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket", re.IGNORECASE)
_TRICKLE_SECONDS = 0.05
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Delivery:
    """A response on its way: ``head`` and ``body`` as bytes of the connection, and how they get there."""

    head: bytes = b""
    body: bytes = b""
    delay_ms: int = 0
    manner: Manner = "whole"
    bytes_per_second: int = 0


class Upgraded(Protocol):
    """What a connection becomes after an upgrade to another protocol."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""

    def lost(self) -> None:
        """Note that the connection is gone."""


# (method, target, head, body) -> Delivery; runs on the server's thread.
Handler = Callable[[str, str, bytes, bytes], Delivery]
# (target, head, transport) -> what the connection becomes, or a refusal; runs on the server's thread.
Upgrader = Callable[[str, bytes, asyncio.Transport], Upgraded | Delivery]


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST instead of FIN, which a linger of zero makes the kernel do."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Connection(asyncio.Protocol):
    """One client. Requests get their responses one by one, in order, however many arrive together."""

    def __init__(self, handler: Handler, upgrader: Upgrader, connections: set[_Connection]) -> None:
        self._handler = handler
        self._upgrader = upgrader
        self._upgraded: Upgraded | None = None
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._busy = False
        self._last = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._upgraded is not None:
            self._upgraded.lost()

    def data_received(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.receive(data)
            return
        self._buffer += data
        if not self._busy:
            self._next()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()

    def _next(self) -> None:
        """Send the response to the oldest complete request of the buffer, if there is one."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(head) > _HEAD_SIZE_MAX:
                self.abort()
            return
        length = _CONTENT_LENGTH.search(head)
        size = int(length[1]) if length else 0
        if size > _BODY_SIZE_MAX:
            self.abort()
            return
        if len(rest) < size:
            return
        body, self._buffer = rest[:size], rest[size:]
        words = head[: head.find(b"\r\n") if b"\r\n" in head else None].decode("latin-1").split(" ")
        if len(words) != 3:
            self.abort()
            return
        self._last = words[2] == "HTTP/1.0" or _CLOSE.search(head) is not None
        if _UPGRADE.search(head):
            upgraded = self._upgrader(words[1], head, self._transport)
            if not isinstance(upgraded, Delivery):
                self._upgraded = upgraded
                return
            delivery, self._last = upgraded, True
        else:
            delivery = self._handler(words[0], words[1], head, body)
        self._busy = True
        if delivery.delay_ms:
            self._loop.call_later(delivery.delay_ms / 1000, self._deliver, delivery)
        else:
            self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        if self._transport.is_closing():
            return
        if delivery.manner == "whole":
            self._transport.write(delivery.head + delivery.body)
            self._done()
        elif delivery.manner == "cut":
            self._transport.write(delivery.head + delivery.body[: len(delivery.body) // 2])
            self._transport.close()
        elif delivery.manner == "reset":
            reset(self._transport)
        elif delivery.manner == "trickle":
            self._transport.write(delivery.head)
            self._drip(delivery, 0, 0.0)

    def _drip(self, delivery: Delivery, sent: int, elapsed_seconds: float) -> None:
        if self._transport.is_closing():
            return
        elapsed_seconds += _TRICKLE_SECONDS
        until = min(len(delivery.body), int(elapsed_seconds * delivery.bytes_per_second))
        self._transport.write(delivery.body[sent:until])
        if until == len(delivery.body):
            self._done()
        else:
            self._loop.call_later(_TRICKLE_SECONDS, self._drip, delivery, until, elapsed_seconds)

    def _done(self) -> None:
        self._busy = False
        if self._last:
            self._transport.close()
        elif self._buffer:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if not self._busy and not self._transport.is_closing():
            self._next()


class HttpServer:
    """A listening socket and the thread that serves it."""

    def __init__(self, host: str, port: int, handler: Handler, upgrader: Upgrader) -> None:
        self.host = host
        self.port = port
        self._handler = handler
        self._upgrader = upgrader
        self._connections: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._error: OSError | None = None

    def start(self) -> None:
        """Listen; `port` is then the real one. Raises OSError when the address is in use."""
        self._listening.clear()
        self._error = None
        self._thread = threading.Thread(target=self._serve, name="candleshm-sim", daemon=True)
        self._thread.start()
        if not self._listening.wait(_START_SECONDS):
            raise OSError(f"the simulated exchange did not start listening on {self.host}:{self.port}")
        if self._error is not None:
            self._thread.join()
            self._thread = None
            raise self._error

    def stop(self) -> None:
        """Drop all connections and end the thread. Calling it twice is harmless."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the server's thread."""
        if self._loop is None or self._thread is None:
            raise RuntimeError("the server is not running")
        self._loop.call_soon_threadsafe(function, *arguments)

    def _serve(self) -> None:
        loop = self._loop = asyncio.SelectorEventLoop()
        try:
            listen = loop.create_server(self._connection, self.host, self.port, backlog=1024)
            server = loop.run_until_complete(listen)
        except OSError as error:
            # asyncio has a long sentence of its own for it. The number of a name that cannot be resolved is negative.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            self._error = OSError(number, reason, f"{self.host}:{self.port}")
            loop.close()
            self._listening.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        loop.run_forever()
        loop.run_until_complete(self._end(server))
        loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        """Drop all connections, and take no more."""
        # One that was taken and is not made yet is a task. asyncio would lose it if the server were closed before.
        while self._connections or len(asyncio.all_tasks()) > 1:
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()

    def _connection(self) -> _Connection:
        return _Connection(self._handler, self._upgrader, self._connections)
