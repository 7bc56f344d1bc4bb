"""Continuous contracts: requests, streams, the roll, and what a feed says about it; against the simulated exchange."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import KlineRequest, Market
from candleshm.exchanges.binance import Binance
from candleshm.exchanges.continuous import contract_name, roll_before_ms
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from tests.support.collecting import (
    MINUTE,
    WorldClock,
    assert_true,
    close_seconds,
    collecting,
    config_of,
    loaded,
    status_of,
    until,
)

HOUR = 60 * MINUTE
# Ten minutes before a roll: the contracts of March are delivered on the last Friday at 08:00 UTC.
ROLL_MS = int(datetime(2026, 3, 27, 8, tzinfo=UTC).timestamp() * 1000)
ROLL = datetime(2026, 3, 27, 8, tzinfo=UTC)
PAIRS: dict[Market, str] = {"UM": "BTCUSDT", "CM": "BTCUSD"}


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=5) as running:
        yield running


def kinds_of(market: Market) -> list[str]:
    pair = PAIRS[market]
    return [f"{pair}:PERPETUAL", f"{pair}:CURRENT_QUARTER", f"{pair}:NEXT_QUARTER"]


@pytest.mark.parametrize("market", ["UM", "CM"])
def test_requests_and_streams_name_pair_and_kind(market: Market) -> None:
    pair = PAIRS[market]
    rules = Binance(market)
    url = rules.klines_url(rules.newest(f"{pair}:CURRENT_QUARTER", "1m", 5))
    assert url.endswith(f"/continuousKlines?pair={pair}&contractType=CURRENT_QUARTER&interval=1m&limit=5")
    assert rules.stream_name(f"{pair}:CURRENT_QUARTER", "1m") == f"{pair.lower()}_current_quarter@continuousKline_1m"
    assert "/klines?symbol=" in rules.klines_url(KlineRequest(pair, "1m", 5, 1))
    assert ("1s" in rules.continuous_intervals) == (market == "UM")
    assert "1s" not in rules.intervals


@pytest.mark.parametrize(
    ("market", "name", "words"),
    [
        ("SPOT", "BTCUSDT:PERPETUAL", "SPOT, which has no contracts"),
        ("UM", "BTCUSDT:FOREVER", "PERPETUAL | CURRENT_QUARTER | NEXT_QUARTER | TRADIFI_PERPETUAL"),
        ("UM", ":PERPETUAL", "a pair, a colon"),
        ("CM", "BTCUSD:TRADIFI_PERPETUAL", "PERPETUAL | CURRENT_QUARTER | NEXT_QUARTER"),
    ],
)
def test_a_kind_that_does_not_exist_is_refused_with_the_choices(market: Market, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        CollectorConfig(market=market, symbols=[name])
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="price trade only"):
        CollectorConfig(market="UM", price="mark", symbols=["BTCUSDT:PERPETUAL"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("XRPUSDT:NEXT_QUARTER", "XRPUSDT has no contract of kind NEXT_QUARTER, only: PERPETUAL"),
        ("BTCUSDTT:PERPETUAL", "no pair BTCUSDTT has contracts; did you mean BTCUSDT:PERPETUAL?"),
    ],
)
def test_a_pair_without_such_a_contract_is_refused_with_the_choices(
    exchange: SimulatedExchange, block_name: str, name: str, words: str
) -> None:
    config = config_of(exchange, block_name, market="UM", symbols=[name])
    with pytest.raises(ConfigError, match=re.escape(words)), Collector(config):
        pass


@pytest.mark.parametrize(
    ("market", "symbols", "words"),
    [
        ("UM", ["BTCUSDT"], "`1s` of continuous contracts only"),
        ("UM", ["BTCUSDT:PERPETUAL", "BTCUSDT"], "`1s` of continuous contracts only"),
        ("UM", "all", "`1s` of continuous contracts only"),
        ("CM", ["BTCUSD:PERPETUAL"], "CM has: 1m"),
    ],
)
def test_seconds_are_of_continuous_contracts_of_um_alone(market: Market, symbols: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Collector(CollectorConfig(market=market, symbols=symbols, interval="1s"))


def test_seconds_of_a_continuous_contract_by_streams(exchange: SimulatedExchange, block_name: str) -> None:
    settings: dict[str, Any] = {"market": "UM", "interval": "1s", "live": "ws", "length": 60}
    names = ["BTCUSDT:PERPETUAL", "ETHUSDT:CURRENT_QUARTER"]
    with collecting(exchange, block_name, symbols=names, ws_url=exchange.ws_url, **settings) as (collector, feed):
        until(lambda: status_of(collector).live == "ws")
        close_seconds(feed, 3)
        assert_true(exchange, feed)
        with pytest.raises(ConfigError, match="of continuous contracts only"):
            collector.add_symbols(["XRPUSDT"])
        with pytest.raises(ConfigError, match="a pair, a colon"):
            collector.add_symbols(["XRPUSDT:SOON"])


@pytest.mark.parametrize("market", ["UM", "CM"])
def test_continuous_contracts_beside_plain_symbols_in_one_feed(
    exchange: SimulatedExchange, block_name: str, market: Market
) -> None:
    plain = "BTCUSDT" if market == "UM" else "BTCUSD_PERP"
    names = [plain, *kinds_of(market)]
    changes: dict[str, Any] = {"market": market, "symbols": names, "live": "ws", "derive": ["5m"]}
    with collecting(exchange, block_name, ws_url=exchange.ws_url, **changes) as (collector, feed):
        assert feed.symbols == tuple(names)
        until(lambda: status_of(collector).live == "ws")
        assert_true(exchange, feed)
        pair = PAIRS[market]
        assert set(feed.contracts) == set(names[1:])
        perpetual = feed.contracts[f"{pair}:PERPETUAL"]
        assert (perpetual.symbol, perpetual.rolled_at, perpetual.delivered_at) == (plain, None, None)
        current, following = (feed.contracts[name] for name in names[2:])
        listed = exchange.truth.instruments(market, exchange.now_ms())
        assert {current.symbol, following.symbol} < {item.symbol for item in listed}
        assert current.delivered_at is not None
        assert following.delivered_at is not None
        assert current.rolled_at == following.rolled_at
        assert current.rolled_at is not None
        assert current.rolled_at < datetime.now(tz=UTC) < current.delivered_at < following.delivered_at
        status = status_of(collector)
        assert (status.conflicts, status.refused) == (0, 0)
        with candleshm.attach(collector.config.block_names[1]) as derived:
            assert derived.contracts == feed.contracts


def test_ids_that_are_not_those_of_trades_neither_prove_nor_accuse(
    exchange: SimulatedExchange, block_name: str
) -> None:
    changes: dict[str, Any] = {"market": "UM", "interval": "1s", "live": "ws", "length": 60}
    names = ["BTCUSDT:PERPETUAL"]
    with collecting(exchange, block_name, symbols=names, ws_url=exchange.ws_url, **changes) as (collector, feed):
        until(lambda: status_of(collector).live == "ws")
        close_seconds(feed, 2)
        requests = exchange.stats().count("/continuousKlines", "BTCUSDT")
        close_seconds(feed, 8)
        assert exchange.stats().count("/continuousKlines", "BTCUSDT") - requests <= 2, "audits, and nothing repaired"


@pytest.mark.parametrize("market", ["UM", "CM"])
def test_the_roll_is_in_the_rows_and_in_the_feed(block_name: str, market: Market) -> None:
    clock = WorldClock(ROLL_MS - 10 * MINUTE)
    pair, names = PAIRS[market], kinds_of(market)
    before = {
        f"{pair}:CURRENT_QUARTER": f"{pair}_260327",
        f"{pair}:NEXT_QUARTER": f"{pair}_260626",
    }
    after = {
        f"{pair}:CURRENT_QUARTER": f"{pair}_260626",
        f"{pair}:NEXT_QUARTER": f"{pair}_260925",
    }
    changes: dict[str, Any] = {"market": market, "symbols": names, "live": "rest", "update_interval_seconds": 3.0}
    with SimulatedExchange(symbols=3, clock_ms=clock) as exchange:
        with collecting(exchange, block_name, clock=clock, **changes) as (collector, feed):
            assert {name: feed.contracts[name].symbol for name in before} == before
            assert feed.contracts[names[1]].delivered_at == ROLL
            assert feed.contracts[names[1]].rolled_at == datetime(2025, 12, 26, 8, tzinfo=UTC)
            clock.let_pass(collector, 10 * 60 + 60)
            assert {name: feed.contracts[name].symbol for name in after} == after
            assert {feed.contracts[name].rolled_at for name in after} == {ROLL}
            assert feed.contracts[names[0]].rolled_at is None
            clock.let_pass(collector, 60)
            assert status_of(collector).not_trading == ()
            assert_true(exchange, feed)
            newest_ms = int(feed[names[1]].candles(closed_only=True)[-1, 0])
            assert newest_ms >= ROLL_MS
            assert feed.wait_closed(newest_ms, timeout=0).symbols == tuple(names)
        # A restart knows it by the calendar of the exchange, with nothing left of the run before.
        with collecting(exchange, block_name, clock=clock, **changes) as (collector, feed):
            assert {name: feed.contracts[name].symbol for name in after} == after
            assert {feed.contracts[name].rolled_at for name in after} == {ROLL}
            assert_true(exchange, feed)


def test_rolls_by_the_calendar() -> None:
    days = ["2025-12-26", "2026-03-27", "2026-06-26", "2026-09-25"]
    at_ms = [int(datetime.fromisoformat(f"{day}T08:00Z").timestamp() * 1000) for day in days]
    for before_ms, end_ms in pairwise(at_ms):
        assert roll_before_ms("CURRENT_QUARTER", end_ms) == before_ms
    assert roll_before_ms("NEXT_QUARTER", at_ms[2]) == at_ms[0]
    for kind, delivery_ms in (("CURRENT_QUARTER", at_ms[1] + HOUR), ("PERPETUAL", 0), ("CURRENT_MONTH", at_ms[1])):
        assert roll_before_ms(kind, delivery_ms) is None
    assert contract_name("UM", "BTCUSDT", at_ms[1]) == "BTCUSDT_260327"
    assert contract_name("CM", "BTCUSD", 0) == "BTCUSD_PERP"


def test_a_take_over_keeps_the_contracts(exchange: SimulatedExchange, block_name: str) -> None:
    """The collector is killed; its successor takes the block over, and readers that stay attached see no gap."""
    names = ["BTCUSDT", "BTCUSDT:CURRENT_QUARTER"]
    command = [sys.executable, "-m", "candleshm", "serve", "--market", "UM", "--symbols", ",".join(names)]
    command += ["--name", block_name, "--length", "60", "--base-url", exchange.base_url, "--live", "rest"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        feed: Feed = candleshm.attach(block_name, timeout=60.0)
        feed.wait_ready(60.0)
        contracts = dict(feed.contracts)
        assert set(contracts) == {names[1]}
        os.kill(process.pid, signal.SIGKILL)
    assert feed.contracts == contracts, "the words stay readable"
    config = config_of(exchange, block_name, market="UM", symbols=names, length=60, live="rest")
    with Collector(config) as collector, loaded(collector) as successor:
        assert successor.contracts == contracts
        assert_true(exchange, successor)
        assert feed.contracts == contracts
    feed.close()
