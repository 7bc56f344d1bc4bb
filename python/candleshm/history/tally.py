"""How far a download is, and what came of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from candleshm.history.day import Day

__all__ = ["DayTally", "DownloadProgress"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class DayTally:
    """The files of one day: of `all`, how many were there and whole, came, came with a remark, or failed."""

    day: Day
    all: int
    skip: int = 0
    suc: int = 0
    warn: int = 0
    error: int = 0
    task: Literal["downloaded", "verified"] = "downloaded"

    @property
    def is_done(self) -> bool:
        """Whether every symbol of the day is accounted for."""
        return self.skip + self.suc + self.warn + self.error == self.all

    def log(self) -> None:
        """Log the counts; the record carries the tally, for programs that count themselves."""
        logger.info(
            "%s %s: %d of %d symbols new, %d done before, %d with remarks, %d failed",
            self.task,
            self.day,
            self.suc,
            self.all,
            self.skip,
            self.warn,
            self.error,
            extra={"event": "day_done", "tally": self},
        )


@dataclass(slots=True)
class DownloadProgress:
    """Where a download stands. `files` counts days of symbols, `files_done` with those that were there or failed."""

    symbols: int
    files: int
    files_done: int = 0
    fetched: int = 0
    failed: int = 0
    left_out: int = 0
    """Symbols that were asked for by name and do not have the trading status that was asked for."""
    verified: int = 0
    """Candles that the archive agrees on, where it was asked to verify."""
    conflicts: int = 0
    """Candles of which the archive has another row than the exchange."""
    rows: int = 0
    requests: int = 0
    weight_used: int = 0
    weight_limit: int = 0
    elapsed_seconds: float = 0.0
    fetching_seconds: float = 0.0
    """Without the time it took to look at what is there."""
    day: date | None = None
    """The day in hand."""
    blocked_seconds: float = 0.0
    """How long the exchange wants no requests."""
    tallies: list[DayTally] = field(default_factory=list)
    """Of the days that are done, newest first."""
    is_stopped: bool = False

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that are left at the pace of the files fetched so far; None while there is no pace yet."""
        return (self.files - self.files_done) * self.fetching_seconds / self.fetched if self.fetched else None
