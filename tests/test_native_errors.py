"""Every error of candleshm.h, with the message of Python's exception; and whatever cannot be used is refused."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE
from tests.support.apt import installed
from tests.support.native import PROGRAMS, Reader, compiled
from tests.test_native_reading import RAISE
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms

SHM = Path("/dev/shm")
STRANGER = 65534
ABI_MAJOR = 8
"""Where it lies in the header."""


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
    load(writer, "BTCUSDT", 0, 20, leave_out=(12, 13))
    writer.heartbeat()
    yield writer
    writer.close()


@pytest.fixture
def reader(program: Path) -> Iterator[Reader]:
    with Reader(program) as reader:
        yield reader


def raised(call: Callable[[], object], error: type[candleshm.CandleShmError]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_a_name_without_a_block(reader: Reader, block_name: str) -> None:
    name, message = reader.error("attach", block_name, 0)
    assert name == "CSHM_NOT_FOUND"
    assert block_name in message


def change(name: str, offset: int, value: bytes) -> None:
    with (SHM / name).open("r+b") as file:
        file.seek(offset)
        file.write(value)


@pytest.mark.parametrize(
    ("spoil", "name", "error"),
    [
        (lambda name: change(name, ABI_MAJOR, b"\x09"), "CSHM_INCOMPATIBLE", candleshm.BlockIncompatible),
        (lambda name: change(name, 0, b"X"), "CSHM_CORRUPT", candleshm.BlockCorrupt),
        (lambda name: os.truncate(SHM / name, 8192), "CSHM_CORRUPT", candleshm.BlockCorrupt),
    ],
)
def test_a_block_that_cannot_be_read(
    writer: _core.Writer,
    reader: Reader,
    spoil: Callable[[str], None],
    name: str,
    error: type[candleshm.CandleShmError],
) -> None:
    copy = f"{writer.name}-copy"
    (SHM / copy).write_bytes((SHM / writer.name).read_bytes())
    spoil(copy)
    message = raised(lambda: candleshm.attach(copy), error)
    assert reader.error("attach", copy, 0) == (name, message)


def test_a_block_of_another_user(writer: _core.Writer, reader: Reader) -> None:
    copy = SHM / f"{writer.name}-copy"
    copy.write_bytes((SHM / writer.name).read_bytes())
    if os.getuid() == 0:
        os.chown(copy, STRANGER, STRANGER)
    else:
        copy.chmod(0)
    message = raised(lambda: candleshm.attach(copy.name), candleshm.BlockUnavailable)
    name, said = reader.error("attach", copy.name, 0)
    assert name == "CSHM_UNAVAILABLE"
    assert message.split("`")[1] in said


def test_a_block_that_is_shared_with_a_group_is_believed(
    writer: _core.Writer, in_c: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = SHM / f"{writer.name}-copy"
    copy.write_bytes((SHM / writer.name).read_bytes())
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    copy.chmod(0o640)
    os.chown(copy, STRANGER, 12345)
    monkeypatch.setenv("CANDLESHM_GROUP", "12345")
    with Reader(in_c) as reader:
        assert reader("attach", copy.name, 0) == ["0"]
    monkeypatch.setenv("CANDLESHM_GROUP", "54321")
    with Reader(in_c) as reader:
        assert reader.error("attach", copy.name, 0)[0] == "CSHM_UNAVAILABLE"


def test_a_symbol_that_the_block_does_not_carry(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    message = raised(lambda: candleshm.attach(writer.name)["NOPE"], candleshm.UnknownSymbol)
    name, said = reader.error("series", "NOPE")
    assert name == "CSHM_UNKNOWN_SYMBOL"
    assert "NOPE" in said
    assert "NOPE" in message


def test_data_that_is_too_old_and_what_says_so(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0.05)
    reader("series", "BTCUSDT")
    deadline = time.monotonic() + 10
    while float(reader("age")[1]) <= 0.06 and time.monotonic() < deadline:
        time.sleep(0.005)
    calls = ["last_close", "live", f"column {CLOSE} 4 0", "candles 4 0 4 1", "view 4", f"last {CLOSE} 3"]
    for call in (*calls, f"panel {CLOSE} 4 0 3", "wait_open 0 5", "wait_closed 0 1 5"):
        name, message = reader.error(call)
        assert name == "CSHM_STALE"
        assert re.search(r"is stale: last confirmed \d+\.\d s ago, the limit is 0.05 s", message), (call, message)
    assert reader("gaps", 1)[0] == "1"
    assert int(reader("last_open_ms")[0]) == open_ms(20)
    assert reader("revision") == ["0"]
    writer.set_trading("BTCUSDT", False)
    load(writer, "BTCUSDT", 20, 21)
    assert "no longer trades" in reader.error("last_close")[1]


def test_waits_in_vain(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    reader("series", "BTCUSDT")
    assert reader.error("wait_open", 0, 0.05) == ("CSHM_TIMEOUT", "no newer candle of BTCUSDT within 0.05 s")
    name, message = reader.error("wait_closed", open_ms(20), 1, 0.05)
    assert name == "CSHM_TIMEOUT"
    assert message.startswith("no close within 0.05 s: 0 of 1 symbols have the candle of ")
    assert reader.error("interrupted_wait", 0.2) == ("CSHM_TIMEOUT", "the wait was interrupted")


def test_a_wait_for_closes_names_who_is_late(writer: _core.Writer, in_c: Path) -> None:
    load(writer, "NEWUSDT", 0, 10)
    with Reader(in_c) as reader:
        reader("attach", writer.name, 0)
        marks = reader.tried("wait_closed", open_ms(15), 1, 0.05)[-3:]
        assert marks == ["0", "0", "1"]
        assert reader("wait_closed", open_ms(15), 0.5, 5) == [str(open_ms(15)), "|", "0", "0", "1"]


def test_a_row_that_is_missing_where_none_may_be(writer: _core.Writer, reader: Reader) -> None:
    reader("attach", writer.name, 0)
    reader("series", "BTCUSDT")
    series = candleshm.attach(writer.name)["BTCUSDT"]
    message = raised(lambda: series.candles(16, holes="raise"), candleshm.GapError)
    for call in (f"candles 16 {RAISE} 16 1", f"column {CLOSE} 16 {RAISE}"):
        assert reader.error(call) == ("CSHM_GAP", message)
    assert reader("candles", 4, RAISE, 4, 1)[0] == "4"


def test_whatever_cannot_be_used_is_refused(writer: _core.Writer, in_c: Path) -> None:
    with Reader(in_c) as reader:
        reader("attach", writer.name, 0)
        reader("series", "BTCUSDT")
        for call in ("nulls", "arguments"):
            count, *codes = reader(call)
            assert set(codes) == {"-10"}
            assert len(codes) == int(count)


def test_a_latch_that_never_holds_still(writer: _core.Writer, folder: Path) -> None:
    program = compiled("gcc", PROGRAMS / "contender.c", folder)
    words = [str(program), writer.name, "BTCUSDT"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "CSHM_CONTENDED the newest row changed during every attempt to read it\n"


def test_every_error_has_its_name(in_c: Path) -> None:
    header = (Path(candleshm.include()) / "candleshm.h").read_text()
    codes = re.findall(r"^    (CSHM_\w+) = (-?\d+)", header, re.MULTILINE)
    assert len(codes) == 14
    with Reader(in_c) as reader:
        for name, code in codes:
            assert reader.tried("error_name", code) == [name]
        assert reader.tried("error_name", 1) == reader.tried("error_name", -14) == ["unknown"]
        assert reader.tried("error_name", -(2**31)) == ["unknown"]
