"""From when to when a replay goes: days as users name them, or moments."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from candleshm._core import INTERVAL_MS, Zone
from candleshm.errors import ConfigError
from candleshm.history.day import DAILY_INTERVALS, Day, DayLike, Grid, days_between, epoch_ms_of

__all__ = ["Span"]


@dataclass(frozen=True)
class Span:
    """The open times `[start_ms, end_ms)` of one interval, in the days of one zone."""

    start_ms: int
    end_ms: int
    interval: str
    zone: Zone

    @classmethod
    def of(cls, start: DayLike, end: DayLike, interval: str, timezone: str) -> Span:
        """Return the span that a user means.

        `YYYY-MM-DD` and dates are whole days, the last one included. Datetimes, texts with a time and epoch ms are
        moments on the interval's grid, the last one excluded; those without an offset are local to the zone. Raises
        ConfigError.
        """
        if interval not in DAILY_INTERVALS:
            raise ConfigError(
                f"interval cannot be `{interval}`; daily files have: {' '.join(DAILY_INTERVALS)}; longer ones are "
                f"derived from these"
            )
        zone = Zone(timezone)
        first, last = _bound(start, zone), _bound(end, zone)
        start_ms = Grid.of(first, interval).first_ms if isinstance(first, Day) else _on_grid(start, first, interval)
        end_ms = Grid.of(last, interval).end_ms if isinstance(last, Day) else _on_grid(end, last, interval)
        if end_ms <= start_ms:
            raise ConfigError(f"end cannot be `{end}`; {_later_end(start, last)}")
        return cls(start_ms, end_ms, interval, zone)

    @property
    def length_ms(self) -> int:
        """How long a candle lasts."""
        return INTERVAL_MS[self.interval]

    def days(self, warm_rows: int = 0) -> list[Day]:
        """Return the days in which its candles open, and those of so many rows before it."""
        first_ms = max(0, self.start_ms - warm_rows * self.length_ms)
        first, last = Day.of(first_ms, self.zone), Day.of(self.end_ms - self.length_ms, self.zone)
        return list(days_between(first, last))

    def inside(self, interval: str) -> Span:
        """Return the same span as candles of a shorter interval."""
        return Span(self.start_ms, self.end_ms, interval, self.zone)


def _bound(value: DayLike, zone: Zone) -> Day | int:
    """Return a day, or a moment in epoch ms. Raises ConfigError."""
    epoch_ms = epoch_ms_of(value)
    if epoch_ms is None and isinstance(value, str) and len(value) > len("YYYY-MM-DD"):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    day = Day.parse(value, zone)
    if epoch_ms is not None:
        return int(epoch_ms)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return day.at_ms(value.hour, value.minute, value.second, fold=value.fold)
        return round(value.timestamp() * 1000)
    return day


def _later_end(start: DayLike, last: Day | int) -> str:
    """Return in words which ends are allowed with a start."""
    if isinstance(last, Day):
        return f"allowed: a day from start on, which is `{start}`"
    return (
        f"it is a moment, and no candle that opens then counts; allowed: one after start, which is `{start}`, or a day"
    )


def _on_grid(value: DayLike, moment_ms: int, interval: str) -> int:
    if moment_ms % INTERVAL_MS[interval]:
        raise ConfigError(f"a replay of {interval} cannot begin or end at `{value}`: no candle opens then")
    return moment_ms
