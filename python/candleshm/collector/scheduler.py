"""The loop: plan, wait, fetch, ingest.

One thread decides everything: it plans, hands jobs to the fetchers, sleeps until one of them reports or something is
due, and takes in what they report. So nothing here needs a lock.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from candleshm.collector.absences import Absences
from candleshm.collector.block_names import BlockNames
from candleshm.collector.ingest import Ingest
from candleshm.collector.laggards import Laggards
from candleshm.collector.listing import DOUBTED_SECONDS, Listing
from candleshm.collector.loading import FAILURES_MAX, hopeless, limited_delay_seconds, refused_delay_seconds, tries_max
from candleshm.collector.outage import Outage, Steady, is_telling
from candleshm.collector.planner import (
    QUIET_MAX,
    Kind,
    PollPolicy,
    SeriesPlan,
    choose,
    closing_weight_of,
    next_turns,
    page_of,
    request_for,
    silence_of,
)
from candleshm.collector.standing import Standing
from candleshm.collector.status import CollectorStatus
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import Job, MaintenanceRequest, Report, Workers
from candleshm.errors import BadResponse, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import INTERVAL_MS, Exchange, ExchangeInfo, Response, candle_end_ms
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import HELD_SECONDS_MAX, WeightBudget
from candleshm.reader import freshness
from candleshm.reader.freshness import Freshness
from candleshm.rest.transport import Transport
from candleshm.stream.source import MakeStreams, StreamSource
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime
from candleshm.universe import Universe, nearest

if TYPE_CHECKING:
    from candleshm._core import Ingested, Writer

__all__ = ["CollectorStatus", "Scheduler"]

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 0.5
STATUS_SECONDS = 1.0
MEASURE_SECONDS = 300.0
# A Date header that contradicts the measured time is looked into this often at most; a front may always be wrong.
DISTRUST_SECONDS = 60.0
# Rows from beyond the exchange's clock say that it was set; the same rows again and again say that they are wrong.
BEYOND_SECONDS = 5.0
# The loop wakes with every heartbeat. A longer silence means that the machine slept or the process was stopped.
ASLEEP_SECONDS = 5.0
# Where streams flow, closed rows are checked by one request this often: 12 of SPOT's 6000 weight a minute.
AUDIT_SECONDS = 10.0
# Where streams flow, nothing is due sooner than this after the last look: a look goes through all series.
LOOK_SECONDS = 0.2
# Where live candles come from is said once it has been so for so long; one symbol in ten that is asked for is no news.
LIVE_SECONDS, LIVE_PART = 20.0, 10
# A clock of this machine that is further off than this is said, and again when it has moved by as much.
CLOCK_OFF_MS = 1000


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
        cadence: PollPolicy,
        universe: Universe,
        info: ExchangeInfo,
        refresh_seconds: float,
        workers: int = 8,
        random: Random | None = None,
        make_streams: MakeStreams | None = None,
    ) -> None:
        """`make_streams` makes the source of events; without one everything is requested by REST."""
        self._log = BlockLog(logger, writer.name)
        self._writer = writer
        self._exchange = exchange
        self._clock = clock
        self._time = exchange_time
        self._budget = budget
        self._cadence = cadence
        self._random = random or Random()
        self._backoff = Backoff()
        self._workers = workers
        self._ingest = Ingest(writer, clock=clock, exchange_time=exchange_time, settle_ms=cadence.settle_ms)
        self._fetchers = Workers(workers, transport=transport, exchange=exchange, ingest=self._ingest, log=self._log)
        self._stopping = False
        self._loaded = threading.Event()
        now = self._started_seconds = clock.monotonic_seconds()
        self._measure = MaintenanceRequest(exchange.time_url, exchange.time_weight, now + MEASURE_SECONDS)
        self._reload = MaintenanceRequest(exchange.info_url, exchange.info_weight)
        self._is_reloading = False
        self._listing = Listing(refresh_seconds, exchange.info_weight, now)
        self._laggards = Laggards(cadence)
        self._tries_max = tries_max(exchange, cadence)
        self._upkeep_first = False
        self._suspected: ExchangeTime | None = None  # measured once, at odds with what is believed
        # The Date of an answer counts unless that of the newest measurement was wrong itself, as behind a resender.
        self._dates_count = True
        self._date_seconds = -math.inf  # when a Date last made us measure
        self._universe = universe
        self._universe_changed = threading.Event()
        self._again_seconds = -math.inf  # until then nothing is due or affordable; spares scans of all plans
        self._silent = 0  # requests in a row without a usable answer, whatever the symbol
        self._silent_of: set[str] = set()  # the symbols that they were about
        self._requests = self._weight = self._rows = self._bans = self._ingests = 0
        self._ingest_seconds = 0.0
        self._corrections = self._refused = self._holes = 0
        self._errors: Counter[str] = Counter()
        self._outage = Outage()
        self._live = Steady("rest", LIVE_SECONDS)
        self._clock_said_ms = 0
        self._roster = SymbolSet(writer, universe, info, self._random)
        self._names = BlockNames(writer, now)
        self._verified = self._conflicts = self._audits = self._refused_events = 0
        self._audit_rows: Counter[str] = Counter(equal=0, corrected=0, missing=0)
        self._audit_seconds = now + AUDIT_SECONDS
        self._standing = Standing(self._log, urlsplit(exchange.time_url).netloc)
        self._absences = Absences(writer, cadence.interval, exchange.page_limit)
        self._stream_changed = threading.Event()
        self._stream: StreamSource | None = None
        if make_streams is not None:
            self._stream = make_streams(self._ingest, self._wake_for_stream)
        self._status = self._snapshot(now)
        self._align(now)

    @property
    def status(self) -> CollectorStatus:
        """The newest snapshot; may be read from any thread."""
        return self._status

    def exchange_ms(self) -> int:
        """Return the exchange time that has surely been reached; from any thread."""
        return self._time.earliest_ms(self._clock.monotonic_seconds())

    def wait_loaded(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every symbol is loaded or given up for now, and say whether that is so."""
        return self._loaded.wait(timeout_seconds)

    def follow_universe(self) -> None:
        """Look at the universe again, soon and in the loop's thread; may be called from any thread."""
        self._universe_changed.set()
        self._fetchers.wake()

    def stop(self) -> None:
        """End `run` within moments, from any thread. Nothing is merged once this returns; late answers are dropped."""
        self._stopping = True
        self._ingest.stop()
        self._fetchers.stop()
        if self._stream is not None:
            self._stream.stop()

    def run(self) -> None:
        """Work until `stop`. Raises only what no symbol is to blame for: a fault of our own, or BlockInUse when
        another collector has taken the name of the block.
        """
        self._fetchers.start()
        if self._stream is not None:
            self._stream.start()
        heartbeat_seconds = status_seconds = awake_seconds = self._clock.monotonic_seconds()
        self._compare_clocks(awake_seconds)
        try:
            while not self._stopping:
                now = self._clock.monotonic_seconds()
                if now - awake_seconds > ASLEEP_SECONDS:
                    self._distrust_time(f"nothing ran for {now - awake_seconds:.0f} s", now)
                awake_seconds = now
                if now >= heartbeat_seconds:
                    heartbeat_seconds = now + HEARTBEAT_SECONDS
                    self._writer.heartbeat()
                    if self._again_seconds == math.inf:
                        # The weight that is waited for may be on its way for another collector of this pool.
                        self._again_seconds = -math.inf
                if now >= status_seconds:
                    status_seconds = now + STATUS_SECONDS
                    self._look_after(now)
                    self._publish_status(now)
                    self._names.look(now)
                if self._universe_changed.is_set():
                    self._universe_changed.clear()
                    self._take_wishes(now)
                if self._stream is not None and self._stream_changed.is_set():
                    self._stream_changed.clear()
                    self._take_notices(self._stream, now)
                if now >= self._again_seconds:
                    self._again_seconds = self._dispatch(now)
                due_seconds = min(self._again_seconds, heartbeat_seconds, status_seconds)
                for report in self._fetchers.reports(self._clock.sleep_seconds(due_seconds)):
                    self._take(report)
        finally:
            self.stop()

    # Hand out.

    def _dispatch(self, now: float) -> float:
        """Hand out what is due and affordable; return when to look again (local seconds)."""
        if self._stream is not None:
            self._catch_up(now)
        while self._fetchers.idle > 0:
            job, again_seconds = self._next_job(now)
            if job is None:
                return again_seconds if self._stream is None else max(again_seconds, now + LOOK_SECONDS)
            self._weight += job.weight
            self._requests += 1
            self._fetchers.submit(job)
        return math.inf

    def _next_job(self, now: float) -> tuple[Job | None, float]:
        again_seconds = math.inf
        for upkeep in (self._measure, self._reload):
            if upkeep.due_seconds <= now:
                ticket, wait_seconds = self._budget.claim(upkeep.weight, now, closing=True, urgent=True)
                if wait_seconds > 0:
                    return None, now + min(wait_seconds, HELD_SECONDS_MAX)
                upkeep.due_seconds = math.inf
                if upkeep is self._reload:
                    self._is_reloading = True
                    self._listing.ask(now)
                job = Job(
                    upkeep.url, upkeep.weight, self._time, ticket, maintenance=upkeep, dates_count=self._dates_count
                )
                return job, now
            again_seconds = min(again_seconds, upkeep.due_seconds)
        if self._upkeep_first:
            return None, again_seconds
        if self._stream is not None and self._loaded.is_set():
            if self._audit_seconds <= now:
                self._audit_seconds = now + AUDIT_SECONDS
                audit = self._next_audit(now)
                if audit is not None:
                    return audit, now
            again_seconds = min(again_seconds, self._audit_seconds)
        if self._loaded.is_set() and self._absences.due_seconds <= now:
            page = self._next_absence(now)
            if page is not None:
                return page, now
        again_seconds = min(again_seconds, self._absences.due_seconds)
        choice = choose(self._roster.plans.values(), now)
        # What is due first may have to wait for weight. Until it leaves, only closing candles can pass it: they have
        # weight of their own.
        none_waits = choice.first is None
        again_seconds = min(again_seconds, choice.next_seconds if none_waits else choice.next_closing_seconds)
        for due in (choice.first, choice.closing):
            if due is None:
                continue
            plan, kind = due
            bounds_ms = self._time.earliest_ms(now), self._time.latest_ms(now)
            request = request_for(plan, kind, self._exchange, self._cadence, *bounds_ms)
            ticket, wait_seconds = self._budget.claim(request.weight, now, closing=kind is Kind.CLOSING)
            if wait_seconds <= 0:
                plan.turns = ()
                url = self._exchange.klines_url(request)
                dates_count = self._dates_count
                return Job(url, request.weight, self._time, ticket, plan, kind, request, dates_count=dates_count), now
            again_seconds = min(again_seconds, now + wait_seconds)
        return None, again_seconds

    # Streams.

    def _pauses_seconds(self) -> Mapping[str, float]:
        """Return how long the streams are stalled now and then, where that is honest."""
        if self._stream is None or not self._stream.rules.on_change:
            return {}
        return self._writer.pauses_seconds()

    def _wake_for_stream(self) -> None:
        self._stream_changed.set()
        self._fetchers.wake()

    def _take_notices(self, stream: StreamSource, now: float) -> None:
        """Ask by REST for what events left open, and for everything whose stream has gone."""
        now_ms = self._time.earliest_ms(now)
        touched: dict[str, SeriesPlan] = {}
        for symbol, need, open_ms in stream.repair_requests():
            plan = self._roster.plans.get(symbol)
            if plan is None:
                continue
            touched[symbol] = plan
            if need == "rows":
                plan.fruitless = 0
            elif need == "suspect":
                # What was traded shows in REST a moment later.
                plan.mark_suspect(open_ms, now_ms + self._cadence.settle_ms)
        refused = stream.status.refused
        if refused > self._refused_events and now > self._time.measured_seconds + DISTRUST_SECONDS:
            # Most likely they are ahead of what is thought the exchange's time.
            self._bring_forward(self._measure, now)
        self._refused_events = refused
        covered = stream.covered
        for symbol, plan in self._roster.plans.items():
            if plan.is_streamed != (symbol in covered):
                plan.is_streamed = not plan.is_streamed
                touched[symbol] = plan
        self._learn_from_stream(touched, now)

    def _catch_up(self, now: float) -> None:
        """Let the plans that are due know what was pushed meanwhile; mostly that leaves nothing to ask for."""
        due = {
            symbol: plan
            for symbol, plan in self._roster.plans.items()
            if plan.loaded and any(turn.due_seconds <= now and turn.kind is not Kind.BACKFILL for turn in plan.turns)
        }
        self._learn_from_stream(due, now)

    def _learn_from_stream(self, plans: Mapping[str, SeriesPlan], now: float) -> None:
        if not plans:
            return
        heard_seconds, pauses_seconds = self._ingest.last_event_seconds(), self._pauses_seconds()
        for symbol, plan in plans.items():
            if heard_seconds.get(symbol, -math.inf) > plan.heard_seconds:
                plan.heard_seconds = heard_seconds[symbol]
                plan.quiet = 0
            plan.pause_seconds = pauses_seconds.get(symbol, 0.0)
            position = self._writer.state(symbol)
            plan.follow(position)
            plan.missing_range_ms = position.newest_missing_ms
            if plan.turns:
                self._replan(plan, now)

    def _next_audit(self, now: float) -> Job | None:
        """Check closed rows of some series: in turns the newest ones, and some anywhere in its window."""
        plans = [plan for plan in self._roster.plans.values() if plan.loaded and plan.turns and not plan.is_empty]
        if not plans:
            return None
        plan = self._random.choice(plans)
        # Rows that may still be on their way are not what an audit is about.
        now_ms = self._time.earliest_ms(now)
        end_ms = newest_ms = now_ms - 2 * INTERVAL_MS[self._cadence.interval] - self._cadence.late_ms
        if self._audits % 2:
            # A long window reaches to before the calendar begins.
            oldest_ms = max(0, self._writer.window_start_ms(plan.symbol, now_ms))
            end_ms = self._random.randint(min(oldest_ms, newest_ms), newest_ms)
        request = self._exchange.until(plan.symbol, self._cadence.interval, self._exchange.tail_limit, end_ms)
        ticket, wait_seconds = self._budget.claim(request.weight, now)
        if wait_seconds > 0:
            return None
        self._audits += 1
        plan.turns = ()
        url = self._exchange.klines_url(request)
        return Job(url, request.weight, self._time, ticket, plan, Kind.AUDIT, request)

    def _next_absence(self, now: float) -> Job | None:
        """Ask again for rows that the exchange did not have."""
        plans = self._roster.plans
        ready = frozenset(symbol for symbol, plan in plans.items() if plan.trading and plan.turns)
        page = self._absences.next_page(ready, now)
        if page is None:
            return None
        symbol, range_ms = page
        request = page_of(symbol, range_ms, self._exchange, self._cadence, self._time.earliest_ms(now))
        ticket, wait_seconds = self._budget.claim(request.weight, now)
        if wait_seconds > 0:
            self._absences.postpone(symbol, range_ms, now + wait_seconds)
            return None
        plan = plans[symbol]
        plan.turns = ()
        url = self._exchange.klines_url(request)
        return Job(url, request.weight, self._time, ticket, plan, Kind.ABSENCE, request, dates_count=self._dates_count)

    # Take in.

    def _take(self, report: Report) -> None:
        job, answer, error = report.job, report.response, report.error
        now = self._clock.monotonic_seconds()
        if job.plan is None or error is not None or self._again_seconds == math.inf:
            self._again_seconds = -math.inf
        used = None if answer is None else self._exchange.used_weight(answer, self._budget.window_seconds)
        self._budget.answered(job.ticket, now, used)
        if answer is not None and error is None:
            if report.date_is_off and job.exchange_time is self._time and now >= self._date_seconds + DISTRUST_SECONDS:
                self._date_seconds = now
                self._distrust_time("the Date header of an answer contradicts the measured time", now)
            try:
                if job.maintenance is not None:
                    self._take_upkeep(job.maintenance, answer, now)
                elif job.plan is not None and report.ingested is not None:
                    self._take_candles(job.plan, report, answer, report.ingested, now)
                self._end_silence(now)
            except ExchangeError as unreadable:
                error = unreadable
        if error is not None:
            self._take_error(job, error, now)
        if job.maintenance is self._reload:
            self._is_reloading = False
        if job.plan is not None and self._is_carried(job.plan):
            self._give_up(job.plan, error)
            self._replan(job.plan, now)
        self._look_whether_loaded(now)

    def _give_up(self, plan: SeriesPlan, error: BaseException | None) -> None:
        """Let nobody wait any longer for a series that cannot be loaded."""
        if plan.loaded or plan.given_up:
            return
        reason = hopeless(plan, self._tries_max)
        if reason is not None:
            plan.given_up = True
            detail = "" if error is None else f": {error}"
            if not self._outage.is_on:
                self._log.error("%s: given up for now: %s%s; retried at growing intervals", plan.symbol, reason, detail)

    def _look_whether_loaded(self, now: float) -> None:
        plans = self._roster.plans.values()
        if not self._loaded.is_set() and all(plan.loaded or plan.given_up for plan in plans):
            self._publish_status(now)
            status = self._status
            missing = f"; given up for now: {' '.join(status.given_up)}" if status.given_up else ""
            self._log.info("loaded %d of %d symbols%s", status.loaded, status.symbols, missing)
            self._loaded.set()

    def _look_after(self, now: float) -> None:
        """See which series stay behind, and whether the list of symbols may say why."""
        self._laggards.look(self._roster.plans.values(), now, self._time.earliest_ms(now))
        self._roster.set_silent(self._laggards.silent)
        if not self._is_reloading and self._reload.failures == 0:
            since_seconds = [*self._laggards.since_seconds.values(), *self._roster.ended_seconds]
            self._reload.due_seconds = self._listing.due_seconds(
                since_seconds, self._budget.budget, self._budget.window_seconds
            )
            self._look_again(self._reload.due_seconds)
        self._look_whether_loaded(now)

    def _take_upkeep(self, upkeep: MaintenanceRequest, answer: Response, now: float) -> None:
        if upkeep is self._measure:
            self._take_time(answer, self._exchange.server_time_ms(answer))
        else:
            self._take_info(self._exchange.info(answer), now)
        upkeep.failures = 0

    def _take_candles(self, plan: SeriesPlan, report: Report, answer: Response, ingested: Ingested, now: float) -> None:
        if plan.failures >= FAILURES_MAX and not self._outage.is_on:
            self._log.info("%s: requests succeed again after %d failures", plan.symbol, plan.failures)
        # What is older than a listing is asked for by backfills and audits, and is not there.
        reaches_now = report.job.kind in (Kind.TAIL, Kind.CLOSING)
        if not ingested.rows and plan.trading and not plan.is_empty and reaches_now:
            raise BadResponse(f"the answer for {plan.symbol} has no rows, where earlier ones had", status=answer.status)
        self._rows += ingested.changed
        self._ingests += 1
        self._ingest_seconds += report.ingest_seconds
        self._corrections += ingested.corrected
        self._refused += ingested.refused
        self._holes += ingested.holes
        self._verified += ingested.verified
        self._conflicts += ingested.conflicts
        kind = report.job.kind
        if reaches_now and plan.trading and ingested.newest_open_ms is not None:
            newest_end_ms = candle_end_ms(self._cadence.interval, ingested.newest_open_ms)
            self._standing.saw(plan.symbol, newest_end_ms, report.sent_ms)
        if kind is Kind.AUDIT:
            self._audit_rows["equal"] += ingested.agreed
            self._audit_rows["corrected"] += ingested.corrected
            self._audit_rows["missing"] += max(0, ingested.closed - ingested.corrected)
        self._judge_silence(plan, ingested, kind, now)
        self._end_doubt(plan, report)
        plan.learn(
            ingested,
            sent_seconds=answer.sent_seconds,
            sent_ms=report.sent_ms,
            now_seconds=now,
            kind=kind,
        )
        if ingested.suspect_open_ms is not None:
            plan.mark_suspect(ingested.suspect_open_ms, self._time.earliest_ms(now) + self._cadence.settle_ms)
        plan.missing_range_ms = ingested.newest_missing_ms
        if ingested.conflicts:
            self._log.warning("%s: stream and REST differ in %d rows", plan.symbol, ingested.conflicts)
        if ingested.holes:
            self._absences.confirmed(plan.symbol, now)
            self._log.info(
                "%s: two answers had no row for %d candles; they count as holes", plan.symbol, ingested.holes
            )
        if kind is Kind.ABSENCE and ingested.closed:
            self._log.info("%s: %d candles arrived late and fill their holes", plan.symbol, ingested.closed)
        elif ingested.corrected:
            self._log.info("%s: the exchange corrected %d closed candles", plan.symbol, ingested.corrected)
        if ingested.beyond and now >= self._time.measured_seconds + BEYOND_SECONDS:
            self._bring_forward(self._measure, now)
        if ingested.refused > ingested.beyond:
            self._log.warning("%s: %d rows have impossible values and were left out", plan.symbol, ingested.refused)

    def _judge_silence(self, plan: SeriesPlan, ingested: Ingested, kind: Kind, now: float) -> None:
        """Tell honest silence from a mute stream: by whether an answer had something to say that was not pushed."""
        stream = self._stream
        if stream is None or kind is not Kind.TAIL or not plan.is_streamed or not plan.loaded:
            return
        if ingested.changed:
            plan.quiet = 0
            stream.suspect(plan.symbol)
        elif stream.rules.on_change and plan.heard_seconds > -math.inf:
            plan.quiet = min(QUIET_MAX, plan.quiet + 1)

    def _end_doubt(self, plan: SeriesPlan, report: Report) -> None:
        """Let a doubt end with an answer that holds the rows in question and was asked for late enough."""
        request = report.job.request
        if plan.suspect_ms is None or request is None or report.sent_ms < plan.suspect_since_ms:
            return
        if request.end_ms is not None:
            newest_ms = latest_ms = request.end_ms
        else:
            # The answer ended somewhere between these two.
            newest_ms, latest_ms = report.sent_ms, report.received_ms
        oldest_ms = latest_ms - (request.limit - 1) * INTERVAL_MS[request.interval]
        if oldest_ms <= plan.suspect_ms <= newest_ms:
            plan.suspect_ms = None

    def _take_time(self, answer: Response, server_ms: int) -> None:
        measured = ExchangeTime.measured(answer.sent_seconds, answer.received_seconds, server_ms)
        believed = self._time.overlaps(measured) or (self._suspected is not None and self._suspected.overlaps(measured))
        if not believed:
            # One server may be wrong, so a clock that was set is believed when the next answer says the same.
            self._suspected = measured
            self._distrust_time("serverTime contradicts what was measured before", answer.received_seconds)
            raise BadResponse(f"serverTime contradicts what was measured before: `{server_ms}`", status=answer.status)
        self._suspected = None
        if not self._time.overlaps(measured):
            self._ingest.restart_time(answer.received_seconds)
        self._time = self._ingest.exchange_time = self._time.refined(measured)
        self._dates_count = self._time.agrees_with(answer.date_ms, answer.sent_seconds, answer.received_seconds)
        self._upkeep_first = False
        self._compare_clocks(answer.received_seconds)
        self._measure.due_seconds = answer.received_seconds + MEASURE_SECONDS
        for plan in self._roster.plans.values():
            # Closing turns were planned by the older measurement.
            if plan.turns:
                self._replan(plan, answer.received_seconds)

    def _take_info(self, info: ExchangeInfo, now: float) -> None:
        lagging = self._laggards.since_seconds
        reason, is_believed = self._listing.judge(
            self._roster.info,
            info,
            lagging=lagging,
            going_on={plan.symbol for plan in self._roster.plans.values() if plan.trading} - lagging.keys(),
            now_seconds=now,
        )
        if not is_believed:
            self._log.warning("%s; the list is not used, and is requested again in %.0f s", reason, DOUBTED_SECONDS)
            return
        if reason is not None:
            self._log.warning("%s; the list is used now: the exchange repeated it, or candles confirm it", reason)
        if info.weight_limit is not None:
            self._budget.set_limit(info.weight_limit, info.window_seconds, now)
        self._roster.info = info
        self._align(now)

    def _take_wishes(self, now: float) -> None:
        """Follow symbols that were added or removed by hand; the newest list may not have a new one yet."""
        for symbol in self._universe.unlisted(self._roster.info):
            self._log.warning(
                "%s: not listed; it is added once the exchange lists it%s", symbol, nearest(symbol, self._roster.info)
            )
            self._listing.wish()
        self._align(now)

    def _align(self, now: float) -> None:
        fresh = self._roster.align(now, self._time.earliest_ms(now))
        if self._stream is not None:
            trading = [symbol for symbol, plan in self._roster.plans.items() if plan.trading]
            self._stream.follow(trading)
            for plan in fresh:
                plan.is_streamed = plan.symbol in self._stream.covered
        for plan in fresh:
            self._absences.suspect(plan.symbol, now)
            self._replan(plan, now)
        self._publish_status(now)

    def _take_error(self, job: Job, error: BaseException, now: float) -> None:
        self._errors[type(error).__name__] += 1
        if not isinstance(error, Exception):
            raise error
        if isinstance(error, RateLimited):
            if self._budget.blocked_until_seconds < now:
                self._bans += isinstance(error, Banned)
                self._log.warning("%s; no requests for %.0f s", error, error.retry_after)
            self._budget.stop(error.retry_after, now)
            if job.maintenance is not None:
                job.maintenance.due_seconds = now
            if job.plan is not None:
                job.plan.fail(refused=False)
                job.plan.retry_seconds = now + error.retry_after + limited_delay_seconds(job.plan)
            return
        if isinstance(error, ExchangeUnavailable):
            self._silent += 1
            self._silent_of.add("" if job.plan is None else job.plan.symbol)
        if job.maintenance is not None:
            job.maintenance.failures += 1
            delay_seconds = self._backoff.delay_seconds(job.maintenance.failures, self._random)
            job.maintenance.due_seconds = now + delay_seconds
            line = f"{error}; failure {job.maintenance.failures}, next try in {delay_seconds:.1f} s"
            self._outage.failed(error, line if is_telling(job.maintenance.failures) else None)
        if job.plan is not None and self._is_carried(job.plan):
            self._fail(job.plan, error, now)

    def _fail(self, plan: SeriesPlan, error: Exception, now: float) -> None:
        # Memory that was short may be there a moment later.
        is_refused = not isinstance(error, ExchangeUnavailable | BadResponse | MemoryError)
        plan.fail(refused=is_refused)
        if is_refused:
            delay_seconds = refused_delay_seconds(plan)
            # Perhaps delisted, perhaps a mistake of the exchange: its own list decides.
            self._listing.wish()
            self._roster.drop_unlisted(plan)
        else:
            delay_seconds = self._backoff.delay_seconds(plan.failures, self._random)
        plan.retry_seconds = now + delay_seconds
        if not isinstance(error, ExchangeError):
            # A fault of our own has a trace, and is no outage.
            if is_telling(plan.failures):
                text = "%s: %s; failure %d, next try in %.1f s"
                self._log.warning(text, plan.symbol, error, plan.failures, delay_seconds, exc_info=error)
            return
        line = f"{plan.symbol}: {error}; failure {plan.failures}, next try in {delay_seconds:.1f} s"
        self._outage.failed(error, line if is_telling(plan.failures) else None)

    def _end_silence(self, now: float) -> None:
        """After an outage of the exchange, or of the way to it, ask everything at once that waits for a retry."""
        plans = self._roster.plans.values()
        # One symbol that fails alone is no outage, and what was refused for good did not fail by one.
        if self._silent >= max(FAILURES_MAX, self._workers) and len(self._silent_of) >= min(2, len(plans)):
            for plan in plans:
                if not plan.refused:
                    plan.retry_seconds = min(plan.retry_seconds, now)
                if plan.turns:
                    self._replan(plan, now)
        self._silent = 0
        self._silent_of.clear()

    # The exchange's time, plans, status.

    def _distrust_time(self, reason: str, now: float) -> None:
        if not self._upkeep_first:
            self._log.warning("%s; the exchange's clock is measured before any other request", reason)
            self._upkeep_first = True
            self._bring_forward(self._measure, now)

    def _bring_forward(self, upkeep: MaintenanceRequest, now: float) -> None:
        upkeep.due_seconds = min(upkeep.due_seconds, now)
        self._again_seconds = -math.inf

    def _is_carried(self, plan: SeriesPlan) -> bool:
        """Say whether a plan is still the one of its series: it ends with a removal, and with the block."""
        return self._roster.plans.get(plan.symbol) is plan

    def _replan(self, plan: SeriesPlan, now: float) -> None:
        plan.turns = next_turns(plan, self._cadence, now, self._time.earliest_ms(now))
        self._look_again(min((turn.due_seconds for turn in plan.turns), default=math.inf))

    def _look_again(self, due_seconds: float) -> None:
        """See to it that we look at `due_seconds` at the latest.

        While every fetcher is at work, or weight is waited for, the next report or heartbeat makes us look: to name a
        later moment would put that off.
        """
        if self._again_seconds < math.inf:
            self._again_seconds = min(self._again_seconds, due_seconds)

    def _publish_status(self, now: float) -> None:
        status = self._status = self._snapshot(now)
        plans = self._roster.plans
        self._standing.tell(frozenset(symbol for symbol, plan in plans.items() if plan.trading))
        self._tell(status, now)
        closing_weight = closing_weight_of(status.loaded, self._exchange, self._cadence, self._budget.window_seconds)
        self._budget.reserve(closing_weight, now)
        self._writer.set_health(
            ready=status.is_loaded,
            weight_used=status.weight_used,
            weight_limit=status.weight_limit,
            banned_until_ms=status.banned_until_ms,
        )

    def _tell(self, status: CollectorStatus, now: float) -> None:
        """Say what has lasted: an outage or its end, and another source of live candles."""
        trading = sum(plan.trading for plan in self._roster.plans.values())
        is_loaded = self._loaded.is_set()
        for line in self._outage.look(len(status.failing), trading, status.freshness, now, is_loaded=is_loaded):
            self._log.warning("%s", line)
        live = status.live
        if live == "ws+rest" and status.polled <= max(1, trading // LIVE_PART):
            live = "ws"
        if self._live.becomes(live, now):
            self._log.info("source of live candles: %s; %d symbols by REST requests", status.live, status.polled)

    def _compare_clocks(self, now: float) -> None:
        """Say how far the machine's clock is off; no candle depends on it, but times in logs do."""
        exchange_ms = (self._time.earliest_ms(now) + self._time.latest_ms(now)) // 2
        off_ms = self._clock.epoch_ms() - exchange_ms
        if abs(off_ms) <= CLOCK_OFF_MS + self._time.error_ms(now):
            off_ms = 0
        if abs(off_ms - self._clock_said_ms) <= CLOCK_OFF_MS:
            return
        self._clock_said_ms = off_ms
        if off_ms:
            text = "this machine's clock is %.1f s %s the exchange's; this affects only times in logs, not candles"
            self._log.warning(text, abs(off_ms) / 1000, "ahead of" if off_ms > 0 else "behind")
        else:
            self._log.info("this machine's clock agrees with that of the exchange again")

    def _snapshot(self, now: float) -> CollectorStatus:
        plans = self._roster.plans.values()
        blocked_seconds = self._budget.blocked_until_seconds
        return CollectorStatus(
            symbols=len(plans),
            loaded=sum(plan.loaded for plan in plans),
            failing={plan.symbol: plan.failures for plan in plans if plan.failures},
            rows=self._rows,
            missing=sum(plan.missing if plan.tail_sent_ms else self._cadence.length for plan in plans),
            requests=self._requests,
            errors=dict(self._errors),
            weight_spent=self._weight,
            weight_used=self._budget.used(now),
            weight_limit=self._budget.limit,
            banned_until_ms=self._time.latest_ms(blocked_seconds) if blocked_seconds > now else None,
            clock_error_ms=self._time.error_ms(now),
            elapsed_seconds=now - self._started_seconds,
            bans=self._bans,
            ingests=self._ingests,
            ingest_seconds=self._ingest_seconds,
            corrections=self._corrections,
            refused=self._refused,
            holes=self._holes,
            not_trading=self._roster.not_trading,
            given_up=tuple(plan.symbol for plan in plans if plan.given_up),
            silent=tuple(sorted(self._laggards.silent)),
            stream=self._stream.status if self._stream is not None else None,
            polled=sum(self._is_polled(plan, now) for plan in plans),
            verified=self._verified,
            conflicts=self._conflicts,
            audits=self._audits,
            audit_rows=dict(self._audit_rows),
            standing=self._standing.symbols,
            freshness=self._freshness(),
        )

    def _freshness(self) -> Freshness:
        """Judge the age of the data; between two answers of a feed that asks seldom nothing is stale."""
        pause_seconds = 2 * self._cadence.update_interval_seconds
        return Freshness.of(self._writer.trading_ages(), max(freshness.STALE_SECONDS, pause_seconds))

    def _is_polled(self, plan: SeriesPlan, now: float) -> bool:
        """Say whether REST keeps a series fresh."""
        silence_seconds = silence_of(plan, self._cadence) + self._cadence.update_interval_seconds
        return plan.trading and not (plan.is_streamed and now - plan.heard_seconds < silence_seconds)
