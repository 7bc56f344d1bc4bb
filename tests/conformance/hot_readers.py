"""Every reader beside the fastest writer: ``python -m tests.conformance.hot_readers [--seconds 60]``.

The writer (`hot.rs`) publishes live rows, closes, late fills and restated rows without a pause. Beside it read, each in
a process of its own and all at once: this repository's reader in Rust, Python's, libcandleshm, and the reader in C
that was written from the format page alone. Every row is judged: whole, of its candle, in order. A control, the reader
in C without its look at `rev`, must tear; else the others were never under fire.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

import candleshm
from candleshm.columns import CLOSE
from tests.conformance import library_reader, outside_readers
from tests.long.stress_reads import faults
from tests.support.hot_writer import LENGTH, SYMBOLS

__all__ = ["READERS", "judged", "until_torn", "writer"]

ROOT = Path(__file__).parents[2]
READERS = ("rust", "python", "library", "outsider")
Rows = npt.NDArray[np.float64]
Ways = dict[str, Callable[[int, int], Rows | None]]
CONTROL_SECONDS = 2
CONTROL_RUNS = 60


def _rust() -> list[str]:
    """Build the writer and reader in Rust, which `make test-rust` has done, and return its path."""
    words = "cargo build --quiet --profile checked --package candleshm --example hot --message-format json"
    built = subprocess.run(words.split(), cwd=ROOT, check=True, capture_output=True, text=True)
    made = (json.loads(line) for line in built.stdout.splitlines())
    return next(
        [one["executable"]] for one in made if one.get("target", {}).get("name") == "hot" and one.get("executable")
    )


@contextmanager
def writer(name: str) -> Iterator[subprocess.Popen[str]]:
    """Run the fastest writer; its first window is there."""
    process = subprocess.Popen([*_rust(), "write", name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
        candleshm.unlink(name)


def _command(reader: str, name: str, seconds: float) -> list[str]:
    if reader == "rust":
        return [*_rust(), "read", name, str(seconds)]
    if reader == "outsider":
        return [*outside_readers.command("gcc"), "hot", f"/dev/shm/{name}", str(seconds)]
    return [sys.executable, "-m", "tests.conformance.hot_readers", "--read", reader, name, "--seconds", str(seconds)]


def judged(name: str, seconds: float) -> dict[str, dict[str, dict[str, int]]]:
    """Let all readers read at once; return what each way of each reader counted."""
    running = {
        reader: subprocess.Popen(_command(reader, name, seconds), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for reader in READERS
    }
    told = {reader: process.communicate(timeout=seconds + 120)[0] for reader, process in running.items()}
    assert {reader: process.returncode for reader, process in running.items()} == dict.fromkeys(READERS, 0)
    return {reader: json.loads(text) for reader, text in told.items()}


def until_torn(name: str) -> dict[str, dict[str, int]]:
    """Let the control read until it hands out a torn row; return its last counts."""
    command = [*outside_readers.command("gcc"), "hot", f"/dev/shm/{name}", str(CONTROL_SECONDS), "rev"]
    counts: dict[str, dict[str, int]] = {}
    for _ in range(CONTROL_RUNS):
        asked = subprocess.run(command, check=True, capture_output=True, text=True)
        counts = json.loads(asked.stdout)
        if any(way["torn"] for way in counts.values()):
            break
    return counts


@contextmanager
def _python(name: str) -> Iterator[Ways]:
    with candleshm.attach(name) as feed:
        series = [feed[symbol] for symbol in SYMBOLS]

        def view(turn: int, n: int) -> Rows | None:
            shown = series[turn % 3].view(n)
            rows = np.array(shown.array)
            return rows if shown.valid() else None

        yield {
            "candles": lambda turn, n: series[turn % 3].candles(n, holes="nan"),
            "precise": lambda turn, n: series[turn % 3].snapshot(n, holes="nan")[0],
            "view": view,
            "newest": lambda turn, n: series[turn % 3].live[None],
        }


@contextmanager
def _library(name: str) -> Iterator[Ways]:
    with library_reader.attached(name) as feed:
        assert not isinstance(feed, int)
        series = [library_reader.Series(feed, symbol.encode(), LENGTH) for symbol in SYMBOLS]

        def view(turn: int, n: int) -> Rows | None:
            rows, _, valid = series[turn % 3].view(n)
            return rows if valid else None

        yield {
            "candles": lambda turn, n: series[turn % 3].candles(n, states=False)[0],
            "precise": lambda turn, n: series[turn % 3].candles(n)[0],
            "view": view,
            "newest": lambda turn, n: series[turn % 3].newest()[0][None],
        }
        for one in series:
            one.free()


def _read(reader: str, name: str, seconds: float) -> dict[str, Counter[str]]:
    """Read in every way, in turns, and judge every row."""
    until = time.monotonic() + seconds
    turn = 0
    with {"python": _python, "library": _library}[reader](name) as ways:
        tallies = {way: Counter[str](reads=0, rows=0, torn=0, foreign=0, order=0, refused=0) for way in ways}
        while turn % 16 or time.monotonic() < until:
            for way, source in ways.items():
                rows = source(turn, LENGTH if turn % 7 == 0 else 16 + turn % 64)
                if rows is None:
                    tallies[way]["refused"] += 1
                    continue
                there = int(np.count_nonzero(~np.isnan(rows[:, CLOSE])))
                tallies[way].update(reads=1, rows=there)
                if there:
                    tallies[way].update(faults(rows[None], slots=True))
            turn += 1
    return tallies


def _table(counts: dict[str, dict[str, dict[str, int]]]) -> Iterator[str]:
    yield f"{'':20}{'reads':>12}{'rows':>14}{'torn':>8}{'foreign':>9}{'order':>8}{'refused':>9}"
    for reader, ways in counts.items():
        for way, of in ways.items():
            numbers = f"{of['reads']:>12,}{of['rows']:>14,}{of['torn']:>8,}{of['foreign']:>9,}{of['order']:>8,}"
            yield f"{reader + ' ' + way:20}{numbers}{of['refused']:>9,}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Read beside the fastest writer, with every reader.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--read", nargs=2, metavar=("READER", "NAME"), help="be one of the readers")
    arguments = parser.parse_args()
    if arguments.read:
        reader, name = arguments.read
        sys.stdout.write(json.dumps(_read(reader, name, arguments.seconds)))
        return 0
    name = f"candleshm-hot-readers-{os.getpid()}"
    with writer(name) as process:
        counts = judged(name, arguments.seconds)
        control = until_torn(name)
        alive = process.poll() is None
    sys.stdout.write("\n".join([*_table(counts), *list(_table({"control": control}))[1:]]) + "\n")
    bad = sum(of[fault] for ways in counts.values() for of in ways.values() for fault in ("torn", "foreign", "order"))
    tears = any(of["torn"] for of in control.values())
    if bad or not tears or not alive:
        sys.stdout.write(f"FAILED: {bad} bad rows, control torn: {tears}, writer alive: {alive}\n")
    return int(bool(bad) or not tears or not alive)


if __name__ == "__main__":
    sys.exit(main())
