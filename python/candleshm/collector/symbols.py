"""The series that a collector carries: places in the block, and a plan for each that is requested."""

from __future__ import annotations

import logging
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from candleshm.collector.recording import Recording
from candleshm.collector.selection import Selection
from candleshm.collector.series_plan import SeriesPlan
from candleshm.errors import BlockUnavailable
from candleshm.exchanges.base import ExchangeInfo
from candleshm.system.block_log import BlockLog, is_worth_logging
from candleshm.universe import Universe

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["SymbolSet"]

logger = logging.getLogger(__name__)

JITTER_SECONDS = 0.1
SHOWN_MAX = 20


class SymbolSet:
    """Follows the universe: newcomers get a place and a plan, ended symbols keep their place. Belongs to the loop."""

    def __init__(
        self,
        writer: Writer,
        universe: Universe,
        info: ExchangeInfo,
        random: Random,
        recording: Recording,
        selection: Selection | None = None,
    ) -> None:
        """Without a `selection` every symbol is collected here."""
        self._log = BlockLog(logger, writer.name)
        self._writer = writer
        self.info = info
        self.plans: dict[str, SeriesPlan] = {}
        self._is_shared = selection is not None
        self.selection = selection or Selection()
        self.selection.judge(serves=self._serves, lacks=self._lacks)
        self.symbols: tuple[str, ...] = ()
        """The symbols of the block that are collected here, in its order."""
        self._universe = universe
        self._random = random
        self._recording = recording
        self._not_trading: dict[str, float] = {}
        self._silent: frozenset[str] = frozenset()
        self._resting: frozenset[str] = frozenset()
        self._silences: Counter[str] = Counter()

    @property
    def not_trading(self) -> tuple[str, ...]:
        """Symbols of the block that are delisted, halted or removed."""
        return tuple(self._not_trading)

    @property
    def ended_seconds(self) -> list[float]:
        """When the list first showed each symbol that may trade again as not trading, local seconds."""
        return [
            seconds
            for symbol, seconds in self._not_trading.items()
            if self.info.lists(symbol) and not self._universe.is_removed(symbol, self.info)
        ]

    def align(self, now_seconds: float, now_ms: int) -> list[SeriesPlan]:
        """Bring block and plans in line with `info` and the universe; return the plans that are new, and those that now
        wait for something else. `now_ms` is exchange time.
        """
        newcomers = self._add_listed()
        if newcomers:
            self._log.info("symbols added: %s", " ".join(newcomers))
        changed, ended = [], []
        in_block = self._writer.symbols
        self.symbols = tuple(
            symbol for symbol in in_block if self.selection.collects(symbol) and not self._is_foreign(symbol)
        )
        for symbol in set(in_block) - set(self.symbols):
            self._leave(symbol)
        for symbol in self.symbols:
            trades = self.info.is_trading(symbol) and not self._universe.is_removed(symbol, self.info)
            if trades == (symbol in self._not_trading):
                self._writer.set_trading(symbol, trades)
            if trades:
                self._not_trading.pop(symbol, None)
            elif symbol not in self._not_trading:
                self._not_trading[symbol] = now_seconds
                self._silent -= {symbol}
                self._resting -= {symbol}
                ended.append(symbol)
            plan = self.plans.get(symbol)
            is_listed = self.info.lists(symbol)
            # Of a symbol that is gone from the list the last candle is requested, unless that was refused already.
            is_over = not is_listed and (plan is None or not plan.loaded or plan.refused)
            if is_over or self._universe.is_removed(symbol, self.info):
                self.plans.pop(symbol, None)
            elif plan is None or (trades and not plan.trading):
                plan = self.plans[symbol] = self._new_plan(symbol)
                if not trades:
                    plan.end(now_ms)
                changed.append(plan)
            elif not trades and plan.trading:
                # What is missing is still loaded, and the last candle becomes final; nothing else is requested.
                plan.end(now_ms)
                if plan.tasks:
                    changed.append(plan)
        if ended:
            self._log.warning("not trading: %s; their rows stay readable but are no longer updated", " ".join(ended))
        return changed

    def _serves(self, symbol: str) -> bool:
        return self.info.is_trading(symbol) and not self._universe.is_removed(symbol, self.info)

    def _lacks(self, symbol: str) -> bool:
        return self.info.is_trading(symbol) and self._universe.is_removed(symbol, self.info)

    def _is_foreign(self, symbol: str) -> bool:
        """Return whether only other hosts were told to serve a symbol: that it is not served here does not end it."""
        is_own = symbol in self.plans or symbol in self._not_trading
        return self._is_shared and not is_own and self._lacks(symbol)

    def _leave(self, symbol: str) -> None:
        """Forget a symbol that another host collects: also whether it trades comes from there."""
        self.plans.pop(symbol, None)
        self._not_trading.pop(symbol, None)
        self._silent -= {symbol}
        self._resting -= {symbol}

    def has(self, plan: SeriesPlan) -> bool:
        """Return whether a plan is still that of its series: it ends with a removal, and with the block."""
        return self.plans.get(plan.symbol) is plan

    def drop_unlisted(self, plan: SeriesPlan) -> None:
        """Stop requesting a series that the exchange does not list."""
        if not self.info.lists(plan.symbol) and self.plans.get(plan.symbol) is plan:
            del self.plans[plan.symbol]

    def set_silent(self, silent: frozenset[str], resting: frozenset[str] = frozenset()) -> None:
        """Have closes not wait for these symbols, which trade but have no new candle, and wait for the others again.

        Of those that are `resting` it is expected, and not logged.
        """
        for symbol in resting - self._resting:
            self._writer.set_trading(symbol, trading=True, silent=True)
        for symbol in self._resting - resting - silent:
            self._writer.set_trading(symbol, trading=symbol not in self._not_trading)
        self._resting = resting
        self._set_silent(silent)

    def _set_silent(self, silent: frozenset[str]) -> None:
        for symbols, is_silent in ((silent - self._silent, True), (self._silent - silent, False)):
            for symbol in symbols:
                self._writer.set_trading(symbol, trading=True, silent=is_silent)
                self._silences[symbol] += is_silent
            # A symbol that becomes silent again and again is logged at the 1st, 2nd, 4th, 8th, ... time.
            shown = sorted(symbol for symbol in symbols if is_worth_logging(self._silences[symbol]))
            if shown and is_silent:
                self._log.warning(
                    "no new candles, although the exchange lists them as trading: %s; closes no longer wait for them",
                    _enumerated(shown),
                )
            elif shown:
                self._log.info("new candles again: %s; closes wait for them again", _enumerated(shown))
        self._silent = silent

    def _add_listed(self) -> list[str]:
        """Add the newcomers to the block, a larger one when this one is full, and return them."""
        carried = set(self._writer.symbols)
        wanted = dict.fromkeys([*self._universe.wanted(self.info), *self.selection.carried])
        newcomers = [symbol for symbol in wanted if symbol not in carried]
        if len(carried) + len(newcomers) <= self._writer.symbol_capacity:
            for symbol in newcomers:
                self._writer.add_symbol(symbol)
            return newcomers
        try:
            spare_symbols = max(self._writer.symbol_capacity - len(carried), len(newcomers))
            self._writer.enlarge([*self._writer.symbols, *newcomers], spare_symbols)
        except BlockUnavailable as error:
            room = newcomers[: self._writer.symbol_capacity - len(carried)]
            self._log.error("left out, because the block is full: %s; %s", " ".join(newcomers[len(room) :]), error)
            for symbol in room:
                self._writer.add_symbol(symbol)
            return room
        self._log.info("the block was full; a larger one with the same rows has replaced it, and readers move to it")
        return newcomers

    def _new_plan(self, symbol: str) -> SeriesPlan:
        jitter_seconds = self._random.random() * JITTER_SECONDS
        state = self._writer.state(symbol, self._recording.note_of_plan(symbol, jitter_seconds))
        return SeriesPlan.begun(symbol, state, jitter_seconds)


def _enumerated(symbols: list[str]) -> str:
    more = f" and {len(symbols) - SHOWN_MAX} more" if len(symbols) > SHOWN_MAX else ""
    return " ".join(symbols[:SHOWN_MAX]) + more
