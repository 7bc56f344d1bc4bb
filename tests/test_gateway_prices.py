"""Mark, index and premium klines of a gateway: from blocks of that very price, and never from one of another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from candleshm.exchanges.base import Market, Price
from candleshm.sim import SimulatedExchange
from tests.support.collecting import FUTURES, MINUTE, collecting, symbols_of
from tests.support.downloading import day_before, downloaded
from tests.support.gateways import gateway

PATHS: dict[Price, str] = {"mark": "markPriceKlines", "index": "indexPriceKlines", "premium": "premiumIndexKlines"}
PREFIXES: dict[Market, str] = {"UM": "/fapi/v1", "CM": "/dapi/v1"}


@dataclass
class Served:
    """A gateway, and the exchange behind its blocks."""

    url: str
    exchange: SimulatedExchange


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(symbols=8))
        names = []
        for market in FUTURES:
            for price in PATHS:
                name = f"test-prices-{os.getpid()}-{market.lower()}-{price}-1m"
                changes: dict[str, Any] = {
                    "market": market,
                    "price": price,
                    "symbols": symbols_of(market, price)[:2],
                    "length": 400,
                }
                stack.enter_context(collecting(exchange, name, derive=["15m"], **changes))
                names += [name, f"{name}-15m"]
        yield Served(stack.enter_context(gateway(names, exchange.base_url)), exchange)


@pytest.mark.parametrize("interval", ["1m", "15m", "1h"])
@pytest.mark.parametrize("price", PATHS)
@pytest.mark.parametrize("market", FUTURES)
def test_an_answer_is_the_exchanges_to_the_byte(served: Served, market: Market, price: Price, interval: str) -> None:
    symbol = symbols_of(market, price)[0]
    end_ms = served.exchange.now_ms() // (60 * MINUTE) * 60 * MINUTE - 1
    query = {
        "pair" if price == "index" else "symbol": symbol,
        "interval": interval,
        "startTime": str(end_ms + 1 - 180 * MINUTE),
        "endTime": str(end_ms),
    }
    path = f"{PREFIXES[market]}/{PATHS[price]}"
    ours, theirs = (requests.get(url + path, query, timeout=30) for url in (served.url, served.exchange.base_url))

    assert (ours.status_code, ours.content) == (200, theirs.content)
    assert len(ours.json()) == {"1m": 180, "15m": 12, "1h": 3}[interval]
    assert ours.headers["x-candleshm-source"] == ("block" if interval == "1m" else "derived")


@pytest.mark.parametrize("price", [None, *PATHS])
def test_daily_files_answer_for_their_own_price_only(
    served: Served, block_name: str, tmp_path: Path, price: Price | None
) -> None:
    """Files of trades and of one other price, or of none."""
    exchange = served.exchange
    day = day_before(exchange)
    prices: list[Price] = ["trade"] if price is None else ["trade", price]
    for of in prices:
        done = downloaded(exchange, tmp_path, day.date, day.date, market="UM", price=of, symbols=["BTCUSDT"])
        assert done.failed == 0
    query = {"interval": "1h", "startTime": str(day.start_ms), "endTime": str(day.end_ms - 1)}
    with gateway([block_name], exchange.base_url, candle_dir=str(tmp_path)) as url:
        for of, name in PATHS.items():
            named = query | {"pair" if of == "index" else "symbol": "BTCUSDT"}
            ours, theirs = (
                requests.get(f"{host}/fapi/v1/{name}", named, timeout=30) for host in (url, exchange.base_url)
            )
            assert ours.status_code == (200 if of == price else 503), ours.text
            assert of != price or ours.content == theirs.content


@pytest.mark.parametrize("market", FUTURES)
def test_a_block_of_another_price_never_answers(served: Served, market: Market) -> None:
    symbol = symbols_of(market, "trade")[0]
    trades = requests.get(f"{served.url}{PREFIXES[market]}/klines", {"symbol": symbol, "interval": "1m"}, timeout=30)
    assert trades.status_code == 503, trades.text
    assert f"no block on this machine carries {symbol} of {market};" in trades.json()["msg"]
    # A third symbol has an index, and no block of it.
    pair = symbols_of(market, "index")[2]
    index = requests.get(
        f"{served.url}{PREFIXES[market]}/indexPriceKlines", {"pair": pair, "interval": "1m"}, timeout=30
    )
    assert index.status_code == 503, index.text
    assert f"carries {pair} of {market} with price index;" in index.json()["msg"]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/fapi/v1/indexPriceKlines", {"symbol": "BTCUSDT", "interval": "1m"}, -1102),
        ("/fapi/v1/markPriceKlines", {"pair": "BTCUSDT", "interval": "1m"}, -1102),
        ("/dapi/v1/markPriceKlines", {"symbol": "BTCUSD", "interval": "1m"}, -1121),
        ("/fapi/v1/premiumIndexKlines", {"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ("/fapi/v1/premiumIndexKlines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "1501"}, -1130),
    ],
)
def test_bad_requests_are_refused_as_the_exchange_does(
    served: Served, path: str, query: dict[str, str], code: int
) -> None:
    ours, theirs = (requests.get(url + path, query, timeout=30) for url in (served.url, served.exchange.base_url))
    assert (ours.status_code, ours.json()["code"]) == (theirs.status_code, theirs.json()["code"]) == (400, code)
