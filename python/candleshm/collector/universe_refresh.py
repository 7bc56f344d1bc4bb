"""The exchange's list of symbols: when it is requested, whether it is used, and what follows for the symbol set."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from candleshm.collector.calendars import Calendars
from candleshm.collector.laggards import Laggards
from candleshm.collector.listing import SUSPECT_SECONDS, Listing
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import MaintenanceRequest
from candleshm.exchanges.base import Exchange, Response
from candleshm.ratelimit.budget import WeightBudget
from candleshm.system.block_log import BlockLog
from candleshm.universe import Universe

__all__ = ["UniverseRefresh"]

logger = logging.getLogger(__name__)

# How often the symbols with the largest volumes are chosen again.
RANKING_SECONDS = 3600.0


class UniverseRefresh:
    """Keeps the list of symbols current. Belongs to the loop; `changed` may be set from any thread."""

    def __init__(
        self,
        *,
        block_name: str,
        exchange: Exchange,
        budget: WeightBudget,
        universe: Universe,
        symbols: SymbolSet,
        calendars: Calendars,
        policy: PollPolicy,
        refresh_seconds: float,
        now: float,
    ) -> None:
        self._log = BlockLog(logger, block_name)
        self._exchange = exchange
        self._budget = budget
        self._universe = universe
        self._symbols = symbols
        self.calendars = calendars
        self._listing = Listing(refresh_seconds, exchange.info_weight, now)
        self._is_sent = False
        self.laggards = Laggards(policy)
        self.request = MaintenanceRequest(exchange.info_url, exchange.info_weight)
        self.ranking = MaintenanceRequest(exchange.volumes_url, exchange.volumes_weight)
        if universe.is_ranked:
            self.ranking.due_seconds = now + RANKING_SECONDS
        self.changed = threading.Event()
        """Set when symbols were added or removed by hand."""

    def look(self, now: float, now_ms: int) -> None:
        """Bring calendars up to date, find series that stay behind, and request the list sooner if that may help."""
        self.calendars.look(now, now_ms)
        self.laggards.look(self._symbols.plans.values(), now, now_ms)
        self._symbols.set_silent(self.laggards.silent, self.laggards.resting)
        if not self._is_sent and self.request.failures == 0:
            since_seconds = [
                *self.laggards.since_seconds.values(),
                *self._symbols.ended_seconds,
                *self.calendars.delivered_seconds(now, now_ms),
            ]
            self.request.due_seconds = self._listing.due_seconds(
                since_seconds, self._budget.budget, self._budget.window_seconds
            )

    @property
    def due_seconds(self) -> float:
        """When the next of the requests is due, local seconds."""
        return min(self.request.due_seconds, self.ranking.due_seconds, self.calendars.request.due_seconds)

    def sent(self, now: float) -> None:
        """Note that the request leaves."""
        self._is_sent = True
        self._listing.sent(now)

    def ended(self) -> None:
        """Note that the request has a response, or failed."""
        self._is_sent = False

    def wish(self) -> None:
        """Read the list as soon as allowed: a symbol was refused, which it may explain."""
        self._listing.wish()

    def take(self, response: Response, now: float) -> bool:
        """Take a list in; return whether it is used. Raises BadResponse."""
        info = self._exchange.info(response)
        lagging = self.laggards.since_seconds
        reason, is_believed = self._listing.judge(
            self._symbols.info,
            info,
            lagging=lagging,
            going_on={plan.symbol for plan in self._symbols.plans.values() if plan.trading} - lagging.keys(),
            now_seconds=now,
        )
        if not is_believed:
            self._log.warning("%s; the list is not used, and is requested again in %.0f s", reason, SUSPECT_SECONDS)
            return False
        if reason is not None:
            self._log.warning("%s; the list is used now: the exchange repeated it, or candles confirm it", reason)
        if info.weight_limit is not None:
            self._budget.set_limit(info.weight_limit, info.window_seconds, now)
        self._symbols.info = replace(info, volumes=self._symbols.info.volumes)
        return True

    def rank(self, response: Response, now: float) -> None:
        """Take in the volumes by which symbols are chosen. Raises BadResponse."""
        self._symbols.info = replace(self._symbols.info, volumes=self._exchange.volumes(response))
        self.ranking.due_seconds = now + RANKING_SECONDS

    def take_changes(self) -> None:
        """Take in symbols that were added or removed by hand; the newest list may not have a new one yet."""
        self.changed.clear()
        for symbol in self._universe.unlisted(self._symbols.info):
            self._log.warning(
                "%s: not listed; it is added once the exchange lists it%s",
                symbol,
                self._universe.nearest(symbol, self._symbols.info),
            )
            self._listing.wish()
