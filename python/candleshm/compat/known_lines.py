"""The log lines that users of `CandleServer` know: dates in their form, and records of the core in their words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from candleshm._core import Zone
from candleshm.collector import cache
from candleshm.collector.status import CollectorStatus
from candleshm.history import daily_writer, day_writing, tally
from candleshm.history.day import Day
from candleshm.reader.feed import Feed

__all__ = ["KnownLines", "LoadLines", "shown_date"]

logger = logging.getLogger(__name__)


def shown_date(day: date, zone: Zone) -> str:
    """Return a date as these lines have it: day/month/year for New York, else year-month-day.

    >>> shown_date(date(2026, 11, 23), Zone("America/New_York"))
    '23/11/2026'
    """
    return day.strftime("%d/%m/%Y" if zone.name == "America/New_York" else "%Y-%m-%d")


class KnownLines(logging.Filter):
    """Rewrites records of the core that carry an `event`, from `install` until `remove`.

    A record passes a logger's filters before any handler, so every log of the program has the same line. Of several
    servers the first one rewrites a record; the others find it done.
    """

    def install(self) -> None:
        """Put the filter on the loggers that have such records."""
        for core in _LOGGERS:
            core.addFilter(self)

    def remove(self) -> None:
        """Take it off again."""
        for core in _LOGGERS:
            core.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, the known ones in the known words."""
        line = _LINES.get(record.__dict__.pop("event", ""))
        if line is not None:
            record.msg, record.args = line(record), ()
        return True


class LoadLines:
    """Logs of each symbol when its candles are there, and at the end the counts.

    The date is the day of a symbol's newest candle in the rule's TIMEZONE.
    """

    def __init__(self, feed: Feed, zone: Zone, symbols: Iterable[str]) -> None:
        self._feed = feed
        self._zone = zone
        self._waiting = dict.fromkeys(symbols)
        self._given_up: frozenset[str] = frozenset()
        self._counts = {"SUC": 0, "WARN": 0, "ERROR": 0}

    def __call__(self, status: CollectorStatus) -> None:
        """Log the symbols that were loaded since the last call, by this process' own collector."""
        self._given_up = frozenset(status.given_up)
        self.look()

    def look(self) -> None:
        """Log the symbols that were loaded since the last call."""
        for symbol in tuple(self._waiting):
            series = self._feed[symbol]
            gaps = {gap.kind for gap in series.gaps()}
            if series.last_open_time_ms is not None and "missing" not in gaps:
                self._log(symbol, series.last_open_time_ms, has_holes="hole" in gaps)

    def complete(self, now_ms: int) -> None:
        """Log the symbols that are left, and the counts."""
        for symbol in tuple(self._waiting):
            last_ms = self._feed[symbol].last_open_time_ms
            if symbol in self._given_up:
                logger.error("%s: could not be loaded; it is retried in the background", symbol)
                self._counts["ERROR"] += 1
            elif last_ms is None:
                logger.warning("%s: the exchange has no candles of it yet", symbol)
                self._counts["WARN"] += 1
            else:
                self._log(symbol, last_ms, has_holes=False)
        counts = " ".join(f"{name}:{count}" for name, count in self._counts.items())
        total = sum(self._counts.values())
        logger.info("COMPLETE DOWNLOAD %s (ALL:%d SKIP:0 %s)", self._date(now_ms), total, counts)
        logger.info("COMPLETE PREPARE candle_map")

    def _log(self, symbol: str, last_ms: int, *, has_holes: bool) -> None:
        del self._waiting[symbol]
        logger.info("DOWNLOAD %-10s %-3s %s", symbol, self._feed.interval, self._date(last_ms))
        if has_holes:
            logger.warning("%s: the exchange itself has no candles for some times; they are left out", symbol)
        self._counts["WARN" if has_holes else "SUC"] += 1

    def _date(self, epoch_ms: int) -> str:
        return shown_date(Day.of(epoch_ms, self._zone).date, self._zone)


def _day_written(record: Any) -> str:
    return f"DOWNLOAD {record.symbol:<10} {record.interval:<3} {shown_date(record.day.date, record.day.zone)}"


def _day_done(record: Any) -> str:
    done: tally.DayTally = record.tally
    task = {"downloaded": "DOWNLOAD", "verified": "VERIFY"}[done.task]
    counts = f"ALL:{done.all} SKIP:{done.skipped} SUC:{done.written} WARN:{done.remarked} ERROR:{done.failed}"
    return f"COMPLETE {task} {shown_date(done.day.date, done.day.zone)} ({counts})"


def _cache_written(record: Any) -> str:
    saved = record.saved
    return (
        f"{record.block}: DOWNLOAD CANDLE CACHE {saved.path} ({saved.rows} rows of {saved.symbols} symbols, "
        f"{saved.size_bytes / 1e6:.1f} MB, {saved.seconds:.2f} s)"
    )


_LINES: dict[str, Callable[[Any], str]] = {
    "day_written": _day_written,
    "day_done": _day_done,
    "day_kept": lambda _: "DOWNLOAD CANDLE BY DATE",
    "cache_written": _cache_written,
}
_LOGGERS = (cache.logger, daily_writer.logger, day_writing.logger, tally.logger)
