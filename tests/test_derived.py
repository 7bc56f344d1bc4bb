"""Derived blocks of a real collector against the simulated exchange's own candles of those intervals."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.collector.supervisor import Supervisor
from candleshm.columns import CLOSE, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME, TRADES, VOLUME
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Market, Price
from candleshm.reader.feed import Feed
from candleshm.sim import Outage, SimulatedExchange
from candleshm.sim.world.universe import utc_ms
from tests.support.collecting import DEADLINE_SECONDS, KINDS, MINUTE, collecting, truth_of, until
from tests.support.commanding import complaint, first_lines, serving, started


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def assert_true(exchange: SimulatedExchange, feed: Feed, *, at_least: int) -> None:
    """Every closed row is the exchange's candle: bit for bit, quote volumes within 2 units in the last place."""
    for symbol in feed.symbols:
        rows = feed[symbol].candles(closed_only=True)
        assert len(rows) >= at_least
        truth = truth_of(exchange, feed, symbol, rows[:, OPEN_TIME_MS])
        for column in range(12):
            if column in (QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME):
                np.testing.assert_array_max_ulp(rows[:, column], truth[:, column], maxulp=2)
            else:
                np.testing.assert_array_equal(rows[:, column], truth[:, column])


def same_close(derived: candleshm.Series, source: candleshm.Series) -> bool:
    """Say whether the live candle follows its source."""
    return derived.last_close == source.last_close


def has_holes(feed: Feed, count: int) -> bool:
    """Say whether the block counts so many holes."""
    return feed.health.holes == count


@pytest.mark.parametrize(("market", "price"), KINDS)
def test_every_closed_row_is_the_exchanges_own(
    exchange: SimulatedExchange, block_name: str, market: Market, price: Price
) -> None:
    intervals = {"3m": 500, "5m": 300, "15m": 100, "30m": 50, "1h": 24, "2h": 12, "4h": 5, "6h": 3, "8h": 2, "12h": 1}
    # Years of candles take the simulated exchange longer than a request may take.
    derive = [f"{interval}:{intervals.get(interval, 0) + 20}" for interval in (*intervals, "1d")]
    changes: dict[str, Any] = {"market": market, "price": price, "length": 1600, "derive": derive}
    with collecting(exchange, block_name, **changes) as (_, source):
        for interval, at_least in intervals.items():
            with candleshm.attach(f"{block_name}-{interval}") as feed:
                assert (feed.interval, feed.market, feed.price) == (interval, market, price)
                assert feed.symbols == source.symbols
                assert_true(exchange, feed, at_least=at_least)
                assert all(feed[symbol].gaps() == [] for symbol in feed.symbols)
                assert feed.health.ready
                for symbol in feed.symbols:
                    until(partial(same_close, feed[symbol], source[symbol]))


def test_a_derived_block_has_a_length_of_its_own(exchange: SimulatedExchange, block_name: str) -> None:
    """Shorter than the rows of its source make, and longer than these: the exchange has the others."""
    derive = ["5m:30", "15m:5000", "1h"]
    with collecting(exchange, block_name, length=600, derive=derive):
        for interval, length in (("5m", 30), ("15m", 5000), ("1h", 600)):
            with candleshm.attach(f"{block_name}-{interval}") as feed:
                assert feed.length == length
                assert_true(exchange, feed, at_least=length)
                for symbol in feed.symbols:
                    assert len(feed[symbol].candles()) == length
                    assert feed[symbol].gaps() == []


def test_an_outage_leaves_holes_and_cut_candles(block_name: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    start_ms = now_ms // (60 * MINUTE) * 60 * MINUTE - 6 * 60 * MINUTE
    with SimulatedExchange(symbols=4) as exchange:
        exchange.truth.add_outage(
            Outage(start_ms=start_ms + 7 * MINUTE + 12_345, end_ms=start_ms + 150 * MINUTE, cut_close=True,
                   off_grid_ms=4_789, off_grid_until_ms=start_ms + 200 * MINUTE)
        )  # fmt: skip
        with collecting(exchange, block_name, length=600, derive=["5m", "1h"]):
            for interval, holes in (("5m", 28), ("1h", 1)):
                with candleshm.attach(f"{block_name}-{interval}") as feed:
                    until(partial(has_holes, feed, holes * len(feed)))
                    assert feed.health.missing == 0
                    assert_true(exchange, feed, at_least=6)
                    kinds = {gap.kind for symbol in feed.symbols for gap in feed[symbol].gaps()}
                    assert kinds == {"hole"}


def test_candles_close_live_in_every_block_before_the_source_says_so(block_name: str) -> None:
    skew_ms = 50_000 - time.time_ns() // 1_000_000 % MINUTE
    with (
        SimulatedExchange(symbols=4, skew_ms=skew_ms) as exchange,
        collecting(exchange, block_name, interval="1s", length=200, derive=["1m", "3m"]) as (_, source),
        candleshm.attach(f"{block_name}-1m") as minutes,
    ):
        open_ms = source["BTCUSDT"].last_open_time_ms
        assert open_ms is not None
        minute_ms = open_ms // MINUTE * MINUTE
        last_second_ms = minute_ms + MINUTE - 1000
        before = minutes["BTCUSDT"].states(1).tolist()
        assert before == [1]
        source.wait_closed(last_second_ms, timeout=DEADLINE_SECONDS)
        closed = minutes.wait_closed(minute_ms, timeout=0)
        assert set(closed.symbols) == set(source.symbols)
        assert_true(exchange, minutes, at_least=2)
        for symbol in minutes.symbols:
            assert minutes[symbol].age < 5


def test_days_of_a_time_zone_and_its_long_day(block_name: str) -> None:
    started_seconds = time.monotonic()
    # New York's clocks went back on 2025-11-02; that day ended at 05:00 UTC.
    begin_ms, end_ms = utc_ms("2025-11-02T04:00"), utc_ms("2025-11-03T05:00")

    def clock_ms() -> int:
        return end_ms - 8_000 + round((time.monotonic() - started_seconds) * 1000)

    with (
        SimulatedExchange(symbols=4, clock_ms=clock_ms) as exchange,
        collecting(exchange, block_name, length=3100, derive=["1d@America/New_York:30", "1d@Asia/Shanghai:30"]),
        candleshm.attach(f"{block_name}-1d-America-New_York") as feed,
    ):
        assert feed.interval == "1d@America/New_York"
        feed.wait_closed(begin_ms, timeout=DEADLINE_SECONDS)
        for symbol in feed.symbols:
            long_day = feed[symbol].candles(closed_only=True)[-1]
            minutes = exchange.truth.klines("SPOT", symbol, "1m", begin_ms, end_ms)
            assert len(minutes) == 25 * 60
            traded = [row for row in minutes if row[TRADES] > 0]
            assert long_day[[OPEN_TIME_MS, OPEN, HIGH, LOW, CLOSE, VOLUME, 6, TRADES]].tolist() == [
                begin_ms,
                float(traded[0][OPEN]),
                max(float(row[HIGH]) for row in traded),
                min(float(row[LOW]) for row in traded),
                float(minutes[-1][CLOSE]),
                float(sum(Decimal(row[VOLUME]) for row in minutes)),
                end_ms - 1,
                sum(row[TRADES] for row in minutes),
            ]
        panel = feed.panel("close", n=1)
        assert panel.open_time_ms.tolist() == [begin_ms]
        # Shanghai has no summer time: the exchange knows these days.
        with candleshm.attach(f"{block_name}-1d-Asia-Shanghai") as shanghai:
            rows = shanghai["BTCUSDT"].candles(closed_only=True)
            grid = exchange.truth.grid("SPOT", "BTCUSDT", "1d", 8 * 60 * MINUTE)
            first_ms, last_ms = int(rows[0, 0]), int(rows[-1, 0])
            sent = exchange.truth.texts("SPOT", "BTCUSDT", grid, first_ms, last_ms + 1, None)
            assert [open_ms for open_ms, _ in sent] == rows[:, OPEN_TIME_MS].tolist()
            assert repr(shanghai["BTCUSDT"]) == f"<Series SPOT BTCUSDT 1d@Asia/Shanghai of {shanghai.name}>"


def test_a_collector_killed_with_9_leaves_its_derived_rows_to_the_next_one(
    exchange: SimulatedExchange, block_name: str
) -> None:
    words = serving(exchange, block_name, "--derive", "5m,1h")
    with started(*words) as first:
        assert first_lines(first, 3)[1:] == [
            f'serving {name}: candleshm.attach("{name}")\n' for name in (f"{block_name}-5m", f"{block_name}-1h")
        ]
        with candleshm.attach(f"{block_name}-5m") as feed:
            until(lambda: feed.health.ready)
            before = feed["BTCUSDT"].candles(closed_only=True)
            first.send_signal(signal.SIGKILL)
            first.wait()
            asked = exchange.stats().count("/klines")
            assert len(before) > 50
            with started(*words) as second:
                first_lines(second, 3)
                until(lambda: feed.health.pid == second.pid and feed.health.ready)
                assert feed["BTCUSDT"].candles(closed_only=True)[: len(before)].tolist() == before.tolist()
                assert exchange.stats().count("/klines") > asked
                assert_true(exchange, feed, at_least=50)
                second.send_signal(signal.SIGTERM)
                second.wait(DEADLINE_SECONDS)
    assert block_name not in " ".join(health.name for health in candleshm.blocks()), "a clean stop removes all"


def test_symbols_come_and_go_in_derived_blocks_too(exchange: SimulatedExchange, block_name: str) -> None:
    symbols = ["BTCUSDT", "ETHUSDT"]
    with (
        collecting(exchange, block_name, symbols=symbols, length=300, derive=["5m"]) as (collector, source),
        candleshm.attach(f"{block_name}-5m") as feed,
    ):
        # No place is spare: larger blocks take the place of both.
        collector.add_symbols(["SUSHIBTC"])
        until(lambda: "SUSHIBTC" in feed and "SUSHIBTC" in source)
        until(lambda: all(len(feed[symbol].candles(closed_only=True)) > 50 for symbol in feed.symbols))
        assert_true(exchange, feed, at_least=50)
        collector.remove_symbols(["ETHUSDT"])
        with (
            candleshm.attach(feed.name, max_age=3600.0) as strict,
            pytest.raises(candleshm.StaleData, match="no longer trades"),
        ):
            until(lambda: len(strict["ETHUSDT"].candles()) == 0)


def test_names_and_what_cannot_be() -> None:
    config = CollectorConfig(market="SPOT", derive=["5m", "1d@Asia/Shanghai"])
    assert [(block.name, block.interval) for block in config.derived] == [
        ("candleshm-spot-5m", "5m"),
        ("candleshm-spot-1d-Asia-Shanghai", "1d@Asia/Shanghai"),
    ]
    for changes, text in (
        ({"derive": "5m"}, "derive cannot be `5m`; allowed: a list"),
        ({"derive": ["1m"]}, "derive cannot be `1m`: 1m candles cannot be combined"),
        ({"derive": ["3d"]}, "derive cannot be `3d`: each symbol has a grid of its own"),
        ({"derive": ["1d@Nowhere/Town"]}, "derive cannot be `1d@Nowhere/Town`: interval must be one of"),
        ({"derive": ["1w"]}, "derive cannot be `1w` with length `2880`: .* a length of 10080"),
    ):
        with pytest.raises(ConfigError, match=text):
            CollectorConfig(market="SPOT", **changes)
    with pytest.raises(ConfigError, match="two blocks have the name `candleshm-spot-5m`"):
        Supervisor([config, CollectorConfig(market="SPOT", interval="5m")])


def test_a_name_that_is_taken_ends_the_start_with_nothing_left(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, f"{block_name}-5m"):
        said = complaint(*serving(exchange, block_name, "--derive", "5m"))
        assert f"{block_name}-5m" in said
        assert block_name not in [health.name for health in candleshm.blocks()]
