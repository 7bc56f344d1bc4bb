"""What twenty bots of 50 pairs cost the exchange, with and without a gateway: `python -m benches.gateway_weight`.

The bots request as freqtrade does by ccxt: at the start exchangeInfo of all markets and the candles of every pair, then
every pair again when a minute has ended. Each has connections of its own and compares what it gets with the exchange's
final candles. Weight is the exchange's own count, of whoever sent the request: with the gateway, of the collector and
of the gateway. Five minutes of real time.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import requests
from tests.support.commanding import first_line, started

from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import Market
from candleshm.sim import SimulatedExchange

BOTS = 20
PAIRS = 50
MINUTE = 60_000
PATHS: dict[Market, str] = {"SPOT": "/api/v3", "UM": "/fapi/v1"}
POOLS: dict[Market, str] = {"SPOT": "SPOT", "UM": "FUTURES"}
# On SPOT the weight does not depend on it; on UM it is what freqtrade requests, since more would weigh more.
LIMITS: dict[Market, int] = {"SPOT": 100, "UM": 499}
LENGTH = 1200


@dataclass
class Bot:
    """One bot: what it was sent, by status, and how many of its newest closed candles were not the exchange's."""

    base_url: str
    market: Market
    symbols: list[str]
    exchange: SimulatedExchange
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    rounds: int = 0
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **parameters: str | int) -> requests.Response:
        response = self.session.get(f"{self.base_url}{path}", params=parameters, timeout=60)
        self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
        return response

    def live(self, go_on: threading.Event, stop: threading.Event) -> None:
        for path in (*PATHS.values(), "/dapi/v1"):
            self.get(f"{path}/exchangeInfo")
        while not stop.is_set():
            minute = self.exchange.now_ms() // MINUTE
            for symbol in self.symbols:
                self.look(symbol, minute)
            self.rounds += 1
            go_on.wait()
            # Until a minute has ended, and the trades of its last moment show.
            while self.exchange.now_ms() < (minute + 1) * MINUTE + 3000 and not stop.wait(0.05):
                pass

    def look(self, symbol: str, minute: int) -> None:
        path = f"{PATHS[self.market]}/klines"
        response = self.get(path, symbol=symbol, interval="1m", limit=LIMITS[self.market])
        if response.status_code == 200:
            closed = [row for row in response.json()[-3:] if row[0] < minute * MINUTE]
            final = self.exchange.truth.kline(self.market, symbol, "1m", (minute - 1) * MINUTE)
            self.wrong += not closed or closed[-1] != final


@contextmanager
def gateway(exchange: SimulatedExchange, market: Market, symbols: list[str]) -> Iterator[str]:
    """Run a collector and a gateway; yield the gateway's URL."""
    name = f"candleshm-weight-{os.getpid()}"
    config = CollectorConfig(
        market=market,
        symbols=symbols,
        interval="1m",
        length=LENGTH,
        name=name,
        base_url=exchange.base_url,
        ws_url=exchange.ws_url_of(market),
    )
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(config))
        assert collector.wait_loaded(120)
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        words = f"gateway --listen 127.0.0.1:0 --block {name} --cache-dir {cache} --base-url {exchange.base_url}"
        process = stack.enter_context(started(*words.split(), stderr=None))
        yield first_line(process).strip().removeprefix("gateway: ")


def measure(market: Market, *, with_gateway: bool) -> str:
    """Let the bots live; return a line of the table."""
    # Limits that nobody meets, so that what is counted is what was wanted.
    limits = {"spot_limit": 10**6, "futures_limit": 10**6}
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(seed=9, symbols=PAIRS, **limits))
        listed = [item for item in exchange.truth.instruments(market) if item.quote == "USDT"]
        symbols = [item.symbol for item in listed if item.contract_type == "PERPETUAL" and item.status == "TRADING"]
        symbols = symbols[:PAIRS]
        base_url = exchange.base_url
        if with_gateway:
            base_url = stack.enter_context(gateway(exchange, market, symbols))
        bots = [Bot(base_url, market, symbols, exchange) for _ in range(BOTS)]
        go_on, stop = threading.Event(), threading.Event()
        threads = [threading.Thread(target=bot.live, args=(go_on, stop)) for bot in bots]
        for thread in threads:
            thread.start()
        wait(lambda: all(bot.rounds for bot in bots))
        start = weight(exchange, market)
        go_on.set()
        # From the middle of a minute to the middle of the next: one round of every bot lies between.
        wait(lambda: exchange.now_ms() % MINUTE > MINUTE // 2)
        before, rounds = weight(exchange, market), [bot.rounds for bot in bots]
        end_ms = exchange.now_ms() + MINUTE
        wait(
            lambda: (
                exchange.now_ms() >= end_ms
                and all(bot.rounds > number for bot, number in zip(bots, rounds, strict=True))
            )
        )
        minute = weight(exchange, market) - before
        requested = PAIRS * (sum(bot.rounds for bot in bots) - sum(rounds))
        stop.set()
        for thread in threads:
            thread.join()
    answers = {status: sum(bot.statuses.get(status, 0) for bot in bots) for bot in bots for status in bot.statuses}
    others = sum(count for status, count in answers.items() if status != 200)
    way = "with the gateway" if with_gateway else "each by itself"
    return (
        f"{market:<6} {way:<18} {start:>8,} {minute:>8,} {requested:>8,} "
        f"{others:>6} {sum(bot.wrong for bot in bots):>6}"
    )


def weight(exchange: SimulatedExchange, market: Market) -> int:
    return exchange.stats().pools[POOLS[market]].total


def wait(question: object) -> None:
    while not question():  # type: ignore[operator]
        time.sleep(0.02)


def main() -> None:
    print(f"{BOTS} bots, {PAIRS} pairs each, candles of 1m; limits per minute: SPOT 6000, UM 2400")
    print("                             weight   weight requests  other  wrong")
    print("market bots request       at start a minute a minute status   rows")
    for market in PATHS:
        for with_gateway in (False, True):
            print(measure(market, with_gateway=with_gateway), flush=True)


if __name__ == "__main__":
    main()
