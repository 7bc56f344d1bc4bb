"""The calendars of a block: what a continuous contract stands for, and the sessions of TradFi perpetuals."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from candleshm.collector.sessions import NO_TRADING, Sessions
from candleshm.collector.symbols import SymbolSet
from candleshm.collector.workers import MaintenanceRequest
from candleshm.exchanges.base import Exchange, ListedContract, Response, ScheduledSession
from candleshm.exchanges.continuous import NEVER_MS, contract_name, is_continuous, parts_of, roll_before_ms
from candleshm.reader.sessions import ANOTHER, SESSION_KINDS
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Calendars"]

logger = logging.getLogger(__name__)

MINUTE_MS = 60_000
# The schedule has a week from the day before on; holidays are announced sooner.
SCHEDULE_SECONDS = 3600.0
RETRY_SECONDS = 60.0


class Calendars:
    """Keeps the calendars of a block, and what plans need of them. Belongs to the loop; local seconds."""

    def __init__(
        self,
        writer: Writer,
        *,
        exchange: Exchange,
        symbols: SymbolSet,
        schedule: Mapping[str, tuple[ScheduledSession, ...]],
        now: float,
    ) -> None:
        self._log = BlockLog(logger, writer.name)
        self._writer = writer
        self._exchange = exchange
        self._symbols = symbols
        self._sessions = Sessions()
        self._sessions.take(schedule)
        self._shown: dict[str, tuple[int, int, int]] = {}
        self._logged: dict[str, ScheduledSession | None] = {}
        self._is_known = bool(schedule)
        self._asked_seconds = now
        self.request = MaintenanceRequest(exchange.schedule_url, exchange.schedule_weight)

    def take(self, response: Response, now: float) -> None:
        """Take a schedule in. Raises BadResponse."""
        self._sessions.take(self._exchange.schedule(response))
        self._is_known = True
        self._asked_seconds = now

    def failed(self, now: float) -> None:
        """Have a schedule that could not be read requested again: less and less often, for a host may not have it."""
        self.request.due_seconds = now + min(SCHEDULE_SECONDS, RETRY_SECONDS * 2.0 ** min(self.request.failures, 16))

    def look(self, now: float, now_ms: int) -> None:
        """Bring calendars and plans in line with the exchange's list, and its clock, which has reached `now_ms`."""
        info = self._symbols.info
        markets: dict[str, list[str]] = {}
        for symbol in self._symbols.symbols:
            hours = info.hours.get(info.listed_as(symbol))
            if hours is not None:
                markets.setdefault(hours, []).append(symbol)
            elif is_continuous(symbol) and (contract := info.continuous.get(symbol)) is not None:
                self._show_contract(symbol, contract, now_ms)
        for hours, symbols in markets.items():
            self._show_session(hours, symbols, now_ms)
        if markets and self._exchange.schedule_url and not self.request.failures:
            self.request.due_seconds = self._asked_seconds + (SCHEDULE_SECONDS if self._is_known else 0.0)
        elif not markets:
            self.request.due_seconds = math.inf

    def forget(self) -> None:
        """Show every calendar again: other hosts may have shown others meanwhile."""
        self._shown.clear()

    def sent(self, now: float) -> None:
        """Note that a request for the schedule leaves."""
        self._asked_seconds = now
        self._is_known = True

    def quiet_ms(self, symbol: str) -> list[tuple[int, int]]:
        """Return when the market of a symbol does not trade, as half-open ranges in order."""
        info = self._symbols.info
        market = self._sessions.name_of(info.hours.get(info.listed_as(symbol), ""))
        return [] if market is None else self._sessions.quiet_ms(market)

    def delivered_seconds(self, now: float, now_ms: int) -> Iterator[float]:
        """Yield since when each contract is delivered that a continuous contract still stands for."""
        for symbol in filter(is_continuous, self._symbols.symbols):
            contract = self._symbols.info.continuous.get(symbol)
            if contract is not None and 0 < contract.delivery_ms <= now_ms:
                yield now - (now_ms - contract.delivery_ms) / 1000

    def _show_contract(self, symbol: str, contract: ListedContract, now_ms: int) -> None:
        pair, kind = parts_of(symbol)
        delivered = contract.delivery_ms // MINUTE_MS
        if self._shown.get(symbol, (0, -1, 0))[1] == delivered:
            return
        known_roll, known_delivered = self._writer.calendar(symbol)
        rolled = known_roll
        if not (known_roll and known_delivered == delivered):
            rolls = [(roll_before_ms(kind, contract.delivery_ms) or 0) // MINUTE_MS]
            if known_delivered not in (0, delivered):
                # A contract that was not delivered yet is the other quarter's now.
                rolls.append(known_delivered if known_delivered * MINUTE_MS <= now_ms else 0)
            rolled = max(rolls)
            if not rolled and known_delivered not in (0, delivered):
                rolled = now_ms // MINUTE_MS
        if known_delivered not in (0, delivered) and known_delivered * MINUTE_MS < NEVER_MS:
            self._log.info(
                "%s rolled at %s: it was %s and is %s now",
                symbol,
                _utc(rolled * MINUTE_MS),
                contract_name(self._exchange.market, pair, known_delivered * MINUTE_MS),
                contract.symbol,
            )
        self._show(symbol, rolled, delivered, 0)

    def _show_session(self, hours: str, symbols: list[str], now_ms: int) -> None:
        market = self._sessions.name_of(hours)
        session = None if market is None else self._sessions.at(market, now_ms)
        quiet_until_ms = 0 if market is None else self._sessions.quiet_until_ms(market, now_ms)
        if self._logged.get(hours) != session:
            was_quiet = (before := self._logged.get(hours)) is not None and before.kind == NO_TRADING
            self._logged[hours] = session
            names = " ".join(symbols)
            if session is not None and session.kind == NO_TRADING:
                text = "%s does not trade until %s: candles of %s are flat or absent until then"
                self._log.info(text, hours, _utc(quiet_until_ms), names)
            elif was_quiet:
                self._log.info("%s trades again: candles of %s are awaited", hours, names)
        minutes, code = 0, 0
        if session is not None:
            minutes = session.end_ms // MINUTE_MS
            code = SESSION_KINDS.index(session.kind) + 1 if session.kind in SESSION_KINDS else ANOTHER
        for symbol in symbols:
            plan = self._symbols.plans.get(symbol)
            if plan is not None:
                plan.quiet_until_ms = quiet_until_ms
            self._show(symbol, minutes, code, quiet_until_ms)

    def _show(self, symbol: str, low: int, high: int, quiet_until_ms: int) -> None:
        if self._shown.get(symbol) != (low, high, quiet_until_ms):
            self._writer.set_calendar(symbol, low, high, quiet_until_ms)
            self._shown[symbol] = (low, high, quiet_until_ms)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M} UTC"
