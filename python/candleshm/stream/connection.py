"""One websocket: bytes from the socket in, whole text frames out, subscriptions kept as they are wanted.

The protocol is the library's, without its I/O: the frames of one socket read are passed on as one batch, and nothing is
decoded or queued on the way.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol, cast
from urllib.parse import quote

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from candleshm.errors import ExchangeUnavailable
from candleshm.exchanges.base import StreamRules
from candleshm.network.addresses import Address, Addresses
from candleshm.stream.flood import Flood
from candleshm.stream.framing import CONTROL_BYTES_MAX, FRAME_BYTES_MAX, PING, FrameBuffer, cut
from candleshm.stream.liveness import Liveness
from candleshm.stream.subscriptions import URL_NAMES_MAX, Subscriptions
from candleshm.system.log_text import printable

__all__ = ["Connection", "ConnectionOwner"]

CONNECT_SECONDS, HANDSHAKE_SECONDS = 3.0, 5.0
CLOSE_SECONDS = 2.0
# Texts arrive whole; a server that sends one in this many parts does not intend to end it.
PARTS_MAX = 256
HEAD_END, HEAD_BYTES_MAX = b"\r\n\r\n", 1 << 16
STATUS_LINE = re.compile(rb"HTTP/1\.[01] +([0-9]{3})[ \r\n]")


class ConnectionOwner(Protocol):
    """What a connection calls, in the thread of its event loop."""

    def received(self, connection: Connection, frames: list[bytes], /) -> None:
        """Take the text frames of one socket read."""

    def ended(self, connection: Connection, /) -> None:
        """Note that the connection is closed; `reason` has the cause."""


class RefusedStream(Exception):
    """The server refused the handshake: its status was not 101."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.BufferedProtocol):
    """A connection and its subscriptions; belongs to one event loop. `open` makes one."""

    def __init__(
        self,
        uri: str,
        names: Iterable[str],
        rules: StreamRules,
        now: Callable[[], float],
        owner: ConnectionOwner,
        blame: Callable[[], None],
    ) -> None:
        """`blame` is called when the server stops sending anything: another address may do better."""
        self._protocol = ClientProtocol(parse_uri(uri), max_size=FRAME_BYTES_MAX)
        self._now = now
        self._owner = owner
        self._blame = blame
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._buffer = FrameBuffer()
        self._liveness = Liveness(now())
        self._flood = Flood()
        self.subscriptions = Subscriptions(names, rules, now())
        self.opened_seconds = now()
        self.events = 0
        self.rotation = ""
        """Why another connection has to replace this one; empty while none has to."""
        self.reason = ""
        """Why it ended; empty while it is open."""
        self.misbehaved = False
        """Whether it ended because of what the server sent."""

    @classmethod
    async def open(
        cls,
        names: Iterable[str],
        rules: StreamRules,
        *,
        addresses: Addresses,
        context: ssl.SSLContext | None,
        now: Callable[[], float],
        owner: ConnectionOwner,
    ) -> Connection:
        """Connect and complete the handshake. Raises ExchangeUnavailable when that fails or takes too long."""
        first = list(islice(names, URL_NAMES_MAX))
        uri = f"{rules.url}?streams={'/'.join(quote(name, safe='@') for name in first)}"
        target = parse_uri(uri)
        connection = None

        def blame() -> None:
            """Let the next connection use another address."""
            if place is not None:
                addresses.failed(target.host, target.port, place)

        place: Address | None = None
        try:
            socket, place = await addresses.connect_async(target.host, target.port, CONNECT_SECONDS)
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        lambda: cls(uri, first, rules, now, owner, blame),
                        sock=socket,
                        ssl=context if target.secure else None,
                        server_hostname=target.host if target.secure else None,
                    )
                    await connection._opened
            except BaseException as error:
                if connection is None:
                    socket.close()
                if not isinstance(error, RefusedStream | asyncio.CancelledError):
                    blame()
                raise
            addresses.worked(target.host, target.port, place)
        except TimeoutError as error:
            reason = str(error) if place is None else f"no handshake in {HANDSHAKE_SECONDS:g} s"
        except RefusedStream as error:
            reason = f"HTTP {error.status}"
            raise ExchangeUnavailable(f"{target.host} refuses a stream: {reason}", status=error.status) from None
        except (OSError, ValueError, WebSocketException) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            return connection
        finally:
            if connection is not None and not connection.is_open:
                connection.abort("no handshake")
        raise ExchangeUnavailable(f"no stream from {target.host}: {reason}")

    @property
    def is_open(self) -> bool:
        """Whether events may arrive."""
        return not self.reason and self._opened.done() and self._protocol.state is State.OPEN

    def resubscribe(self, names: Iterable[str]) -> None:
        """Subscribe these streams once more: they are stalled."""
        text = self.subscriptions.resubscribe(names, self._now())
        if text is not None:
            self._protocol.send_text(text)

    def look(self) -> None:
        """Send what is due, and close a dead connection; to be called several times a second."""
        if not self.is_open:
            return
        now = self._now()
        self._pong(now)
        if self._liveness.is_dead(now):
            self._blame()
            self.abort(f"nothing received for {now - self._liveness.received_seconds:.0f} s")
            return
        if self._liveness.needs_ping(now) and self.subscriptions.may_send(now):
            self._liveness.pinged()
            self._protocol.send_ping(b"")
        for text in self.subscriptions.messages(now):
            self._protocol.send_text(text)
        self._flush()

    def close(self) -> None:
        """Send a close frame, and wait only briefly for the server's."""
        self.reason = self.reason or "closed by us"
        if self._transport is not None and self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)
        elif self._transport is not None:
            self._transport.abort()

    def abort(self, reason: str) -> None:
        """End at once."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the handshake."""
        # The transports of other event loops are no subclass of anything here, and work as well.
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the memory that the socket is read into."""
        return self._buffer.memory

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on all whole text frames of one read together."""
        data, now = self._buffer.take(nbytes), self._now()
        self._liveness.received(now)
        frames: list[bytes] = []
        if not self._opened.done():
            refused = STATUS_LINE.match(data)
            if refused is not None and refused[1] != b"101":
                # Whatever follows the status, if it ever arrives, changes nothing.
                self._opened.set_exception(RefusedStream(int(refused[1])))
                return
            head, end, data = data.partition(HEAD_END)
            if not end and len(head) <= HEAD_BYTES_MAX:
                self._buffer.rest = head
                return
            self._hand_over(head + end, frames)
        others = [data] if data else []
        if self._protocol.state is State.OPEN:
            others, self._buffer.rest = cut(data, frames)
        for other in others:
            if other[0] == PING and len(other) <= 2 + CONTROL_BYTES_MAX:
                # The library would send a pong for every one, and pongs count against the limit of messages.
                self._liveness.ping(other[2:])
            else:
                self._hand_over(other, frames)
        if frames:
            self._owner.received(self, frames)
        self._pong(now)
        self._flush()
        flooded = self._flood.look(len(frames), len(others), len(self.subscriptions.requested_seconds), now)
        if flooded or len(self._parts) > PARTS_MAX:
            self.misbehaved = True
            self.abort(flooded or f"a text in more than {PARTS_MAX} parts")
        elif self._protocol.parser_exc is not None or self._protocol.close_rcvd is not None:
            # Later bytes are not read, and a server that does not close is left.
            self._leave()

    def eof_received(self) -> None:
        """End with the server."""
        self._protocol.receive_eof()

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end."""
        lost = self._protocol.parser_exc or error
        self.reason = self.reason or (str(lost) if lost is not None else "connection lost") or type(lost).__name__
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(self.reason))
            self._opened.exception()
        self._owner.ended(self)

    # Between the library and the socket.

    def _pong(self, now: float) -> None:
        payload = self._liveness.pong(now) if self.is_open else None
        if payload is not None:
            self._protocol.send_pong(payload)
            self._flush()

    def _leave(self) -> None:
        """Read nothing more, and wait only briefly for what is still to be sent."""
        if self._transport is not None and not self._transport.is_closing():
            self.misbehaved = self.misbehaved or self._protocol.parser_exc is not None
            self.reason = self.reason or str(self._protocol.parser_exc)
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _hand_over(self, data: bytes, frames: list[bytes]) -> None:
        """Let the library parse what is no plain text; its texts are appended to `frames`."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                self._shake_hands(event)
            elif event.opcode is Opcode.TEXT and event.fin:
                frames.append(bytes(event.data))
            elif event.opcode is Opcode.TEXT or event.opcode is Opcode.CONT:
                self._parts.append(bytes(event.data))
                if event.fin:
                    frames.append(b"".join(self._parts))
                    self._parts.clear()
            elif event.opcode is Opcode.CLOSE:
                self.reason = self.reason or printable(f"closed by the server: {self._protocol.close_rcvd}")

    def _shake_hands(self, event: Any) -> None:
        if not isinstance(event, Response) or self._opened.done():
            return
        if self._protocol.handshake_exc is not None:
            self._opened.set_exception(self._protocol.handshake_exc)
            return
        self.opened_seconds = self._now()
        self.subscriptions.opened(self.opened_seconds)
        self._opened.set_result(None)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport is None:
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
