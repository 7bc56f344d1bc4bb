"""The tree that `binance_interface` keeps its days in, for tools that read it::

    {base_dir}/{SPOT}-{AmericaNew_York}-{1m}/{2026-11}/{2026-11-23}/{BTCUSDT}.csv

A header of column numbers, then twelve floats a line. Such a file says nothing about itself: no checksum, no source,
no holes. So a day that lacks a candle can never count as whole here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from candleshm._core import INTERVAL_MS, MARKETS, Zone, zone_names
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayDamaged, DayNotFound
from candleshm.exchanges.base import Market
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.csv_text import plain_csv
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.lock import writing
from candleshm.history.plain_file import read_plain
from candleshm.history.store import FILE_BYTES_MAX, checked_market, refusals
from candleshm.system.atomic_file import Directories, replace_file

__all__ = ["CsvFile", "CsvStore", "csv_files", "strange_paths"]

HEADER = ",".join(map(str, range(len(NAMES))))
SUFFIX = ".csv"
_TREE = re.compile(r"(SPOT|UM|CM)-(.+)-(\w+)")


class CsvStore:
    """The CSV files of one (market, interval, zone). The same to a download as a `ParquetStore`."""

    def __init__(
        self,
        base_dir: str | os.PathLike[str],
        market: str,
        interval: str,
        zone: Zone,
        *,
        spelled: str | None = None,
    ) -> None:
        """Name the tree; nothing is read or made. `spelled` is the interval in its name. Raises ConfigError."""
        self.market = checked_market(market)
        if interval not in DAILY_INTERVALS:
            raise ConfigError(f"interval cannot be `{interval}`; daily files have: {' '.join(DAILY_INTERVALS)}")
        self.interval = interval
        self.zone = zone
        self._tree = Path(base_dir) / f"{self.market}-{zone.name.replace('/', '')}-{spelled or interval}"
        self._directories = Directories()

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""
        return self._tree

    def path(self, symbol: str, day: Day) -> Path:
        """Return the file of a day."""
        return self._tree / f"{day}"[:7] / f"{day}" / f"{symbol}{SUFFIX}"

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

    def write(self, candles: DayCandles) -> None:
        """Put a day in the place of what is there, wholly or not at all. Raises StoreUnavailable."""
        path = self.path(candles.symbol, candles.day)
        lines = [HEADER, *(",".join(map(repr, row)) for row in candles.rows.tolist()), ""]
        with refusals(path):
            self._directories.prepare(path.parent)
            replace_file(path, "\n".join(lines).encode())

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of this tree. Raises StoreInUse, StoreUnavailable."""
        return writing(self._tree)


class CsvFile(NamedTuple):
    """A file of the tree that says by its place what it holds."""

    store: CsvStore
    symbol: str
    day: Day


def csv_files(base_dir: str | os.PathLike[str]) -> Iterator[CsvFile]:
    """Yield every daily file of a predecessor's tree, in the order of their paths. Raises StoreUnavailable.

    Caches of whole symbols (`...-FILE`) and what has another name are left out, see `strange_paths`.
    """
    base = Path(base_dir)
    zones = {name.replace("/", ""): name for name in zone_names()}
    with refusals(base):
        trees = sorted(path for path in base.iterdir() if path.is_dir())
    for tree in trees:
        found = _TREE.fullmatch(tree.name)
        if found is None or found[2] not in zones:
            continue
        interval = found[3] if found[3] in INTERVAL_MS else found[3].lower()
        if interval not in DAILY_INTERVALS or found[1] not in MARKETS:
            continue
        market: Market = checked_market(found[1])
        # candlelite writes 1H for an hour.
        store = CsvStore(base, market, interval, Zone(zones[found[2]]), spelled=found[3])
        for path in sorted(tree.glob(f"????-??/????-??-??/*{SUFFIX}")):
            try:
                day = Day(date.fromisoformat(path.parent.name), store.zone)
            except ValueError:
                continue
            if not path.name.startswith("."):
                yield CsvFile(store, path.name.removesuffix(SUFFIX), day)


def strange_paths(base_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield what looks like a part of such a tree and does not say what it holds: `csv_files` leaves it out.

    That are trees of unknown zones or intervals, and CSV files that do not lie in the directory of a day. Raises
    StoreUnavailable.
    """
    base = Path(base_dir)
    known = {file.store.path(file.symbol, file.day) for file in csv_files(base)}
    with refusals(base):
        trees = sorted(path for path in base.iterdir() if path.is_dir())
    for tree in trees:
        if _TREE.fullmatch(tree.name.upper()) and not tree.name.upper().endswith("-FILE"):
            for path in sorted(tree.rglob("*")):
                is_csv = path.name.lower().endswith(SUFFIX) and not path.name.startswith(".")
                if is_csv and path not in known:
                    yield path


def _parsed(data: bytes) -> Candles:
    """Read the lines of a file, in any order, and return the rows sorted. Raises ValueError that names the line."""
    text = plain_csv(data).decode()
    # Python would take more for a number than other programs write: 1_000, and digits of other scripts.
    if not text.isascii() or "_" in text:
        raise ValueError("it holds what no number is written with")
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
        raise ValueError("it holds rows that cannot be true")
    return rows[np.argsort(rows[:, OPEN_TIME_MS], kind="stable")]
