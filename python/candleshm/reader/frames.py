"""Candles as data frames: pandas, polars, arrow. The libraries are imported on use."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from candleshm.columns import NAMES
from candleshm.errors import MissingExtra

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas
    import polars
    import pyarrow

# The columns of a frame: all but the one that the exchange says to ignore.
SHOWN = NAMES[1:-1]


def library(name: str, extra: str) -> ModuleType:
    """Import a library of an extra. Raises MissingExtra, which names the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(name, extra) from error


def times(open_time_ms: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Return open times as datetime64[ms]."""
    return open_time_ms.astype(np.int64).view("datetime64[ms]")


def pandas_times(open_time_ms: npt.NDArray[Any], name: str | None = None) -> pandas.DatetimeIndex:
    """Return times in UTC, in the unit that this pandas gives times of its own: ns before version 3, us since then.

    pandas joins frames as of a time only where both have the same unit.
    """
    pd = library("pandas", "pandas")
    index: pandas.DatetimeIndex = pd.DatetimeIndex(
        times(open_time_ms).astype(pd.to_datetime(["2000-01-01"]).dtype), tz="UTC", name=name
    )
    return index


def to_pandas(rows: npt.NDArray[np.float64]) -> pandas.DataFrame:
    """Return candles as a pandas DataFrame: UTC DatetimeIndex named open_time, in pandas' own unit, lower-case columns.

    `rows` are float64 (n, 12), as `Series.candles`, `history.load` and `derive` return them. `close_time` is a time as
    well. Raises MissingExtra.

    >>> frame = candleshm.to_pandas(btc.candles(100))  # doctest: +SKIP
    """
    pd = library("pandas", "pandas")
    index = pandas_times(rows[:, 0], "open_time")
    frame = pd.DataFrame(rows[:, 1:-1], index=index, columns=list(SHOWN))
    result: pandas.DataFrame = frame.rename(columns={"close_time_ms": "close_time"})
    result["close_time"] = pandas_times(rows[:, 6])
    return result


def lend_arrow(values: npt.NDArray[np.float64]) -> pyarrow.Array:
    """Return float64 values as an arrow Array: contiguous ones, a view's column for one, without a copy.

    The memory of a view goes on changing: call its `valid()` after computing with the array.
    """
    pa = library("pyarrow", "arrow")
    return pa.Array.from_buffers(pa.float64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def to_arrow(rows: npt.NDArray[np.float64]) -> pyarrow.Table:
    """Return candles as a pyarrow Table, times as timestamp[ms, UTC]; contiguous columns are taken over, not copied.

    `rows` are float64 (n, 12), as `Series.candles`, `history.load` and `derive` return them. Raises MissingExtra.

    >>> table = candleshm.to_arrow(btc.candles(100))  # doctest: +SKIP
    """
    pa = library("pyarrow", "arrow")
    stamp = pa.timestamp("ms", tz="UTC")
    columns: dict[str, Any] = {"open_time": pa.array(times(rows[:, 0]), type=stamp)}
    for column, name in enumerate(SHOWN, start=1):
        if name == "close_time_ms":
            columns["close_time"] = pa.array(times(rows[:, column]), type=stamp)
        else:
            columns[name] = lend_arrow(rows[:, column])
    return pa.table(columns)


def to_polars(rows: npt.NDArray[np.float64]) -> polars.DataFrame:
    """Return candles as a polars DataFrame, open_time and close_time as Datetime("ms", "UTC").

    `rows` are float64 (n, 12), as `Series.candles`, `history.load` and `derive` return them. Raises MissingExtra.

    >>> frame = candleshm.to_polars(btc.candles(100))  # doctest: +SKIP
    """
    pl = library("polars", "polars")
    stamp = pl.Datetime("ms", "UTC")
    columns: dict[str, Any] = {"open_time": pl.Series(times(rows[:, 0])).dt.replace_time_zone("UTC").cast(stamp)}
    for column, name in enumerate(SHOWN, start=1):
        if name == "close_time_ms":
            columns["close_time"] = pl.Series(times(rows[:, column])).dt.replace_time_zone("UTC").cast(stamp)
        else:
            columns[name] = np.ascontiguousarray(rows[:, column])
    frame: polars.DataFrame = pl.DataFrame(columns)
    return frame
