"""What a response about candles means for its series, once the core has merged it."""

from __future__ import annotations

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import RowCounters
from candleshm.collector.failover import Failover
from candleshm.collector.failures import Failures
from candleshm.collector.merged_response import MergedResponse
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.outdated_responses import OutdatedResponses
from candleshm.collector.recording import Recording
from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import Report
from candleshm.errors import BadResponse
from candleshm.exchanges.base import candle_end_ms

__all__ = ["Intake"]


class Intake:
    """Takes responses in: counters, plans, and whether they are outdated. Belongs to the loop."""

    def __init__(
        self,
        *,
        policy: PollPolicy,
        symbols: SymbolSet,
        clock_sync: ClockSync,
        repair: Repair,
        failover: Failover,
        older_rows: OlderRows,
        failures: Failures,
        outdated: OutdatedResponses,
        rows: RowCounters,
        recording: Recording,
    ) -> None:
        self._policy = policy
        self._symbols = symbols
        self._clock_sync = clock_sync
        self._repair = repair
        self._failover = failover
        self._older_rows = older_rows
        self._failures = failures
        self._outdated = outdated
        self._rows = rows
        self._recording = recording

    def take(self, report: Report, now: float) -> None:
        """Take a response in that was merged. Raises BadResponse when it lacks all rows of a series that had some."""
        if report.job.older is not None:
            self._older_rows.take(report, now)
            return
        job, response, ingested = report.job, report.response, report.ingested
        plan, request = job.plan, job.request
        if plan is None or request is None or response is None or ingested is None:
            return
        self._failures.recovered(plan)
        merged = MergedResponse(
            job.kind,
            request.limit,
            request.end_ms,
            response.sent_seconds,
            report.sent_ms,
            report.received_ms,
            now,
            self._clock_sync.earliest_ms(now),
        )
        if self._symbols.has(plan):
            self._recording.note_response(plan, merged)
        if merged.lacks_all(plan, ingested):
            reason = f"the response for {plan.symbol} has no rows, where earlier ones had"
            raise BadResponse(reason, status=response.status)
        self._rows.add(ingested, report.ingest_seconds)
        if merged.reaches_now and plan.trading and ingested.newest_open_ms is not None:
            newest_end_ms = candle_end_ms(self._policy.interval, ingested.newest_open_ms)
            self._outdated.note(plan.symbol, max(newest_end_ms, plan.quiet_until_ms), report.sent_ms)
        self._failover.teach(plan, ingested, merged)
        self._repair.take(plan, ingested, job.kind, now)
        if ingested.beyond:
            self._clock_sync.rows_from_beyond(now)
