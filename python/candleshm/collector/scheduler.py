"""The loop of a collector: plan, wait, dispatch, take reports.

One thread decides everything: it gives jobs to the workers, sleeps until one of them reports or something is due, and
takes in what they report. So nothing here needs a lock. Each question has a module of its own:

- what is requested next: `planner`, `dispatcher`; with which weight: `ratelimit.budget`
- which rows need repair: `repair`; who keeps a series fresh: `failover`
- what a continuous contract stands for, and which hours a market has: `calendars`
- what the exchange's clock shows: `clock_sync`; which symbols there are: `universe_refresh`, `symbols`
- what derived blocks lack: `older_rows`
- what a response means: `intake`; what an error means: `failures`
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from candleshm.collector.agenda import Agenda
from candleshm.collector.block_names import BlockNames
from candleshm.collector.calendars import Calendars
from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import RequestCounters, RowCounters
from candleshm.collector.dispatcher import Dispatcher
from candleshm.collector.failover import Failover
from candleshm.collector.failures import Failures
from candleshm.collector.ingest import Ingest
from candleshm.collector.intake import Intake
from candleshm.collector.loading import Loading, tries_max
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.older_series import FetchedBlock
from candleshm.collector.outdated_responses import OutdatedResponses
from candleshm.collector.recording import Recording
from candleshm.collector.repair import Repair
from candleshm.collector.selection import Selection
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.status import CollectorStatus
from candleshm.collector.status_board import StatusBoard, StatusSources
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.universe_refresh import UniverseRefresh
from candleshm.collector.workers import Report, Workers
from candleshm.errors import ExchangeError
from candleshm.exchanges.base import Exchange, ExchangeInfo, ScheduledSession
from candleshm.ratelimit.budget import WeightBudget
from candleshm.rest.transport import Transport
from candleshm.stream.source import MakeStreams
from candleshm.system.clock import Clock, ExchangeTime
from candleshm.universe import Universe

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Scheduler"]

HEARTBEAT_SECONDS = 0.5
STATUS_SECONDS = 1.0
# The loop wakes with every heartbeat. A longer pause means that the machine slept or the process was stopped.
ASLEEP_SECONDS = 5.0
# Where streams flow, nothing is due sooner than this after the last look: a look goes through all series.
LOOK_SECONDS = 0.5


class Scheduler:
    """Keeps the series of one writer loaded and fresh, from `run` until `stop`."""

    def __init__(
        self,
        *,
        writer: Writer,
        exchange: Exchange,
        transport: Transport,
        clock: Clock,
        exchange_time: ExchangeTime,
        budget: WeightBudget,
        policy: PollPolicy,
        universe: Universe,
        info: ExchangeInfo,
        refresh_seconds: float,
        workers: int = 8,
        random: Random | None = None,
        make_streams: MakeStreams | None = None,
        schedule: Mapping[str, tuple[ScheduledSession, ...]] | None = None,
        fetched: Sequence[FetchedBlock] = (),
        selection: Selection | None = None,
        recording: Recording | None = None,
    ) -> None:
        """`make_streams` makes the source of events; without one everything is requested by REST.

        `schedule` has the hours of markets, as far as they are known. `fetched` are the derived blocks whose older rows
        are requested. Of a `selection` only those symbols are requested and streamed that it has. `recording` is told
        of requests; without one nothing is recorded.
        """
        recording = recording or Recording(writer, None)
        recording.begin(policy)
        random = random or Random()
        now, name = clock.monotonic_seconds(), writer.name
        requests, rows = RequestCounters(), RowCounters()
        self._writer = writer
        self._clock = clock
        self._agenda = Agenda(policy)
        self._ingest = Ingest(writer, exchange_time=exchange_time, settle_ms=policy.settle_ms)
        self._workers = Workers(workers, transport=transport, exchange=exchange, ingest=self._ingest, block_name=name)
        self._symbols = SymbolSet(writer, universe, info, random, recording, selection)
        self._symbols.selection.on_change(self._workers.wake)
        calendars = Calendars(writer, exchange=exchange, symbols=self._symbols, schedule=schedule or {}, now=now)
        self._names = BlockNames(writer, now)
        self._clock_sync = ClockSync(
            exchange_time,
            exchange=exchange,
            clock=clock,
            ingest=self._ingest,
            agenda=self._agenda,
            block_name=name,
        )
        self._refresh = UniverseRefresh(
            block_name=name,
            exchange=exchange,
            budget=budget,
            universe=universe,
            symbols=self._symbols,
            policy=policy,
            calendars=calendars,
            refresh_seconds=refresh_seconds,
            now=now,
        )
        repair = Repair(
            writer,
            exchange=exchange,
            policy=policy,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            random=random,
            now=now,
            quiet_ms=calendars.quiet_ms,
        )
        older_rows = OlderRows(
            writer,
            fetched,
            exchange=exchange,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            in_flight_max=max(1, workers // 2),
        )
        self._failures = Failures(
            block_name=name,
            older_rows=older_rows,
            symbols=self._symbols,
            budget=budget,
            random=random,
            counters=requests,
            tries_max=tries_max(exchange, policy),
            workers=workers,
            recording=recording,
        )
        self._failover = Failover(
            writer,
            ingest=self._ingest,
            policy=policy,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            repair=repair,
            agenda=self._agenda,
            recording=recording,
            make_streams=make_streams,
            wake=self._workers.wake,
        )
        outdated = OutdatedResponses(name, urlsplit(exchange.time_url).netloc)
        self._dispatcher = Dispatcher(
            exchange=exchange,
            budget=budget,
            policy=policy,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            refresh=self._refresh,
            repair=repair,
            older_rows=older_rows,
            counters=requests,
            recording=recording,
        )
        self._intake = Intake(
            policy=policy,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            repair=repair,
            failover=self._failover,
            older_rows=older_rows,
            failures=self._failures,
            outdated=outdated,
            rows=rows,
            recording=recording,
        )
        sources = StatusSources(
            writer=writer,
            exchange=exchange,
            policy=policy,
            budget=budget,
            symbols=self._symbols,
            clock_sync=self._clock_sync,
            refresh=self._refresh,
            repair=repair,
            older_rows=older_rows,
            failover=self._failover,
            failures=self._failures,
            outdated=outdated,
            requests=requests,
            rows=rows,
            recording=recording,
        )
        self._loading = Loading(name, lambda: older_rows.are_filled)
        self._board = StatusBoard(sources, now)
        self._stopping = threading.Event()
        self._align(now)

    @property
    def status(self) -> CollectorStatus:
        """The newest snapshot; may be read from any thread."""
        return self._board.status

    def is_idle_at(self, now: float) -> bool:
        """Return whether the loop has looked since local time `now`, and has nothing due or on its way by then.

        The status shows it; where it does not yet, it is taken anew.
        """
        has_looked = min(self._agenda.looked_seconds, self._board.taken_seconds) >= now
        if not has_looked or not self._workers.are_idle or self._agenda.look_seconds <= now:
            return False
        if self._board.is_outdated:
            self._board.is_wished = True
            self.wake()
        return not self._board.is_wished

    def exchange_ms(self) -> int:
        """Return the exchange time that has surely been reached; from any thread."""
        return self._clock_sync.exchange_ms()

    def wait_loaded(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every symbol is loaded or given up for now, and return whether that is so."""
        return self._loading.done.wait(timeout_seconds)

    def wait_filled(self, timeout_seconds: float) -> bool:
        """As `wait_loaded`, and for the older rows of derived blocks."""
        return self._loading.filled.wait(timeout_seconds)

    def wake(self) -> None:
        """Let the loop look at the clock again, from any thread."""
        self._workers.wake()

    def follow_universe(self) -> None:
        """Look at the universe again, soon and in the loop's thread; may be called from any thread."""
        self._refresh.changed.set()
        self._workers.wake()

    def stop(self) -> None:
        """End `run` within moments, from any thread. Nothing is merged once this returns."""
        self._stopping.set()
        self._ingest.stop()
        self._workers.stop()
        self._failover.stop()

    def run(self) -> None:
        """Work until `stop`. Raises only what no symbol is to blame for: a fault of our own, or BlockInUse when
        another collector has taken the name of the block.
        """
        self._workers.start()
        self._failover.start()
        heartbeat_seconds = status_seconds = awake_seconds = self._clock.monotonic_seconds()
        self._clock_sync.compare(awake_seconds)
        try:
            while not self._stopping.is_set():
                now = self._clock.monotonic_seconds()
                if now - awake_seconds > ASLEEP_SECONDS:
                    self._clock_sync.measure_first(f"nothing ran for {now - awake_seconds:.0f} s", now)
                awake_seconds = now
                if now >= heartbeat_seconds:
                    heartbeat_seconds = now + HEARTBEAT_SECONDS
                    self._writer.heartbeat()
                    if self._agenda.look_seconds == math.inf:
                        # The weight that is waited for may be on its way for another collector of this pool.
                        self._agenda.look_now()
                if now >= status_seconds or self._board.is_wished:
                    status_seconds = now + STATUS_SECONDS
                    now_ms = self._clock_sync.earliest_ms(now)
                    self._refresh.look(now, now_ms)
                    self._failover.rest(self._refresh.laggards.resting)
                    self._agenda.look_by(self._refresh.due_seconds)
                    self._note_loaded(now)
                    self._board.publish(now, is_loaded=self._loading.done.is_set())
                    self._names.look(now)
                if self._refresh.changed.is_set():
                    self._refresh.take_changes()
                    self._align(now)
                if self._symbols.selection.take_change():
                    self._reselect(now)
                self._failover.look(now)
                if now >= self._agenda.look_seconds:
                    self._agenda.look_seconds = self._dispatch(now)
                self._agenda.looked_seconds = now
                due_seconds = min(self._agenda.look_seconds, heartbeat_seconds, status_seconds)
                for report in self._workers.reports(self._clock.sleep_seconds(due_seconds)):
                    self._take(report)
                    self._board.is_outdated = True
        finally:
            self.stop()

    def _dispatch(self, now: float) -> float:
        """Give the workers what is due and affordable; return when to look again (local seconds)."""
        self._failover.catch_up(now)
        has_streams = self._failover.has_streams
        while self._workers.idle > 0:
            is_loaded = self._loading.done.is_set()
            job, look_seconds = self._dispatcher.next_job(now, is_loaded=is_loaded, has_streams=has_streams)
            if job is None:
                return max(look_seconds, now + LOOK_SECONDS) if has_streams else look_seconds
            self._workers.submit(job)
        return math.inf

    def _take(self, report: Report) -> None:
        job, response, error = report.job, report.response, report.error
        now = self._clock.monotonic_seconds()
        if job.plan is None or error is not None or self._agenda.look_seconds == math.inf:
            self._agenda.look_now()
        self._dispatcher.book(report, now)
        if response is not None and error is None:
            self._clock_sync.check_date(report, now)
            try:
                self._take_response(report, now)
                for plan in self._failures.end_outage(now):
                    if plan.tasks:
                        self._agenda.plan(plan, now, self._clock_sync.earliest_ms(now))
            except ExchangeError as unreadable:
                error = unreadable
        if error is not None and self._failures.take(job, error, now):
            self._refresh.wish()
        if job.maintenance is self._refresh.request:
            self._refresh.ended()
        elif job.maintenance is self._refresh.calendars.request and error is not None:
            self._refresh.calendars.failed(now)
        if job.plan is not None and self._symbols.has(job.plan):
            self._failures.give_up(job.plan, error)
            self._agenda.plan(job.plan, now, self._clock_sync.earliest_ms(now))
        self._note_loaded(now)

    def _take_response(self, report: Report, now: float) -> None:
        maintenance, response = report.job.maintenance, report.response
        assert response is not None
        if maintenance is None:
            self._intake.take(report, now)
            return
        if maintenance is self._clock_sync.measurement:
            self._clock_sync.take(response)
            for plan in self._symbols.plans.values():
                # Closing tasks were planned by the older measurement.
                if plan.tasks:
                    self._agenda.plan(plan, now, self._clock_sync.earliest_ms(now))
        elif maintenance is self._refresh.ranking:
            self._refresh.rank(response, now)
            self._align(now)
        elif maintenance is self._refresh.calendars.request:
            self._refresh.calendars.take(response, now)
        elif self._refresh.take(response, now):
            self._align(now)
        maintenance.failures = 0

    def _reselect(self, now: float) -> None:
        """Collect what is selected now; what the exchange lists may have changed since this collector last asked."""
        self._refresh.calendars.forget()
        if self._symbols.selection.collects_any:
            self._refresh.wish()
        self._align(now)
        self._agenda.look_now()

    def _align(self, now: float) -> None:
        """Let the symbol set follow the list of symbols and the universe."""
        now_ms = self._clock_sync.earliest_ms(now)
        fresh = self._symbols.align(now, now_ms)
        self._refresh.calendars.look(now, now_ms)
        self._failover.follow(fresh)
        for plan in fresh:
            self._dispatcher.begin(plan, now)
            self._agenda.plan(plan, now, now_ms)
        self._board.publish(now, is_loaded=self._loading.done.is_set())

    def _note_loaded(self, now: float) -> None:
        is_complete = self._symbols.selection.is_complete
        if is_complete and self._loading.ends_with(self._symbols.plans.values()):
            self._loading.end(self._board.publish(now, is_loaded=False))
            self._agenda.look_now()
        if self._loading.fills_now():
            self._board.publish(now, is_loaded=True)
            self._loading.filled.set()
