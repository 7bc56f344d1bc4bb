"""The threads that fetch: a job in, its answer merged by the writer, a report out. They decide nothing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from candleshm.collector.planner import Kind, SeriesPlan
from candleshm.errors import CandleShmError
from candleshm.exchanges.base import Exchange, KlineRequest, Response
from candleshm.rest.transport import Transport
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import DATE_MS, ExchangeTime

if TYPE_CHECKING:
    from candleshm._core import Ingested, Pushed, Writer

__all__ = ["Fetchers", "Job", "MaintenanceRequest", "Report", "newest_missing_ms"]

# An answer may come from a cache or from a replica that stands still. Only a later row proves that it was made after
# its newest candle ended. Without one that candle becomes final this long after its end: long for a symbol that trades,
# since its next candle is to come; short where the list of symbols, a second source, says that none will.
PATIENCE_MS = 600_000
ENDED_PATIENCE_MS = 10_000


@dataclass(slots=True)
class MaintenanceRequest:
    """A recurring request that is not about candles: what it costs, when it is due, how often in a row it failed."""

    url: str = field(repr=False)
    weight: int
    due_seconds: float = math.inf
    failures: int = 0


@dataclass(slots=True)
class Job:
    """One request on its way: for the candles of `plan`, or for `upkeep`."""

    url: str = field(repr=False)
    weight: int
    exchange_time: ExchangeTime
    ticket: int
    plan: SeriesPlan | None = None
    kind: Kind = Kind.TAIL
    request: KlineRequest | None = None
    upkeep: MaintenanceRequest | None = None
    dates_count: bool = True
    """Whether the Date of an answer says something about the exchange's clock."""


@dataclass(slots=True)
class Report:
    """What came of a job: an answer or an error or both, and what the writer made of it."""

    job: Job
    answer: Response | None = None
    error: BaseException | None = None
    ingested: Ingested | None = None
    ingest_seconds: float = 0.0
    """How long parsing, merging and publishing took."""
    missing_range_ms: tuple[int, int] | None = None
    sent_ms: int = 0
    """Exchange time that had surely been reached when the request left."""
    received_ms: int = 0
    """Exchange time that had surely not been passed when the answer was there."""
    date_is_off: bool = False
    """Whether the Date of the answer contradicts the exchange time."""


class Fetchers:
    """A few daemon threads between two queues. `submit` and `reports` belong to one thread, `stop` to any."""

    def __init__(self, count: int, *, transport: Transport, exchange: Exchange, writer: Writer, settle_ms: int) -> None:
        self._transport = transport
        self._exchange = exchange
        self._writer = writer
        self._settle_ms = settle_ms
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._reports: SimpleQueue[Report | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._stopped = False
        self._time_began_seconds = -math.inf
        self._count = self.idle = count

    def start(self) -> None:
        """Start the threads. One that still waits for a socket at the end is left behind; what it brings is dropped.

        Where the system gives fewer threads than were asked for, those do the work. Raises CandleShmError without any.
        """
        for number in range(self._count):
            try:
                threading.Thread(target=self._work, name=f"candleshm-fetch-{number}", daemon=True).start()
            except RuntimeError as error:
                if number == 0:
                    raise CandleShmError(f"no thread can be started that fetches: {error}") from None
                log = BlockLog(self._writer.name)
                log.warning("only %d of %d fetching threads can be started: %s", number, self._count, error)
                self._count = self.idle = number
                return

    def submit(self, job: Job) -> None:
        """Hand out a job; there has to be an idle thread, or it would age in the queue after weight was booked."""
        self.idle -= 1
        self._jobs.put(job)

    def reports(self, timeout_seconds: float) -> Iterator[Report]:
        """Wait for a report, then yield all that are there. The wait is the collector's only sleep."""
        try:
            report = self._reports.get(timeout=timeout_seconds)
            while not self._stopped:
                if report is not None:
                    self.idle += 1
                    yield report
                report = self._reports.get_nowait()
        except Empty:
            return

    def wake(self) -> None:
        """Let who waits for reports look around, from any thread."""
        self._reports.put(None)

    def ingest_events(self, frames: Sequence[bytes], received_ms: int) -> Pushed | None:
        """Merge what a stream pushed, from the stream's thread; None once stopped."""
        with self._gate:
            return None if self._stopped else self._writer.ingest_events(frames, received_ms=received_ms)

    @contextmanager
    def merging_paused(self) -> Iterator[None]:
        """Let answers wait while symbols, and perhaps the block, are exchanged."""
        with self._gate:
            yield

    def begin_time(self, now_seconds: float) -> None:
        """Begin anew to order what the exchange says by its time: its clock was set.

        Answers that were asked for under the other time are not merged any more. They would count as later, or as
        earlier, than all that comes.
        """
        with self._gate:
            self._time_began_seconds = now_seconds
            self._writer.forget_times()

    def stop(self) -> None:
        """Let nothing be merged any more once this returns, end the threads, and wake who waits for reports."""
        with self._gate:
            self._stopped = True
        self._reports.put(None)
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped:
            report = Report(job)
            try:
                self._perform(job, report)
            except BaseException as error:  # What it means is for the loop to say; a thread never ends by it.
                report.error = error
            self._reports.put(report)

    def _perform(self, job: Job, report: Report) -> None:
        answer = report.answer = self._transport.fetch(job.url)
        received_ms = report.received_ms = job.exchange_time.latest_ms(answer.received_seconds)
        report.date_is_off = job.dates_count and not job.exchange_time.agrees_with(
            answer.date_ms, answer.sent_seconds, answer.received_seconds
        )
        error = self._exchange.error_of(answer, received_ms)
        if error is not None:
            raise error
        if job.plan is None or job.request is None:
            return
        symbol, request = job.plan.symbol, job.request
        judged_ms = report.sent_ms = job.exchange_time.earliest_ms(answer.sent_seconds)
        if job.dates_count and answer.date_ms is not None:
            # Perhaps the clock was set back, and candles that ended by our measurement go on. The earlier time cannot
            # make a row final too soon. A step that is too small to be told from a Date that was kept for a moment
            # counts as well: the answer was made before the Date's second was over.
            judged_ms = min(judged_ms, answer.date_ms + (0 if report.date_is_off else DATE_MS - 1))
        with self._gate:
            if self._stopped or answer.sent_seconds < self._time_began_seconds:
                return
            started_seconds = time.perf_counter()
            report.ingested = self._writer.ingest(
                symbol,
                answer.body,
                sent_ms=judged_ms,
                received_ms=received_ms,
                settle_ms=self._settle_ms,
                limit=request.limit,
                start_ms=request.start_ms,
                end_ms=request.end_ms,
                from_end=True,
                patience_ms=PATIENCE_MS if job.plan.trading else ENDED_PATIENCE_MS,
            )
            report.ingest_seconds = time.perf_counter() - started_seconds
            if report.ingested.missing > 0:
                report.missing_range_ms = newest_missing_ms(self._writer, symbol)


def newest_missing_ms(writer: Writer, symbol: str) -> tuple[int, int] | None:
    """Return the newest missing range of a series, half-open; None when nothing is missing."""
    return next(((gap.start_ms, gap.end_ms) for gap in reversed(writer.gaps(symbol)) if gap.kind == "missing"), None)
