"""Real clients of the exchange, unmodified, against the gateway by nothing but the recipes of docs/gateway.md.

Each client runs in its own environment (`make clients`), all of them at once, for each waits until a minute ends. The
exchange's clock is set so that this comes soon.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import Market
from candleshm.sim import SimulatedExchange
from tests.support.commanding import first_line, started
from tests.test_snippets import FENCE

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gateway.md"
ENVIRONMENTS = ROOT / ".venv-clients"
ADDRESS = "127.0.0.1:8700"
MINUTE = 60_000
# The exchange's clock when everything begins: so long before a minute's end.
BEFORE_END_MS = 40_000
# Twice what a minute's end and a slow machine take.
STREAM_SECONDS = 150

SYMBOLS: Mapping[Market, tuple[str, str]] = {
    "SPOT": ("BTCUSDT", "ETHUSDT"),
    "UM": ("BTCUSDT", "ETHUSDT"),
    "CM": ("BTCUSD_PERP", "ETHUSD_PERP"),
}
BTC: Mapping[str, tuple[Market, str]] = {market: (market, SYMBOLS[market][0]) for market in SYMBOLS}
# The program, its environment, the heading of its recipe.
CLIENTS: Mapping[str, tuple[str, str]] = {
    "ccxt_sync": ("common", "ccxt"),
    "ccxt_async": ("common", "ccxt"),
    "python_binance": ("python-binance", "python-binance"),
    "binance_connector": ("common", "binance-connector"),
    "binance_sdk": ("common", "The official SDKs"),
}


def recipe_of(heading: str) -> list[str]:
    """Return the Python snippets under a heading of the page, as printed."""
    section = re.split(rf"^##+ {re.escape(heading)}$", PAGE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return [text for _, language, text in FENCE.findall(section) if language == "python"]


@dataclass(frozen=True)
class World:
    """The exchange, a range of final candles, and what became of each client's program."""

    exchange: SimulatedExchange
    start_ms: int
    end_ms: int
    programs: Mapping[str, subprocess.CompletedProcess[str]]

    def told(self, client: str) -> Mapping[str, Any]:
        """Return what a client's program told."""
        program = self.programs[client]
        assert program.returncode == 0, program.stderr
        told: Mapping[str, Any] = json.loads(program.stdout)
        return told

    def truth(self, market: Market, symbol: str, open_ms: int) -> list[Any]:
        """Return the exchange's final candle."""
        row = self.exchange.truth.kline(market, symbol, "1m", open_ms)
        assert row is not None
        return row


def run_client(client: str, address: str, told: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a client's program with its recipe, in which only the gateway's address is another."""
    environment, heading = CLIENTS[client]
    python = ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), f"{python} is not there: run `make clients`"
    snippets = [text.replace(ADDRESS, address) for text in recipe_of(heading)]
    assert snippets
    return subprocess.run(
        [str(python), str(ROOT / "tests" / "clients" / f"{client}.py")],
        input=json.dumps({**told, "snippets": snippets}),
        capture_output=True,
        text=True,
        check=False,
        timeout=STREAM_SECONDS + 60,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Collectors of all markets and a gateway, whose clients have all run."""
    cache = tmp_path_factory.mktemp("gateway")
    skew_ms = -BEFORE_END_MS - time.time_ns() // 1_000_000 % MINUTE
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(seed=11, symbols=12, skew_ms=skew_ms))
        names = []
        for market, symbols in SYMBOLS.items():
            names.append(f"candleshm-clients-{os.getpid()}-{market.lower()}")
            config = CollectorConfig(
                market=market,
                symbols=list(symbols),
                interval="1m",
                length=300,
                name=names[-1],
                base_url=exchange.base_url,
                ws_url=exchange.ws_url_of(market),
            )
            collector = stack.enter_context(Collector(config))
            assert collector.wait_loaded(60)
        address = stack.enter_context(gateway(exchange, names, cache / "one"))
        passing = stack.enter_context(gateway(exchange, names, cache / "other", "--pass-through"))
        end_ms = exchange.now_ms() // MINUTE * MINUTE
        start_ms = end_ms - 100 * MINUTE
        told = {
            "start_ms": start_ms,
            "end_ms": end_ms,
            "stream_seconds": STREAM_SECONDS,
            "passing_address": passing,
        }
        with ThreadPoolExecutor(len(CLIENTS)) as pool:
            programs = {client: pool.submit(run_client, client, address, told) for client in CLIENTS}
        yield World(exchange, start_ms, end_ms, {client: program.result() for client, program in programs.items()})


@contextmanager
def gateway(exchange: SimulatedExchange, names: list[str], cache: Path, *more: str) -> Iterator[str]:
    """Run a gateway of some blocks; yield its host and port."""
    words = f"gateway --listen 127.0.0.1:0 --base-url {exchange.base_url} --cache-dir {cache}".split()
    for name in names:
        words += ["--block", name]
    with started(*words, *more) as process:
        yield first_line(process).strip().removeprefix("gateway: http://")


def shown(market: Market, row: list[Any], *, by_ccxt: bool) -> list[Any]:
    """Return a candle of the exchange as a client shows it: ccxt has six numbers, and of CM the volume in coin."""
    if not by_ccxt:
        return row
    return [row[0], *(float(value) for value in row[1:5]), float(row[7 if market == "CM" else 5])]


@pytest.mark.parametrize("client", CLIENTS)
def test_candles_are_the_exchange_s(world: World, client: str) -> None:
    told = world.told(client)
    by_ccxt = client.startswith("ccxt")
    assert told["printed"] > 0
    for market, rows in told["ranges"].items():
        _, symbol = BTC[market]
        truth = world.exchange.truth.klines(market, symbol, "1m", world.start_ms, world.end_ms)
        assert len(truth) == 100
        assert rows == [shown(market, row, by_ccxt=by_ccxt) for row in truth]
    for market, rows in told["newest"].items():
        market, symbol = BTC[market]
        # The first of three ended a minute ago, however late its client came; the second may be about to change.
        closed = [row for row in rows[:-1] if row[0] < max(world.end_ms, rows[1][0])]
        assert [row[0] for row in rows] == [rows[0][0] + step * MINUTE for step in range(3)]
        assert closed
        assert closed == [shown(market, world.truth(market, symbol, row[0]), by_ccxt=by_ccxt) for row in closed]
    for rows in told.get("histories", {}).values():
        assert [row[0] for row in rows] == list(range(world.start_ms, world.end_ms, MINUTE))


@pytest.mark.parametrize("client", CLIENTS)
def test_the_time_and_the_lists_are_the_exchange_s(world: World, client: str) -> None:
    told = world.told(client)
    assert abs(told["time_ms"] - world.exchange.now_ms()) < 300_000
    spot, um = ({item.symbol for item in world.exchange.truth.instruments(market)} for market in ("SPOT", "UM"))
    if client == "ccxt_sync":
        assert {"BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC"} <= set(told["listed"])
    elif "listed" in told:
        assert set(told["listed"]) == spot
        assert set(told.get("futures_listed", um)) == um


UNKNOWN = {
    "ccxt_sync": "BadSymbol",
    "ccxt_async": "BadSymbol",
    "python_binance": "BinanceAPIException",
    "binance_connector": "ClientError",
    "binance_sdk": "BadRequestError",
}
# What a client calls an error of the exchange that may be over soon.
TEMPORARY = {
    "ccxt_sync": "OperationFailed",
    "ccxt_async": "OperationFailed",
    "python_binance": "BinanceAPIException",
    "binance_connector": "ServerError",
    "binance_sdk": "ServerError",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_errors_are_those_that_the_client_knows(world: World, client: str) -> None:
    told = world.told(client)
    assert UNKNOWN[client] in told["unknown"]
    assert "Invalid symbol" in told["unknown"][-1] or "-1121" in told["unknown"][-1]
    assert told.get("unlisted", ["BadSymbol"])[0] == "BadSymbol"
    for classes in told["refused"].values():
        assert TEMPORARY[client] in classes, classes
        assert "-1001" in classes[-1] or "503" in classes[-1]


def test_a_key_is_kept_from_the_gateway_or_refused_by_it(world: World) -> None:
    """ccxt sends none where none is needed, python-binance sends it always."""
    assert world.told("ccxt_sync")["with_key"] == 3
    assert "-2015" in world.told("python_binance")["with_key"][-1]


def test_the_very_first_candle_is_passed_on_or_refused(world: World) -> None:
    """python-binance looks for it before it downloads history."""
    told = world.told("python_binance")
    assert "-1001" in told["history_refused"][-1]
    assert told["history"] == world.exchange.truth.klines("SPOT", "BTCUSDT", "1m", world.start_ms, world.end_ms)


@pytest.mark.parametrize("client", [client for client in CLIENTS if client != "ccxt_sync"])
def test_a_stream_closes_a_candle_as_the_exchange_does(world: World, client: str) -> None:
    for market, event in world.told(client)["closed"].items():
        market, symbol = BTC[market]
        if client == "ccxt_async":
            row = world.truth(market, symbol, event[0])
            assert event == [row[0], *(float(value) for value in row[1:6])]
            continue
        candle = event["k"]
        row = world.truth(market, symbol, candle["t"])
        assert (event["s"], candle["i"], candle["x"]) == (symbol, "1m", True)
        assert [candle[name] for name in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")] == row[:11]
