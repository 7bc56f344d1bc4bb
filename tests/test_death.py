"""The death of a collector, seen by those who read: real processes, a real kill, and what the successor asks for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import candleshm
from candleshm.reader.collector_report import last_report
from candleshm.sim import SimulatedExchange
from tests.support.collecting import CLOSED, assert_true, klines, until
from tests.support.commanding import started

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
LENGTH = 900
LEAVE = (
    "import os, sys; from candleshm._core import Writer; "
    "left = Writer.open(sys.argv[1], market='SPOT', interval='15m', length=10, symbols=['BTCUSDT']); os._exit(0)"
)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def serve(exchange: SimulatedExchange, name: str, length: int = LENGTH) -> list[str]:
    words = f"serve --market spot --symbols BTCUSDT,ETHUSDT --interval 1s --length {length} --name {name}"
    return [*words.split(), "--base-url", exchange.base_url]


def ready(feed: candleshm.Feed, process: subprocess.Popen[str]) -> bool:
    """Whether this process serves the block that the feed reads, with everything loaded."""
    assert process.poll() is None
    return feed.health.pid == process.pid and feed.health.ready


def attached(name: str) -> candleshm.Feed:
    """Attach as soon as there is a block."""
    until(lambda: any(health.name == name for health in candleshm.blocks()))
    return candleshm.attach(name)


def test_readers_see_a_death_and_go_on_with_the_next_collector(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serve(exchange, block_name)) as first:
        feed = attached(block_name)
        strict = candleshm.attach(block_name, max_age=1.5)
        until(lambda: ready(feed, first))
        series, strictly = feed["BTCUSDT"], strict["BTCUSDT"]
        strictly.candles()
        first.kill()
        first.wait()

    # Dead: the rows stay, and get old. Who set a limit is told, in a read and in a wait.
    age = series.age
    until(lambda: series.age > age)
    until(lambda: series.age > 1.5)
    with pytest.raises(
        candleshm.StaleData, match=r"BTCUSDT is stale: last confirmed \d+\.\d s ago, the limit is 1.5 s"
    ) as told:
        strictly.candles()
    assert 1.5 < told.value.age < 60
    with pytest.raises(candleshm.StaleData):
        _ = strictly.last_close
    with pytest.raises(candleshm.StaleData):
        strict.panel("close")
    with pytest.raises(candleshm.StaleData):
        strict.wait_closed(timeout=30)
    dead_rows = series.candles(closed_only=True)
    assert len(dead_rows) > LENGTH - 10
    dead_ms = int(dead_rows[-1, candleshm.OPEN_TIME_MS])
    asked_before = len(klines(exchange))

    with started(*serve(exchange, block_name)) as second:
        # The same objects go on, those with a limit too; nobody attached again.
        until(lambda: ready(feed, second))
        assert strictly.candles(closed_only=True)[-1, candleshm.OPEN_TIME_MS] > dead_ms
        closed = strict.wait_closed(timeout=30)
        assert set(closed.symbols) == set(SYMBOLS)
        away_seconds = (closed.open_time_ms - dead_ms) // 1000
        assert_true(exchange, feed)
        for symbol in SYMBOLS:
            rows = feed[symbol].candles(closed_only=True, holes="nan")
            both, there, before = np.intersect1d(rows[:, 0], dead_rows[:, 0], return_indices=True)
            assert len(both) > LENGTH // 2
            if symbol == "BTCUSDT":
                np.testing.assert_array_equal(rows[there], dead_rows[before])
            assert not feed[symbol].gaps()
            assert set(feed[symbol].states(closed_only=True)) == {CLOSED}
    # What was missing was asked for, some rows more to be sure, and never the history.
    asked = [page for _, page in klines(exchange)[asked_before:]]
    assert {page["symbol"] for page in asked} == set(SYMBOLS)
    assert max(int(page["limit"]) for page in asked) <= away_seconds + 60
    strict.close()
    feed.close()


def test_readers_move_over_to_a_block_of_another_length(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serve(exchange, block_name, 300)) as first:
        feed = attached(block_name)
        until(lambda: ready(feed, first))
        series = feed["BTCUSDT"]
        view = series.view(10)
        kept = view.array.copy()
        first.kill()
        first.wait()
    assert feed.length == 300
    with started(*serve(exchange, block_name, 400)) as second:
        until(lambda: feed.length == 400)
        until(lambda: ready(feed, second))
        assert len(series.candles(holes="nan")) == 400
        assert set(feed.wait_closed(timeout=30).symbols) == set(SYMBOLS)
        # What was lent from the old block stays what it was.
        assert view.valid()
        np.testing.assert_array_equal(view.array, kept)
        assert_true(exchange, feed)
    feed.close()


def test_a_block_that_is_not_derived_any_more_goes_with_the_next_start(
    exchange: SimulatedExchange, block_name: str
) -> None:
    """What somebody else has under a name of that kind stays, be he dead."""
    minute, others = f"{block_name}-1m", f"{block_name}-15m"
    with started(*serve(exchange, block_name), "--derive", "1m,5m") as first:
        until(lambda: (report := last_report(block_name)) is not None and report.derived)
        feed = attached(minute)
        first.kill()
        first.wait()
    subprocess.run([sys.executable, "-c", LEAVE, others], check=True)
    with started(*serve(exchange, block_name), "--derive", "5m") as second:
        successor = attached(block_name)
        until(lambda: ready(successor, second))
        names = {health.name for health in candleshm.blocks()}
        assert {block_name, f"{block_name}-5m", others} <= names
        assert minute not in names
        assert feed.health.state == "closed"
        candleshm.unlink(others)
