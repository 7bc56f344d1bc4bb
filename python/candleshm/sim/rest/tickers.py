"""Tickers and order books: what happened in 24 hours, the newest price, and a book round it, by the truth's candles."""

from __future__ import annotations

import json
from typing import Any

from candleshm.sim.rest.query import Refusal, Request
from candleshm.sim.rest.ticker_query import DEPTH, TickerQuery, read_depth, read_ticker
from candleshm.sim.world.book import book
from candleshm.sim.world.candles import HIGH, LOW, OPEN, QUOTE, TRADES, VOLUME
from candleshm.sim.world.text import decimal
from candleshm.sim.world.truth import Day, Truth
from candleshm.sim.world.universe import Instrument, Market

_COIN_DECIMALS = 8


def tickers(truth: Truth, request: Request, market: Market, now_ms: int) -> bytes:
    """Return the body of a response to a ticker or depth request. Raises Refusal."""
    if request.name == DEPTH:
        return _json(_depth(truth, market, *read_depth(request, market), now_ms))
    query = read_ticker(request, market)
    found = [
        _ticker(truth, request.name, query, item, day, now_ms)
        for item in query.select(truth, market, now_ms)
        if (day := truth.day(market, item.symbol, now_ms)) is not None
    ]
    # CM sends a list even for one symbol.
    if query.symbol is None or market == "CM":
        return _json(found)
    if not found:
        raise Refusal(-1121, "Invalid symbol.")
    return _json(found[0])


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _best(truth: Truth, item: Instrument, day: Day, now_ms: int, depth: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the best bids and asks as the exchange prints them; none once trading has ended."""
    if item.delisted_ms is not None and item.delisted_ms <= now_ms:
        return [], []
    bids, asks = (
        [
            [decimal(price, item.price_decimals, item.market), decimal(lots, item.lot_decimals, item.market)]
            for price, lots in side.T.tolist()
        ]
        for side in book(item.voice(truth.seed), day.last, now_ms // 1000, depth)
    )
    return bids, asks


def _depth(truth: Truth, market: Market, symbol: str, limit: int, now_ms: int) -> dict[str, Any]:
    try:
        item, day = truth.instrument(market, symbol), truth.day(market, symbol, now_ms)
    except KeyError:
        raise Refusal(-1121, "Invalid symbol.") from None
    bids, asks = ([], []) if day is None else _best(truth, item, day, now_ms, limit)
    # The book changes with every second.
    number = now_ms // 1000
    if market == "SPOT":
        return {"lastUpdateId": number, "bids": bids, "asks": asks}
    own = {"symbol": symbol, "pair": item.pair} if market == "CM" else {}
    return {"lastUpdateId": number, "E": now_ms, "T": now_ms, **own, "bids": bids, "asks": asks}


def _ticker(truth: Truth, name: str, query: TickerQuery, item: Instrument, day: Day, now_ms: int) -> dict[str, Any]:
    if name == "ticker/price":
        own = {"CM": {"ps": item.pair}}.get(item.market, {})
        time = {} if item.market == "SPOT" else {"time": now_ms}
        return {"symbol": item.symbol, **own, "price": _price(item, day.last), **time}
    nothing = [_price(item, 0), decimal(0, item.lot_decimals, item.market)]
    bids, asks = _best(truth, item, day, now_ms, 1)
    (bid, bid_lots), (ask, ask_lots) = (bids or [nothing])[0], (asks or [nothing])[0]
    quote = {"bidPrice": bid, "bidQty": bid_lots, "askPrice": ask, "askQty": ask_lots}
    if name == "ticker/bookTicker":
        own = {"pair": item.pair} if item.market == "CM" else {}
        time = {} if item.market == "SPOT" else {"time": now_ms}
        return {"symbol": item.symbol, **own, **quote, **time}
    return _day(item, day, quote if item.market == "SPOT" else {}, now_ms, mini=query.mini)


def _price(item: Instrument, ticks: int) -> str:
    return decimal(ticks, item.price_decimals, item.market)


def _day(item: Instrument, day: Day, quote: dict[str, str], now_ms: int, *, mini: bool) -> dict[str, Any]:
    """Return the 24 hours of a symbol; SPOT has the best bid and ask besides, CM the turnover in coin."""
    values = [int(value) for value in day.candle[:, 0]]
    count = values[TRADES]
    opening = values[OPEN]
    change = day.last - opening if count else 0
    turnover_decimals = _COIN_DECIMALS if item.market == "CM" else item.price_decimals + item.lot_decimals
    turnover_name = "baseVolume" if item.market == "CM" else "quoteVolume"
    pair = {"pair": item.pair} if item.market == "CM" else {}
    prices = {
        "openPrice": _price(item, opening),
        "highPrice": _price(item, values[HIGH]),
        "lowPrice": _price(item, values[LOW]),
    }
    sums = {
        "volume": decimal(values[VOLUME], item.lot_decimals, item.market),
        turnover_name: decimal(values[QUOTE], turnover_decimals, item.market),
        "openTime": day.start_ms,
        "closeTime": now_ms,
        "firstId": day.first_id,
        "lastId": day.first_id + count - 1 if count else -1,
        "count": count,
    }
    last = {"lastPrice": _price(item, day.last)}
    if mini:
        return {"symbol": item.symbol, **prices, **last, **sums}
    before = {"prevClosePrice": _price(item, day.before)} if item.market == "SPOT" else {}
    return {
        "symbol": item.symbol,
        **pair,
        "priceChange": _price(item, change),
        "priceChangePercent": f"{100 * change / opening if count else 0:.3f}",
        "weightedAvgPrice": _mean_price(item, values[VOLUME], values[QUOTE]),
        **before,
        **last,
        "lastQty": decimal(day.last_lots, item.lot_decimals, item.market),
        **quote,
        **prices,
        **sums,
    }


def _mean_price(item: Instrument, volume: int, turnover: int) -> str:
    """Return turnover by volume: in SPOT and CM with 8 decimals, in UM with those of a price."""
    if not volume:
        return decimal(0, 8 if item.market == "CM" else item.price_decimals, item.market)
    if item.market == "CM":
        return decimal(round(volume * item.contract_usd * 10**16 / turnover), 8, "CM")
    if item.market == "UM":
        return _price(item, round(turnover / volume))
    return decimal(round(turnover * 10 ** (8 - item.price_decimals) / volume), 8, "SPOT")
