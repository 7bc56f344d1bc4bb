"""How many requests and how much weight candles cost, for every interval, beside the least that is possible.

    python benches/pages.py                         all intervals of all markets, about four minutes
    python benches/pages.py --markets SPOT --intervals 1d,4h
    python benches/pages.py --symbols 4 --days 3400 --intervals 1d,4h,2h
    python benches/pages.py --json FILE

Two programs are counted by the simulated exchange: `download` into daily files, and a collector that loads a window.
The least is the number of pages of the limit that buys most candles for its weight: 1000 on SPOT, 499 on UM and CM, and
200 days on CM. What the candles would cost in pages of the exchange's largest limit stands beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import candleshm
from candleshm._core import Zone
from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Market
from candleshm.exchanges.binance import Binance
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.fetching import fetch_days, store_of
from candleshm.ratelimit.budget import WeightBudget
from candleshm.rest.client import Client
from candleshm.rest.transport import HttpTransport
from candleshm.sim import SimulatedExchange
from candleshm.system.clock import SystemClock

UNLIMITED = 10**8
SYMBOLS: dict[Market, Sequence[str]] = {
    "SPOT": ("BTCUSDT", "ETHUSDT", "BNBUSDT", "LTCUSDT"),
    "UM": ("BTCUSDT", "ETHUSDT", "BNBUSDT", "LTCUSDT"),
    "CM": ("BTCUSD_PERP", "ETHUSD_PERP", "BNBUSD_PERP", "LTCUSD_PERP"),
}
SPAN_MS = 200 * DAY_MS  # of a request of COIN-M
LIMITS_MAX: dict[Market, int] = {"SPOT": 1000, "UM": 1500, "CM": 1500}
# Days are enough for some pages, and for three months at least where these are not too many.
ROWS, DAYS_MIN, DAYS_MAX = 4000, 92, 2000
LENGTH = 3000


@dataclass(frozen=True)
class Count:
    """What candles cost, and what they could have cost."""

    program: str
    market: Market
    interval: str
    rows: int
    requests: int
    requests_least: int
    weight: int
    weight_least: int
    """In pages of the limit that buys most candles for its weight."""
    weight_largest: int
    """In pages of the exchange's largest limit."""

    def line(self) -> str:
        """Return a row of the table."""
        per_row = self.weight / self.rows * 1000
        return (
            f"| {self.program} | {self.market} | {self.interval} | {self.rows:,} | {self.requests} | "
            f"{self.requests_least} | {self.weight} | {self.weight_least} | {self.weight_largest} | {per_row:.2f} |"
        )


HEADER = (
    "| | market | interval | rows | requests | least | weight | least | largest limit | weight per 1000 rows |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def cost(exchange: Binance, interval: str, rows: int, limit: int) -> tuple[int, int]:
    """Return requests and weight of so many rows of one symbol, in pages of `limit` and a shorter last one."""
    slots = min(limit, SPAN_MS // INTERVAL_MS[interval]) if exchange.market == "CM" else limit
    pages, rest = divmod(rows, slots)
    return pages + (rest > 0), pages * exchange.weight_of(slots) + (exchange.weight_of(rest) if rest else 0)


def counted(
    program: str, sim: SimulatedExchange, market: Market, interval: str, rows: Sequence[int], before: int
) -> Count:
    """Return what a program requested of the klines since `before`, for so many rows of each symbol."""
    exchange = Binance(market, base_url=sim.base_url)
    served = [request for request in sim.served() if "/klines" in request.target][before:]
    limits = [int(request.target.split("limit=")[1].split("&")[0]) for request in served]
    least = [cost(exchange, interval, count, exchange.page_limit) for count in rows]
    largest = [cost(exchange, interval, count, LIMITS_MAX[market]) for count in rows]
    return Count(
        program,
        market,
        interval,
        sum(rows),
        len(served),
        sum(requests for requests, _ in least),
        sum(exchange.weight_of(limit) for limit in limits),
        sum(weight for _, weight in least),
        sum(weight for _, weight in largest),
    )


def downloaded(market: Market, interval: str, symbols: Sequence[str], days: int, directory: Path) -> Count:
    """Count what a download of so many days costs."""
    with SimulatedExchange(symbols=20, spot_limit=UNLIMITED, futures_limit=UNLIMITED) as sim:
        config = CollectorConfig(
            market=market, symbols=list(symbols), interval=interval, timezone="UTC", base_url=sim.base_url
        )
        clock = SystemClock()
        exchange = Binance(market, base_url=sim.base_url)
        client = Client(exchange, HttpTransport(clock), clock, WeightBudget(UNLIMITED, 0.75), 30.0)
        last = Day.of(sim.now_ms(), Zone("UTC")).previous()
        first = last.date - timedelta(days=days - 1)
        done = fetch_days(config, store_of(config, directory), client, first, last.date)
        assert done is not None
        assert done.failed == 0
        start_ms = Day(first, Zone("UTC")).start_ms
        # Before the listing of a symbol there is nothing to fetch.
        listed = [max(start_ms, sim.truth.instrument(market, symbol).listed_ms) for symbol in symbols]
        rows = [(last.end_ms - from_ms // DAY_MS * DAY_MS) // INTERVAL_MS[interval] for from_ms in listed]
        return counted("download", sim, market, interval, rows, 0)


def collected(market: Market, interval: str, symbols: Sequence[str]) -> Count:
    """Count what the start of a collector costs."""
    with SimulatedExchange(symbols=20, spot_limit=UNLIMITED, futures_limit=UNLIMITED) as sim:
        name = f"bench-pages-{market.lower()}-{interval}"
        config = CollectorConfig(
            market=market,
            symbols=list(symbols),
            interval=interval,
            length=LENGTH,
            name=name,
            base_url=sim.base_url,
            update_interval_seconds=60.0,
        )
        with Collector(config) as collector:
            assert collector.wait_loaded(120.0)
            with candleshm.attach(name) as feed:
                rows = [len(feed[symbol].candles()) for symbol in symbols]
            return counted("collector", sim, market, interval, rows, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markets", default="SPOT,UM,CM")
    parser.add_argument("--intervals", default=",".join(INTERVAL_MS))
    parser.add_argument("--symbols", type=int, default=1, choices=range(1, 5))
    parser.add_argument("--days", type=int, help="days of a download, instead of some pages of them")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counts: list[Count] = []
    print(HEADER, flush=True)
    for market in [market for market in SYMBOLS if market in arguments.markets.split(",")]:
        symbols = SYMBOLS[market][: arguments.symbols]
        for interval in [name for name in arguments.intervals.split(",") if market == "SPOT" or name != "1s"]:
            if interval in DAILY_INTERVALS:
                slots = DAY_MS // INTERVAL_MS[interval]
                days = arguments.days or min(DAYS_MAX, max(3 if interval == "1s" else DAYS_MIN, -(-ROWS // slots)))
                directory = Path(tempfile.mkdtemp(prefix="candleshm-pages-"))
                try:
                    counts.append(downloaded(market, interval, symbols, days, directory))
                finally:
                    shutil.rmtree(directory)
                print(counts[-1].line(), flush=True)
            counts.append(collected(market, interval, symbols))
            print(counts[-1].line(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(count) for count in counts], indent=1) + "\n")


if __name__ == "__main__":
    main()
