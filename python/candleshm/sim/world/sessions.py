"""When the markets behind TradFi perpetual contracts trade: sessions in UTC, from a weekly timetable in local time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from candleshm.sim.world.grid import DAY_MS, HOUR_MS, MINUTE_MS

OffHours = Literal["flat", "absent", "trade"]
"""What the klines of a TradFi contract are in NO_TRADING: flat, not there, or as at any other time."""

NO_TRADING = "NO_TRADING"

_NEW_YORK = "New York"
# Hours east of UTC. New York's are those of its winter.
_EAST_HOURS: Mapping[str, int] = {_NEW_YORK: -5, "Seoul": 9, "Hong Kong": 8, "Shanghai": 8}
_EPOCH = date(1970, 1, 1)
_WEEKDAYS = range(5)
_FRIDAY, _SUNDAY = 4, 6
_Turn = tuple[int, str, str]  # weekday (0 is Monday), local time, the session that begins


@dataclass(frozen=True)
class Session:
    """A time of one kind: ``PRE_MARKET``, ``REGULAR``, ``AFTER_MARKET``, ``OVERNIGHT`` or `NO_TRADING`."""

    start_ms: int
    end_ms: int
    kind: str


def _daily(*turns: tuple[str, str]) -> tuple[_Turn, ...]:
    return tuple((day, clock, kind) for day in _WEEKDAYS for clock, kind in turns)


_US_EQUITY: tuple[_Turn, ...] = (
    *_daily(("04:00", "PRE_MARKET"), ("09:30", "REGULAR"), ("16:00", "AFTER_MARKET")),
    *((day, "20:00", "OVERNIGHT") for day in (*range(_FRIDAY), _SUNDAY)),
    (_FRIDAY, "20:00", NO_TRADING),
)
_COMMODITY: tuple[_Turn, ...] = (
    *((day, "17:00", NO_TRADING) for day in _WEEKDAYS),
    *((day, "18:00", "REGULAR") for day in (*range(_FRIDAY), _SUNDAY)),
)
_MORNING_AND_AFTERNOON = {
    "HK_EQUITY": (("09:30", "REGULAR"), ("12:00", NO_TRADING), ("13:00", "REGULAR"), ("16:00", NO_TRADING)),
    "CN_EQUITY": (("09:30", "REGULAR"), ("11:30", NO_TRADING), ("13:00", "REGULAR"), ("15:00", NO_TRADING)),
}
TIMETABLES: Mapping[str, tuple[str, tuple[_Turn, ...]]] = {
    "EQUITY": (_NEW_YORK, _US_EQUITY),
    "COMMODITY": (_NEW_YORK, _COMMODITY),
    "KR_EQUITY": ("Seoul", _daily(("09:00", "REGULAR"), ("15:30", NO_TRADING))),
    "HK_EQUITY": ("Hong Kong", _daily(*_MORNING_AND_AFTERNOON["HK_EQUITY"])),
    "CN_EQUITY": ("Shanghai", _daily(*_MORNING_AND_AFTERNOON["CN_EQUITY"])),
    "FX": (_NEW_YORK, ((_SUNDAY, "17:00", "REGULAR"), (_FRIDAY, "17:00", NO_TRADING))),
}
"""The place and the week of each market, in the place's time. No market has a holiday."""


def _sunday(year: int, month: int, number: int) -> date:
    """Return the n-th Sunday of a month."""
    first = date(year, month, 1)
    return first + timedelta(days=(_SUNDAY - first.weekday()) % 7 + 7 * (number - 1))


def _east_hours(place: str, day: date) -> int:
    """Return how far east of UTC a place's clocks are from 02:00 on: New York has summer time, the others none."""
    in_summer = place == _NEW_YORK and _sunday(day.year, 3, 2) <= day < _sunday(day.year, 11, 1)
    return _EAST_HOURS[place] + in_summer


@lru_cache(maxsize=1024)
def sessions(market: str, start_ms: int, end_ms: int) -> tuple[Session, ...]:
    """Return the sessions of a market that touch [start_ms, end_ms), in order and without a gap. Raises KeyError."""
    place, turns = TIMETABLES[market]
    begins = []
    # A week further on either side there is a session that begins.
    for number in range(start_ms // DAY_MS - 7, end_ms // DAY_MS + 8):
        day = _EPOCH + timedelta(days=number)
        east_ms = _east_hours(place, day) * HOUR_MS
        for weekday, clock, kind in turns:
            if weekday == day.weekday():
                clock_ms = int(clock[:2]) * HOUR_MS + int(clock[3:]) * MINUTE_MS
                begins.append((number * DAY_MS + clock_ms - east_ms, kind))
    begins.sort()
    return tuple(
        Session(begin_ms, next_ms, kind)
        for (begin_ms, kind), (next_ms, _) in pairwise(begins)
        if begin_ms < end_ms and start_ms < next_ms
    )
