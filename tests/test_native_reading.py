"""Programs in C and C++ read the same bits as Python at the same moment, through every function of candleshm.h."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

import candleshm
from candleshm import _core, columns
from candleshm.columns import CLOSE
from tests.support.apt import installed
from tests.support.klines import START_MS, ingest, kline
from tests.support.native import PROGRAMS, Reader, compiled, doubles
from tests.support.replaying import Given, made
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms

DROP, NAN, RAISE, CLOSED_ONLY = 0, 1, 2, 16
WORDS: dict[int, Literal["drop", "nan"]] = {DROP: "drop", NAN: "nan"}
FUTURE_BARS = 100


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    """A block with a whole series, one with two missing rows, and one without a row."""
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    load(writer, "BTCUSDT", 0, 20)
    load(writer, "ETHUSDT", 0, 20, leave_out=(12, 13))
    writer.heartbeat()
    yield writer
    writer.close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reader in C and in C++, by every compiler."""
    installed({"gcc": "gcc", "g++": "g++", "clang": "clang", "clang++": "clang"})
    folder = tmp_path_factory.mktemp("native")
    sources = {"gcc": "reader.c", "clang": "reader.c", "g++": "reader.cpp", "clang++": "reader.cpp"}
    return {compiler: compiled(compiler, PROGRAMS / source, folder) for compiler, source in sources.items()}


@pytest.fixture(params=["gcc", "clang++"])
def reader(programs: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Reader]:
    with Reader(programs[request.param]) as reader:
        yield reader


@pytest.fixture
def in_c(programs: dict[str, Path]) -> Iterator[Reader]:
    with Reader(programs["clang"]) as reader:
        yield reader


def same(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Whether the bits are the same; NaN is NaN, whatever its bits."""
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    equal = one.view(np.uint64) == other.view(np.uint64)
    return one.shape == other.shape and bool((equal | np.isnan(one) & np.isnan(other)).all())


def bits(values: npt.NDArray[np.float64]) -> list[str]:
    return [f"{word:016x}" for word in np.ascontiguousarray(values).reshape(-1).view(np.uint64)]


def attach(reader: Reader, writer: _core.Writer, symbol: str = "BTCUSDT") -> candleshm.Series:
    assert reader("attach", writer.name, 0) == ["0"]
    assert reader("series", symbol) == ["0"]
    return candleshm.attach(writer.name)[symbol]


def test_single_values_are_those_of_python(writer: _core.Writer, reader: Reader) -> None:
    series = attach(reader, writer)
    assert reader("last_close")[1:] == bits(np.array([series.last_close]))
    assert reader("live")[1:] == [*bits(series.live), str(int(candleshm.RowState.LIVE))]
    assert int(reader("last_open_ms")[0]) == series.last_open_time_ms == open_ms(20)
    before, age, after = series.age, float(reader("age")[1]), series.age
    assert before - 1e-3 <= age <= after + 1e-3
    assert int(reader("revision")[0]) == series.revision == 0
    ingest(writer, "BTCUSDT", kline(open_ms(15), 7), kline(open_ms(16), 8), sent_ms=open_ms(20) + 40_000)
    assert int(reader("revision")[0]) == series.revision > 0


def test_a_symbol_without_rows_is_nan_and_empty(writer: _core.Writer, reader: Reader) -> None:
    attach(reader, writer, "NEWUSDT")
    assert np.isnan(doubles(reader("last_close")[1:])).all()
    *row, state = reader("live")[1:]
    assert np.isnan(doubles(row)).all()
    assert state == str(int(candleshm.RowState.EMPTY))
    assert reader("last_open_ms") == ["0"]
    assert reader("age")[1] == "inf"
    assert reader("candles", 4, DROP, 4, 1) == reader("view", 4) == ["0"]
    assert reader("gaps", 4) == ["0"]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize("holes", [DROP, NAN])
@pytest.mark.parametrize("closed_only", [False, True])
@pytest.mark.parametrize("n", [1, 9, LENGTH, 1000])
def test_candles_and_states_are_those_of_python(
    writer: _core.Writer,
    reader: Reader,
    symbol: str,
    holes: int,
    closed_only: bool,  # noqa: FBT001
    n: int,
) -> None:
    series = attach(reader, writer, symbol)
    rows, states = series.snapshot(n, closed_only=closed_only, holes=WORDS[holes])
    flags = holes + CLOSED_ONLY * closed_only
    count, *words = reader("candles", n, flags, n, 1)
    assert int(count) == len(rows)
    assert same(doubles(words[: rows.size]).reshape(12, -1).T, rows)
    assert list(map(int, words[rows.size :])) == states.tolist()
    for column in (columns.OPEN_TIME_MS, CLOSE, columns.IGNORE):
        count, *words = reader("column", column, n, flags)
        assert int(count) == len(rows)
        assert same(doubles(words), rows[:, column])


@pytest.mark.parametrize("stride", [LENGTH, LENGTH + 5])
def test_columns_may_lie_apart_and_states_be_left_out(writer: _core.Writer, in_c: Reader, stride: int) -> None:
    series = attach(in_c, writer, "ETHUSDT")
    count, *words = in_c("candles", LENGTH, NAN, stride, 0)
    assert int(count) == LENGTH
    assert same(doubles(words).reshape(12, -1).T, series.candles(holes="nan"))


def test_gaps_are_those_of_python(writer: _core.Writer, reader: Reader) -> None:
    (gap,) = attach(reader, writer, "ETHUSDT").gaps()
    assert reader("gaps", 4) == ["1", str(gap.start_ms), str(gap.end_ms), "0"]
    assert (gap.start_ms, gap.end_ms) == (open_ms(12), open_ms(14))


def test_gaps_are_counted_without_room_for_them(writer: _core.Writer, in_c: Reader) -> None:
    attach(in_c, writer, "ETHUSDT")
    assert in_c("gaps", 0) == ["1"]


def test_a_view_lends_what_python_lends_and_says_when_it_was_overwritten(writer: _core.Writer, reader: Reader) -> None:
    view = attach(reader, writer, "ETHUSDT").view(LENGTH)
    assert int(reader("view", LENGTH)[0]) == len(view.close) == LENGTH
    complete, *words = reader("view_columns")
    assert complete == "0"
    assert same(doubles(words).reshape(12, -1).T, view.array)
    assert reader("view_valid") == ["1"]
    assert reader("view_check") == ["0"]
    load(writer, "ETHUSDT", 21, 20 + FUTURE_BARS)
    assert reader("view_valid") == ["0"]
    name, message = reader.error("view_check")
    assert name == "CSHM_OVERWRITTEN"
    assert message == str(candleshm.OverwrittenView("ETHUSDT"))
    assert int(reader("view", 5)[0]) == 5
    assert reader("view_columns")[0] == "1"
    assert reader("view_close") == ["0"]


def test_many_symbols_are_those_of_python(writer: _core.Writer, reader: Reader) -> None:
    attach(reader, writer)
    feed = candleshm.attach(writer.name)
    assert reader("symbols") == ["3", *SYMBOLS]
    for column in (CLOSE, columns.VOLUME):
        count, *words = reader("last", column, 3)
        assert int(count) == 3
        assert same(doubles(words), feed.last(columns_name(column)))
    for live in (False, True):
        for n in (1, 4, 1000):
            panel = feed.panel("close", n, symbols=SYMBOLS, live=live)
            rows, *words = reader("panel", CLOSE, n, int(live), 3)
            assert int(rows) == len(panel.open_time_ms)
            assert list(map(int, words[: int(rows)])) == panel.open_time_ms.tolist()
            assert same(doubles(words[int(rows) :]).reshape(3, -1).T, panel.array)


def columns_name(column: int) -> str:
    return {CLOSE: "close", columns.VOLUME: "volume"}[column]


def test_a_symbol_that_was_added_takes_no_more_room_than_was_told(block_name: str, reader: Reader) -> None:
    writer = _core.Writer.open(
        block_name, market="SPOT", interval="1m", length=LENGTH, symbols=["AUSDT", "BUSDT"], spare_symbols=1
    )
    try:
        for symbol in ("AUSDT", "BUSDT"):
            ingest(writer, symbol, kline(open_ms(0), 1), kline(open_ms(1), 2), sent_ms=open_ms(1) + 1)
        assert reader("attach", block_name, 0) == ["0"]
        assert reader("symbols") == ["2", "AUSDT", "BUSDT"]
        writer.add_symbol("CUSDT")
        ingest(writer, "CUSDT", kline(open_ms(0), 3), kline(open_ms(1), 4), sent_ms=open_ms(1) + 1)
        rows, open_time_ms, *words = reader("panel", CLOSE, 1, 1, 2)
        assert (rows, int(open_time_ms), doubles(words).tolist()) == ("1", open_ms(1), [2.0, 2.0])
        assert doubles(reader("last", CLOSE, 2)[1:]).tolist() == [2.0, 2.0]
        assert reader("symbols") == ["3", "AUSDT", "BUSDT", "CUSDT"]
        assert doubles(reader("panel", CLOSE, 1, 1, 3)[2:]).tolist() == [2.0, 2.0, 4.0]
    finally:
        writer.close()


def test_health_is_that_of_python(writer: _core.Writer, in_c: Reader) -> None:
    attach(in_c, writer)
    writer.set_health(ready=True, weight_used=12, weight_limit=4500, banned_until_ms=START_MS)
    writer.heartbeat()
    health = candleshm.attach(writer.name).health
    words = in_c("health")[1:]
    size, *flags = map(int, words[:4])
    assert size % 8 == 0
    assert flags == [2, int(health.ready), 1]
    assert words[4:6] == [health.market, health.interval]
    _, length, symbols, capacity, missing, holes, pid, used, limit, failing, polled, stale, banned_until_ms = map(
        int, words[6:19]
    )
    assert (length, symbols, missing, holes) == (LENGTH, 3, health.missing, health.holes)
    assert capacity >= 3
    assert (pid, used, limit, failing, polled) == (os.getpid(), 12, 4500, 0, 0)
    assert stale == 1  # NEWUSDT has no data yet
    assert banned_until_ms == START_MS
    assert all(0 <= float(age) < 60 for age in words[19:21])


def test_health_says_whose_rows_a_block_of_a_cluster_has(writer: _core.Writer, in_c: Reader) -> None:
    attach(in_c, writer)
    assert in_c("health")[-5:] == ["0", "0", "nan", "0", "[]"]
    writer.set_source(7, "a-host/12")
    health = candleshm.attach(writer.name).health
    assert (health.epoch, health.source, health.lag) == (7, "a-host/12", 0.0)
    epoch, source_ms, lag, replay_ms, source = in_c("health")[-5:]
    assert (epoch, source_ms, float(lag), replay_ms, source) == ("7", "0", 0.0, "0", "[a-host/12]")


def test_health_says_what_time_it_is_in_a_replay(in_c: Reader, block_name: str) -> None:
    with closing(made(block_name, Given(["BTCUSDT"]), 120)):
        assert in_c("attach", block_name, 0) == ["0"]
        health = candleshm.attach(block_name).health
        assert health.replayed_at is not None
        assert int(in_c("health")[-2]) == int(health.replayed_at.timestamp() * 1000)


def test_blocks_are_named(writer: _core.Writer, reader: Reader) -> None:
    (Path("/dev/shm") / f"{writer.name}-foreign").write_bytes(b"no block")
    names = reader("names")[1:]
    assert writer.name in names
    assert f"{writer.name}-foreign" not in names


def test_series_and_views_outlive_their_feed(writer: _core.Writer, reader: Reader) -> None:
    attach(reader, writer)
    reader("view", 3)
    assert reader("detach") == ["0"]
    assert doubles(reader("last_close")[1:]).tolist() == [1020]
    load(writer, "BTCUSDT", 20, 21)
    assert doubles(reader("last_close")[1:]).tolist() == [1021]
