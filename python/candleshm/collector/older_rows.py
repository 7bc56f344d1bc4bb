"""The rows of derived blocks that do not come by derivation: which are requested next, and what responses showed.

They are requested once the source is loaded, and only while nothing of the source is due: they wait for weight behind
everything else. What a series lacks the core decides (`writer/older.rs`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.loading import FAILURES_MAX, IDLE_MAX
from candleshm.collector.older_series import FetchedBlock, OlderSeries
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import Report
from candleshm.errors import RateLimited
from candleshm.exchanges.base import Exchange, KlineRequest
from candleshm.ratelimit.budget import HELD_SECONDS_MAX
from candleshm.stream.repeated_log import RepeatedLog
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["OlderRows"]

logger = logging.getLogger(__name__)

# How often the blocks are looked through for rows to be requested: while they are filled, and later.
LOOK_SECONDS, FILLED_LOOK_SECONDS = 1.0, 5.0

# (request) -> (ticket, seconds to wait until there is weight for it; then nothing was booked)
Claim = Callable[[KlineRequest], tuple[int, float]]
Errand = tuple[OlderSeries, KlineRequest, int]


class OlderRows:
    """Finds older rows to be requested, and takes in what responses show. Belongs to the loop."""

    def __init__(
        self,
        writer: Writer,
        blocks: Sequence[FetchedBlock],
        *,
        exchange: Exchange,
        symbols: SymbolSet,
        clock_sync: ClockSync,
        in_flight_max: int,
    ) -> None:
        """At most `in_flight_max` requests are on their way, so that others find an idle worker."""
        self._writer = writer
        self._exchange = exchange
        self._symbols = symbols
        self._clock_sync = clock_sync
        self._in_flight_max = in_flight_max
        self._logs = {block: RepeatedLog(BlockLog(logger, block.name)) for block in blocks}
        self._series: dict[FetchedBlock, dict[str, OlderSeries]] = {block: {} for block in blocks}
        self._filled: set[FetchedBlock] = set()
        self._look_seconds = -math.inf
        self.conflicts = 0
        """Rows in which the exchange differed from the derivation; the exchange's stands."""

    @property
    def serieses(self) -> list[OlderSeries]:
        """Every derived series whose source is loaded."""
        return [series for of_block in self._series.values() for series in of_block.values()]

    @property
    def blocks(self) -> int:
        """Derived blocks that are filled from the exchange."""
        return len(self._series)

    @property
    def are_filled(self) -> bool:
        """Whether every block is filled now, as far as the exchange has the rows."""
        return len(self._filled) == len(self._series)

    def next(self, now: float, claim: Claim) -> tuple[Errand | None, float]:
        """Return a request that is due and has weight, else when to look again (local seconds)."""
        if not self._series:
            return None, math.inf
        if now >= self._look_seconds:
            self._look()
            self._look_seconds = now + (FILLED_LOOK_SECONDS if self.are_filled else LOOK_SECONDS)
        now_ms = self._clock_sync.earliest_ms(now)
        look_seconds = self._look_seconds
        waiting = [(series.wait_seconds(now, now_ms), series) for series in self.serieses]
        if sum(series.in_flight for _, series in waiting) >= self._in_flight_max:
            return None, look_seconds
        for due_seconds, series in waiting:
            if due_seconds > now:
                look_seconds = min(look_seconds, due_seconds)
                continue
            request = series.request(self._exchange, now_ms)
            if request is None:
                continue
            ticket, wait_seconds = claim(request)
            if wait_seconds > 0:
                return None, min(look_seconds, now + min(wait_seconds, HELD_SECONDS_MAX))
            series.in_flight = True
            return (series, request, ticket), now
        return None, look_seconds

    def take(self, report: Report, now: float) -> None:
        """Take in a response that was merged."""
        series, ingested, older = report.job.older, report.ingested, report.older
        assert series is not None
        series.in_flight = False
        if ingested is None or older is None:
            return
        brought = ingested.closed + ingested.holes + ingested.absent > 0 or older.rows < series.rows
        is_settled = older.rows == 0 and older.suspect_ms is None
        series.no_progress = 0 if brought or is_settled else series.no_progress + 1
        series.failures = 0
        series.older = None if is_settled else older
        series.pause(now)
        self._give_up(series, "its responses do not bring the missing rows")
        if ingested.conflicts:
            self.conflicts += ingested.conflicts
            text = "%s: the exchange has other values than were derived in %d candles; the exchange's are kept"
            self._logs[series.block].write(logging.WARNING, "conflicts", now, text, series.symbol, ingested.conflicts)
        if ingested.refused:
            text = "%s: a response has %d rows with impossible values and was left out"
            self._logs[series.block].write(logging.WARNING, "refused", now, text, series.symbol, ingested.refused)
        if is_settled:
            series.filled, series.given_up = True, False
            self._settle()

    def fail(self, series: OlderSeries, error: BaseException, now: float) -> None:
        """Take in a failed request."""
        series.in_flight = False
        if isinstance(error, RateLimited):
            series.due_seconds = now + error.retry_after
            return
        series.failures += 1
        series.pause(now)
        text = "%s: older rows could not be requested: %s; next try in %.0f s"
        self._logs[series.block].write(
            logging.WARNING, "failed", now, text, series.symbol, error, series.due_seconds - now
        )
        self._give_up(series, "its requests fail")

    def _give_up(self, series: OlderSeries, reason: str) -> None:
        """Have nothing wait any longer for a series that cannot be filled; it is still requested, seldom."""
        is_hopeless = series.failures >= FAILURES_MAX or series.no_progress >= IDLE_MAX
        if is_hopeless and not (series.filled or series.given_up):
            series.given_up = True
            BlockLog(logger, series.block.name).error(
                "%s: not filled for now, %s; retried at growing intervals", series.symbol, reason
            )
            self._settle()

    def _look(self) -> None:
        """Find what the series lack whose source is loaded."""
        plans = self._symbols.plans
        for block, of_block in self._series.items():
            found = self._writer.older(block.name)
            for symbol in [symbol for symbol in of_block if symbol not in plans]:
                del of_block[symbol]
            for symbol, plan in plans.items():
                if not (plan.loaded or plan.given_up):
                    continue
                series = of_block.setdefault(symbol, OlderSeries(block, symbol))
                if not series.in_flight:
                    series.older = found.get(symbol)
                    if series.older is None:
                        series.filled, series.given_up = True, False
        self._settle()

    def _settle(self) -> None:
        """Tell readers which blocks are filled."""
        count = len(self._symbols.plans)
        for block, of_block in self._series.items():
            is_filled = len(of_block) == count and all(series.filled or series.given_up for series in of_block.values())
            if is_filled == (block in self._filled):
                continue
            self._writer.set_filled(block.name, is_filled)
            if not is_filled:
                self._filled.remove(block)
                continue
            self._filled.add(block)
            given_up = " ".join(series.symbol for series in of_block.values() if series.given_up)
            BlockLog(logger, block.name).info(
                "filled: %d symbols%s", count, f"; not filled for now: {given_up}" if given_up else ""
            )
