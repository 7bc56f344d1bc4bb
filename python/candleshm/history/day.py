"""A day in a time zone: from one local midnight to the next, so that it has 23 or 25 hours where the clocks change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from candleshm._core import check_moment
from candleshm.config import is_zone
from candleshm.errors import ConfigError
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS

__all__ = ["DAILY_INTERVALS", "Day", "DayLike", "Grid", "days_between", "zone_of"]

DayLike = str | date | datetime | int | float
"""A day as users say it: 'YYYY-MM-DD', a date, a datetime (naive ones are local to the zone) or epoch milliseconds."""

DAILY_INTERVALS = tuple(name for name, length_ms in INTERVAL_MS.items() if length_ms <= DAY_MS)
"""Intervals that have daily files: the grid of the longer ones depends on months or on the symbol."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day of one zone.

    A midnight that the clocks jump over counts as the moment of the jump, and one that comes twice as its first.
    """

    date: date
    zone: ZoneInfo

    @classmethod
    def of(cls, epoch_ms: float, zone: ZoneInfo) -> Day:
        """Return the day that `epoch_ms` falls into."""
        return cls(datetime.fromtimestamp(epoch_ms / 1000, zone).date(), zone)

    @classmethod
    def parse(cls, value: DayLike, zone: ZoneInfo) -> Day:
        """Return the day that a user means. Raises ConfigError."""
        if isinstance(value, datetime):
            return cls(value.date() if value.tzinfo is None else value.astimezone(zone).date(), zone)
        if isinstance(value, date):
            return cls(value, zone)
        try:
            if isinstance(value, str):
                return cls(date.fromisoformat(value), zone)
            if not isinstance(value, bool) and math.isfinite(value):
                check_moment(value)
                return cls.of(value, zone)
        except ConfigError:
            raise
        except (ValueError, TypeError, OverflowError, OSError):
            pass
        raise ConfigError(f"day cannot be `{value}`; allowed: YYYY-MM-DD, a date, a datetime or epoch milliseconds")

    def __str__(self) -> str:
        return self.date.isoformat()

    @property
    def start_ms(self) -> int:
        """Where the day begins."""
        return self.at_ms(0, 0, 0)

    @property
    def end_ms(self) -> int:
        """Where the day ends, which is where the next one begins."""
        return self.next().start_ms

    def at_ms(self, hour: int, minute: int, second: int) -> int:
        """Return when the zone's clocks show this time: the first time, or once they have jumped over it."""
        local = datetime(self.date.year, self.date.month, self.date.day, hour, minute, second, tzinfo=self.zone)
        return round(local.astimezone(UTC).timestamp()) * 1000

    def next(self) -> Day:
        """Return the day after."""
        return Day(self.date + timedelta(days=1), self.zone)

    def previous(self) -> Day:
        """Return the day before."""
        return Day(self.date - timedelta(days=1), self.zone)


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
        length_ms = INTERVAL_MS[interval]
        first = -(-day.start_ms // length_ms)
        return cls(first * length_ms, length_ms, max(0, -(-day.end_ms // length_ms) - first))

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


def zone_of(name: str) -> ZoneInfo:
    """Return the zone of an IANA name. Raises ConfigError."""
    if not is_zone(name):
        raise ConfigError(f"timezone cannot be `{name}`; allowed: an IANA name such as Asia/Shanghai")
    return ZoneInfo(name)
