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
from candleshm.config import TIME_OF_DAY
from candleshm.errors import BlockError, CandleShmError, ConfigError, StoreInUse
from candleshm.history.block import day_of_block
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day, days_between
from candleshm.history.downloader import is_final
from candleshm.history.reports import inspect
from candleshm.history.store import DayStore
from candleshm.history.tally import DayTally
from candleshm.system.clock import Clock

__all__ = ["DailyWriter", "due_day"]

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
        found = TIME_OF_DAY.fullmatch(time_of_day)
        if found is None:
            raise ConfigError(f"download_time cannot be `{time_of_day}`; allowed: HH:MM:SS such as 00:10:00")
        self._time_of_day = (int(found[1]), int(found[2]), int(found[3]))
        self._store = store
        self._clock = clock
        self._settle_ms = settle_ms
        self._now_ms = now_ms
        self._symbols = symbols
        self._fetch = fetch
        self._block = block
        self._first = first
        self._days_back = days_back
        self._replace = replace
        self._at_end = at_end
        self._again_seconds = -math.inf
        self._waiting: list[Day] = []  # days that are due and not complete, newest first
        self._seen: Day | None = None  # the newest day that was due so far
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
        if self._waiting:
            days = f"{len(self._waiting)} days from {self._waiting[-1]} to {self._waiting[0]} are"
            days = f"the day {self._waiting[0]} is" if len(self._waiting) == 1 else days
            logger.warning("daily files: the program ends, and %s not stored; call download_daily again", days)
        else:
            logger.info("daily files: the program ends; no further day is stored")

    def _write_days(self, now_seconds: float) -> None:
        now_ms = self._now_ms()
        if now_ms is None:
            return
        newest = due_day(now_ms, self._store, self._time_of_day, self._settle_ms)
        if self._seen is None:
            first = self._first or newest
            for _ in range(self._days_back - 1):
                first = first.previous()
            self._waiting = list(days_between(first, newest))[::-1]
        elif newest.date > self._seen.date:
            self._waiting = [*list(days_between(self._seen.next(), newest))[::-1], *self._waiting]
        self._seen = newest
        for day in tuple(self._waiting):
            if self._stopping.is_set() or (self._has_begun and self._is_alone):
                return
            if self._write(day, now_ms):
                self._waiting.remove(day)
            self._has_begun = True
        if self._waiting:
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
