"""Requests for tickers and order books as the exchange reads them: which symbols, what else, and what they weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from candleshm.sim.rest.query import (
    SYMBOL_LEGAL,
    Refusal,
    Request,
    read_number,
    read_parameters,
    read_status,
    read_symbols,
    read_text,
)
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market

TICKERS = {"ticker/24hr", "ticker/price", "ticker/bookTicker"}
DEPTH = "depth"

_SPOT_DEPTH_MAX = 5000
_FUTURES_DEPTH_WEIGHTS: Mapping[int, int] = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
# Weight of one symbol, and of all.
_FUTURES_WEIGHTS: Mapping[str, tuple[int, int]] = {
    "ticker/24hr": (1, 40),
    "ticker/price": (1, 2),
    "ticker/bookTicker": (2, 5),
}


@dataclass(frozen=True)
class TickerQuery:
    """What a ticker request selects: one symbol, some, a pair's contracts (CM), or all when nothing is named."""

    symbol: str | None = None
    symbols: tuple[str, ...] | None = None
    pair: str | None = None
    status: str | None = None
    mini: bool = False

    def select(self, truth: Truth, market: Market, now_ms: int) -> list[Instrument]:
        """Return what is listed and selected. Raises Refusal."""
        listed = truth.instruments(market, now_ms)
        names = {item.symbol: item for item in listed}
        if self.symbol is not None or self.symbols is not None:
            wanted = self.symbols or ((self.symbol,) if self.symbol else ())
            if any(name not in names for name in wanted):
                raise Refusal(-1121, "Invalid symbol.")
            if self.symbol is not None and self.status not in {None, names[self.symbol].status}:
                raise Refusal(-1220, "The symbol's status does not match the requested symbolStatus.")
            listed = [item for item in listed if item.symbol in wanted]
        elif self.pair is not None:
            listed = [item for item in listed if item.pair == self.pair]
            if not listed:
                raise Refusal(-1121, "Invalid symbol.")
        elif market != "SPOT":
            listed = [item for item in listed if item.delisted_ms is None or now_ms < item.delisted_ms]
        return [item for item in listed if self.status in {None, item.status}]


def read_ticker(request: Request, market: Market) -> TickerQuery:
    """Return the parameters of a ticker request. Raises Refusal."""
    if market == "SPOT":
        own = ("type",) if request.name == "ticker/24hr" else ()
        values = read_parameters(request, ("symbol", "symbols", "symbolStatus", *own))
        status = read_status(values)
        kind = values.get("type", "FULL")
        if kind not in {"FULL", "MINI"}:
            raise Refusal(-1139, "Invalid ticker type.")
        if "symbol" in values and "symbols" in values:
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if "symbol" in values:
            return TickerQuery(read_text(values, "symbol", SYMBOL_LEGAL), status=status, mini=kind == "MINI")
        symbols = None if "symbols" not in values else tuple(read_symbols(values))
        if symbols is not None and len(set(symbols)) != len(symbols):
            raise Refusal(-1151, "Symbol is present multiple times in the list.")
        return TickerQuery(symbols=symbols, status=status, mini=kind == "MINI")
    values = read_parameters(request, ("symbol", "pair"))
    if market == "CM" and "symbol" in values and "pair" in values:
        raise Refusal(-1128, "Combination of optional parameters invalid.")
    if "symbol" in values:
        return TickerQuery(read_text(values, "symbol"))
    return TickerQuery(pair=read_text(values, "pair") if market == "CM" and "pair" in values else None)


def read_depth(request: Request, market: Market) -> tuple[str, int]:
    """Return the symbol of a depth request and how many levels it wants. Raises Refusal."""
    values = read_parameters(request, ("symbol", "limit", "symbolStatus"))
    symbol = read_text(values, "symbol", SYMBOL_LEGAL if market == "SPOT" else None)
    limit = read_number(values, "limit")
    if market == "SPOT":
        return symbol, min(limit or 100, _SPOT_DEPTH_MAX)
    limit = 500 if limit is None else limit
    if limit not in _FUTURES_DEPTH_WEIGHTS:
        raise Refusal(-4021, f"{limit} is not valid depth limit")
    return symbol, limit


def ticker_weight(request: Request, market: Market) -> int:
    """Return what a request for tickers or an order book costs. Raises Refusal."""
    if request.name == DEPTH:
        limit = read_depth(request, market)[1]
        if market == "SPOT":
            return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
        return _FUTURES_DEPTH_WEIGHTS[limit]
    query = read_ticker(request, market)
    if market != "SPOT":
        one, every = _FUTURES_WEIGHTS[request.name]
        return every if query.symbol is None and query.pair is None else one
    if query.symbol is not None:
        return 2
    if request.name != "ticker/24hr":
        return 4
    count = 1000 if query.symbols is None else len(query.symbols)
    return 2 if count <= 20 else 40 if count <= 100 else 80
