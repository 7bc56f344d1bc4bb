"""Failed requests: when they are repeated, when a series is given up for now, and what is logged."""

from __future__ import annotations

import logging
from random import Random

from candleshm.collector.counters import RequestCounters
from candleshm.collector.loading import FAILURES_MAX, gives_up, limited_delay_seconds, refused_delay_seconds
from candleshm.collector.older_rows import OlderRows
from candleshm.collector.outage import Outage
from candleshm.collector.recording import Recording
from candleshm.collector.series_plan import SeriesPlan
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import Job
from candleshm.errors import BadResponse, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.system.block_log import BlockLog, is_worth_logging
from candleshm.system.log_text import without_credentials

__all__ = ["Failures"]

logger = logging.getLogger(__name__)


class Failures:
    """Judges failed requests. Belongs to the loop."""

    def __init__(
        self,
        *,
        block_name: str,
        older_rows: OlderRows,
        symbols: SymbolSet,
        budget: WeightBudget,
        random: Random,
        counters: RequestCounters,
        tries_max: int,
        workers: int,
        recording: Recording,
    ) -> None:
        """`tries_max` is how many requests a first load may take."""
        self._log = BlockLog(logger, block_name)
        self._older_rows = older_rows
        self._symbols = symbols
        self._budget = budget
        self._random = random
        self._counters = counters
        self._tries_max = tries_max
        self._workers = workers
        self._recording = recording
        self._backoff = Backoff()
        self._unusable = 0  # requests in a row without a usable response, whatever the symbol
        self._unusable_symbols: set[str] = set()
        self.outage = Outage()

    def take(self, job: Job, error: BaseException, now: float) -> bool:
        """Take an error in; return whether the list of symbols may explain it. Raises what is not an Exception."""
        self._counters.failed(type(error).__name__, without_credentials(str(error)), now)
        if not isinstance(error, Exception):
            raise error
        if job.older is not None:
            self._older_rows.fail(job.older, error, now)
        if isinstance(error, RateLimited):
            self._stop_pool(job, error, now)
            return False
        if isinstance(error, ExchangeUnavailable):
            self._unusable += 1
            self._unusable_symbols.add("" if job.plan is None else job.plan.symbol)
        if job.maintenance is not None:
            job.maintenance.failures += 1
            delay_seconds = self._backoff.delay_seconds(job.maintenance.failures, self._random)
            job.maintenance.due_seconds = now + delay_seconds
            line = f"{error}; failure {job.maintenance.failures}, next try in {delay_seconds:.1f} s"
            self.outage.failed(error, line if is_worth_logging(job.maintenance.failures) else None)
        if job.plan is not None and self._symbols.has(job.plan):
            return self._fail(job.plan, error, now)
        return False

    def recovered(self, plan: SeriesPlan) -> None:
        """Log that requests for a series succeed again, if their failures were logged."""
        if plan.failures >= FAILURES_MAX and not self.outage.is_on:
            self._log.info("%s: requests succeed again after %d failures", plan.symbol, plan.failures)

    def give_up(self, plan: SeriesPlan, error: BaseException | None) -> None:
        """Have nothing wait any longer for a series that cannot be loaded; `error` is that of its newest request."""
        if error is not None:
            self._recording.note_failure(plan)
        reason = gives_up(plan, self._tries_max)
        if reason is not None:
            detail = "" if error is None else f": {error}"
            if not self.outage.is_on:
                self._log.error("%s: given up for now: %s%s; retried at growing intervals", plan.symbol, reason, detail)

    def end_outage(self, now: float) -> list[SeriesPlan]:
        """Note a usable response; return the plans that are retried at once, because it has ended an outage."""
        plans = list(self._symbols.plans.values())
        # One symbol that fails alone is no outage, and a request that is always refused did not fail because of one.
        is_outage = self._unusable >= max(FAILURES_MAX, self._workers)
        has_ended = is_outage and len(self._unusable_symbols) >= min(2, len(plans))
        self._unusable = 0
        self._unusable_symbols.clear()
        if not has_ended:
            return []
        for plan in plans:
            if not plan.refused:
                plan.retry_seconds = min(plan.retry_seconds, now)
        return plans

    def _stop_pool(self, job: Job, error: RateLimited, now: float) -> None:
        if self._budget.blocked_until_seconds < now:
            self._counters.bans += isinstance(error, Banned)
            self._log.warning("%s; no requests for %.0f s", error, error.retry_after)
        self._budget.stop(error.retry_after, now)
        if job.maintenance is not None:
            job.maintenance.due_seconds = now
        if job.plan is not None:
            job.plan.fail(refused=False)
            job.plan.retry_seconds = now + error.retry_after + limited_delay_seconds(job.plan)

    def _fail(self, plan: SeriesPlan, error: Exception, now: float) -> bool:
        # Memory that was short may be there a moment later.
        is_refused = not isinstance(error, ExchangeUnavailable | BadResponse | MemoryError)
        plan.fail(refused=is_refused)
        if is_refused:
            # Perhaps delisted, perhaps a mistake of the exchange: its own list decides.
            delay_seconds = refused_delay_seconds(plan)
            self._symbols.drop_unlisted(plan)
        else:
            delay_seconds = self._backoff.delay_seconds(plan.failures, self._random)
        plan.retry_seconds = now + delay_seconds
        if isinstance(error, ExchangeError):
            line = f"{plan.symbol}: {error}; failure {plan.failures}, next try in {delay_seconds:.1f} s"
            self.outage.failed(error, line if is_worth_logging(plan.failures) else None)
        elif is_worth_logging(plan.failures):
            # A fault of our own has a trace, and is no outage.
            text = "%s: %s; failure %d, next try in %.1f s"
            self._log.warning(text, plan.symbol, error, plan.failures, delay_seconds, exc_info=error)
        return is_refused
