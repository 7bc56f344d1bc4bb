"""The exchange's worst days: whatever it sends, rows are true and complete afterwards, and requests stay few."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from random import Random
from typing import Any

import numpy as np
import pytest
import requests

import candleshm
from candleshm.collector import scheduler
from candleshm.collector.collector import Collector
from candleshm.errors import BadResponse, BlockNotFound, ExchangeUnavailable
from candleshm.reader.feed import Feed
from candleshm.rest import transport
from candleshm.sim import Fault, Outage, SimulatedExchange, html, rate_limited, refused
from candleshm.sim.rest.spoiled import Spoiling
from candleshm.sim.world.universe import utc_ms
from tests.support.collecting import (
    CLOSED,
    DEADLINE_SECONDS,
    MINUTE,
    WorldClock,
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


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=12) as running:
        yield running


@contextmanager
def moved_by_hand(
    block_name: str, *, listed: int = 4, limit: int = 6000, start_ms: int | None = None, **changes: Any
) -> Iterator[tuple[WorldClock, SimulatedExchange, Collector, Feed]]:
    """Run a collector and its exchange in a time of their own; give it, both and the feed."""
    clock = WorldClock(start_ms)
    settings = {"update_interval_seconds": 5.0} | changes
    with (
        SimulatedExchange(symbols=listed, spot_limit=limit, clock_ms=clock) as exchange,
        collecting(exchange, block_name, clock=clock, **settings) as (collector, feed),
    ):
        yield clock, exchange, collector, feed


def asked_of(exchange: SimulatedExchange, symbols: tuple[str, ...]) -> dict[str, int]:
    stats = exchange.stats()
    return {symbol: stats.count("/klines", symbol) for symbol in symbols}


@pytest.mark.long
def test_four_hundred_symbols_do_not_notice_that_one_fails_for_an_hour(
    block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two hours in steps of twenty seconds, finer where it counts.
    monkeypatch.setattr(scheduler, "ASLEEP_SECONDS", 60.0)
    settings: dict[str, Any] = {"interval": "30m", "length": 4, "update_interval_seconds": 1200.0, "symbols": "all"}
    with moved_by_hand(block_name, listed=401, **settings) as (clock, exchange, collector, feed):
        failing = "ETHUSDT"
        others = tuple(symbol for symbol in feed.symbols if symbol != failing)
        assert len(others) >= 400
        clock.step_seconds = 20.0
        clock.let_pass(collector, 600.0)

        def has_closed(open_ms: int) -> bool:
            with suppress(candleshm.WaitTimeout):
                return not feed.wait_closed(open_ms, symbols=others, timeout=0.001).missing
            return False

        def late_ms() -> int:
            """Go on to the next close, and return how far the clock was moved until it had come for all the others.

            What the machine needs for hundreds of requests does not count.
            """
            closes_ms = clock() // (30 * MINUTE) * 30 * MINUTE + 30 * MINUTE
            clock.let_pass(collector, (closes_ms - clock()) / 1000 - 1)
            before_seconds = clock.ahead_seconds
            while not has_closed(closes_ms - 30 * MINUTE):
                clock.let_pass(collector, 2.0)
            return round((clock.ahead_seconds - before_seconds) * 1000)

        def hour() -> tuple[dict[str, int], int]:
            """Return how often each symbol was asked in the hour from close to close, and the later of the two."""
            before, latest_ms = asked_of(exchange, feed.symbols), max(late_ms(), late_ms())
            after = asked_of(exchange, feed.symbols)
            return {symbol: after[symbol] - before[symbol] for symbol in after}, latest_ms

        late_ms()
        usual, usual_late_ms = hour()
        exchange.faults.add(refused(503, -1008, "Request throttled.", symbol=failing))
        beside, beside_late_ms = hour()

        assert sum(usual[symbol] for symbol in others) == pytest.approx(
            sum(beside[symbol] for symbol in others), rel=0.02
        )
        assert max(abs(usual[symbol] - beside[symbol]) for symbol in others) <= 2
        assert beside_late_ms <= usual_late_ms + 4000
        # 0.2, 0.4, ... 25.6 s, and then about once a minute, as far as the steps let it.
        assert 40 <= beside[failing] <= 80
        assert set(status_of(collector).failing) == {failing}
        assert set(status_of(collector).errors) == {"ExchangeUnavailable"}

        exchange.faults.clear()
        clock.let_pass(collector, 120.0)
        assert status_of(collector).failing == {}
        assert feed.health.missing == 0
        assert_true(exchange, feed)


@pytest.mark.long
def test_after_ten_minutes_without_the_exchange_every_row_is_right_and_nothing_bursts(block_name: str) -> None:
    limit, share = 600, 0.75
    settings: dict[str, Any] = {"length": 60, "update_interval_seconds": 20.0, "symbols": "all", "server_weight": share}
    with moved_by_hand(block_name, listed=40, limit=limit, **settings) as (clock, exchange, collector, feed):
        clock.let_pass(collector, 120.0)
        assert feed.health.missing == 0
        before = len(klines(exchange))
        exchange.faults.add(Fault(kind="reset"))
        clock.let_pass(collector, 600.0)
        # Each series asks ever later, once a minute at the end: 12 times instead of 40.
        assert len(klines(exchange)) - before <= 40 * 20
        assert status_of(collector).errors.keys() == {"ExchangeUnavailable"}
        assert feed["BTCUSDT"].age > 0

        exchange.faults.clear()
        back_ms = clock()
        clock.let_pass(collector, 150.0)
        for symbol in feed.symbols:
            assert feed[symbol].gaps() == []
            assert (feed[symbol].last_open_time_ms or 0) >= back_ms // MINUTE * MINUTE
            assert set(feed[symbol].states(closed_only=True)) == {CLOSED}
        assert_complete_and_true(exchange, feed)
        assert status_of(collector).failing == {}
        assert exchange.stats().count(status=429) == 0
        assert exchange.stats().pools["SPOT"].peak_60s <= limit * share


SPOILINGS: dict[str, Spoiling] = {
    "ETHUSDT": "duplicated",
    "BNBUSDT": "shuffled",
    "XRPUSDT": "off_grid",
    "SOLUSDT": "non_finite",
    "ADAUSDT": "absurd",
    "DOGEUSDT": "future",
    "TRXUSDT": "partial",
    "DOTUSDT": "empty",
    "LTCUSDT": "extra_column",
}


def test_spoiled_rows_of_nine_kinds_side_by_side_harm_neither_the_others_nor_what_comes_after(
    exchange: SimulatedExchange, block_name: str
) -> None:
    symbols = ["BTCUSDT", *SPOILINGS]
    with collecting(exchange, block_name, interval="1s", length=60, symbols=symbols) as (collector, feed):
        close_seconds(feed, 1)
        before = asked_of(exchange, feed.symbols)
        exchange.faults.add(*(Fault(kind="rows", rows=rows, symbol=symbol) for symbol, rows in SPOILINGS.items()))
        close_seconds(feed, 4, ["BTCUSDT", "ETHUSDT", "BNBUSDT", "XRPUSDT"])
        # In the wrong order or twice they are the same rows. What cannot be true is left out, the rest of it stands.
        assert_complete_and_true(exchange, feed, ["BTCUSDT", "ETHUSDT", "BNBUSDT"])
        # Off the grid a row is kept as it was sent, in the place where it belongs.
        rows = feed["XRPUSDT"].candles(closed_only=True)
        off_ms = rows[:, candleshm.OPEN_TIME_MS] % 1000
        assert set(off_ms) == {0.0, 7.0}
        rows[:, candleshm.OPEN_TIME_MS] -= off_ms
        np.testing.assert_array_equal(rows, truth_of(exchange, feed, "XRPUSDT", rows[:, 0]))

        until(lambda: status_of(collector).errors)
        status = status_of(collector)
        assert status.refused > 0
        assert set(status.errors) == {"BadResponse"}
        assert set(status.failing) <= {"DOTUSDT", "LTCUSDT"}
        # An answer that says nothing confirms nothing: who reads with a limit is told.
        until(lambda: feed["DOTUSDT"].age > 3.0)
        with candleshm.attach(feed.name, max_age=3.0) as strict, pytest.raises(candleshm.StaleData):
            _ = strict["DOTUSDT"].live
        assert feed.health.holes == 0
        seconds = (max(feed[symbol].last_open_time_ms or 0 for symbol in symbols) - rows[0, 0]) / 1000
        for symbol, asked in asked_of(exchange, feed.symbols).items():
            assert asked - before[symbol] <= 4 * seconds
        # Rows of tomorrow are asked about, now and then.
        assert exchange.stats().count("/time") <= 5 + seconds / 5

        exchange.faults.clear()
        until(lambda: status_of(collector).failing == {} and feed.health.missing == 0)
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed, [symbol for symbol in symbols if symbol != "XRPUSDT"])
        assert all(feed[symbol].revision == 0 for symbol in symbols if symbol != "XRPUSDT")


NO_ANSWERS: dict[str, tuple[Fault, str]] = {
    "ETHUSDT": (Fault(kind="oversize", size_bytes=300_000), "BadResponse"),
    "BNBUSDT": (Fault(kind="status", status=302, body="", headers={"Location": "/elsewhere"}), "BadResponse"),
    "XRPUSDT": (Fault(kind="status", status=200, body="[[1,2"), "BadResponse"),
    "SOLUSDT": (Fault(kind="status", status=200, body="[" * 100_000), "BadResponse"),
    "ADAUSDT": (Fault(kind="status", status=200, body='{"code":-1000,"msg":"x"}'), "ExchangeUnavailable"),
    "DOGEUSDT": (Fault(kind="status", status=404, body="not here", content_type="text/plain"), "BadResponse"),
    "TRXUSDT": (Fault(kind="status", status=200, body='[["x"]]'), "BadResponse"),
    "DOTUSDT": (Fault(kind="status", status=200, body=""), "BadResponse"),
}


def test_responses_that_are_none_are_typed_counted_and_overcome(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BODY_BYTES_MAX", 200_000)
    symbols = ["BTCUSDT", *NO_ANSWERS]
    with collecting(exchange, block_name, interval="1s", length=60, symbols=symbols) as (collector, feed):
        before = asked_of(exchange, feed.symbols)
        exchange.faults.add(*(replace(fault, symbol=symbol, count=3) for symbol, (fault, _) in NO_ANSWERS.items()))
        until(lambda: sum(status_of(collector).errors.values()) == 3 * len(NO_ANSWERS))
        after = asked_of(exchange, feed.symbols)
        # 0.2, 0.4 and 0.8 s apart.
        assert all(after[symbol] - before[symbol] <= 12 for symbol in NO_ANSWERS)
        kinds = [kind for _, kind in NO_ANSWERS.values()]
        assert status_of(collector).errors == {kind: 3 * kinds.count(kind) for kind in kinds}
        assert exchange.stats().count("/elsewhere") == 0
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        assert status_of(collector).failing == {}


def test_wrong_headers_on_everything_change_nothing(exchange: SimulatedExchange, block_name: str) -> None:
    wrong = {
        "Date": f"Thu, 01 Jan {'9' * 30} 00:00:00 GMT",
        "x-mbx-used-weight-1m": "9" * 5000,
        "Retry-After": "-1",
        "Set-Cookie": "front=1",
    }
    with collecting(exchange, block_name, interval="1s", universe_refresh_seconds=1.0) as (collector, feed):
        exchange.faults.add(Fault(kind="headers", content_type="text/html", headers=wrong))
        until(lambda: exchange.stats().count("/exchangeInfo") >= 3)
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
        assert (status_of(collector).errors, status_of(collector).weight_limit) == ({}, 6000)


def test_a_used_weight_beyond_the_limit_is_believed_and_read_again_every_ten_seconds(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        exchange.faults.add(Fault(kind="headers", headers={"x-mbx-used-weight-1m": "999999999"}))
        clock.let_pass(collector, 20.0)
        before = exchange.stats().count()
        clock.let_pass(collector, 120.0)
        assert 6 <= exchange.stats().count() - before <= 13
        exchange.faults.clear()
        clock.let_pass(collector, 60.0)
        assert_complete_and_true(exchange, feed)
        assert status_of(collector).errors == {}


ABSURD_TIMES = ["0", "-5", '"now"', "9" * 30, "1e300", "null", "[" * 50_000, "253402300799000"]


def test_absurd_server_times_are_counted_and_the_time_so_far_stands(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        measured = exchange.stats().count("/time")
        for text in ABSURD_TIMES:
            body = f'{{"serverTime":{text}}}'
            exchange.faults.add(Fault(kind="status", status=200, body=body, path="/time", count=1))
        clock.let_pass(collector, 400.0)
        # 0.2, 0.4, ... s apart: no storm, and candles were asked for all the while.
        assert exchange.stats().count("/time") - measured <= len(ABSURD_TIMES) + 3
        assert status_of(collector).errors == {"BadResponse": len(ABSURD_TIMES)}
        assert_complete_and_true(exchange, feed)
        assert abs((collector.exchange_ms() or 0) - exchange.now_ms()) < 1000


@pytest.mark.parametrize("off_ms", [90_000, -90_000, 1_800_000])
def test_one_server_with_a_wrong_clock_closes_nothing_early(block_name: str, off_ms: int) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        clock.let_pass(collector, 240.0)
        wrong_ms = clock() + 60_000 + off_ms
        body = f'{{"serverTime":{wrong_ms}}}'
        exchange.faults.add(Fault(kind="status", status=200, body=body, path="/time", count=1))
        clock.let_pass(collector, 120.0)
        assert exchange.faults.in_force()[0][1] == 1
        assert status_of(collector).errors == {"BadResponse": 1}
        assert abs((collector.exchange_ms() or 0) - exchange.now_ms()) < 1000
        assert_complete_and_true(exchange, feed)
        assert all(feed[symbol].revision == 0 for symbol in feed.symbols)


@pytest.mark.parametrize("skew_ms", [90_000, -90_000])
def test_a_skewed_clock_at_the_exchange_is_the_time_that_counts(
    exchange: SimulatedExchange, block_name: str, skew_ms: int
) -> None:
    exchange.skew_ms = skew_ms
    with collecting(exchange, block_name, interval="1s") as (collector, feed):
        close_seconds(feed, 3)
        assert_complete_and_true(exchange, feed)
        assert abs((collector.exchange_ms() or 0) - exchange.now_ms()) < 2000
        assert status_of(collector).errors == {}


@pytest.mark.parametrize("jump_ms", [90_000, -90_000])
def test_a_clock_set_at_the_exchange_is_noticed_by_the_date_of_its_responses(block_name: str, jump_ms: int) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        clock.let_pass(collector, 70.0)
        measured = exchange.stats().count("/time")
        exchange.skew_ms = jump_ms
        clock.let_pass(collector, 12.0)
        # One answer at odds, and another one that confirms it.
        assert 2 <= exchange.stats().count("/time") - measured <= 4
        assert abs((collector.exchange_ms() or 0) - exchange.now_ms()) < 1000
        clock.let_pass(collector, 240.0)
        assert exchange.stats().count("/time") - measured <= 6
        assert_complete_and_true(exchange, feed)
        assert all(feed[symbol].revision == 0 for symbol in feed.symbols)
        assert status_of(collector).errors == {"BadResponse": 1}


def test_a_clock_set_back_just_before_a_close_closes_nothing_early(block_name: str) -> None:
    with moved_by_hand(block_name, update_interval_seconds=45.0) as (clock, exchange, collector, feed):
        # The first answer after the clock was set is the one that would close the candle.
        clock.let_pass(collector, (MINUTE - clock() % MINUTE) / 1000 + 58.0)
        exchange.skew_ms = -5_000
        clock.let_pass(collector, 120.0)
        assert_complete_and_true(exchange, feed)
        assert all(feed[symbol].revision == 0 for symbol in feed.symbols)


@pytest.mark.parametrize("second", [5, 20, 35, 50])
def test_a_clock_set_back_without_a_date_to_tell_is_noticed_with_the_next_measurement(
    block_name: str, second: int
) -> None:
    # Which candles are told too early, and corrected later, depends on where in a minute it happens.
    start_ms = utc_ms("2026-03-02T10:00") + second * 1000
    with moved_by_hand(block_name, start_ms=start_ms) as (clock, exchange, collector, feed):
        exchange.faults.add(Fault(kind="headers", headers={"Date": "never"}))
        clock.let_pass(collector, 70.0)
        exchange.skew_ms = -90_000
        clock.let_pass(collector, 300.0)
        assert abs((collector.exchange_ms() or 0) - exchange.now_ms()) < 1000
        clock.let_pass(collector, 300.0)
        assert feed.health.holes == 0
        assert_complete_and_true(exchange, feed)


def test_a_relay_with_a_date_of_its_own_costs_nothing(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        own = formatdate(exchange.now_ms() // 1000 - 1800, usegmt=True)
        exchange.faults.add(Fault(kind="headers", headers={"Date": own}))
        measured = exchange.stats().count("/time")
        clock.let_pass(collector, 600.0)
        # One measurement because of the first such answer, and those of every 300 s.
        assert exchange.stats().count("/time") - measured <= 4
        assert status_of(collector).errors == {}
        assert_complete_and_true(exchange, feed)
        assert (feed["BTCUSDT"].last_open_time_ms or 0) >= exchange.now_ms() // MINUTE * MINUTE


def test_an_hour_asleep_is_made_up_for(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        clock.ahead_seconds += 3600.0
        clock.let_pass(collector, 60.0)
        woken = klines(exchange)[-1][0]
        measured = [served for served in exchange.served() if served.target.endswith("/time")]
        assert woken >= measured[-1].received_ms
        assert_complete_and_true(exchange, feed)
        assert exchange.stats().pools["SPOT"].peak_60s <= 6000 * 0.75


def test_an_empty_list_at_the_start_is_waited_out(exchange: SimulatedExchange, block_name: str) -> None:
    nothing = Fault(kind="status", status=200, body='{"symbols":[]}', path="/exchangeInfo", count=1)
    at_odds = Fault(kind="status", status=200, body='{"serverTime":1700000000000}', path="/time", count=1)
    exchange.faults.add(nothing, at_odds)
    with collecting(exchange, block_name) as (_, feed):
        assert_complete_and_true(exchange, feed)
        assert exchange.stats().count("/exchangeInfo") == 2

    exchange.faults.add(replace(nothing, count=None))
    with pytest.raises(BadResponse, match="lists no symbol of SPOT"):
        Collector(config_of(exchange, block_name, start_seconds=0.3)).start()


def test_exchange_infos_that_cannot_be_believed_change_neither_symbols_nor_limit(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(exchange, block_name, interval="1s", symbols="all", universe_refresh_seconds=0.5) as (
        collector,
        feed,
    ):
        entries = ",".join(f'{{"symbol":"{symbol}","status":"TRADING"}}' for symbol in feed.symbols)
        weight = '{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":%s}'
        everything = feed.symbols
        for body in (
            f'{{"symbols":[{entries},{entries}]}}',
            f'{{"symbols":[{entries}],"rateLimits":null}}',
            f'{{"symbols":[{entries}],"rateLimits":[{weight % 0}]}}',
            f'{{"symbols":[{entries}],"rateLimits":[{weight % "-6000"},{weight % "1e999"}]}}',
            f'{{"symbols":[{entries},{{"symbol":"{"X" * 200}","status":"TRADING"}}]}}',
            f'{{"symbols":[{entries},{{"symbol":7}},{{"symbol":""}}]}}',
            '{"symbols":[]}',
            '{"symbols":{}}',
            "[" * 100_000,
        ):
            exchange.faults.add(Fault(kind="status", status=200, body=body, path="/exchangeInfo", count=1))
        until(lambda: all(met for _, met in exchange.faults.in_force()))
        close_seconds(feed, 2)
        until(lambda: feed.health.missing == 0)
        assert (feed.symbols, status_of(collector).not_trading) == (everything, ())
        assert status_of(collector).weight_limit == 6000
        assert set(status_of(collector).errors) == {"BadResponse"}
        assert_complete_and_true(exchange, feed)


def test_a_name_that_cannot_be_resolved_at_the_start_is_named(exchange: SimulatedExchange, block_name: str) -> None:
    with pytest.raises(ExchangeUnavailable, match=r"no response from no-such-host\.invalid"):
        Collector(config_of(exchange, block_name, base_url="http://no-such-host.invalid", start_seconds=0.3)).start()
    with pytest.raises(BlockNotFound):
        candleshm.attach(block_name)
    assert exchange.stats().count() == 0


def test_a_name_that_can_be_resolved_no_more_is_no_outage(
    exchange: SimulatedExchange, block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, resolve, asked, broken = exchange.base_url.rsplit(":", 1)[1], socket.getaddrinfo, [0], [False]

    def resolver(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host != "exchange.test":
            return resolve(host, *arguments, **keywords)
        asked[0] += 1
        if broken[0]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    base_url = f"http://exchange.test:{port}"
    with collecting(exchange, block_name, interval="1s", length=60, base_url=base_url, workers=1) as (collector, feed):
        broken[0], before = True, asked[0]
        # Connections that stand need no name.
        close_seconds(feed, 1)
        exchange.faults.add(Fault(kind="reset", count=2))
        until(lambda: status_of(collector).errors.get("ExchangeUnavailable", 0) >= 2)
        # New ones go to the addresses of the last lookup.
        until(lambda: status_of(collector).failing == {})
        close_seconds(feed, 2)
        assert asked[0] > before
        broken[0] = False
        until(lambda: feed.health.missing == 0)
        feed.wait_closed(exchange.now_ms() // 1000 * 1000, timeout=DEADLINE_SECONDS)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)


def test_a_row_that_the_exchange_takes_back_before_it_was_final_becomes_a_hole(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        # Into a minute that goes on for long enough.
        clock.let_pass(collector, (MINUTE - clock() % MINUTE) / 1000 + 15.0)
        live_ms = feed["ETHUSDT"].last_open_time_ms or 0
        assert live_ms == clock() // MINUTE * MINUTE
        exchange.truth.add_outage(Outage(start_ms=live_ms, end_ms=live_ms + MINUTE, market="SPOT", symbol="ETHUSDT"))
        clock.let_pass_until(collector, lambda: feed.health.holes)
        gaps = [(gap.start_ms, gap.end_ms, gap.kind) for gap in feed["ETHUSDT"].gaps()]
        assert gaps == [(live_ms, live_ms + MINUTE, "hole")]
        # Views and closes go on behind it, and the others never knew.
        clock.let_pass_until(collector, lambda: feed["ETHUSDT"].view(2).open_time_ms[0] > live_ms)
        assert feed.wait_closed(live_ms, timeout=5.0).missing == ()
        assert_true(exchange, feed)
        assert_complete_and_true(exchange, feed, ["BTCUSDT", "SUSHIBTC"])
        assert status_of(collector).errors == {}


def test_a_server_that_lags_at_the_close_makes_nothing_final(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        clock.let_pass(collector, (MINUTE - clock() % MINUTE) / 1000 + 15.0)
        live_ms = clock() // MINUTE * MINUTE
        asked = {"symbol": "BTCUSDT", "interval": "1m", "limit": "3"}
        picture = requests.get(f"{exchange.base_url}/api/v3/klines", params=asked, timeout=10).text
        clock.let_pass(collector, 20.0)
        seen = feed["BTCUSDT"].live
        exchange.faults.add(Fault(kind="status", status=200, body=picture, symbol="BTCUSDT"))
        clock.let_pass(collector, 40.0)
        assert (feed["ETHUSDT"].last_open_time_ms or 0) > live_ms
        assert feed["ETHUSDT"].view(1).open_time_ms[0] == live_ms
        # The minute is over, and all that is told of it is older than what was seen.
        assert (feed["BTCUSDT"].last_open_time_ms, feed["BTCUSDT"].states()[-1]) == (live_ms, candleshm.RowState.LIVE)
        assert feed["BTCUSDT"].view(1).open_time_ms[0] == live_ms - MINUTE
        assert feed["BTCUSDT"].live[candleshm.TRADES] <= seen[candleshm.TRADES]

        exchange.faults.clear()
        clock.let_pass(collector, 30.0)
        assert_complete_and_true(exchange, feed)
        assert feed["BTCUSDT"].revision == 0


@pytest.mark.parametrize("rows", ["jump", "another"])
def test_prices_of_another_symbol_are_taken_and_put_right_by_what_comes_next(block_name: str, rows: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        clock.let_pass(collector, (MINUTE - clock() % MINUTE) / 1000 + 20.0)
        fault = Fault(kind="rows", rows="jump", symbol="SUSHIBTC", count=1)
        if rows == "another":
            asked = {"symbol": "BTCUSDT", "interval": "1m", "limit": "2"}
            body = requests.get(f"{exchange.base_url}/api/v3/klines", params=asked, timeout=10).text
            fault = Fault(kind="status", status=200, body=body, symbol="SUSHIBTC", count=1)
        before = feed["SUSHIBTC"].last_close
        exchange.faults.add(fault)
        while not exchange.faults.in_force()[0][1]:
            clock.let_pass(collector, 1.0)
        # No rule tells such a jump from a real one.
        assert feed["SUSHIBTC"].last_close > 100 * before
        clock.let_pass(collector, 90.0)
        assert_complete_and_true(exchange, feed)
        assert feed["SUSHIBTC"].revision > 0


def test_pages_cut_short_after_an_outage_make_no_holes(block_name: str) -> None:
    with moved_by_hand(block_name) as (clock, exchange, collector, feed):
        exchange.faults.add(Fault(kind="reset"))
        clock.let_pass(collector, 400.0)
        exchange.faults.clear()
        # For minutes a server answers from an old memory: fewer rows than there are, or none.
        exchange.faults.add(
            Fault(kind="rows", rows="partial", symbol="ETHUSDT"), Fault(kind="rows", rows="empty", symbol="BTCUSDT")
        )
        clock.let_pass(collector, 180.0)
        assert feed.health.holes == 0
        exchange.faults.clear()
        clock.let_pass(collector, 180.0)
        assert (feed.health.holes, feed.health.missing) == (0, 0)
        assert_complete_and_true(exchange, feed)


STORM_SECONDS = 20.0
STORM = (
    refused(503, -1008, "Request throttled."),
    refused(400, -1000, "unknown"),
    refused(200, -1000, "unknown"),
    rate_limited(1),
    Fault(kind="status", status=418, headers={"Retry-After": "1"}),
    Fault(kind="status", status=403, body="<html>", content_type="text/html", headers={"Retry-After": "1"}),
    html(502),
    html(200),
    Fault(kind="status", status=302, body="", headers={"Location": "/elsewhere"}),
    Fault(kind="reset"),
    Fault(kind="truncate"),
    Fault(kind="hang"),
    Fault(kind="trickle", bytes_per_second=20),
    Fault(kind="latency", delay_ms=700),
    Fault(kind="oversize", size_bytes=300_000),
    Fault(kind="headers", content_type="text/html", headers={"Date": "never", "x-mbx-used-weight-1m": "-1"}),
    Fault(kind="headers", headers={"Date": "Thu, 01 Jan 2015 00:00:00 GMT"}),
    *(Fault(kind="rows", rows=rows) for rows in ("duplicated", "shuffled", "non_finite", "absurd", "future")),
    *(Fault(kind="rows", rows=rows) for rows in ("partial", "empty", "extra_column")),
    Fault(kind="status", status=200, body='{"serverTime":0}', path="/time"),
    Fault(kind="status", status=200, body='{"serverTime":1e999}', path="/time"),
    Fault(kind="status", status=200, body='{"symbols":[]}', path="/exchangeInfo"),
    Fault(kind="status", status=200, body="[" * 10_000, path="/exchangeInfo"),
)


def test_after_a_storm_of_everything_at_once_all_rows_are_true_and_complete(
    block_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 1.0)
    monkeypatch.setattr(transport, "BODY_BYTES_MAX", 200_000)
    random = Random(20230324)
    symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT"]
    common: dict[str, Any] = {"symbols": symbols, "length": 60, "universe_refresh_seconds": 2.0}
    with (
        SimulatedExchange(symbols=4, spot_limit=1200, futures_limit=400) as exchange,
        collecting(exchange, f"{block_name}-spot", interval="1s", **common) as (spot, seconds),
        collecting(exchange, f"{block_name}-um", market="UM", **common) as (um, minutes),
    ):
        before, began_seconds = exchange.stats().count(), time.monotonic()
        while time.monotonic() < began_seconds + STORM_SECONDS:
            symbol = random.choice([*symbols, None])
            fault = random.choice(STORM)
            if fault.path is not None or random.random() < 0.5:
                symbol = None
            exchange.faults.add(
                replace(fault, symbol=symbol, count=random.randint(1, 3), rate=random.choice([0.5, 1.0]))
            )
            time.sleep(random.uniform(0.0, 0.2))
        exchange.faults.clear()
        stormed_seconds = time.monotonic() - began_seconds
        # At most the turns of a calm time: four closes a second, a tail every half second, and upkeep.
        assert exchange.stats().count() - before <= 20 * stormed_seconds

        for collector, feed in ((spot, seconds), (um, minutes)):
            until(lambda: status_of(collector).failing == {} and status_of(collector).banned_until_ms is None)  # noqa: B023
            until(lambda: feed.health.missing == 0)  # noqa: B023
        seconds.wait_closed(exchange.now_ms() // 1000 * 1000, timeout=DEADLINE_SECONDS)
        until(lambda: seconds.health.missing == 0)
        assert {"BadResponse", "ExchangeUnavailable"} < status_of(spot).errors.keys()
        for collector, feed in ((spot, seconds), (um, minutes)):
            assert (feed.health.holes, feed.health.missing) == (0, 0)
            assert_complete_and_true(exchange, feed)
            assert all(feed[symbol].revision == 0 for symbol in symbols)
            assert (status_of(collector).not_trading, feed.symbols) == ((), tuple(symbols))
        pools = exchange.stats().pools
        assert pools["SPOT"].peak_60s <= 1200 * 0.75
        assert pools["FUTURES"].peak_60s <= 400 * 0.75
