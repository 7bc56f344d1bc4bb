"""What backtests call: `load`, `panel`, `scan`, `paths`, `days`, `verify`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS, Zone, candle_end_ms, candles_within
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayIncomplete, DayNotFound
from candleshm.history.candles import Candles
from candleshm.history.day import DAILY_INTERVALS, Day, DayLike, days_between
from candleshm.history.reports import DayReport, inspect
from candleshm.history.store import ParquetStore
from candleshm.reader.derivation import derive
from candleshm.reader.frames import library
from candleshm.reader.panel import Panel

if TYPE_CHECKING:
    import polars

__all__ = ["BASE_DIR", "TIMEZONE", "days", "load", "panel", "paths", "scan", "verify"]

BASE_DIR = "./candles"
TIMEZONE = "UTC"
SOURCE = "1m"

StrPath = str | os.PathLike[str]


def load(
    market: str,
    symbol: str,
    start: DayLike,
    end: DayLike,
    *,
    interval: str = "1m",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> Candles:
    """Return the candles of whole days, `start` and `end` included: float64 (n, 12), oldest first, a private copy.

    The columns are those of a block, see `candleshm.OPEN_TIME_MS` and the others; values are bit for bit what the
    exchange sent. Slots where the exchange has no candle are left out. Every file is checked whole as it is read.

    Where `interval` has no files for these days, its candles are derived from those of 1m as a live block derives them,
    and agree with it bit for bit; that goes for 1w, 1M and days of a zone such as `1d@Asia/Shanghai` as well. A candle
    belongs to the day in which it opens. When the last one ends after `end`, the days up to there are needed, too.

    Args:
        market: 'SPOT', 'UM' or 'CM', in any case.
        symbol: one, as the exchange spells it; `panel` reads many.
        start, end: days of `timezone`, both included.
        interval: one that has files, or one that is derived from 1m.
        timezone: whose days they are, an IANA name.
        base_dir: the directory with the daily files.

    Raises:
        DayNotFound: days have no file; `days` names all of them, and `stored` what is there instead.
        DayDamaged, DayIncomplete: a file cannot be trusted, or candles are missing; downloading the day again helps.
        ConfigError, MissingExtra: an argument cannot be used; pyarrow is not installed.

    >>> rows = load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-27")  # doctest: +SKIP
    """
    if not isinstance(symbol, str):
        raise ConfigError(f"symbol cannot be `{symbol}`; allowed: one, such as 'BTCUSDT'; `panel` reads many symbols")
    source = _store(base_dir, market, SOURCE, timezone)
    wanted = _range(source, start, end)
    is_stored = interval in DAILY_INTERVALS
    store = _store(base_dir, market, interval, timezone) if is_stored else source
    absent = _without_file(store, symbol, wanted)
    if is_stored and (not absent or interval == SOURCE or _without_file(source, symbol, wanted)):
        _require_files(store, symbol, absent)
        return _rows(store, symbol, wanted)
    minutes = _days_of_minutes(interval, wanted)
    _require_files(source, symbol, _without_file(source, symbol, minutes))
    return _derived(source, symbol, minutes, interval, wanted[-1].end_ms)


def panel(
    market: str,
    symbols: str | Sequence[str] | None,
    field: str,
    start: DayLike,
    end: DayLike,
    *,
    interval: str = "1m",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
    absent: Literal["raise", "nan"] = "raise",
) -> Panel:
    """Return one field of many symbols on the same open times: a `Panel` of shape (n, S), as `Feed.panel` gives it.

    Its rows are all candles of the interval that open in the days, `start` and `end` included; NaN where the exchange
    has no candle. Values are those of `load`, derived in the same way where `interval` has no files. With
    `Panel.asof` candles of one interval are joined to those of another without a look ahead.

    Args:
        market, start, end, interval, timezone, base_dir: as in `load`.
        symbols: the order of the columns; None means all that have files.
        field: a column, such as "close".
        absent: days without a file are an error ("raise") or NaN ("nan"), as for symbols that were listed or delisted
            meanwhile. Derived candles that are not wholly in days with files are NaN then.

    Raises:
        DayNotFound, DayDamaged, DayIncomplete, ConfigError, MissingExtra: as `load`; with "nan" days without a file
            are no error, unless there is no file at all.

    >>> closes = panel("SPOT", ["BTCUSDT", "ETHUSDT"], "close", "2026-11-01", "2026-11-27")  # doctest: +SKIP
    """
    if field not in NAMES:
        raise ConfigError(f"field cannot be `{field}`; allowed: one of {' '.join(NAMES)}")
    if absent not in {"raise", "nan"}:
        raise ConfigError(f"absent cannot be `{absent}`; allowed: raise nan")
    source = _store(base_dir, market, SOURCE, timezone)
    wanted = _range(source, start, end)
    end_ms = _end_ms(interval, wanted[-1].end_ms)
    open_time_ms = _open_times(interval, wanted[0].start_ms, wanted[-1].end_ms)
    stores = [_store(base_dir, market, interval, timezone)] if interval in DAILY_INTERVALS else []
    stores += [] if interval == SOURCE else [source]
    names = tuple(dict.fromkeys(name for store in stores for name in _symbols(store, symbols)))
    if not names or (absent == "nan" and not any(_runs(store, name, wanted) for store in stores for name in names)):
        raise DayNotFound(str(stores[0].tree), (f"{start} .. {end}",), stores[0].inventory())
    array = np.full((len(open_time_ms), len(names)), np.nan, order="F")
    for column, symbol in enumerate(names):
        if absent == "nan":
            rows = _rows_of_stored(stores, symbol, wanted, interval)
        else:
            rows = load(market, symbol, start, end, interval=interval, timezone=timezone, base_dir=base_dir)
        # Around an outage candles open off the grid.
        places = np.searchsorted(open_time_ms, rows[:, OPEN_TIME_MS], side="right") - 1
        array[places, column] = rows[:, NAMES.index(field)]
    return Panel(array, open_time_ms, names, (field,), end_ms)


def paths(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> list[Path]:
    """Return the daily files that are there, by symbol and day, for tools that read Parquet themselves.

    None stands for every symbol, the first day and the last one. The files are not read: `verify` does that.
    """
    store = _store(base_dir, market, interval, timezone)
    return [
        store.path(symbol, day) for symbol in _symbols(store, symbols) for day in _stored(store, symbol, start, end)
    ]


def scan(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> polars.LazyFrame:
    """Return a polars LazyFrame over the daily files that are there: `symbol`, then the twelve columns.

    Nothing is read before it is collected, and then only the selected columns and symbols; duckdb queries the frame
    by its name. polars does not check what it reads: `verify` first, or use `load`. Bounds as in `paths`.

    Raises DayNotFound when there is no file at all, ConfigError, MissingExtra.
    """
    pl = library("polars", "polars")
    found = paths(market, symbols, start, end, interval=interval, timezone=timezone, base_dir=base_dir)
    if not found:
        store = _store(base_dir, market, interval, timezone)
        raise DayNotFound(str(store.tree), (f"{start or 'any day'} .. {end or 'any day'}",), store.inventory())
    text = {name: pl.String for name in ("market", "interval", "timezone", "symbol")}
    frame: polars.LazyFrame = pl.scan_parquet(found, hive_partitioning=True, hive_schema=text, glob=False)
    return frame.select("symbol", *NAMES)


def days(
    market: str, symbol: str, *, interval: str = "1m", timezone: str = TIMEZONE, base_dir: StrPath = BASE_DIR
) -> list[date]:
    """Return the days that have a file, oldest first. The files are not read."""
    return [day.date for day in _store(base_dir, market, interval, timezone).days(symbol)]


def verify(
    market: str,
    symbols: str | Sequence[str] | None = None,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    interval: str = "1m",
    timezone: str = TIMEZONE,
    base_dir: StrPath = BASE_DIR,
) -> list[DayReport]:
    """Read daily files whole and report on each, by symbol and day.

    With both bounds given, days between them without a file are reported as absent; otherwise only files that are
    there. Raises ConfigError, StoreUnavailable, MissingExtra; a damaged file is a report, not an error.
    """
    store = _store(base_dir, market, interval, timezone)
    reports = []
    for symbol in _symbols(store, symbols):
        if start is not None and end is not None:
            wanted = _range(store, start, end)
        else:
            wanted = _stored(store, symbol, start, end)
        reports += inspect(store, symbol, wanted)
    return reports


def _store(base_dir: StrPath, market: str, interval: str, timezone: str) -> ParquetStore:
    return ParquetStore(base_dir, market, interval, Zone(timezone))


def _without_file(store: ParquetStore, symbol: str, wanted: Sequence[Day]) -> list[Day]:
    return [day for day in wanted if not store.path(symbol, day).exists()]


def _require_files(store: ParquetStore, symbol: str, absent: Sequence[Day]) -> None:
    if absent:
        raise DayNotFound(str(store.path(symbol, absent[0])), tuple(map(str, absent)), store.inventory(symbol))


def _rows(store: ParquetStore, symbol: str, wanted: Sequence[Day]) -> Candles:
    parts = []
    for day in wanted:
        candles = store.read(symbol, day)
        if candles.missing:
            raise DayIncomplete(str(store.path(symbol, day)), candles.missing)
        parts.append(candles.rows)
    return np.concatenate(parts)


def _days_of_minutes(interval: str, wanted: Sequence[Day]) -> list[Day]:
    """Return the days that hold all minutes of the candles that open in those wanted. Raises ConfigError."""
    minutes = [*wanted]
    while minutes[-1].end_ms < _end_ms(interval, wanted[-1].end_ms):
        minutes.append(minutes[-1].next())
    return minutes


def _derived(source: ParquetStore, symbol: str, minutes: Sequence[Day], interval: str, end_ms: int) -> Candles:
    """Return the candles that are wholly in these days and open before `end_ms`."""
    start_ms, stop_ms = minutes[0].start_ms, minutes[-1].end_ms
    rows = derive(_rows(source, symbol, minutes), interval, start_ms=start_ms, end_ms=stop_ms)
    return rows[rows[:, OPEN_TIME_MS] < end_ms]


def _rows_of_stored(stores: Sequence[ParquetStore], symbol: str, wanted: Sequence[Day], interval: str) -> Candles:
    """Return the candles of the days that have a file, of the store that has more of those that are wanted."""
    parts = [np.empty((0, len(NAMES)))]
    own = max(stores, key=lambda store: len(wanted) - len(_without_file(store, symbol, wanted)))
    is_own = own.interval == interval
    for run in _runs(own, symbol, wanted if is_own else _days_of_minutes(interval, wanted)):
        parts.append(_rows(own, symbol, run) if is_own else _derived(own, symbol, run, interval, wanted[-1].end_ms))
    return np.concatenate(parts)


def _runs(store: ParquetStore, symbol: str, days: Sequence[Day]) -> list[list[Day]]:
    """Return the days that have a file, those that follow each other together."""
    groups = itertools.groupby(days, key=lambda day: store.path(symbol, day).exists())
    return [list(run) for is_there, run in groups if is_there]


def _open_times(interval: str, start_ms: int, end_ms: int) -> npt.NDArray[np.int64]:
    """Return the open times on the grid of the interval, from `start_ms` up to `end_ms`, exclusive."""
    first_ms, count = candles_within(interval, start_ms, end_ms)
    length_ms = INTERVAL_MS.get(interval)
    if length_ms is not None and interval != "1M":
        return first_ms + length_ms * np.arange(count, dtype=np.int64)
    # Months, and days of a zone, differ in length.
    ends_ms = itertools.accumulate(range(count), lambda open_ms, _: candle_end_ms(interval, open_ms), initial=first_ms)
    return np.fromiter(itertools.islice(ends_ms, count), np.int64, count)


def _end_ms(interval: str, moment_ms: int) -> int:
    """Return where the candle ends that is open in the last millisecond before `moment_ms`. Raises ConfigError."""
    with suppress(ConfigError):
        if interval != "3d":
            return candle_end_ms(interval, moment_ms - 1)
    derivable = " ".join(name for name in INTERVAL_MS if name != "3d")
    raise ConfigError(f"interval cannot be `{interval}`; allowed: {derivable}, or days of a zone as 1d@Asia/Shanghai")


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
    if symbols is None:
        return store.symbols()
    return [symbols] if isinstance(symbols, str) else symbols
