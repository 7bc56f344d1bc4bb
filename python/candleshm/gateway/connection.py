"""One connection of a client: uvicorn's, strict about what begins a request, with an end to slowness."""

from __future__ import annotations

import asyncio
import re
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from candleshm.gateway.connections import REQUEST_SECONDS, RESPONSE_SECONDS, Connections, now_seconds
from candleshm.gateway.refusals import Refused
from candleshm.gateway.streams.control import MESSAGE_BYTES_MAX

__all__ = ["Connection"]

# The longest URL and headers together: a URL can name all streams of a connection.
HEAD_BYTES_MAX = MESSAGE_BYTES_MAX
BUSY = Refused(503, -1003, "too many requests are in flight at this gateway; try again in a second", 1.0)
MALFORMED = Refused(400, -1000, "that is not an HTTP request as RFC 9112 has it")
LONG_URL = Refused(414, -1000, f"the URL is longer than {HEAD_BYTES_MAX} bytes")
LONG_HEADERS = Refused(431, -1000, f"URL and headers are longer than {HEAD_BYTES_MAX} bytes")
LINE_END = re.compile(rb"(?:\r\n?)?\Z")
HAS_BODY = re.compile(rb"\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)


class Connection(H11Protocol):
    """As uvicorn's; `connections` decides whether it may stay."""

    def __init__(
        self,
        connections: Connections,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self.was_answered = False
        # Since when a request, or a reader of the response, is awaited.
        self._waits_since: float | None = None
        self._unread_since: float | None = None
        # What came of the end of a line, if the last piece ended so: the next piece may begin in the middle of it.
        self._tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = now_seconds()
        if not self._all.enter(self, len(self.connections)):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        state = self.conn.their_state
        if state is h11.IDLE and self._all.is_refused(self):
            self._refuse(BUSY)
            return
        if state is not h11.SEND_BODY:
            head = self._tail + data
            if _is_loose(head):
                self._refuse(MALFORMED)
                return
            self._tail = LINE_END.search(head[-2:])[0]  # type: ignore[index]
        cycle = self.cycle
        super().data_received(data)
        self._look(cycle)
        # A head, or a body, of which a part is still to come.
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now_seconds()

    def on_response_complete(self) -> None:
        self.was_answered = True
        cycle = self.cycle
        self._all.rests(self)
        super().on_response_complete()
        self._look(cycle)
        if self.cycle is cycle and self.conn.trailing_data[0]:
            self._waits_since = now_seconds()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._all.leave(self)
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Refuse what h11 does not take, with the reason that it gives."""
        error = sys.exception()
        refusal = MALFORMED
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            begun = self.conn.trailing_data[0]
            refusal = LONG_HEADERS if b"\n" in begun else LONG_URL
        self._refuse(refusal)

    def pause_writing(self) -> None:
        self._unread_since = now_seconds()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def is_late(self, now: float) -> bool:
        """Say whether the client took too long to send a request, or to read a response."""
        if self._unread_since is None and self.transport.is_closing():
            self._unread_since = now
        return (self._waits_since is not None and now - self._waits_since > REQUEST_SECONDS) or (
            self._unread_since is not None and now - self._unread_since > RESPONSE_SECONDS
        )

    def drop(self) -> None:
        """Close at once, whatever is still to be sent."""
        self._all.leave(self)
        self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        """Refuse what did not become a request, and end the connection; a response under way ends with it."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_whole(refused))
        self.transport.close()

    def _look(self, before: object) -> None:
        """Note whether another request has begun than `before`."""
        if self.cycle is not before:
            self._all.began(self)


def _whole(refused: Refused) -> bytes:
    """Return a whole response that ends its connection."""
    lines = [f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}".encode(), b"connection: close"]
    lines += [name + b": " + value for name, value in refused.headers]
    return b"\r\n".join([*lines, b"", refused.body])


def _is_loose(head: bytes) -> bool:
    """Say whether a head has lines that end by LF alone, or that go on in the next one, which others read otherwise."""
    if head.count(b"\n") == head.count(b"\r\n") and b"\n " not in head and b"\n\t" not in head:
        return False
    first, end, _ = head.partition(b"\r\n\r\n")
    # What follows is a body, which may look like anything.
    return not (end and HAS_BODY.search(first)) or _is_loose(first)
