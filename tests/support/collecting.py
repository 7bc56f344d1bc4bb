"""Collectors of the simulated exchange, and what is asked of them: the words that several test files share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import numpy as np

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.status import CollectorStatus
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import Market, Price
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from candleshm.system.clock import SystemClock

MINUTE = 60_000
CLOSED = RowState.CLOSED
SYMBOLS: dict[Market, list[str]] = {
    "SPOT": ["BTCUSDT", "ETHUSDT", "SUSHIBTC"],
    "UM": ["BTCUSDT", "ETHUSDT", "XRPUSDT"],
    "CM": ["BTCUSD_PERP", "ETHUSD_PERP", "XRPUSD_PERP"],
}
FUTURES: tuple[Market, ...] = ("UM", "CM")
KINDS: list[tuple[Market, Price]] = [(market, "trade") for market in SYMBOLS]
KINDS += [(market, price) for market in FUTURES for price in ("mark", "index", "premium")]
"""Every market with every price that it has."""
DEADLINE_SECONDS = 120.0

T = TypeVar("T")


class SteppedClock(SystemClock):
    """The machine's monotonic clock, moved by hand; and a wall clock that never tells the same time twice."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self._shown = 0

    def monotonic_seconds(self) -> float:
        """Return the machine's time and what was added to it."""
        return super().monotonic_seconds() + self.ahead_seconds

    def epoch_ms(self) -> int:
        """Return a time that is wrong by minutes, each time in the other direction."""
        self._shown += 1
        return super().epoch_ms() + (7 * MINUTE if self._shown % 2 else -11 * MINUTE)


class WorldClock(SteppedClock):
    """The one time of a collector and of its exchange, moved by hand: hours pass in seconds, and both see the same.

    The exchange takes it as `clock_ms`; it starts at `start_ms`, or at what the machine says.
    """

    def __init__(self, start_ms: int | None = None) -> None:
        super().__init__()
        self.step_seconds = 4.0  # below what a collector takes for a machine that slept
        start_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
        self._offset_ms = start_ms - round(self.monotonic_seconds() * 1000)

    def __call__(self) -> int:
        return self._offset_ms + round(self.monotonic_seconds() * 1000)

    def let_pass(self, collector: Collector, seconds: float) -> None:
        """Let at least a second pass, in steps; after each wait until the collector has done what was due."""
        steps = math.ceil(seconds / self.step_seconds)
        for _ in range(steps):
            self.ahead_seconds += seconds / steps
            collector.wake()
            until(partial(collector.is_idle_at, self.monotonic_seconds()), pause_seconds=0.001)

    def let_pass_until(self, collector: Collector, question: Callable[[], T]) -> T:
        """Let steps pass until the answer is true, and return it; an hour only guards against waiting for ever."""
        for _ in range(math.ceil(3600 / self.step_seconds)):
            if answer := question():
                return answer
            self.let_pass(collector, self.step_seconds)
        raise AssertionError("did not come true within an hour")


def until(question: Callable[[], T], pause_seconds: float = 0.02) -> T:
    """Ask until the answer is true, and return it; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline_seconds:
        if answer := question():
            return answer
        time.sleep(pause_seconds)
    raise AssertionError("did not come true")


def symbols_of(market: Market, price: Price) -> list[str]:
    """Return the symbols of a market; of an index their pairs."""
    return [name.removesuffix("_PERP") if price == "index" else name for name in SYMBOLS[market]]


def config_of(exchange: SimulatedExchange, name: str, **changes: Any) -> CollectorConfig:
    """Return a quick feed of three symbols."""
    settings: dict[str, Any] = {
        "market": "SPOT",
        "symbols": symbols_of(changes.get("market", "SPOT"), changes.get("price", "trade")),
        "length": 100,
        "name": name,
        "base_url": exchange.base_url,
        "update_interval_seconds": 0.5,
    }
    return CollectorConfig(**(settings | changes))


@contextmanager
def collecting(
    exchange: SimulatedExchange, name: str, *, clock: SystemClock | None = None, **changes: Any
) -> Iterator[tuple[Collector, Feed]]:
    """Run a collector; give it and its feed once everything is loaded."""
    with Collector(config_of(exchange, name, **changes), clock=clock) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        with candleshm.attach(name) as feed:
            yield collector, feed


def loaded(collector: Collector) -> Feed:
    """Start, wait until everything is loaded, and attach."""
    collector.start()
    assert collector.wait_loaded(DEADLINE_SECONDS)
    return candleshm.attach(collector.config.block_name)


def status_of(collector: Collector) -> CollectorStatus:
    """Return the status of a collector that has a block."""
    status = collector.status()
    assert status is not None
    return status


def close_seconds(feed: Feed, count: int, symbols: list[str] | None = None) -> None:
    """Wait until `count` more candles of 1s have closed, one after the other, for all of `symbols`."""
    newest_ms = max(feed[symbol].last_open_time_ms or 0 for symbol in symbols or feed.symbols)
    for step in range(1, count + 1):
        feed.wait_closed(newest_ms + step * 1000, symbols=symbols, timeout=DEADLINE_SECONDS)


def truth_of(exchange: SimulatedExchange, feed: Feed, symbol: str, open_ms: np.ndarray[Any, Any]) -> Any:
    """Return the exchange's final candles from the first to the last of `open_ms`."""
    first_ms, end_ms = int(open_ms[0]), int(open_ms[-1]) + 1
    return exchange.truth.floats(feed.market, symbol, feed.interval, first_ms, end_ms, price=feed.price)


def assert_true(exchange: SimulatedExchange, feed: Feed, symbols: list[str] | None = None) -> None:
    """Every closed row is the exchange's final candle, bit for bit."""
    for symbol in symbols or feed.symbols:
        rows = feed[symbol].candles(closed_only=True)
        np.testing.assert_array_equal(rows, truth_of(exchange, feed, symbol, rows[:, candleshm.OPEN_TIME_MS]))


def assert_complete_and_true(exchange: SimulatedExchange, feed: Feed, symbols: list[str] | None = None) -> None:
    """As `assert_true`; and the window is full, and all of it is final but the newest rows."""
    for symbol in symbols or feed.symbols:
        assert not feed[symbol].gaps()
        states = feed[symbol].states(holes="nan")
        assert len(states) == feed.length
        assert set(states[: -len(states) // 2]) == {CLOSED}
    assert_true(exchange, feed, symbols)


def klines(exchange: SimulatedExchange) -> list[tuple[int, dict[str, str]]]:
    """Return when and with which parameters klines were asked for, of any price."""
    return [
        (served.received_ms, {name: values[0] for name, values in parse_qs(urlsplit(served.target).query).items()})
        for served in exchange.served()
        if urlsplit(served.target).path.lower().endswith("klines")
    ]
