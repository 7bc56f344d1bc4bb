"""A block as the page shows it: read a little at a time, and told as what changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS
from candleshm.errors import BlockError, ConfigError, UnknownSymbol
from candleshm.reader.events import Event, changes
from candleshm.reader.feed import Feed, attach
from candleshm.reader.figures import kind_of, role_of
from candleshm.reader.freshness import STALE_SECONDS
from candleshm.reader.health import Health
from candleshm.reader.notes import note
from candleshm.reader.observation import Observation, SeriesFacts, attach_to_observe, facts_of

__all__ = ["DELISTED", "WatchedBlock", "absent_row", "is_gone"]

Message = dict[str, Any]

# Beside the states of rows: the symbol does not trade.
DELISTED = 9
# Ages are told as the moment of the last confirmation; one that moved by less is not worth a message.
CONFIRMED_STEP_MS = 500
DAY_MS = 86_400_000
FACTS = (
    *("name", "parent", "market", "interval", "interval_ms", "length", "symbols", "condition", "note", "pid"),
    *("heartbeat_age", "oldest_age", "stale", "missing", "holes", "weight_used", "weight_limit"),
    *("banned_until_ms", "closed_until_ms", "role", "source", "lag", "not_served"),
)


class WatchedBlock:
    """One block and, unless it is derived, its series. Belongs to one thread at a time."""

    def __init__(self, name: str) -> None:
        """Attach. Raises BlockError."""
        self.name = name
        self.feed: Feed = attach(name)
        self.health: Health = self.feed.health
        self._not_served = ""
        self.parent: str | None = None
        self._observed = attach_to_observe(name)
        self._before: Observation | None = None
        self._symbols: tuple[str, ...] = ()
        self._facts: list[SeriesFacts] = []
        self._next_place = 0
        self._close = self._change = self._confirmed_ms = np.empty(0)

    def close(self) -> None:
        """End the use of the block."""
        self.feed.close()
        self._observed.close()

    @property
    def is_base(self) -> bool:
        """Whether its candles are fetched, not derived: then its series are rows of the table."""
        return self.parent is None

    @property
    def interval_ms(self) -> int:
        """Length of a candle; a day for the days of a time zone."""
        return INTERVAL_MS.get(self.feed.interval, DAY_MS)

    def is_parent_of(self, other: WatchedBlock) -> bool:
        """Return whether the other block has the name, the symbols and the process of one derived from this."""
        stem = other.name.removesuffix(f"-{other.feed.interval}")
        return (
            stem != other.name
            and self.name in {stem, f"{stem}-{self.feed.interval}"}
            and (self.feed.market, self.feed.price) == (other.feed.market, other.feed.price)
            and self.interval_ms < other.interval_ms
            and self.health.pid == other.health.pid
        )

    def look(self) -> None:
        """Read the health anew. Raises BlockError."""
        self.health = self.feed.health

    def as_row(self, not_served: str = "") -> Message:
        """Return what the page says about the block and its collector; ages in seconds, null for never.

        `not_served` says why the gateway answers nothing from it, if that is so; of one that has ended it knows that no
        more.
        """
        health = self.health
        if not_served or health.state != "closed":
            self._not_served = not_served
        closed_until_ms = self._before.closed_until_ms if self._before is not None else None
        return {
            "name": self.name,
            "parent": self.parent,
            "market": kind_of(health),
            "interval": health.interval,
            "interval_ms": self.interval_ms,
            "length": health.length,
            "symbols": health.symbols,
            "condition": health.condition,
            "note": note(health),
            "pid": health.pid,
            "heartbeat_age": _finite(health.heartbeat_age),
            "oldest_age": _finite(health.oldest_age),
            "stale": health.stale,
            "missing": health.missing,
            "holes": health.holes,
            "weight_used": health.weight_used,
            "weight_limit": health.weight_limit,
            "banned_until_ms": None if health.banned_until is None else health.banned_until.timestamp() * 1000,
            "closed_until_ms": closed_until_ms,
            "role": role_of(health) or None,
            "source": health.source,
            "lag": health.lag,
            "not_served": self._not_served or None,
        }

    def table(self) -> Message:
        """Return all rows as they were last told."""
        return {
            "k": "table",
            "block": self.name,
            "symbols": self._symbols,
            "close": self._close.tolist(),
            "change": _rounded(self._change),
            "confirmed": _whole(self._confirmed_ms),
            "state": [_state(facts) for facts in self._facts],
            "missing": [facts.missing for facts in self._facts],
            "holes": [facts.holes for facts in self._facts],
            "revision": [facts.revision for facts in self._facts],
        }

    def advance(self, now_ms: float, part: int) -> Message | None:
        """Read prices and ages of all series, and the rest of one in `part` of them; return what changed, if anything.

        A table comes back where the symbols are others than before. Raises BlockError.
        """
        symbols = self._observed.symbols
        if symbols != self._symbols:
            self._begin(symbols, now_ms)
            return self.table()
        close, change, confirmed_ms = self._numbers(now_ms)
        moved = np.flatnonzero(~_same(close, self._close) | ~_same(change, self._change))
        self._close[moved], self._change[moved] = close[moved], change[moved]
        aged = np.flatnonzero(
            (np.abs(confirmed_ms - self._confirmed_ms) >= CONFIRMED_STEP_MS)
            | (np.isnan(confirmed_ms) != np.isnan(self._confirmed_ms))
        )
        self._confirmed_ms[aged] = confirmed_ms[aged]
        others = self._advance_facts(max(1, -(-len(symbols) // part)))
        message: Message = {"k": "rows", "block": self.name}
        if len(moved):
            message["p"] = [moved.tolist(), close[moved].tolist(), _rounded(change[moved])]
        if len(aged):
            message["a"] = [aged.tolist(), _whole(confirmed_ms[aged])]
        if others:
            facts = [self._facts[place] for place in others]
            message["s"] = [
                others,
                [_state(fact) for fact in facts],
                [fact.missing for fact in facts],
                [fact.holes for fact in facts],
                [fact.revision for fact in facts],
            ]
        return message if len(message) > 2 else None

    def events(self) -> list[Event]:
        """Return what changed since the last call."""
        seen = Observation(self.health, self._observed._next_close_ms(None, 1.0), tuple(self._facts))
        before, self._before = self._before, seen
        return [] if before is None else changes(before, seen, STALE_SECONDS)

    def _begin(self, symbols: tuple[str, ...], now_ms: float) -> None:
        self._symbols = symbols
        known = {facts.symbol: facts for facts in self._facts}
        self._facts = [known.get(symbol) or facts_of(self._observed[symbol]) for symbol in symbols]
        self._next_place = 0
        self._close, self._change, self._confirmed_ms = self._numbers(now_ms)

    def _advance_facts(self, count: int) -> list[int]:
        """Read the next `count` series anew, and return the places of those that are not as they were."""
        changed = []
        for place in self._next_places(count):
            before = self._facts[place]
            try:
                facts = facts_of(self._observed[before.symbol])
            except UnknownSymbol:
                continue  # Another block has taken the name; the next look sees its symbols.
            self._facts[place] = facts
            if _told(facts) != _told(before):
                changed.append(place)
        return changed

    def _next_places(self, count: int) -> Iterator[int]:
        first, self._next_place = self._next_place, self._next_place + count
        if self._next_place >= len(self._symbols):
            self._next_place = 0
        return iter(range(first, min(first + count, len(self._symbols))))

    def _numbers(self, now_ms: float) -> tuple[npt.NDArray[np.float64], ...]:
        """Return closes, changes against the candle before, and when each series was confirmed; NaN where unknown."""
        symbols = self._symbols
        ages_ms = np.full(len(symbols), np.inf)
        for place, symbol in enumerate(symbols):
            try:
                ages_ms[place] = self._observed[symbol].age * 1000
            except UnknownSymbol:
                continue
        confirmed_ms = np.where(np.isfinite(ages_ms), np.round(now_ms - ages_ms), np.nan)
        close = np.full(len(symbols), np.nan)
        change = np.full(len(symbols), np.nan)
        newest = self.feed.last("close")
        close[: len(newest)] = newest[: len(symbols)]
        try:
            panel = self._observed.panel("close", n=3, live=True)
        except ConfigError:
            return close, change, confirmed_ms  # The 3d candles of different symbols open on different days.
        if panel.shape[0] == 3:
            before, last, live = panel.array
            last, before = np.where(np.isnan(live), last, live), np.where(np.isnan(live), before, last)
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.where(before > 0, last / before - 1, np.nan)
            places = {symbol: place for place, symbol in enumerate(symbols)}
            for symbol, value in zip(panel.symbols, found.tolist(), strict=True):
                if (at := places.get(symbol)) is not None:
                    change[at] = value
        return close, change, confirmed_ms

    def __repr__(self) -> str:
        return f"<WatchedBlock {self.name}>"


def absent_row(name: str) -> Message:
    """Return what the page says about a block that was named and does not exist."""
    facts = dict.fromkeys(FACTS)
    note = "there is no such block: start its collector, or correct the name after --block"
    return facts | {"name": name, "condition": "absent", "note": note, "market": "", "interval": "", "interval_ms": 0}


def is_gone(block: WatchedBlock) -> bool:
    """Return whether the block can no longer be read at all."""
    try:
        block.look()
    except BlockError:
        return True
    return False


def _told(facts: SeriesFacts) -> tuple[int, int, int, int]:
    return _state(facts), facts.missing, facts.holes, facts.revision


def _state(facts: SeriesFacts) -> int:
    return int(facts.newest_state) if facts.trading else DELISTED


def _same(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _rounded(shares: npt.NDArray[np.float64]) -> list[float]:
    rounded: list[float] = np.round(shares, 6).tolist()
    return rounded


def _whole(values: npt.NDArray[np.float64]) -> list[int | None]:
    return [None if math.isnan(value) else int(value) for value in values.tolist()]


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None
