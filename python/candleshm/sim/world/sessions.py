"""When the markets behind TradFi perpetual contracts trade: sessions in UTC, from a weekly timetable in local time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from candleshm.sim.world.grid import DAY_MS

OffHours = Literal["flat", "absent", "trade"]
"""What the klines of a TradFi contract are in NO_TRADING: flat, not there, or as at any other time."""

NO_TRADING = "NO_TRADING"

_NEW_YORK = "America/Toronto"  # which has the same time
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
    "KR_EQUITY": ("Asia/Seoul", _daily(("09:00", "REGULAR"), ("15:30", NO_TRADING))),
    "HK_EQUITY": ("Asia/Hong_Kong", _daily(*_MORNING_AND_AFTERNOON["HK_EQUITY"])),
    "CN_EQUITY": ("Asia/Shanghai", _daily(*_MORNING_AND_AFTERNOON["CN_EQUITY"])),
    "FX": (_NEW_YORK, ((_SUNDAY, "17:00", "REGULAR"), (_FRIDAY, "17:00", NO_TRADING))),
}
"""The zone and the week of each market. No market has a holiday."""


@lru_cache(maxsize=1024)
def sessions(market: str, start_ms: int, end_ms: int) -> tuple[Session, ...]:
    """Return the sessions of a market that touch [start_ms, end_ms), in order and without a gap. Raises KeyError."""
    name, turns = TIMETABLES[market]
    zone = ZoneInfo(name)
    day = datetime.fromtimestamp(start_ms / 1000, UTC).astimezone(zone).date() - timedelta(days=7)
    begins = []
    while int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000 < end_ms + 5 * DAY_MS:
        for weekday, clock, kind in turns:
            if weekday == day.weekday():
                local = datetime(day.year, day.month, day.day, int(clock[:2]), int(clock[3:]), tzinfo=zone)
                begins.append((int(local.timestamp()) * 1000, kind))
        day += timedelta(days=1)
    begins.sort()
    return tuple(
        Session(begin_ms, next_ms, kind)
        for (begin_ms, kind), (next_ms, _) in pairwise(begins)
        if begin_ms < end_ms and start_ms < next_ms
    )
