"""Days from the exchange, or first from its archive: what is not there and whole is fetched, newest first.

Requests are spent from the same budget as those of collectors; a 429 or 418 stops all of them. What a day needs is
known by pure parts (`pages`, `assembly`); here is the one place that waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from random import Random

import numpy as np

from candleshm._core import parse_klines
from candleshm.errors import BadResponse, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import ExchangeInfo, KlineRequest, Response
from candleshm.history.archive_days import ArchiveDays
from candleshm.history.assembly import Assembly, Coverage
from candleshm.history.candles import Candles, Conflict, Source
from candleshm.history.day import Day, Grid
from candleshm.history.pages import Page, pages_of
from candleshm.history.reports import inspect
from candleshm.history.store import DayStore
from candleshm.history.tally import DayTally, DownloadProgress
from candleshm.network.backoff import Backoff
from candleshm.rest.client import Connection
from candleshm.system.clock import ExchangeTime

__all__ = ["Downloader", "is_final", "log_conflicts"]

logger = logging.getLogger(__name__)

TRIES = 5
# So many 429 or 418 for one page, each waited out, and it counts as failed.
STOPS_MAX = 10
CONFIRMATIONS_MORE = 8
LOOK_SECONDS = 0.2
# Few, because the archive is a gift.
ARCHIVE_WORKERS = 4
FROM_EXCHANGE: frozenset[Source | None] = frozenset({"exchange", "block"})
CONFLICTS_SHOWN = 5


class Downloader:
    """Brings days of one market and interval into a store. One `run` at a time; `stopping` ends it from any thread."""

    def __init__(
        self,
        store: DayStore,
        connection: Connection,
        exchange_time: ExchangeTime,
        info: ExchangeInfo,
        *,
        settle_ms: int,
        workers: int = 8,
        archive: ArchiveDays | None = None,
        only_exchange: bool = False,
        stopping: threading.Event | None = None,
        progress: Callable[[DownloadProgress], object] | None = None,
    ) -> None:
        """With `archive` only what that lacks is asked of the exchange; with `only_exchange` what came from elsewhere
        counts as not there. `progress` is called about twice a second, by the thread that runs.
        """
        self._store = store
        self._connection = connection
        self._time = exchange_time
        self._info = info
        self._settle_ms = settle_ms
        self._workers = workers
        self._archive = archive
        self._only_exchange = only_exchange
        self._stopping = stopping or threading.Event()
        self._report = progress or (lambda _: None)
        self._backoff, self._random = Backoff(), Random()
        # Everything below belongs to whoever holds this.
        self._changed = threading.Condition()
        self._progress = DownloadProgress(0, 0)
        self._tallies: dict[Day, DayTally] = {}
        self._queue: list[Page] = []  # what to ask for, the newest last
        self._later: list[Page] = []  # not before a moment
        self._confirming: dict[str, Page] = {}  # by symbol, the page that confirms what is absent; one at a time
        self._open: dict[str, list[Assembly]] = {}  # days in the making, newest first
        self._given_up: dict[str, str] = {}
        self._vague: list[Assembly] = []  # days of which answer after answer left open what is there
        self._nothing_before_ms: dict[str, int] = {}  # where a symbol's candles begin, as far as that is known
        self._newest_ms: dict[str, int] = {}
        self._in_flight = 0
        self._keeping = 0  # threads that may be writing files
        self._is_closed = False  # nothing is taken in any more
        self._failure: BaseException | None = None
        self._started_seconds = 0.0

    def run(self, symbols: Sequence[str], days: Iterable[Day], *, replace: bool = False) -> DownloadProgress:
        """Fetch what is not there and whole, or with `replace` everything; return what came of it.

        Every day has to be final, see `is_final`. To be called inside the store's `writing`. Days that could not be
        fetched are logged and counted. Raises StoreUnavailable when a file cannot be written; what was written stays.
        """
        newest_first = sorted(set(days), key=lambda day: day.date, reverse=True)
        self._tallies = {day: DayTally(day, len(symbols)) for day in newest_first}
        self._progress = DownloadProgress(len(symbols), len(symbols) * len(newest_first))
        self._started_seconds = self._connection.clock.monotonic_seconds()
        # A month is looked at and fetched together: that bounds the memory of a download of years, and the wait before
        # its first request.
        for _, month in groupby(newest_first, key=lambda day: day.date.replace(day=1)):
            if self._stopping.is_set():
                break
            self._look(symbols, list(month), replace=replace)
            if self._archive is not None:
                self._fetch_archived(self._archive)
                self._give_up()
            self._fetch()
        self._progress.is_stopped = self._stopping.is_set()
        self._progress.tallies.sort(key=lambda tally: tally.day.date, reverse=True)
        self._show()
        return self._progress

    # What is there.

    def _look(self, symbols: Sequence[str], days: Sequence[Day], *, replace: bool) -> None:
        """Sort days of symbols into those that are whole, those that need nothing, and those to fetch."""
        self._open = {}
        shown_seconds = self._connection.clock.monotonic_seconds()
        for day in days:
            for symbol in symbols:
                if self._stopping.is_set():
                    return
                if symbol in self._given_up and self._archive is None:
                    self._count(day, "error")
                elif day.end_ms <= self._nothing_before_ms.get(symbol, 0):
                    self._count(day, "warn")
                elif not replace and self._is_whole(symbol, day):
                    self._count(day, "skip")
                else:
                    self._open.setdefault(symbol, []).append(Assembly(symbol, day, self._store.interval))
                if self._connection.clock.monotonic_seconds() > shown_seconds + LOOK_SECONDS:
                    shown_seconds = self._connection.clock.monotonic_seconds()
                    self._show()
        for assembly in [day for open_days in self._open.values() for day in open_days if day.grid.count == 0]:
            self._finish(assembly, "skip")  # a day in which no candle of a long interval opens

    def _is_whole(self, symbol: str, day: Day) -> bool:
        [report] = inspect(self._store, symbol, [day])
        if report.verdict == "damaged":
            logger.warning("%s: %s; fetched again", report.path, report.reason)
        return report.is_complete and not (self._only_exchange and report.source not in FROM_EXCHANGE)

    # The threads.

    def _fetch_archived(self, archive: ArchiveDays) -> None:
        """Take from the archive what it has of the days in the making, and write those that are whole by that."""
        waiting = list(self._open)[::-1]

        def work() -> None:
            while not self._is_over:
                try:
                    symbol = waiting.pop()
                except IndexError:
                    return
                self._take_archived(archive, symbol)

        self._run_threads(work, min(ARCHIVE_WORKERS, len(waiting)))

    def _give_up(self) -> None:
        """Leave it at what the archive has of symbols that the exchange has refused before."""
        for symbol in self._given_up:
            for day in tuple(self._open.get(symbol, ())):
                if self._stopping.is_set():
                    return
                self._keep_archived(day)
                self._finish(day, "error")

    def _take_archived(self, archive: ArchiveDays, symbol: str) -> None:
        days = tuple(self._open[symbol])
        fetched_ms = self._time.earliest_ms(self._connection.clock.monotonic_seconds())
        found = archive.candles(symbol, [day.day for day in days])
        whole = []
        with self._changed:
            if self._is_closed:
                return
            self._progress.rows += len(found.rows)
            for day in days:
                day.has_unusable_file = any(
                    start < day.grid.end_ms and day.grid.first_ms < end for start, end in found.unusable
                )
                if day.take_archived(found.rows, fetched_ms):
                    whole.append(day)
            self._keeping += 1
        self._keep_all(whole)

    def _fetch(self) -> None:
        """Ask the exchange for all days in the making."""
        limit = self._connection.exchange.page_limit
        pages = [page for days in self._open.values() for page in pages_of(days, limit)]
        for page in pages:
            for day in page.days:
                day.pages_left += 1
        # `pages` holds the symbols one after the other; sorting keeps their order within a moment.
        self._queue = sorted(pages, key=lambda page: -page.end_ms)[::-1]
        self._run_threads(self._ask, min(self._workers, len(pages)))
        assert self._stopping.is_set() or not any(self._open.values()), "every day has been accounted for"

    def _run_threads(self, work: Callable[[], None], count: int) -> None:
        """Do `work` in as many threads, and show how far it is meanwhile."""
        from_seconds, before_seconds = self._connection.clock.monotonic_seconds(), self._progress.fetching_seconds
        threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"candleshm-download-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._has_left():
                thread.join(LOOK_SECONDS)
                self._progress.fetching_seconds = (
                    before_seconds + self._connection.clock.monotonic_seconds() - from_seconds
                )
                self._show()
        if self._failure is not None:
            raise self._failure

    def _has_left(self) -> bool:
        """Once it is over, let files in hand be written, and say so: who waits for a socket is left behind."""
        with self._changed:
            self._is_closed = self._is_over
            while self._is_closed and self._keeping:
                self._changed.wait()
            return self._is_closed

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # Raised again by `run`: a thread has nobody to tell.
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _ask(self) -> None:
        while (page := self._next()) is not None:
            try:
                self._serve(page)
            finally:
                with self._changed:
                    self._in_flight -= 1
                    self._changed.notify_all()

    @property
    def _is_over(self) -> bool:
        return self._failure is not None or self._stopping.is_set()

    def _next(self) -> Page | None:
        """Wait for a page to ask for; None when there is nothing left to do."""
        with self._changed:
            while not self._is_over:
                now_seconds = self._connection.clock.monotonic_seconds()
                due = next((page for page in self._later if page.not_before_seconds <= now_seconds), None)
                if due is not None:
                    self._later.remove(due)
                elif self._queue:
                    due = self._queue.pop()
                elif not self._later and not self._in_flight:
                    return None
                if due is not None and (self._is_confirming(due) or not all(day.is_done for day in due.days)):
                    self._in_flight += 1
                    return due
                if due is None:
                    self._changed.wait(LOOK_SECONDS)
        return None

    def _is_confirming(self, page: Page) -> bool:
        return self._confirming.get(page.symbol) is page

    def _serve(self, page: Page) -> None:
        """Ask for a page and take in what comes, or put it back."""
        exchange = self._connection.exchange
        request = exchange.until(page.symbol, self._store.interval, page.limit, page.end_ms - 1)
        ticket = self._ticket(request.weight)
        if ticket is None:
            return
        answer, used = None, None
        try:
            answer = self._connection.transport.fetch(exchange.klines_url(request))
            used = exchange.used_weight(answer, self._connection.budget.window_seconds)
        except ExchangeError as error:
            self._take_error(page, error)
            return
        finally:
            self._connection.budget.answered(ticket, self._connection.clock.monotonic_seconds(), used)
        try:
            self._take(page, request, answer)
        except ExchangeError as error:
            self._take_error(page, error)

    def _ticket(self, weight: int) -> int | None:
        """Wait for room in the budget and book a request; None when stopped meanwhile."""
        budget, clock = self._connection.budget, self._connection.clock
        while not self._is_over:
            ticket, wait_seconds = budget.claim(weight, clock.monotonic_seconds())
            if ticket:
                self._progress.requests += 1
                return ticket
            self._stopping.wait(min(wait_seconds, LOOK_SECONDS))
        return None

    # What an answer means.

    def _take(self, page: Page, request: KlineRequest, answer: Response) -> None:
        rows = self._rows(answer)
        if len(rows) and rows[-1, 0] >= page.end_ms:
            raise BadResponse(
                f"the answer has a candle that opens at `{rows[-1, 0]:.0f}`, not before {page.end_ms} as requested"
            )
        sent_ms = self._time.earliest_ms(answer.sent_seconds)
        length_ms = page.days[0].grid.length_ms
        coverage = Coverage(
            rows, limit=request.limit, asked_start_ms=request.start_ms, end_ms=page.end_ms, length_ms=length_ms
        )
        with self._changed:
            if self._is_closed:
                return
            self._progress.rows += len(rows)
            for day in page.days:
                day.pages_left -= 1
            # An answer that holds all there is speaks for every older day too.
            speaks_of = page.days if coverage.begins_ms is None else self._open[page.symbol]
            for day in speaks_of:
                if not day.is_done and coverage.start_ms < day.grid.end_ms and day.grid.first_ms < page.end_ms:
                    day.take(rows, coverage, sent_ms)
            if coverage.begins_ms is not None:
                self._drop_pages(page.symbol, coverage.start_ms, coverage.begins_ms)
            ready = self._review(page)
            self._keeping += 1
        self._keep_all(ready)

    def _keep_all(self, days: Sequence[Assembly]) -> None:
        """Keep days that are known; `_keeping` was raised for it."""
        try:
            for day in days:
                try:
                    self._keep(day)
                except ExchangeError as error:
                    logger.error("%s: %s could not be fetched: %s", day.symbol, day.day, error)
                    self._keep_archived(day)
                    self._finish(day, "error")
        finally:
            with self._changed:
                self._keeping -= 1
                self._changed.notify_all()

    def _rows(self, answer: Response) -> Candles:
        """Read the rows of an answer, ascending. Raises ExchangeError; a row that cannot be true spoils all."""
        error = self._connection.exchange.error_of(answer, self._time.latest_ms(answer.received_seconds))
        if error is not None:
            raise error
        rows, refused = parse_klines(answer.body)
        if refused:
            raise BadResponse(f"{refused} of {len(rows) + refused} rows have impossible values", status=answer.status)
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def _drop_pages(self, symbol: str, start_ms: int, begins_ms: int) -> None:
        """Ask for no page of which an answer said already that it would be empty."""
        dropped = [
            page
            for page in self._queue
            if page.symbol == symbol and start_ms < page.end_ms <= begins_ms and not self._is_confirming(page)
        ]
        if dropped:
            self._queue = [page for page in self._queue if page not in dropped]
            for page in dropped:
                for day in page.days:
                    day.pages_left -= 1

    def _review(self, page: Page) -> list[Assembly]:
        """After the end of a page, return the days of its symbol of which everything is known.

        Of the others the newest is asked for once more.
        """
        if self._is_confirming(page):
            del self._confirming[page.symbol]
        ready, symbol = [], page.symbol
        for day in self._open[symbol]:
            if day.is_done or day.pages_left > 0:
                continue
            slots = day.unconfirmed(self._settle_ms)
            if slots is None:
                day.is_done = True
                ready.append(day)
            elif day.confirmations >= _confirmations_max(day, self._connection.exchange.page_limit):
                day.is_done = True
                self._vague.append(day)
                ready.append(day)
            elif symbol not in self._confirming:
                again = self._confirming[symbol] = self._confirmation(day, slots[1])
                self._later.append(again)
        return ready

    def _confirmation(self, day: Assembly, end_slot: int) -> Page:
        """Return the page that asks again, a settle after the answer that lacked rows."""
        now_seconds = self._connection.clock.monotonic_seconds()
        wait_ms = day.last_absent_ms + max(self._settle_ms, 1) - self._time.earliest_ms(now_seconds)
        day.pages_left += 1
        day.confirmations += 1
        return Page(
            day.symbol,
            day.grid.first_ms + end_slot * day.grid.length_ms,
            self._connection.exchange.page_limit,
            [day],
            not_before_seconds=now_seconds + max(wait_ms, 0) / 1000,
        )

    def _keep(self, day: Assembly) -> None:
        """Write a day that is known, unless the symbol did not exist then. Raises ExchangeError."""
        if day in self._vague:
            raise BadResponse(f"{day.confirmations} more answers did not show which of its candles exist")
        if day.is_before_the_first:
            with self._changed:
                is_news = day.symbol not in self._nothing_before_ms
                self._nothing_before_ms[day.symbol] = max(self._nothing_before_ms.get(day.symbol, 0), day.grid.end_ms)
            if is_news:
                logger.warning("%s: no candles yet on %s, nor before", day.symbol, day.day)
            self._finish(day, "warn")
            return
        candles = day.candles(self._store.market, has_ended=self._has_ended(day))
        self._store.write(candles)
        logger.info(
            "%s: %s written",
            day.symbol,
            day.day,
            extra={"event": "day_written", "symbol": day.symbol, "interval": self._store.interval, "day": day.day},
        )
        if candles.outside and candles.outside[0][0] == day.grid.first_ms:
            with self._changed:
                self._nothing_before_ms[day.symbol] = day.grid.first_ms
        for spans, what in ((candles.holes, "the exchange has no candle at"), (candles.outside, "did not trade at")):
            if spans:
                count = sum(end - start for start, end in spans) // day.grid.length_ms
                logger.warning("%s: %s %d of %d times of %s", day.symbol, what, count, day.grid.count, day.day)
        conflicts = list(day.conflicts())
        log_conflicts(conflicts)
        with self._changed:
            self._progress.fetched += 1
            self._progress.conflicts += len(conflicts)
        has_remark = candles.holes or candles.outside or conflicts or day.has_unusable_file
        self._finish(day, "warn" if has_remark else "suc")

    def _has_ended(self, day: Assembly) -> bool:
        """Say whether the symbol's last candle lies before the end of the day. Raises ExchangeError."""
        trailing_ms = day.trailing_ms()
        if trailing_ms is None or self._info.is_trading(day.symbol):
            return False
        if day.symbol not in self._newest_ms:
            exchange = self._connection.exchange
            request = exchange.newest(day.symbol, self._store.interval, 1)
            answer = self._connection.ask(exchange.klines_url(request), request.weight, self._stopping)
            rows = self._rows(answer)
            self._newest_ms[day.symbol] = int(rows[-1, 0]) if len(rows) else 0
        return self._newest_ms[day.symbol] < trailing_ms

    def _take_error(self, page: Page, error: ExchangeError) -> None:
        now_seconds = self._connection.clock.monotonic_seconds()
        if isinstance(error, RateLimited):
            if self._connection.budget.blocked_until_seconds < now_seconds:
                logger.warning("%s; no requests for %.0f s", error, error.retry_after)
            self._connection.budget.stop(error.retry_after, now_seconds)
            page.stops += 1
            if page.stops < STOPS_MAX:
                with self._changed:
                    self._queue.insert(0, page)  # behind all others: it may be the one that is refused
                return
        page.failures += 1
        if isinstance(error, ExchangeUnavailable | BadResponse) and page.failures < TRIES:
            page.not_before_seconds = now_seconds + self._backoff.delay_seconds(page.failures, self._random)
            with self._changed:
                self._later.append(page)
            return
        with self._changed:
            if self._is_closed:
                return
            days: Sequence[Assembly] = page.days
            if not isinstance(error, ExchangeUnavailable | BadResponse | RateLimited):
                # An unknown symbol, a refused parameter: the other days would fare the same.
                self._given_up[page.symbol] = str(error)
                days = self._open[page.symbol]
            failed = [day for day in days if not day.is_done]
            for day in failed:
                day.is_done = True
            ready = self._review(page)
            self._keeping += 2
        self._keep_all(ready)
        if failed:
            first, last = failed[-1].day, failed[0].day
            when = first if first == last else f"{first} .. {last}"
            logger.error("%s: %s could not be fetched: %s", page.symbol, when, error)
        try:
            for day in failed:
                self._keep_archived(day)
                self._finish(day, "error")
        finally:
            with self._changed:
                self._keeping -= 1
                self._changed.notify_all()

    def _keep_archived(self, day: Assembly) -> None:
        """Write what the archive has of a day that the exchange does not give, unless as much is there."""
        candles = day.archived(self._store.market)
        if candles is None:
            return
        [there] = inspect(self._store, day.symbol, [day.day])
        if there.rows < len(candles.rows):
            self._store.write(candles)
            logger.warning(
                "%s: %s: kept %d of %d candles, which the archive has; the exchange gives no answer for the rest",
                day.symbol,
                day.day,
                len(candles.rows),
                day.grid.count,
            )

    # The count.

    def _finish(self, day: Assembly, outcome: str) -> None:
        with self._changed:
            day.is_done = True
            self._open[day.symbol].remove(day)
        self._count(day.day, outcome)

    def _count(self, day: Day, outcome: str) -> None:
        with self._changed:
            tally, progress = self._tallies[day], self._progress
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            progress.files_done += 1
            progress.failed += outcome == "error"
            progress.day = day.date
            if tally.is_done:
                progress.tallies.append(tally)
        if tally.is_done:
            tally.log()

    def _show(self) -> None:
        now_seconds = self._connection.clock.monotonic_seconds()
        progress, budget = self._progress, self._connection.budget
        progress.elapsed_seconds = now_seconds - self._started_seconds
        progress.weight_used, progress.weight_limit = budget.used(now_seconds), budget.limit
        progress.blocked_seconds = max(0.0, budget.blocked_until_seconds - now_seconds)
        self._report(progress)


def _confirmations_max(day: Assembly, limit: int) -> int:
    """Return how often a day is asked for once more: each time its part is absent, and some for a change of mind."""
    return 2 * -(-day.grid.count // limit) + CONFIRMATIONS_MORE


def log_conflicts(conflicts: Sequence[Conflict]) -> None:
    """Say where the archive and the exchange differ within a day."""
    for conflict in conflicts[:CONFLICTS_SHOWN]:
        logger.warning("%s; the exchange's value is kept", conflict)
    if len(conflicts) > CONFLICTS_SHOWN:
        logger.warning("%s: %d more candles of that day differ", conflicts[0].symbol, len(conflicts) - CONFLICTS_SHOWN)


def is_final(day: Day, interval: str, now_ms: int, settle_ms: int) -> bool:
    """Say whether every candle that opens in `day` has ended and settled at `now_ms`, exchange time."""
    return Grid.of(day, interval).end_ms + settle_ms <= now_ms and day.end_ms <= now_ms
