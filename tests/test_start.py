"""A start of many symbols: as fast as the network allows, without a refusal, and beside everything else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.sim import Served, SimulatedExchange
from tests.support.collecting import (
    DEADLINE_SECONDS,
    MINUTE,
    SteppedClock,
    assert_complete_and_true,
    close_seconds,
    collecting,
    config_of,
    status_of,
    until,
)
from tests.support.commanding import lines_until, started

SYMBOLS = 120
LENGTH = 1500
# Two pages of weight 2 each for every symbol: more than two seconds' worth of the budget, less than two thirds of it.
LIMIT = 1200
BUDGET = 900


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=SYMBOLS, spot_limit=LIMIT) as running:
        yield running


def names_of(exchange: SimulatedExchange) -> list[str]:
    return [item.symbol for item in exchange.truth.instruments("SPOT") if item.status == "TRADING"][:SYMBOLS]


def paths(served: list[Served]) -> list[Served]:
    return [one for one in served if one.target.startswith("/api/")]


def weights_of(served: list[Served]) -> Counter[str]:
    """Return the weight of requests for candles, by interval."""
    weights: Counter[str] = Counter()
    for one in served:
        for interval in parse_qs(urlsplit(one.target).query).get("interval", []):
            weights[interval] += one.weight
    return weights


def heaviest_minute(served: list[Served]) -> int:
    """Return the most weight in any 60 s, by the exchange's own account."""
    heaviest = 0
    for first in served:
        end_ms = first.received_ms + MINUTE
        heaviest = max(heaviest, sum(one.weight for one in served if first.received_ms <= one.received_ms < end_ms))
    return heaviest


def test_a_start_spends_two_thirds_at_once_and_is_never_refused(exchange: SimulatedExchange, block_name: str) -> None:
    config = config_of(exchange, block_name, symbols=names_of(exchange), length=LENGTH, update_interval_seconds=3600)
    with Collector(config) as collector, candleshm.attach(block_name) as feed:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert_complete_and_true(exchange, feed, names_of(exchange)[::20])
    asked = paths(exchange.served())
    assert {one.status for one in asked} == {200}
    assert heaviest_minute(asked) <= BUDGET
    # Evenly, the whole of it would have taken half a minute and longer; the first window holds nearly all of it.
    first_ms = asked[0].received_ms
    assert sum(one.weight for one in asked if one.received_ms < first_ms + MINUTE) >= 480


def test_two_collectors_that_start_at_once_share_the_burst(exchange: SimulatedExchange, block_name: str) -> None:
    words = f"serve --market spot --symbols all --length {LENGTH} --update-interval-seconds 3600".split()
    words += ["--base-url", exchange.base_url]
    with (
        started(*words, "--name", f"{block_name}-1m", "--interval", "1m") as first,
        started(*words, "--name", f"{block_name}-5m", "--interval", "5m") as second,
    ):
        until(lambda: sum(one.weight for one in exchange.served()) >= BUDGET * 0.66)
        asked = paths(exchange.served())
        assert (first.poll(), second.poll()) == (None, None)
    assert {one.status for one in asked} == {200}
    assert heaviest_minute(asked) <= BUDGET
    weights = weights_of(asked)
    assert min(weights["1m"], weights["5m"]) >= 0.2 * sum(weights.values())


def test_closing_candles_are_on_time_while_another_collector_starts(
    exchange: SimulatedExchange, block_name: str
) -> None:
    names = ["BTCUSDT", "ETHUSDT"]
    with collecting(exchange, f"{block_name}-1s", interval="1s", symbols=names, length=30) as (_, feed):
        # More than two windows can pay for.
        config = config_of(exchange, block_name, symbols=names_of(exchange), length=9000)
        with Collector(config) as starting:
            until(lambda: weights_of(exchange.served())["1m"] >= BUDGET * 0.5)
            close_seconds(feed, 4)
            assert not status_of(starting).is_loaded
        assert_complete_and_true(exchange, feed, names)
    asked = paths(exchange.served())
    assert {one.status for one in asked} == {200}
    assert heaviest_minute(asked) <= BUDGET


def test_a_repair_of_more_than_a_hundred_series_is_a_burst(exchange: SimulatedExchange, block_name: str) -> None:
    clock = SteppedClock()
    config = config_of(exchange, block_name, symbols=names_of(exchange), length=1900, update_interval_seconds=60)
    with Collector(config, clock=clock) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        # More than one page; and the weight of the start no longer counts.
        clock.ahead_seconds += 1500 * 60
        exchange.skew_ms += 1500 * MINUTE
        since_ms = exchange.now_ms()

        def repairs() -> list[Served]:
            return [one for one in exchange.served() if one.received_ms >= since_ms and "endTime=" in one.target]

        until(lambda: len({parse_qs(urlsplit(one.target).query)["symbol"][0] for one in repairs()}) == SYMBOLS)
    first_ms = repairs()[0].received_ms
    # Evenly it would be 135 at most.
    assert sum(one.weight for one in repairs() if one.received_ms < first_ms + 10_000) >= 200
    assert {one.status for one in paths(exchange.served())} == {200}


def test_the_progress_of_a_start_names_the_weight_and_the_time_that_are_left(
    exchange: SimulatedExchange, block_name: str
) -> None:
    words = f"serve --market spot --symbols all --length 9000 --name {block_name}".split()
    words += ["--base-url", exchange.base_url]
    with started(*words) as process:
        shown = lines_until(process, " s to go\n")
    (line,) = re.findall(r"loading: *[0-9]+%  (.*)", shown)
    number = "[0-9,]+"
    assert re.fullmatch(
        f"{number} of {number} symbols, {number} rows, {number} of {BUDGET} weight left in this window, "
        f"{number} s to go",
        line,
    )
