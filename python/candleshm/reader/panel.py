"""Panels: fields of many symbols side by side, aligned on open time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from candleshm._core import check_moment
from candleshm.reader.frames import library, pandas_times, times
from candleshm.reader.moments import MomentsLike, moments_of
from candleshm.reader.notebook import COLUMNS_MAX, ROWS_MAX, table, utc

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One field, or several, of many symbols at the same open times; NaN where a symbol has no row.

    `Feed.panel` and `history.panel` return it. NumPy takes it as its `array`.
    """

    array: npt.NDArray[np.float64]
    """(n, S) for one field, (n, S, F) for several; a private copy, Fortran-ordered."""
    open_time_ms: npt.NDArray[np.int64]
    """(n,), ascending, on the exchange's grid."""
    symbols: tuple[str, ...]
    """(S,), in the order of the columns."""
    fields: tuple[str, ...]
    """(F,), such as ("close",)."""
    end_ms: int
    """Where the last row's candle ends, epoch ms; each other row ends where the next one opens."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array: (n, S), or (n, S, F)."""
        return self.array.shape

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001
        """Return the array, as NumPy asks for it; without a copy unless it is told to make one."""
        if copy:
            return np.array(self.array, dtype=dtype)
        # NumPy 1 takes no `copy=None`, and for False it would copy where it has to.
        array = np.asarray(self.array, dtype=dtype)
        if copy is False and not np.shares_memory(array, self.array):
            raise ValueError(f"values of another type, {array.dtype}, cannot be had without a copy")
        return array

    def asof(self, moments_ms: MomentsLike) -> npt.NDArray[np.float64]:
        """Return (m, S), or (m, S, F): the value of each symbol's newest candle that had closed by each moment.

        As `Feed.asof`, in the rows of this panel: nothing from the future gets in, a hole has the value before it, and
        what lies before the first row is NaN. Rows that were live when the panel was made count as they were then.

        `moments_ms` are those of `Feed.asof`. Raises ConfigError for moments in another unit or of another type.

        >>> closes = feed.panel("close", n=100)  # doctest: +SKIP
        >>> hour_before = closes.asof(closes.open_time_ms - 3_600_000)  # doctest: +SKIP
        """
        moments = moments_of(moments_ms)
        if len(moments):
            for extreme_ms in (moments.min(), moments.max()):
                check_moment(extreme_ms)
        ends_ms = np.append(self.open_time_ms, self.end_ms)[1:]
        values, _ = self._columns
        known = np.full((len(moments), values.shape[1]), np.nan, order="F")
        for column in range(values.shape[1]):
            rows = np.flatnonzero(~np.isnan(values[:, column]))
            newest = np.searchsorted(ends_ms[rows], moments, side="right") - 1
            known[newest >= 0, column] = values[rows[newest[newest >= 0]], column]
        return known.reshape(len(moments), *self.array.shape[1:])

    @property
    def _columns(self) -> tuple[npt.NDArray[np.float64], list[str]]:
        """The panel as (n, columns) and the columns' names: the symbols, or symbol and field."""
        if self.array.ndim == 2:
            return self.array, list(self.symbols)
        names = [f"{symbol}.{field}" for symbol in self.symbols for field in self.fields]
        return self.array.reshape(len(self.open_time_ms), len(names)), names

    def __repr__(self) -> str:
        span = f" {utc(self.open_time_ms[0])} to {utc(self.open_time_ms[-1])} UTC" if len(self.open_time_ms) else ""
        return f"<Panel {', '.join(self.fields)} {self.shape}{span}>"

    def _repr_html_(self) -> str:
        """Return the newest rows, and the first columns, as Jupyter shows them."""
        array, names = self._columns
        rows = [
            [utc(open_ms), *values[:COLUMNS_MAX].tolist()]
            for open_ms, values in zip(self.open_time_ms[-ROWS_MAX:].tolist(), array[-ROWS_MAX:], strict=True)
        ]
        more = len(names) - COLUMNS_MAX
        foot = f"{more} more columns" if more > 0 else ""
        return table(repr(self), ("open time, UTC", *names[:COLUMNS_MAX]), rows, foot)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame: UTC DatetimeIndex open_time in pandas' own unit; columns symbol, or (symbol, field)."""
        pd = library("pandas", "pandas")
        index = pandas_times(self.open_time_ms, "open_time")
        array, names = self._columns
        columns = names
        if self.array.ndim == 3:
            columns = pd.MultiIndex.from_product([self.symbols, self.fields], names=["symbol", "field"])
        frame: pandas.DataFrame = pd.DataFrame(array, index=index, columns=columns)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """Return a DataFrame: open_time as Datetime("ms", "UTC"), a column per symbol or per symbol.field."""
        pl = library("polars", "polars")
        array, names = self._columns
        open_time = pl.Series(times(self.open_time_ms)).dt.replace_time_zone("UTC").cast(pl.Datetime("ms", "UTC"))
        columns = {name: np.ascontiguousarray(array[:, number]) for number, name in enumerate(names)}
        frame: polars.DataFrame = pl.DataFrame({"open_time": open_time, **columns})
        return frame

    def to_arrow(self) -> pyarrow.Table:
        """Return a Table: open_time as timestamp[ms, UTC], a column per symbol or per symbol.field."""
        pa = library("pyarrow", "arrow")
        array, names = self._columns
        open_time = pa.array(times(self.open_time_ms), type=pa.timestamp("ms", tz="UTC"))
        columns = {name: np.ascontiguousarray(array[:, number]) for number, name in enumerate(names)}
        table: pyarrow.Table = pa.table({"open_time": open_time, **columns})
        return table
