"""Names and URLs of streams: what a path and a name subscribe to, on which of the exchange's stream hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from candleshm.sim.world.grid import HOUR_MS, INTERVALS, Grid
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market, Price

_NAME = re.compile(r"([^@]+)@(kline|markPriceKline|indexPriceKline|continuousKline)_(\d+[smhdwM])(@\+08:00)?")
_PRICES: dict[str, Price] = {"markPriceKline": "mark", "indexPriceKline": "index"}
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
    def key(self) -> tuple[Market, str, Price, str, int]:
        """Return what identifies it."""
        instrument, grid = self.instrument, self.grid
        return instrument.market, instrument.symbol, instrument.kind, grid.interval, grid.zone_ms


def find_series(truth: Truth, families: tuple[Market, ...], name: str, *, um_prices: bool = False) -> Series | None:
    """Return the series that a stream name means; None for what the exchange acknowledges and never sends.

    Names are in lower case; a symbol of one family that the host also serves is found in the order of ``families``.
    Mark price and index are CM's alone, unless ``um_prices``.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] != match[1].lower() or match[3] not in INTERVALS:
        return None
    word, kind, interval, zone = match.groups()
    for market in families:
        has_seconds = market == "SPOT" or (market == "UM" and kind == "continuousKline")
        if (interval == "1s" and not has_seconds) or (zone and (market != "SPOT" or kind != "kline")):
            continue
        if kind in _PRICES and market == "UM" and not um_prices:
            continue
        try:
            instrument = _instrument(truth, market, word.upper(), kind)
        except KeyError:
            continue
        return Series(instrument, Grid.of(interval, instrument.listed_ms, 8 * HOUR_MS if zone else 0))
    return None


def _instrument(truth: Truth, market: Market, word: str, kind: str) -> Instrument:
    """Return what the name before the @ means. Raises KeyError."""
    if kind == "kline":
        return truth.instrument(market, word)
    if kind == "continuousKline":
        pair, _, contract_type = word.partition("_")
        return truth.series(market, f"{pair}:{contract_type}")
    return truth.series(market, word, _PRICES[kind])
