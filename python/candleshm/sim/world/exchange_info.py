"""The exchangeInfo documents of the three markets, with the fields and oddities of the real ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from candleshm.sim.world.grid import HOUR_MS
from candleshm.sim.world.universe import Instrument, Market

# The futures documents carry the time they were generated, not the clock.
_FUTURES_AGE_MS = 31 * HOUR_MS

_SPOT_ORDERS = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]
_FUTURES_ORDERS = [
    "LIMIT",
    "MARKET",
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
]


def _limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _decimal(exponent: int, digits: int) -> str:
    """Return 10 to the minus ``exponent`` with ``digits`` decimals."""
    return f"{10.0**-exponent:.{digits}f}"


def exchange_info(market: Market, instruments: Iterable[Instrument], now_ms: int, weight_limit: int) -> dict[str, Any]:
    """Return the exchangeInfo document of ``market``. The serverTime of UM and CM is hours behind the clock."""
    weight = _limit("REQUEST_WEIGHT", "MINUTE", 1, weight_limit)
    if market == "SPOT":
        limits = [
            weight,
            _limit("ORDERS", "SECOND", 10, 100),
            _limit("ORDERS", "DAY", 1, 200_000),
            _limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ]
        symbols = [_spot(item) for item in instruments]
        return {
            "timezone": "UTC",
            "serverTime": now_ms,
            "rateLimits": limits,
            "exchangeFilters": [],
            "symbols": symbols,
        }
    limits = [weight, _limit("ORDERS", "MINUTE", 1, 1200)]
    kind: dict[str, Any] = {}
    if market == "UM":
        limits.append(_limit("ORDERS", "SECOND", 10, 300))
        kind = {"futuresType": "U_MARGINED"}
    return {
        "timezone": "UTC",
        "serverTime": now_ms - _FUTURES_AGE_MS,
        **kind,
        "rateLimits": limits,
        "exchangeFilters": [],
        "symbols": [_future(item) for item in instruments],
    }


def _spot(item: Instrument) -> dict[str, Any]:
    step = _decimal(item.lot_decimals, 8)
    return {
        "symbol": item.symbol,
        "status": item.status,
        "baseAsset": item.base,
        "baseAssetPrecision": 8,
        "quoteAsset": item.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _SPOT_ORDERS,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": item.activity >= 100,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": _decimal(item.price_decimals, 8),
                "maxPrice": "1000000.00000000",
                "tickSize": _decimal(item.price_decimals, 8),
            },
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"] if item.activity >= 100 else ["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _future(item: Instrument) -> dict[str, Any]:
    step = _decimal(item.lot_decimals, item.lot_decimals)
    tick = _decimal(item.price_decimals, item.price_decimals)
    if item.market == "CM":
        own = {"contractStatus": item.status, "contractSize": item.contract_usd, "marginAsset": item.base}
    else:
        own = {"status": item.status, "marginAsset": item.quote}
    return {
        "symbol": item.symbol,
        "pair": item.pair,
        "contractType": item.contract_type,
        "deliveryDate": item.delivery_ms,
        "onboardDate": item.listed_ms,
        **own,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": item.base,
        "quoteAsset": item.quote,
        "pricePrecision": item.price_decimals,
        "quantityPrecision": item.lot_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": item.hours or "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012000",
        "marketTakeBound": "0.30",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "1000000", "stepSize": step},
            {"filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": "100000", "stepSize": step},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        ],
        "orderTypes": _FUTURES_ORDERS,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }
