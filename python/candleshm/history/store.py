"""Where days of candles are read and written, in files of a day, a month or a year; `file_names` has their names."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Protocol, cast

from candleshm._core import MARKETS, PRICES, Zone
from candleshm.errors import ConfigError, DayDamaged, DayNotFound, HistoryError, StoreUnavailable
from candleshm.exchanges.base import Market, Price
from candleshm.history import day_file
from candleshm.history.candles import DayCandles, is_same
from candleshm.history.day import DAILY_INTERVALS, Day, days_between
from candleshm.history.day_file import DayFile
from candleshm.history.file_names import (
    Period,
    daily_files_pattern,
    daily_series,
    daily_symbol,
    daily_tree,
    market_name,
    period_days,
    period_file,
    period_of,
)
from candleshm.history.lock import writing
from candleshm.history.plain_file import read_plain
from candleshm.system.atomic_file import Directories, replace_file

__all__ = ["DayStore", "ParquetStore", "checked_market", "checked_price", "refusals"]

logger = logging.getLogger(__name__)

# A day of 1s has 90 000 rows at most, of 96 bytes before they are packed.
FILE_BYTES_MAX = 64 * 1024 * 1024
# Files of months and years whose days a store remembers: 0.3 MB of a month of 15m.
FILES_KEPT = 16
DAMAGED_SUFFIX = ".damaged"


class DayStore(Protocol):
    """Where days are kept: Parquet files here, the predecessor's CSV tree in `csv_tree`."""

    market: Market
    price: Price
    interval: str
    zone: Zone

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file that has a day, or would have it."""

    def destination(self, symbol: str, day: Day) -> Path:
        """Return the file into which a day is written; other days may belong to the same one."""

    def read(self, symbol: str, day: Day) -> DayCandles:
        """Read and check a day. Raises DayNotFound, DayDamaged, StoreUnavailable."""

    def write(self, *days: DayCandles) -> None:
        """Put days in the place of what is there, each file wholly or not at all. Raises StoreUnavailable."""

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer. Raises StoreInUse."""


class ParquetStore:
    """The files of one (market, price, interval, zone): of a day, from 15m on of a month, of 1d of a year.

    Reading needs no lock: a file is replaced as a whole. Writing is for one process at a time, see `writing`.

    Days that older versions wrote into files of their own are read beside the others, until the same day is written
    again or `Repacking` has moved them. A day that both have is that of the month or year, which is newer.
    """

    def __init__(
        self, base_dir: str | os.PathLike[str], market: str, interval: str, zone: Zone, price: Price = "trade"
    ) -> None:
        """Name the tree; nothing is read or made. Raises ConfigError."""
        self.market = checked_market(market)
        self.price: Price = checked_price(self.market, price)
        if interval not in DAILY_INTERVALS:
            raise ConfigError(f"interval cannot be `{interval}`; daily files have: {' '.join(DAILY_INTERVALS)}")
        self.interval = interval
        self.zone = zone
        self.period: Period = period_of(interval)
        """What one file holds."""
        self._tree = daily_tree(base_dir, self.market, interval, zone.name, self.price)
        self._directories = Directories()
        self._kept = _Kept()
        self._gate = threading.Lock()

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""
        return self._tree

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file that has a day, or would have it."""
        own = self.own_file(symbol, day)
        return own if self._is_own(symbol, day) else self.destination(symbol, day)

    def destination(self, symbol: str, day: Day) -> Path:
        """Return the file into which a day is written; other days may belong to the same one."""
        return period_file(self._tree, symbol, day, self.period)

    def own_file(self, symbol: str, day: Day) -> Path:
        """Return the file that a day has of its own, as older versions wrote them for every interval."""
        return period_file(self._tree, symbol, day, "day")

    def has(self, symbol: str, day: Day) -> bool:
        """Return whether a file has the day. A damaged file of a month or year has all of its days."""
        return self._is_own(symbol, day) or (self.period != "day" and self._has(self.destination(symbol, day), day))

    def symbols(self) -> list[str]:
        """Return the symbols that have a directory, sorted. Raises StoreUnavailable."""
        return sorted(symbol for name in _names(self._tree) if (symbol := daily_symbol(name)) is not None)

    def days(self, symbol: str) -> list[Day]:
        """Return the days that have a file, oldest first. Files of a day are not read, others are."""
        found: set[date] = set()
        for path, period, first, last in self._files(symbol):
            if period == "day":
                found.add(first)
                continue
            try:
                found.update(self._days(path))
            except DayDamaged:
                found.update(day.date for day in days_between(Day(first, self.zone), Day(last, self.zone)))
            except FileNotFoundError:
                continue
        return [Day(day, self.zone) for day in sorted(found)]

    def own_files(self, symbol: str) -> list[Day]:
        """Return the days in files of their own that belong into files of months or years, oldest first."""
        if self.period == "day":
            return []
        return [Day(first, self.zone) for _, period, first, _ in self._files(symbol) if period == "day"]

    def inventory(self, symbol: str | None = None) -> str:
        """Return in words what this market has of a symbol, or of all, in any interval and zone; empty for nothing.

        It is for messages: `interval=1m timezone=UTC (27 days)`. The files are not read.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for path in self._tree.parent.parent.glob(daily_files_pattern(symbol)):
            for period in ("day", "month", "year"):
                if not path.name.startswith(".") and period_days(path.name, period):
                    counts[daily_series(path), "file" if symbol is None else period] += 1
        return ", ".join(
            f"{series} ({count} {unit}{'s' if count > 1 else ''})" for (series, unit), count in sorted(counts.items())
        )

    def read(self, symbol: str, day: Day) -> DayCandles:
        """Read and check a day. Raises DayNotFound, DayDamaged, StoreUnavailable, MissingExtra."""
        damage: DayDamaged | None = None
        if self.period != "day":
            path = self.destination(symbol, day)
            try:
                if day.date in (days := self._days(path)):
                    return _day_of(days, day, path)
            except DayDamaged as error:
                damage = error
            except FileNotFoundError:
                pass
        try:
            return self.read_own(symbol, day)
        except FileNotFoundError:
            raise damage or DayNotFound(str(self.destination(symbol, day)), (str(day),)) from None

    def read_own(self, symbol: str, day: Day) -> DayCandles:
        """Read the file that a day has of its own. Raises FileNotFoundError, DayDamaged, StoreUnavailable."""
        path = self.own_file(symbol, day)
        return _day_of(self._decoded(path, "day"), day, path)

    def write(self, *days: DayCandles) -> None:
        """Put days in the place of what is there, each file wholly or not at all; after an error what is there stays.

        The other days of a month or year stay as they are, and a damaged file is kept under another name. Files that
        the days have of their own are removed once the new one has been read from the disk and compared. To be called
        inside `writing`. Raises StoreUnavailable, MissingExtra, DayDamaged where what was written comes back otherwise.
        """
        for path, of_file in groupby(days, key=lambda candles: self.destination(candles.symbol, candles.day)):
            with refusals(path):
                self._directories.prepare(path.parent)
                if self.period == "day":
                    for candles in of_file:
                        replace_file(path, day_file.encode([candles], "day"))
                else:
                    with self._gate:
                        self._write_into(path, list(of_file))

    def _write_into(self, path: Path, days: Sequence[DayCandles]) -> None:
        """Replace a file by one that has these days, too; then the files that they had of their own go."""
        merged: dict[date, DayCandles] = {}
        try:
            merged = dict(self._days(path))
        except FileNotFoundError:
            pass
        except ValueError as error:  # DayDamaged is one
            aside = path.with_name(path.name + DAMAGED_SUFFIX)
            logger.warning("%s; it is kept as %s, and its other days have to be downloaded again", error, aside.name)
            os.replace(path, aside)
        merged |= {candles.day.date: candles for candles in days}
        merged = {day: merged[day] for day in sorted(merged)}
        replace_file(path, day_file.encode(list(merged.values()), self.period))
        own = [file for candles in days if (file := self.own_file(candles.symbol, candles.day)).exists()]
        if own and not all(map(is_same, merged.values(), self._days(path).values())):
            raise DayDamaged(str(path), "it was just written and does not come back as it was; the disk may be failing")
        for file in own:
            file.unlink(missing_ok=True)

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of this tree. Raises StoreInUse, StoreUnavailable."""
        return writing(self._tree)

    def _is_own(self, symbol: str, day: Day) -> bool:
        """Return whether the day is read from a file of its own."""
        if not self.own_file(symbol, day).exists():
            return False
        return self.period == "day" or not self._has(self.destination(symbol, day), day, if_damaged=False)

    def _has(self, path: Path, day: Day, *, if_damaged: bool = True) -> bool:
        try:
            return day.date in self._days(path)
        except DayDamaged:
            return if_damaged
        except FileNotFoundError:
            return False

    def _files(self, symbol: str) -> Iterator[tuple[Path, Period, date, date]]:
        """Yield the files of a symbol that may have days, with the first and the last day of each."""
        directory = self.destination(symbol, Day.of(0, self.zone)).parent
        for name in sorted(_names(directory)):
            for period in sorted({"day", self.period}):
                if not name.startswith(".") and (bounds := period_days(name, period)):
                    yield directory / name, period, *bounds

    def _days(self, path: Path) -> DayFile:
        """Return the days of a file of a month or year. Raises FileNotFoundError, DayDamaged, StoreUnavailable."""
        with refusals(path, besides=FileNotFoundError):
            is_of = path.stat()
        stamp = (is_of.st_ino, is_of.st_mtime_ns, is_of.st_ctime_ns, is_of.st_size)
        if (kept := self._kept.get(path, stamp)) is not None:
            return kept
        days = self._decoded(path, self.period)
        self._kept.put(path, stamp, days)
        return days

    def _decoded(self, path: Path, period: Period) -> DayFile:
        """Read a file. Raises FileNotFoundError, DayDamaged, StoreUnavailable, MissingExtra."""
        symbol, bounds = daily_symbol(path.parent.name), period_days(path.name, period)
        try:
            with refusals(path, besides=FileNotFoundError):
                data = read_plain(path, FILE_BYTES_MAX)
            days = day_file.decode(data)
        except ValueError as error:
            raise DayDamaged(str(path), f"damaged: {error}") from None
        holds = (days.market, days.price, days.symbol, days.interval, days.zone.name)
        dates = list(days)
        is_named = bounds is not None and bounds[0] <= dates[0] <= dates[-1] <= bounds[1]
        if holds != (self.market, self.price, symbol, self.interval, self.zone.name) or not is_named:
            words = (market_name(days.market, days.price), *holds[2:], dates[0])
            raise DayDamaged(str(path), f"holds {' '.join(map(str, words))}, its path names another one")
        return days


class _Kept:
    """The days of the files that were read last, as long as these stay as they were. Any thread may call."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._files: OrderedDict[Path, tuple[object, DayFile]] = OrderedDict()

    def get(self, path: Path, stamp: object) -> DayFile | None:
        with self._gate:
            kept = self._files.get(path)
            if kept is None or kept[0] != stamp:
                return None
            self._files.move_to_end(path)
            return kept[1]

    def put(self, path: Path, stamp: object, days: DayFile) -> None:
        with self._gate:
            self._files[path] = (stamp, days)
            if len(self._files) > FILES_KEPT:
                self._files.popitem(last=False)


def checked_market(market: object) -> Market:
    """Return a market in its own spelling; any case is taken. Raises ConfigError."""
    if isinstance(market, str) and market.upper() in MARKETS:
        return cast(Market, market.upper())
    raise ConfigError(f"market cannot be `{market}`; allowed: {' | '.join(MARKETS)}")


def checked_price(market: Market, price: object) -> Price:
    """Return a price that the market has. Raises ConfigError."""
    allowed = PRICES if market != "SPOT" else ("trade",)
    if price in allowed:
        return price
    raise ConfigError(f"price cannot be `{price}` with market {market}; allowed there: {' | '.join(allowed)}")


@contextmanager
def refusals(path: Path, besides: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Raise what the system refuses as StoreUnavailable, except `besides`."""
    try:
        yield
    except HistoryError:
        raise
    except besides:
        raise
    except OSError as error:
        raise StoreUnavailable(str(path), error.strerror or str(error), error.errno or 0) from None


def _day_of(days: DayFile, day: Day, path: Path) -> DayCandles:
    try:
        return days[day.date]
    except ValueError as error:
        raise DayDamaged(str(path), f"damaged: {error}") from None


def _names(directory: Path) -> Sequence[str]:
    with refusals(directory):
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return ()
