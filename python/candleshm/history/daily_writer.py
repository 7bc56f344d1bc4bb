"""Yesterday, every day: writes each day once it is over, from the block where that has it, else from the exchange.

What is done is read from the files: a day is done when the files of all symbols exist and are complete. So a restart,
a machine that slept through the hour, or clocks that jump over it or show it twice change nothing.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from candleshm._core import Feed
from candleshm.errors import BlockError, CandleShmError, StoreInUse
from candleshm.history.block import day_of_block
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day
from candleshm.history.day_schedule import DaySchedule
from candleshm.history.reports import inspect
from candleshm.history.store import DayStore
from candleshm.history.tally import DayTally
from candleshm.system.clock import Clock

__all__ = ["DailyWriter"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
# Pause after a day could not be fetched, or another process writes the files.
AGAIN_SECONDS = 300.0


class DailyWriter:
    """A thread that writes the days that are due, until `stop`.

    It begins with `first`, or with as many days as `days_back`, and goes on with every day that becomes due. With
    `replace` the first days are fetched again even where files exist. The thread calls `at_end` last.

    `now_ms` returns the exchange's time, None as long as nothing is to be done; `symbols` the symbols to write; `block`
    the name of the block that may have their candles. `fetch` brings one day of all symbols without a complete file
    from the exchange, or of all symbols when its second argument is true, and returns whether all came. A
    CandleShmError from these is logged, and the day is tried again.
    """

    def __init__(
        self,
        store: DayStore,
        *,
        clock: Clock,
        time_of_day: str,
        settle_ms: int,
        now_ms: Callable[[], int | None],
        symbols: Callable[[], Sequence[str]],
        fetch: Callable[[Day, bool], bool],
        block: Callable[[], str | None] = lambda: None,
        first: Day | None = None,
        days_back: int = 1,
        replace: bool = False,
        at_end: Callable[[], object] = lambda: None,
        outlasts_main: bool = False,
    ) -> None:
        """Raises ConfigError for a malformed time of day.

        With `outlasts_main` a program that comes to its end waits for the day in hand, or for the first one, and the
        thread logs which days it leaves.
        """
        self._schedule = DaySchedule(
            store, time_of_day=time_of_day, settle_ms=settle_ms, first=first, days_back=days_back
        )
        self._store = store
        self._clock = clock
        self._now_ms = now_ms
        self._symbols = symbols
        self._fetch = fetch
        self._block = block
        self._replace = replace
        self._at_end = at_end
        self._again_seconds = -math.inf
        self._stopping, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="candleshm-daily", daemon=not outlasts_main)
        self._outlasts_main = outlasts_main
        self._has_begun = False  # a day has been in hand, or there was none

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()

    def stop(self, *, at_once: bool = False) -> None:
        """End after the day in hand, or `at_once` after the file in hand; returns without waiting."""
        if at_once:
            self._abandoned.set()
        self._stopping.set()

    @property
    def days_due(self) -> int:
        """How many days are due and not complete yet."""
        return len(self._schedule.waiting)

    @property
    def is_running(self) -> bool:
        """Whether there is still a day in hand, or one to come."""
        return self._thread.is_alive()

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the end."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            self._at_end()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            if self._has_begun and self._is_alone:
                self._log_what_is_left()
                return
            now_seconds = self._clock.monotonic_seconds()
            if now_seconds >= self._again_seconds:
                try:
                    self._write_days(now_seconds)
                except CandleShmError as error:
                    level = logging.INFO if isinstance(error, StoreInUse) else logging.WARNING
                    logger.log(level, "daily files: %s; next attempt in %.0f s", error, AGAIN_SECONDS)
                    self._again_seconds = now_seconds + AGAIN_SECONDS
                except Exception:
                    # An internal error must not end the service that this thread belongs to, nor pass unnoticed.
                    logger.exception("daily files: internal error; next attempt in %.0f s", AGAIN_SECONDS)
                    self._again_seconds = now_seconds + AGAIN_SECONDS
                self._has_begun = True
            self._stopping.wait(LOOK_SECONDS)

    @property
    def _is_alone(self) -> bool:
        """Whether the program has come to its end, and waits for nothing but this."""
        return self._outlasts_main and not threading.main_thread().is_alive()

    def _log_what_is_left(self) -> None:
        if waiting := self._schedule.waiting:
            days = f"{len(waiting)} days from {waiting[-1]} to {waiting[0]} are"
            days = f"the day {waiting[0]} is" if len(waiting) == 1 else days
            logger.warning("daily files: the program ends, and %s not stored; call download_daily again", days)
        else:
            logger.info("daily files: the program ends; no further day is stored")

    def _write_days(self, now_seconds: float) -> None:
        now_ms = self._now_ms()
        if now_ms is None:
            return
        self._schedule.look(now_ms)
        for day in self._schedule.waiting:
            if self._stopping.is_set() or (self._has_begun and self._is_alone):
                return
            if self._write(day, now_ms):
                self._schedule.complete(day)
            self._has_begun = True
        if self._schedule.waiting:
            self._again_seconds = now_seconds + AGAIN_SECONDS
        else:
            self._replace = False

    def _write(self, day: Day, now_ms: int) -> bool:
        """Write the files of a day that are missing; return whether it is complete afterwards."""
        if self._replace:
            is_complete = self._fetch(day, True)
        else:
            incomplete = self._from_block(day, self._symbols(), now_ms)
            if self._abandoned.is_set():
                return False
            is_complete = not incomplete or self._fetch(day, False)
        state = "complete" if is_complete else "incomplete"
        logger.info("%s: daily files %s", day, state, extra={"event": "day_kept"})
        return is_complete

    def _from_block(self, day: Day, symbols: Sequence[str], now_ms: int) -> list[str]:
        """Write missing files of a day from the block; return the symbols that it does not have all rows of."""
        tally, incomplete = DayTally(day, len(symbols)), []
        block = self._block()
        with self._store.writing():
            for symbol in symbols:
                if self._abandoned.is_set():
                    break
                [report] = inspect(self._store, symbol, [day])
                if report.is_complete:
                    tally.skipped += 1
                    continue
                if report.verdict == "damaged":
                    logger.warning("%s: %s; written again", report.path, report.reason)
                candles = None if block is None else self._taken(block, symbol, day, now_ms)
                if candles is None:
                    incomplete.append(symbol)
                    continue
                self._store.write(candles)
                tally.remarked, tally.written = (
                    tally.remarked + bool(candles.holes),
                    tally.written + (not candles.holes),
                )
        if tally.is_done:
            tally.log()
        return incomplete

    def _taken(self, block: str, symbol: str, day: Day, now_ms: int) -> DayCandles | None:
        try:
            with closing(Feed(block)) as feed:
                return day_of_block(feed, symbol, day, now_ms)
        except BlockError:
            return None
