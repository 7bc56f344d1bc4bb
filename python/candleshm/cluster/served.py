"""What the leader of a shard serves, as its lease says it, and whether another member could lead in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from candleshm._core import shard_of
from candleshm.config import CollectorConfig
from candleshm.ratelimit.pools import exchange_of

if TYPE_CHECKING:
    from candleshm.collector.selection import Selection

__all__ = ["OwnFeed", "Served", "enumerated"]

LOOK_SECONDS = 1.0
SHOWN_MAX = 20


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The candles that a leader serves, and of which symbols of its shard."""

    market: str
    price: str
    interval: str
    exchange: str
    """`binance`, or host:port."""
    symbols: tuple[str, ...] = ()
    """Those that trade."""
    where: str = ""
    """The leader's host and process."""

    @property
    def candles(self) -> str:
        """The candles in words, equal for equal ones.

        >>> Served(market="SPOT", price="trade", interval="1m", exchange="binance").candles
        '1m candles of trade prices of SPOT at binance'
        """
        return f"{self.interval} candles of {self.price} prices of {self.market} at {self.exchange}"


class OwnFeed:
    """What a member serves where it leads. Belongs to the member's thread."""

    def __init__(self, config: CollectorConfig, selection: Selection, *, shards: int, where: str) -> None:
        """`where` names the member's host and process."""
        self._selection = selection
        self._shards = shards
        self._candles = Served(
            market=config.market,
            price=config.price,
            interval=config.interval,
            exchange=exchange_of(config),
            where=where,
        )
        self._symbols: dict[int, tuple[str, ...]] = {}
        self._objections: dict[Served, str | None] = {}
        self._looked_seconds = -math.inf

    def look(self, symbols: Callable[[], Iterable[str]], now: float) -> bool:
        """Look once a second which of the block's `symbols` are served; return whether this was such a look."""
        if now - self._looked_seconds < LOOK_SECONDS:
            return False
        self._looked_seconds = now
        found: dict[int, list[str]] = {}
        for symbol in filter(self._selection.serves, symbols()):
            found.setdefault(shard_of(symbol, self._shards), []).append(symbol)
        self._symbols = {shard: tuple(sorted(names)) for shard, names in found.items()}
        self._objections.clear()
        return True

    def served(self, shard: int) -> Served:
        """Return what this member serves of a shard that it leads, or would."""
        return msgspec.structs.replace(self._candles, symbols=self._symbols.get(shard, ()))

    def objection(self, served: Served | None) -> str | None:
        """Return why this member may not lead a feed that a leader has `served` so, and what to do; None if it may."""
        if served is None:
            return None
        if served not in self._objections:
            self._objections[served] = self._difference(served)
        return self._objections[served]

    def unserved(self, shard: int, served: Served | None) -> list[str]:
        """Return the symbols of a shard that this member would serve, and its leader does not."""
        if served is None or served.candles != self._candles.candles:
            return []
        return sorted(set(self._symbols.get(shard, ())) - set(served.symbols))

    def _difference(self, served: Served) -> str | None:
        if served.candles != self._candles.candles:
            return (
                f"the feed's leader {served.where} serves {served.candles}, and this collector "
                f"{self._candles.candles}; give this one another --name, or the same settings"
            )
        missing = [symbol for symbol in served.symbols if self._selection.lacks(symbol)]
        if missing:
            return (
                f"it lacks {enumerated(missing)}, which the feed's leader {served.where} serves; "
                "give all collectors of a feed the same symbols"
            )
        return None


def enumerated(symbols: list[str]) -> str:
    """Return symbols as words of a message, the first ones of many.

    >>> enumerated(["BTCUSDT", "ETHUSDT"])
    'BTCUSDT ETHUSDT'
    """
    more = f" and {len(symbols) - SHOWN_MAX} more" if len(symbols) > SHOWN_MAX else ""
    return " ".join(symbols[:SHOWN_MAX]) + more
