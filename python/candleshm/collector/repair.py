"""Which rows need repair beyond the newest ones: suspect rows, holes that may have been filled, rows due for an audit.

Missing rows are in the plan of their series (`planner`); which rows are holes the core decides (`merge.rs`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import AuditCounters
from candleshm.collector.hole_requests import HoleRequests
from candleshm.collector.planner import page_of
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.collector.symbols import SymbolSet
from candleshm.exchanges.base import INTERVAL_MS, Exchange, KlineRequest
from candleshm.ratelimit.budget import HELD_SECONDS_MAX
from candleshm.stream.repeated_log import RepeatedLog
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Ingested, Writer

__all__ = ["Repair"]

logger = logging.getLogger(__name__)

# Where streams flow, closed rows are checked by one request this often: 12 of SPOT's 6000 weight a minute.
AUDIT_SECONDS = 10.0

# (request) -> (ticket, seconds to wait until there is weight for it; then nothing was booked)
Claim = Callable[[KlineRequest], tuple[int, float]]
# A request with its ticket.
Errand = tuple[SeriesPlan, Kind, KlineRequest, int]


class Repair:
    """Finds rows that need repair, and takes in what responses show about them. Belongs to the loop."""

    def __init__(
        self,
        writer: Writer,
        *,
        exchange: Exchange,
        policy: PollPolicy,
        symbols: SymbolSet,
        clock_sync: ClockSync,
        random: Random,
        now: float,
        quiet_ms: Callable[[str], list[tuple[int, int]]] = lambda _: [],
    ) -> None:
        self._log = BlockLog(logger, writer.name)
        # Where one series has these, often hundreds have them at every close.
        self._repeated_log = RepeatedLog(self._log)
        self._writer = writer
        self._exchange = exchange
        self._policy = policy
        self._symbols = symbols
        self._clock_sync = clock_sync
        self._random = random
        self._hole_requests = HoleRequests(writer, policy.interval, exchange.page_limit, quiet_ms)
        self._audit_seconds = now + AUDIT_SECONDS
        self.audits = AuditCounters()

    def start(self, plan: SeriesPlan, now: float) -> None:
        """Request the holes of a series at once that another collector confirmed, as before a takeover."""
        self._hole_requests.suspect(plan.symbol, now)

    def next(self, now: float, claim: Claim, *, with_audits: bool) -> tuple[Errand | None, float]:
        """Return a repair that is due and has weight, else when the next one is due (local seconds)."""
        if with_audits and self._audit_seconds <= now:
            self._audit_seconds = now + AUDIT_SECONDS
            audit = self._audit(now, claim)
            if audit is not None:
                return audit, now
        if self._hole_requests.due_seconds <= now:
            holes = self._request_holes(now, claim)
            if holes is not None:
                return holes, now
        return None, min(self._hole_requests.due_seconds, self._audit_seconds if with_audits else math.inf)

    def take(self, plan: SeriesPlan, ingested: Ingested, kind: Kind, now: float) -> None:
        """Note what a response repaired, and which holes it left to be requested again."""
        if kind is Kind.AUDIT:
            self.audits.add(ingested)
        if ingested.conflicts:
            text = "%s: stream and REST differ in %d rows"
            self._repeated_log.write(logging.WARNING, "conflicts", now, text, plan.symbol, ingested.conflicts)
        if ingested.holes:
            self._hole_requests.confirmed(plan.symbol, now)
            text = "%s: two responses had no row for %d candles; they count as holes"
            self._log.info(text, plan.symbol, ingested.holes)
        if kind is Kind.HOLE and ingested.closed:
            self._log.info("%s: %d candles arrived late and fill their holes", plan.symbol, ingested.closed)
        elif ingested.corrected:
            text = "%s: the exchange corrected %d closed candles"
            self._repeated_log.write(logging.INFO, "corrected", now, text, plan.symbol, ingested.corrected)
        if ingested.refused > ingested.beyond:
            text = "%s: %d rows have impossible values and were left out"
            self._repeated_log.write(logging.WARNING, "refused", now, text, plan.symbol, ingested.refused)

    def _audit(self, now: float, claim: Claim) -> Errand | None:
        """Check closed rows of some series: alternately the newest ones, and some anywhere in its window."""
        plans = [plan for plan in self._symbols.plans.values() if plan.loaded and plan.tasks and not plan.is_empty]
        if not plans:
            return None
        plan = self._random.choice(plans)
        # An audit leaves out rows that may still be on their way.
        now_ms = self._clock_sync.earliest_ms(now)
        end_ms = newest_ms = now_ms - 2 * INTERVAL_MS[self._policy.interval] - self._policy.late_ms
        if self.audits.audits % 2:
            # A long window reaches to before the calendar begins.
            oldest_ms = max(0, self._writer.window_start_ms(plan.symbol, now_ms))
            end_ms = self._random.randint(min(oldest_ms, newest_ms), newest_ms)
        request = self._exchange.until(plan.symbol, self._policy.interval, self._exchange.tail_limit, end_ms)
        ticket, wait_seconds = claim(request)
        if wait_seconds > 0:
            return None
        self.audits.audits += 1
        return plan, Kind.AUDIT, request, ticket

    def _request_holes(self, now: float, claim: Claim) -> Errand | None:
        """Request holes again."""
        plans = self._symbols.plans
        ready = frozenset(symbol for symbol, plan in plans.items() if plan.trading and plan.tasks)
        page = self._hole_requests.next_page(ready, now)
        if page is None:
            return None
        symbol, range_ms = page
        request = page_of(symbol, range_ms, self._exchange, self._policy, self._clock_sync.earliest_ms(now))
        ticket, wait_seconds = claim(request)
        if wait_seconds > 0:
            # Without end it waits for a response, after which there may be weight at any moment.
            self._hole_requests.postpone(symbol, range_ms, now + min(wait_seconds, HELD_SECONDS_MAX))
            return None
        return plans[symbol], Kind.HOLE, request, ticket
