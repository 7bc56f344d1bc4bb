"""W: what one answer, or one round of answers, costs the writer. 2880 candles per symbol.

The core's numbers come from `ingest.rs` (cargo bench), which merges rows that are parsed already, for readers that
may read at any moment. Of the peers only the bare array work is timed: no parsing, no reader, no lock.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from material import FloatArray, block, body_of, ingest, rows_of, symbol_name, whole
from rounds import TORN, WHOLE, Contender, Table, Target, Timing, each, race

import candleshm
from candleshm.columns import NAMES, TRADES

ROOT = Path(__file__).parent.parent
SYMBOLS = 500
LENGTH = 2880
PAGE = 1000
APPENDS_MAX = 84
CORE = "candleshm core (rows parsed already)"
INGEST = "Writer.ingest (from the bytes)"
IN_PLACE, UNIQUE = "numpy in place, no reader", "numpy concatenate + unique"
PANDAS, POLARS = "pandas concat + drop_duplicates", "polars concat + unique"
LINE = re.compile(r"^(.+?)\s+p50\s+([\d.]+) us")


def _core_runner() -> Callable[[], dict[str, float]] | None:
    """Build the core's bench; return what runs it and reads its medians (us), or None without cargo."""
    command = ["cargo", "bench", "--package", "candleshm", "--bench", "ingest", "--no-run", "--message-format=json"]
    try:
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return None
    messages = map(json.loads, built.stdout.splitlines())
    program = next(message["executable"] for message in messages if message.get("executable"))

    def medians() -> dict[str, float]:
        said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        return {match[1]: float(match[2]) for match in map(LINE.match, said.splitlines()) if match}

    return medians


def merged_numpy(old: FloatArray, page: FloatArray) -> FloatArray:
    """Merge as the numpy idiom goes: the later row of an open time wins."""
    both = np.concatenate([page, old])
    _, first = np.unique(both[:, 0], return_index=True)
    return both[first][-LENGTH:]


def merged_pandas(old: pd.DataFrame, page: pd.DataFrame) -> pd.DataFrame:
    both = pd.concat([old, page], ignore_index=True).drop_duplicates("open_time_ms", keep="last")
    return both.sort_values("open_time_ms").tail(LENGTH)


def merged_polars(old: pl.DataFrame, page: pl.DataFrame) -> pl.DataFrame:
    both = pl.concat([old, page]).unique("open_time_ms", keep="last", maintain_order=False)
    return both.sort("open_time_ms").tail(LENGTH)


def _pandas(rows: FloatArray) -> pd.DataFrame:
    return pd.DataFrame(np.array(rows), columns=list(NAMES))


def _polars(rows: FloatArray) -> pl.DataFrame:
    return pl.DataFrame({name: np.array(rows[:, column]) for column, name in enumerate(NAMES)})


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (2, 0.05) if quick else (7, 0.15)
    core = _core_runner()
    runs = [core() for _ in range(rounds)] if core else []
    name = f"candleshm-bench-merge-{os.getpid()}"
    with block(name, SYMBOLS, LENGTH) as writer, candleshm.attach(name) as feed:
        for made in (_live(writer, feed), _page(writer, feed, changed=True), _page(writer, feed, changed=False)):
            yield _table(made, runs, rounds, seconds)
        yield _table(_fill(), runs, rounds, seconds)
        # Appending moves the window on, so it comes last.
        yield _table(_append(writer, feed), runs, rounds, seconds, samples_max=APPENDS_MAX // rounds)


@dataclass(frozen=True)
class Work:
    """One kind of write: its title, its line in the core's bench, who else does it, and (text, limit, peer)."""

    title: str
    line: str
    contenders: list[Contender]
    limits: Sequence[tuple[str, float, str | None]]


def _table(work: Work, runs: list[dict[str, float]], rounds: int, seconds: float, samples_max: int = 300) -> Table:
    timings = race(work.contenders, [0], rounds=rounds, turn_seconds=seconds, samples_max=samples_max)
    if not runs:
        note = "no cargo on this machine: the core's own bench is left out"
        return Table("W", work.title, timings, work.contenders[0].name, note=note)
    timings.append(Timing(CORE, [[medians[work.line] * 1e3] for medians in runs]))
    targets = [Target(text, CORE, limit, peer) for text, limit, peer in work.limits]
    return Table("W", work.title, timings, CORE, targets)


def _contender(name: str, work: Callable[[int], Any], right: Callable[[Any], bool]) -> Contender:
    """Return the contender whose `work` is told the number of its call, counted from 1."""
    numbers = itertools.count(1)
    return Contender(
        name,
        lambda picks: [work(next(numbers)) for _ in picks],
        each(lambda _, result: WHOLE if right(result) else TORN),
    )


def _all_full(windows: Sequence[FloatArray]) -> bool:
    return all(whole(symbol, window, LENGTH) for symbol, window in enumerate(windows))


def _live(writer: Any, feed: candleshm.Feed) -> Work:
    """Every symbol's live row changes."""
    candle, live = LENGTH - 1, range(LENGTH - 1, LENGTH)
    bodies = [[body_of(symbol, live, version) for symbol in range(SYMBOLS)] for version in range(8)]
    rows = [[rows_of(symbol, live, version) for symbol in range(SYMBOLS)] for version in range(8)]
    stacked = [np.concatenate(made) for made in rows]
    arrays = np.stack([rows_of(symbol, range(LENGTH)) for symbol in range(SYMBOLS)])

    def ours(number: int) -> int:
        for symbol, body in enumerate(bodies[number % 8]):
            ingest(writer, symbol, candle, body, number)
        return number % 8

    def in_place(number: int) -> int:
        arrays[:, -1] = stacked[number % 8]
        return number % 8

    def unique(number: int) -> list[FloatArray]:
        return [merged_numpy(old, row) for old, row in zip(arrays, rows[number % 8], strict=True)]

    def right(version: int) -> bool:
        return all(np.array_equal(feed[symbol_name(s)].live, rows[version][s][0]) for s in range(SYMBOLS))

    contenders = [
        _contender(INGEST, ours, right),
        _contender(IN_PLACE, in_place, lambda version: np.array_equal(arrays[:, -1], stacked[version])),
        _contender(UNIQUE, unique, _all_full),
    ]
    return Work("500 live rows updated", "500 live rows updated", contenders, [("<= 60 us", 60_000, None)])


def _append(writer: Any, feed: candleshm.Feed) -> Work:
    """Every symbol's candle closes and the next one opens."""
    bodies = [
        [body_of(symbol, range(candle - 1, candle + 1)) for symbol in range(SYMBOLS)]
        for candle in range(LENGTH, LENGTH + APPENDS_MAX + 3 * 7)
    ]
    arrays = np.stack([rows_of(symbol, range(LENGTH)) for symbol in range(SYMBOLS)])
    rows = np.concatenate([rows_of(symbol, range(LENGTH, LENGTH + 1)) for symbol in range(SYMBOLS)])

    def ours(number: int) -> int:
        candle = LENGTH - 1 + number
        for symbol, body in enumerate(bodies[number - 1]):
            ingest(writer, symbol, candle, body)
        return candle

    def right(candle: int) -> bool:
        newest = [feed[symbol_name(symbol)].candles(3) for symbol in range(SYMBOLS)]
        return all(whole(s, window, 3) and window[-1, TRADES] == candle for s, window in enumerate(newest))

    def concatenate(_: int) -> list[FloatArray]:
        return [np.concatenate([old[1:], row[None]]) for old, row in zip(arrays, rows, strict=True)]

    contenders = [_contender(INGEST, ours, right), _contender("numpy concatenate", concatenate, _all_full)]
    line = "500 rows closed, 500 live rows opened"
    return Work("500 candles closed, 500 opened", line, contenders, [("<= 150 us", 150_000, None)])


def _fill() -> Work:
    """Three older rows of every symbol are written."""
    arrays = [rows_of(symbol, range(LENGTH)) for symbol in range(SYMBOLS)]
    fills = [rows_of(symbol, range(1000, 1003)) for symbol in range(SYMBOLS)]

    def unique(_: int) -> list[FloatArray]:
        return [merged_numpy(old, rows) for old, rows in zip(arrays, fills, strict=True)]

    line = "3 closed rows of 500 symbols corrected"
    limits = [("<= 200 us", 200_000, None)]
    return Work("3 older rows of 500 symbols written", line, [_contender(UNIQUE, unique, _all_full)], limits)


def _page(writer: Any, feed: candleshm.Feed, *, changed: bool) -> Work:
    """The newest 1000 rows of one symbol come once more, all with other values or all the same."""
    candles, symbol = range(LENGTH - PAGE, LENGTH), 0 if changed else 1
    versions = range(1, 9) if changed else range(1)
    bodies = [body_of(symbol, candles, version) for version in versions]
    old, pages = rows_of(symbol, range(LENGTH)), [rows_of(symbol, candles, version) for version in versions]
    old_frame, frames = _pandas(old), [_pandas(page) for page in pages]
    old_polars, polars = _polars(old), [_polars(page) for page in pages]
    expected = [np.concatenate([old[:-PAGE], page]) for page in pages]
    count = len(versions)
    series = feed[symbol_name(symbol)]

    def of(number: int) -> int:
        return number % count

    def ours(number: int) -> int:
        ingest(writer, symbol, LENGTH - 1, bodies[of(number)], 1000 + number)
        return of(number)

    def right(made: tuple[int, Any]) -> bool:
        return np.array_equal(np.asarray(made[1]), expected[made[0]])

    # The live update before touched the last row of every symbol, so a page's rows are compared, not the window.
    contenders = [
        _contender(INGEST, ours, lambda version: np.array_equal(series.candles(PAGE), pages[version])),
        _contender(UNIQUE, lambda number: (of(number), merged_numpy(old, pages[of(number)])), right),
        _contender(PANDAS, lambda number: (of(number), merged_pandas(old_frame, frames[of(number)])), right),
        _contender(POLARS, lambda number: (of(number), merged_polars(old_polars, polars[of(number)])), right),
    ]
    if not changed:
        limits = [("<= 1/5 of numpy", 1 / 5, UNIQUE)]
        return Work("a 1000-row page, all rows equal", "1000-row page, all equal", contenders, limits)
    limits = [("<= 0.7x numpy", 0.7, UNIQUE), ("<= 1/8 of pandas", 1 / 8, PANDAS)]
    return Work("a 1000-row page, every row changed", "1000-row page, all changed", contenders, limits)
