"""Stored days compared with the archive: candles that both have with the same bits become `verified`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from candleshm.errors import DayDamaged, DayNotFound
from candleshm.history.archive_days import ArchiveCandles, ArchiveDays
from candleshm.history.candles import FROM_EXCHANGE, Conflict, DayCandles, same_bits, slots_of, spans_of
from candleshm.history.day import Day
from candleshm.history.day_writing import log_conflicts
from candleshm.history.downloader import ARCHIVE_WORKERS
from candleshm.history.store import DayStore
from candleshm.history.tally import DownloadProgress, Tally
from candleshm.history.workers import Workers
from candleshm.system.clock import Clock

__all__ = ["Verification", "compared"]

logger = logging.getLogger(__name__)


class Verification:
    """Compares stored days of one market and interval with the archive. `run` is called once."""

    def __init__(
        self, store: DayStore, archive: ArchiveDays, clock: Clock, tally: Tally, stopping: threading.Event
    ) -> None:
        self._store = store
        self._archive = archive
        self._tally = tally
        self._workers = Workers(clock, stopping, tally.add_seconds)

    def run(self, symbols: Sequence[str], days: Iterable[Day]) -> DownloadProgress:
        """Mark what both agree on, and report what they do not; return what came of it.

        A day counts as skipped when it was verified before, as success when it is now, with a remark when candles are
        missing in the archive or differ there, as an error when its file is damaged. To be called inside the store's
        `writing`. Raises StoreUnavailable.
        """
        newest_first = sorted(set(days), key=lambda day: day.date, reverse=True)
        # By months: a month may be one file of the archive, and years would not fit into memory.
        months = [list(month) for _, month in groupby(newest_first, key=lambda day: day.date.replace(day=1))]

        def verify(symbol: str) -> None:
            for month in months:
                self._verify(symbol, month)

        self._workers.run_each(symbols, verify, ARCHIVE_WORKERS)
        return self._tally.done(is_stopped=self._workers.is_over)

    def _verify(self, symbol: str, days: Sequence[Day]) -> None:
        stored = []
        for day in days:
            if self._workers.is_over:
                return
            try:
                candles = self._store.read(symbol, day)
            except DayNotFound:
                # The download before this one wrote no file: the symbol has no candles on that day.
                self._tally.count(day, "remarked")
            except DayDamaged as error:
                logger.error("%s", error)
                self._tally.count(day, "failed")
            else:
                if not len(candles.rows) or candles.verified_count == len(candles.rows):
                    self._tally.count(day, "skipped")
                elif candles.source not in FROM_EXCHANGE:
                    logger.warning("%s: %s is from %s, not from the exchange", symbol, day, candles.source)
                    self._tally.count(day, "remarked")
                else:
                    stored.append(candles)
        if not stored:
            return
        archived = self._archive.candles(symbol, [candles.day for candles in stored])
        for _, of_file in groupby(stored, key=lambda candles: self._store.destination(symbol, candles.day)):
            with self._workers.storing() as is_open:
                if not is_open or self._workers.is_over:
                    return
                both = [(candles, *compared(candles, archived)) for candles in of_file]
                self._store.write(*(after for candles, after, _ in both if after.verified != candles.verified))
                for _, after, conflicts in both:
                    self._judge(after, conflicts)

    def _judge(self, candles: DayCandles, conflicts: Sequence[Conflict]) -> None:
        """Log where the archive lacks candles of a day, or has others, and count the day."""
        log_conflicts(conflicts)
        without = len(candles.rows) - candles.verified_count - len(conflicts)
        if without:
            logger.warning(
                "%s: the archive does not have %d of %d candles of %s",
                candles.symbol,
                without,
                len(candles.rows),
                candles.day,
            )
        self._tally.add(fetched=1, rows=len(candles.rows), verified=candles.verified_count, conflicts=len(conflicts))
        self._tally.count(candles.day, "remarked" if without or conflicts else "written")


def compared(candles: DayCandles, archived: ArchiveCandles) -> tuple[DayCandles, list[Conflict]]:
    """Return a day with what the archive agrees on as verified, and the candles of which it has others."""
    grid = candles.grid
    slots, others = slots_of(candles.rows, grid), slots_of(archived.rows, grid)
    mine = (others >= 0) & (others < grid.count)
    rows, others = archived.rows[mine], others[mine]
    _, here, there = np.intersect1d(slots, others, assume_unique=True, return_indices=True)
    same = same_bits(candles.rows[here], rows[there]).all(axis=1)
    verified = np.zeros(grid.count, bool)
    for start_ms, end_ms in candles.verified:
        verified[(start_ms - grid.first_ms) // grid.length_ms : (end_ms - grid.first_ms) // grid.length_ms] = True
    verified[slots[here]] = same
    conflicts = [
        Conflict(candles.symbol, rows[other], candles.rows[one])
        for one, other in zip(here[~same], there[~same], strict=True)
    ]
    return replace(candles, verified=spans_of(verified, grid)), conflicts
