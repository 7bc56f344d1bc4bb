"""Readers in C and C++ through the life of a block: waits, threads, blocks that are replaced, collectors that die."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from candleshm import _core
from candleshm.columns import CLOSE
from tests.support.apt import installed
from tests.support.klines import ingest, kline
from tests.support.native import PROGRAMS, Reader, compiled, doubles
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    installed({"gcc": "gcc", "g++": "g++"})
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def in_c(folder: Path) -> Path:
    return compiled("gcc", PROGRAMS / "reader.c", folder)


@pytest.fixture(scope="module", params=["reader.c", "reader.cpp"])
def program(folder: Path, request: pytest.FixtureRequest) -> Path:
    source = PROGRAMS / request.param
    return compiled({".c": "gcc", ".cpp": "g++"}[source.suffix], source, folder)


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        load(writer, symbol, 0, 20)
    yield writer
    writer.close()


@pytest.fixture
def reader(program: Path) -> Iterator[Reader]:
    with Reader(program) as reader:
        yield reader


@pytest.fixture
def hot_writer(block_name: str) -> Iterator[subprocess.Popen[str]]:
    process = start_hot_writer(block_name)
    yield process
    process.kill()
    process.communicate()


def start_hot_writer(name: str, length: int = 256) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.hot_writer", name, str(length)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_wait_ends_when_a_candle_opens(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    reader("series", "BTCUSDT")
    assert reader("wait_open", open_ms(19), 0) == [str(open_ms(20))]  # there already
    reader.begin("wait_open", 0, -1)
    time.sleep(0.1)
    load(writer, "BTCUSDT", 20, 21)
    assert reader.result() == [str(open_ms(21))]


def test_a_wait_ends_when_all_symbols_closed(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    assert reader("wait_closed", open_ms(19), 1, 0) == [str(open_ms(19)), "|", "0", "0", "0"]
    reader.begin("wait_closed", 0, 1, 60)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        time.sleep(0.1)
        load(writer, symbol, 20, 21)
    assert reader.result() == [str(open_ms(20)), "|", "0", "0", "0"]


def test_an_interrupted_wait_does_not_end_the_next_one(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    reader("series", "BTCUSDT")
    for _ in range(3):
        assert reader.error("interrupted_wait", 0.1) == ("CSHM_TIMEOUT", "the wait was interrupted")
    reader.begin("wait_open", 0, 60)
    time.sleep(0.1)
    load(writer, "BTCUSDT", 20, 21)
    assert reader.result() == [str(open_ms(21))]


def test_threads_share_a_series_and_tear_nothing(
    hot_writer: subprocess.Popen[str], in_c: Path, block_name: str
) -> None:
    rounds = 20_000
    with Reader(in_c) as reader:
        reader("attach", block_name, 0)
        reader("series", "BTCUSDT")
        reads, torn = map(int, reader("threads", rounds))
    assert hot_writer.poll() is None
    assert (reads, torn) == (4 * rounds, 0)


def test_a_reader_follows_a_block_of_another_shape(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    reader("series", "BTCUSDT")
    reader("view", 3)
    writer.close(unlink=False)
    longer = _core.Writer.open(writer.name, market="SPOT", interval="1m", length=32, symbols=["BTCUSDT"])
    try:
        ingest(longer, "BTCUSDT", kline(open_ms(30), 130), sent_ms=open_ms(30) + 1)
        deadline = time.monotonic() + 10
        while doubles(reader("last_close")[1:]) != 130 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert doubles(reader("last_close")[1:]) == 130
        assert doubles(reader("view_columns")[13:16]).tolist() == [1017, 1018, 1019]
        assert reader.error("series", "ETHUSDT")[0] == "CSHM_UNKNOWN_SYMBOL"
        assert reader("symbols") == ["1", "BTCUSDT"]
    finally:
        longer.close()


def test_a_panel_keeps_its_places_when_a_smaller_block_takes_the_name(writer: _core.Writer, in_c: Path) -> None:
    with Reader(in_c) as reader:
        reader("attach", writer.name, 0)
        reader("symbols")
        writer.close(unlink=False)
        smaller = _core.Writer.open(writer.name, market="SPOT", interval="1m", length=32, symbols=["BTCUSDT"])
        try:
            ingest(smaller, "BTCUSDT", kline(open_ms(30), 130), sent_ms=open_ms(30) + 1)
            deadline = time.monotonic() + 10
            while (words := reader("last", CLOSE, 3))[0] != "1" and time.monotonic() < deadline:
                time.sleep(0.02)
            assert doubles(words[1:]).tolist() == [130]
            rows, _, *values = reader("panel", CLOSE, 1, 1, 3)
            assert rows == "1"
            assert str(doubles(values).tolist()) == "[130.0, nan, nan]"
        finally:
            smaller.close()


def test_a_killed_collector_is_noticed_and_its_successor_read(program: Path, block_name: str) -> None:
    collector = start_hot_writer(block_name)
    with Reader(program) as reader:
        reader("attach", block_name, 1.0)
        reader("series", "BTCUSDT")
        reader("wait_open", 0, 60)
        collector.kill()
        collector.communicate()
        # The data is younger than a second at first, and then it is not.
        name, message = reader.error("wait_open", 0, 60)
        assert name == "CSHM_STALE"
        assert "the limit is 1.0 s" in message
        assert reader.error("last_close")[0] == "CSHM_STALE"
        newest_ms = int(reader("last_open_ms")[0])
        successor = start_hot_writer(block_name)
        try:
            deadline = time.monotonic() + 60
            while int(reader("last_open_ms")[0]) == newest_ms and time.monotonic() < deadline:
                time.sleep(0.02)
            assert int(reader("wait_open", newest_ms, 60)[0]) > newest_ms
            assert reader("last_close")
        finally:
            successor.kill()
            successor.communicate()
