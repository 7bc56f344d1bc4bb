"""A day in a time zone: from one local midnight to the next, so that it has 23 or 25 hours where the clocks change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS, Zone, candles_within, check_moment
from candleshm.errors import ConfigError
from candleshm.exchanges.base import DAY_MS

__all__ = ["DAILY_INTERVALS", "Day", "DayLike", "Grid", "days_between", "epoch_ms_of"]

DayLike = str | date | datetime | int | float | np.integer | np.floating
"""A day as users give it: 'YYYY-MM-DD', a date, a datetime (naive ones are local to the zone) or epoch milliseconds.

Epoch milliseconds are a number of Python or NumPy, or its digits as a text.
"""

DAILY_INTERVALS = tuple(name for name, length_ms in INTERVAL_MS.items() if length_ms <= DAY_MS)
"""Intervals that have daily files: the grid of the longer ones depends on months or on the symbol."""

EPOCH = date(1970, 1, 1)
# The calendar of Python ends with the year 9999, and every day has one after it.
DATE_MAX = date(9998, 12, 31)
# A date without its dashes has eight digits; Python reads no number of thousands of them.
DIGITS_MIN, DIGITS_MAX = 9, 30


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
        """Return the day that a user means by `value`, a `DayLike`, from 1970 to 9998. Raises ConfigError."""
        epoch_ms = epoch_ms_of(value)
        with suppress(ValueError, TypeError, OverflowError):
            if epoch_ms is not None:
                day = cls.of(epoch_ms, zone)
            elif isinstance(value, datetime):
                is_local = value.tzinfo is None
                day = cls(value.date(), zone) if is_local else cls.of(value.timestamp() * 1000, zone)
            elif isinstance(value, date):
                day = cls(value, zone)
            elif isinstance(value, str):
                day = cls(date.fromisoformat(value), zone)
            else:
                raise TypeError
            if EPOCH <= day.date <= DATE_MAX:
                return day
        raise ConfigError(
            f"day cannot be `{value}`; allowed: YYYY-MM-DD, a date, a datetime or epoch milliseconds, "
            f"from {EPOCH.year} to {DATE_MAX.year}"
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

    def at_ms(self, hour: int, minute: int, second: int, *, fold: int = 0) -> int:
        """Return when the zone's clocks show `hour`, `minute` and `second`, in epoch ms.

        Of a time that comes twice it is the first, with a `fold` of 1 the second. One that the clocks jump over counts
        as reached when they would have shown it without the jump.
        """
        time_of_day_ms = ((hour * 60 + minute) * 60 + second) * 1000
        first_ms = self.zone.at_ms(self._number, time_of_day_ms)
        if not fold:
            return first_ms
        # What comes twice does so within a day, and clocks that were put back stay so for longer than that.
        shown_ms = self._number * DAY_MS + time_of_day_ms
        again_ms = shown_ms - self.zone.offset_ms(first_ms + DAY_MS)
        is_shown = again_ms + self.zone.offset_ms(again_ms) == shown_ms
        return max(first_ms, again_ms) if is_shown else first_ms

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

    def open_times(self) -> npt.NDArray[np.int64]:
        """Return all open times, epoch ms."""
        return self.first_ms + self.length_ms * np.arange(self.count, dtype=np.int64)


def days_between(first: Day, last: Day) -> Iterator[Day]:
    """Yield the days from `first` to `last`, both included; a date that a zone left out has no day."""
    day = first
    while day.date <= last.date:
        if day.end_ms > day.start_ms:
            yield day
        day = day.next()


def epoch_ms_of(value: object) -> float | None:
    """Return the epoch ms that a number, or a text of digits, is; None for what is neither, such as a date.

    Raises ConfigError for a number that is evidently in another unit.

    >>> epoch_ms_of("1795867200000"), epoch_ms_of("20261128")
    (1795867200000, None)
    """
    if isinstance(value, str) and DIGITS_MIN <= len(value) <= DIGITS_MAX and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        if math.isfinite(value):
            check_moment(float(value))
    except OverflowError:
        return math.inf
    return int(value) if isinstance(value, Integral) else float(value)
