"""The worker threads: a job comes in, its response is merged, a report goes out. They decide nothing."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from candleshm.collector.ingest import Ingest
from candleshm.collector.older_series import OlderSeries
from candleshm.collector.series_plan import Kind, SeriesPlan
from candleshm.errors import CandleShmError
from candleshm.exchanges.base import Exchange, KlineRequest, Response
from candleshm.rest.transport import Transport
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import DATE_MS, ExchangeTime

if TYPE_CHECKING:
    from candleshm._core import Ingested, Older

__all__ = ["Job", "MaintenanceRequest", "Report", "Workers"]

logger = logging.getLogger(__name__)

# A response may come from a cache or from a replica that stands still. Only a later row proves that it was made after
# its newest candle ended. Without one that candle becomes final this long after its end: long for a symbol that trades,
# since its next candle is to come; short where the list of symbols or the hours of its market, a second source, show
# that none will.
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
    """One request on its way: for the candles of `plan`, for `older` ones of a derived block, or for `maintenance`."""

    url: str = field(repr=False)
    weight: int
    exchange_time: ExchangeTime
    ticket: int
    plan: SeriesPlan | None = None
    kind: Kind = Kind.TAIL
    request: KlineRequest | None = None
    maintenance: MaintenanceRequest | None = None
    older: OlderSeries | None = None
    dates_count: bool = True
    """Whether the Date of a response tells anything about the exchange's clock."""


@dataclass(slots=True)
class Report:
    """What came of a job: a response or an error or both, and what the response changed in the block."""

    job: Job
    response: Response | None = None
    error: BaseException | None = None
    ingested: Ingested | None = None
    older: Older | None = None
    """What is to be requested next of a series of a derived block."""
    ingest_seconds: float = 0.0
    """How long parsing, merging and publishing took, and waiting for others that merge."""
    sent_ms: int = 0
    """Exchange time that had surely been reached when the request left."""
    received_ms: int = 0
    """Exchange time that had surely not been passed when the response was there."""
    date_is_off: bool = False
    """Whether the Date of the response contradicts the exchange time."""


class Workers:
    """A few daemon threads between two queues. `submit` and `reports` belong to one thread, `stop` to any."""

    def __init__(
        self, count: int, *, transport: Transport, exchange: Exchange, ingest: Ingest, block_name: str
    ) -> None:
        self._transport = transport
        self._exchange = exchange
        self._ingest = ingest
        self._log = BlockLog(logger, block_name)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._reports: SimpleQueue[Report | None] = SimpleQueue()
        self._stopped = False
        self._count = self.idle = count

    def start(self) -> None:
        """Start the threads. One that still waits for a socket at the end is left behind; what it brings is dropped.

        Where the system gives fewer threads than were requested, those do the work. Raises CandleShmError without any.
        """
        for number in range(self._count):
            try:
                threading.Thread(target=self._work, name=f"candleshm-worker-{number}", daemon=True).start()
            except RuntimeError as error:
                if number == 0:
                    raise CandleShmError(f"cannot start a worker thread: {error}") from None
                self._log.warning("only %d of %d worker threads can be started: %s", number, self._count, error)
                self._count = self.idle = number
                return

    @property
    def are_idle(self) -> bool:
        """Whether no request is on its way, and every report was taken in."""
        return self.idle == self._count

    def submit(self, job: Job) -> None:
        """Hand out a job; there has to be an idle worker, or it would age in the queue after weight was booked."""
        self.idle -= 1
        self._jobs.put(job)

    def reports(self, timeout_seconds: float) -> Iterator[Report]:
        """Wait for a report, then yield all that are there. The wait is the collector's only sleep."""
        try:
            report = self._reports.get(timeout=timeout_seconds)
            while not self._stopped:
                if report is not None:
                    yield report
                    self.idle += 1  # now that it is taken in
                report = self._reports.get_nowait()
        except Empty:
            return

    def wake(self) -> None:
        """End the wait for reports now; may be called from any thread."""
        self._reports.put(None)

    def stop(self) -> None:
        """End the threads and the wait for reports. What they still bring is dropped once `ingest` is stopped."""
        self._stopped = True
        self._reports.put(None)
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped:
            report = Report(job)
            try:
                self._perform(job, report)
            except BaseException as error:  # The loop decides what it means; a worker never ends by it.
                report.error = error
            self._reports.put(report)

    def _perform(self, job: Job, report: Report) -> None:
        response = report.response = self._transport.fetch(job.url)
        received_ms = report.received_ms = job.exchange_time.latest_ms(response.received_seconds)
        report.date_is_off = job.dates_count and not job.exchange_time.agrees_with(
            response.date_ms, response.sent_seconds, response.received_seconds
        )
        error = self._exchange.error_of(response, received_ms)
        if error is not None:
            raise error
        if job.request is None:
            return
        judged_ms = report.sent_ms = job.exchange_time.earliest_ms(response.sent_seconds)
        if job.dates_count and response.date_ms is not None:
            # Perhaps the clock was set back, and candles that ended by our measurement go on. The earlier time cannot
            # make a row final too soon. A step that is too small to differ from a Date that was kept for a moment
            # counts as well: the response was made before the Date's second was over.
            judged_ms = min(judged_ms, response.date_ms + (0 if report.date_is_off else DATE_MS - 1))
        started_seconds = time.perf_counter()
        if job.older is not None:
            merged = self._ingest.older(
                job.older.block.name,
                job.older.symbol,
                response,
                job.request,
                sent_ms=judged_ms,
                received_ms=received_ms,
                patience_ms=PATIENCE_MS,
            )
            if merged is not None:
                report.ingested, report.older = merged
        elif job.plan is not None:
            is_awaited = job.plan.trading and judged_ms >= job.plan.quiet_until_ms
            report.ingested = self._ingest.response(
                job.plan.symbol,
                response,
                job.request,
                sent_ms=judged_ms,
                received_ms=received_ms,
                patience_ms=PATIENCE_MS if is_awaited else ENDED_PATIENCE_MS,
            )
        report.ingest_seconds = time.perf_counter() - started_seconds
