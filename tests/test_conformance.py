"""Every reader finds in the recorded blocks what `tests/conformance/cases` says, and tears nothing under fire."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import generator, hot_readers, library_reader, outside_readers, python_reader
from tests.conformance.image import BOOT_ID

ROOT = Path(__file__).parent.parent
SHM = Path("/dev/shm")
CASES = sorted(path.stem for path in generator.CASES.glob("*.json"))


def case_of(name: str) -> dict[str, Any]:
    return json.loads((generator.CASES / f"{name}.json").read_text())  # type: ignore[no-any-return]


def place(name: str, block_name: str) -> dict[str, Any]:
    """Put the block of a case under a name, as written since this machine was started; return the reading expected."""
    case = case_of(name)
    image = generator.patched((generator.BLOCKS / case["block"]).read_bytes(), case)
    digits = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    for half, recorded in enumerate(BOOT_ID):
        at = 160 + 8 * half
        if image[at : at + 8] == struct.pack("<Q", recorded):
            image[at : at + 8] = struct.pack("<Q", int(digits[16 * half : 16 * half + 16], 16))
    (SHM / block_name).write_bytes(image)
    return case["reading"]  # type: ignore[no-any-return]


def differences(expected: Any, got: Any, path: str = "") -> list[str]:
    """Say where a reading differs; it may leave keys out, but not invent any. NaN is null in JSON."""
    if isinstance(got, dict) and isinstance(expected, dict):
        return [
            line
            for key, value in got.items()
            for line in (
                differences(expected[key], value, f"{path}.{key}")
                if key in expected
                else [f"{path}.{key}: not expected"]
            )
        ]
    if isinstance(got, list) and isinstance(expected, list) and len(got) == len(expected):
        return [
            line
            for index, pair in enumerate(zip(expected, got, strict=True))
            for line in differences(*pair, f"{path}[{index}]")
        ]
    if expected == got or (expected is None and isinstance(got, float) and math.isnan(got)):
        return []
    return [f"{path}: expected {expected!r}, got {got!r}"]


def test_the_recorded_blocks_are_what_the_generator_writes() -> None:
    recorded = {path.stem: path.read_bytes() for path in generator.BLOCKS.iterdir()}
    assert recorded == generator.blocks()
    assert {name: (generator.CASES / f"{name}.json").read_text() for name in CASES} == {
        name: generator.text_of(case) for name, case in generator.cases().items()
    }


def test_a_block_of_each_minor_is_kept() -> None:
    (line,) = (
        line for line in (ROOT / "rust/candleshm/src/layout.rs").read_text().splitlines() if "ABI_MINOR: u32" in line
    )
    newest = int(line.split("=")[1].strip(" ;"))
    kept = {case_of(name)["reading"].get("minor") for name in CASES}
    assert set(range(newest + 2)) <= kept


@pytest.mark.parametrize("name", CASES)
def test_python_reads(name: str, block_name: str) -> None:
    expected = place(name, block_name)
    got = python_reader.read(block_name)
    assert differences(expected, got) == []
    assert got["open"] == "ok" or expected == got


@pytest.mark.parametrize("name", CASES)
def test_libcandleshm_reads(name: str, block_name: str) -> None:
    expected = place(name, block_name)
    got = library_reader.read(block_name)
    assert differences(expected, got) == []
    assert got["open"] == "ok" or expected == got


@pytest.mark.parametrize("reader", [*outside_readers.READERS, pytest.param("aarch64", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_a_reader_from_the_page_alone_reads(reader: str, name: str, block_name: str) -> None:
    expected = place(name, block_name)
    asked = subprocess.run(
        [*outside_readers.command(reader), "read", SHM / block_name], capture_output=True, text=True, check=False
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    got = json.loads(asked.stdout)
    assert differences(expected, got) == []
    assert got["open"] == "ok" or expected == got


def test_a_reader_from_the_page_alone_is_not_held_by_a_pipe(block_name: str) -> None:
    os.mkfifo(SHM / block_name)
    command = [*outside_readers.command("gcc"), "read", str(SHM / block_name)]
    asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(asked.stdout) == {"open": "corrupt"}


def test_a_reader_from_the_page_alone_wakes_up_when_a_candle_closes(block_name: str) -> None:
    with hot_readers.writer(block_name):
        command = [*outside_readers.command("gcc"), "wait", str(SHM / block_name), "60"]
        first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    # A close of one symbol wakes it; the others may stand where they stood.
    assert any(int(later) > int(bar) for bar, later in zip(first.split(), second.split(), strict=True))


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_all_readers_read_whole_rows_beside_the_fastest_writer(seconds: float, block_name: str) -> None:
    with hot_readers.writer(block_name) as writer:
        counts = hot_readers.judged(block_name, seconds)
        control = hot_readers.until_torn(block_name)
        assert writer.poll() is None
    assert set(counts) == set(hot_readers.READERS)
    for reader, ways in counts.items():
        for way, of in ways.items():
            assert of["rows"] > 0, (reader, way)
            assert (of["torn"], of["foreign"], of["order"]) == (0, 0, 0), (reader, way)
    assert any(of["torn"] for of in control.values()), "the readers were never under fire"
