"""Public market data of the exchange that may be passed through, by market and path, and what a request costs.

Weights as binance-spot-api-docs and developers.binance.com have them in 2026-10. Where one depends on parameters in
more ways than are told here, the highest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from candleshm.exchanges.base import Market

__all__ = ["PUBLIC_PATHS", "cost_of"]

Cost: TypeAlias = int | Callable[[Mapping[str, str]], int]


def _by_limit(default: int, *steps: tuple[int, int]) -> Cost:
    """Return a cost in steps of (largest limit, cost)."""

    def cost(values: Mapping[str, str]) -> int:
        text = values.get("limit", "")
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else default
        return next((weight for most, weight in steps if limit <= most), steps[-1][1])

    return cost


def _by_symbol(one: int, every: int) -> Cost:
    return lambda values: one if values.get("symbol") else every


def _by_symbols(each: int, every: int) -> Cost:
    """Return a cost for every symbol that is named, up to that of all."""

    def cost(values: Mapping[str, str]) -> int:
        if values.get("symbol"):
            return each
        count = values.get("symbols", "").count(",") + 1 if "symbols" in values else every
        return min(each * count, every)

    return cost


_KLINES = _by_limit(500, (99, 1), (499, 2), (1000, 5), (1500, 10))
_FUTURES: Mapping[str, Cost] = {
    "depth": _by_limit(500, (50, 2), (100, 5), (500, 10), (1000, 20)),
    "trades": 5,
    "aggTrades": 20,
    "klines": _KLINES,
    "continuousKlines": _KLINES,
    "indexPriceKlines": _KLINES,
    "markPriceKlines": _KLINES,
    "premiumIndexKlines": _KLINES,
    "premiumIndex": 10,
    "fundingRate": 1,
    "fundingInfo": 1,
    "ticker/24hr": _by_symbol(1, 40),
    "ticker/price": _by_symbol(1, 2),
    "ticker/bookTicker": _by_symbol(2, 5),
    "openInterest": 1,
    "constituents": 2,
}
PUBLIC_PATHS: Mapping[Market, Mapping[str, Cost]] = {
    "SPOT": {
        "depth": _by_limit(100, (100, 5), (500, 25), (1000, 50), (5000, 250)),
        "trades": 25,
        "aggTrades": 4,
        "klines": 2,
        "uiKlines": 2,
        "avgPrice": 2,
        "ticker/24hr": _by_symbols(2, 80),
        "ticker/tradingDay": _by_symbols(4, 200),
        "ticker/price": _by_symbol(2, 4),
        "ticker/bookTicker": _by_symbol(2, 4),
        "ticker": _by_symbols(4, 200),
    },
    "UM": {**_FUTURES, "indexInfo": 1, "assetIndex": 10, "insuranceBalance": 1, "tradingSchedule": 5},
    "CM": _FUTURES,
}


def cost_of(market: Market, name: str, values: Mapping[str, str]) -> int:
    """Return the request weight of a path with these parameters.

    >>> cost_of("SPOT", "depth", {"limit": "1000"}), cost_of("UM", "ticker/24hr", {})
    (50, 40)
    """
    cost = PUBLIC_PATHS[market][name]
    return cost if isinstance(cost, int) else cost(values)
