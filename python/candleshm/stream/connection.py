"""One websocket: bytes from the socket in, whole text frames out, subscriptions kept as they are wanted.

The protocol is the library's, without its I/O: what one read of the socket holds is handed on as one batch, and nothing
is decoded or queued on the way. The frames that nearly all of the traffic consists of, whole texts of 126 to 65535
bytes, are cut out here (`cut`), which takes a twentieth of the library's time. Every other frame is the library's.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Iterable, Set
from itertools import islice
from typing import Any, cast
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
from candleshm.stream.rate_limiter import RateLimiter
from candleshm.stream.watchdog import DEAD_SECONDS, PING_SECONDS
from candleshm.system.log_text import printable

__all__ = ["Connection"]

CONNECT_SECONDS, HANDSHAKE_SECONDS = 3.0, 5.0
CLOSE_SECONDS = 2.0
# A kline is about 400 bytes. What is longer than this is not one, and not worth the memory.
FRAME_BYTES_MAX = 1 << 20
READ_BYTES = 1 << 17
# Whole, text.
PLAIN_TEXT = 0x81
PING, CONTROL_BYTES_MAX = 0x89, 125
# Texts come whole; a server that sends one in this many parts does not mean to end it.
PARTS_MAX = 256
# A message of so many halves is down to one name; that one is then asked for ever less often.
WHOLE_REFUSALS, REFUSED_SECONDS_MAX = 8, 300.0
HEAD_END, HEAD_BYTES_MAX = b"\r\n\r\n", 1 << 16
STATUS_LINE = re.compile(rb"HTTP/1\.[01] +([0-9]{3})[ \r\n]")
# Names of the address; the others follow in messages of so many. Both stay far below what servers take.
URL_NAMES_MAX = 100
MESSAGE_NAMES_MAX = 200
# Pongs count as messages of the client, and a ping may come at any moment.
SPARE_MESSAGES = 2


def cut(data: bytes, frames: list[bytes]) -> tuple[list[bytes], bytes]:
    """Append the plain texts of `data` to `frames`; return the frames of other kinds, whole, and what is not whole yet.

    A frame begins with a byte for its kind and one for its length, 126 and 127 meaning that it follows in two or eight
    bytes. Frames of servers are not masked; one that is goes to the library, which refuses it.
    """
    others: list[bytes] = []
    start, size = 0, len(data)
    while start + 2 <= size:
        length = data[start + 1] & 0x7F
        begin = start + (2 if length < 126 else 4 if length == 126 else 10)
        if begin > size:
            break
        if length >= 126:
            length = int.from_bytes(data[start + 2 : begin])
        end = begin + length
        if end > size and length <= FRAME_BYTES_MAX:
            break
        if data[start] == PLAIN_TEXT and data[start + 1] == 126:
            frames.append(data[begin:end])
        else:
            others.append(data[start:end])
        start = end
    return others, data[start:]


class RefusedStream(Exception):
    """The server answered the handshake with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.BufferedProtocol):
    """A connection and its subscriptions; belongs to one event loop. `open` makes one."""

    def __init__(
        self,
        address: str,
        names: Iterable[str],
        rules: StreamRules,
        now: Callable[[], float],
        take: Callable[[Connection, list[bytes]], None],
        ended: Callable[[Connection], None],
        blame: Callable[[], None],
    ) -> None:
        """`blame` is called when the server stops saying anything: another address may do better."""
        self._protocol = ClientProtocol(parse_uri(address), max_size=FRAME_BYTES_MAX)
        self._now = now
        self._take = take
        self._ended = ended
        self._blame = blame
        self._pace = RateLimiter(rules.messages_per_second - SPARE_MESSAGES, 1.0)
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._rest = b""
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._asked: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._numbers = 0
        self._wanted: dict[str, None] = dict.fromkeys(names)
        self.told_seconds: dict[str, float] = dict.fromkeys(self._wanted, now())
        """Streams that the server was asked for, and when."""
        self._pinged = False
        self.subscribed_seconds: dict[str, float] = {}
        """Streams that the server acknowledged, and when."""
        self.opened_seconds = self.received_seconds = now()
        self.events = 0
        self.retires = ""
        """Why another connection has to take this one's place; empty while it need not."""
        self.reason = ""
        """Why it ended; empty while it has not."""
        self.misbehaved = False
        """Whether it ended because of what the server sent."""
        self._flood = Flood()
        self._pongs = RateLimiter(1, 1.0)
        self._ping: bytes | None = None
        self._refusals: dict[str, tuple[int, float]] = {}

    @classmethod
    async def open(
        cls,
        names: Iterable[str],
        rules: StreamRules,
        *,
        addresses: Addresses,
        context: ssl.SSLContext | None,
        now: Callable[[], float],
        take: Callable[[Connection, list[bytes]], None],
        ended: Callable[[Connection], None],
    ) -> Connection:
        """Connect and shake hands. Raises ExchangeUnavailable when that fails or takes too long."""
        first = list(islice(names, URL_NAMES_MAX))
        uri = f"{rules.url}?streams={'/'.join(quote(name, safe='@') for name in first)}"
        target = parse_uri(uri)
        connection = None

        def blame() -> None:
            """Let the next connection go to another address."""
            if place is not None:
                addresses.failed(target.host, target.port, place)

        place: Address | None = None
        try:
            socket, place = await addresses.connect_async(target.host, target.port, CONNECT_SECONDS)
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        lambda: cls(uri, first, rules, now, take, ended, blame),
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
        """Whether events may come."""
        return not self.reason and self._opened.done() and self._protocol.state is State.OPEN

    def want(self, names: Set[str]) -> None:
        """Carry exactly these streams, as soon as the limit of messages allows."""
        if names != self._wanted.keys():
            self._wanted = dict.fromkeys(names)

    def forget(self, names: Iterable[str]) -> None:
        """Subscribe these streams once more: they are mute."""
        names = [name for name in names if name in self.told_seconds]
        if names and self._send("UNSUBSCRIBE", names[:MESSAGE_NAMES_MAX]):
            for name in names[:MESSAGE_NAMES_MAX]:
                self.told_seconds.pop(name, None)

    def look(self) -> None:
        """Send what is due, and give a dead connection up; to be called several times a second."""
        if not self.is_open:
            return
        now = self._now()
        self._pong(now)
        silent_seconds = now - self.received_seconds
        if silent_seconds > DEAD_SECONDS:
            self._blame()
            self.abort(f"nothing received for {silent_seconds:.0f} s")
            return
        if silent_seconds > PING_SECONDS and not self._pinged and self._pace.take(now):
            self._pinged = True
            self._protocol.send_ping(b"")
        for method, names in (
            ("UNSUBSCRIBE", [name for name in self.told_seconds if name not in self._wanted]),
            (
                "SUBSCRIBE",
                [name for name in self._wanted if name not in self.told_seconds and self._may_ask(name, now)],
            ),
        ):
            # Of a message that was refused one name may be what is wrong with it: the next ones are ever shorter.
            refusals = max((self._refusals.get(name, (0, 0.0))[0] for name in names), default=0)
            size = max(1, MESSAGE_NAMES_MAX >> refusals)
            for start in range(0, len(names), size):
                batch = names[start : start + size]
                if not self._send(method, batch):
                    break
                for name in batch:
                    if method == "SUBSCRIBE":
                        self.told_seconds[name] = now
                    else:
                        self.told_seconds.pop(name, None)
                        self.subscribed_seconds.pop(name, None)
        self._flush()

    def answered(self, text: bytes) -> str | None:
        """Take in the server's answer to a message; return what is wrong with it, if anything is."""
        try:
            answer: dict[str, Any] = json.loads(text)
            number = answer.get("id")
            method, names = self._asked.pop(number, ("", ())) if isinstance(number, int) else ("", ())
        except (ValueError, RecursionError):
            return "an answer that cannot be read"
        if "code" in answer or "error" in answer:
            now = self._now()
            for name in names:
                self.told_seconds.pop(name, None)
                count = self._refusals.get(name, (0, 0.0))[0] + 1
                self._refusals[name] = (count, now + min(REFUSED_SECONDS_MAX, 2.0 ** max(0, count - WHOLE_REFUSALS)))
            return printable(text.decode(errors="replace")[:200])
        if method == "SUBSCRIBE":
            now = self._now()
            for name in names:
                self._refusals.pop(name, None)
                if name in self.told_seconds:
                    # One that was mute stays so until it is heard.
                    self.subscribed_seconds.setdefault(name, now)
        return None

    def close(self) -> None:
        """Say goodbye, and do not wait long for the answer."""
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
        """Ask for the handshake."""
        # What other event loops hand out is no subclass of anything here, and works as well.
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the memory that the socket is read into; a new piece for every read would be mapped and unmapped."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on all whole text frames of one read together."""
        data = bytes(self._buffer[:nbytes])
        self.received_seconds = self._now()
        self._pinged = False
        if self._rest:
            data = self._rest + data
        frames: list[bytes] = []
        if not self._opened.done():
            refused = STATUS_LINE.match(data)
            if refused is not None and refused[1] != b"101":
                # What follows the status, if it ever comes, changes nothing.
                self._opened.set_exception(RefusedStream(int(refused[1])))
                return
            head, end, data = data.partition(HEAD_END)
            if not end and len(head) <= HEAD_BYTES_MAX:
                self._rest = head
                return
            self._hand_over(head + end, frames)
        if self._protocol.state is State.OPEN:
            others, self._rest = cut(data, frames)
        else:
            others, self._rest = [data], b""
        for other in others:
            if other[0] == PING and len(other) <= 2 + CONTROL_BYTES_MAX:
                # The library would answer every one, and pongs count against the limit of messages.
                self._ping = other[2:]
            else:
                self._hand_over(other, frames)
        if frames:
            self._take(self, frames)
        self._pong(self.received_seconds)
        self._flush()
        flooded = self._flood.look(len(frames), len(others), len(self.told_seconds), self.received_seconds)
        if flooded or len(self._parts) > PARTS_MAX:
            self.misbehaved = True
            self.abort(flooded or f"a text in more than {PARTS_MAX} parts")
        elif self._protocol.parser_exc is not None or self._protocol.close_rcvd is not None:
            # What still comes is not read, and a server that does not hang up is left.
            self._leave()

    def _pong(self, now: float) -> None:
        """Answer the newest ping, and of many that come together only that."""
        if self._ping is not None and self.is_open and self._pongs.take(now):
            self._protocol.send_pong(self._ping)
            self._ping = None
            self._flush()

    def _may_ask(self, name: str, now: float) -> bool:
        return now >= self._refusals.get(name, (0, 0.0))[1]

    def _leave(self) -> None:
        """Read nothing more, and do not wait long for what is still to be sent."""
        if self._transport is not None and not self._transport.is_closing():
            self.misbehaved = self.misbehaved or self._protocol.parser_exc is not None
            self.reason = self.reason or str(self._protocol.parser_exc)
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _hand_over(self, data: bytes, frames: list[bytes]) -> None:
        """Let the library judge what is no plain text; its texts are appended to `frames`."""
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
        self._ended(self)

    def _shake_hands(self, event: Any) -> None:
        if not isinstance(event, Response) or self._opened.done():
            return
        if self._protocol.handshake_exc is not None:
            self._opened.set_exception(self._protocol.handshake_exc)
            return
        self.opened_seconds = self._now()
        self.subscribed_seconds = dict.fromkeys(self.told_seconds, self.opened_seconds)
        self._opened.set_result(None)

    def _send(self, method: str, names: list[str]) -> bool:
        if not self._pace.take(self._now()):
            return False
        self._numbers += 1
        self._asked[self._numbers] = (method, tuple(names))
        text = json.dumps({"method": method, "params": names, "id": self._numbers}, ensure_ascii=False)
        self._protocol.send_text(text.encode())
        return True

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport is None:
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
