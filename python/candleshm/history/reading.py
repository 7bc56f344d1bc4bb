"""What backtests call: `load`, `panel`, `scan`, `paths`, `days`, `verify`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS, Zone, candle_end_ms, candles_within
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayNotFound
from candleshm.exchanges.base import Price
from candleshm.history.candles import Candles
from candleshm.history.day import Day, DayLike, Grid, days_between
from candleshm.history.joining import Join
from candleshm.history.reports import DayReport, inspect
from candleshm.history.store import ParquetStore
from candleshm.history.stored_rows import SOURCE, StoredRows, runs
from candleshm.reader.feed import Feed
from candleshm.reader.frames import library
from candleshm.reader.panel import Panel

if TYPE_CHECKING:
    import polars

__all__ = ["BASE_DIR", "TIMEZONE", "days", "load", "panel", "paths", "scan", "verify"]

BASE_DIR = "./candles"
TIMEZONE = "UTC"

StrPath = str | os.PathLike[str]


def load(
    market: str,
    symbol: str,
    start: DayLike,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
    join: Feed | None = None,
) -> Candles:
    """Return the candles of whole days, `start` and `end` included: float64 (n, 12), oldest first, a private copy.

    The columns are those of a block, see `candleshm.OPEN_TIME_MS` and the others; values are bit for bit what the
    exchange sent. Slots where the exchange has no candle are left out. Every file is checked whole as it is read.

    Where `interval` has no files for these days, its candles are derived from those of 1m as a live block derives them,
    and agree with it bit for bit; that goes for 1w, 1M and days of a zone such as `1d@Asia/Shanghai` as well. A candle
    belongs to the day in which it opens. When the last one ends after `end`, the days up to there are needed, too.

    With `join` the result ends in the block's newest final candle: files for the days that its window does not reach
    back to, then its final rows, without a candle left out or twice. The files are needed up to the day in which the
    window begins; a day that is not over cannot be stored, so the window has to reach back to yesterday.

    Args:
        market: 'SPOT', 'UM' or 'CM', in any case.
        symbol: one, as the exchange spells it, such as "BTCUSDT" or "BTCUSDT:PERPETUAL"; `panel` reads many.
        start: the first day, of `timezone`.
        end: the last day, included. None: the newest one that is stored; required to be None with `join`.
        interval: one that has files, or one that is derived from 1m.
        price: what the prices are: "trade", for UM and CM also "mark", "index" (of a pair) or "premium".
        timezone: whose days they are, an IANA name.
        base_dir: the directory with the daily files.
        join: a feed of the same market and price, and of `interval` or of 1m.

    Raises:
        DayNotFound: days have no file; `days` names all of them, and `stored` what is there instead.
        DayDamaged, DayIncomplete: a file cannot be trusted, or candles are missing; downloading the day again helps.
        GapError: candles between the newest day that is over and the block's window, or still missing in the block.
        ConfigError, MissingExtra: an argument cannot be used; pyarrow is not installed, and a file is of another form
            than candleshm writes.
        UnknownSymbol, StaleData: of `join`, as `Series.candles`.

    >>> rows = load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-27")  # doctest: +SKIP
    """
    if not isinstance(symbol, str):
        raise ConfigError(f"symbol cannot be `{symbol}`; allowed: one, such as 'BTCUSDT'; `panel` reads many symbols")
    files = StoredRows(base_dir, market, interval, timezone, price)
    first = files.day(start)
    if join is not None:
        _check_no_end(end)
        return Join(join, files).rows(symbol, first)[0]
    if end is None:
        wanted = list(days_between(first, files.newest(symbol, first)))
        return files.rows(symbol, wanted, wanted[-1].end_ms)
    return files.rows(symbol, _range(files.source, start, end))


def panel(
    market: str,
    symbols: str | Sequence[str] | None,
    field: str,
    start: DayLike,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
    absent: Literal["raise", "nan"] = "raise",
    join: Feed | None = None,
) -> Panel:
    """Return one field of many symbols on the same open times: a `Panel` of shape (n, S), as `Feed.panel` gives it.

    Its rows are all candles of the interval that open in the days, `start` and `end` included; NaN where the exchange
    has no candle. Values are those of `load`, derived in the same way where `interval` has no files. With
    `Panel.asof` candles of one interval are joined to those of another without a look ahead.

    With `join` it goes on to the newest final candle that any of the symbols has in the block, NaN for those that do
    not have it yet.

    Args:
        market, start, interval, price, timezone, base_dir, join: as in `load`.
        symbols: the order of the columns; None means all that have files, or all of `join` that trade.
        field: a column, such as "close".
        end: the last day, included; needed unless there is `join`.
        absent: days without a file are an error ("raise") or NaN ("nan"), as for symbols that were listed or delisted
            meanwhile. Derived candles that are not wholly in days with files are NaN then.

    Raises:
        DayNotFound, DayDamaged, DayIncomplete, GapError, ConfigError, MissingExtra, UnknownSymbol, StaleData: as
            `load`; with "nan" days without a file are no error, unless there is no file at all.

    >>> closes = panel("SPOT", ["BTCUSDT", "ETHUSDT"], "close", "2026-11-01", "2026-11-27")  # doctest: +SKIP
    """
    if field not in NAMES:
        raise ConfigError(f"field cannot be `{field}`; allowed: one of {' '.join(NAMES)}")
    if absent not in {"raise", "nan"}:
        raise ConfigError(f"absent cannot be `{absent}`; allowed: raise nan")
    files = StoredRows(base_dir, market, interval, timezone, price)
    first = files.day(start)
    columns: dict[str, Candles] = {}
    if join is not None:
        _check_no_end(end)
        joined = Join(join, files)
        read = joined.rows if absent == "raise" else joined.rows_of_stored
        stop_ms = first.start_ms
        for symbol in _listed(symbols) or join.panel("close", n=1).symbols:
            columns[symbol], end_ms = read(symbol, first)
            stop_ms = max(stop_ms, end_ms)
        open_time_ms = _open_times(interval, first.start_ms, stop_ms)
        if len(open_time_ms) and candle_end_ms(interval, int(open_time_ms[-1])) > stop_ms:
            open_time_ms = open_time_ms[:-1]  # it is still running
    else:
        if end is None:
            raise ConfigError("end is missing; give the last day, or join=feed to end in a block's newest candle")
        wanted = _range(files.source, start, end)
        open_time_ms = _open_times(interval, wanted[0].start_ms, wanted[-1].end_ms)
        for symbol in dict.fromkeys(name for store in files.stores for name in _symbols(store, symbols)):
            is_whole = absent == "raise"
            columns[symbol] = files.rows(symbol, wanted) if is_whole else files.rows_of_stored(symbol, wanted)
        if not columns or (
            absent == "nan" and not any(runs(store, name, wanted) for store in files.stores for name in columns)
        ):
            raise DayNotFound(str(files.stores[0].tree), (f"{start} .. {end}",), files.stores[0].inventory())
    array = np.full((len(open_time_ms), len(columns)), np.nan, order="F")
    for column, rows in enumerate(columns.values()):
        # Around an outage candles open off the grid.
        places = np.searchsorted(open_time_ms, rows[:, OPEN_TIME_MS], side="right") - 1
        array[places, column] = rows[:, NAMES.index(field)]
    end_ms = candle_end_ms(interval, int(open_time_ms[-1])) if len(open_time_ms) else first.start_ms
    return Panel(array, open_time_ms, tuple(columns), (field,), end_ms)


def paths(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> list[Path]:
    """Return the files that have these days, by symbol and day, for tools that read Parquet themselves.

    From 15m on a file holds a month, of 1d a year: it may have more days than those asked for. Files of a day are not
    read: `verify` does that.

    Args:
        market, interval, price, timezone, base_dir: as in `load`; nothing is derived.
        symbols: one or several; None means every symbol.
        start, end: days, both included; None means the first and the last one that is there.

    Raises:
        ConfigError, StoreUnavailable: an argument cannot be used; the directory cannot be read.

    >>> paths("SPOT", "BTCUSDT", start="2026-11-01")  # doctest: +SKIP
    """
    store = _store(base_dir, market, interval, timezone, price)
    found = (
        store.path(symbol, day) for symbol in _symbols(store, symbols) for day in _stored(store, symbol, start, end)
    )
    return list(dict.fromkeys(found))


def scan(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> polars.LazyFrame:
    """Return a polars LazyFrame over the daily files that are there: `symbol`, then the twelve columns.

    Nothing is read before it is collected, and then only the selected columns and symbols; duckdb queries the frame
    by its name. polars does not check what it reads: `verify` first, or use `load`. Nothing is derived: `interval` has
    to have files of its own, see `load` and `panel` for others.

    Args:
        market, symbols, start, end, interval, price, timezone, base_dir: as in `paths`.

    Raises:
        DayNotFound: there is no file at all.
        ConfigError, MissingExtra: an argument cannot be used; polars is not installed.

    >>> scan("SPOT", ["BTCUSDT"], start="2026-11-01").select("close").collect()  # doctest: +SKIP
    """
    pl = library("polars", "polars")
    found = paths(market, symbols, start, end, interval=interval, price=price, timezone=timezone, base_dir=base_dir)
    if not found:
        store = _store(base_dir, market, interval, timezone, price)
        wanted = f"{start or 'any day'} .. {end or 'any day'}"
        minutes = paths(market, symbols, start, end, price=price, timezone=timezone, base_dir=base_dir)
        advice = (
            f"scan reads files as they are; load and panel derive {interval} from those of {SOURCE}" if minutes else ""
        )
        raise DayNotFound(str(store.tree), (wanted,), store.inventory(), advice)
    text = {name: pl.String for name in ("market", "interval", "timezone", "symbol")}
    frame: polars.LazyFrame = pl.scan_parquet(found, hive_partitioning=True, hive_schema=text, glob=False)
    for bound, is_first in ((start, True), (end, False)):
        if bound is not None:  # files of months and years hold other days, too
            day, opened = Day.parse(bound, Zone(timezone)), pl.col(NAMES[OPEN_TIME_MS])
            grid = Grid.of(day, interval)
            frame = frame.filter(opened >= grid.first_ms if is_first else opened < grid.end_ms)
    return frame.select("symbol", *NAMES)


def days(
    market: str,
    symbol: str,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> list[date]:
    """Return the days that have a file, oldest first. Files of a day are not read, those of a month or year are.

    Args:
        market, symbol, interval, price, timezone, base_dir: as in `load`; nothing is derived.

    Raises:
        ConfigError, StoreUnavailable: an argument cannot be used; the directory cannot be read.

    >>> days("SPOT", "BTCUSDT")[-1]  # doctest: +SKIP
    """
    return [day.date for day in _store(base_dir, market, interval, timezone, price).days(symbol)]


def verify(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    price: Price = "trade",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> list[DayReport]:
    """Read daily files whole and report on each, by symbol and day.

    With both bounds given, days between them without a file are reported as absent; otherwise only files that are
    there. A damaged file is a report, not an error.

    Args:
        market, symbols, start, end, interval, price, timezone, base_dir: as in `paths`.

    Raises:
        ConfigError, StoreUnavailable, MissingExtra: an argument cannot be used; the directory cannot be read; pyarrow
            is not installed.

    >>> [report.path for report in verify("SPOT") if not report.is_complete]  # doctest: +SKIP
    """
    store = _store(base_dir, market, interval, timezone, price)
    reports = []
    for symbol in _symbols(store, symbols):
        if start is not None and end is not None:
            wanted = _range(store, start, end)
        else:
            wanted = _stored(store, symbol, start, end)
        reports += inspect(store, symbol, wanted)
    return reports


def _store(base_dir: StrPath, market: str, interval: str, timezone: str, price: Price) -> ParquetStore:
    return ParquetStore(base_dir, market, interval, Zone(timezone), price)


def _check_no_end(end: DayLike | None) -> None:
    if end is not None:
        raise ConfigError(f"end cannot be `{end}` with join; allowed: None: the newest final candle is the end")


def _open_times(interval: str, start_ms: int, end_ms: int) -> npt.NDArray[np.int64]:
    """Return the open times on the grid of the interval, from `start_ms` up to `end_ms`, exclusive."""
    first_ms, count = candles_within(interval, start_ms, end_ms)
    length_ms = INTERVAL_MS.get(interval)
    if length_ms is not None and interval != "1M":
        return first_ms + length_ms * np.arange(count, dtype=np.int64)
    # Months, and days of a zone, differ in length.
    ends_ms = itertools.accumulate(range(count), lambda open_ms, _: candle_end_ms(interval, open_ms), initial=first_ms)
    return np.fromiter(itertools.islice(ends_ms, count), np.int64, count)


def _range(store: ParquetStore, start: DayLike, end: DayLike) -> list[Day]:
    wanted = list(days_between(Day.parse(start, store.zone), Day.parse(end, store.zone)))
    if not wanted:
        raise ConfigError(f"end cannot be `{end}`; allowed: a day from start on, which is `{start}`")
    return wanted


def _stored(store: ParquetStore, symbol: str, start: DayLike | None, end: DayLike | None) -> list[Day]:
    first, last = (None if bound is None else Day.parse(bound, store.zone).date for bound in (start, end))
    return [
        day for day in store.days(symbol) if (first is None or first <= day.date) and (last is None or day.date <= last)
    ]


def _symbols(store: ParquetStore, symbols: str | Sequence[str] | None) -> Sequence[str]:
    return store.symbols() if symbols is None else _listed(symbols)


def _listed(symbols: str | Sequence[str] | None) -> Sequence[str]:
    return [symbols] if isinstance(symbols, str) else symbols or []
