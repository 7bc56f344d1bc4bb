"""The CSV tree of `binance_interface` into daily files: each file is complete, incomplete or damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from candleshm.errors import DayDamaged
from candleshm.history.csv_tree import CsvFile, csv_files
from candleshm.history.reports import inspect
from candleshm.history.store import ParquetStore

__all__ = ["Imported", "import_files"]

Outcome = Literal["imported", "incomplete", "there", "damaged"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of one CSV file.

    imported: the whole day; incomplete: imported, a download fetches the missing candles; there: skipped, a complete
    file of the day is there already; damaged: left out, `reason` is why.
    """

    path: Path
    market: str
    interval: str
    timezone: str
    symbol: str
    day: date
    outcome: Outcome
    reason: str = ""


def import_files(
    source_dir: str | os.PathLike[str], base_dir: str | os.PathLike[str], *, replace: bool = False
) -> Iterator[Imported]:
    """Write every day of the tree in `source_dir` into `base_dir`, and yield the outcome of each file.

    Their source is `csv`: the predecessor may have stored rows before they were final, so they are not loaded into
    blocks. A day with a complete file is skipped unless `replace`.

    Raises StoreInUse, StoreUnavailable, MissingExtra.
    """
    stores: dict[Path, ParquetStore] = {}
    for file in csv_files(source_dir):
        kept = ParquetStore(base_dir, file.store.market, file.store.interval, file.store.zone)
        store = stores.setdefault(kept.tree, kept)
        with store.writing():
            outcome, reason = _import(file, store, replace=replace)
        yield Imported(
            file.store.path(file.symbol, file.day),
            store.market,
            store.interval,
            store.zone.name,
            file.symbol,
            file.day.date,
            outcome,
            reason,
        )


def _import(file: CsvFile, store: ParquetStore, *, replace: bool) -> tuple[Outcome, str]:
    [there] = inspect(store, file.symbol, [file.day])
    if there.is_complete and not replace:
        return "there", ""
    try:
        candles = file.store.read(file.symbol, file.day)
    except DayDamaged as error:
        return "damaged", error.reason
    if there.is_complete and not candles.is_complete:
        return "there", ""
    store.write(candles)
    return ("imported" if candles.is_complete else "incomplete"), ""
