"""Which days are due: yesterday, once it is over and the time of day has come, and earlier days not complete yet."""

from __future__ import annotations

from candleshm.config import TIME_OF_DAY
from candleshm.errors import ConfigError
from candleshm.history.day import Day, days_between
from candleshm.history.downloader import is_final
from candleshm.history.store import DayStore

__all__ = ["DaySchedule", "due_day"]


class DaySchedule:
    """The days of a store that are due and not complete.

    It begins with `first`, or with as many days as `days_back`, and goes on with every day that becomes due.
    """

    def __init__(
        self, store: DayStore, *, time_of_day: str, settle_ms: int, first: Day | None = None, days_back: int = 1
    ) -> None:
        """Raises ConfigError for a malformed time of day."""
        found = TIME_OF_DAY.fullmatch(time_of_day)
        if found is None:
            raise ConfigError(f"download_time cannot be `{time_of_day}`; allowed: HH:MM:SS such as 00:10:00")
        self._time_of_day = (int(found[1]), int(found[2]), int(found[3]))
        self._store = store
        self._settle_ms = settle_ms
        self._first = first
        self._days_back = days_back
        self._waiting: list[Day] = []
        self._newest: Day | None = None  # the newest day that was due so far

    @property
    def waiting(self) -> tuple[Day, ...]:
        """Days that are due and not complete, newest first."""
        return tuple(self._waiting)

    def look(self, now_ms: int) -> None:
        """Add the days that became due until `now_ms`, exchange time."""
        newest = due_day(now_ms, self._store, self._time_of_day, self._settle_ms)
        if self._newest is None:
            first = self._first or newest
            for _ in range(self._days_back - 1):
                first = first.previous()
            self._waiting = list(days_between(first, newest))[::-1]
        elif newest.date > self._newest.date:
            self._waiting = [*list(days_between(self._newest.next(), newest))[::-1], *self._waiting]
        self._newest = newest

    def complete(self, day: Day) -> None:
        """Note that the files of a day are complete."""
        self._waiting.remove(day)


def due_day(now_ms: int, store: DayStore, time_of_day: tuple[int, int, int], settle_ms: int) -> Day:
    """Return the newest day that is due at `now_ms`, exchange time.

    A day is due when the clocks of its zone show `time_of_day` on the day after, for the first time, or have jumped
    over it; and not before its last candle is final.
    """
    day = Day.of(now_ms, store.zone).previous()
    while not (
        day.end_ms > day.start_ms
        and day.next().at_ms(*time_of_day) <= now_ms
        and is_final(day, store.interval, now_ms, settle_ms)
    ):
        day = day.previous()
    return day
