"""How far a download is, and what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from candleshm.history.day import Day
from candleshm.ratelimit.budget import WeightBudget
from candleshm.system.clock import Clock
from candleshm.system.log_text import counted

__all__ = ["DayTally", "DownloadProgress", "Outcome", "Tally"]

logger = logging.getLogger(__name__)

SHOW_SECONDS = 0.2

Outcome = Literal["skipped", "written", "remarked", "failed"]
Task = Literal["downloaded", "verified"]


@dataclass(slots=True)
class DayTally:
    """The files of one day: of `all`, how many were complete before, came, came with a remark, or failed."""

    day: Day
    all: int
    skipped: int = 0
    written: int = 0
    remarked: int = 0
    """Written with holes or other remarks, or before the symbol's first candle."""
    failed: int = 0
    task: Task = "downloaded"

    @property
    def is_done(self) -> bool:
        """Whether every symbol of the day is accounted for."""
        return self.skipped + self.written + self.remarked + self.failed == self.all

    def log(self) -> None:
        """Log the counts; the record carries the tally, for other forms of the line."""
        logger.info(
            "%s %s: %d of %s new, %d done before, %d with remarks, %d failed",
            self.task,
            self.day,
            self.written,
            counted(self.all, "symbol"),
            self.skipped,
            self.remarked,
            self.failed,
            extra={"event": "day_done", "tally": self},
        )


@dataclass(slots=True)
class DownloadProgress:
    """Where a download stands. `files` counts days of symbols, `files_done` with those that were there or failed."""

    symbols: int
    files: int
    files_done: int = 0
    fetched: int = 0
    skipped: int = 0
    """Of `files_done`, those that were complete before."""
    written: int = 0
    remarked: int = 0
    """Written with holes or other remarks, or before the symbol's first candle."""
    failed: int = 0
    left_out: int = 0
    """Symbols that were named and do not have the wanted trading status."""
    verified: int = 0
    """Candles on which the archive agrees, where it is used to verify."""
    conflicts: int = 0
    """Candles of which the archive has another row than the exchange."""
    rows: int = 0
    requests: int = 0
    weight_used: int = 0
    weight_limit: int = 0
    elapsed_seconds: float = 0.0
    fetching_seconds: float = 0.0
    """Without the time spent on reading files that exist."""
    day: date | None = None
    """The day in hand."""
    blocked_seconds: float = 0.0
    """How long a 429 or 418 still stops all requests."""
    tallies: list[DayTally] = field(default_factory=list)
    """Of the days that are done, newest first."""
    is_stopped: bool = False

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that are left at the speed so far; None before the first file."""
        return (self.files - self.files_done) * self.fetching_seconds / self.fetched if self.fetched else None


class Tally:
    """Counts what comes of the days of several symbols, and reports how far that is. Any thread may count."""

    def __init__(
        self,
        task: Task,
        symbols: int,
        days: Iterable[Day],
        clock: Clock,
        report: Callable[[DownloadProgress], object],
        budget: WeightBudget | None = None,
    ) -> None:
        """With a `budget` the reports have its weight. `report` is called by the thread that calls `show`."""
        self._days = {day: DayTally(day, symbols, task=task) for day in days}
        self.progress = DownloadProgress(symbols, symbols * len(self._days))
        self._clock = clock
        self._report = report
        self._budget = budget
        self._gate = threading.Lock()
        self._started_seconds = self._shown_seconds = clock.monotonic_seconds()

    def count(self, day: Day, outcome: Outcome) -> None:
        """Count a day of one symbol, and log the day when it was the last one."""
        with self._gate:
            tally, progress = self._days[day], self.progress
            for counts in (tally, progress):
                setattr(counts, outcome, getattr(counts, outcome) + 1)
            progress.files_done += 1
            progress.day = day.date
            if tally.is_done:
                progress.tallies.append(tally)
        if tally.is_done:
            tally.log()

    def add(self, *, rows: int = 0, requests: int = 0, fetched: int = 0, verified: int = 0, conflicts: int = 0) -> None:
        """Add to the counts of the progress."""
        with self._gate:
            self.progress.rows += rows
            self.progress.requests += requests
            self.progress.fetched += fetched
            self.progress.verified += verified
            self.progress.conflicts += conflicts

    def add_seconds(self, seconds: float) -> None:
        """Count seconds of fetching, and report."""
        self.progress.fetching_seconds += seconds
        self.show()

    def show_if_due(self) -> None:
        """Report, unless that was done within `SHOW_SECONDS`."""
        if self._clock.monotonic_seconds() > self._shown_seconds + SHOW_SECONDS:
            self.show()

    def show(self) -> None:
        """Report how far it is."""
        self._shown_seconds = now_seconds = self._clock.monotonic_seconds()
        self.progress.elapsed_seconds = now_seconds - self._started_seconds
        if self._budget is not None:
            self.progress.weight_used, self.progress.weight_limit = self._budget.used(now_seconds), self._budget.limit
            self.progress.blocked_seconds = max(0.0, self._budget.blocked_until_seconds - now_seconds)
        self._report(self.progress)

    def done(self, *, is_stopped: bool) -> DownloadProgress:
        """Report for the last time, and return what came of it."""
        self.progress.is_stopped = is_stopped
        self.progress.tallies.sort(key=lambda tally: tally.day.date, reverse=True)
        self.show()
        return self.progress
