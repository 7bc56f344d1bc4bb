"""Which files of the archive hold the candles of which days, and those candles.

The archive cuts days at midnight UTC, the daily files in a time zone: a day of New York needs two days of the archive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from candleshm._core import candles_within
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import BadResponse, ExchangeUnavailable
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Market, Price
from candleshm.history.archive import Archive
from candleshm.history.archive_file import ArchiveFile
from candleshm.history.candles import Candles, Span
from candleshm.history.day import Day, Grid

__all__ = ["ArchiveCandles", "ArchiveDays"]

logger = logging.getLogger(__name__)

EPOCH = date(1970, 1, 1)
# With fewer days of a month to go, its daily files are less to fetch.
MONTH_DAYS_MIN = 8
# Shorter candles have months that are too large to hold in memory.
MONTHLY_FROM_MS = INTERVAL_MS["1m"]


@dataclass(frozen=True, slots=True)
class ArchiveCandles:
    """What the archive has: rows, ascending, and the ranges of files that exist and cannot be used."""

    rows: Candles
    unusable: Sequence[Span]


class ArchiveDays:
    """The archive's candles of one market, price and interval, for a download of `wanted` days altogether."""

    def __init__(
        self, archive: Archive, market: Market, price: Price, interval: str, wanted: Iterable[Day], now_ms: int
    ) -> None:
        """`now_ms` is the exchange's time: of a day of UTC that is not over there is no file."""
        self._archive = archive
        self._market: Market = market
        self._price: Price = price
        self._interval = interval
        self._today = _date_of(now_ms)
        self._wanted = self._dates(wanted)

    def candles(self, symbol: str, days: Iterable[Day]) -> ArchiveCandles:
        """Return all candles of these days, and others of the same files.

        They come from monthly files where a whole month is wanted, else from daily ones, and from those too where a
        monthly file has candles missing. A file that cannot be used is logged.
        """
        parts: dict[date, Candles] = {}
        unusable: list[Span] = []
        wanted = self._dates(days)
        for month in sorted({day.replace(day=1) for day in wanted}, reverse=True):
            of_month = sorted((day for day in wanted if day.replace(day=1) == month), reverse=True)
            begins = None
            if self._takes_month(month, of_month):
                file = self._file(symbol, month, is_month=True)
                rows = self._fetch(file)
                if rows is not None and len(rows):
                    parts |= _by_date(rows)
                    begins = _date_of(rows[0, OPEN_TIME_MS])
            for day in of_month:
                file = self._file(symbol, day)
                _, count = candles_within(self._interval, file.start_ms, file.end_ms)
                # What lies before a month's first candle is most likely before the symbol's first.
                if len(parts.get(day, ())) == count or (begins and day < begins):
                    continue
                rows = self._fetch(file, unusable)
                if rows is not None and len(rows) > len(parts.get(day, ())):
                    parts[day] = rows
        ordered = [parts[day] for day in sorted(parts)]
        return ArchiveCandles(np.concatenate(ordered) if ordered else np.empty((0, 12)), unusable)

    def _file(self, symbol: str, first: date, *, is_month: bool = False) -> ArchiveFile:
        return ArchiveFile(self._market, symbol, self._interval, first, is_month, self._price)

    def _fetch(self, file: ArchiveFile, unusable: list[Span] | None = None) -> Candles | None:
        # The archive has no continuous contracts.
        if not self._archive.is_usable or ":" in file.symbol:
            return None
        try:
            found = self._archive.fetch(file)
        except ExchangeUnavailable as error:
            logger.info("archive: %s: %s", file.name, error)
            return None
        except BadResponse as error:
            logger.warning("archive: %s cannot be used: %s", file.name, error)
            if unusable is not None:
                unusable.append((file.start_ms, file.end_ms))
            return None
        if found is None:
            return None
        rows, left_out = found
        if left_out:
            logger.warning("archive: %s: %d rows have impossible values and were left out", file.name, left_out)
        return rows

    def _takes_month(self, month: date, wanted: Sequence[date]) -> bool:
        next_month = (month + timedelta(days=32)).replace(day=1)
        days = [month + timedelta(days=number) for number in range((next_month - month).days)]
        return (
            INTERVAL_MS[self._interval] >= MONTHLY_FROM_MS
            and len(wanted) >= MONTH_DAYS_MIN
            and next_month <= self._today
            and self._wanted.issuperset(days)
        )

    def _dates(self, days: Iterable[Day]) -> set[date]:
        """Return the days of UTC that are over and hold candles of these days."""
        dates: set[date] = set()
        for day in days:
            grid = Grid.of(day, self._interval)
            if grid.count:
                first, last = grid.first_ms // DAY_MS, (grid.end_ms - grid.length_ms) // DAY_MS
                dates.update(EPOCH + timedelta(days=number) for number in range(first, last + 1))
        return {day for day in dates if day < self._today}


def _date_of(epoch_ms: float) -> date:
    return EPOCH + timedelta(days=int(epoch_ms // DAY_MS))


def _by_date(rows: Candles) -> dict[date, Candles]:
    numbers = rows[:, OPEN_TIME_MS].astype(np.int64) // DAY_MS
    edges = np.flatnonzero(np.diff(numbers)) + 1
    return {_date_of(part[0, OPEN_TIME_MS]): part for part in np.split(rows, edges)}
