"""The metrics port, met by whoever may connect: nobody takes from the collector what it needs."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

import candleshm
from candleshm.commands import scrape_server
from candleshm.commands.scrape_server import CONNECTIONS_MAX, REQUEST_BYTES_MAX, ScrapeServer
from candleshm.sim import SimulatedExchange
from tests.support.commanding import CLI, DEADLINE_SECONDS, first_lines, serving, until

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def server() -> Iterator[ScrapeServer]:
    server = ScrapeServer("127.0.0.1", 0, "/metrics", lambda accept: ("text/plain", b"page for " + accept.encode()))
    yield server
    server.close()


def connected(server: ScrapeServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=DEADLINE_SECONDS)


def answer(client: socket.socket, request: bytes) -> bytes:
    """Send a request, and return all until the other end closes."""
    client.sendall(request)
    got = b""
    while more := client.recv(65536):
        got += more
    return got


@pytest.mark.parametrize(
    ("request_bytes", "status", "body"),
    [
        (GET, b"200 OK", b"page for */*"),
        (b"GET /metrics?x=1 HTTP/1.0\r\naccept: text/html\r\n\r\n", b"200 OK", b"page for text/html"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found", b"the only page is /metrics\n"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", b"404 Not Found", b"the only page is /metrics\n"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"405 Method Not Allowed", b"Method Not Allowed\n"),
        (b"\x16\x03\x01\x00\r\n\r\n", b"400 Bad Request", b"Bad Request\n"),
        (b"GET /metrics HTTP/1.1\r\n" + b"a" * REQUEST_BYTES_MAX, b"431 Request Header Fields Too Large", None),
    ],
)
def test_requests_of_every_kind_get_a_response_and_the_connection_ends(
    server: ScrapeServer, request_bytes: bytes, status: bytes, body: bytes | None
) -> None:
    with connected(server) as client:
        head, _, got = answer(client, request_bytes).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nConnection: close" in head
    assert body is None or got == body


def test_silent_and_slow_clients_are_closed(server: ScrapeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape_server, "REQUEST_SECONDS", 0.3)
    with connected(server) as silent, connected(server) as slow:
        assert silent.recv(1) == b""
        with suppress(OSError):
            for _ in range(6000):
                slow.sendall(b"G")
                time.sleep(0.01)
        until(lambda: not server._clients)
    assert not server._clients


def test_who_reads_the_response_slowly_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape_server, "ANSWER_SECONDS", 0.3)
    server = ScrapeServer("127.0.0.1", 0, "/metrics", lambda _: ("text/plain", bytes(50_000_000)))
    with connected(server) as lazy:
        lazy.sendall(GET)
        until(lambda: server._clients)
        until(lambda: not server._clients)
    server.close()


def test_a_client_gets_its_response_beside_any_number_of_silent_ones(server: ScrapeServer) -> None:
    silent = [connected(server) for _ in range(500)]
    for _ in range(20):
        with connected(server) as client:
            assert answer(client, GET).endswith(b"page for */*")
    assert len(server._clients) <= CONNECTIONS_MAX
    for client in silent:
        client.close()


def test_the_page_is_made_once_a_second_however_often_it_is_requested() -> None:
    made: list[str] = []

    def page(accept: str) -> tuple[str, bytes]:
        made.append(accept)
        return "text/plain", b"x"

    server = ScrapeServer("127.0.0.1", 0, "/metrics", page)
    began_seconds = time.monotonic()
    for _ in range(50):
        with connected(server) as client:
            assert answer(client, GET).endswith(b"x")
    server.close()

    assert len(made) <= 1 + (time.monotonic() - began_seconds) / scrape_server.PAGE_SECONDS


def test_a_page_that_cannot_be_made_is_a_response_and_the_server_goes_on() -> None:
    pages = iter([("text/plain", b"first")])
    server = ScrapeServer("127.0.0.1", 0, "/metrics", lambda _: next(pages))
    with connected(server) as client:
        assert answer(client, GET).endswith(b"first")
    time.sleep(scrape_server.PAGE_SECONDS)
    for _ in range(2):
        with connected(server) as client:
            assert answer(client, GET).startswith(b"HTTP/1.1 500 ")
    server.close()


def test_a_collector_with_few_descriptors_goes_on_beside_hundreds_of_idle_clients(block_name: str) -> None:
    pytest.importorskip("prometheus_client")
    limited = (
        "import resource, sys; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)); "
        "import runpy; sys.argv = sys.argv[1:]; runpy.run_module('candleshm', run_name='__main__', alter_sys=True)"
    )
    with SimulatedExchange(symbols=4) as exchange:
        words = serving(exchange, block_name, "--interval", "1s", "--live", "rest", "--metrics", "0")
        command = [sys.executable, "-c", limited, *CLI[2:], *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                matched = re.fullmatch(r"metrics: http://127\.0\.0\.1:(\d+)/metrics\n", first_lines(process, 2)[-1])
                assert matched is not None
                port = int(matched[1])
                with candleshm.attach(block_name) as feed:
                    until(lambda: feed.health.ready)
                    idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(500)]
                    newest_ms = feed["BTCUSDT"].last_open_time_ms
                    assert newest_ms is not None
                    for step in range(1, 6):
                        feed.wait_closed(newest_ms + step * 1000, timeout=DEADLINE_SECONDS)
                    assert "candleshm_ready" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
                    assert feed.health.ready
                for client in idle:
                    client.close()
            finally:
                process.terminate()
                _, logged = process.communicate(timeout=DEADLINE_SECONDS)
    assert "Traceback" not in logged
    assert "Too many open files" not in logged
