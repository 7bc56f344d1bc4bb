"""Symbols come and go while the collector runs, and what strategies read of the others stays true and fresh."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import candleshm
from candleshm.errors import ConfigError, StaleData
from candleshm.sim import Fault, SimulatedExchange
from candleshm.sim.world.universe import Instrument
from tests.support.collecting import (
    CLOSED,
    DEADLINE_SECONDS,
    MINUTE,
    assert_complete_and_true,
    assert_true,
    close_seconds,
    collecting,
    klines,
    status_of,
    until,
)

REFRESH_SECONDS = 0.3
HISTORY = 100
NOTHING = Fault(kind="status", status=200, path="/exchangeInfo", body='{"symbols":[],"rateLimits":[]}')


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def enlist(exchange: SimulatedExchange, symbol: str) -> Instrument:
    """List a SPOT symbol that trades since two minutes ago."""
    listed_ms = (exchange.now_ms() // MINUTE - 2) * MINUTE
    item = replace(exchange.truth.instrument("SPOT", "NEWUSDT"), symbol=symbol, base="FRESH", listed_ms=listed_ms)
    exchange.truth.enlist(item)
    return item


def refreshes(exchange: SimulatedExchange, count: int) -> None:
    """Wait until exchangeInfo was requested `count` more times; the last response but one has been taken in then."""
    requested = exchange.stats().count("/exchangeInfo")
    until(lambda: exchange.stats().count("/exchangeInfo") >= requested + count)


def history_requests(exchange: SimulatedExchange) -> dict[str, int]:
    """Return how often a whole window was requested, by symbol."""
    counts: dict[str, int] = {}
    for _, requested in klines(exchange):
        if int(requested["limit"]) > HISTORY:
            counts[requested["symbol"]] = counts.get(requested["symbol"], 0) + 1
    return counts


def test_a_new_listing_is_served_with_the_history_it_has_and_nothing_else_is_loaded_again(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(
        exchange, block_name, symbols="all", interval="1s", length=HISTORY, universe_refresh_seconds=REFRESH_SECONDS
    ) as (collector, feed):
        before = history_requests(exchange)
        listed_ms = enlist(exchange, "FRESHUSDT").listed_ms
        until(lambda: "FRESHUSDT" in feed and feed["FRESHUSDT"].last_open_time_ms)
        until(lambda: status_of(collector).ready and feed.health.missing == 0)
        close_seconds(feed, 2)
        assert "FRESHUSDT" in feed.wait_closed(timeout=DEADLINE_SECONDS).symbols
        assert int(feed["FRESHUSDT"].candles()[0, candleshm.OPEN_TIME_MS]) >= listed_ms
        assert_complete_and_true(exchange, feed)
        assert history_requests(exchange) == before | {"FRESHUSDT": 1}


def test_a_filtered_listing_is_not_added(exchange: SimulatedExchange, block_name: str) -> None:
    settings: dict[str, Any] = {"symbol_endswith": "USDT", "symbols_filter": ["BNBUSDT"], "symbol_contains": "U"}
    with collecting(exchange, block_name, symbols="all", universe_refresh_seconds=REFRESH_SECONDS, **settings) as (
        _,
        feed,
    ):
        assert feed.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT", "NEWUSDT")
        enlist(exchange, "FRESHBTC")
        enlist(exchange, "FRESHUSDT")
        until(lambda: "FRESHUSDT" in feed)
        assert "FRESHBTC" not in feed


def test_of_a_list_only_its_own_symbols_come_later_into_the_place_kept_for_them(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(
        exchange, block_name, symbols=["BTCUSDT", "SOONUSDT"], universe_refresh_seconds=REFRESH_SECONDS
    ) as (_, feed):
        assert list(feed.symbols) == ["BTCUSDT"]
        enlist(exchange, "OTHERUSDT")
        enlist(exchange, "SOONUSDT")
        until(lambda: "SOONUSDT" in feed and feed["SOONUSDT"].last_open_time_ms)
        refreshes(exchange, 2)
        assert list(feed.symbols) == ["BTCUSDT", "SOONUSDT"]
        assert history_requests(exchange) == {"BTCUSDT": 1, "SOONUSDT": 1}


@pytest.mark.long
def test_a_delisted_symbol_keeps_its_rows_is_marked_and_costs_nothing_until_it_trades_again(
    exchange: SimulatedExchange, block_name: str
) -> None:
    trading = exchange.truth.instrument("SPOT", "ETHUSDT")
    with collecting(
        exchange, block_name, interval="1s", settle_seconds=0.5, universe_refresh_seconds=REFRESH_SECONDS
    ) as (collector, feed):
        exchange.truth.delist("SPOT", "ETHUSDT", exchange.now_ms())
        until(lambda: status_of(collector).not_trading == ("ETHUSDT",))
        # Its last candle becomes final; from then on nothing is requested.
        until(lambda: feed["ETHUSDT"].states(1)[-1] >= CLOSED)
        close_seconds(feed, 2, ["BTCUSDT", "SUSHIBTC"])
        requested = exchange.stats().count("/klines", "ETHUSDT")
        close_seconds(feed, 2, ["BTCUSDT", "SUSHIBTC"])
        assert exchange.stats().count("/klines", "ETHUSDT") == requested
        assert feed.wait_closed(timeout=DEADLINE_SECONDS).symbols == ("BTCUSDT", "SUSHIBTC")
        with candleshm.attach(feed.name, max_age=3600.0) as strict, pytest.raises(StaleData, match="no longer trades"):
            strict["ETHUSDT"].candles()
        assert len(feed["ETHUSDT"].states(closed_only=True)) > HISTORY // 2

        exchange.truth.enlist(trading)
        until(lambda: not status_of(collector).not_trading)
        until(lambda: len(feed.wait_closed(timeout=DEADLINE_SECONDS).symbols) == 3)
        until(lambda: feed.health.missing == 0)
        assert_true(exchange, feed)


@pytest.mark.parametrize("body", [NOTHING.body, '{"symbols":[{"symbol":"BTCUSDT","status":"TRADING"}]}'])
def test_a_list_that_suddenly_shrinks_changes_nothing_and_is_requested_again(
    exchange: SimulatedExchange, block_name: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(exchange, block_name, interval="1s", symbols="all", universe_refresh_seconds=REFRESH_SECONDS) as (
        collector,
        feed,
    ):
        everything = feed.symbols
        exchange.faults.add(replace(NOTHING, body=body))
        refreshes(exchange, 3)
        close_seconds(feed, 2)
        assert (feed.symbols, status_of(collector).not_trading) == (everything, ())
        assert "the list is not used, and is requested again" in caplog.text

        exchange.faults.clear()
        enlist(exchange, "FRESHUSDT")
        until(lambda: "FRESHUSDT" in feed)
        assert status_of(collector).not_trading == ()
        assert status_of(collector).weight_limit == 6000


def test_symbols_are_added_and_removed_by_hand_in_the_places_that_are_kept(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(
        exchange, block_name, interval="1s", settle_seconds=0.5, symbols=["BTCUSDT", "ETHUSDT"], spare_symbols=1
    ) as (
        collector,
        feed,
    ):
        collector.add_symbols(["SUSHIBTC"])
        until(lambda: "SUSHIBTC" in feed and feed["SUSHIBTC"].last_open_time_ms)
        until(lambda: status_of(collector).loaded == 3)
        assert_complete_and_true(exchange, feed)
        assert history_requests(exchange) == {"BTCUSDT": 1, "ETHUSDT": 1, "SUSHIBTC": 1}

        collector.remove_symbols(["ETHUSDT"])
        until(lambda: status_of(collector).not_trading == ("ETHUSDT",))
        until(lambda: feed.wait_closed(timeout=DEADLINE_SECONDS).symbols == ("BTCUSDT", "SUSHIBTC"))
        requested = exchange.stats().count("/klines", "ETHUSDT")
        close_seconds(feed, 2, ["BTCUSDT", "SUSHIBTC"])
        assert exchange.stats().count("/klines", "ETHUSDT") == requested

        collector.add_symbols(["ETHUSDT"])
        until(lambda: len(feed.wait_closed(timeout=DEADLINE_SECONDS).symbols) == 3)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        with pytest.raises(ConfigError, match="symbol cannot be"):
            collector.add_symbols([""])


def test_a_full_block_is_superseded_by_a_larger_one_and_readers_follow(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(exchange, block_name, interval="1s", symbols=["BTCUSDT"]) as (collector, feed):
        series = feed["BTCUSDT"]
        kept = series.candles(closed_only=True)
        collector.add_symbols(["ETHUSDT", "SUSHIBTC"])
        until(lambda: len(feed) == 3 and feed.health.ready and feed.health.missing == 0)
        # What was there came along: only the newcomers' windows are requested.
        assert history_requests(exchange) == {"BTCUSDT": 1, "ETHUSDT": 1, "SUSHIBTC": 1}
        close_seconds(feed, 3)
        assert feed.health.state == "ready"
        assert_complete_and_true(exchange, feed)
        # The series that was held before is of the new block now.
        assert (series.last_open_time_ms or 0) > int(kept[-1, 0]) + 1000
        assert not status_of(collector).errors


_SERVE_ALL = """
import sys, threading
from candleshm.config import CollectorConfig
from candleshm.collector.collector import Collector
name, base_url = sys.argv[1:]
collector = Collector(CollectorConfig(market="SPOT", length=1200, name=name, base_url=base_url))
collector.start()
assert collector.wait_loaded(60)
sys.stdout.write("loaded\\n")
sys.stdout.flush()
threading.Event().wait()
"""


def test_a_killed_collector_is_succeeded_though_a_symbol_was_delisted_and_another_listed_meanwhile(
    exchange: SimulatedExchange, block_name: str
) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", _SERVE_ALL, block_name, exchange.base_url], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    with first.stdout:
        assert first.stdout.readline() == "loaded\n"
        first.send_signal(signal.SIGKILL)
        first.wait()
    exchange.truth.delist("SPOT", "ETHUSDT", exchange.now_ms())
    exchange.truth.remove("SPOT", "BNBUSDT")
    enlist(exchange, "FRESHUSDT")
    requested = len(klines(exchange))

    with collecting(exchange, block_name, symbols="all", length=1200) as (collector, feed):
        assert {"ETHUSDT", "BNBUSDT", "FRESHUSDT"} < set(feed.symbols)
        assert set(status_of(collector).not_trading) == {"ETHUSDT", "BNBUSDT"}
        assert len(feed["BNBUSDT"].candles(closed_only=True)) >= 1190
        assert_true(exchange, feed, [symbol for symbol in feed.symbols if symbol != "BNBUSDT"])
        pages = [page for _, page in klines(exchange)[requested:] if int(page["limit"]) > HISTORY]
        assert {page["symbol"] for page in pages} == {"FRESHUSDT"}
