"""A day in a time zone: from one local midnight to the next, so that it has 23 or 25 hours where the clocks change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from candleshm._core import INTERVAL_MS, Zone, candles_within, check_moment
from candleshm.errors import ConfigError
from candleshm.exchanges.base import DAY_MS

__all__ = ["DAILY_INTERVALS", "Day", "DayLike", "Grid", "days_between"]

DayLike = str | date | datetime | int | float
"""A day as users give it: 'YYYY-MM-DD', a date, a datetime (naive ones are local to the zone) or epoch milliseconds."""

DAILY_INTERVALS = tuple(name for name, length_ms in INTERVAL_MS.items() if length_ms <= DAY_MS)
"""Intervals that have daily files: the grid of the longer ones depends on months or on the symbol."""

EPOCH = date(1970, 1, 1)
# The calendar of Python ends with the year 9999, and every day has one after it.
DATE_MAX = date(9998, 12, 31)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of one zone, by the same rules as the days of a live block.

    A midnight that the clocks jump over counts as the moment of the jump, and one that comes twice as its first.
    `parse` raises ConfigError for what is no day.

    >>> from candleshm._core import Zone
    >>> str(Day.of(1795867200000, Zone("Asia/Shanghai")).next())
    '2026-11-29'
    """

    date: date
    """In the calendar."""
    zone: Zone
    """Whose midnights bound it."""

    @classmethod
    def of(cls, epoch_ms: float, zone: Zone) -> Day:
        """Return the day that `epoch_ms` falls into. Raises OverflowError for one beyond the calendar."""
        return cls(EPOCH + timedelta(days=zone.day_of(math.floor(epoch_ms))), zone)

    @classmethod
    def parse(cls, value: DayLike, zone: Zone) -> Day:
        """Return the day that a user means by `value`, a `DayLike`, from 1970 on. Raises ConfigError."""
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            check_moment(value)
        with suppress(ValueError, TypeError, OverflowError):
            if isinstance(value, datetime):
                is_local = value.tzinfo is None
                day = cls(value.date(), zone) if is_local else cls.of(value.timestamp() * 1000, zone)
            elif isinstance(value, date):
                day = cls(value, zone)
            elif isinstance(value, str):
                day = cls(date.fromisoformat(value), zone)
            elif isinstance(value, bool):
                raise TypeError
            else:
                day = cls.of(value, zone)
            if EPOCH <= day.date <= DATE_MAX:
                return day
        raise ConfigError(
            f"day cannot be `{value}`; allowed: YYYY-MM-DD, a date, a datetime or epoch milliseconds, from 1970 on"
        )

    def __str__(self) -> str:
        return self.date.isoformat()

    @property
    def start_ms(self) -> int:
        """Where the day begins."""
        return self.zone.reached_ms(self._number)

    @property
    def end_ms(self) -> int:
        """Where the day ends, which is where the next one begins."""
        return self.next().start_ms

    def at_ms(self, hour: int, minute: int, second: int) -> int:
        """Return when the zone's clocks show `hour`, `minute` and `second`, for the first time, in epoch ms.

        One that they jump over counts as reached when they would have shown it without the jump.
        """
        return self.zone.at_ms(self._number, ((hour * 60 + minute) * 60 + second) * 1000)

    def next(self) -> Day:
        """Return the day after."""
        return Day(self.date + timedelta(days=1), self.zone)

    def previous(self) -> Day:
        """Return the day before."""
        return Day(self.date - timedelta(days=1), self.zone)

    @property
    def _number(self) -> int:
        return (self.date - EPOCH).days


@dataclass(frozen=True, slots=True)
class Grid:
    """The open times of one interval that fall into a day: `first_ms`, `first_ms + length_ms`, ..., `count` of them.

    A candle belongs to the day in which it opens, even when it ends in the next one.
    """

    first_ms: int
    length_ms: int
    count: int

    @classmethod
    def of(cls, day: Day, interval: str) -> Grid:
        """Return the grid of `day`; 1d candles open at midnight UTC, so in most zones somewhere inside a day."""
        first_ms, count = candles_within(interval, day.start_ms, day.end_ms)
        return cls(first_ms, INTERVAL_MS[interval], count)

    @property
    def end_ms(self) -> int:
        """Where the last candle of the day ends."""
        return self.first_ms + self.count * self.length_ms


def days_between(first: Day, last: Day) -> Iterator[Day]:
    """Yield the days from `first` to `last`, both included; a date that a zone left out has no day."""
    day = first
    while day.date <= last.date:
        if day.end_ms > day.start_ms:
            yield day
        day = day.next()
