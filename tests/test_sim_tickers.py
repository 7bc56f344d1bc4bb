"""Tickers and order books of the simulated exchange: they say what its candles say, in the exchange's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import requests

from candleshm.sim import Market, SimulatedExchange
from tests.test_sim import API, DAY, MINUTE, NOW, SECOND, SYMBOL, UNLIMITED, Clock, Exchange


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    clock = Clock()
    options = {"symbols": 5, "spot_limit": UNLIMITED, "futures_limit": UNLIMITED}
    with SimulatedExchange(clock_ms=clock, seed=7, **options) as sim, requests.Session() as session:  # type: ignore[arg-type]
        yield Exchange(sim, clock, session)


@pytest.fixture
def own() -> Iterator[Exchange]:
    clock = Clock()
    with SimulatedExchange(clock_ms=clock, seed=7, symbols=3) as sim, requests.Session() as session:
        yield Exchange(sim, clock, session)


def ticker(exchange: Exchange, market: Market, name: str, symbol: str | None = None, **more: object) -> Any:
    """Return one symbol's ticker; CM sends a list of it."""
    response = exchange.get(market, f"ticker/{name}", symbol=symbol or SYMBOL[market], **more)
    assert response.status_code == 200, response.text
    body = response.json()
    if market == "CM":
        assert len(body) == 1
        return body[0]
    return body


@pytest.mark.parametrize("market", API)
@pytest.mark.parametrize("coin", ["BTC", "SOL"])
def test_the_24_hours_are_those_of_the_minutes(exchange: Exchange, market: Market, coin: str) -> None:
    symbol = SYMBOL[market].replace("BTC", coin)
    rows = exchange.sim.truth.klines(market, symbol, "1m", NOW - NOW % MINUTE - DAY, NOW, now_ms=NOW)
    assert len(rows) == 1441
    traded = [row for row in rows if row[8]]
    found = ticker(exchange, market, "24hr", symbol)
    turnover = "baseVolume" if market == "CM" else "quoteVolume"
    assert found["openPrice"] == traded[0][1]
    assert found["highPrice"] == max((row[2] for row in traded), key=Decimal)
    assert found["lowPrice"] == min((row[3] for row in traded), key=Decimal)
    assert found["lastPrice"] == rows[-1][4]
    assert Decimal(found["volume"]) == sum(Decimal(row[5]) for row in rows)
    assert Decimal(found[turnover]) == sum(Decimal(row[7]) for row in rows)
    assert found["count"] == sum(row[8] for row in rows) == found["lastId"] - found["firstId"] + 1
    assert (found["openTime"], found["closeTime"]) == (rows[0][0], NOW)
    assert Decimal(found["priceChange"]) == Decimal(found["lastPrice"]) - Decimal(found["openPrice"])
    percent = 100 * Decimal(found["priceChange"]) / Decimal(found["openPrice"])
    assert abs(Decimal(found["priceChangePercent"]) - percent) <= Decimal("0.0005")
    assert 0 < Decimal(found["lastQty"]) <= Decimal(found["volume"])
    size = 100 if coin == "BTC" else 10
    per_coin = Decimal(found["volume"]) * (size if market == "CM" else 1) / Decimal(found[turnover])
    mean = per_coin if market == "CM" else 1 / per_coin
    assert abs(Decimal(found["weightedAvgPrice"]) - mean) <= Decimal(10) ** -len(found["openPrice"].split(".")[1])


def test_the_words_of_each_market(exchange: Exchange) -> None:
    """The names and their order are those of the real responses."""
    statistics = ["priceChange", "priceChangePercent", "weightedAvgPrice"]
    prices, ids = ["openPrice", "highPrice", "lowPrice"], ["openTime", "closeTime", "firstId", "lastId", "count"]
    quote = ["bidPrice", "bidQty", "askPrice", "askQty"]
    assert list(ticker(exchange, "SPOT", "24hr")) == [
        *("symbol", *statistics, "prevClosePrice", "lastPrice", "lastQty", *quote, *prices, "volume", "quoteVolume"),
        *ids,
    ]
    assert list(ticker(exchange, "SPOT", "24hr", type="MINI")) == [
        *("symbol", *prices, "lastPrice", "volume", "quoteVolume", *ids)
    ]
    assert list(ticker(exchange, "UM", "24hr")) == [
        *("symbol", *statistics, "lastPrice", "lastQty", *prices, "volume", "quoteVolume", *ids)
    ]
    assert list(ticker(exchange, "CM", "24hr")) == [
        *("symbol", "pair", *statistics, "lastPrice", "lastQty", *prices, "volume", "baseVolume", *ids)
    ]
    assert [list(ticker(exchange, market, "price")) for market in API] == [
        ["symbol", "price"],
        ["symbol", "price", "time"],
        ["symbol", "ps", "price", "time"],
    ]
    assert [list(ticker(exchange, market, "bookTicker")) for market in API] == [
        ["symbol", *quote],
        ["symbol", *quote, "time"],
        ["symbol", "pair", *quote, "time"],
    ]
    assert [list(exchange.get(market, "depth", symbol=SYMBOL[market], limit=5).json()) for market in API] == [
        ["lastUpdateId", "bids", "asks"],
        ["lastUpdateId", "E", "T", "bids", "asks"],
        ["lastUpdateId", "E", "T", "symbol", "pair", "bids", "asks"],
    ]
    assert [len(ticker(exchange, market, "price")["price"].split(".")[1]) for market in API] == [8, 1, 1]


@pytest.mark.parametrize("market", API)
def test_the_book_lies_round_the_newest_price(exchange: Exchange, market: Market) -> None:
    symbol = SYMBOL[market]
    live = exchange.klines(market, limit=1)[0]
    book = exchange.get(market, "depth", symbol=symbol, limit=20).json()
    bids, asks = ([Decimal(level[0]) for level in book[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 20
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0] == Decimal(live[4]) == Decimal(ticker(exchange, market, "price")["price"])
    assert all(Decimal(level[1]) > 0 for level in book["bids"] + book["asks"])
    best = ticker(exchange, market, "bookTicker")
    assert [best["bidPrice"], best["bidQty"], best["askPrice"], best["askQty"]] == book["bids"][0] + book["asks"][0]
    if market == "SPOT":
        day = ticker(exchange, market, "24hr")
        assert [day["bidPrice"], day["askQty"]] == [best["bidPrice"], best["askQty"]]


def test_a_book_ends_at_one_tick_and_changes_with_the_seconds(own: Exchange) -> None:
    sushi = own.sim.truth.instrument("SPOT", "SUSHIBTC")
    own.sim.truth.enlist(replace(sushi, symbol="CHEAPBTC", base="CHEAP", price=0.000005))
    cheap = own.get("SPOT", "depth", symbol="CHEAPBTC", limit=5000).json()
    assert len(cheap["asks"]) == 5000
    assert cheap["bids"][-1][0] == "0.00000001"
    before = own.get("UM", "depth", symbol="BTCUSDT").json()
    assert len(before["bids"]) == len(before["asks"]) == 500
    assert own.get("UM", "depth", symbol="BTCUSDT").json() == before
    own.clock.now_ms += SECOND
    assert own.get("UM", "depth", symbol="BTCUSDT").json()["lastUpdateId"] == before["lastUpdateId"] + 1


def test_who_is_in_the_lists(exchange: Exchange) -> None:
    def names(market: Market, name: str, **more: object) -> list[str]:
        return [item["symbol"] for item in exchange.get(market, f"ticker/{name}", **more).json()]

    listed = {market: exchange.sim.truth.instruments(market) for market in API}
    assert names("SPOT", "24hr") == names("SPOT", "price") == [item.symbol for item in listed["SPOT"]]
    assert names("SPOT", "price", symbols='["ETHUSDT","BTCUSDT"]') == ["BTCUSDT", "ETHUSDT"]
    assert names("SPOT", "24hr", symbolStatus="BREAK") == ["LUNAUSDT"]
    # FTTUSDT is settled, BTCSTUSDT has not begun.
    assert {item.symbol for item in listed["UM"]} - set(names("UM", "24hr")) == {"FTTUSDT", "BTCSTUSDT"}
    assert len(names("CM", "bookTicker", pair="BTCUSD")) == 3
    assert names("CM", "price") == [item.symbol for item in listed["CM"]]


def test_a_symbol_that_no_longer_trades_keeps_its_price(exchange: Exchange) -> None:
    ended = ticker(exchange, "SPOT", "24hr", "LUNAUSDT")
    last = exchange.klines("SPOT", "1d", "LUNAUSDT", limit=1)[0][4]
    assert ended["lastPrice"] == ended["prevClosePrice"] == last
    assert [ended[name] for name in ("count", "firstId", "lastId")] == [0, -1, -1]
    assert {Decimal(ended[name]) for name in ("bidPrice", "askQty", "volume", "priceChange", "highPrice")} == {0}
    assert exchange.get("SPOT", "depth", symbol="LUNAUSDT").json()["bids"] == []


@pytest.mark.parametrize(
    ("market", "target", "code"),
    [
        ("SPOT", "ticker/24hr?symbol=NOPE", -1121),
        ("SPOT", 'ticker/price?symbols=["NOPE"]', -1121),
        ("SPOT", 'ticker/price?symbols=["BTCUSDT","BTCUSDT"]', -1151),
        ("SPOT", 'ticker/price?symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
        ("SPOT", "ticker/price?symbols=BTCUSDT", -1100),
        ("SPOT", "ticker/price?symbol=BTCUSDT&symbolStatus=BREAK", -1220),
        ("SPOT", "ticker/price?symbolStatus=ODD", -1122),
        ("SPOT", "ticker/24hr?type=TINY", -1139),
        ("SPOT", "ticker/price?type=MINI", -1104),
        ("SPOT", "depth", -1102),
        ("SPOT", "depth?symbol=NOPE", -1121),
        ("UM", "ticker/24hr?symbol=NOPE", -1121),
        ("UM", "ticker/24hr?symbol=BTCSTUSDT", -1121),
        ("UM", "depth?symbol=BTCUSDT&limit=7", -4021),
        ("CM", "ticker/24hr?pair=NOPE", -1121),
        ("CM", "ticker/24hr?pair=BTCUSD&symbol=BTCUSD_PERP", -1128),
    ],
)
def test_what_the_exchange_does_not_take(exchange: Exchange, market: Market, target: str, code: int) -> None:
    response = exchange.get(market, target)
    assert response.status_code == 400
    assert response.json()["code"] == code


@pytest.mark.parametrize(
    ("market", "target", "weight"),
    [
        ("SPOT", "ticker/24hr?symbol=BTCUSDT", 2),
        ("SPOT", 'ticker/24hr?symbols=["BTCUSDT","ETHUSDT"]', 2),
        ("SPOT", "ticker/24hr", 80),
        ("SPOT", "ticker/price?symbol=BTCUSDT", 2),
        ("SPOT", "ticker/price", 4),
        ("SPOT", "ticker/bookTicker", 4),
        ("SPOT", "depth?symbol=BTCUSDT", 5),
        ("SPOT", "depth?symbol=BTCUSDT&limit=101", 25),
        ("SPOT", "depth?symbol=BTCUSDT&limit=1000", 50),
        ("SPOT", "depth?symbol=BTCUSDT&limit=9999", 250),
        ("SPOT", "depth?symbol=", 1),
        ("UM", "ticker/24hr?symbol=BTCUSDT", 1),
        ("UM", "ticker/24hr", 40),
        ("UM", "ticker/price", 2),
        ("UM", "ticker/bookTicker?symbol=BTCUSDT", 2),
        ("CM", "ticker/bookTicker", 5),
        ("CM", "ticker/24hr?pair=BTCUSD", 1),
        ("CM", "depth?symbol=BTCUSD_PERP&limit=50", 2),
        ("CM", "depth?symbol=BTCUSD_PERP", 10),
        ("UM", "continuousKlines?pair=BTCUSDT&contractType=PERPETUAL&interval=1m", 5),
    ],
)
def test_weights(own: Exchange, market: Market, target: str, weight: int) -> None:
    assert own.get(market, target).headers["X-MBX-USED-WEIGHT-1M"] == str(weight)
