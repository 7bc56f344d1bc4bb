"""Names and URLs of streams: what a path and a name subscribe to, on which of the exchange's stream hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from candleshm.sim.world.grid import HOUR_MS, INTERVALS, Grid
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market

_NAME = re.compile(r"([^@]+)@kline_(\d+[smhdwM])(@\+08:00)?")
_HOSTS: dict[str, Market] = {
    "spot": "SPOT",
    "um": "UM",
    "cm": "CM",
    # Some clients read the market from the host in the URL, and only the path can be set.
    "stream.binance.com": "SPOT",
    "fstream.binance.com": "UM",
    "dstream.binance.com": "CM",
}
_ROUTES = {"market", "public", "private"}
_ROUTES_OF: dict[Market | None, set[str]] = {
    "SPOT": {""},
    "UM": {"", *_ROUTES},
    "CM": {"", "market"},
    None: {"", *_ROUTES},
}


@dataclass(frozen=True)
class Endpoint:
    """Where a client connects: a market's host, the markets whose klines are to be had there, and the first names.

    ``families`` is empty where every name is acknowledged and none is served: ``/public``, ``/private``. UM's path
    without a route ``is_old``: the rules say whether it serves any.
    """

    market: Market
    families: tuple[Market, ...]
    combined: bool
    names: tuple[str, ...]
    is_old: bool = False

    @classmethod
    def parse(cls, target: str) -> Endpoint | None:
        """Take a request target apart; None when there is no stream endpoint.

        The first part of the path is the host: ``/spot``, ``/um``, ``/cm``, or its real name. Without it ``/market`` is
        UM, and the rest serves SPOT and CM, whose symbols differ. CM has its streams with the route ``/market`` and
        without.
        """
        path, _, query = target.partition("?")
        words = path.strip("/").split("/")
        host = _HOSTS.get(words[0])
        if host is not None:
            del words[0]
        route = words.pop(0) if words and words[0] in _ROUTES else ""
        if not words or words[0] not in {"ws", "stream"} or route not in _ROUTES_OF[host]:
            return None
        if words[0] == "ws":
            names = [unquote(word) for word in words[1:] if word]
        elif len(words) == 1:
            given = next((part[8:] for part in query.split("&") if part.startswith("streams=")), "")
            names = [unquote(word) for word in given.split("/") if word]
        else:
            return None
        market: Market = host or ("UM" if route else "SPOT")
        families: tuple[Market, ...]
        if market == "UM":
            families = ("UM", "CM") if route in {"market", ""} else ()
        elif host == "CM":
            families = ("CM", "UM")
        else:
            families = ("SPOT",) if host else ("SPOT", "CM")
        is_old = market == "UM" and not route
        return cls(market, families, words[0] == "stream", tuple(names), is_old)


@dataclass(frozen=True)
class Series:
    """A kline stream that exists: an instrument and the grid of its candles."""

    instrument: Instrument
    grid: Grid

    @property
    def key(self) -> tuple[Market, str, str, int]:
        """Return what identifies it."""
        return self.instrument.market, self.instrument.symbol, self.grid.interval, self.grid.zone_ms


def find_series(truth: Truth, families: tuple[Market, ...], name: str) -> Series | None:
    """Return the series that a stream name means; None for what the exchange acknowledges and never sends.

    Names are in lower case; a symbol of one family that the host also serves is found in the order of ``families``.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] != match[1].lower() or match[2] not in INTERVALS:
        return None
    for market in families:
        if market != "SPOT" and (match[2] == "1s" or match[3]):
            continue
        try:
            instrument = truth.instrument(market, match[1].upper())
            return Series(instrument, Grid.of(match[2], instrument.listed_ms, 8 * HOUR_MS if match[3] else 0))
        except KeyError:
            continue
    return None
