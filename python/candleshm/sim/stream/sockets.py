"""One websocket of the simulated exchange: handshake, frames, limits, pings and control messages.

The protocol itself is the library's (`websockets`, without its I/O); events are framed here, since they are the same
few bytes of header before a text that is already made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from typing import Protocol

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from candleshm.sim.server import reset
from candleshm.sim.stats import StreamConnection
from candleshm.sim.stream.faults import LastingFaults
from candleshm.sim.stream.names import Endpoint
from candleshm.sim.stream.rules import StreamRules

_CLOSE_SECONDS = 2.0
_ID_MAX = 2**63
_TEXT_ID_LENGTH_MAX = 36
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_SILENT = logging.getLogger("candleshm.sim.stream.sockets")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Listener(Protocol):
    """The receiver of a client's subscriptions."""

    def subscribe(self, client: StreamSocket, name: str) -> None:
        """Send the events of a stream from now on."""

    def unsubscribe(self, client: StreamSocket, name: str) -> None:
        """Send them no more."""

    def gone(self, client: StreamSocket) -> None:
        """Forget the client."""


class _Refused(Exception):
    """The error code and the text that acknowledge a refused control message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class StreamSocket:
    """The server's end of a client's websocket. Everything runs on the event loop's thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        rules: StreamRules,
        record: StreamConnection,
        listener: Listener,
        transport: asyncio.Transport,
    ) -> None:
        self.endpoint = endpoint
        self.record = record
        self.names: dict[str, None] = {}
        self.faults = LastingFaults()
        self._combined = endpoint.combined
        self._rules = rules
        self._listener = listener
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._parts: list[bytes] = []
        self._arrivals: deque[float] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._pong_due: asyncio.TimerHandle | None = None
        self._frozen = False
        extensions = [ServerPerMessageDeflateFactory()] if rules.deflate else None
        self._protocol = ServerProtocol(extensions=extensions, logger=_SILENT)

    @property
    def open(self) -> bool:
        """Return whether events can be sent."""
        return self._protocol.state is State.OPEN and not self._frozen

    def greet(self, head: bytes, delay_ms: int) -> None:
        """Accept the client's handshake after a while, whatever path its request line names."""
        # The library reads lines of up to 8 KB; the request line is known already.
        self._protocol.receive_data(b"GET / HTTP/1.1" + head[head.index(b"\r\n") :] + b"\r\n\r\n")
        request = next((event for event in self._protocol.events_received() if isinstance(event, Request)), None)
        if request is None:
            self._write()
            return
        if delay_ms:
            self._later(delay_ms, self._accept, request)
        else:
            self._accept(request)

    def _accept(self, request: Request) -> None:
        if self._transport.is_closing():
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self.record.status = response.status_code
        self._write()
        if not self.open:
            return
        for name in self.endpoint.names:
            self._subscribe(name)
        market = self.endpoint.market
        self._later(self._rules.ping_ms[market], self._ping)
        self._later(self._rules.life_ms, self.close, 1001, "")

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._frozen:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._write()

    def lost(self) -> None:
        """Note that the connection is gone."""
        for timer in self._timers:
            timer.cancel()
        if self._pong_due is not None:
            self._pong_due.cancel()
        sent = self._protocol.close_sent
        received = self._protocol.close_rcvd
        closing = sent if received is None or not self._protocol.close_rcvd_then_sent else received
        if closing is not None and not self.record.reason:
            self.record.code, self.record.reason = closing.code, closing.reason
        self._listener.gone(self)

    def send_event(self, name: str, data: str) -> None:
        """Queue an event of a stream; `flush` sends it."""
        text = self._wrapped(name, data)
        if self._protocol.extensions:
            self._protocol.send_text(text.encode())
            self._out += self._protocol.data_to_send()
        else:
            self._out.append(frame_of(text))
        self.record.events += 1

    def send_text(self, text: str) -> None:
        """Queue a text that is no event of a stream."""
        self._protocol.send_text(text.encode())
        self._out += self._protocol.data_to_send()

    def send_fragments(self, name: str, data: str) -> None:
        """Queue an event in three frames."""
        payload = self._wrapped(name, data).encode()
        third = len(payload) // 3
        self._protocol.send_text(payload[:third], fin=False)
        self._protocol.send_continuation(payload[third : 2 * third], fin=False)
        self._protocol.send_continuation(payload[2 * third :], fin=True)
        self._out += self._protocol.data_to_send()
        self.record.events += 1

    def send_flood(self, of: str, count: int) -> None:
        """Queue many frames that bring no candle."""
        frame = {
            "pings": b"\x89\x01p",
            "pongs": b"\x8a\x01p",
            "parts": b"\x00\x00",
            "refusals": frame_of('{"code":2,"msg":"Invalid request"}'),
        }[of]
        # A text that begins, and has parts without end.
        self._out += [b"\x01\x00"] * (of == "parts") + [frame] * count

    def send_shutdown(self, now_ms: int) -> None:
        """Queue the event that announces the server's end."""
        data = f'{{"e":"serverShutdown","E":{now_ms}}}'
        self.send_text(self._wrapped("!serverShutdown", data))

    def flush(self) -> None:
        """Send what is queued; a client that does not read is cut."""
        if self._frozen or not self._out:
            return
        self._transport.write(b"".join(self._out))
        self._out.clear()
        if self._transport.get_write_buffer_size() > self._rules.backlog_bytes:
            self.record.reason = "reads too slowly"
            self._transport.abort()

    def freeze(self) -> None:
        """Leave the connection open, and neither read nor send any more."""
        self._frozen = True
        self._out.clear()
        self._transport.pause_reading()
        for timer in self._timers:
            timer.cancel()

    def break_off(self, name: str, data: str) -> None:
        """Send half of an event's frame and reset the connection."""
        self.record.reason = "reset"
        frame = frame_of(self._wrapped(name, data))
        self._out.append(frame[: len(frame) // 2])
        self.flush()
        reset(self._transport)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and end the connection soon, whether the client closes or not."""
        if not self.open:
            return
        self.flush()
        self.record.code, self.record.reason = code, reason
        self._protocol.send_close(code, reason)
        self._write()
        self._later(int(_CLOSE_SECONDS * 1000), self._transport.abort)

    def later(self, delay_ms: int, name: str, data: str) -> None:
        """Send an event after a while, if the connection is still there."""
        self._later(delay_ms, self._send_now, name, data)

    def close_later(self, delay_ms: int) -> None:
        """Close after a while; until then no fault befalls the connection."""
        self.faults.closes_soon = True
        self._later(delay_ms, self.close, 1001, "")

    def _send_now(self, name: str, data: str) -> None:
        if self.open and name in self.names:
            self.send_event(name, data)
            self.flush()

    def _later(self, delay_ms: int, call: object, *arguments: object) -> None:
        now = self._loop.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now]
        self._timers.append(self._loop.call_later(delay_ms / 1000, call, *arguments))  # type: ignore[arg-type]

    def _wrapped(self, name: str, data: str) -> str:
        return f'{{"stream":"{name}","data":{data}}}' if self._combined else data

    def _write(self) -> None:
        """Send what the protocol wants to send: acknowledgements, pongs, close frames, the end."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()

    def _ping(self) -> None:
        if not self.open:
            return
        market = self.endpoint.market
        self._protocol.send_ping(b"%d" % (time.time_ns() // 1_000_000))
        self._write()
        self.record.pings += 1
        if self._pong_due is None:
            self._pong_due = self._loop.call_later(self._rules.pong_ms[market] / 1000, self.close, 1008, "Pong timeout")
        self._later(self._rules.ping_ms[market], self._ping)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            return
        now = self._loop.time()
        self.record.messages += 1
        self._arrivals.append(now)
        while self._arrivals[0] <= now - 1.0:
            self._arrivals.popleft()
        if len(self._arrivals) > self._rules.messages_per_second[self.endpoint.market]:
            self.close(1008, "Too many requests")
            return
        if frame.opcode is Opcode.PONG:
            self.record.pongs += 1
            if self._pong_due is not None:
                self._pong_due.cancel()
                self._pong_due = None
        elif frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._parts.append(bytes(frame.data))
            if frame.fin:
                message, self._parts = b"".join(self._parts), []
                self._command(message)

    def _command(self, message: bytes) -> None:
        """Acknowledge a control message."""
        ack: dict[str, object]
        number: object = None
        try:
            try:
                request = json.loads(message)
            except ValueError as error:
                where = f"line {getattr(error, 'lineno', 1)} column {getattr(error, 'colno', 1)}"
                raise _Refused(3, f"Invalid JSON: expected value at {where}") from None
            number = _id_of(request)
            ack = {"result": self._obey(request), "id": number}
        except _Refused as refused:
            ack = {"code": refused.code, "msg": refused.message, "id": number}
        if self.open:
            self.flush()
            self.send_text(json.dumps(ack, separators=(",", ":"), ensure_ascii=False))
            self.flush()

    def _obey(self, request: dict[str, object]) -> object:
        method, params = request.get("method"), request.get("params", [])
        if not isinstance(method, str):
            raise _Refused(2, "Invalid request: missing field `method`")
        if method not in _METHODS:
            known = ", ".join(f"`{name}`" for name in _METHODS)
            raise _Refused(2, f"Invalid request: unknown variant `{method}`, expected one of {known}")
        if not isinstance(params, list):
            raise _Refused(2, "Invalid request: params must be an array")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.names)
        if method in {"SET_PROPERTY", "GET_PROPERTY"}:
            return self._property(method, params)
        if not all(isinstance(name, str) for name in params):
            raise _Refused(2, "Invalid request: stream names must be strings")
        if method == "SUBSCRIBE":
            if len({*self.names, *params}) > self._rules.streams_max:
                raise _Refused(2, f"Invalid request: more than {self._rules.streams_max} streams")
            for name in params:
                self._subscribe(name)
        else:
            for name in params:
                if name in self.names:
                    del self.names[name]
                    self._listener.unsubscribe(self, name)
            self.record.streams = tuple(self.names)
        return None

    def _subscribe(self, name: str) -> None:
        if name not in self.names:
            self.names[name] = None
            self.record.streams = tuple(self.names)
            self._listener.subscribe(self, name)

    def _property(self, method: str, params: list[object]) -> object:
        if not params or not isinstance(params[0], str):
            raise _Refused(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Refused(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self._combined
        if len(params) != 2 or not isinstance(params[1], bool):
            raise _Refused(1, "Invalid value type: expected Boolean")
        self._combined = params[1]
        return None


def _id_of(request: object) -> object:
    if not isinstance(request, dict):
        raise _Refused(2, "Invalid request: expected an object")
    number = request.get("id")
    as_integer = isinstance(number, int) and not isinstance(number, bool) and -_ID_MAX <= number < _ID_MAX
    as_text = isinstance(number, str) and len(number) <= _TEXT_ID_LENGTH_MAX
    if number is not None and not as_integer and not as_text:
        raise _Refused(2, "Invalid request: request ID must be an integer, a string of at most 36 characters or null")
    return number


def frame_of(text: str) -> bytes:
    """Return a text as one frame from the server, which masks nothing."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
