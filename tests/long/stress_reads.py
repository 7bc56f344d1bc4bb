"""The long proof that reads are whole: ``python -m tests.long.stress_reads [--reads 10_000_000] [--readers 2]``.

A hot writer (`hot_writer.py`) updates live rows, closes candles, skips some and fills them late, and restates
closed stretches, without a pause. Readers in processes of their own take windows in every way there is.

One *checked read* is one window or row handed out by one call and judged completely: every row holds the values of a
single write (`torn`), every row is the candle that its open time says (`foreign`), and rows ascend without a repeat,
slot by slot where a window keeps its empty slots (`order`). A window of 16 rows counts once, not 16 times; rows are
counted beside. A view counts when `valid()` vouches for it after its values were copied; a refused one is not a read.

The control reads the same memory in the same processes and asks nobody: it copies a view column by column and keeps
what `valid()` would refuse. Unless the control tears, the readers were never under fire and the run proves nothing.

Why ten million: when a fault shows in a share p of reads, a run of n without one has the probability (1 - p)^n. For
n = 10^7 that is 5 % at p = 3 x 10^-7: with 95 % confidence fewer than one read in three million is torn, while the
control, the same reads without the protocol, tears in more than one of a thousand refused windows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import candleshm
from candleshm.columns import CLOSE, OPEN_TIME_MS
from tests.support.hot_writer import LENGTH, STEP_MS, SYMBOLS
from tests.support.klines import START_MS, VALUE_COLUMNS
from tests.test_processes import hot_writer, wait_for_rows

FloatArray = npt.NDArray[np.float64]
ROWS = 16
"""Rows of the short windows; the writer restates the rows 6 to 60 back, so that long windows are restated too."""
STRETCH = 64
BATCH = 256
"""Windows that are judged at once: judging one by one would leave most of the time to NumPy's calls."""
WAYS = ("candles(16)", "candles(64, out=)", "view(64), valid", "live", "panel close", "last_close")


def faults(rows: FloatArray, *, slots: bool) -> Counter[str]:
    """Judge windows (k, n, 12) at once. With `slots` every slot has its place, NaN where it has no row."""
    values = rows[..., VALUE_COLUMNS]
    first = values[..., :1]
    present = ~np.isnan(rows[..., CLOSE])
    # `trades` is the whole part of the value, which the exchange sends as an integer.
    alike = (np.delete(values, 6, axis=-1) == first).all(axis=-1) & (values[..., 6] == np.trunc(first[..., 0]))
    bars = (rows[..., OPEN_TIME_MS] - START_MS) / STEP_MS
    own = np.floor(rows[..., CLOSE]) == bars
    if slots:
        # Every bar keeps its distance to the first slot.
        places = bars - np.arange(bars.shape[-1])
        disorder = (places != np.nanmax(places, axis=-1, keepdims=True)) & present
    else:
        disorder = np.diff(bars, axis=-1) < 1
    return Counter(
        torn=int(np.count_nonzero((~alike & present).any(axis=-1))),
        foreign=int(np.count_nonzero((~own & present).any(axis=-1))),
        order=int(np.count_nonzero(disorder.any(axis=-1))),
    )


def read(name: str, reads: int, results: Any) -> None:
    """Make `reads` checked reads, the ways in turn; report counts per way."""
    tallies = {way: Counter[str]() for way in (*WAYS, "control")}
    seconds = dict.fromkeys(WAYS, 0.0)
    with candleshm.attach(name) as feed:
        series = [feed[symbol] for symbol in SYMBOLS]
        sources: dict[str, Callable[[int], Counter[str]]] = {
            "candles(16)": lambda turn: _windows(series[turn % 3], ROWS),
            "candles(64, out=)": lambda turn: _windows(series[turn % 3], STRETCH),
            "view(64), valid": lambda turn: _views(series[turn % 3], tallies["control"]),
            "live": lambda turn: _lives(series[turn % 3]),
            "panel close": lambda _: _panels(feed),
            "last_close": lambda turn: _closes(series[turn % 3]),
        }
        turn = done = 0
        while done < reads:
            for way, source in sources.items():
                started = time.perf_counter()
                tally = source(turn)
                tallies[way] += tally
                done += tally["reads"]
                seconds[way] += time.perf_counter() - started
            turn += 1
    results.put((tallies, seconds))


def _tally(rows: FloatArray, *, slots: bool = False) -> Counter[str]:
    return Counter(reads=len(rows), rows=int(np.count_nonzero(~np.isnan(rows[..., CLOSE])))) + faults(rows, slots=slots)


def _windows(series: candleshm.Series, count: int) -> Counter[str]:
    """Copies onto memory of our own. Windows with a missing slot are shorter: their tail is left out of the judging."""
    batch = np.empty((BATCH, count, 12))
    tally: Counter[str] = Counter()
    whole = 0
    for _ in range(BATCH):
        got = series.candles(count, out=batch[whole])
        if len(got) == count:
            whole += 1
        else:
            tally += _tally(got[None].copy())
    return tally + _tally(batch[:whole])


def _lives(series: candleshm.Series) -> Counter[str]:
    return _tally(np.stack([series.live for _ in range(BATCH)])[:, None])


def _closes(series: candleshm.Series) -> Counter[str]:
    """A close tells its bar only: it never goes back, since a bar's live value only grows until it is closed."""
    closes = np.array([series.last_close for _ in range(BATCH)])
    return Counter(reads=BATCH, rows=BATCH, order=int(np.count_nonzero(np.diff(np.floor(closes)) < 0)))


def _views(series: candleshm.Series, control: Counter[str]) -> Counter[str]:
    """Views copied column by column, as a strategy computes; the refused ones are what the control hands out."""
    vouched: list[FloatArray] = []
    refused: list[FloatArray] = []
    for _ in range(BATCH):
        view = series.view(STRETCH)
        copy = np.array([view.array[:, column] for column in range(12)]).T
        (vouched if view.valid() else refused).append(copy)
    control += Counter(refused=len(refused))
    for group, tally in ((refused, control), (vouched, found := Counter[str]())):
        whole = [copy for copy in group if len(copy) == STRETCH]
        if whole:
            tally += _tally(np.stack(whole), slots=True)
    return found


def _panels(feed: candleshm.Feed) -> Counter[str]:
    """Every value of a panel is of its row's candle, the same for every symbol."""
    tally: Counter[str] = Counter()
    for _ in range(BATCH // 4):
        panel = feed.panel("close", ROWS)
        bars = (panel.open_time_ms - START_MS) / STEP_MS
        wrong = (np.floor(panel.array) != bars[:, None]) & ~np.isnan(panel.array)
        late = (np.diff(bars) != 1).any()
        tally += Counter(reads=1, rows=panel.array.size, foreign=int(wrong.any()), order=int(late))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="Read under fire, many millions of times, and judge every read.")
    parser.add_argument("--reads", type=int, default=10_000_000, help="checked reads in total (default: 10 million)")
    parser.add_argument("--readers", type=int, default=2, help="reading processes (default: 2)")
    arguments = parser.parse_args()
    name = f"candleshm-stress-{os.getpid()}"
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    started = time.monotonic()
    totals = {way: Counter[str]() for way in (*WAYS, "control")}
    seconds = dict.fromkeys(WAYS, 0.0)
    with hot_writer(name) as (writer, _):
        try:
            with candleshm.attach(name) as feed:
                wait_for_rows(feed)
                first = feed[SYMBOLS[0]].last_open_time_ms or 0
                share = -(-arguments.reads // arguments.readers)
                readers = [
                    context.Process(target=read, args=(name, share, results), daemon=True)
                    for _ in range(arguments.readers)
                ]
                for reader in readers:
                    reader.start()
                for _ in readers:
                    tallies, spent = results.get()
                    for way, tally in tallies.items():
                        totals[way] += tally
                    for way, more in spent.items():
                        seconds[way] += more
                candles = ((feed[SYMBOLS[0]].last_open_time_ms or 0) - first) // STEP_MS
                revisions = feed[SYMBOLS[0]].revision
                alive = writer.poll() is None
        finally:
            writer.kill()
            writer.wait(30)
            candleshm.unlink(name)
    total = sum(totals[way]["reads"] for way in WAYS)
    elapsed = time.monotonic() - started
    lines = [
        _table(totals, seconds),
        f"{total:,} checked reads in {elapsed:.0f} s by {arguments.readers} processes, while the writer closed "
        f"{candles:,} candles of {LENGTH} per symbol and corrected {revisions:,} closed rows of the first",
    ]
    control = totals["control"]
    bad = sum(totals[way][fault] for way in WAYS for fault in ("torn", "foreign", "order"))
    if bad:
        lines.append(f"FAILED: {bad} reads were not whole")
    if not control["torn"]:
        lines.append(f"FAILED: the control did not tear in {control['refused']} windows, so nothing was proven")
    if not alive:
        lines.append("FAILED: the writer died")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(bool(bad) or not control["torn"] or not alive)


def _table(totals: dict[str, Counter[str]], seconds: dict[str, float]) -> str:
    lines = [f"{'':18}{'reads':>12}{'rows':>14}{'torn':>8}{'foreign':>9}{'order':>8}{'seconds':>9}"]
    for way, tally in totals.items():
        numbers = f"{tally['reads']:>12,}{tally['rows']:>14,}{tally['torn']:>8,}{tally['foreign']:>9,}"
        lines.append(f"{way:18}{numbers}{tally['order']:>8,}{seconds.get(way, 0):>9.0f}")
    lines.append(f"the control keeps the {totals['control']['refused']:,} views that valid() refused")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
