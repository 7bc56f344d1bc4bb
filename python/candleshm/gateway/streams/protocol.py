"""uvicorn's websocket protocol, and what it lacks: many frames in one write, strict clients, and an end that ends.

It depends on names inside `WebSocketsSansIOProtocol`; `tests/test_gateway_stream_clients.py` fails when one is gone.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from candleshm.gateway.streams.control import MESSAGE_BYTES_MAX

__all__ = ["EXTENSION", "SERVER_SETTINGS", "StreamProtocol"]

EXTENSION = "candleshm.connection"
"""Where the connection of a client stands among the extensions of its ASGI scope."""
SERVER_SETTINGS: Final = {
    "ws_max_size": MESSAGE_BYTES_MAX,
    # The exchange's: a ping every 20 s, and a minute for the pong.
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 60.0,
    "ws_per_message_deflate": False,
    # A URL can name all streams of a connection.
    "h11_max_incomplete_event_size": MESSAGE_BYTES_MAX,
}
"""Settings of `uvicorn.Config` beside `ws=StreamProtocol`."""
CLOSE_SECONDS = 1.0
NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class StreamProtocol(WebSocketsSansIOProtocol):
    """One connection. `write` and `close` are for the application, which finds it under `EXTENSION` in its scope."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Frames of a client in one second, pings and pongs included; the application sets what its path allows.
        self.frames_per_second = 10
        self._arrivals: deque[float] = deque()
        self._target = ""

    @property
    def unsent_bytes(self) -> int:
        """What was written and did not leave yet."""
        return self.transport.get_write_buffer_size()

    def write(self, frames: bytes) -> None:
        """Write whole frames at once; to a connection that is closing nothing is written."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and end the connection a second later whether the client answers or not."""
        self.stop_keepalive()
        if self.close_sent or self.transport.is_closing():
            return
        # A control frame holds 123 bytes of text.
        reason = reason.encode()[:123].decode(errors="ignore")
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            self.transport.close()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            # The reply of the client has to be read.
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; its handshake comes in one piece from uvicorn's HTTP side."""
        if self.handshake_initiated:
            super().data_received(data)
            return
        # The library takes lines of 8 KB, too short for a URL that names many streams.
        line, _, rest = data.partition(b"\r\n")
        self._target = line.split(b" ")[1].decode("ascii")
        super().data_received(b"GET / HTTP/1.1\r\n" + rest)
        if not self.handshake_initiated:
            # With headers that the library does not take; it has nothing to say then.
            self.transport.write(NO_HANDSHAKE)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Start the application, with this connection in its scope."""
        super().handle_connect(Request(self._target, event.headers))
        if not self.handshake_complete:
            # The application runs when the loop comes to it, which is later.
            self.scope["extensions"][EXTENSION] = {"connection": self}

    def handle_events(self) -> None:
        """Take what came; a client that sends too many frames is closed."""
        frames = sum(isinstance(event, Frame) for event in self.conn.events)
        if frames and self._is_too_many(frames):
            self.conn.events.clear()
            self.close(1008, "Too many requests")
        else:
            super().handle_events()

    def _is_too_many(self, frames: int) -> bool:
        now = self.loop.time()
        while self._arrivals and self._arrivals[0] <= now - 1.0:
            self._arrivals.popleft()
        if len(self._arrivals) + frames > self.frames_per_second:
            return not self.close_sent
        self._arrivals.extend([now] * frames)
        return False

    async def send(self, message: Any) -> None:
        """Send what the application says."""
        await super().send(message)
        # uvicorn takes a refusal for a handshake that is still under way, and logs an error.
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        """End a connection whose client sent no pong; one that reads nothing must not keep what was written to it."""
        self.close(1008, "Pong timeout")

    def shutdown(self) -> None:
        """End the connection because the server stops; what the client does not take within a second is lost to it."""
        if self.handshake_complete:
            self.close(1001, "the gateway stops")
            self.close_timer = self.close_timer or self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
        else:
            super().shutdown()
