"""Downloads from the simulated exchange, and what is asked of them: the words that several test files share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from candleshm._core import Zone
from candleshm.config import CollectorConfig
from candleshm.exchanges.binance import Binance
from candleshm.history.candles import Candles
from candleshm.history.day import Day, DayLike
from candleshm.history.fetching import fetch_days, store_of
from candleshm.history.tally import DownloadProgress
from candleshm.ratelimit.budget import WeightBudget
from candleshm.rest.client import Client
from candleshm.rest.transport import HttpTransport
from candleshm.sim import SimulatedExchange
from candleshm.system.clock import Clock, SystemClock
from tests.support.collecting import SYMBOLS, config_of


def day_before(exchange: SimulatedExchange, count: int = 1, zone: str = "UTC") -> Day:
    """Return the day that lies `count` days before the exchange's today."""
    day = Day.of(exchange.now_ms(), Zone(zone))
    for _ in range(count):
        day = day.previous()
    return day


def downloaded(
    exchange: SimulatedExchange,
    directory: Path,
    start: DayLike | None,
    end: DayLike | None = None,
    *,
    clock: Clock | None = None,
    stopping: threading.Event | None = None,
    progress: Callable[[DownloadProgress], object] | None = None,
    form: Any = "parquet",
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> DownloadProgress:
    """Fetch days of UTC into files of `directory`; return what came of it."""
    config = config_of(exchange, "download", **({"timezone": "UTC", "settle_seconds": 0.2} | changes))
    done = fetch_days(
        config,
        store_of(config, directory, form),
        client_of(config, clock or SystemClock()),
        start,
        end,
        stopping=stopping,
        progress=progress,
        **(options or {}),
    )
    assert done is not None
    return done


def client_of(config: CollectorConfig, clock: Clock) -> Client:
    """Return a way to the exchange with a budget of its own."""
    exchange = Binance(config.market, price=config.price, base_url=config.base_url)
    budget = WeightBudget(exchange.weight_limit, config.server_weight)
    return Client(exchange, HttpTransport(clock), clock, budget, config.start_seconds)


def truth_of(exchange: SimulatedExchange, day: Day, symbol: str, market: Any = "SPOT", interval: str = "1m") -> Candles:
    """Return the exchange's final candles of a day."""
    rows: Candles = exchange.truth.floats(market, symbol, interval, day.start_ms, day.end_ms)
    return rows


def counts(done: DownloadProgress) -> list[tuple[str, int, int, int, int, int]]:
    """Return (day, ALL, SKIP, SUC, WARN, ERROR) of every day that is done, in the order in which they were."""
    return [(str(t.day), t.all, t.skipped, t.written, t.remarked, t.failed) for t in done.tallies]


__all__ = ["SYMBOLS", "client_of", "counts", "day_before", "downloaded", "truth_of"]
