"""D: a year and more of minutes to hours and to days, in memory.

The peers add up doubles and take every row's open, high and low; ours keeps the exchange's rule. No minute of the data
is without a trade, so that the prices agree, and are checked. `derive.rs` (cargo bench) has the live blocks' costs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from material import MINUTE_MS, FloatArray
from rounds import TORN, WHOLE, Contender, Table, Target, each, race

import candleshm
from candleshm.columns import NAMES

ROWS = 600_000
START_MS = 1_704_067_200_000
OURS, POLARS, PANDAS = "candleshm.derive", "polars group_by_dynamic", "pandas resample"
PERIODS = {"1h": ("1h", "1h"), "1d": ("1d", "1D")}
SUMS = ("volume", "quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume")


def _minutes() -> FloatArray:
    chance = np.random.default_rng(1)
    rows = np.zeros((ROWS, 12))
    rows[:, 0] = START_MS + np.arange(ROWS) * MINUTE_MS
    prices = np.round(chance.uniform(90_000, 99_000, (ROWS, 2)), 2)
    rows[:, 1], rows[:, 4] = prices.T
    rows[:, 2], rows[:, 3] = prices.max(axis=1) + 1, prices.min(axis=1) - 1
    rows[:, 5] = np.round(chance.uniform(0, 400, ROWS), 5)
    rows[:, 6] = rows[:, 0] + MINUTE_MS - 1
    rows[:, 7] = np.round(rows[:, 5] * rows[:, 4], 8)
    rows[:, 8] = chance.integers(1, 9000, ROWS)
    rows[:, 9], rows[:, 10] = np.round(rows[:, 5] / 2, 5), np.round(rows[:, 7] / 2, 8)
    return rows


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (3, 0.3) if quick else (15, 0.5)
    rows = _minutes()
    frame = pd.DataFrame(rows, columns=list(NAMES))
    frame.index = pd.DatetimeIndex(pd.to_datetime(rows[:, 0].astype(np.int64), unit="ms", utc=True))
    table = pl.DataFrame({name: np.array(rows[:, column]) for column, name in enumerate(NAMES)})
    table = table.with_columns(pl.col("open_time_ms").cast(pl.Int64).cast(pl.Datetime("ms")).alias("time"))
    for interval, (every, rule) in PERIODS.items():
        how = {"open": "first", "high": "max", "low": "min", "close": "last", **dict.fromkeys(SUMS, "sum")}
        columns = [
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            *(pl.col(name).sum() for name in SUMS),
        ]

        def ours(_: Any, interval: str = interval) -> FloatArray:
            return candleshm.derive(rows, interval)[:, 1:5]

        def polars(_: Any, every: str = every, columns: list[pl.Expr] = columns) -> pl.DataFrame:
            return table.group_by_dynamic("time", every=every).agg(columns)

        def pandas(_: Any, rule: str = rule, how: dict[str, str] = how) -> pd.DataFrame:
            return frame.resample(rule).agg(how)

        wanted = ours(None)
        contenders = [
            _contender(OURS, ours, lambda found: found, wanted),
            _contender(POLARS, polars, lambda found: found.select("open", "high", "low", "close").to_numpy(), wanted),
            _contender(PANDAS, pandas, lambda found: found[["open", "high", "low", "close"]].to_numpy(), wanted),
        ]
        yield Table(
            "D",
            f"{ROWS} rows of 1m to {interval}",
            race(contenders, [random.random()], rounds=rounds, turn_seconds=seconds),
            OURS,
            [Target("20 M source rows/s", OURS, ROWS / 20e6 * 1e9)],
        )


def _contender(
    name: str, work: Callable[[Any], Any], prices: Callable[[Any], FloatArray], wanted: FloatArray
) -> Contender:
    def judge(_: Any, found: Any) -> str:
        got = prices(found)[: len(wanted)]
        return WHOLE if np.array_equal(got, wanted) else TORN

    return Contender(name, lambda picks: [work(pick) for pick in picks], each(judge))
