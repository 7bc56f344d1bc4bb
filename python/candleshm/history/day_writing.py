"""Days of which everything is known, into files, with a log line for every remark."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from candleshm.history.assembly import Assembly
from candleshm.history.candles import Conflict, DayCandles
from candleshm.history.day import Day
from candleshm.history.reports import inspect
from candleshm.history.store import DayStore
from candleshm.history.tally import Outcome, Tally

__all__ = ["DayWriting", "log_conflicts"]

logger = logging.getLogger(__name__)

CONFLICTS_SHOWN = 5


class DayWriting:
    """Writes days of one market and interval. Any thread may call; counts go to the tally."""

    def __init__(self, store: DayStore, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._gate = threading.Lock()
        self._begins_ms: dict[str, int] = {}  # below it a symbol has no candles, as far as that is known

    def is_before_the_first(self, symbol: str, day: Day) -> bool:
        """Return whether the symbol is known to have no candles on that day, nor before."""
        return day.end_ms <= self._begins_ms.get(symbol, 0)

    def write(self, days: Sequence[tuple[Assembly, bool]]) -> list[Outcome]:
        """Write days of one file that are known, unless the symbol did not exist then. Raises StoreUnavailable.

        Each comes with whether the symbol's last candle lies before its end.
        """
        known = [
            None if day.is_before_the_first else day.candles(self._store.market, self._store.price, has_ended=has_ended)
            for day, has_ended in days
        ]
        self._store.write(*filter(None, known))
        return [self._judged(day, candles) for (day, _), candles in zip(days, known, strict=True)]

    def _judged(self, day: Assembly, candles: DayCandles | None) -> Outcome:
        """Log what there is to say about a day that was written, or has no candles, and count it."""
        if candles is None:
            with self._gate:
                is_news = day.symbol not in self._begins_ms
                self._begins_ms[day.symbol] = max(self._begins_ms.get(day.symbol, 0), day.grid.end_ms)
            if is_news:
                logger.warning("%s: no candles yet on %s, nor before", day.symbol, day.day)
            return "remarked"
        logger.info(
            "%s: %s written",
            day.symbol,
            day.day,
            extra={"event": "day_written", "symbol": day.symbol, "interval": self._store.interval, "day": day.day},
        )
        if candles.outside and candles.outside[0][0] == day.grid.first_ms:
            with self._gate:
                self._begins_ms[day.symbol] = day.grid.first_ms
        for spans, what in ((candles.holes, "the exchange has no candle at"), (candles.outside, "did not trade at")):
            if spans:
                count = sum(end - start for start, end in spans) // day.grid.length_ms
                logger.warning("%s: %s %d of %d times of %s", day.symbol, what, count, day.grid.count, day.day)
        conflicts = list(day.conflicts())
        log_conflicts(conflicts)
        self._tally.add(fetched=1, conflicts=len(conflicts))
        return "remarked" if candles.holes or candles.outside or conflicts or day.has_unusable_file else "written"

    def write_archived(self, day: Assembly) -> None:
        """Write what the archive has of a day that the exchange does not give, unless as much is stored."""
        candles = day.archived(self._store.market, self._store.price)
        if candles is None:
            return
        [stored] = inspect(self._store, day.symbol, [day.day])
        if stored.rows < len(candles.rows):
            self._store.write(candles)
            logger.warning(
                "%s: %s: the archive has %d of %d candles, which are stored; the exchange does not give the rest",
                day.symbol,
                day.day,
                len(candles.rows),
                day.grid.count,
            )


def log_conflicts(conflicts: Sequence[Conflict]) -> None:
    """Log where the archive and the exchange differ within a day."""
    for conflict in conflicts[:CONFLICTS_SHOWN]:
        logger.warning("%s; the exchange's value is kept", conflict)
    if len(conflicts) > CONFLICTS_SHOWN:
        logger.warning("%s: %d more candles of that day differ", conflicts[0].symbol, len(conflicts) - CONFLICTS_SHOWN)
