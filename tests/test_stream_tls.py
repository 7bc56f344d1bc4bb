"""Streams by TLS: whose certificates are accepted, what the log says of those that are not, and proxies between."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.sync.server import Server as WebsocketServer
from websockets.sync.server import ServerConnection, serve

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.collecting import assert_true, close_seconds, collecting, status_of, until
from tests.support.commanding import first_lines, lines_until, started
from tests.support.dialling import dialled, stream_thread
from tests.support.proxy_servers import PASSWORD, QUOTED, USER, ProxyServer, SocksServer
from tests.support.tls_front import context_of, tls_front
from tests.test_stream import SYMBOLS, settings_of
from tests.test_transport import Server, whole


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=8) as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def roots(authority: trustme.CA, tmp_path: Path) -> Path:
    """A file with our authority."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def port_of(exchange: SimulatedExchange) -> int:
    return int(exchange.base_url.rpartition(":")[2])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_the_trusted_authority_for_the_host_is_accepted(
    exchange: SimulatedExchange, authority: trustme.CA, roots: Path, block_name: str, host: str
) -> None:
    with tls_front(context_of(authority, host), port_of(exchange)) as port:
        assert dialled(f"wss://{host}:{port}/spot", block_name, roots_file=roots).opened


Certificate = Callable[[trustme.CA], Any]
REFUSED: dict[str, tuple[Certificate, str]] = {
    "another authority": (lambda _: context_of(trustme.CA()), "no trusted authority signed it"),
    "another host": (lambda authority: context_of(authority, "api.example.org"), "another host answers"),
    "a name, not the address": (lambda authority: context_of(authority, "localhost"), "another host answers"),
    "expired": (
        lambda authority: context_of(authority, not_after=datetime(2025, 1, 1, tzinfo=UTC)),
        "check the clock of this machine",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_certificate_that_proves_nothing_is_refused_with_what_to_do(
    exchange: SimulatedExchange, authority: trustme.CA, roots: Path, block_name: str, kind: str
) -> None:
    make, text = REFUSED[kind]
    connections = len(exchange.connections())
    with tls_front(make(authority), port_of(exchange)) as port:
        outcome = dialled(f"wss://127.0.0.1:{port}/spot", block_name, roots_file=roots)
    assert not outcome.opened
    assert outcome.reason.startswith(f"no stream from 127.0.0.1: the certificate is refused: {text}")
    assert "(invalid peer certificate" in outcome.reason, "the cause is there, too"
    assert len(exchange.connections()) == connections


@pytest.mark.parametrize("content", ["", "0", "false", "bundle"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONHTTPSVERIFY", "SSL_CERT_FILE"])
def test_no_setting_of_the_environment_turns_verification_of_streams_off(
    exchange: SimulatedExchange,
    authority: trustme.CA,
    roots: Path,
    block_name: str,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    name: str,
) -> None:
    monkeypatch.setenv(name, str(roots) if content == "bundle" else content)
    with tls_front(context_of(authority), port_of(exchange)) as port:
        outcome = dialled(f"wss://127.0.0.1:{port}/spot", block_name)
    assert outcome.opened == ((name, content) == ("SSL_CERT_FILE", "bundle"))


@pytest.mark.parametrize("kind", ["empty", "missing", "no value"])
def test_a_file_of_authorities_without_any_is_named_with_what_to_do(
    block_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "authorities.pem"
    if kind == "empty":
        path.touch()
    value = "" if kind == "no value" else str(path)
    monkeypatch.setenv("SSL_CERT_FILE", value)
    reason = dialled_nowhere(block_name)
    assert f"SSL_CERT_FILE is set to `{value}`, which holds no certificate authorities" in reason
    assert "correct it, or unset it" in reason
    assert "\n" not in reason
    # The file of a setting is named in the same way.
    given = dialled_nowhere(block_name, roots_file=path)
    assert str(path) in given


def dialled_nowhere(block_name: str, **settings: Any) -> str:
    """Return why no stream comes from a server that is asked nothing."""
    server = Server(whole(b""))
    try:
        return dialled(server.url.replace("http", "wss"), block_name, **settings).reason
    finally:
        server.close()


@contextmanager
def websockets(handler: Callable[[ServerConnection], None], authority: trustme.CA) -> Iterator[int]:
    """Serve websockets by TLS; give the port."""
    server: WebsocketServer
    with serve(handler, "127.0.0.1", 0, ssl=context_of(authority), compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
        server.shutdown()


def test_what_arrives_at_once_by_tls_is_read_to_its_end(authority: trustme.CA, roots: Path, block_name: str) -> None:
    count, done = 3000, threading.Event()

    def push(connection: ServerConnection) -> None:
        for number in range(count):
            connection.send(json.dumps({"result": None, "pad": "x" * 1000, "id": number}))
        done.wait(60)

    with websockets(push, authority) as port, stream_thread(block_name, roots_file=roots) as thread:
        thread.open(
            1,
            socket.create_connection(("127.0.0.1", port)).detach(),
            host="h",
            target="/",
            streams=1,
            server_name="127.0.0.1",
        )
        ids: list[int] = []
        deadline_seconds = time.monotonic() + 60
        while len(ids) < count and time.monotonic() < deadline_seconds:
            ids += [json.loads(bytes(text))["id"] for _, text in thread.wait(1.0).replies]
        assert ids == list(range(count))
        done.set()


# Whole collectors.


def serving(exchange: SimulatedExchange, name: str, port: int, *more: str) -> list[str]:
    """Return the words that serve candles of 1s by streams over TLS."""
    words = f"serve --market spot --interval 1s --length 60 --symbols BTCUSDT,ETHUSDT --name {name} --live ws"
    urls = f"--base-url {exchange.base_url} --ws-url wss://localhost:{port}/spot"
    return [*words.split(), *urls.split(), *more]


def flows_by_tls(exchange: SimulatedExchange, name: str, words: list[str], roots: Path) -> None:
    """Run a collector in a process whose environment names our authority, until its streams bring true candles."""
    before = len(exchange.connections())
    with started(*words, env={**os.environ, "SSL_CERT_FILE": str(roots)}) as process:
        first_lines(process, 1)
        until(lambda: any(connection.events for connection in exchange.connections()[before:]))
        with candleshm.attach(name) as feed:
            close_seconds(feed, 4)
            assert_true(exchange, feed)
            assert candleshm.RowState.VERIFIED in feed["BTCUSDT"].states(4, closed_only=True)


def test_a_collector_by_tls(exchange: SimulatedExchange, authority: trustme.CA, roots: Path, block_name: str) -> None:
    with tls_front(context_of(authority, "localhost"), port_of(exchange)) as port:
        flows_by_tls(exchange, block_name, serving(exchange, block_name, port), roots)


@pytest.mark.parametrize("kind", [ProxyServer, SocksServer])
def test_a_collector_by_tls_through_a_proxy_with_credentials(
    exchange: SimulatedExchange, authority: trustme.CA, roots: Path, block_name: str, kind: type[ProxyServer]
) -> None:
    seen = bytearray()
    with tls_front(context_of(authority, "localhost"), port_of(exchange)) as port:
        proxy = kind(("127.0.0.1", port), credentials=True)
        proxy.watch = seen.extend
        try:
            words = serving(exchange, block_name, port, "--proxies", f"https={proxy.url(credentials=True)}")
            flows_by_tls(exchange, block_name, words, roots)
        finally:
            proxy.close()
    assert f"localhost:{port}" in proxy.targets
    assert set(proxy.identities) == {f"{USER}:{PASSWORD}"}
    assert len(seen) > 1000
    assert not any(word in seen for word in (b"GET ", b"kline", b"BTCUSDT", b"btcusdt", b"Upgrade"))


def test_a_certificate_that_is_refused_is_in_the_log_of_a_command(
    exchange: SimulatedExchange, authority: trustme.CA, block_name: str
) -> None:
    with (
        tls_front(context_of(authority, "localhost"), port_of(exchange)) as port,
        started(*serving(exchange, block_name, port)) as process,
    ):
        line = next(line for line in lines_until(process, "certificate").splitlines() if "certificate" in line)
    assert "SSL_CERT_FILE" in line
    assert "no stream from localhost" in line


# What the log says of a host that gives no stream, and what the candles do meanwhile.
LINES: dict[str, str] = {
    "certificate": "no stream from 127.0.0.1: the certificate is refused: no trusted authority signed it",
    "name": "no stream from nowhere.invalid: the name was not resolved",
    "proxy 407": "refuses a connection to nowhere.invalid:443: HTTP 407; correct its user name and password",
    "200": "127.0.0.1 refuses a stream: HTTP 200 (no streams are served there; correct ws_url)",
    "403": "127.0.0.1 refuses a stream: HTTP 403 (its firewall blocks this address or this path)",
    "429": "127.0.0.1 refuses a stream: HTTP 429 (too many connections were opened from this address)",
    "451": "127.0.0.1 refuses a stream: HTTP 451 (the exchange does not serve this country; use another host",
}


@pytest.mark.parametrize("kind", LINES)
def test_without_a_stream_candles_come_by_requests_and_one_line_says_why(
    exchange: SimulatedExchange, block_name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with host_without_streams(exchange, kind) as changes:
        settings = settings_of(exchange, live="auto", symbols=SYMBOLS[:2], **changes)
        with collecting(exchange, block_name, **settings) as (collector, feed):
            until(lambda: [record for record in caplog.records if LINES[kind] in record.getMessage()])
            close_seconds(feed, 4)
            assert_true(exchange, feed)
            assert not any(feed[symbol].gaps() for symbol in feed.symbols)
            assert status_of(collector).live == "rest"
    lines = [record.getMessage() for record in caplog.records if "reconnecting in" in record.getMessage()]
    assert all(LINES[kind] in line and "\n" not in line for line in lines)
    assert not any(secret in line for line in lines for secret in (PASSWORD, QUOTED, USER))
    assert 1 <= len(lines) <= 8, "the 1st, 2nd, 4th ... attempt"


@contextmanager
def host_without_streams(exchange: SimulatedExchange, kind: str) -> Iterator[dict[str, Any]]:
    """Give the settings that lead to a host of that kind."""
    if kind == "certificate":
        with tls_front(context_of(trustme.CA()), port_of(exchange)) as port:
            yield {"ws_url": f"wss://127.0.0.1:{port}/spot"}
    elif kind == "name":
        yield {"ws_url": "wss://nowhere.invalid"}
    elif kind == "proxy 407":
        proxy = ProxyServer(("127.0.0.1", 1), credentials=True)
        yield {
            "ws_url": "wss://nowhere.invalid",
            "proxies": {"https": proxy.url().replace("://", f"://{USER[:2]}:wrong@")},
        }
        proxy.close()
    else:
        server = Server(whole(b"<html>", status=f"{kind} No"))
        yield {"ws_url": server.url.replace("http", "ws")}
        server.close()
