"""What is in daily files: complete, incomplete, damaged or absent, each with its exact ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from candleshm.errors import DayDamaged, DayNotFound
from candleshm.history.candles import Source, Span
from candleshm.history.day import Day, Grid
from candleshm.history.store import DayStore

__all__ = ["DayReport", "inspect"]

Verdict = Literal["complete", "incomplete", "damaged", "absent"]


@dataclass(frozen=True, slots=True)
class DayReport:
    """One daily file, as `verify` reports it. Ranges are half-open, of open times in epoch ms.

    >>> [report.day for report in candleshm.history.verify("SPOT", "BTCUSDT") if report.missing]  # doctest: +SKIP
    """

    symbol: str
    """As the exchange spells it."""
    day: date
    """Of the zone of the files."""
    path: Path
    """The file."""
    verdict: Verdict
    """complete: every candle that the exchange has; incomplete: some are missing; damaged; absent: no file."""
    rows: int = 0
    """Candles in the file."""
    slots: int = 0
    """Open times of that day: 1440 at 1m, and 1380 or 1500 where the clocks change."""
    holes: tuple[Span, ...] = ()
    """Where the exchange confirmed that it has no candle."""
    outside: tuple[Span, ...] = ()
    """Before the symbol's first candle, or after its last."""
    missing: tuple[Span, ...] = ()
    """Not fetched, or without a confirmation that there is no candle."""
    verified: tuple[Span, ...] = ()
    """Candles that the exchange and its archive agree on."""
    source: Source | None = None
    """Where the candles are from; None when there are none to read."""
    reason: str = ""
    """What is wrong with a damaged file."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the day has to be fetched."""
        return self.verdict == "complete"


def inspect(store: DayStore, symbol: str, days: Iterable[Day]) -> list[DayReport]:
    """Read the files of these days whole and report on each. Raises StoreUnavailable, MissingExtra."""
    return [_inspect(store, symbol, day) for day in days]


def _inspect(store: DayStore, symbol: str, day: Day) -> DayReport:
    path, slots = store.path(symbol, day), Grid.of(day, store.interval).count
    try:
        candles = store.read(symbol, day)
    except DayNotFound:
        return DayReport(symbol, day.date, path, "absent", slots=slots)
    except DayDamaged as error:
        return DayReport(symbol, day.date, path, "damaged", slots=slots, reason=error.reason)
    return DayReport(
        symbol,
        day.date,
        path,
        "complete" if candles.is_complete else "incomplete",
        rows=len(candles.rows),
        slots=slots,
        holes=candles.holes,
        outside=candles.outside,
        missing=candles.missing,
        verified=candles.verified,
        source=candles.source,
    )
