"""Stream hosts that do what none should: the others' streams go on."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import candleshm
from candleshm.sim import SimulatedExchange, StreamFault, StreamRules
from tests.support.collecting import DEADLINE_SECONDS, assert_true, close_seconds, collecting, status_of, until
from tests.support.dead_addresses import ALIVE, DEAD, HOST, Kind, dead, resolve
from tests.support.dialling import dialled
from tests.support.raw_hosts import raw_host, upgrade
from tests.test_stream import SYMBOLS, complete, flows, settings_of, stream_of, streaming


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=8) as running:
        yield running


def test_streams_flow_while_python_is_busy(exchange: SimulatedExchange, block_name: str) -> None:
    settings = settings_of(exchange) | {"name": block_name, "base_url": exchange.base_url, "market": "SPOT"}
    code = f"""if True:
        import sys, candleshm
        with candleshm.Collector(candleshm.CollectorConfig(**{settings!r})) as collector:
            while collector.status().live != "ws":
                pass
            sys.setswitchinterval(1e6)  # from here on no other thread of Python runs
            print("busy", flush=True)
            while True:
                pass
        """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            with candleshm.attach(block_name) as feed:
                close_seconds(feed, 3)
                assert_true(exchange, feed)
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["swallows", "refuses", "says nothing"])
def test_streams_use_the_ip_address_that_responds(
    kind: Kind, exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(exchange.base_url.rsplit(":", 1)[1])
    resolve(monkeypatch, DEAD, ALIVE)
    with dead(kind, port), streaming(exchange, block_name, ws_url=f"ws://{HOST}:{port}/spot") as (_, feed):
        close_seconds(feed, 1)


def test_pings_get_a_pong_once_a_second_at_most(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="flood", of="pings", frames=100, symbol="BTCUSDT"))
        close_seconds(feed, 4)
        (connection,) = exchange.connections()
        assert connection.reason == ""
        assert 1 <= connection.pongs <= 20
        assert stream_of(collector).lost == 0


def test_an_end_is_noticed_that_arrives_together_with_the_last_text(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def serve(connection: socket.socket) -> None:
        upgrade(connection)
        # The upgrade has been read by now, so that poll has this to say and nothing else.
        time.sleep(0.3)
        connection.send(b"\x81\x02{}", socket.MSG_MORE)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass

    with (
        raw_host(serve) as url,
        collecting(exchange, block_name, **settings_of(exchange, ws_url=url)) as (collector, _),
    ):
        until(lambda: stream_of(collector).lost)
        (reason,) = {record.message for record in caplog.records if "connection of 6 symbols ended" in record.message}
        assert "the server ended the connection without closing it" in reason


def test_a_failure_that_nobody_foresaw_is_not_the_last_attempt(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(exchange.base_url.rsplit(":", 1)[1])
    resolve(monkeypatch, ALIVE)
    resolved, failed = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host == HOST and not failed.is_set():
            failed.set()
            raise LookupError("unknown encoding: idna")  # As where the codec's file cannot be opened.
        return resolved(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with streaming(exchange, block_name, ws_url=f"ws://{HOST}:{port}/spot"):
        assert failed.is_set()
        assert any("LookupError: unknown encoding: idna" in record.message for record in caplog.records)


def test_a_stop_amid_a_handshake_announces_no_other_attempt(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    connected = threading.Event()

    def serve(connection: socket.socket) -> None:
        connected.set()
        while connection.recv(1000):
            pass

    with raw_host(serve) as url, collecting(exchange, block_name, **settings_of(exchange, ws_url=url)):
        assert connected.wait(DEADLINE_SECONDS)
        time.sleep(0.3)  # The stream thread has the socket by now.
    assert not any("reconnecting" in record.message for record in caplog.records)


def test_a_path_that_works_again_is_found_beside_a_connection_that_it_left_silent(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candleshm.stream.paths.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("candleshm.stream.paths.SILENT_SECONDS_MAX", 4.0)
    exchange.stream_faults.add(StreamFault(kind="deaf"))
    changes = {"market": "UM", "interval": "1m", "symbols": ["BTCUSDT", "ETHUSDT", "XRPUSDT"]}
    with collecting(exchange, block_name, **settings_of(exchange, **changes)) as (collector, _):
        until(lambda: stream_of(collector).path_moves >= 3)
        exchange.stream_faults.clear()  # The second path of UM, the old one, stays silent.
        flows(collector)
        assert "/market/" in stream_of(collector).path


@pytest.mark.parametrize(
    ("scheme", "speaks", "reason"),
    [
        ("wss", b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not TLS"),
        ("ws", b"\x15\x03\x01\x00\x02\x02\x46", "the response is not HTTP"),
    ],
)
def test_a_host_that_speaks_another_protocol_is_named_as_such(
    scheme: str, speaks: bytes, reason: str, block_name: str
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(speaks)
        while connection.recv(1000):
            pass

    with raw_host(serve) as url:
        outcome = dialled(url.replace("ws://", f"{scheme}://"), block_name)
        assert reason in outcome.reason
        assert "is this the port of another service" in outcome.reason


def test_a_feed_that_waits_for_the_limit_that_another_one_met_says_so(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.stream_faults.add(StreamFault(kind="refuse", status=429))
    with collecting(exchange, block_name, **settings_of(exchange)):
        until(lambda: any("HTTP 429" in record.message for record in caplog.records))
        with collecting(exchange, f"{block_name}-other", **settings_of(exchange)):
            line = until(lambda: [record.message for record in caplog.records if "allows none" in record.message])
            assert f"{block_name}-other: 6 of 6 streams are stalled" in line[0]


def test_a_stream_whose_closes_are_all_wrong_is_corrected_and_costs_few_lines(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("candleshm.collector.repair.AUDIT_SECONDS", 0.2)
    with streaming(exchange, block_name) as (collector, _):
        exchange.stream_faults.add(StreamFault(kind="wrong", closed=True))
        until(lambda: status_of(collector).conflicts >= 60)
        for words in ("stream and REST differ", "the exchange corrected"):
            lines = [record.message for record in caplog.records if words in record.message]
            assert 1 <= len(lines) <= 7, lines


@pytest.mark.parametrize("of", ["pings", "pongs", "refusals", "parts"])
def test_a_flood_ends_its_connection_with_a_reason_and_costs_few_lines(
    of: Any, exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        caplog.set_level(logging.INFO)
        exchange.stream_faults.add(StreamFault(kind="flood", of=of))
        until(lambda: stream_of(collector).lost >= 3)
        close_seconds(feed, 2)
        assert len(caplog.records) < 60
        reasons = [record.message for record in caplog.records if "connection of 6 symbols ended" in record.message]
        assert any("without a candle" in reason or "parts" in reason or "fragment" in reason for reason in reasons)
        exchange.stream_faults.clear()
        flows(collector)
        complete(exchange, feed)


def test_a_candle_under_the_name_of_another_stream_is_refused_and_counted(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="misnamed", symbol="BTCUSDT"))
        until(lambda: stream_of(collector).refused >= 3)
        assert_true(exchange, feed)
        assert stream_of(collector).conflicts == 0
        exchange.stream_faults.clear()
        complete(exchange, feed)


@pytest.mark.long
def test_one_symbol_that_stays_stalled_does_not_cost_the_others_their_connection(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("candleshm.stream.lane.REPLACE_SECONDS", 0.5)
    monkeypatch.setattr("candleshm.stream.watchdog.RESUBSCRIBE_SECONDS", 0.2)
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="lose", symbol="ETHUSDT"))
        until(lambda: stream_of(collector).opened == 2)
        close_seconds(feed, 12)
        assert stream_of(collector).opened == 2, "one replacement was tried"
        assert (stream_of(collector).lost, stream_of(collector).stalled) == (0, ("ETHUSDT",))
        assert not any("flows again" in record.message for record in caplog.records)
        assert status_of(collector).polled == 1
        exchange.stream_faults.clear()
        flows(collector)
        assert stream_of(collector).stalled == ()


@pytest.mark.long
def test_a_stalled_host_is_one_outage_and_no_recovery(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="stall", count=1), StreamFault(kind="deaf"))
        until(lambda: len(stream_of(collector).stalled) == len(SYMBOLS))
        close_seconds(feed, 20)
        assert len(stream_of(collector).stalled) == len(SYMBOLS)
        assert not any("flows again" in record.message for record in caplog.records)
        assert 1 <= sum("streams are stalled" in record.message for record in caplog.records) <= 5
        exchange.stream_faults.clear()
        exchange.stream_rules = StreamRules()
        until(lambda: any("every stream flows again, after" in record.message for record in caplog.records))
        complete(exchange, feed)
