"""What readers find a block by is taken away: names removed, replaced, blocked, while collectors and readers live."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from candleshm.collector.block_names import LOG_SECONDS, BlockNames
from candleshm.columns import OPEN_TIME_MS
from candleshm.sim import SimulatedExchange
from tests.support.collecting import (
    assert_complete_and_true,
    close_seconds,
    collecting,
    config_of,
    klines,
    loaded,
    until,
)
from tests.support.commanding import serving, started
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

SHM = Path("/dev/shm")
LENGTH = 16


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def open_ms(candle_index: int) -> int:
    return START_MS + candle_index * MINUTE_MS


def writer_of(name: str, length: int = LENGTH, symbol: str = "BTCUSDT") -> _core.Writer:
    return _core.Writer.open(name, market="SPOT", interval="1m", length=length, symbols=[symbol])


def fill(writer: _core.Writer, indices: range, value: float = 0.0) -> None:
    """Merge closed candles, and a live one after them."""
    rows = [kline(open_ms(candle_index), 100 + candle_index + value) for candle_index in [*indices, indices.stop]]
    ingest(writer, writer.symbols[0], *rows, sent_ms=open_ms(indices.stop) + 30_000)


def dead_block(name: str, length: int = LENGTH) -> None:
    """Leave the block of a killed collector: rows 0 to 19 closed, 20 live."""
    code = f"""
import os, signal
from tests.test_block_names import fill, writer_of
writer = writer_of({name!r}, {length})
fill(writer, range(20))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert process.returncode == -signal.SIGKILL


def test_a_removed_name_comes_back_with_the_rows_and_readers_follow(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [block_name, f"{block_name}-1m"]
    with (
        collecting(exchange, block_name, interval="1s", length=120, derive=["1m"]) as (_, feed),
        candleshm.attach(names[1]) as minutes,
    ):
        series, held = feed["BTCUSDT"], feed["BTCUSDT"].candles(closed_only=True)
        requested = len(klines(exchange))
        for name in names:
            (SHM / name).unlink()
        for name in names:
            until(lambda: (SHM / name).exists())  # noqa: B023
        # Who attaches now finds it loaded, and who was attached goes on in it.
        with closing(candleshm.attach(block_name)) as late:
            assert late.health.ready
            rows = late["BTCUSDT"].candles(closed_only=True)
            assert rows[0, OPEN_TIME_MS] <= held[10, OPEN_TIME_MS]
            assert late["BTCUSDT"].age < 60
        close_seconds(feed, 2)
        until(lambda: feed.health.state == minutes.health.state == "ready")
        assert series.last_open_time_ms > held[-1, OPEN_TIME_MS] + 1000
        assert_complete_and_true(exchange, feed)
        assert minutes["BTCUSDT"].last_open_time_ms is not None
        # Nothing was requested again: no request reaches back by more than a few seconds.
        assert max(int(page["limit"]) for _, page in klines(exchange)[requested:]) < 60
    logged = [record.getMessage() for record in caplog.records if "removed block" in record.getMessage()]
    assert len(logged) == 2
    assert all(line.startswith(f"{block_name}: ") for line in logged)
    assert not any((SHM / name).exists() for name in names)


def test_the_name_of_another_collector_is_not_fought_for(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with started(*serving(exchange, block_name)) as first:
        until(lambda: any(health.name == block_name and health.ready for health in candleshm.blocks()))
        with candleshm.attach(block_name) as feed:
            series = feed["BTCUSDT"]
            (SHM / block_name).unlink()
            with LiveRival(exchange, block_name, first.pid) as pid:
                assert first.wait(60) == os.EX_TEMPFAIL
                assert first.stderr is not None
                logged = first.stderr.read().splitlines()
                assert logged[-1] == (
                    f"candleshm: block `{block_name}`: a collector (process {pid}) already serves it; stop that one or "
                    "choose another name"
                )
                assert sum("another collector has taken it" in line for line in logged) == 1
                until(lambda: feed.health.pid == pid and series.age < 60)
                assert (SHM / block_name).exists()


class LiveRival:
    """Serve under a name that is free, even if the one who had it tries to take it back; enter with the pid."""

    def __init__(self, exchange: SimulatedExchange, name: str, not_pid: int) -> None:
        self._exchange, self._name, self._not_pid = exchange, name, not_pid

    def __enter__(self) -> int:
        # The rival's block first, so that the first collector finds the name taken at its next look.
        self._writer = _core.Writer.open(self._name, market="SPOT", interval="1m", length=300, symbols=["BTCUSDT"])
        now_ms = self._exchange.now_ms() // MINUTE_MS * MINUTE_MS
        rows = [kline(now_ms - back * MINUTE_MS, 100 + back) for back in range(300, -1, -1)]
        ingest(self._writer, "BTCUSDT", *rows, sent_ms=now_ms + 1)
        self._writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
        return os.getpid()

    def __exit__(self, *_: object) -> None:
        self._writer.close()


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_stands_in_the_place_of_a_block_is_left_alone_and_logged_once(
    exchange: SimulatedExchange, block_name: str, kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    path = SHM / block_name
    with collecting(exchange, block_name, interval="1s") as (collector, feed):
        aside = SHM / f"{block_name}-aside"
        path.rename(aside)
        try:
            if kind == "directory":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(aside)
            else:
                path.write_bytes(b"not a block")
            until(lambda: "cannot be created again" in caplog.text)
            close_seconds(feed, 2)
            assert not collector.has_ended
            assert caplog.text.count("cannot be created again") == 1
            assert path.is_dir() or path.is_symlink() or path.read_bytes() == b"not a block"
        finally:
            shutil.rmtree(path) if kind == "directory" else path.unlink()
            aside.unlink()
        until(lambda: "is back under its name" in caplog.text)
        with closing(candleshm.attach(block_name)) as late:
            assert late.health.ready
        close_seconds(feed, 2)
        assert feed.health.state == "ready"


class RemovedNames:
    """A writer whose names are removed, or blocked, as often as a test wants."""

    name = "block"

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, candleshm.CandleShmError | None]] = []
        self.looks = 0

    def keep_names(self) -> list[tuple[str, candleshm.CandleShmError | None]]:
        self.looks += 1
        return list(self.outcomes)


def test_what_goes_on_for_an_hour_is_logged_rarely_and_done_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    for outcome, looks_max in [
        (None, 150),
        (candleshm.errors.BlockUnavailable("block", "no room", 28), 150),
        (candleshm.BlockCorrupt("block", "a directory"), 3600),
    ]:
        caplog.clear()
        writer = RemovedNames()
        names = BlockNames(writer, 0.0)  # type: ignore[arg-type]
        writer.outcomes = [("block", outcome)]
        for second in range(3600):
            names.look(float(second))
        assert 100 < writer.looks <= looks_max
        assert 6 <= len(caplog.records) <= 3600 / LOG_SECONDS + 1
        if outcome is None:
            counts = [re.search(r", (\d+) times", record.getMessage()) for record in caplog.records]
            assert sum(int(count[1]) if count else 1 for count in counts) > 90


READS: dict[str, Callable[[candleshm.Feed, candleshm.Series], object]] = {
    "candles": lambda feed, series: series.candles(),
    "states": lambda feed, series: series.states(),
    "snapshot": lambda feed, series: series.snapshot(),
    "live": lambda feed, series: series.live,
    "last_close": lambda feed, series: series.last_close,
    "view": lambda feed, series: series.view(3),
    "age": lambda feed, series: series.age,
    "gaps": lambda feed, series: series.gaps(),
    "revision": lambda feed, series: series.revision,
    "last_open_time_ms": lambda feed, series: series.last_open_time_ms,
    "panel": lambda feed, series: feed.panel("close", 3),
    "last": lambda feed, series: feed.last("close"),
    "health": lambda feed, series: feed.health,
    "length": lambda feed, series: feed.length,
    "wait": lambda feed, series: series.wait(open_ms(20), timeout=3),
    "wait_closed": lambda feed, series: feed.wait_closed(open_ms(20), timeout=3),
}


@pytest.mark.parametrize("removed", ["by hand", "by rm"])
def test_every_read_of_a_dead_block_moves_to_the_one_under_its_name(block_name: str, removed: str) -> None:
    dead_block(block_name)
    feeds = {call: candleshm.attach(block_name) for call in READS}
    held = {call: feed["BTCUSDT"] for call, feed in feeds.items()}
    (SHM / block_name).unlink() if removed == "by hand" else candleshm.unlink(block_name)
    # Nothing stands there: what is mapped stays.
    state = "ready" if removed == "by hand" else "closed"
    assert {(held[call].last_close, feed.health.state) for call, feed in feeds.items()} == {(120.0, state)}
    with closing(writer_of(block_name, LENGTH + 4)) as writer:
        fill(writer, range(22))
        inode = str((SHM / block_name).stat().st_ino)

        def mappings() -> int:
            return [line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines()].count(inode)

        for call, read in READS.items():
            before = mappings()
            until(lambda: (read(feeds[call], held[call]), mappings() > before)[1])  # noqa: B023
            assert held[call].last_close == 122.0
    for feed in feeds.values():
        feed.close()


def test_a_series_follows_though_another_one_of_its_feed_looked(block_name: str) -> None:
    dead_block(block_name)
    with candleshm.attach(block_name) as feed:
        held, other = feed["BTCUSDT"], feed
        assert held.last_close == 120.0
        (SHM / block_name).unlink()
        with closing(writer_of(block_name)) as writer:
            fill(writer, range(22))
            until(lambda: other.last("close")[0] == 122.0)
            assert held.last_close == 122.0


def test_a_reader_without_a_block_under_its_name_keeps_what_it_has(block_name: str) -> None:
    dead_block(block_name)
    with candleshm.attach(block_name) as feed:
        candleshm.unlink(block_name)
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            assert feed["BTCUSDT"].last_close == 120.0
            assert len(feed["BTCUSDT"].candles()) == LENGTH
            time.sleep(0.01)
        assert feed.health.state == "closed"


def test_readers_stay_until_they_lose_nothing_or_what_they_have_is_too_old(block_name: str) -> None:
    dead_block(block_name)
    patient, strict = candleshm.attach(block_name), candleshm.attach(block_name, max_age=4.0)
    with closing(patient), closing(strict):
        candleshm.unlink(block_name)
        with closing(writer_of(block_name)) as writer:
            assert patient["BTCUSDT"].last_close == 120.0
            # It is behind, and lacks rows; but for the strict one the old block is too old soon.
            while strict.health.state != "ready":
                fill(writer, range(10, 15))
            assert strict["BTCUSDT"].last_close == 115.0
            assert patient["BTCUSDT"].last_close == 120.0
            assert len(patient["BTCUSDT"].candles()) == LENGTH
            fill(writer, range(5, 20))
            until(lambda: patient.health.state == "ready")
            assert len(patient["BTCUSDT"].candles()) == LENGTH
    dead_block(block_name)
    with candleshm.attach(block_name) as feed:
        candleshm.unlink(block_name)
        with closing(writer_of(block_name)) as writer:
            assert feed.health.state == "closed"
            writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
            until(lambda: feed.health.state == "ready")


def test_rows_come_over_into_a_block_of_another_length_without_a_request(
    exchange: SimulatedExchange, block_name: str
) -> None:
    def serve_and_kill(length: int) -> None:
        code = f"""
import os, signal
from candleshm.collector.collector import Collector
from tests.support.collecting import *
class Exchange: base_url = {exchange.base_url!r}
collector = Collector(config_of(Exchange, {block_name!r}, length={length}, derive=["5m"]))
collector.start()
assert collector.wait_loaded(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)

    serve_and_kill(900)
    with candleshm.attach(block_name) as feed, candleshm.attach(f"{block_name}-5m") as derived:
        held = {symbol: len(feed[symbol].candles(500)) for symbol in feed}
        held_derived = {symbol: len(derived[symbol].candles(100)) for symbol in derived}
        requested = len(klines(exchange))
        collector = candleshm.Collector(config_of(exchange, block_name, length=600, derive=["5m"]))
        with collector:
            closing_feed = loaded(collector)
            closing_feed.close()
            until(lambda: feed.length == derived.length == 600)
            assert {symbol: len(feed[symbol].candles(500)) for symbol in feed} == held
            assert {symbol: len(derived[symbol].candles(100)) for symbol in derived} == held_derived
            assert_complete_and_true(exchange, feed)
            pages = [page for _, page in klines(exchange)[requested:]]
            assert max(int(page["limit"]) for page in pages) <= 100, "no history is requested again"
