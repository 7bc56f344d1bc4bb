"""A polite stop keeps of derived candles what a kill leaves behind: also what the source no longer holds."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm._core import Writer
from candleshm.collector.cache import BlockCache, Origin
from candleshm.columns import OPEN_TIME_MS
from candleshm.sim import SimulatedExchange
from tests.support.collecting import MINUTE, collecting
from tests.test_cache import CLOSED, NOW_MS, RUNNING, VERIFIED, rows_of

LENGTH = 100
START_MS = NOW_MS - 700 * MINUTE
ROWS = rows_of(700, 3, START_MS)


def opened(name: str) -> Writer:
    return Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=["AUSDT"], derive=derived_of(name))


def fill(writer: Writer, start: int, end: int) -> None:
    """Load rows as they come, a window's worth at a time at most."""
    for place in range(start, end, 50):
        part = ROWS[place : min(place + 50, end)]
        writer.load_rows("AUSDT", part, sent_ms=int(part[-1, OPEN_TIME_MS]) + MINUTE)


def kept(name: str) -> tuple[np.ndarray, np.ndarray]:
    with candleshm.attach(name) as feed:
        return feed["AUSDT"].snapshot(closed_only=True, holes="nan")


def is_final(states: np.ndarray) -> np.ndarray:
    return np.isin(states, (CLOSED, VERIFIED))


def caches(directory: Path, name: str) -> list[BlockCache]:
    return [BlockCache(directory, Origin(derived, "SPOT", interval, "x")) for derived, interval, _ in derived_of(name)]


def derived_of(name: str) -> list[tuple[str, str, int]]:
    return [(f"{name}-5m", "5m", LENGTH), (f"{name}-15m", "15m", LENGTH)]


def test_rows_that_the_source_no_longer_holds_come_back_and_go_on_as_if_nothing_had_been(
    block_name: str, tmp_path: Path
) -> None:
    with closing(opened(block_name)) as writer:
        fill(writer, 0, 600)
        before = {name: kept(name) for name, *_ in derived_of(block_name)}
        for cache in caches(tmp_path, block_name):
            cache.save(NOW_MS)
        fill(writer, 600, 700)
        never_stopped = {name: kept(name) for name, *_ in derived_of(block_name)}
    with closing(opened(block_name)) as writer:
        for cache in caches(tmp_path, block_name):
            assert cache.load_derived(writer, START_MS, RUNNING) > 30
        fill(writer, 550, 600)
        for name, (rows, states) in before.items():
            found, found_states = kept(name)
            np.testing.assert_array_equal(found[is_final(found_states)], rows[is_final(states)])
            with candleshm.attach(name) as feed:
                assert feed["AUSDT"].gaps() == []
        fill(writer, 600, 700)
        for name, (rows, states) in never_stopped.items():
            found, found_states = kept(name)
            np.testing.assert_array_equal(found[is_final(found_states)], rows[is_final(states)])
            assert found_states[-1] == states[-1]


def test_rows_that_are_no_candles_of_the_interval_are_left_out(block_name: str) -> None:
    name = f"{block_name}-5m"
    with closing(opened(block_name)) as writer:
        rows = rows_of(3, 0, START_MS)  # one minute apart
        writer.load_rows("AUSDT", rows, sent_ms=NOW_MS, derived=name)
        assert kept(name)[0][:, OPEN_TIME_MS].tolist() == [START_MS]
        with pytest.raises(candleshm.CandleShmError):
            writer.load_rows("AUSDT", rows, sent_ms=NOW_MS, derived="another")


def test_a_collector_that_ends_in_order_loses_no_derived_row(block_name: str, tmp_path: Path) -> None:
    derived = f"{block_name}-5m"
    with SimulatedExchange(symbols=4) as exchange:
        # What a collector that has run for hours holds: derived rows of before the window of its source.
        now_ms = exchange.now_ms()
        newest_ms = now_ms // (5 * MINUTE) * 5 * MINUTE - 60 * MINUTE
        older = exchange.truth.floats("SPOT", "BTCUSDT", "5m", newest_ms - 60 * 5 * MINUTE, newest_ms)
        host = exchange.base_url.split("//")[1]
        writer = Writer.open(
            block_name,
            market="SPOT",
            interval="1m",
            length=LENGTH,
            symbols=["BTCUSDT"],
            derive=[(derived, "5m", LENGTH)],
        )
        with closing(writer):
            writer.load_rows("BTCUSDT", older, sent_ms=now_ms, derived=derived)
            BlockCache(tmp_path, Origin(derived, "SPOT", "5m", host)).save(now_ms)
        for _ in range(3):
            with (
                collecting(exchange, block_name, symbols=["BTCUSDT"], length=LENGTH, derive=["5m"], cache_dir=tmp_path),
                candleshm.attach(derived) as feed,
            ):
                rows = feed["BTCUSDT"].candles(closed_only=True)
                assert len(rows) >= 60 + 11
                assert feed["BTCUSDT"].gaps() == []
                truth = exchange.truth.floats(
                    "SPOT", "BTCUSDT", "5m", int(rows[0, OPEN_TIME_MS]), int(rows[-1, OPEN_TIME_MS]) + 1
                )
                np.testing.assert_allclose(rows, truth, rtol=1e-15)
