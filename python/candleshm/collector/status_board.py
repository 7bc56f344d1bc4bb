"""The status of a collector: taken once a second, published in the block, and logged where it has lasted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.counters import RequestCounters, RowCounters
from candleshm.collector.failover import Failover
from candleshm.collector.failures import Failures
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.outage import Steady
from candleshm.collector.outdated_responses import OutdatedResponses
from candleshm.collector.planner import closing_weight_of, loading_weight_of
from candleshm.collector.recording import Recording
from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.status import CollectorStatus
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.universe_refresh import UniverseRefresh
from candleshm.exchanges.base import Exchange
from candleshm.ratelimit.budget import WeightBudget
from candleshm.reader import freshness
from candleshm.reader.freshness import Freshness
from candleshm.reader.health import ERROR_KINDS
from candleshm.system.block_log import BlockLog
from candleshm.system.log_text import counted

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["StatusBoard", "StatusSources"]

logger = logging.getLogger(__name__)

# The source of live candles is logged once it has been the same for so long; one symbol in ten by REST is no news.
LIVE_SECONDS, LIVE_PART = 20.0, 10
# Weight flows in evenly, so a start always waits for a moment.
WAIT_SECONDS_MIN = 5.0


@dataclass(frozen=True, slots=True)
class StatusSources:
    """The parts of a collector that its status is made of."""

    writer: Writer
    exchange: Exchange
    policy: PollPolicy
    budget: WeightBudget
    symbols: SymbolSet
    clock_sync: ClockSync
    refresh: UniverseRefresh
    repair: Repair
    older_rows: OlderRows
    failover: Failover
    failures: Failures
    outdated: OutdatedResponses
    requests: RequestCounters
    rows: RowCounters
    recording: Recording


class StatusBoard:
    """Holds the newest status. `publish` belongs to the loop; `status` may be read from any thread."""

    def __init__(self, sources: StatusSources, now: float) -> None:
        self._sources = sources
        self._log = BlockLog(logger, sources.writer.name)
        self._started_seconds = now
        self._live = Steady("rest", LIVE_SECONDS)
        self.taken_seconds = now
        """When `status` was taken, local seconds."""
        self.is_outdated = False
        """Whether a response was taken in since."""
        self.is_wished = False
        """Whether somebody waits for a newer status; may be set from any thread."""
        self.status = self._snapshot(now)

    def publish(self, now: float, *, is_loaded: bool) -> CollectorStatus:
        """Take the status, log what has lasted, and publish the health in the block."""
        self._sources.recording.look(now)
        self.is_outdated = self.is_wished = False
        sources, status = self._sources, self._snapshot(now)
        self.status, self.taken_seconds = status, now
        plans = sources.symbols.plans
        trading = frozenset(symbol for symbol, plan in plans.items() if plan.trading)
        sources.outdated.report(trading)
        failing = len(status.failing)
        for line in sources.failures.outage.look(failing, len(trading), status.freshness, now, is_loaded=is_loaded):
            self._log.warning("%s", line)
        live = "ws" if status.live == "ws+rest" and status.polled <= max(1, len(trading) // LIVE_PART) else status.live
        if self._live.becomes(live, now):
            self._log.info(
                "source of live candles: %s; %s by REST requests", status.live, counted(status.polled, "symbol")
            )
        window_seconds = sources.budget.window_seconds
        closing_weight = closing_weight_of(status.loaded, sources.exchange, sources.policy, window_seconds)
        sources.budget.reserve(closing_weight, now)
        sources.writer.set_health(
            ready=status.is_loaded,
            weight_used=status.weight_used,
            weight_limit=status.weight_limit,
            banned_until_ms=status.banned_until_ms,
            failing=len(status.failing),
            polled=status.polled,
            last_error=self._newest_error(),
        )
        return status

    def _newest_error(self) -> tuple[int, int]:
        """Return the code of the newest error, and when it came, exchange time; zeroes without one."""
        newest = self._sources.requests.newest_error
        if newest is None:
            return 0, 0
        kind, seconds = newest
        kinds = {name: code for code, name in enumerate(ERROR_KINDS, 1)}
        return kinds.get(kind, len(kinds)), max(0, self._sources.clock_sync.time.latest_ms(seconds))

    def _snapshot(self, now: float) -> CollectorStatus:
        sources = self._sources
        plans, budget, sync = sources.symbols.plans.values(), sources.budget, sources.clock_sync
        requests, rows, audits = sources.requests, sources.rows, sources.repair.audits
        blocked_seconds = budget.blocked_until_seconds
        to_load = sum(loading_weight_of(plan, sources.exchange, sources.policy) for plan in plans)
        wait_seconds = budget.wait_seconds(to_load, now) if to_load else 0.0
        return CollectorStatus(
            symbols=len(plans),
            loaded=sum(plan.loaded for plan in plans),
            failing={plan.symbol: plan.failures for plan in plans if plan.failures},
            rows=rows.changed,
            missing=sum(plan.missing if plan.tail_sent_ms else sources.policy.length for plan in plans),
            requests=requests.requests,
            errors=dict(requests.errors),
            weight_spent=requests.weight,
            weight_used=budget.used(now),
            weight_limit=budget.limit,
            banned_until_ms=sync.time.latest_ms(blocked_seconds) if blocked_seconds > now else None,
            weight_budget=budget.budget,
            wait_seconds=wait_seconds if wait_seconds >= WAIT_SECONDS_MIN else 0.0,
            clock_error_ms=sync.time.error_ms(now),
            local_clock_offset_ms=sync.offset_ms(now),
            elapsed_seconds=now - self._started_seconds,
            newest_error=requests.newest_error_text,
            bans=requests.bans,
            ingests=rows.ingests,
            ingest_seconds=rows.ingest_seconds,
            corrections=rows.corrections,
            refused=rows.refused,
            holes=rows.holes,
            not_trading=sources.symbols.not_trading,
            given_up=tuple(plan.symbol for plan in plans if plan.given_up),
            silent=tuple(sorted(sources.refresh.laggards.silent)),
            stream=sources.failover.stream_status,
            # A stream of a market that does not trade is silent, and nothing is wrong with it.
            by_requests=tuple(
                plan.symbol for plan in plans if not plan.quiet_until_ms and sources.failover.is_polled(plan, now)
            ),
            verified=rows.verified,
            conflicts=rows.conflicts,
            audits=audits.audits,
            audit_rows=audits.rows,
            standing=sources.outdated.symbols,
            is_complete=sources.symbols.selection.is_complete,
            freshness=self._freshness(),
            derived_series=sources.older_rows.blocks * len(plans),
            derived_filled=sum(series.filled for series in sources.older_rows.serieses),
            derived_given_up=sum(series.given_up for series in sources.older_rows.serieses),
            derived_missing=sum(series.rows for series in sources.older_rows.serieses),
            derived_conflicts=sources.older_rows.conflicts,
            records_missing=sources.recording.missing_records,
            recording_fails=sources.recording.fails,
        )

    def _freshness(self) -> Freshness:
        """Judge the age of the data; between two responses of a feed that polls seldom nothing is stale."""
        pause_seconds = 2 * self._sources.policy.update_interval_seconds
        return Freshness.of(self._sources.writer.trading_ages(), max(freshness.STALE_SECONDS, pause_seconds))
