"""The series that a collector carries: places in the block, and a plan for each that is asked for."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from candleshm.blocklog import BlockLog
from candleshm.errors import SegmentUnavailable
from candleshm.exchanges.base import ExchangeInfo
from candleshm.fetchers import newest_missing_ms
from candleshm.planner import Kind, SeriesPlan
from candleshm.universe import Universe

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Roster"]

JITTER_SECONDS = 0.1


class Roster:
    """Follows the universe: newcomers get a place and a plan, what ended keeps its place. Belongs to the loop."""

    def __init__(self, writer: Writer, universe: Universe, info: ExchangeInfo, random: Random) -> None:
        self._log = BlockLog(writer.name)
        self._writer = writer
        self.info = info
        self.plans: dict[str, SeriesPlan] = {}
        self.symbols: tuple[str, ...] = writer.symbols
        """The symbols of the block, in its order."""
        self._universe = universe
        self._random = random
        self._not_trading: dict[str, None] = {}

    @property
    def not_trading(self) -> tuple[str, ...]:
        """Symbols of the block that are delisted, halted or removed."""
        return tuple(self._not_trading)

    def align(self) -> list[SeriesPlan]:
        """Bring block and plans in line with `info` and the universe; return the plans that are new."""
        newcomers = self._seat()
        if newcomers:
            self._log.info("now carried: %s", " ".join(newcomers))
        fresh, ended = [], []
        self.symbols = self._writer.symbols
        for symbol in self.symbols:
            trades = self.info.is_trading(symbol) and not self._universe.is_removed(symbol)
            if trades == (symbol in self._not_trading):
                self._writer.set_trading(symbol, trades)
            if trades:
                self._not_trading.pop(symbol, None)
            elif symbol not in self._not_trading:
                self._not_trading[symbol] = None
                ended.append(symbol)
            plan = self.plans.get(symbol)
            if symbol not in self.info.statuses or self._universe.is_removed(symbol):
                self.plans.pop(symbol, None)
            elif plan is None or (trades and not plan.trading):
                plan = self.plans[symbol] = self._new_plan(symbol, trading=trades)
                fresh.append(plan)
            elif not trades:
                # What is missing is still loaded, but nothing new is asked for.
                plan.trading = False
                plan.turns = tuple(turn for turn in plan.turns if turn.kind is Kind.BACKFILL)
        if ended:
            self._log.warning("not trading: %s; rows stay, none are kept fresh", " ".join(ended))
        return fresh

    def _seat(self) -> list[str]:
        """Give the newcomers places, in a larger block when this one is full, and return them."""
        carried = set(self._writer.symbols)
        newcomers = [symbol for symbol in self._universe.wanted(self.info) if symbol not in carried]
        if len(carried) + len(newcomers) <= self._writer.symbol_capacity:
            for symbol in newcomers:
                self._writer.add_symbol(symbol)
            return newcomers
        try:
            spare_symbols = max(self._writer.symbol_capacity - len(carried), len(newcomers))
            self._writer.enlarge([*self._writer.symbols, *newcomers], spare_symbols)
        except SegmentUnavailable as error:
            room = newcomers[: self._writer.symbol_capacity - len(carried)]
            self._log.error("left out: %s; %s", " ".join(newcomers[len(room) :]), error)
            for symbol in room:
                self._writer.add_symbol(symbol)
            return room
        self._log.info("the block was full: a larger one with the same rows takes its place, and readers follow")
        return newcomers

    def _new_plan(self, symbol: str, *, trading: bool) -> SeriesPlan:
        state = self._writer.state(symbol)
        return SeriesPlan(
            symbol,
            newest_open_ms=state.newest_open_ms,
            unsettled_open_ms=state.unsettled_open_ms,
            missing=state.missing,
            missing_range_ms=newest_missing_ms(self._writer, symbol),
            trading=trading,
            jitter_seconds=self._random.random() * JITTER_SECONDS,
        )
