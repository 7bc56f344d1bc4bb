"""A running server and its daily files: yesterday is written once, local days are loaded and not requested again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm._core import Writer
from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError, UnknownSymbol
from candleshm.history.block import day_of_block, load_days, with_states
from candleshm.history.day import Day
from candleshm.history.day_schedule import due_day
from candleshm.history.store import ParquetStore
from candleshm.sim import Fault, Outage, SimulatedExchange
from tests.support.collecting import DEADLINE_SECONDS, SteppedClock, config_of, klines, until
from tests.support.days import MINUTE, NEW_YORK, UTC_ZONE, candles_of, day_of, store_in, without, written
from tests.support.downloading import day_before, downloaded, truth_of

DAY = 86_400_000
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """An exchange whose day began twenty minutes ago."""
    with SimulatedExchange(symbols=4) as running:
        running.skew_ms = 20 * MINUTE - running.now_ms() % DAY
        yield running


def daily(exchange: SimulatedExchange, name: str, directory: Path, **changes: Any) -> CollectorConfig:
    """Return a feed that keeps days of UTC."""
    settings = {"symbols": SYMBOLS, "length": 1500, "timezone": "UTC", "candle_dir": directory, "local_candle_days": 1}
    return config_of(exchange, name, **(settings | changes))


def store_of(directory: Path) -> ParquetStore:
    return store_in(directory, zone=UTC_ZONE)


def assert_kept(exchange: SimulatedExchange, directory: Path, day: Day, source: str) -> None:
    for symbol in SYMBOLS:
        candles = store_of(directory).read(symbol, day)
        assert (candles.is_complete, candles.source) == (True, source)
        assert candles.rows.tobytes() == truth_of(exchange, day, symbol).tobytes()


def is_kept(directory: Path, day: Day) -> bool:
    return all(store_of(directory).path(symbol, day).exists() for symbol in SYMBOLS)


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "time_of_day", "day"),
    [
        ("2026-11-24T05:09:59", (0, 10, 0), "2026-11-22"),
        ("2026-11-24T05:10:00", (0, 10, 0), "2026-11-23"),
        ("2026-11-25T05:09:59", (0, 10, 0), "2026-11-23"),
        # The clocks go from 02:00 to 03:00: 02:30 does not exist, and counts as passed at 03:30.
        ("2026-03-08T07:29:59", (2, 30, 0), "2026-03-06"),
        ("2026-03-08T07:30:00", (2, 30, 0), "2026-03-07"),
        # From 02:00 back to 01:00: 01:30 exists twice, and the first one counts.
        ("2026-11-01T05:29:59", (1, 30, 0), "2026-10-30"),
        ("2026-11-01T05:30:00", (1, 30, 0), "2026-10-31"),
        ("2026-11-01T06:30:00", (1, 30, 0), "2026-10-31"),
        # A day of 23 and one of 25 hours.
        ("2026-03-09T04:10:00", (0, 10, 0), "2026-03-08"),
        ("2026-11-02T05:10:00", (0, 10, 0), "2026-11-01"),
    ],
)
def test_a_day_is_due_at_that_time_of_the_day_after(
    tmp_path: Path, now: str, time_of_day: tuple[int, int, int], day: str
) -> None:
    assert str(due_day(moment(now), store_in(tmp_path, zone=NEW_YORK), time_of_day, 1000)) == day


def test_a_day_is_not_due_before_its_last_candle_is_final(tmp_path: Path) -> None:
    store = store_in(tmp_path, "1d", zone=NEW_YORK)
    # The candle that opens at 19:00 of the 22nd in New York ends at 19:00 of the 23rd.
    assert str(due_day(moment("2026-11-24T00:00:00"), store, (0, 10, 0), 1000)) == "2026-11-21"
    assert str(due_day(moment("2026-11-24T00:00:01"), store, (0, 10, 0), 1000)) == "2026-11-22"


def test_yesterday_is_written_from_the_block_without_a_request(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    yesterday = day_before(exchange)
    hole = (yesterday.start_ms + 5 * MINUTE, yesterday.start_ms + 9 * MINUTE)
    exchange.truth.add_outage(Outage(start_ms=hole[0], end_ms=hole[1], market="SPOT", symbol="ETHUSDT"))
    with Collector(daily(exchange, block_name, tmp_path)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert until(lambda: is_kept(tmp_path, yesterday))
        assert_kept(exchange, tmp_path, yesterday, "block")
        assert store_of(tmp_path).read("ETHUSDT", yesterday).holes == (hole,)
        said = f"downloaded {yesterday}: 1 of 2 symbols new, 0 done before, 1 with remarks, 0 failed"
        assert until(lambda: said in [record.getMessage() for record in caplog.records])
        with candleshm.attach(block_name) as feed:
            assert day_of_block(feed, "BTCUSDT", yesterday.previous(), exchange.now_ms()) is None
    # Nothing was requested that the block did not need: no page begins where a day does.
    assert all("startTime" not in query for _, query in klines(exchange))
    assert exchange.stats().count("/exchangeInfo") == 1
    # A restart finds the day done.
    written = {symbol: store_of(tmp_path).path(symbol, yesterday).stat().st_mtime_ns for symbol in SYMBOLS}
    caplog.clear()
    with Collector(daily(exchange, block_name, tmp_path)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        said = f"downloaded {yesterday}: 0 of 2 symbols new, 2 done before, 0 with remarks, 0 failed"
        assert until(lambda: said in [record.getMessage() for record in caplog.records])
    assert written == {symbol: store_of(tmp_path).path(symbol, yesterday).stat().st_mtime_ns for symbol in SYMBOLS}


def test_what_the_block_does_not_have_comes_from_the_exchange(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    days = [day_before(exchange), day_before(exchange, 2)]
    with Collector(daily(exchange, block_name, tmp_path, length=30, local_candle_days=2)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert until(lambda: all(is_kept(tmp_path, day) for day in days))
    for day in days:
        assert_kept(exchange, tmp_path, day, "exchange")


def test_a_machine_that_slept_through_the_hour_writes_every_day_once(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    clock = SteppedClock()
    yesterday = day_before(exchange)
    with Collector(daily(exchange, block_name, tmp_path, length=30), clock=clock) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert until(lambda: is_kept(tmp_path, yesterday))
        first = {symbol: store_of(tmp_path).path(symbol, yesterday).stat().st_mtime_ns for symbol in SYMBOLS}
        # Two days pass at once, on the machine and at the exchange.
        exchange.skew_ms += 2 * DAY
        clock.ahead_seconds += 2 * DAY / 1000
        slept = [yesterday.next(), yesterday.next().next()]
        assert until(lambda: all(is_kept(tmp_path, day) for day in slept))
    for day in (yesterday, *slept):
        assert_kept(exchange, tmp_path, day, "exchange")
    assert first == {symbol: store_of(tmp_path).path(symbol, yesterday).stat().st_mtime_ns for symbol in SYMBOLS}
    assert history.days("SPOT", "BTCUSDT", timezone="UTC", base_dir=tmp_path) == [
        day.date for day in (yesterday, *slept)
    ]


def test_a_day_that_could_not_be_fetched_is_tried_again(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    clock = SteppedClock()
    yesterday = day_before(exchange)
    with Collector(daily(exchange, block_name, tmp_path, length=30), clock=clock) as collector:
        # Pages of a day are larger than what the block of 30 candles requests.
        assert collector.wait_loaded(DEADLINE_SECONDS)
        exchange.faults.add(
            Fault(kind="status", status=400, body='{"code":-1100,"msg":"no"}', path="/klines", count=40)
        )
        assert until(lambda: exchange.stats().count("/exchangeInfo") >= 2)
        exchange.faults.clear()
        clock.ahead_seconds += 301
        exchange.skew_ms += 301_000
        assert until(lambda: is_kept(tmp_path, yesterday))
        assert_kept(exchange, tmp_path, yesterday, "exchange")


def test_without_a_time_or_a_directory_nothing_is_written(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    for changes in ({"download_time": None}, {"candle_dir": None}):
        with Collector(daily(exchange, block_name, tmp_path, length=30, **changes)) as collector:
            assert collector.wait_loaded(DEADLINE_SECONDS)
            assert until(lambda: exchange.stats().count("/klines") > 6)
    assert list(tmp_path.iterdir()) == []
    for name, value in (
        ("download_time", "25:00:00"),
        ("timezone", "Mars"),
        ("local_candle_days", -1),
        ("candle_dir", ""),
    ):
        with pytest.raises(ConfigError, match=f"{name} cannot be `{value}`"):
            daily(exchange, block_name, tmp_path, **{name: value})


def test_local_days_are_loaded_and_not_requested_again(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    days = [day_before(exchange), day_before(exchange, 2)]
    hole = (days[0].start_ms + 700 * MINUTE, days[0].start_ms + 720 * MINUTE)
    exchange.truth.add_outage(Outage(start_ms=hole[0], end_ms=hole[1], market="SPOT", symbol="BTCUSDT"))
    downloaded(exchange, tmp_path, days[1].date, symbols=SYMBOLS)
    requested = len(klines(exchange))
    config = daily(exchange, block_name, tmp_path, length=2880, local_candle_days=2, download_time=None)
    with Collector(config) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        with candleshm.attach(block_name) as feed:
            assert until(lambda: feed.health.ready)
            for symbol in SYMBOLS:
                rows = feed[symbol].candles(closed_only=True)
                truth = exchange.truth.floats("SPOT", symbol, "1m", int(rows[0, 0]), int(rows[-1, 0]) + 1)
                assert rows.tobytes(order="C") == truth.tobytes()
                assert len(rows) + (20 if symbol == "BTCUSDT" else 0) in (2879, 2880)
            assert [gap.kind for gap in feed["BTCUSDT"].gaps()] == ["hole"]
    # Today's twenty minutes and no more: tails that reach back to midnight, and of history only the hole, which a later
    # response may fill: one look, and a second one that agrees.
    pages = [query for _, query in klines(exchange)[requested:]]
    assert pages
    assert all(int(query["limit"]) <= 40 for query in pages), pages
    back = [query for query in pages if "endTime" in query]
    assert all(query["symbol"] == "BTCUSDT" and hole[0] <= int(query["endTime"]) < hole[1] + MINUTE for query in back)
    assert 1 <= len(back) <= 3


def test_a_damaged_local_day_is_named_and_requested(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yesterday = day_before(exchange)
    downloaded(exchange, tmp_path, yesterday.date, symbols=SYMBOLS)
    path = store_of(tmp_path).path("ETHUSDT", yesterday)
    path.write_bytes(path.read_bytes()[:-9])
    with Collector(daily(exchange, block_name, tmp_path, length=1440)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        with candleshm.attach(block_name) as feed:
            rows = feed["ETHUSDT"].candles(closed_only=True)
            truth = exchange.truth.floats("SPOT", "ETHUSDT", "1m", int(rows[0, 0]), int(rows[-1, 0]) + 1)
            assert rows.tobytes(order="C") == truth.tobytes()
        # The daily run replaces it; the block lacks the first minutes of the day.
        assert until(lambda: all(r.is_complete for r in history.verify("SPOT", timezone="UTC", base_dir=tmp_path)))
        assert_kept(exchange, tmp_path, yesterday, "exchange")
    assert any(str(path) in record.getMessage() for record in caplog.records)


def test_a_day_goes_through_a_block_and_back(block_name: str) -> None:
    day = day_of("2026-11-03", UTC_ZONE)
    whole = without(candles_of(day), 700, 720, as_hole=True)
    checked = ((day.start_ms + 10 * MINUTE, day.start_ms + 20 * MINUTE),)
    candles = candles_of(day, rows=whole.rows, holes=whole.holes, verified=checked)
    rows, states = with_states(candles)
    assert rows.shape == (1440, 12)
    assert [int(np.sum(states == state)) for state in (2, 3, 4)] == [1410, 10, 20]
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=1440, symbols=["BTCUSDT", "ETHUSDT"])
    try:
        loaded = writer.load_rows("BTCUSDT", rows, states, sent_ms=candles.fetched_ms)
        # A hole is only believed until it is requested again, so here it is missing.
        assert (loaded.changed, loaded.closed, loaded.holes, loaded.missing) == (1420, 1420, 0, 20)
        full = candles_of(day, verified=checked)
        writer.load_rows("ETHUSDT", *with_states(full), sent_ms=full.fetched_ms)
        with candleshm.attach(block_name) as feed:
            assert feed["BTCUSDT"].age == float("inf")
            assert day_of_block(feed, "BTCUSDT", day, candles.fetched_ms) is None
            back = day_of_block(feed, "ETHUSDT", day, full.fetched_ms)
            assert back is not None
            assert back.rows.tobytes() == full.rows.tobytes()
            assert (back.holes, back.verified, back.source) == ((), checked, "block")
            assert day_of_block(feed, "ETHUSDT", day.next(), candles.fetched_ms) is None
            assert day_of_block(feed, "SUSHIBTC", day, candles.fetched_ms) is None
        for wrong in (rows[:, :11], rows[:5]):
            with pytest.raises(ConfigError, match="rows is not float64"):
                writer.load_rows("BTCUSDT", wrong, states, sent_ms=0)
        with pytest.raises(UnknownSymbol):
            writer.load_rows("SUSHIBTC", rows, sent_ms=0)
    finally:
        writer.close()


def test_days_of_a_predecessor_are_not_loaded(block_name: str, tmp_path: Path) -> None:
    day = day_of("2026-11-03", UTC_ZONE)
    written(store_of(tmp_path), candles_of(day, source="csv"))
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=1440, symbols=["BTCUSDT"])
    try:
        assert load_days(writer, store_of(tmp_path), ["BTCUSDT"], [day], threading.Event()) == 0
        written(store_of(tmp_path), candles_of(day))
        assert load_days(writer, store_of(tmp_path), ["BTCUSDT"], [day], threading.Event()) == 1440
    finally:
        writer.close()
