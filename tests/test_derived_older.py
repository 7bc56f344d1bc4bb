"""Derived blocks filled to their LENGTH from the simulated exchange, where the source does not reach back so far."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm._core import Zone
from candleshm.collector.collector import Collector
from candleshm.columns import CLOSE, OPEN_TIME_MS, QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME
from candleshm.exchanges.base import INTERVAL_MS
from candleshm.history.day import Day, days_between
from candleshm.history.store import ParquetStore
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState
from candleshm.sim import Fault, Outage, SimulatedExchange
from candleshm.sim.world.universe import Instrument
from tests.support.collecting import MINUTE, collecting, config_of, klines, status_of, until
from tests.support.commanding import first_lines, serving, started
from tests.support.days import candles_of, written

HOUR = 60 * MINUTE
DAY = 24 * HOUR
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def older_requests(exchange: SimulatedExchange, source: str = "1m", symbol: str | None = None) -> list[dict[str, str]]:
    """Return the parameters of the requests for klines of other intervals than the source's."""
    found = [asked for _, asked in klines(exchange) if asked["interval"] != source]
    return [asked for asked in found if symbol in {None, asked["symbol"]}]


def assert_same(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> None:
    """The rows are the exchange's: bit for bit, quote volumes within 2 units in the last place."""
    assert len(found) == len(truth)
    for column in range(11):
        if column in (QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME):
            np.testing.assert_array_max_ulp(found[:, column], truth[:, column], maxulp=2)
        else:
            np.testing.assert_array_equal(found[:, column], truth[:, column])


def assert_full(exchange: SimulatedExchange, feed: Feed, symbol: str, rows: int) -> None:
    """The window of a series is full, without gaps, and its final rows are the exchange's."""
    found = feed[symbol].candles(closed_only=True)
    assert len(found) == rows
    assert feed[symbol].gaps() == []
    assert_same(found, truth_of(exchange, feed, symbol, int(found[0, 0]), int(found[-1, 0])))


def truth_of(exchange: SimulatedExchange, feed: Feed, symbol: str, first_ms: int, last_ms: int) -> Any:
    """Return the exchange's candles that open from `first_ms` to `last_ms`; of days of a zone, by their hours."""
    truth = exchange.truth
    if "@" not in feed.interval:
        return truth.floats(feed.market, symbol, feed.interval, first_ms, last_ms + 1)
    start_ms = first_ms - 2 * DAY
    hours = truth.floats(feed.market, symbol, "1h", start_ms, last_ms + 2 * DAY)
    days = candleshm.derive(hours, feed.interval, source="1h", start_ms=start_ms)
    return days[(days[:, OPEN_TIME_MS] >= first_ms) & (days[:, OPEN_TIME_MS] <= last_ms)]


@pytest.mark.parametrize(
    ("market", "symbols"), [("SPOT", SYMBOLS), ("UM", SYMBOLS), ("CM", ["BTCUSD_PERP", "ETHUSD_PERP"])]
)
def test_a_block_of_hours_is_as_full_as_its_source(
    exchange: SimulatedExchange, block_name: str, market: str, symbols: list[str]
) -> None:
    settings: dict[str, Any] = {"market": market, "symbols": symbols, "length": 2880, "derive": ["1h:2880", "1d:300"]}
    with (
        collecting(exchange, block_name, **settings) as (collector, source),
        candleshm.attach(f"{block_name}-1h") as hours,
        candleshm.attach(f"{block_name}-1d") as days,
    ):
        status = status_of(collector)
        assert (status.derived_series, status.derived_filled, status.derived_conflicts) == (4, 4, 0)
        assert hours.health.ready
        assert days.health.ready
        assert (hours.health.missing, days.health.missing) == (0, 0)
        for symbol in source.symbols:
            assert_full(exchange, hours, symbol, 2880)
            assert_full(exchange, days, symbol, 300)
            assert set(hours[symbol].states(closed_only=True)) == {RowState.CLOSED}
        requests = older_requests(exchange, symbol=symbols[0])
        asked = [request for request in requests if request["interval"] == "1h"]
        page_limit = 1000 if market == "SPOT" else 499
        assert len(asked) <= -(-2880 // (page_limit - 2))
        # The seam: the first page holds rows that were derived.
        start_ms = source[source.symbols[0]].candles()[0, 0]
        assert int(asked[0]["endTime"]) >= start_ms + 2 * HOUR
    pool = exchange.stats().pools["SPOT" if market == "SPOT" else "FUTURES"]
    assert pool.peak_60s <= pool.limit


def test_the_source_is_ready_first_and_readers_see_which_block_is_filled(
    exchange: SimulatedExchange, block_name: str
) -> None:
    exchange.faults.add(Fault(kind="hang", path="/klines", interval="1h"))
    with (
        Collector(config_of(exchange, block_name, length=300, derive=["5m", "1h:200"])) as collector,
        candleshm.attach(block_name) as source,
        candleshm.attach(f"{block_name}-1h") as hours,
    ):
        until(lambda: source.health.loaded)
        assert not collector.wait_loaded(0.0)
        assert not hours.health.ready
        until(lambda: status_of(collector).derived_missing > 3 * 190)
        assert source["BTCUSDT"].age < 10
        assert hours.health.missing > 3 * 190


def test_every_derived_interval_is_filled(exchange: SimulatedExchange, block_name: str) -> None:
    derive = ["15m:4000", "1w:100", "1M:60"]
    with collecting(exchange, block_name, symbols=["BTCUSDT"], interval="5m", length=9000, derive=derive):
        for text in derive:
            interval, _, length = text.partition(":")
            with candleshm.attach(f"{block_name}-{interval}") as feed:
                assert_full(exchange, feed, "BTCUSDT", int(length))


@pytest.mark.parametrize(
    ("zone", "part"), [("Asia/Shanghai", "1h"), ("America/New_York", "1h"), ("Asia/Kolkata", "30m")]
)
def test_days_of_a_zone_are_made_of_hours(exchange: SimulatedExchange, block_name: str, zone: str, part: str) -> None:
    name = f"{block_name}-1d-{zone.replace('/', '-')}"
    derive = [f"1d@{zone}:220"]
    with (
        collecting(exchange, block_name, symbols=["BTCUSDT"], length=2880, derive=derive),
        candleshm.attach(name) as feed,
    ):
        rows = feed["BTCUSDT"].candles(closed_only=True)
        assert len(rows) == 220
        assert feed["BTCUSDT"].gaps() == []
        minutes = exchange.truth.floats("SPOT", "BTCUSDT", part, int(rows[0, 0]), int(rows[-1, 6]) + 1)
        assert_same(rows, candleshm.derive(minutes, feed.interval, source=part))
        assert {request["interval"] for request in older_requests(exchange)} == {part}


def test_a_listing_shorter_than_the_window_ends_the_requests(exchange: SimulatedExchange, block_name: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    listed_ms = (now_ms - 300 * HOUR) // MINUTE * MINUTE
    exchange.truth.enlist(
        Instrument(
            market="SPOT", symbol="FRESHUSDT", base="FRESH", quote="USDT", price=3.0, price_decimals=4,
            lot_decimals=1, listed_ms=listed_ms,
        )
    )  # fmt: skip
    derive = ["1h:2880", "1d@Asia/Shanghai:100"]
    with (
        collecting(exchange, block_name, symbols=["FRESHUSDT"], length=2880, derive=derive) as (collector, _),
        candleshm.attach(f"{block_name}-1h") as hours,
        candleshm.attach(f"{block_name}-1d-Asia-Shanghai") as days,
    ):
        first_ms = exchange.truth.first_ms("SPOT", "FRESHUSDT")
        for feed in (hours, days):
            rows = feed["FRESHUSDT"].candles(closed_only=True)
            assert rows[0, OPEN_TIME_MS] <= first_ms < rows[0, OPEN_TIME_MS] + INTERVAL_MS[feed.interval.split("@")[0]]
            assert (feed["FRESHUSDT"].gaps(), feed.health.missing, feed.health.holes) == ([], 0, 0)
            assert_same(rows, truth_of(exchange, feed, "FRESHUSDT", int(rows[0, 0]), int(rows[-1, 0])))
            assert feed.health.ready
        assert status_of(collector).derived_filled == 2
        asked = len(older_requests(exchange))
        assert asked <= 6
        before = status_of(collector).requests
        until(lambda: status_of(collector).requests > before + 10)
        assert len(older_requests(exchange)) == asked


def test_holes_of_an_outage_are_the_same_as_in_a_block_of_its_own(block_name: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    start_ms = now_ms // HOUR * HOUR - 200 * HOUR
    with SimulatedExchange(symbols=4) as exchange:
        exchange.truth.add_outage(Outage(start_ms=start_ms + 7 * MINUTE, end_ms=start_ms + 9 * HOUR, cut_close=True))
        with (
            collecting(exchange, block_name, symbols=["BTCUSDT"], length=1600, derive=["1h:400", "1d@Asia/Tokyo:30"]),
            collecting(exchange, f"{block_name}-own", symbols=["BTCUSDT"], interval="1h", length=400) as (_, own),
            candleshm.attach(f"{block_name}-1h") as hours,
            candleshm.attach(f"{block_name}-1d-Asia-Tokyo") as days,
        ):
            gaps = [(gap.start_ms, gap.end_ms, gap.kind) for gap in hours["BTCUSDT"].gaps()]
            assert gaps == [(gap.start_ms, gap.end_ms, gap.kind) for gap in own["BTCUSDT"].gaps()]
            assert gaps == [(start_ms + HOUR, start_ms + 9 * HOUR, "hole")]
            rows = hours["BTCUSDT"].candles(closed_only=True)
            assert_same(rows, truth_of(exchange, hours, "BTCUSDT", int(rows[0, 0]), int(rows[-1, 0])))
            assert len(days["BTCUSDT"].candles(closed_only=True)) == 30
            found = days["BTCUSDT"].candles(closed_only=True)
            assert_same(found, truth_of(exchange, days, "BTCUSDT", int(found[0, 0]), int(found[-1, 0])))


def test_where_the_exchange_differs_from_the_derivation_its_row_stands(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.faults.add(Fault(kind="rows", rows="jump", interval="1h", symbol="ETHUSDT", path="/klines", count=1))
    with (
        caplog.at_level(logging.WARNING),
        collecting(exchange, block_name, symbols=SYMBOLS, length=600, derive=["1h:50"]) as (collector, source),
        candleshm.attach(f"{block_name}-1h") as hours,
    ):
        suspect = status_of(collector).derived_conflicts
        assert suspect >= 8
        assert f"ETHUSDT: the exchange has other values than were derived in {suspect} candles" in caplog.text
        assert_full(exchange, hours, "BTCUSDT", 50)
        rows = hours["ETHUSDT"].candles(closed_only=True)
        truth = truth_of(exchange, hours, "ETHUSDT", int(rows[0, 0]), int(rows[-1, 0]))
        ratio = rows[:-1, CLOSE] / truth[:-1, CLOSE]
        assert (np.abs(ratio - 1000) < 1).all(), "what the exchange sent, although the minutes say otherwise"
        assert hours["ETHUSDT"].revision == suspect
        assert source["ETHUSDT"].gaps() == []


def test_a_start_from_the_cache_requests_nothing_that_is_in_it(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"symbols": SYMBOLS, "length": 1600, "derive": ["1h:900", "1d@Asia/Shanghai:40"]}
    settings |= {"cache_dir": tmp_path, "cache_delay_seconds": 3600.0}
    with collecting(exchange, block_name, **settings):
        asked = len(older_requests(exchange))
        assert asked >= 4
    with (
        collecting(exchange, block_name, **settings) as (collector, _),
        candleshm.attach(f"{block_name}-1h") as hours,
        candleshm.attach(f"{block_name}-1d-Asia-Shanghai") as days,
    ):
        for symbol in SYMBOLS:
            assert_full(exchange, hours, symbol, 900)
            assert len(days[symbol].candles(closed_only=True)) == 40
        assert hours.health.ready
        assert days.health.ready
        assert len(older_requests(exchange)) == asked
        assert status_of(collector).derived_conflicts == 0


def test_a_symbol_that_is_added_later_is_filled_as_well(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        collecting(exchange, block_name, symbols=["BTCUSDT"], length=300, derive=["1h:500"]) as (collector, _),
        candleshm.attach(f"{block_name}-1h") as hours,
    ):
        collector.add_symbols(["SUSHIBTC"])
        until(lambda: "SUSHIBTC" in hours and len(hours["SUSHIBTC"].candles(closed_only=True)) == 500)
        until(lambda: hours.health.ready)
        for symbol in ("BTCUSDT", "SUSHIBTC"):
            assert_full(exchange, hours, symbol, 500)
        assert len(older_requests(exchange, symbol="BTCUSDT")) == 1


def test_a_collector_killed_while_it_fills_leaves_what_it_has_to_the_next_one(
    exchange: SimulatedExchange, block_name: str
) -> None:
    exchange.faults.add(Fault(kind="hang", path="/klines", interval="1h", symbol="ETHUSDT"))
    words = [*serving(exchange, block_name, "--derive", "1h:1500")]
    name = f"{block_name}-1h"
    with started(*words) as first:
        first_lines(first, 2)
        with candleshm.attach(name) as hours:
            until(lambda: len(hours["BTCUSDT"].candles(closed_only=True)) == 1500)
            assert not hours.health.ready
            before = hours["BTCUSDT"].candles(closed_only=True)
            first.send_signal(signal.SIGKILL)
            first.wait()
            exchange.faults.clear()
            asked = len(older_requests(exchange, symbol="BTCUSDT"))
            with started(*words) as second:
                first_lines(second, 2)
                until(lambda: hours.health.pid == second.pid and hours.health.ready)
                after = hours["BTCUSDT"].candles(closed_only=True)
                both = np.isin(before[:, 0], after[:, 0])
                assert before[both].tolist() == after[np.isin(after[:, 0], before[:, 0])].tolist()
                for symbol in hours.symbols:
                    assert_full(exchange, hours, symbol, 1500)
                assert len(older_requests(exchange, symbol="BTCUSDT")) == asked
                second.send_signal(signal.SIGTERM)
                second.wait(60)


def test_many_symbols_never_spend_more_than_the_budget(block_name: str) -> None:
    with SimulatedExchange(symbols=40, spot_limit=240) as exchange:
        symbols = [item.symbol for item in exchange.truth.instruments("SPOT")][:12]
        settings: dict[str, Any] = {"symbols": symbols, "length": 300, "derive": ["1h:1900"], "server_weight": 0.5}
        settings |= {"update_interval_seconds": 20.0}
        with collecting(exchange, block_name, **settings) as (_, source), candleshm.attach(f"{block_name}-1h") as hours:
            for symbol in symbols:
                assert_full(exchange, hours, symbol, 1900)
                assert source[symbol].age < 60
        assert exchange.stats().pools["SPOT"].peak_60s <= 120


def test_the_exchanges_row_stands_after_a_kill_too(exchange: SimulatedExchange, block_name: str) -> None:
    fault = Fault(kind="rows", rows="jump", interval="1h", path="/klines")
    exchange.faults.add(fault)
    words = [*serving(exchange, block_name, "--derive", "1h:400")]
    with started(*words) as first, candleshm.attach(wait_for(f"{block_name}-1h", first)) as hours:
        until(lambda: hours.health.ready)
        suspect = hours["BTCUSDT"].candles(closed_only=True)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with started(*words) as second:
            until(lambda: hours.health.pid == second.pid and hours.health.ready)
            after = hours["BTCUSDT"].candles(closed_only=True)
            both = np.isin(after[:, 0], suspect[:, 0])
            assert after[both].tolist() == suspect[np.isin(suspect[:, 0], after[:, 0])].tolist()
            second.send_signal(signal.SIGKILL)
            second.wait()
        exchange.faults.clear()
        with started(*words) as third:
            # What is derived differs from what was taken over: the exchange is asked, and now has the right rows.
            until(lambda: hours.health.pid == third.pid and hours.health.ready)
            after = hours["BTCUSDT"].candles(closed_only=True)[-4:]
            assert_same(after, truth_of(exchange, hours, "BTCUSDT", int(after[0, 0]), int(after[-1, 0])))
            third.send_signal(signal.SIGTERM)
            third.wait(60)


def wait_for(name: str, process: Any) -> str:
    """Return the name of a derived block once it is served."""
    first_lines(process, 2)
    return name


def test_hours_whose_minutes_were_never_loaded_are_fetched(exchange: SimulatedExchange, block_name: str) -> None:
    """After a pause longer than the source's window, rows between the old ones and the new are missing for good."""
    words = [*serving(exchange, block_name, "--derive", "1h:100")]
    with started(*words) as first, candleshm.attach(wait_for(f"{block_name}-1h", first)) as hours:
        until(lambda: hours.health.ready)
        first.send_signal(signal.SIGKILL)
        first.wait()
        exchange.skew_ms += 20 * HOUR
        asked = len(older_requests(exchange, symbol="BTCUSDT"))
        with started(*words) as second:
            until(lambda: hours.health.pid == second.pid and hours.health.ready)
            for symbol in hours.symbols:
                assert_full(exchange, hours, symbol, 100)
            assert hours.health.missing == 0
            assert len(older_requests(exchange, symbol="BTCUSDT")) == asked + 1
            second.send_signal(signal.SIGTERM)
            second.wait(60)


@pytest.mark.parametrize(("interval", "files"), [("1h", "1h"), ("1h", "1m"), ("1d@Asia/Tokyo", "1h")])
def test_rows_of_daily_files_are_not_requested(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, interval: str, files: str
) -> None:
    now_ms = exchange.now_ms()
    today = Day.of(now_ms, Zone("UTC"))
    days = list(days_between(Day.of(today.start_ms - 12 * DAY, Zone("UTC")), today.previous()))
    store = ParquetStore(tmp_path, "SPOT", files, Zone("UTC"))
    for day in days:
        rows = exchange.truth.floats("SPOT", "BTCUSDT", files, day.start_ms, day.end_ms)
        written(store, candles_of(day, rows=rows, interval=files))
    exchange.faults.add(Fault(kind="hang", path="/klines", interval="1h"))
    length = 240 if interval == "1h" else 10
    settings: dict[str, Any] = {"length": 1600, "derive": [f"{interval}:{length}"], "symbols": ["BTCUSDT"]}
    settings |= {"candle_dir": tmp_path, "local_candle_days": 12, "download_time": None, "timezone": "UTC"}
    name = f"{block_name}-{interval.replace('@', '-').replace('/', '-')}"
    with Collector(config_of(exchange, block_name, **settings)) as collector, candleshm.attach(name) as feed:
        assert collector.wait_loaded(60)
        rows = feed["BTCUSDT"].candles(closed_only=True)
        assert len(rows) == length
        assert_same(rows, truth_of(exchange, feed, "BTCUSDT", int(rows[0, 0]), int(rows[-1, 0])))
        assert older_requests(exchange) == []
