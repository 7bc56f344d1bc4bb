"""A collector fed by streams: real sockets, and everything that goes wrong with them. Closed rows are always true."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import requests

import candleshm
from candleshm.collector.collector import Collector
from candleshm.exchanges.base import Market, Price
from candleshm.exchanges.base import StreamRules as ClientRules
from candleshm.exchanges.binance import Binance
from candleshm.reader.feed import Feed
from candleshm.sim import Fault, SimulatedExchange, StreamFault, StreamRules
from candleshm.stream.status import StreamStatus
from tests.support.collecting import (
    DEADLINE_SECONDS,
    assert_true,
    close_seconds,
    collecting,
    config_of,
    klines,
    loaded,
    status_of,
    symbols_of,
    truth_of,
    until,
)
from tests.support.commanding import first_lines, started

LENGTH = 60
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SUSHIBTC", "BNBUSDT", "SOLUSDT", "XRPUSDT"]
NO_REST = Fault(kind="status", status=503, path="/klines")


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=8) as running:
        yield running


def settings_of(exchange: SimulatedExchange, **changes: Any) -> dict[str, Any]:
    """Return a feed of six symbols of 1s candles, by streams."""
    market = changes.get("market", "SPOT")
    settings: dict[str, Any] = {
        "interval": "1s",
        "symbols": SYMBOLS,
        "length": LENGTH,
        "ws_url": exchange.ws_url_of(market),
        "live": "ws",
    }
    return settings | changes


@contextmanager
def streaming(exchange: SimulatedExchange, name: str, **changes: Any) -> Iterator[tuple[Collector, Feed]]:
    """Run a collector fed by streams; give it and its feed once every stream flows."""
    with collecting(exchange, name, **settings_of(exchange, **changes)) as (collector, feed):
        flows(collector)
        yield collector, feed


def stream_of(collector: Collector) -> StreamStatus:
    """Return what the streams of a collector did."""
    stream = status_of(collector).stream
    assert stream is not None
    return stream


def flows(collector: Collector) -> None:
    """Wait until every symbol is kept fresh by its stream."""
    until(lambda: status_of(collector).live == "ws")


def complete(exchange: SimulatedExchange, feed: Feed) -> None:
    """Wait until no window has a gap, and every candle up to now has closed; then all of it is true."""
    close_seconds(feed, 2)
    until(lambda: not any(feed[symbol].gaps() for symbol in feed.symbols))
    assert_true(exchange, feed)


def requested_since(exchange: SimulatedExchange, count: int) -> list[str]:
    """Return the symbols of the klines requests after the first `count`."""
    return [requested["symbol"] for _, requested in klines(exchange)[count:]]


def test_flowing_streams_need_no_requests_but_audits(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        close_seconds(feed, 2)
        requested, audits = len(klines(exchange)), status_of(collector).audits
        close_seconds(feed, 6)
        status = status_of(collector)
        assert len(klines(exchange)) - requested <= status.audits - audits + 1
        assert_true(exchange, feed)
        states = [state for symbol in feed.symbols for state in feed[symbol].states(4, closed_only=True)]
        assert candleshm.RowState.VERIFIED in states
        assert (status.live, status.polled, status.errors, status.corrections) == ("ws", 0, {}, 0)
        stream = stream_of(collector)
        assert (stream.streams, stream.stalled, stream.lost, stream.faults, stream.conflicts) == (6, (), 0, 0, 0)
        assert stream.events >= 6 * 6


@pytest.mark.parametrize(
    ("market", "price"),
    [("SPOT", "trade"), ("UM", "trade"), ("CM", "trade"), ("CM", "mark"), ("CM", "index")],
)
def test_live_rows_of_every_market_grow_and_close(
    market: Market, price: Price, exchange: SimulatedExchange, block_name: str
) -> None:
    symbols = symbols_of(market, price)
    changes = {"market": market, "price": price, "interval": "1m", "symbols": symbols}
    with streaming(exchange, block_name, **changes) as (collector, feed):
        seen = set[float]()

        def grows() -> bool:
            seen.add(float(feed[symbols[0]].live[candleshm.TRADES]))
            return len(seen) >= 3

        until(grows)
        target = exchange.connections()[-1].target
        assert target.split("/stream?")[0] == {"SPOT": "/spot", "UM": "/um/market", "CM": "/cm"}[market]
        assert stream_of(collector).events > 0
        assert_true(exchange, feed)


def repaired(feed: Feed, symbol: str) -> list[np.ndarray[Any, Any]]:
    """Return the closed rows of a symbol once none between them is missing: a lost one is there after its repair."""
    rows = feed[symbol].candles(closed_only=True)
    return [rows] if (np.diff(rows[:, candleshm.OPEN_TIME_MS]) == 1000).all() else []


def test_events_lost_twice_late_and_out_of_order(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(
            StreamFault(kind="lose", rate=0.2),
            StreamFault(kind="duplicate", rate=0.2),
            StreamFault(kind="delay", rate=0.2, delay_ms=1700),
            StreamFault(kind="reorder", rate=0.2),
        )
        close_seconds(feed, 8)
        for symbol in feed.symbols:
            (rows,) = until(partial(repaired, feed, symbol))
            truth = truth_of(exchange, feed, symbol, rows[:, candleshm.OPEN_TIME_MS])
            np.testing.assert_array_equal(rows, truth)
        exchange.stream_faults.clear()
        complete(exchange, feed)
        assert stream_of(collector).stale > 0
        assert {fault for event in exchange.pushed() if (fault := event.fault)} >= {"lose", "duplicate", "delay"}


def test_closes_that_never_arrive_are_requested(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.stream_rules = StreamRules(period_ms={"SPOT": 250, "UM": 250, "CM": 250})
    with streaming(exchange, block_name) as (_, feed):
        exchange.stream_faults.add(StreamFault(kind="unclosed", symbol="ETHUSDT"))
        requested = len(klines(exchange))
        close_seconds(feed, 4)
        assert "ETHUSDT" in requested_since(exchange, requested)
        assert_true(exchange, feed)


def test_texts_that_are_no_candles(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.stream_rules = StreamRules(family=True)
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(
            StreamFault(kind="garbage", rate=0.3),
            StreamFault(kind="fragment", rate=0.4),
            StreamFault(kind="oversize", count=1),
        )
        close_seconds(feed, 5)
        until(lambda: stream_of(collector).faults)
        exchange.stream_faults.clear()
        complete(exchange, feed)


def test_a_reset_in_the_middle_of_candles(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        for _ in range(3):
            exchange.stream_faults.add(StreamFault(kind="reset", count=1))
            lost = stream_of(collector).lost
            until(partial(lambda before: stream_of(collector).lost > before, lost))
            close_seconds(feed, 1)
        flows(collector)
        complete(exchange, feed)


def test_requests_take_over_while_all_streams_are_down_and_give_way(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="refuse"), StreamFault(kind="reset", count=1))
        until(lambda: status_of(collector).live == "rest")
        requested = len(klines(exchange))
        close_seconds(feed, 4)
        assert set(requested_since(exchange, requested)) == set(SYMBOLS)
        assert max(feed[symbol].age for symbol in SYMBOLS) < DEADLINE_SECONDS
        exchange.stream_faults.clear()
        flows(collector)
        complete(exchange, feed)


def test_an_outage_longer_than_the_ring(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name, length=5) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="refuse"), StreamFault(kind="reset", count=1))
        exchange.faults.add(NO_REST)
        until(lambda: status_of(collector).live == "rest")
        before = feed["BTCUSDT"].last_open_time_ms
        time.sleep(7.5)
        assert feed["BTCUSDT"].last_open_time_ms == before
        exchange.stream_faults.clear()
        exchange.faults.clear()
        flows(collector)
        complete(exchange, feed)


class ShortLived(Binance):
    """Binance, were its connections to end after seconds."""

    def stream_rules(self, interval: str) -> ClientRules:
        """Return the rules, with a short life."""
        return replace(super().stream_rules(interval), life_seconds=3.0)


def test_a_new_connection_takes_over_before_the_old_one_ends(exchange: SimulatedExchange, block_name: str) -> None:
    settings = settings_of(exchange)
    binance = ShortLived("SPOT", base_url=exchange.base_url, ws_url=settings["ws_url"])
    with (
        Collector(config_of(exchange, block_name, **settings), exchange=binance) as collector,
        loaded(collector) as feed,
    ):
        flows(collector)
        close_seconds(feed, 2)
        requested, audits = len(klines(exchange)), status_of(collector).audits
        until(lambda: stream_of(collector).opened >= 3)
        close_seconds(feed, 1)
        assert stream_of(collector).lost == 0
        assert len(klines(exchange)) - requested <= status_of(collector).audits - audits + 1
        complete(exchange, feed)
        assert sum(connection.closed_ms is None for connection in exchange.connections()) <= 2


def test_a_connection_cut_at_the_end_of_its_life(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.stream_rules = StreamRules(life_ms=2500)
    with streaming(exchange, block_name) as (collector, feed):
        until(lambda: stream_of(collector).lost >= 2)
        complete(exchange, feed)


def test_a_server_that_shuts_down_is_left_before_it_ends(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="shutdown", count=1, delay_ms=20_000))
        until(lambda: stream_of(collector).opened >= 2)
        until(lambda: exchange.connections()[0].closed_ms is not None)
        assert stream_of(collector).lost == 0
        complete(exchange, feed)


def test_stalled_streams_are_requested_by_rest_reported_and_resubscribed(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        for symbol in ("ETHUSDT", "SOLUSDT"):
            exchange.stream_faults.add(StreamFault(kind="mute", symbol=symbol, count=1))
        until(lambda: stream_of(collector).stalled == ("ETHUSDT", "SOLUSDT"))
        until(lambda: status_of(collector).polled == 2)
        assert status_of(collector).live == "ws+rest"
        requested = len(klines(exchange))
        close_seconds(feed, 2)
        assert set(requested_since(exchange, requested)) >= {"ETHUSDT", "SOLUSDT"}
        stalled = [record.message for record in caplog.records if "stalled" in record.message]
        assert all(any(symbol in message for message in stalled) for symbol in ("ETHUSDT", "SOLUSDT"))
        flows(collector)
        assert stream_of(collector).stalled == ()
        complete(exchange, feed)


def test_a_connection_that_acknowledges_and_sends_nothing_is_replaced(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.stream_faults.add(StreamFault(kind="deaf", count=1))
    with collecting(exchange, block_name, **settings_of(exchange)) as (collector, feed):
        until(lambda: stream_of(collector).opened == 2)
        close_seconds(feed, 2)
        flows(collector)
        assert any("6 of 6 streams are stalled" in record.message for record in caplog.records)
        complete(exchange, feed)


def test_a_half_open_connection_is_given_up(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name) as (collector, feed):
        exchange.stream_faults.add(StreamFault(kind="stall", count=1))
        until(lambda: stream_of(collector).opened == 2)
        flows(collector)
        complete(exchange, feed)


def test_more_symbols_than_a_connection_carries_and_what_comes_and_goes(
    exchange: SimulatedExchange, block_name: str
) -> None:
    class Narrow(Binance):
        def stream_rules(self, interval: str) -> ClientRules:
            return replace(super().stream_rules(interval), streams_max=4)

    settings = settings_of(exchange, spare_symbols=4)
    binance = Narrow("SPOT", base_url=exchange.base_url, ws_url=settings["ws_url"])
    with (
        Collector(config_of(exchange, block_name, **settings), exchange=binance) as collector,
        loaded(collector) as feed,
    ):
        flows(collector)
        assert sorted(len(connection.streams) for connection in exchange.connections()) == [2, 4]
        collector.add_symbols(["LINKUSDT"])
        until(lambda: stream_of(collector).streams == 7)
        flows(collector)
        collector.remove_symbols(["BTCUSDT"])
        until(lambda: stream_of(collector).streams == 6)
        until(lambda: [len(connection.streams) for connection in exchange.connections()] == [3, 3])
        close_seconds(feed, 2, [*SYMBOLS[1:], "LINKUSDT"])
        assert_true(exchange, feed)


def test_a_new_listing_streams_before_a_response_would_have_arrived(
    exchange: SimulatedExchange, block_name: str
) -> None:
    listed_ms = exchange.now_ms() + 3000
    item = replace(exchange.truth.instrument("SPOT", "NEWUSDT"), symbol="FRESHUSDT", base="FRESH", listed_ms=listed_ms)
    exchange.truth.enlist(item)
    changes = {"symbols": [*SYMBOLS[:2], "FRESHUSDT"], "interval": "1m"}
    with collecting(exchange, block_name, **settings_of(exchange, **changes)) as (collector, feed):
        until(lambda: feed["FRESHUSDT"].last_open_time_ms is not None)
        flows(collector)
        assert stream_of(collector).streams == 3


def test_closed_rows_are_audited(exchange: SimulatedExchange, block_name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("candleshm.collector.repair.AUDIT_SECONDS", 0.2)
    with streaming(exchange, block_name) as (collector, feed):
        until(lambda: status_of(collector).audits >= 5)
        rows = status_of(collector).audit_rows
        assert rows["equal"] > 0
        assert (rows["corrected"], rows["missing"]) == (0, 0)
        # A wrong close that the trade ids do not give away is found by audits alone.
        exchange.stream_faults.add(StreamFault(kind="wrong", symbol="BTCUSDT", count=3))
        until(lambda: feed["BTCUSDT"].revision >= 3)
        complete(exchange, feed)
        assert status_of(collector).conflicts >= 3
        assert status_of(collector).audit_rows["corrected"] >= 3


def test_auto_means_streams_where_they_are_possible(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, block_name, **settings_of(exchange, live="auto", ws_url=None)) as (collector, _):
        assert status_of(collector).stream is None
        assert status_of(collector).live == "rest"
    with collecting(exchange, block_name, **settings_of(exchange, live="auto")) as (collector, _):
        flows(collector)
    with collecting(exchange, block_name, **settings_of(exchange, live="rest")) as (collector, _):
        assert status_of(collector).stream is None


def test_streams_need_no_extra(exchange: SimulatedExchange, block_name: str) -> None:
    settings = settings_of(exchange) | {"name": block_name, "base_url": exchange.base_url, "market": "SPOT"}
    code = f"""if True:
        import sys, time
        import candleshm
        assert "websockets" not in sys.modules
        sys.modules["websockets"] = None
        with candleshm.Collector(candleshm.CollectorConfig(**{settings!r})) as collector:
            while collector.status().live != "ws":
                time.sleep(0.05)
        """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_SECONDS)


def test_stopping_ends_the_connections(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming(exchange, block_name):
        pass
    until(lambda: all(connection.closed_ms is not None for connection in exchange.connections()))
    assert candleshm.blocks() is not None


def test_serve_follows_streams_and_publishes_what_they_do(exchange: SimulatedExchange, block_name: str) -> None:
    flags = {
        "--market": "spot",
        "--symbols": "BTCUSDT,ETHUSDT",
        "--interval": "1s",
        "--length": "30",
        "--name": block_name,
        "--base-url": exchange.base_url,
        "--ws-url": exchange.ws_url_of("SPOT"),
        "--live": "ws",
        "--metrics": "0",
    }
    with started("serve", *[word for pair in flags.items() for word in pair]) as process:
        url = first_lines(process, 2)[-1].removeprefix("metrics: ").strip()
        with candleshm.attach(block_name) as feed:
            close_seconds(feed, 3)

            def shown() -> dict[str, float]:
                lines = [line for line in requests.get(url, timeout=10).text.splitlines() if block_name in line]
                names = [line.split("{")[0] + line.partition(",")[2].split("}")[0] for line in lines]
                return dict(zip(names, (float(line.split()[-1]) for line in lines), strict=True))

            until(lambda: shown()["candleshm_stream_symbols"] == 2 and shown()["candleshm_polled_symbols"] == 0)
            until(
                lambda: shown()["candleshm_stream_events_total"] >= 3 and shown()["candleshm_stream_connections"] == 1
            )
            values = shown()
            assert values['candleshm_audit_rows_totalresult="corrected"'] == 0
            assert values['candleshm_reconciled_rows_totalresult="conflict_in_response"'] == 0
            assert_true(exchange, feed)


@pytest.mark.parametrize("step_ms", [2400, -2400])
def test_a_clock_set_at_the_exchange_leaves_no_row_behind(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    monkeypatch.setattr("candleshm.collector.repair.AUDIT_SECONDS", 1e6)  # an audit would find them by chance
    with streaming(exchange, block_name, interval="1s") as (_, feed):
        exchange.skew_ms = step_ms
        after_ms = exchange.now_ms() + 5000
        for symbol in feed.symbols:
            until(lambda: feed[symbol].view(1).open_time_ms[-1] > after_ms)  # noqa: B023
        complete(exchange, feed)
