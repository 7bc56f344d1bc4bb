"""Streams and requests through proxies: real proxies on loopback, and which of them is taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from candleshm.errors import ExchangeUnavailable
from candleshm.exchanges.base import Response
from candleshm.network import addresses
from candleshm.network.addresses import Addresses
from candleshm.network.egress import HEAD_BYTES_MAX, Egress
from candleshm.network.proxies import ProxyError
from candleshm.rest import transport
from candleshm.rest.transport import HttpTransport
from candleshm.system.clock import SystemClock
from tests.support.dead_addresses import ALIVE, DEAD, HOST, Kind, dead, resolve
from tests.support.proxy_servers import PASSWORD, QUOTED, USER, ProxyServer, SocksServer
from tests.test_transport import Server, whole

PATIENCE_SECONDS = 20.0
SECRETS = (PASSWORD, QUOTED, USER, "cret")
Reply = Callable[[socket.socket], None]


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start servers of a class, which end with the test."""
    servers: list[Any] = []

    def started(make: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        servers.append(make(*arguments, **keywords))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Start = Callable[..., Any]


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def stream(url: str, proxies: dict[str, str] | None = None, *, trust_env: bool = False, seconds: float = 20.0) -> Any:
    """Connect as streams do, send a request through the connection, and return the response and how it came."""
    connection, via = Egress(Addresses(), proxies=proxies, trust_env=trust_env).connect(url, seconds)
    with connection:
        assert connection.gettimeout() is None
        connection.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        return connection.recv(65536), via


def refused(url: str, proxies: dict[str, str], seconds: float = PATIENCE_SECONDS) -> OSError:
    """Return the error of a connection that fails; it never shows credentials, and has no cause that does."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        Egress(Addresses(), proxies=proxies).connect(url, seconds)
    error: BaseException | None = caught.value
    assert isinstance(error, OSError)
    assert not any(secret in f"{error} {error!r}" for secret in SECRETS)
    assert error.__cause__ is None
    return error


def fetched(url: str, proxies: dict[str, str], *, trust_env: bool = False) -> Response | ExchangeUnavailable:
    """Request by REST with the same settings."""
    try:
        return HttpTransport(SystemClock(), proxies=proxies, trust_env=trust_env).fetch(url)
    except ExchangeUnavailable as caught:
        error = caught
    assert not any(secret in str(error) for secret in SECRETS)
    return error


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("credentials", [False, True])
@pytest.mark.parametrize("kind", [ProxyServer, SocksServer])
def test_a_stream_goes_through_a_proxy(
    start: Start,
    kind: type[ProxyServer],
    credentials: bool,  # noqa: FBT001
    scheme: str,
) -> None:
    server = start(Server, whole(b"[1]"))
    proxy = start(kind, (ALIVE, port_of(server)), credentials=credentials)
    url = f"{scheme}://exchange.invalid:9443/stream"

    received, via = stream(url, {"all": proxy.url(credentials=credentials)})

    assert received.endswith(b"[1]")
    assert proxy.targets == ["exchange.invalid:9443"]
    assert proxy.identities == ([f"{USER}:{PASSWORD}"] if credentials else [])
    assert str(via.proxy) == f"127.0.0.1:{proxy.port}"
    assert (via.host, via.port, via.address.place) == (ALIVE, proxy.port, (ALIVE, proxy.port))


@pytest.mark.parametrize("url", ["ws://exchange.invalid/stream", "wss://exchange.invalid/stream", "wss://[::1]/s"])
def test_the_port_is_that_of_the_scheme(start: Start, url: str) -> None:
    proxy = start(ProxyServer, None)
    assert isinstance(refused(url, {"all": proxy.url()}), ProxyError)
    host = "[::1]" if "::1" in url else "exchange.invalid"
    assert proxy.targets == [f"{host}:{443 if url.startswith('wss') else 80}"]


@pytest.mark.parametrize(
    ("scheme", "target"),
    [("socks5", ALIVE), ("socks5h", HOST), ("socks4", ALIVE), ("socks4a", HOST)],
)
def test_who_looks_the_name_up(start: Start, scheme: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(Server, whole(b"[1]"))
    port = port_of(server)
    proxy = start(SocksServer, (ALIVE, port))
    resolve(monkeypatch, ALIVE)
    proxies = {"all": proxy.url(scheme=scheme)}

    assert stream(f"ws://{HOST}:{port}/stream", proxies)[0].endswith(b"[1]")
    response = fetched(f"http://{HOST}:{port}/x", proxies)

    assert isinstance(response, Response)
    assert response.body == b"[1]"
    assert proxy.targets == [f"{target}:{port}"] * 2


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
def test_a_name_that_is_not_resolved_is_not_the_proxys_fault(start: Start, scheme: str) -> None:
    proxy = start(SocksServer, None)
    error = refused("ws://exchange.invalid/stream", {"all": proxy.url(scheme=scheme)})
    assert "the name exchange.invalid was not resolved" in str(error)
    assert proxy.targets == []


STATUSES = [403, 407, 429, 502]


@pytest.mark.parametrize("status", STATUSES)
def test_a_proxy_that_refuses_is_named_with_its_status(start: Start, status: int) -> None:
    proxy = start(Server, whole(b"<html>", status=f"{status} No"))
    place = proxy.url.removeprefix("http://")
    proxies = {"all": f"http://{QUOTED}@{place}"}

    error = refused("wss://exchange.invalid/stream", proxies)
    response = fetched("https://exchange.invalid/x", proxies)

    assert isinstance(error, ProxyError)
    assert error.status == status
    assert f"proxy {place} refuses a connection to exchange.invalid:443: HTTP {status}" in str(error)
    assert isinstance(response, Response)
    assert (response.status, bool(response.proxy)) == (status, True)


@pytest.mark.parametrize("kind", [ProxyServer, SocksServer])
@pytest.mark.parametrize("given", ["", "me:wrong@"])
def test_credentials_that_are_wrong_or_missing(start: Start, kind: type[ProxyServer], given: str) -> None:
    proxy = start(kind, (ALIVE, 1), credentials=True)
    proxies = {"all": proxy.url().replace("://", f"://{given}")}

    error = refused("wss://exchange.invalid/stream", proxies)
    response = fetched("https://exchange.invalid/x", proxies)

    assert isinstance(error, ProxyError)
    assert f"proxy 127.0.0.1:{proxy.port}" in str(error)
    assert error.status == (407 if kind is ProxyServer else None)
    if kind is ProxyServer:
        assert isinstance(response, Response)
        assert response.status == 407
    else:
        assert f"proxy 127.0.0.1:{proxy.port}" in str(response)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
def test_a_socks_proxy_that_refuses_says_why(start: Start, scheme: str) -> None:
    proxy = start(SocksServer, None)
    proxies = {"all": proxy.url(scheme=scheme)}
    for error in (refused("wss://exchange.invalid/s", proxies), fetched("https://exchange.invalid/x", proxies)):
        assert f"proxy 127.0.0.1:{proxy.port} refuses a connection to exchange.invalid:443" in str(error)


def says(data: bytes, *, ends: bool = False) -> Reply:
    def reply(connection: socket.socket) -> None:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_RDWR)

    return reply


def floods(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b"X-Long: " + b"x" * 1000 + b"\r\n")


BROKEN: dict[str, tuple[Reply, str]] = {
    "closes": (says(b"", ends=True), "closed the connection"),
    "closes in the head": (says(b"HTTP/1.1 200 OK\r\nX: ", ends=True), "closed the connection"),
    "is another service": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP"),
    "is no text": (says(bytes(range(256))), "not HTTP"),
    "has no status": (says(b"HTTP/1.1 two hundred\r\n\r\n"), "not HTTP"),
    "has endless headers": (floods, f"more than {HEAD_BYTES_MAX} bytes of headers"),
    "goes on": (says(b"HTTP/1.1 200 OK\r\n\r\nhello"), "data of its own"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_proxy_that_is_broken_is_a_clear_error(start: Start, kind: str) -> None:
    reply, text = BROKEN[kind]
    proxy = start(Server, reply)
    place = proxy.url.removeprefix("http://")
    error = refused("wss://exchange.invalid/stream", {"https": f"http://{QUOTED}@{place}"})
    assert isinstance(error, ProxyError)
    assert error.status is None
    assert str(error).startswith(f"proxy {place}: ")
    assert text in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
@pytest.mark.parametrize("drips", [False, True])
def test_a_proxy_that_hangs_costs_the_timeout(start: Start, scheme: str, drips: bool) -> None:  # noqa: FBT001
    ended = threading.Event()
    drop = b"HTTP/1.1 200 OK\r\n" + b"X" * 10_000 if scheme == "http" else b"\x05\x00\x05\x00\x00\x03\xff" + b"x" * 300
    drop = drop if scheme != "socks4a" else b"\x00"

    def hang(connection: socket.socket) -> None:
        for byte in drop if drips else b"":
            connection.sendall(bytes([byte]))
            if ended.wait(0.02):
                return

    class Hanging(Server):
        def _serve(self, connection: socket.socket) -> None:
            with suppress(OSError):
                connection.recv(1)
                hang(connection)
                ended.wait(PATIENCE_SECONDS)

    proxy = start(Hanging, hang)
    place = proxy.url.removeprefix("http://")
    try:
        error = refused("wss://exchange.invalid/stream", {"all": f"{scheme}://{QUOTED}@{place}"}, 0.5)
    finally:
        ended.set()
    assert isinstance(error, TimeoutError)
    assert str(error) == f"proxy {place} did not respond within 0.5 s"


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_not_there_is_named(scheme: str) -> None:
    with socket.create_server((ALIVE, 0)) as unused:
        port = unused.getsockname()[1]
    proxies = {"all": f"{scheme}://{QUOTED}@127.0.0.1:{port}"}
    assert f"proxy 127.0.0.1:{port}: [Errno 111] Connection refused" in str(refused("ws://h/s", proxies))
    assert "Connection refused" in str(fetched("https://h/x", proxies))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"https://{QUOTED}@h:1", "streams reach a proxy by http:// or socks5h:// only"),
        ("http://me:\u5e01@h:1", "not Latin-1"),
        (f"ftp://{QUOTED}@h:1", "its scheme is not one of"),
        (f"http://{QUOTED}@h:0", "not a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_clear_error(url: str, text: str) -> None:
    error = refused("wss://exchange.invalid/stream", {"all": url})
    assert isinstance(error, ProxyError)
    assert text in str(error)
    assert "\u5e01" not in str(error)


def test_a_direct_connection_reaches_the_host(start: Start) -> None:
    server = start(Server, whole(b"[1]"))
    received, via = stream(f"ws://127.0.0.1:{port_of(server)}/stream")
    assert received.endswith(b"[1]")
    assert (via.proxy, via.host, via.port) == (None, ALIVE, port_of(server))


# Which of two proxies is taken: A, B, or none of them. `{H}` is the host of the exchange.
CHOICES: list[tuple[str, dict[str, str], dict[str, str], bool, str]] = [
    ("https", {}, {}, False, "-"),
    ("https", {"https": "A"}, {}, False, "A"),
    ("http", {"http": "A"}, {}, False, "A"),
    ("https", {"http": "A"}, {}, False, "-"),
    ("http", {"https": "A"}, {}, False, "-"),
    ("https", {"all": "A"}, {}, False, "A"),
    ("https", {"all": "A", "https": "B"}, {}, False, "B"),
    ("https", {"https": "A", f"https://{HOST}": "B"}, {}, False, "B"),
    ("https", {"https": "A", f"all://{HOST}": "B"}, {}, False, "A"),
    ("https", {"all": "A", f"all://{HOST}": "B"}, {}, False, "B"),
    ("https", {"all": "A", f"https://other.{HOST}": "B"}, {}, False, "A"),
    ("https", {}, {"https_proxy": "A"}, False, "-"),
    ("https", {}, {"https_proxy": "A"}, True, "A"),
    ("https", {}, {"HTTPS_PROXY": "A"}, True, "A"),
    ("https", {}, {"http_proxy": "A"}, True, "-"),
    ("http", {}, {"http_proxy": "A"}, True, "A"),
    ("https", {}, {"all_proxy": "A"}, True, "A"),
    ("https", {}, {"https_proxy": "A", "no_proxy": HOST}, True, "-"),
    ("https", {}, {"https_proxy": "A", "NO_PROXY": ".test"}, True, "-"),
    ("https", {}, {"https_proxy": "A", "no_proxy": "*"}, True, "-"),
    ("https", {}, {"https_proxy": "A", "no_proxy": f"other.{HOST}"}, True, "A"),
    ("https", {"https": "B"}, {"https_proxy": "A"}, True, "B"),
    ("https", {"https": "B"}, {"https_proxy": "A", "no_proxy": HOST}, True, "B"),
    ("https", {"https": "B"}, {"no_proxy": HOST}, False, "B"),
    ("https", {"all": "B"}, {"https_proxy": "A"}, True, "A"),
    ("https", {}, {"wss_proxy": "A", "ws_proxy": "A"}, True, "-"),
]


@pytest.mark.parametrize(("scheme", "given", "environment", "trust_env", "taken"), CHOICES)
def test_streams_take_the_proxy_of_requests(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    given: dict[str, str],
    environment: dict[str, str],
    trust_env: bool,  # noqa: FBT001
    taken: str,
) -> None:
    # What is reached responds 503, so that each connection is one request, whatever comes by it.
    reply = whole(b"", status="503 No")
    servers = {name: start(Server, reply) for name in "AB-"}
    resolve(monkeypatch, ALIVE)
    monkeypatch.setattr(transport, "READ_SECONDS", 5.0)
    for name, server in environment.items():
        monkeypatch.setenv(name, servers[server].url if server in servers else server)
    proxies = {key: servers[name].url for key, name in given.items()}
    place = f"{HOST}:{port_of(servers['-'])}"

    def reached() -> str:
        counts = {name: server.connections for name, server in servers.items()}
        for server in servers.values():
            server.connections = 0
        return "".join(name for name, count in counts.items() if count)

    fetched(f"{scheme}://{place}/x", proxies, trust_env=trust_env)
    assert reached() == taken, "by REST"
    with suppress(ProxyError):
        connection, _ = Egress(Addresses(), proxies=proxies, trust_env=trust_env).connect(
            f"{scheme.replace('http', 'ws')}://{place}/stream", PATIENCE_SECONDS
        )
        with closing(connection):
            # What is accepted by the system may not have been counted yet.
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.recv(1)
    assert reached() == taken, "by stream"


@pytest.mark.parametrize("dies", ["swallows", "refuses"])
@pytest.mark.parametrize("kind", [ProxyServer, SocksServer])
def test_a_first_address_of_a_proxy_that_leads_nowhere(
    start: Start, kind: type[ProxyServer], dies: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(Server, whole(b"[1]"))
    proxy = start(kind, (ALIVE, port_of(server)))
    resolve(monkeypatch, DEAD, ALIVE)
    proxies = {"all": proxy.url(host=HOST)}
    with dead(dies, proxy.port):
        received, via = stream("ws://exchange.invalid/stream", proxies)
        response = fetched("http://exchange.invalid/x", proxies)
    assert received.endswith(b"[1]")
    assert via.address.place == (ALIVE, proxy.port)
    assert isinstance(response, Response)
    assert response.body in {b"[1]", b'["forwarded"]'}


@pytest.mark.parametrize("kind", [ProxyServer, SocksServer])
def test_an_address_of_a_proxy_that_says_nothing_costs_one_attempt(
    start: Start, kind: type[ProxyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(Server, whole(b"[1]"))
    proxy = start(kind, (ALIVE, port_of(server)))
    resolve(monkeypatch, DEAD, ALIVE)
    # Only the memory of the first attempt leads to the other address.
    monkeypatch.setattr(addresses, "STAGGER_SECONDS", 1000.0)
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(transport, "READ_SECONDS", 1.0)
    proxies = {"all": proxy.url(host=HOST)}
    ways = Egress(Addresses(), proxies=proxies)
    client = HttpTransport(SystemClock(), proxies=proxies)
    with dead("says nothing", proxy.port):
        with pytest.raises(TimeoutError):
            ways.connect("ws://exchange.invalid/stream", 1.0)
        connection, via = ways.connect("ws://exchange.invalid/stream", PATIENCE_SECONDS)
        connection.close()
        with pytest.raises(ExchangeUnavailable):
            client.fetch("http://exchange.invalid/x")
        monkeypatch.setattr(transport, "CONNECT_SECONDS", PATIENCE_SECONDS)
        monkeypatch.setattr(transport, "READ_SECONDS", PATIENCE_SECONDS)
        assert client.fetch("http://exchange.invalid/x").status == 200
        assert via.address.place == (ALIVE, proxy.port)
        via.failed()
        with pytest.raises(TimeoutError):
            ways.connect("ws://exchange.invalid/stream", 1.0)
        via.worked()
        ways.connect("ws://exchange.invalid/stream", PATIENCE_SECONDS)[0].close()
