"""Stored days held against the archive: candles that both have with the same bits become `verified`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from candleshm.errors import DayDamaged, DayNotFound
from candleshm.history.archive_days import ArchiveCandles, ArchiveDays
from candleshm.history.candles import Conflict, DayCandles, same_bits, slots_of, spans_of
from candleshm.history.day import Day
from candleshm.history.download import ARCHIVE_WORKERS, FROM_EXCHANGE, LOOK_SECONDS, log_conflicts
from candleshm.history.store import DayStore
from candleshm.history.tally import DayTally, DownloadProgress
from candleshm.system.clock import Clock

__all__ = ["Verification", "compared"]

logger = logging.getLogger(__name__)


class Verification:
    """Compares stored days of one market and interval with the archive. `run` is called once."""

    def __init__(
        self,
        store: DayStore,
        archive: ArchiveDays,
        clock: Clock,
        *,
        stopping: threading.Event,
        progress: Callable[[DownloadProgress], object],
    ) -> None:
        self._store = store
        self._archive = archive
        self._clock = clock
        self._stopping = stopping
        self._report = progress
        self._changed = threading.Condition()
        self._keeping = 0  # threads that may be writing files
        self._is_closed = False  # nothing is written any more
        self._progress = DownloadProgress(0, 0)
        self._tallies: dict[Day, DayTally] = {}
        self._failure: BaseException | None = None

    def run(self, symbols: Sequence[str], days: Iterable[Day]) -> DownloadProgress:
        """Mark what both agree on, and report what they do not; return what came of it.

        Of each day: skipped when all of it is verified, well when it is now, a remark when the archive lacks candles or
        has others, an error when its file is not there or damaged. To be called inside the store's `writing`. Raises
        StoreUnavailable.
        """
        newest_first = sorted(set(days), key=lambda day: day.date, reverse=True)
        self._tallies = {day: DayTally(day, len(symbols), task="verified") for day in newest_first}
        self._progress = DownloadProgress(len(symbols), len(symbols) * len(newest_first))
        from_seconds = self._clock.monotonic_seconds()
        waiting = list(symbols)[::-1]

        def work() -> None:
            try:
                while not self._is_over:
                    with self._changed:
                        if not waiting:
                            return
                        symbol = waiting.pop()
                    # By months: a month may be one file of the archive, and years would not fit into memory.
                    for _, month in groupby(newest_first, key=lambda day: day.date.replace(day=1)):
                        self._verify(symbol, list(month))
            except BaseException as error:  # Raised again below: a thread has nobody to tell.
                self._failure = self._failure or error

        threads = [
            threading.Thread(target=work, name=f"candleshm-verify-{number}", daemon=True)
            for number in range(min(ARCHIVE_WORKERS, len(symbols)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._has_left():
                thread.join(LOOK_SECONDS)
                self._progress.elapsed_seconds = self._clock.monotonic_seconds() - from_seconds
                self._progress.fetching_seconds = self._progress.elapsed_seconds
                self._report(self._progress)
        if self._failure is not None:
            raise self._failure
        self._progress.is_stopped = self._stopping.is_set()
        return self._progress

    def _has_left(self) -> bool:
        """Once it is over, let files in hand be written, and say so: who waits for a socket is left behind."""
        with self._changed:
            self._is_closed = self._is_over
            while self._is_closed and self._keeping:
                self._changed.wait()
            return self._is_closed

    @property
    def _is_over(self) -> bool:
        return self._failure is not None or self._stopping.is_set()

    def _verify(self, symbol: str, days: Sequence[Day]) -> None:
        stored = []
        for day in days:
            if self._is_over:
                return
            try:
                candles = self._store.read(symbol, day)
            except DayNotFound:
                # A download has just been here: the symbol has no candles on that day.
                self._count(day, "warn")
            except DayDamaged as error:
                logger.error("%s", error)
                self._count(day, "error")
            else:
                if not len(candles.rows) or candles.verified_count == len(candles.rows):
                    self._count(day, "skip")
                elif candles.source not in FROM_EXCHANGE:
                    logger.warning("%s: %s is from %s, not from the exchange", symbol, day, candles.source)
                    self._count(day, "warn")
                else:
                    stored.append(candles)
        if not stored:
            return
        archived = self._archive.candles(symbol, [candles.day for candles in stored])
        for candles in stored:
            with self._changed:
                if self._is_over or self._is_closed:
                    return
                self._keeping += 1
            try:
                self._keep(candles, archived)
            finally:
                with self._changed:
                    self._keeping -= 1
                    self._changed.notify_all()

    def _keep(self, candles: DayCandles, archived: ArchiveCandles) -> None:
        after, conflicts = compared(candles, archived)
        if after.verified != candles.verified:
            self._store.write(after)
        log_conflicts(conflicts)
        without = len(after.rows) - after.verified_count - len(conflicts)
        if without:
            logger.warning(
                "%s: the archive does not have %d of %d candles of %s",
                candles.symbol,
                without,
                len(after.rows),
                candles.day,
            )
        with self._changed:
            self._progress.fetched += 1
            self._progress.rows += len(after.rows)
            self._progress.verified += after.verified_count
            self._progress.conflicts += len(conflicts)
        self._count(candles.day, "warn" if without or conflicts else "suc")

    def _count(self, day: Day, outcome: str) -> None:
        with self._changed:
            tally = self._tallies[day]
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            self._progress.files_done += 1
            self._progress.failed += outcome == "error"
            self._progress.day = day.date
            if tally.is_done:
                self._progress.tallies.append(tally)
        if tally.is_done:
            tally.log()


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
