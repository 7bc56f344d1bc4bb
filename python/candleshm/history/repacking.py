"""Days that older versions wrote into files of their own, moved into the files of months and years."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from candleshm._core import PRICES, Zone
from candleshm.errors import ConfigError, DayDamaged
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day
from candleshm.history.store import ParquetStore

__all__ = ["Repacked", "days_to_repack", "repack", "stores_in"]


@dataclass(frozen=True, slots=True)
class Repacked:
    """What came of the days of one month or year: how many have no file of their own any more, and what is damaged."""

    path: Path
    days: int
    damaged: tuple[DayDamaged, ...]
    """Files that cannot be read; they are left as they are."""


def stores_in(base_dir: str | os.PathLike[str]) -> list[ParquetStore]:
    """Return the trees below a directory, by their paths; directories of another kind are left out."""
    found = []
    for tree in sorted(Path(base_dir).glob("market=*/interval=*/timezone=*")):
        market, interval, zone_name = (unquote(part.partition("=")[2]) for part in tree.parts[-3:])
        market, _, price = market.partition("-")
        with suppress(ConfigError):
            if (price or "trade") in PRICES and tree.is_dir():
                store = ParquetStore(base_dir, market, interval, Zone(zone_name), price or "trade")  # type: ignore[arg-type]
                found.append(store)
    return found


def days_to_repack(stores: list[ParquetStore]) -> int:
    """Return how many days have a file of their own and belong into one of a month or a year."""
    return sum(len(store.own_files(symbol)) for store in stores for symbol in store.symbols())


def repack(stores: list[ParquetStore], stopping: threading.Event) -> Iterator[Repacked]:
    """Move the days of these trees, a month or year after the other, and yield what came of each.

    A file of a day is removed once the file of its month or year is on the disk, and has been read from there and
    compared. So a kill at any moment, or `stopping`, loses nothing, and the next call goes on from there. Readers find
    every day meanwhile. Raises StoreInUse, StoreUnavailable, MissingExtra.
    """
    for store in stores:
        with store.writing():
            for symbol in store.symbols():
                for path, days in groupby(store.own_files(symbol), key=lambda day: store.destination(symbol, day)):
                    if stopping.is_set():
                        return
                    yield _repack(store, symbol, path, list(days))


def _repack(store: ParquetStore, symbol: str, path: Path, days: list[Day]) -> Repacked:
    moved: list[DayCandles] = []
    superseded: list[Day] = []
    damaged: list[DayDamaged] = []
    for day in days:
        try:
            own = store.read_own(symbol, day)
        except DayDamaged as error:
            damaged.append(error)
            continue
        try:
            # The file of the month or year, where that has the day.
            other = store.read(symbol, day)
        except DayDamaged:
            other = own
        is_newer = store.path(symbol, day) == path
        if is_newer and (other.is_complete or len(other.rows) >= len(own.rows)):
            superseded.append(day)
        else:
            moved.append(own)
    store.write(*moved)
    for day in superseded:
        store.own_file(symbol, day).unlink(missing_ok=True)
    return Repacked(path, len(moved) + len(superseded), tuple(damaged))
