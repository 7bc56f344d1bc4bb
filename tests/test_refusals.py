"""A refusal counts from its status line on, whatever follows it: on real sockets, by requests, streams and proxies."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import requests

import candleshm.weight
from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.errors import BadResponse, Banned, ExchangeUnavailable, RateLimited
from candleshm.exchanges.binance import Binance
from candleshm.rest import transport
from candleshm.rest.transport import HttpTransport
from candleshm.system.clock import SystemClock
from tests.support.dialling import dialled
from tests.test_transport import Server

Reply = Callable[[socket.socket], None]
TEXT = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until 1767229200000."}'


def sent(data: bytes, *, ends: bool = True) -> Reply:
    def reply(connection: socket.socket) -> None:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_RDWR)

    return reply


def dripped(head: bytes, drop: bytes = b"1") -> Reply:
    def reply(connection: socket.socket) -> None:
        connection.sendall(head)
        with suppress(OSError):
            while True:
                time.sleep(0.02)
                connection.sendall(drop)

    return reply


def flooded(head: bytes) -> Reply:
    def reply(connection: socket.socket) -> None:
        connection.sendall(head)
        with suppress(OSError):
            while True:
                connection.sendall(bytes(65536))

    return reply


# What may follow "HTTP/1.1 429 ..." and its Retry-After of 77 s.
LINE = b"HTTP/1.1 %d No\r\n"
HEAD = LINE + b"Retry-After: 77\r\n"
BROKEN: dict[str, Callable[[int], Reply]] = {
    "cut": lambda status: sent(HEAD % status + b"Content-Length: 100\r\n\r\n" + TEXT[:20]),
    "never comes": lambda status: sent(HEAD % status + b"Content-Length: 100\r\n\r\n", ends=False),
    "trickles": lambda status: dripped(HEAD % status + b"Content-Length: 100000\r\n\r\n"),
    "endless": lambda status: flooded(HEAD % status + b"\r\n"),
    "endless chunks": lambda status: dripped(
        HEAD % status + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(4096) + b"\r\n"
    ),
    "no chunks": lambda status: sent(HEAD % status + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "no gzip": lambda status: sent(HEAD % status + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
    "cut gzip": lambda status: sent(
        HEAD % status + b"Content-Encoding: gzip\r\nContent-Length: 500\r\n\r\n" + gzip.compress(TEXT)[:30]
    ),
    "unknown packing": lambda status: sent(HEAD % status + b"Content-Encoding: zstd\r\nContent-Length: 2\r\n\r\n(\xb5"),
    "no length": lambda status: sent(HEAD % status + b"Content-Length: many\r\n\r\n" + TEXT),
    "cut head": lambda status: sent(HEAD % status),
    "head trickles": lambda status: dripped(HEAD % status, b"X: 1\r\n"),
    "head without end": lambda status: dripped(HEAD % status + b"X: "),
    "ten thousand headers": lambda status: sent(HEAD % status + b"X: 1\r\n" * 10_000 + b"\r\n"),
    "line alone": lambda status: sent(LINE % status, ends=False),
}
HEAD_IS_LOST = {"head trickles", "head without end", "ten thousand headers", "line alone"}


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    servers: list[Server] = []

    def start(reply: Reply) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Reply], Server]


@pytest.mark.parametrize("status", [429, 418, 403])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_stop_counts_whatever_follows_its_status(serve: Serve, kind: str, status: int) -> None:
    answer = HttpTransport(SystemClock()).fetch(serve(BROKEN[kind](status)).url)
    error = Binance("SPOT").error_of(answer, 1_767_225_600_000)
    assert answer.status == status
    assert isinstance(error, RateLimited)
    assert isinstance(error, Banned) == (status != 429)
    without = 60.0 if status == 429 else 120.0
    assert error.retry_after == (without if kind in HEAD_IS_LOST else 77.0)


@pytest.mark.parametrize("kind", ["no chunks", "no gzip", "endless", "cut head"])
@pytest.mark.parametrize(
    ("status", "expected"), [(451, "does not serve this country"), (503, "HTTP 503"), (404, "HTTP 404")]
)
def test_other_refusals_count_by_their_status_too(serve: Serve, kind: str, status: int, expected: str) -> None:
    answer = HttpTransport(SystemClock()).fetch(serve(BROKEN[kind](status)).url)
    error = Binance("SPOT").error_of(answer, 0)
    assert expected in str(error)
    assert not isinstance(error, RateLimited)
    assert isinstance(error, ExchangeUnavailable) == (status == 503)


def test_the_rest_of_a_stop_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 600.0)
    for kind in ("never comes", "trickles", "head trickles", "line alone"):
        assert HttpTransport(SystemClock()).fetch(serve(BROKEN[kind](429)).url).status == 429


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_code_that_stops_counts_although_its_text_is_cut(
    serve: Serve,
    status: str,
    packed: bool,  # noqa: FBT001
) -> None:
    body = gzip.compress(TEXT + bytes(range(256)))[:-40] if packed else TEXT[:30]
    packing = b"Content-Encoding: gzip\r\n" if packed else b""
    head = b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: 1000\r\n" + packing + b"\r\n"
    answer = HttpTransport(SystemClock()).fetch(serve(sent(head + body)).url)
    error = Binance("SPOT").error_of(answer, 0)
    assert isinstance(error, RateLimited)
    assert error.code == -1003


def test_candles_that_are_cut_are_still_no_response(serve: Serve) -> None:
    with pytest.raises(BadResponse):
        HttpTransport(SystemClock()).fetch(serve(sent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[[1,2")).url)


@pytest.mark.parametrize(("value", "seconds"), [("120, 30", 120.0), ("soon", 60.0), ("-5", 60.0), ("30,x", 60.0)])
def test_what_retry_after_says_beside_a_cut_body(serve: Serve, value: str, seconds: float) -> None:
    head = f"HTTP/1.1 429 No\r\nRetry-After: {value}\r\nContent-Length: 100\r\n\r\n{{".encode()
    answer = HttpTransport(SystemClock()).fetch(serve(sent(head)).url)
    error = Binance("SPOT").error_of(answer, 0)
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


@pytest.mark.parametrize("kind", ["cut", "trickles", "no gzip", "line alone"])
def test_a_stopped_collector_sends_no_second_request(serve: Serve, block_name: str, kind: str) -> None:
    server = serve(BROKEN[kind](429))
    config = CollectorConfig(market="SPOT", symbols=["BTCUSDT"], name=block_name, base_url=server.url, start_seconds=20)
    for _ in range(2):  # The second one finds in the ledger what the first was told.
        with pytest.raises(RateLimited):
            Collector(config).start()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [407, 429])
def test_a_proxy_that_refuses_the_way_stops_what_goes_by_it(serve: Serve, block_name: str, status: int) -> None:
    proxy = serve(sent(b"HTTP/1.1 %d No\r\n" % status))
    config = CollectorConfig(
        market="SPOT",
        symbols=["BTCUSDT"],
        name=block_name,
        base_url="https://exchange.invalid",
        proxies={"https": proxy.url},
        start_seconds=20,
    )
    with pytest.raises(RateLimited, match="refuses to forward"):
        Collector(config).start()
    assert len(proxy.requests) == 1


def test_a_proxy_that_wants_credentials_of_a_plain_request_gets_no_further_one(serve: Serve, block_name: str) -> None:
    proxy = serve(sent(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", ends=False))
    config = CollectorConfig(
        market="SPOT",
        symbols=["BTCUSDT"],
        name=block_name,
        base_url="http://exchange.invalid",
        proxies={"http": proxy.url},
        start_seconds=20,
    )
    with pytest.raises(RateLimited, match="407"):
        Collector(config).start()
    assert len(proxy.requests) == 1


def test_a_proxy_that_fails_is_named_without_its_password(serve: Serve) -> None:
    server = serve(sent(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"))
    place = server.url.removeprefix("http://")
    refusing, closed = f"http://user:secret@{place}", "http://user:secret@127.0.0.1:1"

    answer = HttpTransport(SystemClock(), proxies={"http": refusing}).fetch("http://exchange.invalid/api/v3/time")
    error = str(Binance("SPOT").error_of(answer, 0))
    assert f"proxy {place} refuses to forward the request; correct its user name and password" in error
    with pytest.raises(ExchangeUnavailable, match=r"no response from .* by proxy 127\.0\.0\.1:1: ") as caught:
        HttpTransport(SystemClock(), proxies={"http": closed}).fetch("http://exchange.invalid/api/v3/time")
    assert "secret" not in error + str(caught.value)


@pytest.mark.parametrize("kind", ["never comes", "trickles", "head trickles", "line alone", "cut head"])
@pytest.mark.parametrize("status", [200, 403, 429, 451])
def test_a_refused_stream_is_known_by_its_status(serve: Serve, kind: str, status: int, block_name: str) -> None:
    server = serve(BROKEN[kind](status))
    outcome = dialled(server.url.replace("http", "ws"), block_name)
    assert (outcome.opened, outcome.status) == (False, status)
    assert outcome.reason.startswith(f"127.0.0.1 refuses a stream: HTTP {status} (")


@pytest.mark.parametrize("head", ["Sec-WebSocket-Accept: bm8gc3VjaCBrZXk=\r\n", ""])
def test_a_handshake_that_proves_nothing_is_refused(serve: Serve, head: str, block_name: str) -> None:
    upgrade = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{head}\r\n"
    server = serve(sent(upgrade.encode(), ends=False))
    outcome = dialled(server.url.replace("http", "ws"), block_name)
    assert not outcome.opened
    assert "Sec-WebSocket-Accept" in outcome.reason


def test_your_own_call_that_ends_by_its_status_stops_everybody(serve: Serve) -> None:
    server = serve(BROKEN["cut"](429))
    with (
        pytest.raises(requests.HTTPError),
        candleshm.weight.acquire("SPOT", 1, base_url=server.url),
        requests.get(server.url, stream=True, timeout=10) as answer,
    ):
        answer.raise_for_status()
    assert 60 < candleshm.weight.state("SPOT", base_url=server.url).blocked_seconds <= 77
