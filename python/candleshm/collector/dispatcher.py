"""Which request leaves next, within the weight budget: maintenance, a repair, a task that is due, older rows."""

from __future__ import annotations

import math

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import RequestCounters
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.planner import choose, request_for
from candleshm.collector.recording import Recording
from candleshm.collector.repair import Claim, Repair
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.universe_refresh import UniverseRefresh
from candleshm.collector.workers import Job, MaintenanceRequest, Report
from candleshm.exchanges.base import Exchange, KlineRequest
from candleshm.ratelimit.budget import HELD_SECONDS_MAX, WeightBudget

__all__ = ["Dispatcher"]

# So many series with rows to be backfilled are repaired like a start, as after an outage.
REPAIRS_MANY = 100


class Dispatcher:
    """Chooses and books requests; the scheduler sends them. Belongs to the loop."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        budget: WeightBudget,
        policy: PollPolicy,
        symbols: SymbolSet,
        clock_sync: ClockSync,
        refresh: UniverseRefresh,
        repair: Repair,
        older_rows: OlderRows,
        counters: RequestCounters,
        recording: Recording,
    ) -> None:
        self._exchange = exchange
        self._budget = budget
        self._policy = policy
        self._symbols = symbols
        self._clock_sync = clock_sync
        self._refresh = refresh
        self._repair = repair
        self._older_rows = older_rows
        self._counters = counters
        self._recording = recording
        self._repairs_many = False

    def begin(self, plan: SeriesPlan, now: float) -> None:
        """Have the holes of a series that joins the symbol set requested again."""
        self._repair.start(plan, now)

    def next_job(self, now: float, *, is_loaded: bool, has_streams: bool) -> tuple[Job | None, float]:
        """Return a job whose weight is booked, else None and when to look again (local seconds)."""
        job, look_seconds = self._choose(now, is_loaded=is_loaded, has_streams=has_streams)
        if job is not None:
            self._counters.weight += job.weight
            self._counters.requests += 1
        return job, look_seconds

    def book(self, report: Report, now: float) -> None:
        """Take in what the exchange counted for a request; without a response the booked weight stays."""
        response, used = report.response, None
        if response is not None:
            used = self._exchange.used_weight(response, self._budget.window_seconds)
        self._budget.finished(report.job.ticket, now, used)

    def _choose(self, now: float, *, is_loaded: bool, has_streams: bool) -> tuple[Job | None, float]:
        if not self._symbols.selection.collects_any:
            return None, math.inf
        look_seconds = math.inf
        refresh = self._refresh
        for maintenance in (
            self._clock_sync.measurement,
            refresh.request,
            refresh.ranking,
            refresh.calendars.request,
        ):
            if maintenance.due_seconds <= now:
                return self._maintain(maintenance, now)
            look_seconds = min(look_seconds, maintenance.due_seconds)
        if self._clock_sync.must_measure:
            return None, look_seconds
        if is_loaded:
            errand, due_seconds = self._repair.next(now, self._claim_at(now), with_audits=has_streams)
            if errand is not None:
                plan, kind, request, _ = errand
                bounds_ms = self._clock_sync.earliest_ms(now), self._clock_sync.time.latest_ms(now)
                self._recording.note_request(plan, kind, request, now, bounds_ms)
                return self._job(*errand), now
            look_seconds = min(look_seconds, due_seconds)
        selection = choose(self._symbols.plans.values(), now, repairs_many=self._repairs_many)
        # Until the last of them is done.
        self._repairs_many = selection.backfills > (0 if self._repairs_many else REPAIRS_MANY)
        # The first task that is due may have to wait for weight. Meanwhile only those may pass it that have weight of
        # their own: closing candles, what may be part of a burst, and everything else once the burst is spent.
        is_spent = self._budget.is_burst_spent(now)
        passing = selection.loading
        if selection.first is passing:
            passing = selection.steady if is_spent else None
        none_waits = (selection.steady if is_spent else selection.first) is None
        look_seconds = min(look_seconds, selection.next_seconds if none_waits else selection.next_closing_seconds)
        for due in (selection.first, passing, selection.closing):
            if due is None:
                continue
            plan, kind = due
            bounds_ms = self._clock_sync.earliest_ms(now), self._clock_sync.time.latest_ms(now)
            request = request_for(plan, kind, self._exchange, self._policy, *bounds_ms)
            ticket, wait_seconds = self._budget.claim(
                request.weight, now, closing=kind is Kind.CLOSING, loading=due is selection.loading
            )
            if wait_seconds <= 0:
                self._recording.note_request(plan, kind, request, now, bounds_ms)
                return self._job(plan, kind, request, ticket), now
            look_seconds = min(look_seconds, now + wait_seconds)
        if is_loaded and (selection.steady is None or not is_spent):
            job, due_seconds = self._fetch_older(now)
            if job is not None:
                return job, now
            look_seconds = min(look_seconds, due_seconds)
        return None, look_seconds

    def _fetch_older(self, now: float) -> tuple[Job | None, float]:
        """Return a request for older rows of derived blocks, which loads as a start does, else when one is due."""
        errand, due_seconds = self._older_rows.next(
            now, lambda request: self._budget.claim(request.weight, now, loading=True)
        )
        if errand is None:
            return None, due_seconds
        series, request, ticket = errand
        url, sync = self._exchange.klines_url(request), self._clock_sync
        job = Job(url, request.weight, sync.time, ticket, request=request, older=series, dates_count=sync.dates_count)
        return job, now

    def _claim_at(self, now: float) -> Claim:
        return lambda request: self._budget.claim(request.weight, now)

    def _maintain(self, maintenance: MaintenanceRequest, now: float) -> tuple[Job | None, float]:
        ticket, wait_seconds = self._budget.claim(maintenance.weight, now, closing=True, urgent=True)
        if wait_seconds > 0:
            return None, now + min(wait_seconds, HELD_SECONDS_MAX)
        maintenance.due_seconds = math.inf
        if maintenance is self._refresh.request:
            self._refresh.sent(now)
        elif maintenance is self._refresh.calendars.request:
            self._refresh.calendars.sent(now)
        sync = self._clock_sync
        job = Job(
            maintenance.url,
            maintenance.weight,
            sync.time,
            ticket,
            maintenance=maintenance,
            dates_count=sync.dates_count,
        )
        return job, now

    def _job(self, plan: SeriesPlan, kind: Kind, request: KlineRequest, ticket: int) -> Job:
        plan.tasks = ()
        url, sync = self._exchange.klines_url(request), self._clock_sync
        return Job(url, request.weight, sync.time, ticket, plan, kind, request, dates_count=sync.dates_count)
