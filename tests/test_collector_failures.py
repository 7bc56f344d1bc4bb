"""What goes wrong at the exchange or with a clock: rows stay true, requests stay few, and nothing needs a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.errors import RateLimited
from candleshm.sim import KNOWN_OUTAGES, Fault, SimulatedExchange, banned, html, rate_limited, refused
from candleshm.sim.world.universe import utc_ms
from tests.support.collecting import (
    CLOSED,
    DEADLINE_SECONDS,
    MINUTE,
    SteppedClock,
    assert_complete_and_true,
    assert_true,
    close_seconds,
    collecting,
    config_of,
    klines,
    status_of,
    truth_of,
    until,
)

OTHERS = ["BTCUSDT", "SUSHIBTC"]
HOLE_MS = (utc_ms("2023-03-24T12:40"), utc_ms("2023-03-24T14:00"))


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def test_a_429_stops_all_requests_for_as_long_as_it_states(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, block_name, interval="1s", workers=1) as (collector, feed):
        exchange.faults.add(rate_limited(3, path="/klines", count=1))
        until(lambda: exchange.stats().count(status=429))
        until(lambda: status_of(collector).banned_until_ms)
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        served = exchange.served()
        refused_at = next(index for index, one in enumerate(served) if one.status == 429)
        assert served[refused_at + 1].received_ms - served[refused_at].received_ms >= 3000
        until(lambda: status_of(collector).banned_until_ms is None)
        assert (status_of(collector).errors, status_of(collector).bans) == ({"RateLimited": 1}, 0)


def test_a_418_stops_all_requests_until_the_epoch_it_names(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, block_name, interval="1s", workers=1) as (collector, feed):
        until_ms = exchange.now_ms() + 3000
        exchange.faults.add(banned(until_ms, path="/klines"))
        until(lambda: status_of(collector).banned_until_ms)
        assert status_of(collector).banned_until_ms == pytest.approx(until_ms, abs=100)
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        assert exchange.stats().count(status=418) == 1
        refused_at = next(index for index, one in enumerate(exchange.served()) if one.status == 418)
        assert exchange.served()[refused_at + 1].received_ms >= until_ms - 50
        assert (status_of(collector).errors, status_of(collector).bans) == ({"Banned": 1}, 1)


@pytest.mark.parametrize(
    ("fault", "seconds", "requested", "kind", "bans"),
    [
        (rate_limited(path="/klines"), 60, 1, "RateLimited", 0),
        (html(403, path="/klines"), 120, 1, "Banned", 1),
        # A blocked country does not concern the weight: each series is refused once, and requested again minutes later.
        (html(451, path="/klines"), 300, 3, "ExchangeError", 0),
    ],
    ids=["429", "403", "451"],
)
def test_a_refusal_without_a_time_is_believed_for_minutes_and_then_overcome(
    exchange: SimulatedExchange, block_name: str, fault: Fault, seconds: int, requested: int, kind: str, bans: int
) -> None:
    clock = SteppedClock()
    with collecting(exchange, block_name, clock=clock, workers=1) as (collector, feed):
        before = exchange.stats().count("/klines")
        exchange.faults.add(fault)
        until(lambda: status_of(collector).errors.get(kind) == requested)
        exchange.faults.clear()
        # Some rounds of what would have been requested otherwise.
        time.sleep(2.0)
        assert exchange.stats().count("/klines") == before + requested

        clock.ahead_seconds += seconds + 1
        exchange.skew_ms += (seconds + 1) * 1000
        live_ms = exchange.now_ms() // MINUTE * MINUTE
        until(lambda: all((feed[symbol].last_open_time_ms or 0) >= live_ms for symbol in feed.symbols))
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        assert (status_of(collector).errors, status_of(collector).bans) == ({kind: requested}, bans)
        until(lambda: status_of(collector).banned_until_ms is None)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refused(503, -1008, "Request throttled by system-level protection.", symbol="ETHUSDT"), "ExchangeUnavailable"),
        (html(502, symbol="ETHUSDT"), "ExchangeUnavailable"),
        (Fault(kind="truncate", symbol="ETHUSDT"), "BadResponse"),
        (Fault(kind="reset", symbol="ETHUSDT"), "ExchangeUnavailable"),
        (Fault(kind="hang", symbol="ETHUSDT"), None),
        (Fault(kind="trickle", bytes_per_second=20, symbol="ETHUSDT"), None),
        (Fault(kind="latency", delay_ms=3000, symbol="ETHUSDT"), None),
    ],
    ids=["503", "502", "truncate", "reset", "hang", "trickle", "slow"],
)
def test_a_symbol_that_begins_to_fail_delays_no_other_and_recovers(
    exchange: SimulatedExchange, block_name: str, fault: Fault, kind: str | None
) -> None:
    with collecting(exchange, block_name, interval="1s", length=60, settle_seconds=0.5) as (
        collector,
        feed,
    ):
        exchange.faults.add(fault)
        met = until(lambda: exchange.faults.in_force()[0][1])
        requested = exchange.stats().count("/klines", "ETHUSDT")
        for _ in range(3):
            # Each second closes for the others while the next one is still live: none waits for the one that fails.
            open_ms = feed.wait_closed(symbols=OTHERS, timeout=DEADLINE_SECONDS).open_time_ms
            assert exchange.now_ms() - open_ms < 15_000
        assert_complete_and_true(exchange, feed, OTHERS)
        # Where it failed it was requested again, ever later: at most 0.2, 0.4, 0.8, 1.6 s, not with every turn.
        assert exchange.stats().count("/klines", "ETHUSDT") - requested <= 8
        assert met >= 1
        if kind is not None:
            status = status_of(collector)
            assert set(status.errors) == {kind}
            assert set(status.failing) <= {"ETHUSDT"}
            exchange.faults.clear()
            until(lambda: status_of(collector).failing == {} and feed.health.missing == 0)
            assert_complete_and_true(exchange, feed)


def test_rows_that_cannot_be_true_are_left_out_and_counted(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, block_name, interval="1s") as (collector, feed):
        open_ms = exchange.now_ms() // 1000 * 1000
        row = f'[{open_ms},"5","4","6","5","1",{open_ms + 999},"1",1,"1","1","0"]'
        body = f"[{row}]"
        exchange.faults.add(Fault(kind="status", status=200, body=body, path="/klines", symbol="ETHUSDT", count=2))
        until(lambda: status_of(collector).refused == 2)
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        assert not status_of(collector).errors


def test_eighty_minutes_without_rows_are_a_confirmed_hole_and_the_symbols_stay(block_name: str) -> None:
    past_ms = utc_ms("2023-03-24T14:30") - time.time_ns() // 1_000_000
    with SimulatedExchange(symbols=4, clock_ms=lambda: time.time_ns() // 1_000_000 + past_ms) as exchange:
        assert KNOWN_OUTAGES[-1].end_ms == HOLE_MS[1]
        with collecting(exchange, block_name, length=300) as (collector, feed):
            until(lambda: feed.health.ready)
            for symbol in feed.symbols:
                assert [(gap.start_ms, gap.end_ms, gap.kind) for gap in feed[symbol].gaps()] == [(*HOLE_MS, "hole")]
            status = status_of(collector)
            assert (status.holes, status.missing, status.not_trading, status.errors) == (3 * 80, 0, (), {})
            assert_true(exchange, feed)


def test_an_outage_of_eighty_minutes_that_passes_while_we_run(block_name: str) -> None:
    past_ms = utc_ms("2023-03-24T12:35:30") - time.time_ns() // 1_000_000
    with SimulatedExchange(symbols=4, clock_ms=lambda: time.time_ns() // 1_000_000 + past_ms) as exchange:
        clock = SteppedClock()
        with collecting(exchange, block_name, clock=clock, length=300) as (collector, feed):
            first_ms = {symbol: int(feed[symbol].candles()[0, 0]) for symbol in feed.symbols}
            # No request succeeds while the engine is down; then it is 14:01:30.
            exchange.faults.add(html(502))
            until(lambda: status_of(collector).errors.get("ExchangeUnavailable", 0) >= 3)
            clock.ahead_seconds += 86 * 60
            exchange.skew_ms += 86 * MINUTE
            exchange.faults.clear()
            requested = len(klines(exchange))

            until(lambda: all((feed[symbol].last_open_time_ms or 0) >= HOLE_MS[1] for symbol in feed.symbols))
            until(lambda: feed.health.missing == 0 and feed.health.holes == 3 * 80)
            for symbol in feed.symbols:
                assert [(gap.start_ms, gap.end_ms, gap.kind) for gap in feed[symbol].gaps()] == [(*HOLE_MS, "hole")]
                rows = feed[symbol].candles(closed_only=True)
                assert {int(state) for state in feed[symbol].states(closed_only=True)} == {CLOSED}
                np.testing.assert_array_equal(rows, truth_of(exchange, feed, symbol, rows[:, 0]))
                # The window moved on, and the four minutes up to the halt are in it although they were missed live.
                assert int(rows[0, candleshm.OPEN_TIME_MS]) > first_ms[symbol]
                assert HOLE_MS[0] - MINUTE in rows[:, candleshm.OPEN_TIME_MS]
            # Each series is requested a few times, not once for each row or each second of the outage.
            assert len(klines(exchange)) - requested < 60
            assert status_of(collector).failing == {}


def test_a_local_wall_clock_that_jumps_by_minutes_changes_nothing(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.skew_ms = -5 * MINUTE
    with collecting(exchange, block_name, clock=SteppedClock(), interval="1s") as (collector, feed):
        close_seconds(feed, 4)
        assert_complete_and_true(exchange, feed)
        assert all(feed[symbol].revision == 0 for symbol in feed.symbols)
        assert (status_of(collector).refused, status_of(collector).errors) == (0, {})


def test_a_start_during_a_stop_says_when_to_try_again(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(rate_limited(60, path="/exchangeInfo", count=1))
    with pytest.raises(RateLimited):
        Collector(config_of(exchange, block_name, start_seconds=1)).start()
    with pytest.raises(
        RateLimited,
        match=r"is stopped after a refusal \(403, 407, 418 or 429\); try again in (5\d|60) s",
    ):
        Collector(config_of(exchange, block_name, start_seconds=1)).start()


def test_a_start_under_a_429_waits_and_needs_no_second_one(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(rate_limited(2, path="/exchangeInfo", count=1))
    with Collector(config_of(exchange, block_name)) as collector:
        assert collector.wait_loaded(DEADLINE_SECONDS)
        served = exchange.served()
        refused_at = next(index for index, one in enumerate(served) if one.status == 429)
        assert served[refused_at + 1].received_ms - served[refused_at].received_ms >= 2000
        with candleshm.attach(block_name) as feed:
            assert_complete_and_true(exchange, feed)
