"""The cache: a restart requests what came since, and takes nothing from a file that is damaged or of another block."""

from __future__ import annotations

import logging
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import candleshm
from candleshm._core import Writer
from candleshm.collector.cache import BlockCache, Origin
from candleshm.columns import OPEN_TIME_MS
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from candleshm.sim.world.universe import utc_ms
from tests.support.collecting import (
    MINUTE,
    SYMBOLS,
    assert_complete_and_true,
    assert_true,
    close_seconds,
    collecting,
    klines,
    truth_of,
    until,
)

ROOT = Path(__file__).parent.parent
CLOSED, VERIFIED, HOLE, MISSING = RowState.CLOSED, RowState.VERIFIED, RowState.HOLE, RowState.MISSING
START_MS = utc_ms("2024-05-01")
NOW_MS = START_MS + 1000 * MINUTE
KILL_ROUNDS = 15
RUNNING = threading.Event()  # never set


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture
def origin(block_name: str) -> Origin:
    return Origin(block_name, "SPOT", "1m", "test")


def rows_of(count: int, seed: int = 0, start_ms: int = START_MS) -> np.ndarray:
    """Return plausible candles of 1m, each of its own."""
    rows = np.zeros((count, 12))
    rows[:, OPEN_TIME_MS] = start_ms + np.arange(count) * MINUTE
    rows[:, 6] = rows[:, OPEN_TIME_MS] + MINUTE - 1
    rows[:, 1:5] = 100.0 + np.random.default_rng(seed).random((count, 1))
    return rows


def open_block(name: str, symbols: list[str] | None = None, length: int = 100) -> AbstractContextManager[Writer]:
    return closing(
        Writer.open(name, market="SPOT", interval="1m", length=length, symbols=symbols or ["AUSDT", "BUSDT"])
    )


def filled(writer: Writer, count: int = 100) -> None:
    """Give every series `count` candles up to the end of the window at NOW_MS: the third verified, the fifth a hole.

    Those whose names begin with N are new listings and stay empty.
    """
    states = np.full(count, CLOSED, np.uint8)
    states[[2, 4]] = VERIFIED, HOLE
    for number, symbol in enumerate(symbol for symbol in writer.symbols if not symbol.startswith("N")):
        writer.load_rows(symbol, rows_of(count, number, NOW_MS - count * MINUTE), states, sent_ms=NOW_MS)


def kept(name: str, symbol: str) -> tuple[np.ndarray, np.ndarray]:
    with candleshm.attach(name) as feed:
        return feed[symbol].snapshot(closed_only=True, holes="nan")


@pytest.mark.parametrize(
    "kind", [{"interval": "1s"}, {"market": "UM", "price": "mark"}, {"market": "CM", "price": "premium"}]
)
def test_a_restart_requests_only_what_came_since(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, kind: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"length": 2500, "cache_dir": tmp_path, **kind}
    with collecting(exchange, block_name, **settings):
        pass
    requested = len(klines(exchange))
    assert not (Path("/dev/shm") / block_name).exists()
    with collecting(exchange, block_name, **settings) as (_, feed):
        limits = [int(parameters["limit"]) for _, parameters in klines(exchange)[requested:]]
        # Of 2500 rows each the newest page at most: what closed between the two runs.
        assert sum(limits[: len(feed)]) < 200 * len(feed)
        assert not any("startTime" in parameters for _, parameters in klines(exchange)[requested:])
        if feed.interval == "1s":
            close_seconds(feed, 1)
        assert_complete_and_true(exchange, feed)


def test_what_was_live_when_it_was_written_is_requested_again(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"interval": "1s", "cache_dir": tmp_path, "cache_delay_seconds": 0.05}
    for _ in range(3):
        with collecting(exchange, block_name, **settings) as (_, feed):
            close_seconds(feed, 2)
            assert_complete_and_true(exchange, feed)
    # The file alone: every row of it is what the exchange finally has.
    cache = BlockCache(tmp_path, Origin(block_name, "SPOT", "1s", exchange.base_url.split("//")[1]))
    with closing(Writer.open(block_name, market="SPOT", interval="1s", length=100, symbols=SYMBOLS["SPOT"])) as writer:
        assert cache.load(writer, exchange.now_ms(), RUNNING) > 200
        with candleshm.attach(block_name) as feed:
            assert_true(exchange, feed)


def test_holes_are_requested_again_after_a_restart_and_rows_that_came_late_fill_them(
    block_name: str, tmp_path: Path
) -> None:
    past_ms = utc_ms("2023-03-24T15:00") - time.time_ns() // 1_000_000
    with SimulatedExchange(symbols=4, clock_ms=lambda: time.time_ns() // 1_000_000 + past_ms) as exchange:
        settings: dict[str, Any] = {"length": 300, "cache_dir": tmp_path, "settle_seconds": 0.2}
        with collecting(exchange, block_name, **settings) as (_, feed):
            until(lambda: feed.health.missing == 0)
            holes = [feed[symbol].gaps() for symbol in feed.symbols]
            assert all(gaps and gaps[0].kind == "hole" for gaps in holes)
        requested = len(klines(exchange))
        with collecting(exchange, block_name, **settings) as (_, feed):
            until(lambda: feed.health.missing == 0)
            assert [feed[symbol].gaps() for symbol in feed.symbols] == holes
            # What the cache has is not requested.
            assert max(int(parameters["limit"]) for _, parameters in klines(exchange)[requested:]) < 90
        exchange.truth.end_outages()
        with collecting(exchange, block_name, **settings) as (_, feed):
            until(lambda: feed.health.missing == 0)
            assert [feed[symbol].gaps() for symbol in feed.symbols] == [[]] * len(feed)
            for symbol, (gap, *_) in zip(feed.symbols, holes, strict=True):
                rows = feed[symbol].candles()
                late = rows[(rows[:, OPEN_TIME_MS] >= gap.start_ms) & (rows[:, OPEN_TIME_MS] < gap.end_ms)]
                assert len(late) == (gap.end_ms - gap.start_ms) // MINUTE
                np.testing.assert_array_equal(late, truth_of(exchange, feed, symbol, late[:, OPEN_TIME_MS]))


def test_a_block_that_was_taken_over_counts_for_more(block_name: str, tmp_path: Path, origin: Origin) -> None:
    with open_block(block_name) as writer:
        filled(writer)
        cache = BlockCache(tmp_path, origin)
        cache.save(NOW_MS)
        assert cache.load(writer, NOW_MS, RUNNING) == 0
        other = rows_of(100, 7, NOW_MS - 100 * MINUTE)
        writer.load_rows("AUSDT", other, None, sent_ms=NOW_MS)
        assert not np.array_equal(kept(block_name, "AUSDT")[0], other)


def test_rows_and_states_come_back_bit_for_bit(block_name: str, tmp_path: Path, origin: Origin) -> None:
    cache = BlockCache(tmp_path, origin)
    with open_block(block_name, ["AUSDT", "BUSDT", "NEWUSDT"]) as writer:
        filled(writer)
        before = [kept(block_name, symbol) for symbol in writer.symbols]
        saved = cache.save(NOW_MS)
        assert (saved.symbols, saved.rows, saved.path.name) == (2, 198, f"spot-1m-{block_name}.cache")
        assert saved.size_bytes == saved.path.stat().st_size
    # Another order of symbols, one more and one less: series are found by name.
    with open_block(block_name, ["CUSDT", "BUSDT"]) as writer:
        assert cache.load(writer, NOW_MS, RUNNING) == 99
        rows, states = kept(block_name, "BUSDT")
        np.testing.assert_array_equal(rows, before[1][0])
        # That there was no row has to be found again.
        np.testing.assert_array_equal(states, np.where(before[1][1] == HOLE, MISSING, before[1][1]))
        assert set(states) == {CLOSED, VERIFIED, MISSING}
        with candleshm.attach(block_name) as feed:
            assert feed["CUSDT"].last_open_time_ms is None
            assert feed["BUSDT"].age == float("inf")  # nobody requested the exchange


def test_rows_from_before_the_window_are_left_where_they_are(block_name: str, tmp_path: Path, origin: Origin) -> None:
    cache = BlockCache(tmp_path, origin)
    with open_block(block_name) as writer:
        filled(writer)
        cache.save(NOW_MS)
    with open_block(block_name) as writer:
        assert cache.load(writer, NOW_MS + 5000 * MINUTE, RUNNING) == 0
        assert cache.load(writer, NOW_MS + 50 * MINUTE, RUNNING) == 2 * 99


def test_a_stop_ends_the_loading(block_name: str, tmp_path: Path, origin: Origin) -> None:
    cache = BlockCache(tmp_path, origin)
    stopping = threading.Event()
    stopping.set()
    with open_block(block_name) as writer:
        filled(writer)
        cache.save(NOW_MS)
    with open_block(block_name) as writer:
        assert cache.load(writer, NOW_MS, stopping) == 0


def test_a_damaged_file_is_named_and_not_used(
    block_name: str, tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path, origin)
    with open_block(block_name) as writer:
        filled(writer)
        cache.save(NOW_MS)
    image = cache.path.read_bytes()
    draw = random.Random(1)
    # Every byte of both ends, and some of what lies between; then cuts.
    places = {*range(16), *range(len(image) - 600, len(image)), *draw.sample(range(len(image)), 200)}
    spoilt = [image[:at] + bytes([image[at] ^ (1 << draw.randrange(8))]) + image[at + 1 :] for at in sorted(places)]
    spoilt += [image[:size] for size in (0, 1, 8, 31, 32, len(image) // 2, len(image) - 1)] + [image + b"\0"]
    with open_block(block_name) as writer:
        for number, damaged in enumerate(spoilt):
            cache.path.write_bytes(damaged)
            caplog.clear()
            assert cache.load(writer, NOW_MS, RUNNING) == 0, number
            assert str(cache.path) in caplog.text
            assert "is not used" in caplog.text
        cache.path.write_bytes(image)
        assert cache.load(writer, NOW_MS, RUNNING) == 2 * 99


@pytest.mark.parametrize("field", ["name", "market", "price", "interval", "exchange"])
def test_a_file_of_another_block_is_not_used(
    field: str, block_name: str, tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    with open_block(block_name) as writer:
        filled(writer)
        cache = BlockCache(tmp_path, origin)
        cache.save(NOW_MS)
    changed = {"name": "other", "market": "UM", "price": "mark", "interval": "5m", "exchange": "other:1"}
    other = BlockCache(tmp_path, replace(origin, **{field: changed[field]}))
    cache.path.rename(other.path)
    with open_block(block_name) as writer:
        assert other.load(writer, NOW_MS, RUNNING) == 0
        assert "it holds SPOT 1m of test" in caplog.text


@pytest.mark.long
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(block_name: str, tmp_path: Path, origin: Origin) -> None:
    draw = random.Random(2)
    with open_block(block_name, [f"S{number}USDT" for number in range(40)], length=1000) as writer:
        filled(writer, 900)
        cache = BlockCache(tmp_path, origin)
        cache.save(NOW_MS)
        for _ in range(KILL_ROUNDS):
            command = [sys.executable, "-m", "tests.support.cache_writer", block_name, str(tmp_path)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(draw.random() * 0.2)
                process.send_signal(signal.SIGKILL)
            with open_block(f"{block_name}-next", list(writer.symbols), length=1000) as fresh:
                assert cache.load(fresh, NOW_MS, RUNNING) == 40 * 899


def test_a_disk_without_room_keeps_the_older_file(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    with collecting(exchange, block_name, cache_dir=tmp_path / "cache"):
        pass
    (file,) = (tmp_path / "cache").iterdir()
    image = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with collecting(exchange, block_name, cache_dir=tmp_path / "cache") as (_, feed):
            # As a full disk: some bytes fit, the rest does not.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
            assert_complete_and_true(exchange, feed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written" in caplog.text
    assert "the older file is kept" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == [file]
    assert file.read_bytes() == image


def test_a_place_that_is_no_directory_does_not_keep_from_serving(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    with collecting(exchange, block_name, cache_dir=tmp_path / "taken" / "deep") as (_, feed):
        assert_complete_and_true(exchange, feed)
    assert "could not be written" in caplog.text


def test_the_running_collector_writes_every_now_and_then(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with collecting(exchange, block_name, cache_dir=tmp_path, cache_delay_seconds=0.2):
        (file,) = until(lambda: [*tmp_path.glob("*.cache")])
        first = file.stat().st_ino
        until(lambda: file.stat().st_ino != first)


def test_nothing_is_written_unless_a_directory_is_given(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with collecting(exchange, block_name):
        pass
    assert not list((tmp_path / "work").iterdir())
