"""A service manager and `serve`: READY, STATUS and signs of life, as systemd reads them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from candleshm._core import Writer
from candleshm.commands import service_reports
from candleshm.commands.service_reports import ServiceReports
from candleshm.sim import SimulatedExchange
from candleshm.system.service_manager import ServiceManager
from tests.support.commanding import DEADLINE_SECONDS, serving, started

Fields = dict[str, str]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(DEADLINE_SECONDS)
        yield listener


def told(listener: socket.socket) -> Fields:
    """Wait for one message."""
    lines = listener.recv(65536).decode().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def told_until(listener: socket.socket, name: str) -> list[Fields]:
    """Wait for a message with that field; return all until then."""
    messages = [told(listener)]
    while name not in messages[-1]:
        messages.append(told(listener))
    return messages


def environment(listener: socket.socket, watchdog_seconds: float) -> dict[str, str]:
    """Return what systemd adds to a service's environment."""
    microseconds = str(round(watchdog_seconds * 1e6))
    return {**os.environ, "NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": microseconds}


def test_a_service_manager_learns_that_everything_is_loaded_how_it_does_and_that_it_stops(
    block_name: str, listener: socket.socket
) -> None:
    with (
        SimulatedExchange(symbols=2) as exchange,
        started(*serving(exchange, block_name), env=environment(listener, 1.5)) as process,
    ):
        ready = told_until(listener, "READY")[-1]
        assert ready["READY"] == "1"
        assert ready["STATUS"].startswith("2 symbols, 0 stale, oldest data ")
        assert told_until(listener, "WATCHDOG")[-1]["STATUS"].startswith("2 symbols, 0 stale")
        process.send_signal(signal.SIGTERM)
        assert told_until(listener, "STOPPING")[-1]["STATUS"] == "stopping"
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_start_that_waits_asks_for_more_time_and_is_not_ready(block_name: str, listener: socket.socket) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        flags = ["--market", "spot", "--symbols", "BTCUSDT", "--name", block_name, "--base-url", where]
        with started("serve", *flags, env=environment(listener, 0.6)):
            messages = [told(listener) for _ in range(3)]
    assert all("READY" not in message for message in messages)
    assert all(int(message["EXTEND_TIMEOUT_USEC"]) > 10_000_000 for message in messages)
    assert messages[0]["STATUS"] == "waiting for the exchange"


def test_a_collector_without_a_heartbeat_ends_the_signs_of_life(
    block_name: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"])
    manager = ServiceManager(listener.getsockname(), watchdog_seconds=0.3)
    with ServiceReports(manager, lambda: {block_name: None}):
        writer.heartbeat()
        told_until(listener, "WATCHDOG")
        monkeypatch.setattr(service_reports, "SILENT_SECONDS", -1.0)
        for _ in range(2):  # one may be under way
            message = told(listener)
        assert "WATCHDOG" not in message
    writer.close()


def test_a_gateway_is_up_once_it_answers(listener: socket.socket) -> None:
    with started("gateway", "--listen", "0", env=environment(listener, 30)) as process:
        assert told_until(listener, "READY")[-1]["STATUS"].startswith("serving at http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        told_until(listener, "STOPPING")
        assert process.wait(DEADLINE_SECONDS) == 0


def test_child_processes_do_not_answer_the_manager_of_their_parent() -> None:
    variables = {"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "X": "1"}
    manager = ServiceManager.take_from(variables)
    assert variables == {"X": "1"}
    assert manager.listens
    assert manager.watchdog_seconds == 3.0


@pytest.mark.parametrize(("microseconds", "pid"), [("3000000", "1"), ("0", ""), ("", ""), ("soon", "")])
def test_a_watchdog_for_another_process_or_without_a_time_is_none(microseconds: str, pid: str) -> None:
    variables = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    assert ServiceManager.take_from(variables).watchdog_seconds is None


def test_a_manager_that_has_gone_or_does_not_read_stops_nothing(listener: socket.socket, tmp_path: Path) -> None:
    ServiceManager(str(tmp_path / "nobody")).tell(READY=1)
    ServiceManager().tell(READY=1)
    for _ in range(10_000):
        ServiceManager(listener.getsockname()).tell(STATUS="x" * 1000)
    assert told(listener) == {"STATUS": "x" * 1000}


def test_an_address_in_the_abstract_namespace(tmp_path: Path) -> None:
    name = f"candleshm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(DEADLINE_SECONDS)
        ServiceManager(f"@{name}").tell(READY=1, STATUS="two\nlines")
        assert told(listener) == {"READY": "1", "STATUS": "two lines"}
