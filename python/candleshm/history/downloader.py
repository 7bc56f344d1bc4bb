"""Days from the exchange, or first from its archive: what is fetched, in which order, and what each response proves.

Requests are paid from the same budget as those of collectors; a 429 or 418 stops all of them. `pages` and `assembly`
are pure and know what a day needs; `page_queue` keeps the order, `day_writing` writes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from random import Random

from candleshm._core import hole_apart_ms
from candleshm.errors import BadResponse, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import ExchangeInfo, KlineRequest, Response
from candleshm.history.archive_days import ArchiveDays
from candleshm.history.assembly import Assembly, Coverage
from candleshm.history.candles import FROM_EXCHANGE
from candleshm.history.day import Day, Grid
from candleshm.history.day_writing import DayWriting
from candleshm.history.last_candle import LastCandles
from candleshm.history.page_queue import PageQueue
from candleshm.history.pages import Page, pages_of, rows_of
from candleshm.history.reports import inspect
from candleshm.history.store import DayStore
from candleshm.history.tally import DownloadProgress, Outcome, Tally
from candleshm.history.workers import Workers
from candleshm.network.backoff import Backoff
from candleshm.rest.client import Client
from candleshm.system.clock import ExchangeTime

__all__ = ["ARCHIVE_WORKERS", "Downloader", "is_final"]

logger = logging.getLogger(__name__)

TRIES = 5
# A page that got so many 429 or 418, each waited out, counts as failed.
STOPS_MAX = 10
CONFIRMATIONS_MORE = 8
# Few, because the archive is a gift.
ARCHIVE_WORKERS = 4
BACKOFF = Backoff()


class Downloader:
    """Brings days of one market and interval into a store. `run` is called once; `stopping` ends it from any thread."""

    def __init__(
        self,
        store: DayStore,
        client: Client,
        exchange_time: ExchangeTime,
        info: ExchangeInfo,
        tally: Tally,
        stopping: threading.Event,
        *,
        settle_ms: int,
        threads: int = 8,
        archive: ArchiveDays | None = None,
        only_exchange: bool = False,
    ) -> None:
        """With `archive` only what is missing there is requested from the exchange; with `only_exchange` days that came
        from elsewhere count as not stored.
        """
        self._store = store
        self._client = client
        self._time = exchange_time
        self._tally = tally
        self._settle_ms = settle_ms
        self._threads = threads
        self._archive = archive
        self._only_exchange = only_exchange
        self._workers = Workers(client.clock, stopping, tally.add_seconds)
        self._queue = PageQueue(client.clock, self._workers.changed)
        self._writing = DayWriting(store, tally)
        self._last_candles = LastCandles(client, info, store.interval, stopping)
        self._random = Random()
        # Both belong to whoever holds `changed` of the workers.
        self._open: dict[str, list[Assembly]] = {}  # days in the making, newest first
        self._given_up: set[str] = set()  # symbols that the exchange refuses

    def run(self, symbols: Sequence[str], days: Iterable[Day], *, replace: bool = False) -> DownloadProgress:
        """Fetch the days without a complete file, or with `replace` all; return what came of it.

        Every day has to be final, see `is_final`. To be called inside the store's `writing`. Days that could not be
        fetched are logged and counted. Raises StoreUnavailable when a file cannot be written; what was written stays.
        """
        newest_first = sorted(set(days), key=lambda day: day.date, reverse=True)
        # The files of a month are read, and then its days fetched: that bounds the memory of a download of years, and
        # the wait before its first request. What does not fill a page waits for the days of the month before.
        months = [list(month) for _, month in groupby(newest_first, key=lambda day: day.date.replace(day=1))]
        for number, month in enumerate(months, start=1):
            if self._workers.is_over:
                break
            fresh = self._look(symbols, month, replace=replace)
            if self._archive is not None:
                self._fetch_archived(self._archive, fresh)
            self._fetch(month[-1].start_ms if number < len(months) else 0)
        assert self._workers.is_over or not any(self._open.values()), "every day has been accounted for"
        return self._tally.done(is_stopped=self._workers.is_over)

    def _look(self, symbols: Sequence[str], days: Sequence[Day], *, replace: bool) -> dict[str, list[Assembly]]:
        """Sort days of symbols into those that are complete, those that need nothing, and those to fetch.

        Those to fetch are returned, and in the making from now on.
        """
        fresh: dict[str, list[Assembly]] = {}
        grids = [(day, Grid.of(day, self._store.interval)) for day in days]
        # By symbols: a month of a symbol may be one file.
        for symbol in symbols:
            for day, grid in grids:
                if self._workers.is_over:
                    return fresh
                if symbol in self._given_up and self._archive is None:
                    self._tally.count(day, "failed")
                elif self._writing.is_before_the_first(symbol, day):
                    self._tally.count(day, "remarked")
                elif grid.count == 0:
                    self._tally.count(day, "skipped")  # a day in which no candle of a long interval opens
                elif not replace and self._is_complete(symbol, day):
                    self._tally.count(day, "skipped")
                else:
                    assembly = Assembly(symbol, day, grid, self._store.interval)
                    fresh.setdefault(symbol, []).append(assembly)
                    self._open.setdefault(symbol, []).append(assembly)
                self._tally.show_if_due()
        return fresh

    def _is_complete(self, symbol: str, day: Day) -> bool:
        [report] = inspect(self._store, symbol, [day])
        if report.verdict == "damaged":
            logger.warning("%s: %s; fetched again", report.path, report.reason)
        return report.is_complete and not (self._only_exchange and report.source not in FROM_EXCHANGE)

    def _fetch_archived(self, archive: ArchiveDays, fresh: Mapping[str, Sequence[Assembly]]) -> None:
        """Take from the archive what it has of these days, and write those that are complete by that."""
        self._workers.run_each(
            fresh.items(), lambda item: self._take_archived(archive, item[0], item[1]), ARCHIVE_WORKERS
        )
        for symbol in self._given_up:
            for day in tuple(self._open.get(symbol, ())):
                if self._workers.is_over:
                    return
                self._fail(day)

    def _take_archived(self, archive: ArchiveDays, symbol: str, days: Sequence[Assembly]) -> None:
        fetched_ms = self._time.earliest_ms(self._client.clock.monotonic_seconds())
        found = archive.candles(symbol, [day.day for day in days])
        self._tally.add(rows=len(found.rows))
        for of_file in self._by_file(days):
            with self._workers.storing() as is_open:
                if not is_open:
                    return
                whole = []
                for day in of_file:
                    day.has_unusable_file = any(
                        start < day.grid.end_ms and day.grid.first_ms < end for start, end in found.unusable
                    )
                    if day.take_archived(found.rows, fetched_ms):
                        whole.append((day, False))
                self._write(whole)

    def _by_file(self, days: Iterable[Assembly]) -> list[list[Assembly]]:
        """Return days, all of one symbol, by the file into which they are written: a file is written once."""
        by_file = groupby(days, key=lambda day: self._store.destination(day.symbol, day.day))
        return [list(of_file) for _, of_file in by_file]

    def _write(self, days: Sequence[tuple[Assembly, bool]]) -> None:
        """Write days of one file, each with whether its symbol has ended before its end."""
        if days:
            for (day, _), outcome in zip(days, self._writing.write(days), strict=True):
                self._end(day, outcome)

    def _fetch(self, looked_ms: int) -> None:
        """Request the days in the making from the exchange, in pages that hold no day before `looked_ms`."""
        slots = self._client.exchange.page_slots(self._store.interval)
        pages = [page for days in self._open.values() for page in pages_of(days, slots, looked_ms)]
        # `pages` holds the symbols one after the other; the queue keeps their order within a moment.
        self._queue.fill(pages)
        self._workers.run(self._next_page, self._request, min(self._threads, len(pages)))

    def _next_page(self) -> Page | None:
        return self._queue.take(lambda: self._workers.is_over)

    def _request(self, page: Page) -> None:
        """Request a page and take in what comes, or put it back."""
        exchange = self._client.exchange
        request = exchange.until(page.symbol, self._store.interval, page.limit, page.end_ms - 1)
        try:
            response = self._client.fetch(
                exchange.klines_url(request), request.weight, self._workers.pause, lambda: self._tally.add(requests=1)
            )
            if response is not None:
                self._take(page, request, response)
        except ExchangeError as error:
            self._take_error(page, error)
        finally:
            self._queue.end()

    def _take(self, page: Page, request: KlineRequest, response: Response) -> None:
        rows = rows_of(response, request.price)
        if len(rows) and rows[-1, 0] >= page.end_ms:
            raise BadResponse(
                f"the response has a candle that opens at `{rows[-1, 0]:.0f}`, not before {page.end_ms} as requested"
            )
        self._tally.add(rows=len(rows))
        sent_ms = self._time.earliest_ms(response.sent_seconds)
        coverage = Coverage(
            rows,
            limit=request.limit,
            asked_start_ms=request.start_ms,
            end_ms=page.end_ms,
            length_ms=page.days[0].grid.length_ms,
        )
        with self._workers.changed:
            for day in page.days:
                day.pages_left -= 1
            # It may hold more than it was requested for: candles below holes, holes of other days once more, and where
            # candles begin.
            for day in self._open[page.symbol]:
                if not day.is_done and coverage.start_ms < day.grid.end_ms and day.grid.first_ms < page.end_ms:
                    day.take(rows, coverage, sent_ms)
                    if coverage.begins_ms is not None and coverage.start_ms <= day.grid.first_ms:
                        day.cut_to(coverage.begins_ms)
            if coverage.begins_ms is not None:
                for empty in self._queue.drop_empty(page.symbol, coverage.start_ms, coverage.begins_ms):
                    for day in empty.days:
                        day.pages_left -= 1
            ready = self._review(page)
        self._end_all(ready)

    def _review(self, page: Page) -> list[Assembly]:
        """After the end of a page, return the days of its symbol of which everything is known.

        Of the others the newest is requested once more.
        """
        self._queue.end_confirmation(page)
        ready, symbol = [], page.symbol
        for day in self._open[symbol]:
            if day.is_done or day.pages_left > 0 or day.is_uncut:
                continue
            slots = day.unconfirmed(self._settle_ms)
            if slots is None:
                day.is_done = True
                ready.append(day)
            elif day.confirmations >= _confirmations_max(day, self._client.exchange.page_slots(self._store.interval)):
                day.is_done = day.is_vague = True
                ready.append(day)
            elif not self._queue.has_confirmation(symbol):
                self._confirm(day, slots[1])
        return ready

    def _confirm(self, day: Assembly, end_slot: int) -> None:
        """Request the rows up to a slot again, late enough to confirm that they do not exist."""
        now_seconds = self._client.clock.monotonic_seconds()
        wait_ms = day.last_absent_ms + hole_apart_ms(self._settle_ms) - self._time.earliest_ms(now_seconds)
        day.pages_left += 1
        day.confirmations += 1
        end_ms = day.grid.first_ms + end_slot * day.grid.length_ms
        page = Page(day.symbol, end_ms, self._client.exchange.page_slots(self._store.interval), [day])
        self._queue.confirm(page, now_seconds + max(wait_ms, 0) / 1000)

    def _take_error(self, page: Page, error: ExchangeError) -> None:
        """Put a page back, or give up its days, and all days of its symbol where the exchange refuses that."""
        with self._workers.changed:
            if isinstance(error, RateLimited):
                page.stops += 1
                if page.stops < STOPS_MAX:
                    self._queue.put_last(page)  # it may be the one that is refused
                    return
            page.failures += 1
            if isinstance(error, ExchangeUnavailable | BadResponse) and page.failures < TRIES:
                delay_seconds = BACKOFF.delay_seconds(page.failures, self._random)
                self._queue.postpone(page, self._client.clock.monotonic_seconds() + delay_seconds)
                return
            days: Sequence[Assembly] = page.days
            if not isinstance(error, ExchangeUnavailable | BadResponse | RateLimited):
                # An unknown symbol, a refused parameter: the other days would fare the same.
                self._given_up.add(page.symbol)
                days = self._open[page.symbol]
            failed = [day for day in days if not day.is_done]
            for day in failed:
                day.is_done = True
            ready = self._review(page)
        self._end_all(ready)
        if failed and not self._workers.is_over:
            _log_failed(failed, error)
        for day in failed:
            with self._workers.storing() as is_open:
                if not is_open:
                    return
                self._fail(day)

    def _end_all(self, days: Iterable[Assembly]) -> None:
        """Write days of one symbol of which all pages have been requested."""
        for of_file in self._by_file(days):
            known, failed = [], []
            for day in of_file:
                try:
                    if day.is_vague:
                        raise BadResponse(f"{day.confirmations} more responses did not show which of its candles exist")
                    known.append((day, self._last_candles.has_ended(day)))
                except ExchangeError as error:
                    failed.append((day, error))
            with self._workers.storing() as is_open:
                if not is_open:
                    return
                self._write(known)
                for day, reason in failed:
                    _log_failed([day], reason)
                    self._fail(day)

    def _fail(self, day: Assembly) -> None:
        """Leave it at what the archive has of a day."""
        self._writing.write_archived(day)
        self._end(day, "failed")

    def _end(self, day: Assembly, outcome: Outcome) -> None:
        with self._workers.changed:
            day.is_done = True
            self._open[day.symbol].remove(day)
        self._tally.count(day.day, outcome)


def _confirmations_max(day: Assembly, slots: int) -> int:
    """Return how often a day is requested once more: twice a page, and some more where responses contradict."""
    return 2 * -(-day.grid.count // slots) + CONFIRMATIONS_MORE


def _log_failed(days: Sequence[Assembly], error: ExchangeError) -> None:
    """Log days of one symbol, newest first, that could not be fetched."""
    first, last = (day.day for day in (days[-1], days[0]))
    when = first if first == last else f"{first} .. {last}"
    logger.error("%s: %s could not be fetched: %s", days[0].symbol, when, error)


def is_final(day: Day, interval: str, now_ms: int, settle_ms: int) -> bool:
    """Return whether every candle that opens in `day` has ended and settled at `now_ms`, exchange time."""
    return Grid.of(day, interval).end_ms + settle_ms <= now_ms and day.end_ms <= now_ms
