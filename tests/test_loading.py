"""A start ends, whatever the responses for one symbol are, and the symbol is named and requested again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.loading import (
    FAILURES_MAX,
    hopeless,
    limited_delay_seconds,
    refused_delay_seconds,
    tries_max,
)
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.exchanges.binance import Binance
from candleshm.sim import Fault, Outage, SimulatedExchange, html, rate_limited, refused
from tests.support.collecting import (
    DEADLINE_SECONDS,
    MINUTE,
    SYMBOLS,
    SteppedClock,
    assert_complete_and_true,
    assert_true,
    config_of,
    klines,
    status_of,
    until,
)
from tests.test_planner import NOW, NOW_MS, OPEN_MS, Position

OTHERS = ["BTCUSDT", "SUSHIBTC"]
OLD_PAGE = '[[1500000000000,"1","1","1","1","1",1500000059999,"1",1,"1","1","0"]]'


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.mark.parametrize(
    "fault",
    [
        refused(400, -1122, "Invalid symbol status.", symbol="ETHUSDT"),
        refused(400, -1121, "Invalid symbol.", symbol="ETHUSDT"),
        refused(400, -1, "A code nobody has seen.", symbol="ETHUSDT"),
        refused(200, -1122, "Invalid symbol status.", symbol="ETHUSDT"),
        html(400, symbol="ETHUSDT"),
        html(404, symbol="ETHUSDT"),
        html(451, symbol="ETHUSDT"),
        rate_limited(1, symbol="ETHUSDT"),
        Fault(kind="status", status=200, body=OLD_PAGE, symbol="ETHUSDT"),
        Fault(kind="status", status=200, body="[]", symbol="ETHUSDT"),
        Fault(kind="rows", rows="few", symbol="ETHUSDT"),
        Fault(kind="rows", rows="partial", symbol="ETHUSDT"),
    ],
    ids=["-1122", "-1121", "-1", "200", "400", "404", "451", "429", "same", "empty", "few", "partial"],
)
def test_a_start_ends_whatever_the_responses_about_one_symbol_are(
    exchange: SimulatedExchange, block_name: str, fault: Fault
) -> None:
    exchange.faults.add(fault)
    with Collector(config_of(exchange, block_name)) as collector, candleshm.attach(block_name) as feed:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        status = status_of(collector)
        assert status.ready
        assert set(status.given_up) <= {"ETHUSDT"}
        until(lambda: feed.health.ready)
        assert_complete_and_true(exchange, feed, OTHERS)


def test_a_symbol_that_was_refused_is_requested_after_minutes_and_loaded_then(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SteppedClock()
    exchange.faults.add(refused(400, -1122, "Invalid symbol status.", symbol="ETHUSDT"))
    with Collector(config_of(exchange, block_name), clock=clock) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert status_of(collector).given_up == ("ETHUSDT",)
        assert "ETHUSDT: given up for now" in caplog.text
        requested = exchange.stats().count("/klines", "ETHUSDT")
        assert requested == FAILURES_MAX
        exchange.faults.clear()
        clock.ahead_seconds += 301
        exchange.skew_ms += 301_000
        until(lambda: status_of(collector).given_up == ())
        with candleshm.attach(block_name) as feed:
            until(lambda: feed.health.missing == 0)
            assert_complete_and_true(exchange, feed)
        assert status_of(collector).failing == {}


def test_a_server_whose_limit_counts_times_does_not_keep_a_start_waiting_for_its_hole(
    exchange: SimulatedExchange, block_name: str
) -> None:
    minute = exchange.now_ms() // MINUTE * MINUTE
    exchange.truth.add_outage(Outage(start_ms=minute - 60 * MINUTE, end_ms=minute - 30 * MINUTE))
    exchange.faults.add(Fault(kind="rows", rows="slots"))
    with Collector(config_of(exchange, block_name)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert status_of(collector).given_up == tuple(SYMBOLS["SPOT"])
        assert status_of(collector).ready


def test_older_pages_are_requested_while_holes_wait_for_their_confirmation(
    exchange: SimulatedExchange, block_name: str
) -> None:
    minute = exchange.now_ms() // MINUTE * MINUTE
    for hour in range(1, 18):
        start_ms = minute - hour * 180 * MINUTE
        exchange.truth.add_outage(Outage(start_ms=start_ms, end_ms=start_ms + 15 * MINUTE, symbol="BTCUSDT"))
    # Long before the settle time is over, all pages are there.
    changes = {"symbols": ["BTCUSDT"], "length": 3600, "settle_seconds": 3.0, "update_interval_seconds": 60.0}
    with Collector(config_of(exchange, block_name, **changes)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert status_of(collector).given_up == ()
        with candleshm.attach(block_name) as feed:
            assert feed.health.missing == 0
            assert feed.health.holes == 17 * 15
            assert_true(exchange, feed, ["BTCUSDT"])
    ends_ms = [int(query.get("endTime", minute)) for _, query in klines(exchange)]
    # 3600 times less the holes are four pages of 1000, and no page waits: each reaches further back than the last.
    assert ends_ms[:4] == sorted(ends_ms[:4], reverse=True)
    assert ends_ms[3] < minute - 2900 * MINUTE
    # The holes of each page are confirmed by one request.
    assert len(ends_ms) <= 4 + 4 + 1


def test_one_symbol_whose_every_response_is_a_429_leaves_the_pool_to_the_others(
    exchange: SimulatedExchange, block_name: str
) -> None:
    exchange.faults.add(rate_limited(1, symbol="ETHUSDT"))
    with Collector(config_of(exchange, block_name, interval="1s", length=30)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        assert status_of(collector).given_up == ("ETHUSDT",)
        before = len([page for _, page in klines(exchange) if page["symbol"] == "ETHUSDT"])
        with candleshm.attach(block_name) as feed:
            for _ in range(4):
                feed.wait_closed(symbols=OTHERS, timeout=DEADLINE_SECONDS)
        assert len([page for _, page in klines(exchange) if page["symbol"] == "ETHUSDT"]) <= before + 2


def spot(length: int = 2880) -> int:
    exchange = Binance("SPOT")
    return tries_max(exchange, PollPolicy("1m", length, 3.0, 1000, exchange.tail_limit))


def learn(plan: SeriesPlan, position: Position, kind: Kind) -> None:
    plan.learn(position, sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=kind)


def test_three_failures_in_a_row_are_enough_and_a_success_between_them_begins_anew() -> None:
    plan = SeriesPlan("ETHUSDT")
    for _ in range(FAILURES_MAX - 1):
        plan.fail(refused=False)
    assert hopeless(plan, spot()) is None
    learn(plan, Position(OPEN_MS, OPEN_MS, 880, closed=1000), Kind.TAIL)
    plan.fail(refused=False)
    assert hopeless(plan, spot()) is None
    plan.fail(refused=False)
    plan.fail(refused=False)
    assert "3 requests in a row failed" in (hopeless(plan, spot()) or "")


def test_a_gap_that_leaves_the_window_while_it_is_requested_is_no_progress() -> None:
    plan = SeriesPlan("ETHUSDT")
    learn(plan, Position(OPEN_MS, OPEN_MS, 80, closed=1000), Kind.TAIL)
    responses = 0
    while hopeless(plan, spot()) is None:
        responses += 1
        # Each second a candle opens, and one that was missing leaves the window.
        learn(plan, Position(OPEN_MS + responses, OPEN_MS + responses, 80 - responses), Kind.BACKFILL)
    assert responses == 6
    assert "none of the 74 missing candles" in (hopeless(plan, spot()) or "")


def test_failures_alternating_with_responses_without_progress_are_hopeless() -> None:
    plan = SeriesPlan("ETHUSDT")
    learn(plan, Position(OPEN_MS, OPEN_MS, 80, closed=1000), Kind.TAIL)
    for _ in range(3):
        assert hopeless(plan, spot()) is None
        plan.fail(refused=False)
        learn(plan, Position(OPEN_MS, OPEN_MS, 80), Kind.BACKFILL)
    assert hopeless(plan, spot()) is not None


def test_a_row_at_a_time_is_not_waited_for_either() -> None:
    plan, tries = SeriesPlan("ETHUSDT"), 0
    while hopeless(plan, spot(100_000)) is None:
        tries += 1
        learn(plan, Position(OPEN_MS, OPEN_MS, 100_000 - tries, closed=1), Kind.BACKFILL)
    assert tries == spot(100_000) < 1100


def test_refusals_are_tried_again_soon_while_a_series_loads_and_down_to_once_an_hour_then() -> None:
    plan, pauses = SeriesPlan("ETHUSDT"), []
    for _ in range(30):
        plan.fail(refused=True)
        pauses.append(refused_delay_seconds(plan))
    assert pauses[:7] == [1, 2, 300, 600, 1200, 2400, 3600]
    assert pauses[-1] == 3600
    plan.loaded, plan.failures = True, 1
    assert refused_delay_seconds(plan) == 300


def test_a_first_429_costs_a_series_nothing_more_and_later_ones_ever_more() -> None:
    plan, pauses = SeriesPlan("ETHUSDT"), []
    for _ in range(30):
        plan.fail(refused=False)
        pauses.append(limited_delay_seconds(plan))
    assert pauses[:4] == [0, 5, 10, 20]
    assert pauses[-1] == 3600
