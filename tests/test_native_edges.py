"""What C and C++ callers may do wrong or late, and places of symbols that another block orders otherwise."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from tests.support.apt import installed
from tests.support.native import PROGRAMS, compiled
from tests.support.replaying import MINUTE_MS, START_MS, Given, made, row_of
from tests.test_panel import LENGTH, load

UNKNOWN_SYMBOL = -5


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=["BTCUSDT", "ETHUSDT"])
    for symbol in writer.symbols:
        load(writer, symbol, 0, 20)
    writer.heartbeat()
    yield writer
    writer.close()


def printed(program: Path, name: str) -> list[str]:
    result = subprocess.run([program, name], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_a_caller_in_c_that_is_wrong_or_late(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"gcc": "gcc"})
    lines = printed(compiled("gcc", PROGRAMS / "edges.c", tmp_path), writer.name)
    assert lines == [
        "pointers: -10 -10 -10 -10, NULL",
        "message: kept",
        "negative: CSHM_ARGUMENT",
        # The values of the thread have ended before: it reads all the same.
        "at exit: 0 4",
    ]


def test_what_was_moved_from_in_cpp_is_empty(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"g++": "g++"})
    assert printed(compiled("g++", PROGRAMS / "moved.cpp", tmp_path), writer.name) == ["0 5, 0 5"]


def test_a_reader_in_c_takes_part_in_a_replay_and_learns_that_it_ended(block_name: str, tmp_path: Path) -> None:
    installed({"gcc": "gcc"})
    program = compiled("gcc", PROGRAMS / "ended.c", tmp_path)
    replay = made(block_name, Given(["BTCUSDT", "ETHUSDT"]), 90, warm_rows=1)
    try:
        closes, end, again, row = printed(program, block_name)
    finally:
        replay.close()
    newest_ms = START_MS + 89 * MINUTE_MS
    assert closes == f"closes: 90, the newest at {newest_ms}"
    assert end.startswith("end: CSHM_ENDED, ")
    assert block_name in end
    assert again == "another wait: CSHM_ENDED"
    assert row == f"still there: 0 {row_of(newest_ms)[4]:.1f}"


def test_places_that_have_other_symbols_are_refused_until_they_are_asked_for(
    writer: _core.Writer, block_name: str
) -> None:
    library = ctypes.CDLL(candleshm.library())
    library.cshm_panel.restype = library.cshm_last.restype = library.cshm_symbol_count.restype = ctypes.c_int64
    library.cshm_wait_closed.restype = ctypes.c_int64
    library.cshm_last_message.restype = ctypes.c_char_p
    feed, values, missing = ctypes.c_void_p(), (ctypes.c_double * 2)(), (ctypes.c_uint8 * 2)()

    def answers() -> list[int]:
        return [
            library.cshm_last(feed, 4, values, ctypes.c_size_t(2)),
            library.cshm_panel(feed, 4, ctypes.c_size_t(1), 0, values, None),
            library.cshm_wait_closed(feed, ctypes.c_int64(0), ctypes.c_double(1.0), ctypes.c_double(0.0), missing),
        ]

    assert library.cshm_attach(block_name.encode(), ctypes.c_double(0.0), ctypes.byref(feed)) == 0
    assert library.cshm_symbol_count(feed) == 2
    assert answers()[:2] == [2, 1]
    writer.close()
    other = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=["ETHUSDT", "BTCUSDT"])
    try:
        for symbol in other.symbols:
            load(other, symbol, 0, 20)
        other.heartbeat()
        assert answers() == [UNKNOWN_SYMBOL] * 3
        assert b"other symbols in these places" in library.cshm_last_message()
        assert library.cshm_symbol_count(feed) == 2
        assert answers()[:2] == [2, 1]
    finally:
        library.cshm_detach(feed)
        other.close()
