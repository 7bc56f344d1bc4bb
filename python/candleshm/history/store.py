"""Where daily files are read and written, one for each symbol and day; `file_names` has their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, cast

from candleshm._core import MARKETS, Zone
from candleshm.errors import ConfigError, DayDamaged, DayNotFound, HistoryError, StoreUnavailable
from candleshm.exchanges.base import Market
from candleshm.history import parquet
from candleshm.history.candles import DayCandles
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.file_names import (
    daily_date,
    daily_file,
    daily_files_pattern,
    daily_series,
    daily_symbol,
    daily_tree,
)
from candleshm.history.lock import writing
from candleshm.history.plain_file import read_plain
from candleshm.system.atomic_file import Directories, replace_file

__all__ = ["DayStore", "ParquetStore", "checked_market", "refusals"]

# A day of 1s has 90 000 rows at most, of 96 bytes before they are packed.
FILE_BYTES_MAX = 64 * 1024 * 1024


class DayStore(Protocol):
    """Where days are kept: Parquet files here, the predecessor's CSV tree in `csv_tree`."""

    market: Market
    interval: str
    zone: Zone

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file of a day."""

    def read(self, symbol: str, day: Day) -> DayCandles:
        """Read and check a day. Raises DayNotFound, DayDamaged, StoreUnavailable."""

    def write(self, candles: DayCandles) -> None:
        """Put a day in the place of what is there, wholly or not at all. Raises StoreUnavailable."""

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer. Raises StoreInUse."""


class ParquetStore:
    """The daily files of one (market, interval, zone).

    Reading needs no lock: a file is replaced as a whole. Writing is for one process at a time, see `writing`.
    """

    def __init__(self, base_dir: str | os.PathLike[str], market: str, interval: str, zone: Zone) -> None:
        """Name the tree; nothing is read or made. Raises ConfigError."""
        self.market = checked_market(market)
        if interval not in DAILY_INTERVALS:
            raise ConfigError(f"interval cannot be `{interval}`; daily files have: {' '.join(DAILY_INTERVALS)}")
        self.interval = interval
        self.zone = zone
        self._tree = daily_tree(base_dir, self.market, interval, zone.name)
        self._directories = Directories()

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""
        return self._tree

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file of a day."""
        return daily_file(self._tree, symbol, day)

    def symbols(self) -> list[str]:
        """Return the symbols that have a directory, sorted. Raises StoreUnavailable."""
        return sorted(symbol for name in _names(self._tree) if (symbol := daily_symbol(name)) is not None)

    def days(self, symbol: str) -> list[Day]:
        """Return the days that have a file, oldest first; the files are not read."""
        names = _names(self.path(symbol, Day.of(0, self.zone)).parent)
        return [Day(day, self.zone) for day in sorted(filter(None, map(daily_date, names)))]

    def inventory(self, symbol: str | None = None) -> str:
        """Return in words what this market has of a symbol, or of all, in any interval and zone; empty for nothing.

        It is for messages: `interval=1m timezone=UTC (27 days)`.
        """
        paths = self._tree.parent.parent.glob(daily_files_pattern(symbol))
        counts = Counter(daily_series(path) for path in paths)
        unit = "files" if symbol is None else "days"
        return ", ".join(
            f"{series} ({count} {unit if count > 1 else unit[:-1]})" for series, count in sorted(counts.items())
        )

    def read(self, symbol: str, day: Day) -> DayCandles:
        """Read and check a day. Raises DayNotFound, DayDamaged, StoreUnavailable, MissingExtra."""
        path = self.path(symbol, day)
        try:
            with refusals(path):
                try:
                    data = read_plain(path, FILE_BYTES_MAX)
                except FileNotFoundError:
                    raise DayNotFound(str(path), (str(day),)) from None
            candles = parquet.decode(data)
        except ValueError as error:
            raise DayDamaged(str(path), f"damaged: {error}") from None
        is_of = (candles.market, candles.symbol, candles.interval, candles.day.zone.name, candles.day.date)
        if is_of != (self.market, symbol, self.interval, self.zone.name, day.date):
            raise DayDamaged(str(path), f"holds {' '.join(map(str, is_of))}, its path names another one")
        return candles

    def write(self, candles: DayCandles) -> None:
        """Put a day in the place of what is there, wholly or not at all; what is there stays after an error.

        To be called inside `writing`. Raises StoreUnavailable, MissingExtra.
        """
        path = self.path(candles.symbol, candles.day)
        data = parquet.encode(candles)
        with refusals(path):
            self._directories.prepare(path.parent)
            replace_file(path, data)

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of this tree. Raises StoreInUse, StoreUnavailable."""
        return writing(self._tree)


def checked_market(market: object) -> Market:
    """Return a market in its own spelling; any case is taken. Raises ConfigError."""
    if isinstance(market, str) and market.upper() in MARKETS:
        return cast(Market, market.upper())
    raise ConfigError(f"market cannot be `{market}`; allowed: {' | '.join(MARKETS)}")


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Raise what the system refuses as StoreUnavailable."""
    try:
        yield
    except HistoryError:
        raise
    except OSError as error:
        raise StoreUnavailable(str(path), error.strerror or str(error), error.errno or 0) from None


def _names(directory: Path) -> Sequence[str]:
    with refusals(directory):
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return ()
