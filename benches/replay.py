"""Replays: candles published, closes handed to a strategy, and one strategy beside backtesting.py, vectorbt and pandas.

    python benches/replay.py [--quick] [--cpu] [--only publish|closes|strategy]

With `--cpu` times are those that the CPUs spent on the process, for a machine that does other things beside it; threads
that read files ahead count there, which the clock does not see.

The strategy is one that every library can express: long while the mean of the last 20 closes is above that of the last
50, traded at the close that decides. All have to make the same trades, or the run fails. Prices are whole numbers, so
that means are the same whatever order they are added in. Everyone reads the same daily files, outside the time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rounds import WHOLE, Table, Target, Timing, WrongAnswer, printed

import candleshm
from candleshm._core import Replay, Zone
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day, Grid
from candleshm.history.store import ParquetStore

FAST, SLOW = 20, 50
FIRST = date(2025, 1, 1)
PANEL_ROWS = 60
OURS_PUBLISH, OURS_CORE = "replay.run(), files read", "rows from memory"
OURS_CLOSES, OURS_PANEL = "closes() alone", "closes() and a panel"
OURS_REPLAY, OURS_NUMPY = "candleshm.replay", "NumPy over history.load"
CLOCK = [time.perf_counter]
Trades = list[tuple[int, float, int, float]]
"""Open times of the candles at whose closes a position was opened and closed, with the prices."""


def seconds_now() -> float:
    """Return the time by the clock that was chosen."""
    return CLOCK[0]()


def stored(directory: Path, symbols: int, days: int) -> tuple[list[str], str, str]:
    """Write days of 1m for so many symbols; return the symbols, the first and the last day."""
    store = ParquetStore(directory, "SPOT", "1m", Zone("UTC"))
    names = [f"S{number:03}USDT" for number in range(symbols)]
    chance = np.random.default_rng(5)
    with store.writing():
        for name in names:
            price = 50_000.0
            for number in range(days):
                day = Day(FIRST + timedelta(days=number), Zone("UTC"))
                grid = Grid.of(day, "1m")
                rows = np.zeros((grid.count, 12))
                rows[:, 0] = grid.first_ms + np.arange(grid.count) * grid.length_ms
                rows[:, 6] = rows[:, 0] + grid.length_ms - 1
                rows[:, 4] = np.maximum(price + np.cumsum(chance.integers(-30, 31, grid.count)), 1000)
                rows[:, 1] = np.concatenate(([price], rows[:-1, 4]))
                rows[:, 2], rows[:, 3] = rows[:, [1, 4]].max(axis=1), rows[:, [1, 4]].min(axis=1)
                rows[:, [5, 7, 8, 9, 10]] = chance.integers(1, 1000, (grid.count, 5))
                price = float(rows[-1, 4])
                facts: dict[str, Any] = {"market": "SPOT", "symbol": name, "interval": "1m", "day": day, "rows": rows}
                store.write(DayCandles(**facts, source="exchange", fetched_ms=day.end_ms))
    return names, str(FIRST), str(FIRST + timedelta(days=days - 1))


def measured(rounds: int, works: dict[str, Callable[[], tuple[float, int, int]]]) -> list[Timing]:
    """Let each work run once a round; it returns its seconds, how much it did, and how many results it checked."""
    timings = {name: Timing(name) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds, count, checked = work()
            timings[name].rounds.append([seconds * 1e9 / count])
            timings[name].verdicts[WHOLE] += checked
    return list(timings.values())


def publish(*, quick: bool) -> Iterator[Table]:
    """Candles a second without a reader: of rows that were read before, and with the files read and checked."""
    symbols, days = 100, 2 if quick else 5

    def run() -> tuple[float, int, int]:
        with candleshm.replay(directory, "SPOT", names, "1m", start, end) as replay:
            began = seconds_now()
            replay.run()
            seconds = seconds_now() - began
            newest = [replay.feed[name].last_open_time_ms for name in names]
            if newest != [replay.end_ms - 60_000] * symbols:
                raise WrongAnswer(f"the newest candles are {set(newest)}")
            return seconds, symbols * days * 1440, symbols

    def load() -> tuple[float, int, int]:
        began = seconds_now()
        rows = sum(len(candleshm.history.load("SPOT", name, start, end, base_dir=directory)) for name in names)
        return seconds_now() - began, rows, symbols

    def given() -> tuple[float, int, int]:
        """Publish rows that lie in memory, by the core alone."""
        loaded = {name: candleshm.history.load("SPOT", name, start, end, base_dir=directory) for name in names}
        states = np.full(days * 1440, candleshm.RowState.CLOSED, np.uint8)
        start_ms, end_ms = int(loaded[names[0]][0, 0]), int(loaded[names[0]][-1, 0]) + 60_000

        def more(_: int) -> int:
            for name, rows in loaded.items():
                core.give(name, rows, states)
            return end_ms

        config: dict[str, Any] = {"market": "SPOT", "interval": "1m", "length": 2880, "symbols": names}
        core = Replay(f"bench-replay-{os.getpid()}", **config, start_ms=start_ms, end_ms=end_ms, more=more)
        try:
            core.begin(0)
            began = seconds_now()
            core.run()
            return seconds_now() - began, symbols * days * 1440, symbols
        finally:
            core.close()

    with tempfile.TemporaryDirectory() as directory:
        names, start, end = stored(Path(directory), symbols, days)
        timings = measured(2 if quick else 5, {OURS_PUBLISH: run, OURS_CORE: given, "history.load alone": load})
    targets = [Target(f"1 M candles a second, {name}", name, 1000.0) for name in (OURS_CORE, OURS_PUBLISH)]
    yield Table("Y", f"{symbols} symbols x {days * 1440} candles published; a candle", timings, OURS_PUBLISH, targets)


def closes(*, quick: bool) -> Iterator[Table]:
    """Closes a second with one Python consumer in the same process, alone and with a panel of all symbols at each."""
    for symbols in (1, 100):
        with tempfile.TemporaryDirectory() as directory:
            days = 2 if quick else 5
            names, start, end = stored(Path(directory), symbols, days)
            works = {
                name: partial(consume, directory, names, (start, end), days * 1440 - PANEL_ROWS, reads=reads)
                for name, reads in ((OURS_CLOSES, False), (OURS_PANEL, True))
            }
            timings = measured(2 if quick else 5, works)
        # Each symbol closes a candle at each moment.
        target = Target("30,000 candles closed a second", OURS_PANEL, symbols * 1e9 / 30_000)
        yield Table(
            "Y",
            f"closes of {symbols} symbols, files read meanwhile; a moment",
            timings,
            OURS_PANEL,
            [target],
            moments(symbols, timings),
        )


def consume(
    directory: str, names: list[str], span: tuple[str, str], expected: int, *, reads: bool
) -> tuple[float, int, int]:
    """Wait for every close, and read a panel at each or not."""
    count = 0
    start, end = span
    with candleshm.replay(directory, "SPOT", names, "1m", f"{start}T01:00", end, warm=PANEL_ROWS) as replay:
        feed, began = replay.feed, seconds_now()
        with contextlib.suppress(candleshm.ReplayEnded):
            for closed in feed.closes():
                count += 1
                if reads and feed.panel("close", n=PANEL_ROWS).open_time_ms[-1] != closed.open_time_ms:
                    raise WrongAnswer(f"the panel at {closed.open_time_ms} does not end there")
        seconds = seconds_now() - began
    if count != expected:
        raise WrongAnswer(f"{count} closes instead of {expected}")
    return seconds, count, count


def moments(symbols: int, timings: list[Timing]) -> str:
    """Say how many moments a second are, and how many candles close in them."""
    said = []
    for timing in timings:
        rate = 1e9 / timing.p50
        said.append(f"{timing.name}: {rate:,.0f} moments/s, {rate * symbols:,.0f} candles closed/s")
    return "; ".join(said)


def strategy(*, quick: bool) -> Iterator[Table]:
    """One moving-average strategy on one symbol, the same trades from everyone."""
    days = 14 if quick else 70
    with tempfile.TemporaryDirectory() as directory:
        names, start, end = stored(Path(directory), 1, days)
        rows = candleshm.history.load("SPOT", names[0], start, end, base_dir=directory)
        expected = vectorised(rows)
        peers = {
            OURS_NUMPY: lambda: vectorised(rows),
            "pandas, a loop over rows": lambda: pandas_loop(rows),
            "backtesting.py": lambda: backtesting_py(rows),
            "vectorbt": lambda: vectorbt(rows),
        }
        works: dict[str, Callable[[], tuple[float, int, int]]] = {
            OURS_REPLAY: lambda: checked(expected, lambda: replayed(directory, names[0], start, end), len(rows))
        }
        for name, peer in peers.items():
            peer()  # imports, and what vectorbt compiles
            works[name] = lambda peer=peer: checked(expected, peer, len(rows))  # type: ignore[misc]
        timings = measured(2 if quick else 5, works)
    note = f"{len(expected)} trades, the same from everyone; the replay reads its files meanwhile, the others before"
    yield Table("Y", f"a moving-average strategy over {len(rows)} candles; a candle", timings, OURS_REPLAY, (), note)


def checked(expected: Trades, work: Callable[[], Trades], count: int) -> tuple[float, int, int]:
    """Time a backtest and compare its trades."""
    began = seconds_now()
    trades = work()
    seconds = seconds_now() - began
    if trades != expected:
        raise WrongAnswer(f"{len(trades)} trades instead of {len(expected)}, or others: {trades[:2]} {expected[:2]}")
    return seconds, count, len(trades)


def replayed(directory: str, symbol: str, start: str, end: str) -> Trades:
    """Wait for closes and read what a live strategy reads."""
    trades, opened = [], None
    with candleshm.replay(directory, "SPOT", [symbol], "1m", start, end) as replay:
        series = replay.feed[symbol]
        with contextlib.suppress(candleshm.ReplayEnded):
            for closed in replay.feed.closes():
                prices = series.candles(SLOW, closed_only=True)[:, candleshm.CLOSE]
                is_long = len(prices) == SLOW and prices[-FAST:].sum() / FAST > prices.sum() / SLOW
                if is_long and opened is None:
                    opened = (closed.open_time_ms, float(prices[-1]))
                elif not is_long and opened is not None:
                    trades.append((*opened, closed.open_time_ms, float(prices[-1])))
                    opened = None
    return trades


def vectorised(rows: np.ndarray[Any, Any]) -> Trades:
    """The whole past at once: nothing but care keeps the future out."""
    closes = rows[:, candleshm.CLOSE]
    sums = np.concatenate(([0.0], np.cumsum(closes)))
    is_long = np.zeros(len(closes), bool)
    is_long[SLOW - 1 :] = (sums[SLOW:] - sums[SLOW - FAST : -FAST]) / FAST > (sums[SLOW:] - sums[:-SLOW]) / SLOW
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_long))))
    return [
        (int(rows[start, 0]), float(closes[start]), int(rows[stop, 0]), float(closes[stop]))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=False)
    ]


def _frame(rows: np.ndarray[Any, Any]) -> Any:
    import pandas as pd

    frame = pd.DataFrame(rows[:, 1:6], columns=["Open", "High", "Low", "Close", "Volume"])
    frame.index = pd.to_datetime(rows[:, 0].astype(np.int64), unit="ms", utc=True).tz_localize(None)
    return frame


def pandas_loop(rows: np.ndarray[Any, Any]) -> Trades:
    """Rolling means beforehand, then one row after the other."""
    frame = _frame(rows)
    frame["Fast"], frame["Slow"] = frame["Close"].rolling(FAST).mean(), frame["Close"].rolling(SLOW).mean()
    frame["Time"] = rows[:, 0].astype(np.int64)
    trades, opened = [], None
    for row in frame.itertuples(index=False):
        is_long = row.Fast > row.Slow
        if is_long and opened is None:
            opened = (row.Time, row.Close)
        elif not is_long and opened is not None:
            trades.append((*opened, row.Time, row.Close))
            opened = None
    return trades


def backtesting_py(rows: np.ndarray[Any, Any]) -> Trades:
    """Bar by bar, with means that were computed before."""
    from backtesting import Backtest, Strategy, backtesting
    from pandas import Series

    class Averages(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.fast = self.I(lambda prices: Series(prices).rolling(FAST).mean(), self.data.Close)
            self.slow = self.I(lambda prices: Series(prices).rolling(SLOW).mean(), self.data.Close)

        def next(self) -> None:
            is_long = self.fast[-1] > self.slow[-1]
            if is_long and not self.position:
                self.buy()
            elif not is_long and self.position:
                self.position.close()

    backtesting._tqdm = lambda sequence, **_: sequence  # no bar
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Backtest(_frame(rows), Averages, cash=1e9, trade_on_close=True).run()["_trades"]
    columns = [rows[found[name].to_numpy(), 0].astype(np.int64).tolist() for name in ("EntryBar", "ExitBar")]
    return list(zip(columns[0], found["EntryPrice"].tolist(), columns[1], found["ExitPrice"].tolist(), strict=True))


def vectorbt(rows: np.ndarray[Any, Any]) -> Trades:
    """All signals as arrays, orders by compiled code."""
    import vectorbt as vbt

    closes = _frame(rows)["Close"]
    is_long = closes.rolling(FAST).mean() > closes.rolling(SLOW).mean()
    portfolio = vbt.Portfolio.from_signals(closes, is_long, ~is_long, init_cash=1e9, freq="1min")
    found = portfolio.trades.records
    found = found[found["status"] == 1]
    times = [rows[found[name].to_numpy(), 0].astype(np.int64).tolist() for name in ("entry_idx", "exit_idx")]
    return list(zip(times[0], found["entry_price"].tolist(), times[1], found["exit_price"].tolist(), strict=True))


PARTS = {"publish": publish, "closes": closes, "strategy": strategy}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast replays are, and one strategy beside its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer candles and rounds")
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of the clock's")
    parser.add_argument("--only", choices=tuple(PARTS), help="one part")
    options = parser.parse_args()
    if options.cpu:
        CLOCK[0] = time.process_time
    for name, part in PARTS.items():
        if options.only in (None, name):
            for table in part(quick=options.quick):
                print(printed(table))


if __name__ == "__main__":
    main()
