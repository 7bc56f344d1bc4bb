"""Which address of a host is connected to: some swallow packets, refuse, or accept and say nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from candleshm.errors import ExchangeUnavailable
from candleshm.network import addresses
from candleshm.network.addresses import Addresses
from candleshm.rest import transport
from candleshm.rest.transport import HttpTransport
from candleshm.sim import SimulatedExchange
from candleshm.system.clock import SystemClock
from tests.support.dead_addresses import ALIVE, DEAD, HOST, Kind, dead, resolve

OTHER = "127.0.0.8"


@pytest.fixture
def port() -> Iterator[int]:
    """Serve one port on two addresses."""
    with socket.create_server((ALIVE, 0), backlog=50) as first:
        port = first.getsockname()[1]
        with socket.create_server((OTHER, port), backlog=50):
            yield port


def reached(ways: Addresses, port: int, timeout_seconds: float = 20.0) -> str:
    """Connect, and return the address that is connected to."""
    connection, address = ways.connect(HOST, port, timeout_seconds)
    with connection:
        assert connection.gettimeout() is None
        assert connection.getpeername() == address.place
    return str(address.place[0])


@pytest.mark.parametrize("kind", ["swallows", "refuses"])
def test_an_address_that_does_not_accept_is_passed_over(kind: Kind, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, DEAD, ALIVE)
    with dead(kind, port):
        assert reached(Addresses(), port) == ALIVE


def test_addresses_that_all_swallow_share_one_time_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, DEAD, "127.0.0.7")
    ways = Addresses()
    with dead("swallows", port), dead("swallows", port, "127.0.0.7"):
        with pytest.raises(TimeoutError):
            ways.connect(HOST, port, 0.6)
        resolve(monkeypatch, DEAD, "127.0.0.7", ALIVE)
        assert reached(ways, port) == ALIVE


def test_all_addresses_that_swallowed_are_behind_the_others_the_next_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, DEAD, "127.0.0.7")
    monkeypatch.setattr(addresses, "STAGGER_SECONDS", 0.01)
    ways = Addresses()
    with dead("swallows", port), dead("swallows", port, "127.0.0.7"):
        with pytest.raises(TimeoutError):
            ways.connect(HOST, port, 1.0)
        resolve(monkeypatch, DEAD, "127.0.0.7", ALIVE)
        monkeypatch.setattr(addresses, "STAGGER_SECONDS", 1000.0)
        assert reached(ways, port) == ALIVE


def test_what_spoke_comes_first_and_what_did_not_comes_last(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, ALIVE, OTHER)
    ways = Addresses()
    first, second = (socket.AF_INET, socket.SOCK_STREAM, 6, (ALIVE, port)), None
    assert reached(ways, port) == ALIVE
    ways.failed(HOST, port, addresses.Address(*first))
    assert reached(ways, port) == OTHER
    connection, second = ways.connect(HOST, port, 20.0)
    connection.close()
    ways.failed(HOST, port, second)
    assert reached(ways, port) == ALIVE, "it failed longer ago"
    ways.worked(HOST, port, second)
    assert reached(ways, port) == OTHER
    resolve(monkeypatch, ALIVE)
    assert reached(ways, port) == ALIVE, "an address that the host no longer has is not used"


def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"::{number}", 1, 0, 0)) for number in range(3)]
    four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{number}", 1)) for number in range(2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: six + four)
    ways = Addresses()
    order = ways._in_order(HOST, 1, ways.look_up(HOST, 1, 9.0))
    assert [address.place[0] for address in order] == ["::0", "127.0.0.0", "::1", "127.0.0.1", "::2"]


def test_a_name_service_that_fails_for_a_while(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")

    ways = Addresses()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fails)
        with pytest.raises(socket.gaierror, match="temporary"):
            ways.connect(HOST, port, 5.0)
    resolve(monkeypatch, ALIVE)
    assert reached(ways, port) == ALIVE
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert reached(ways, port) == ALIVE


def test_a_name_service_that_hangs(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    resolve(monkeypatch, ALIVE)
    resolves, calls = socket.getaddrinfo, []

    def hangs(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        answers.wait()
        return resolves(*arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(addresses, "KNOWN_SECONDS", 0.05)
    ways = Addresses()
    for _ in range(2):
        with pytest.raises(TimeoutError, match=rf"{HOST} was not resolved within 0\.1 s"):
            ways.connect(HOST, port, 0.1)
    assert len(calls) == 1, "one lookup at a time, whoever asks"
    answers.set()
    assert reached(ways, port) == ALIVE
    answers.clear()
    assert reached(ways, port) == ALIVE, "by what is known"
    answers.set()


@pytest.mark.parametrize("kind", ["swallows", "refuses", "says nothing"])
def test_requests_find_the_address_that_responds_and_keep_to_it(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.5)
    with SimulatedExchange(symbols=1) as exchange:
        port = int(exchange.base_url.rsplit(":", 1)[1])
        url = f"http://{HOST}:{port}/api/v3/time"
        resolve(monkeypatch, DEAD, ALIVE)
        with dead(kind, port):
            fetch = HttpTransport(SystemClock())
            if kind == "says nothing":
                with pytest.raises(ExchangeUnavailable, match="timed out"):
                    fetch.fetch(url)
            monkeypatch.setattr(transport, "READ_SECONDS", 60.0)
            assert fetch.fetch(url).status == 200
            # From now on a connection of any thread goes there at once.
            monkeypatch.setattr(addresses, "STAGGER_SECONDS", 1000.0)
            statuses: list[int] = []
            threads = [threading.Thread(target=lambda: statuses.append(fetch.fetch(url).status)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert statuses == [200] * 3


def test_an_address_that_hangs_in_the_handshake_of_tls_costs_one_attempt(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.3)
    resolve(monkeypatch, DEAD, ALIVE)
    accepted: list[str] = []
    with dead("says nothing", port):
        fetch = HttpTransport(SystemClock())
        with pytest.raises(ExchangeUnavailable):
            fetch.fetch(f"https://{HOST}:{port}/api/v3/time")

        def connect(way: transport._Remembering) -> None:
            with way._new_conn() as connection:
                accepted.append(connection.getpeername()[0])
            raise OSError("seen")

        monkeypatch.setattr(transport._Remembering, "connect", connect)
        with pytest.raises(ExchangeUnavailable):
            fetch.fetch(f"https://{HOST}:{port}/api/v3/time")
    assert accepted == [ALIVE]
