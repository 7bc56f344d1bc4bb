"""What a response about candles means for its series, once the core has merged it."""

from __future__ import annotations

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import RowCounters
from candleshm.collector.failover import Failover
from candleshm.collector.failures import Failures
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.outdated_responses import OutdatedResponses
from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import Kind, PollPolicy
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
        clock_sync: ClockSync,
        repair: Repair,
        failover: Failover,
        older_rows: OlderRows,
        failures: Failures,
        outdated: OutdatedResponses,
        rows: RowCounters,
    ) -> None:
        self._policy = policy
        self._clock_sync = clock_sync
        self._repair = repair
        self._failover = failover
        self._older_rows = older_rows
        self._failures = failures
        self._outdated = outdated
        self._rows = rows

    def take(self, report: Report, now: float) -> None:
        """Take a response in that was merged. Raises BadResponse when it lacks all rows of a series that had some."""
        if report.job.older is not None:
            self._older_rows.take(report, now)
            return
        plan, kind, response, ingested = report.job.plan, report.job.kind, report.response, report.ingested
        if plan is None or response is None or ingested is None:
            return
        self._failures.recovered(plan)
        # Rows older than a listing are requested by backfills and audits, and do not exist.
        reaches_now = kind in (Kind.TAIL, Kind.CLOSING)
        if not ingested.rows and plan.trading and not plan.is_empty and reaches_now:
            reason = f"the response for {plan.symbol} has no rows, where earlier ones had"
            raise BadResponse(reason, status=response.status)
        self._rows.add(ingested, report.ingest_seconds)
        if reaches_now and plan.trading and ingested.newest_open_ms is not None:
            newest_end_ms = candle_end_ms(self._policy.interval, ingested.newest_open_ms)
            self._outdated.note(plan.symbol, max(newest_end_ms, plan.quiet_until_ms), report.sent_ms)
        self._failover.judge(plan, ingested, kind)
        self._repair.settle_suspicion(plan, report)
        plan.learn(
            ingested,
            sent_seconds=response.sent_seconds,
            sent_ms=report.sent_ms,
            now_seconds=now,
            kind=kind,
        )
        self._repair.take(plan, ingested, kind, now)
        if ingested.beyond:
            self._clock_sync.rows_from_beyond(now)
