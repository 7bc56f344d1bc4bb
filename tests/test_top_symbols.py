"""Symbols by contract, by quote and by volume: chosen at the start, and newcomers every hour."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from candleshm.collector import universe_refresh
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.binance import MARKETS
from candleshm.sim import Fault, SimulatedExchange
from tests.support.collecting import collecting, until
from tests.support.commanding import complaint, run


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=12, spot_limit=10**6, futures_limit=10**6) as running:
        yield running


def by_volume(exchange: SimulatedExchange, market: Any, *, is_wanted: Any = lambda _: True) -> list[str]:
    """Return the trading symbols of a market, the one with the most money in 24 hours first."""
    root = f"{exchange.base_url}{MARKETS[market].path}"
    status = MARKETS[market].status_field
    listed = {
        entry["symbol"]
        for entry in requests.get(f"{root}/exchangeInfo", timeout=60).json()["symbols"]
        if entry[status] == "TRADING" and is_wanted(entry)
    }
    tickers = [
        ticker for ticker in requests.get(f"{root}/ticker/24hr", timeout=60).json() if ticker["symbol"] in listed
    ]

    def money(ticker: dict[str, str]) -> float:
        if market == "CM":
            return float(ticker["baseVolume"]) * float(ticker["weightedAvgPrice"])
        return float(ticker["quoteVolume"])

    return [ticker["symbol"] for ticker in sorted(tickers, key=money, reverse=True)]


@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_the_symbols_with_the_largest_volume_are_served(
    exchange: SimulatedExchange, block_name: str, market: str
) -> None:
    expected = by_volume(exchange, market)[:3]
    with collecting(exchange, block_name, market=market, symbols="all", top=3, length=20) as (_, feed):
        assert list(feed.symbols) == expected


def test_fifty_perpetuals_by_volume_are_one_command(exchange: SimulatedExchange, block_name: str) -> None:
    def is_wanted(entry: dict[str, str]) -> bool:
        return entry["contractType"] == "PERPETUAL" and entry["quoteAsset"] == "USDT"

    everything = by_volume(exchange, "UM")
    wanted = by_volume(exchange, "UM", is_wanted=is_wanted)
    assert "XAUUSDT" in set(everything) - set(wanted), "a TradFi contract is no PERPETUAL"
    settings: dict[str, Any] = {"contract": "PERPETUAL", "quote": "USDT", "top": 50}
    with collecting(exchange, block_name, market="UM", symbols="all", length=20, **settings) as (_, feed):
        assert list(feed.symbols) == wanted[:50]


def test_newcomers_join_and_who_leaves_the_top_stays_fresh(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(universe_refresh, "RANKING_SECONDS", 0.3)
    before = by_volume(exchange, "SPOT")
    with collecting(exchange, block_name, symbols="all", top=2, length=20) as (_, feed):
        assert list(feed.symbols) == before[:2]
        riser = before[-1]
        body = json.dumps([{"symbol": riser, "quoteVolume": "1e12"}, {"symbol": before[1], "quoteVolume": "1"}])
        exchange.faults.add(Fault(kind="status", status=200, path="/ticker/24hr", body=body))
        until(lambda: riser in feed and feed[riser].last_open_time_ms)
        # The exchange's list of symbols, which comes more often, changes nothing about the choice.
        exchange.faults.clear()
        exchange.faults.add(Fault(kind="status", status=500, path="/ticker/24hr"))
        tried = exchange.stats().count("/ticker/24hr")
        until(lambda: exchange.stats().count("/ticker/24hr") > tried)
        assert list(feed.symbols) == [*before[:2], riser]
        until(lambda: all(feed[symbol].age < 2 for symbol in feed.symbols))


def test_a_start_without_volumes_fails_with_the_exchange_s_reason(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="status", status=200, path="/ticker/24hr", body='[{"price":"1"}]'))
    words = f"serve --market spot --top 2 --start-seconds 0.1 --name {block_name} --base-url {exchange.base_url}"
    assert "not a list of tickers" in complaint(*words.split())


def test_download_takes_the_same_filters(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = "2026-11-20"
    wanted = by_volume(exchange, "UM", is_wanted=lambda entry: entry["contractType"] == "CURRENT_QUARTER")[:1]
    words = f"download --market um --interval 1h --contract current_quarter --top 1 --start {day} --end {day}"
    done = run(*words.split(), "--candle-dir", str(tmp_path), "--base-url", exchange.base_url)

    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.rglob("*.parquet")
    assert wanted[0] in str(written)


def test_contracts_are_those_of_futures() -> None:
    with pytest.raises(ConfigError, match="market SPOT, which has no contracts"):
        CollectorConfig(market="SPOT", contract="PERPETUAL")
    with pytest.raises(ConfigError, match=r"contract cannot be `FOREVER`; allowed: PERPETUAL \| CURRENT_QUARTER"):
        CollectorConfig(market="UM", contract="FOREVER")
