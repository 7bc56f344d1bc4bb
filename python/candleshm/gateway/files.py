"""Daily files as a source of answers: the candles of past days, as stretches of a series."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from urllib.parse import unquote

import numpy as np

from candleshm._core import Zone
from candleshm.errors import ConfigError, HistoryError
from candleshm.exchanges.base import Market, Price
from candleshm.gateway.directory import divides
from candleshm.gateway.stretch import ALL_MS, NO_MOMENTS, Stretch
from candleshm.history.candles import DayCandles
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.file_names import daily_tree
from candleshm.history.store import ParquetStore

__all__ = ["DailyFiles"]

# Days of 1m and longer that are kept in memory, of 140 KB at most. A day of 1s has 8 MB, and is read anew.
DAYS_KEPT = 128
STORES_KEPT = 64


class DailyFiles:
    """The daily files of one directory, read as they are needed. Methods may be called from any thread."""

    def __init__(self, base_dir: str | os.PathLike[str]) -> None:
        """Name the directory; nothing is read."""
        self._base_dir = base_dir
        self._kept = lru_cache(DAYS_KEPT)(self._read)
        # A store remembers the files of months and years that it has read.
        self._store = lru_cache(STORES_KEPT)(self._named)

    def stores(self, market: Market, symbol: str, interval: str, price: Price = "trade") -> list[ParquetStore]:
        """Return where there are files of a symbol of which candles of `interval` are made, in days of any time zone.

        Those of `interval` itself come first, then those of longer intervals before those of shorter ones.
        """
        names = [name for name in reversed(DAILY_INTERVALS) if name == interval or divides(name, interval)]
        found = []
        for name in names:
            any_zone = daily_tree(self._base_dir, market, name, "", price)
            for tree in sorted(any_zone.parent.glob(f"{any_zone.name}*")):
                with suppress(ConfigError, OSError):
                    store = self._store(market, name, unquote(tree.name.partition("=")[2]), price)
                    if store.destination(symbol, Day.of(0, store.zone)).parent.is_dir():
                        found.append(store)
        return found

    def stretch(self, store: ParquetStore, symbol: str, from_ms: int, to_ms: int) -> Stretch | None:
        """Return what files have from `from_ms` on up to `to_ms`, exclusive, by whole days; None without any.

        It ends with the last day that has a whole file, and reaches back from there as far as files follow each other.
        """
        parts: list[DayCandles] = []
        is_first = False
        day = Day.of(max(0, to_ms - 1), store.zone)
        while day.end_ms > from_ms and not is_first:
            candles = self._day(store, symbol, day)
            if candles is not None:
                parts.insert(0, candles)
                # Nothing before the first row of the day: it is the symbol's first.
                is_first = len(candles.rows) > 0 and any(start_ms == day.start_ms for start_ms, _ in candles.outside)
            if (candles is None and parts) or day.start_ms <= 0:
                break
            day = Day.of(day.start_ms - 1, store.zone)
        if not parts:
            return None
        end_ms = parts[-1].day.end_ms
        return Stretch(
            interval=store.interval,
            rows=np.concatenate([candles.rows for candles in parts]),
            start_ms=ALL_MS if is_first else parts[0].day.start_ms,
            end_ms=end_ms,
            final_ms=end_ms,
            missing_ms=NO_MOMENTS,
            price=store.price,
            farthest="files",
        )

    def _named(self, market: Market, interval: str, zone_name: str, price: Price) -> ParquetStore:
        return ParquetStore(self._base_dir, market, interval, Zone(zone_name), price)

    def _day(self, store: ParquetStore, symbol: str, day: Day) -> DayCandles | None:
        """Return a day of which every candle is known, None without one."""
        try:
            changed_ns = store.path(symbol, day).stat().st_mtime_ns
        except OSError:
            return None
        read = self._read if store.interval == "1s" else self._kept
        return read(store.market, store.price, store.interval, symbol, day, changed_ns)

    def _read(
        self, market: Market, price: Price, interval: str, symbol: str, day: Day, _changed_ns: int
    ) -> DayCandles | None:
        try:
            candles = self._store(market, interval, day.zone.name, price).read(symbol, day)
        except HistoryError:
            return None
        # The predecessor stored rows before they were final.
        return candles if candles.is_complete and candles.source != "csv" else None
