"""The CSV tree that `binance_interface` keeps its days in, for tools that read it; `file_names` has its names.

A header of column numbers, then twelve floats a line. Such a file states nothing about itself: no checksum, no source,
no holes. So a day with a missing candle can never count as complete here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from candleshm._core import INTERVAL_MS, Zone, zone_names
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayDamaged, DayNotFound
from candleshm.exchanges.base import Price
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.csv_text import plain_csv
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.file_names import CSV_SUFFIX, csv_file, csv_tree, csv_tree_parts
from candleshm.history.lock import writing
from candleshm.history.plain_file import read_plain
from candleshm.history.store import FILE_BYTES_MAX, checked_market, refusals
from candleshm.system.atomic_file import Directories, replace_file

__all__ = ["CsvFile", "CsvStore", "csv_files", "strange_paths"]

HEADER = ",".join(map(str, range(len(NAMES))))


class CsvStore:
    """The CSV files of one (market, interval, zone). A download uses it as it uses a `ParquetStore`."""

    def __init__(
        self,
        base_dir: str | os.PathLike[str],
        market: str,
        interval: str,
        zone: Zone,
        price: Price = "trade",
        *,
        spelled: str | None = None,
    ) -> None:
        """Name the tree; nothing is read or made. `spelled` is the interval in its name. Raises ConfigError."""
        self.market = checked_market(market)
        self.price: Price = price
        if price != "trade":
            raise ConfigError(f"price cannot be `{price}` in CSV files; allowed there: trade")
        if interval not in DAILY_INTERVALS:
            raise ConfigError(f"interval cannot be `{interval}`; daily files have: {' '.join(DAILY_INTERVALS)}")
        self.interval = interval
        self.zone = zone
        self._tree = csv_tree(base_dir, self.market, zone.name, spelled or interval)
        self._directories = Directories()

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""
        return self._tree

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file of a day."""
        return csv_file(self._tree, symbol, day)

    def read(self, symbol: str, day: Day) -> DayCandles:
        """Read a day and check what can be checked. Raises DayNotFound, DayDamaged, StoreUnavailable."""
        path = self.path(symbol, day)
        try:
            with refusals(path):
                try:
                    data = read_plain(path, FILE_BYTES_MAX)
                    written_ms = int(path.stat().st_mtime * 1000)
                except FileNotFoundError:
                    raise DayNotFound(str(path), (str(day),)) from None
            rows = _parsed(data)
            return DayCandles(
                market=self.market,
                symbol=symbol,
                interval=self.interval,
                day=day,
                rows=rows,
                source="csv",
                fetched_ms=written_ms,
            )
        except ValueError as error:
            raise DayDamaged(str(path), f"damaged: {error}") from None

    def destination(self, symbol: str, day: Day) -> Path:
        """Return the file into which a day is written."""
        return self.path(symbol, day)

    def write(self, *days: DayCandles) -> None:
        """Put days in the place of what is there, each wholly or not at all. Raises StoreUnavailable."""
        for candles in days:
            path = self.path(candles.symbol, candles.day)
            lines = [HEADER, *(",".join(map(repr, row)) for row in candles.rows.tolist()), ""]
            with refusals(path):
                self._directories.prepare(path.parent)
                replace_file(path, "\n".join(lines).encode())

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of this tree. Raises StoreInUse, StoreUnavailable."""
        return writing(self._tree)


class CsvFile(NamedTuple):
    """A file of the tree, and what it holds, by its path."""

    store: CsvStore
    symbol: str
    day: Day


def csv_files(base_dir: str | os.PathLike[str]) -> Iterator[CsvFile]:
    """Yield every daily file of a predecessor's tree, in the order of their paths. Raises StoreUnavailable.

    Caches of whole symbols (`...-FILE`) and files with other names are left out, see `strange_paths`.
    """
    base = Path(base_dir)
    zones = {name.replace("/", ""): name for name in zone_names()}
    with refusals(base):
        trees = sorted(path for path in base.iterdir() if path.is_dir())
    for tree in trees:
        parts = csv_tree_parts(tree.name)
        if parts is None or parts[1] not in zones:
            continue
        market, zone, spelled = parts
        # candlelite writes 1H for an hour.
        interval = spelled if spelled in INTERVAL_MS else spelled.lower()
        if interval not in DAILY_INTERVALS:
            continue
        store = CsvStore(base, market, interval, Zone(zones[zone]), spelled=spelled)
        for path in sorted(tree.glob(f"????-??/????-??-??/*{CSV_SUFFIX}")):
            try:
                day = Day(date.fromisoformat(path.parent.name), store.zone)
            except ValueError:
                continue
            if not path.name.startswith("."):
                yield CsvFile(store, path.name.removesuffix(CSV_SUFFIX), day)


def strange_paths(base_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield paths that look like a part of such a tree and do not show what they hold: `csv_files` leaves them out.

    These are trees of unknown zones or intervals, and CSV files outside the directory of a day. Raises
    StoreUnavailable.
    """
    base = Path(base_dir)
    known = {file.store.path(file.symbol, file.day) for file in csv_files(base)}
    with refusals(base):
        trees = sorted(path for path in base.iterdir() if path.is_dir())
    for tree in trees:
        if csv_tree_parts(tree.name.upper()) and not tree.name.upper().endswith("-FILE"):
            for path in sorted(tree.rglob("*")):
                is_csv = path.name.lower().endswith(CSV_SUFFIX) and not path.name.startswith(".")
                if is_csv and path not in known:
                    yield path


def _parsed(data: bytes) -> Candles:
    """Read the lines of a file, in any order, and return the rows sorted. Raises ValueError that names the line."""
    text = plain_csv(data).decode()
    # Python would take more for a number than other programs write: 1_000, and digits of other scripts.
    if not text.isascii() or "_" in text:
        raise ValueError("it contains characters that are not part of a number")
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise ValueError("its header is not 0,1,...,11")
    if not text.endswith("\n"):
        raise ValueError("its last line is cut short")
    rows = np.empty((len(lines) - 1, len(NAMES)))
    for number, line in enumerate(lines[1:]):
        values = line.split(",")
        if len(values) != len(NAMES):
            raise ValueError(f"line {number + 2} has {len(values)} columns")
        try:
            rows[number] = [float(value) for value in values]
        except ValueError as error:
            raise ValueError(f"line {number + 2}: {error}") from None
    if not np.isfinite(rows).all() or (rows[:, 2] < rows[:, 3]).any() or (rows[:, 5] < 0).any():
        raise ValueError("it contains rows that cannot be true")
    return rows[np.argsort(rows[:, OPEN_TIME_MS], kind="stable")]
