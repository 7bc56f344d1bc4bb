"""Websocket clients that are slow, many, or abusive: each costs the others nothing, and all is bounded."""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import math
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from candleshm import _core
from candleshm.gateway.streams import protocol
from candleshm.gateway.streams.control import MESSAGE_BYTES_MAX
from candleshm.sim import SimulatedExchange
from tests.support.collecting import collecting, until
from tests.support.klines import START_MS, ingest, kline
from tests.support.streaming import Client, StreamGateway, streaming

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture(scope="module")
def block() -> Iterator[str]:
    """The block of a collector of candles of a second."""
    name = f"test-{os.getpid()}-stream-clients"
    with SimulatedExchange(seed=3, symbols=4) as exchange, collecting(exchange, name, interval="1s"):
        yield name
    for left in Path("/dev/shm").glob(f"*{name}*"):
        left.unlink(missing_ok=True)


@pytest.fixture
def gateway(block: str) -> Iterator[StreamGateway]:
    with streaming([block]) as running:
        yield running


class RawClient:
    """A client that sends and reads bytes as a test says."""

    def __init__(self, url: str, path: str, *, receive_bytes: int | None = None) -> None:
        host, port = url.removeprefix("ws://").split(":")
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60.0)
        self.socket.connect((host, int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Extensions: permessage-deflate",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.socket.recv(1)

    def send(self, opcode: int, payload: bytes = b"", *, is_last: bool = True) -> None:
        """Send one frame, masked as a client has to."""
        self.socket.sendall(framed(opcode, payload, is_last=is_last))

    def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        first, size = self._exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        return first & 15, self._exactly(size)

    def close_frame(self) -> tuple[int, str]:
        """Read until the close frame, and return its code and reason."""
        while True:
            opcode, payload = self.frame()
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "the gateway closed without a close frame"
            data += more
        return data


def framed(opcode: int, payload: bytes, *, is_last: bool = True) -> bytes:
    """Return a masked frame; the mask is zero."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([(0x80 if is_last else 0) | opcode]) + length + b"\0\0\0\0" + payload


@contextmanager
def raw(gateway: StreamGateway, path: str = "/ws", *, receive_bytes: int | None = None) -> Iterator[RawClient]:
    client = RawClient(gateway.url, path, receive_bytes=receive_bytes)
    with client.socket:
        yield client


def command(method: str, *params: object) -> bytes:
    return json.dumps({"method": method, "params": params, "id": 1}).encode()


# Slow and many


@contextmanager
def changing(name: str, symbols: list[str]) -> Iterator[None]:
    """Change the live candles of a block as fast as it goes."""
    ends = threading.Event()
    opened = _core.Writer.open(name, market="SPOT", interval="1m", length=16, symbols=symbols)

    def change() -> None:
        for value in itertools.count(1):
            for symbol in symbols:
                if ends.is_set():
                    return
                ingest(opened, symbol, kline(START_MS, value), sent_ms=START_MS + 1)

    with closing(opened):
        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


def test_a_client_that_does_not_read_is_dropped_and_the_others_do_not_wait(
    block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "candleshm.gateway.streams.client")
    symbols = [f"S{number}USDT" for number in range(300)]
    names = [f"{symbol.lower()}@kline_1m" for symbol in symbols]
    with (
        changing(block_name, symbols),
        streaming([block_name], max_age_seconds=math.inf) as gateway,
        Client(f"{gateway.url}/ws/{names[0]}") as good,
        raw(gateway, f"/stream?streams={'/'.join(names)}", receive_bytes=4096) as slow,
    ):
        assert slow.frame()[0] == TEXT
        until(lambda: "1008, too slow: " in caplog.text)
        until(lambda: gateway.hub.counts.closed == {1008: 1})
        until(lambda: gateway.hub.counts.clients == 1)
        seen = len(good.messages)
        good.until(lambda: len(good.messages) > seen + 10)


def test_many_idle_clients_stay_and_one_more_is_refused(block: str) -> None:
    with streaming([block], clients_max=1001) as gateway, ExitStack() as stack:
        idle = [stack.enter_context(raw(gateway)) for _ in range(1000)]
        busy = stack.enter_context(Client(f"{gateway.url}/ws/btcusdt@kline_1s"))
        assert gateway.hub.counts.clients == 1001
        with raw(gateway) as refused:
            assert refused.head.startswith(b"HTTP/1.1 503 ")
        busy.until_closes("BTCUSDT", 2)
        for client in (idle[0], idle[-1]):
            client.send(TEXT, command("LIST_SUBSCRIPTIONS"))
            assert client.frame() == (TEXT, b'{"result":[],"id":1}')
        idle[0].send(CLOSE, struct.pack("!H", 1000))
        assert idle[0].close_frame() == (1000, "")
        until(lambda: gateway.hub.counts.clients == 1000)


# Abusive


@pytest.mark.parametrize("path", ["/ws", "/market/ws"])
@pytest.mark.parametrize("opcode", [TEXT, PING, PONG])
def test_too_many_messages_in_a_second_end_the_connection(gateway: StreamGateway, path: str, opcode: int) -> None:
    allowed = 5 if path == "/ws" else 10
    with raw(gateway, path) as client:
        client.socket.sendall(framed(opcode, b"") * allowed)
        # All is well so far: the reply to one more message a second later comes.
        for _ in range(allowed if opcode != PONG else 0):
            assert client.frame()[0] == {TEXT: TEXT, PING: PONG}[opcode]
    with raw(gateway, path) as client:
        client.socket.sendall(framed(opcode, b"") * (allowed + 1))
        assert client.close_frame() == (1008, "Too many requests")
    until(lambda: gateway.hub.counts.closed == {1008: 1})


def test_a_flood_is_not_read_for_long(gateway: StreamGateway) -> None:
    def flood() -> None:
        while True:
            client.socket.sendall(framed(PING, b"") * 10_000)

    with raw(gateway) as client, pytest.raises(OSError, match=r"reset|Broken"):
        flood()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (framed(BINARY, b"x"), 1003),
        (framed(TEXT, b"\xff\xfe"), 1007),
        (framed(TEXT, b" " * (MESSAGE_BYTES_MAX + 1)), 1009),
        (framed(TEXT, b" " * MESSAGE_BYTES_MAX, is_last=False) + framed(0, b" "), 1009),
        (framed(3, b""), 1002),
        (framed(PING, b"x" * 126), 1002),
        (b"\x81\x01x", 1002),
    ],
    ids=["binary", "no text", "large", "large in parts", "unknown opcode", "large ping", "not masked"],
)
def test_what_no_client_may_send_ends_the_connection(gateway: StreamGateway, frames: bytes, code: int) -> None:
    with raw(gateway) as client:
        client.socket.sendall(frames)
        assert client.close_frame()[0] == code
    until(lambda: gateway.hub.counts.clients == 0)


def test_the_largest_message_is_read(gateway: StreamGateway) -> None:
    with raw(gateway) as client:
        message = command("LIST_SUBSCRIPTIONS")
        client.send(TEXT, message + b" " * (MESSAGE_BYTES_MAX - len(message)))
        assert client.frame() == (TEXT, b'{"result":[],"id":1}')


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: Upgrade"],
        ["Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"],
        ["Connection: Upgrade", *(f"X-{number}: y" for number in range(200))],
        ["Connection: Upgrade", f"Cookie: {'x' * 9000}"],
        ["Connection: Upgrade", "Sec-WebSocket-Version: 12"],
    ],
    ids=["no key", "bad key", "many headers", "long header", "old version"],
)
def test_a_handshake_that_is_none_is_refused(
    gateway: StreamGateway, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    host, port = gateway.url.removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(
            "\r\n".join(["GET /ws HTTP/1.1", f"Host: {host}", "Upgrade: websocket", *lines, "", ""]).encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 4")
    assert gateway.hub.counts.clients == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# What is sent besides


def test_frames_are_never_compressed(gateway: StreamGateway) -> None:
    with raw(gateway, "/ws/btcusdt@kline_1s") as client:
        assert b"permessage-deflate" not in client.head
        opcode, payload = client.frame()
        assert (opcode, payload[:12]) == (TEXT, b'{"e":"kline"')


def test_a_client_is_pinged_and_ended_when_it_does_not_reply(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (protocol.SERVER_SETTINGS["ws_ping_interval"], protocol.SERVER_SETTINGS["ws_ping_timeout"]) == (20.0, 60.0)
    monkeypatch.setitem(protocol.SERVER_SETTINGS, "ws_ping_interval", 0.3)
    monkeypatch.setitem(protocol.SERVER_SETTINGS, "ws_ping_timeout", 1.0)
    with streaming([block]) as gateway, raw(gateway) as client:
        for _ in range(3):
            opcode, payload = client.frame()
            assert opcode == PING
            client.send(PONG, payload)
        assert client.close_frame() == (1008, "Pong timeout")
        until(lambda: gateway.hub.counts.clients == 0)


def test_a_server_that_ends_does_not_wait_for_clients_that_do_not_read(block: str) -> None:
    with streaming([block]) as gateway, raw(gateway, "/ws/btcusdt@kline_1s", receive_bytes=4096) as client:
        client.frame()
        gateway.server.stop()
        assert client.close_frame() == (1001, "the gateway stops")


# What the protocol needs of others


def test_uvicorn_has_what_the_protocol_changes() -> None:
    """Names inside uvicorn and websockets that `StreamProtocol` uses or replaces: a release may drop them."""
    made = inspect.getsource(WebSocketsSansIOProtocol)
    for name in (
        *("self.conn = ServerProtocol(", "self.close_sent = False", "self.handshake_complete = False"),
        *("self.handshake_initiated = False", "self.close_timer", "self.read_paused = False", "self.transport"),
        *("self.stop_keepalive()", "self.keepalive_timeout)", "self.handle_events()", "self.handle_connect(event)"),
        *("self.queue: asyncio.Queue", "self.scope: WebSocketScope", "if self.close_timer is None:"),
    ):
        assert name in made, name
    for method in ("data_received", "handle_connect", "handle_events", "keepalive_timeout", "shutdown", "send"):
        assert callable(getattr(WebSocketsSansIOProtocol, method))
    assert hasattr(ServerProtocol(), "events")
