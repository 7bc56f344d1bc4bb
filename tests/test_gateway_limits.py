"""The bounds of a gateway: idle, slow and greedy clients take nothing from the others, nor from the machine."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import requests
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from candleshm.gateway import connection, connections
from candleshm.gateway.access import Access
from candleshm.gateway.app import make_app
from candleshm.gateway.connections import CONNECTIONS_MAX, Connections
from candleshm.gateway.counts import Counts
from candleshm.gateway.listening import listen, url_of
from candleshm.gateway.server import GatewayServer
from tests.support.commanding import CLI, DEADLINE_SECONDS, first_line, until
from tests.support.gateway_process import Served, gateway, parts_of, rest_of

PING = b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
REAL_PING = PING.replace(b"/ping", b"/api/v3/ping")
BIG_BYTES = 30_000_000


@dataclass
class Pages:
    """An application whose requests to /slow are answered when the test says so."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes."""
        return [Route(f"/{name}", Page(self, name)) for name in ("ping", "slow", "big", "fault")]


class Page:
    """One path."""

    def __init__(self, pages: Pages, name: str) -> None:
        self.pages = pages
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        body = b"x" * BIG_BYTES if self.name == "big" else self.name.encode()
        if self.name == "fault":
            raise RuntimeError("a fault of the test")
        if self.name == "slow":
            self.pages.waiting += 1
            try:
                await self.pages.released.wait()
            finally:
                self.pages.waiting -= 1
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Shell:
    """A gateway without markets, in a thread of the test."""

    url: str
    pages: Pages
    connections: Connections
    counts: Counts
    server: GatewayServer
    loop: asyncio.AbstractEventLoop | None = None
    clients: list[socket.socket] = field(default_factory=list)

    def connected(self) -> socket.socket:
        """Return a connection."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        client = socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)
        self.clients.append(client)
        return client

    def asked(self, path: str) -> socket.socket:
        """Return a connection on which a request was sent."""
        client = self.connected()
        client.sendall(PING.replace(b"/ping", path.encode()))
        return client

    def release(self) -> None:
        """Answer what waits."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.pages.released.set)

    def has_connections(self, count: int) -> bool:
        """Return whether there are so many."""
        return self.server.connection_count() == count


@contextmanager
def shell(connections_max: int = 50, requests_max: int = 20) -> Iterator[Shell]:
    pages, bound, counts = Pages(), Connections(connections_max, requests_max), Counts()
    running = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        server = GatewayServer(
            make_app(pages.routes(), AsyncExitStack(), Access(), counts, bound), bound, lambda: running.set()
        )
        made = Shell(url_of(listener), pages, bound, counts, server)

        async def serve() -> None:
            made.loop = asyncio.get_running_loop()
            await server.serve([listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        assert running.wait(DEADLINE_SECONDS)
        try:
            yield made
        finally:
            made.release()
            for client in made.clients:
                client.close()
            server.stop()
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()


def response_on(client: socket.socket) -> bytes:
    """Return one response with a length."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = client.recv(65536)
        assert more, got
        got += more
    _, headers, body = parts_of(got)
    while len(body) < int(headers["content-length"]):
        more = client.recv(65536)
        assert more, got
        body += more
        got += more
    return got


# Connections.


def test_the_connection_that_was_idle_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
    with shell(connections_max=4) as made:
        known = made.asked("/ping")
        assert response_on(known).endswith(b"ping")
        silent = []
        for count in range(2, 5):
            silent.append(made.connected())
            until(partial(made.has_connections, count))
        # Those that never sent a request leave first.
        for leaving in [*silent, known]:
            assert response_on(made.asked("/ping")).endswith(b"ping")
            assert rest_of(leaving) == b""
            assert made.has_connections(4)
        assert made.connections.closed == {"idle": 4}


def test_clients_that_were_answered_keep_their_connections_in_a_rush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
    with shell(connections_max=16) as made:
        known = [made.asked("/ping") for _ in range(8)]
        for client in known:
            assert response_on(client).endswith(b"ping")
        busy = [made.asked("/slow") for _ in range(8)]
        until(lambda: made.pages.waiting == 8)
        for _ in range(20):
            assert parts_of(rest_of(made.asked("/ping")))[0] == 503
        for client in known:
            client.sendall(PING)
            assert response_on(client).endswith(b"ping")
        made.release()
        assert [response_on(client)[-4:] for client in busy] == [b"slow"] * 8


def test_a_new_connection_is_refused_while_all_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
    with shell(connections_max=8) as made:
        busy = [made.asked("/slow") for _ in range(8)]
        until(lambda: made.pages.waiting == 8)
        status, headers, body = parts_of(rest_of(made.asked("/ping")))
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["code"] == -1003
        made.release()
        assert [response_on(client)[-4:] for client in busy] == [b"slow"] * 8


def test_while_too_much_is_in_flight_those_who_were_answered_before_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with shell(requests_max=3) as made:
        known = made.asked("/ping")
        assert response_on(known).endswith(b"ping")
        busy = [made.asked("/slow") for _ in range(3)]
        until(lambda: made.pages.waiting == 3)
        for _ in range(20):
            assert parts_of(rest_of(made.asked("/ping")))[0] == 503
            known.sendall(PING)
            assert response_on(known).endswith(b"ping")
        assert made.pages.waiting == 3
        made.release()
        assert [response_on(client)[-4:] for client in busy] == [b"slow"] * 3
        assert response_on(made.asked("/ping")).endswith(b"ping")
        until(lambda: made.connections.in_flight == 0)


def test_nothing_stays_in_flight_of_clients_that_left() -> None:
    with shell(connections_max=300, requests_max=200) as made:
        for _ in range(50):
            made.asked("/slow").close()
        until(lambda: made.pages.waiting == 50)
        until(partial(made.has_connections, 0))
        made.release()
        until(lambda: made.connections.in_flight == 0)
        for _ in range(300):
            made.asked("/ping").close()
        assert response_on(made.asked("/ping")).endswith(b"ping")
        until(lambda: made.connections.in_flight == 0)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /ping HT",
        PING[:-2],
        b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        PING + b"GET /pi",
    ],
)
def test_a_request_that_never_ends_is_not_waited_for(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    with shell() as made, made.connected() as slow, made.connected() as other:
        slow.sendall(begun)
        other.sendall(PING)
        assert response_on(other).endswith(b"ping")
        rest_of(slow)
        # Between requests a client has more time.
        other.sendall(PING)
        assert response_on(other).endswith(b"ping")


def test_a_client_that_never_reads_is_closed_and_its_response_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RESPONSE_SECONDS", 0.2)
    for request in (PING, PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), PING * 50):
        with shell() as made, made.connected() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(request.replace(b"/ping", b"/big"))
            until(partial(made.has_connections, 1))
            until(partial(made.has_connections, 0))
            until(lambda: made.connections.in_flight == 0)
            assert made.connections.closed["slow"] == 1


def test_pipelined_requests_are_answered_in_order_beside_others() -> None:
    with shell() as made, made.connected() as greedy:
        sender = threading.Thread(target=greedy.sendall, args=(PING * 3000,))
        sender.start()
        for _ in range(20):
            assert response_on(made.asked("/ping")).endswith(b"ping")
            assert made.connections.in_flight <= 2
        got = b""
        while got.count(b"HTTP/1.1 200") < 3000 or not got.endswith(b"ping"):
            more = greedy.recv(1 << 20)
            assert more
            got += more
        sender.join()


def test_a_fault_is_an_error_in_the_exchange_s_form_and_the_gateway_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with shell() as made:
        status, _, body = parts_of(response_on(made.asked("/fault")))
        assert status == 500
        assert json.loads(body)["code"] == -1000
        assert response_on(made.asked("/ping")).endswith(b"ping")
        until(lambda: made.connections.in_flight == 0)
    assert "a fault of the test" in caplog.text


# A gateway as a process.


@pytest.fixture
def served() -> Iterator[Served]:
    with gateway("--block", "no-such-block") as served:
        yield served


def test_a_thousand_idle_connections_keep_nobody_out(served: Served) -> None:
    idle = [served.connected() for _ in range(1000)]
    with requests.Session() as session:
        for _ in range(30):
            assert session.get(served.url + "/api/v3/ping", timeout=DEADLINE_SECONDS).status_code == 200
            assert served.get("/api/v3/ping").status_code == 200
    for client in idle:
        client.close()


def test_more_idle_connections_than_there_are_descriptors_keep_nobody_out() -> None:
    limited = (
        "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); sys.argv = sys.argv[1:];"
        "runpy.run_module('candleshm', run_name='__main__', alter_sys=True)"
    )
    words = ("gateway", "--listen", "0", "--block", "no-such-block")
    with subprocess.Popen(
        [sys.executable, "-c", limited, *CLI[2:], *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            served = Served(first_line(process).removeprefix("gateway: ").strip(), process)
            idle = [served.connected() for _ in range(400)]
            until(lambda: is_answered(served))
            for _ in range(30):
                until(lambda: is_answered(served))
            for client in idle:
                client.close()
            process.terminate()
            logged = served.ends()
        finally:
            process.kill()
    assert "Too many open files" not in logged


def test_the_limit_of_descriptors_is_raised() -> None:
    code = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard));"
        "from candleshm.gateway.connections import raise_descriptor_limit as f;"
        "print(f(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4 * CONNECTIONS_MAX:
        pytest.skip("the system allows few descriptors")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    bound, soft = map(int, printed.split())
    assert bound == CONNECTIONS_MAX
    assert soft > CONNECTIONS_MAX


def is_answered(served: Served) -> bool:
    """Return whether a new client is served, which may be refused in the moments of a flood."""
    try:
        return served.get("/api/v3/ping").status_code == 200
    except requests.ConnectionError:
        return False


def memory_bytes(process: subprocess.Popen[str], name: str) -> int:
    """Return a line of /proc/PID/status that is a size."""
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(rf"{name}:\s+(\d+) kB", file.read())[1]) * 1024  # type: ignore[index]


def test_a_bot_gone_wild_takes_neither_memory_nor_the_others_answers(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 12_000:
        pytest.skip("the system allows few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 12_000), hard))
    before_bytes = memory_bytes(served.process, "VmRSS")
    flood: list[socket.socket] = []
    ends = threading.Event()

    def go_wild() -> None:
        """Keep 10,000 requests in flight, on a connection each, and read no answer."""
        while not ends.is_set() and len(flood) < 10_000:
            try:
                client = served.connected()
                client.sendall(REAL_PING)
            except OSError:
                continue
            flood.append(client)

    with requests.Session() as session:
        assert session.get(served.url + "/api/v3/ping", timeout=DEADLINE_SECONDS).status_code == 200
        threads = [threading.Thread(target=go_wild) for _ in range(4)]
        for thread in threads:
            thread.start()
        statuses = []
        while any(thread.is_alive() for thread in threads):
            statuses.append(session.get(served.url + "/api/v3/ping", timeout=DEADLINE_SECONDS).status_code)
            until(lambda: is_answered(served))
        ends.set()
    for client in flood:
        client.close()

    assert statuses
    assert set(statuses) == {200}
    assert memory_bytes(served.process, "VmHWM") - before_bytes < 300_000_000
    until(lambda: is_answered(served))
    served.process.terminate()
    served.ends()
