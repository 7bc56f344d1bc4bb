"""Paths and names of streams: which markets a path serves, and which candles a name means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from candleshm._core import INTERVAL_MS
from candleshm.exchanges.base import Market
from candleshm.names import is_symbol_name

__all__ = ["Endpoint", "KlineName", "NotKlines"]

# A host of the exchange as the first part of a path means its market: some clients tell the market by the host in
# their URL, and have only the part after it to set.
HOSTS: Final[Mapping[str, Market]] = {
    "spot": "SPOT",
    "um": "UM",
    "cm": "CM",
    "stream.binance.com": "SPOT",
    "fstream.binance.com": "UM",
    "dstream.binance.com": "CM",
}
# The exchange's futures hosts take the symbols of either family. Names of SPOT and CM are never spelled the same.
MARKETS: Final[Mapping[Market | None, tuple[Market, ...]]] = {
    "SPOT": ("SPOT",),
    "UM": ("UM", "CM"),
    "CM": ("CM", "UM"),
    None: ("SPOT", "CM"),
}
# The official SDK connects to all routes of UM before it subscribes to anything. Candles come by each of them.
ROUTES: Final = frozenset({"market", "public", "private"})
MESSAGES_PER_SECOND: Final[Mapping[Market, int]] = {"SPOT": 5, "UM": 10, "CM": 10}
NAME = re.compile(r"([^@/]+)@kline_(\w+)(@\+08:00)?")


class NotKlines(Exception):
    """A name that is not that of a kline stream, or a path that has none; `str` says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects: the markets that it can name, the form of the events, and the first names."""

    markets: tuple[Market, ...]
    is_combined: bool
    names: tuple[str, ...]

    @property
    def messages_per_second(self) -> int:
        """How many messages the exchange takes from a client there."""
        return MESSAGES_PER_SECOND[self.markets[0]]

    @classmethod
    def of(cls, path: str, query: str) -> Endpoint:
        """Take a decoded path and a query as it was sent apart. Raises NotKlines.

        `/market` is UM, as on the exchange; without it and without a host a path serves SPOT and CM.
        """
        words = path.strip("/").split("/")
        # With or without the port, which the exchange's own URLs show.
        market = HOSTS.get(words[0].partition(":")[0])
        if market is not None:
            del words[0]
        if words and words[0] in ROUTES and market != "SPOT":
            del words[0]
            market = market or "UM"
        kind = words.pop(0) if words else ""
        if kind not in {"ws", "stream"}:
            raise NotKlines("kline streams are at /ws and /stream, those of UM at /market/ws and /market/stream")
        parameters = dict(part.partition("=")[::2] for part in query.split("&"))
        if parameters.get("timeUnit", "MILLISECOND").upper() != "MILLISECOND":
            raise NotKlines("timeUnit is not served: times are in milliseconds")
        # A plus sign stands for itself: names end with @+08:00.
        names = words + [unquote(word) for word in parameters.get("streams", "").split("/")]
        # A number names no stream: clients make the URLs of their connections differ by it.
        return cls(MARKETS[market], kind == "stream", tuple(name for name in names if name and not name.isdecimal()))


@dataclass(frozen=True, slots=True)
class KlineName:
    """The candles that the name of a stream means. `is_utc8` is for days and half days that begin at 16:00 UTC."""

    symbol: str
    interval: str
    is_utc8: bool

    @classmethod
    def of(cls, name: str) -> KlineName:
        """Take a name such as `btcusdt@kline_1m` apart. Raises NotKlines."""
        match = NAME.fullmatch(name)
        if match is None:
            raise NotKlines(f"not a kline stream: {shown(name)}; names are such as btcusdt@kline_1m")
        symbol, interval, utc8 = match.groups()
        if symbol != symbol.lower():
            raise NotKlines(f"symbols of streams are in lower case: {shown(name)}")
        if interval not in INTERVAL_MS:
            raise NotKlines(f"unknown interval: {shown(name)}; known: {' '.join(INTERVAL_MS)}")
        if not is_symbol_name(symbol.upper()):
            raise NotKlines(f"not a symbol: {shown(name)}")
        return cls(symbol.upper(), interval, utc8 is not None)


def shown(name: str) -> str:
    """Return a name as a message shows it, whatever a client sent."""
    return ascii(name[:80])
