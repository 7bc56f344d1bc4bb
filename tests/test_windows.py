"""The longest window of every interval in every market is loaded in a bounded number of requests, each of which can be
asked: the real writer and planner, and an exchange that is nothing but its rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from candleshm._core import Writer
from candleshm.collector.loading import hopeless, tries_max
from candleshm.collector.planner import next_tasks, request_for
from candleshm.collector.series_plan import PollPolicy, SeriesPlan
from candleshm.exchanges.base import KlineRequest, Market
from candleshm.exchanges.binance import Binance
from candleshm.sim.world.grid import DAY_MS, Grid
from candleshm.sim.world.universe import utc_ms

LENGTH_MAX = 100_000
LISTED_MS = utc_ms("2017-08-17T04:00")
NOW_MS = utc_ms("2026-10-14T09:26:53")
SPAN_MS = 200 * DAY_MS
EACH = [(market, interval) for market in ("SPOT", "UM", "CM") for interval in Binance(market).intervals]


@pytest.fixture
def writer(block_name: str, request: pytest.FixtureRequest) -> Iterator[Writer]:
    market, interval, length = request.param
    opened = Writer.open(block_name, market=market, interval=interval, length=length, symbols=["BTCUSDT"])
    yield opened
    opened.close()


def response_to(request: KlineRequest, market: Market, now_ms: int) -> bytes:
    """Return the newest rows that the request can mean, and check that it may be asked."""
    assert 1 <= request.limit <= 1500
    assert request.end_ms is None or 0 <= request.end_ms <= now_ms
    assert request.start_ms is None or (request.end_ms is not None and 0 <= request.start_ms <= request.end_ms)
    end_ms = now_ms if request.end_ms is None else request.end_ms
    start_ms = request.start_ms or 0
    if market == "CM":
        assert request.start_ms is None or end_ms - request.start_ms <= SPAN_MS
        start_ms = max(start_ms, end_ms - SPAN_MS)
    grid = Grid.of(request.interval, LISTED_MS)
    rows: list[list[int | str]] = []
    open_ms = grid.floor(end_ms)
    while len(rows) < request.limit and open_ms >= max(start_ms, grid.floor(LISTED_MS)):
        rows.append([open_ms, "1", "1", "1", "1", "2", grid.shift(open_ms, 1) - 1, "2", 3, "1", "1", "0"])
        open_ms = grid.shift(open_ms, -1)
    return json.dumps(rows[::-1]).encode()


def load(writer: Writer, market: Market, interval: str, length: int) -> tuple[SeriesPlan, PollPolicy, Binance]:
    """Do what the loop does until the series is loaded or given up; no clock has to be waited for."""
    exchange, plan = Binance(market), SeriesPlan("BTCUSDT")
    policy = PollPolicy(interval, length, 3.0, 1000, exchange.tail_limit)
    now = 0.0
    while not plan.loaded and hopeless(plan, tries_max(exchange, policy)) is None:
        now_ms = NOW_MS + round(now * 1000)
        task = min(next_tasks(plan, policy, now, now_ms), key=lambda task: task.due_seconds)
        now = max(now, task.due_seconds)
        now_ms = NOW_MS + round(now * 1000)
        request = request_for(plan, task.kind, exchange, policy, now_ms)
        ingested = writer.ingest(
            "BTCUSDT",
            response_to(request, market, now_ms),
            sent_ms=now_ms,
            received_ms=now_ms,
            settle_ms=policy.settle_ms,
            limit=request.limit,
            start_ms=request.start_ms,
            end_ms=request.end_ms,
            from_end=True,
        )
        plan.learn(ingested, sent_seconds=now, sent_ms=now_ms, now_seconds=now, kind=task.kind)
        plan.note_missing(ingested)
    return plan, policy, exchange


@pytest.mark.parametrize(
    ("writer", "market", "interval"),
    [((market, interval, LENGTH_MAX), market, interval) for market, interval in EACH],
    indirect=["writer"],
    ids=[f"{market}-{interval}" for market, interval in EACH],
)
def test_the_longest_window_is_loaded_though_it_reaches_beyond_the_first_day_of_the_calendar(
    writer: Writer, market: Market, interval: str
) -> None:
    plan, policy, exchange = load(writer, market, interval, LENGTH_MAX)

    assert plan.loaded
    assert plan.tries <= tries_max(exchange, policy)
    assert plan.missing == 0
