"""Symbols that stop giving candles: when they lag, when closes go on without them, when the list is read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import candleshm
from candleshm.collector.laggards import Laggards
from candleshm.collector.listing import BELIEVED_COUNT, BELIEVED_SECONDS, Listing
from candleshm.collector.series_plan import PollPolicy, SeriesPlan
from candleshm.exchanges.base import ExchangeInfo, Market
from candleshm.sim import Outage, SimulatedExchange, StreamFault, refused
from tests.support.collecting import (
    CLOSED,
    DEADLINE_SECONDS,
    MINUTE,
    SYMBOLS,
    WorldClock,
    assert_true,
    collecting,
    status_of,
    truth_of,
    until,
)

SETTLE_MS = 1000


def policy(interval: str = "1m") -> PollPolicy:
    return PollPolicy(interval, 100, 3.0, SETTLE_MS, 1000)


def series(symbol: str, newest_ms: int, requested_ms: int) -> SeriesPlan:
    return SeriesPlan(symbol, newest_open_ms=newest_ms, tail_sent_ms=requested_ms, loaded=True)


def look(laggards: Laggards, plans: list[SeriesPlan], second: float) -> None:
    """Look `second` seconds after the start of minute 10."""
    laggards.look(plans, 1000.0 + second, 10 * MINUTE + round(second * 1000))


def test_a_series_lags_once_it_was_requested_and_had_no_newer_candle() -> None:
    halted, other = series("A", 9 * MINUTE, 10 * MINUTE + 4000), series("B", 10 * MINUTE, 10 * MINUTE + 4000)
    laggards = Laggards(policy())
    look(laggards, [halted, other], 4.0)
    assert not laggards.since_seconds
    look(laggards, [halted, other], 9.0)
    assert not laggards.since_seconds  # not requested since
    halted.tail_sent_ms = 10 * MINUTE + 8000
    look(laggards, [halted, other], 9.0)
    assert laggards.since_seconds == {"A": 1009.0}

    halted.newest_open_ms = 10 * MINUTE
    look(laggards, [halted, other], 10.0)
    assert not laggards.since_seconds


@pytest.mark.parametrize(("interval", "seconds"), [("1s", 10), ("1m", 60), ("1h", 60)])
def test_closes_go_on_without_it_after_a_candle_but_ten_seconds_at_least_and_a_minute_at_most(
    interval: str, seconds: int
) -> None:
    halted, other = series("A", 0, 10**12), series("B", 10**12, 10**12)
    laggards = Laggards(policy(interval))
    for second in range(seconds + 1):
        laggards.look([halted, other], second, 10**10 + second)
        assert laggards.silent == ({"A"} if second >= seconds else frozenset())
    halted.newest_open_ms = 10**12
    laggards.look([halted, other], seconds + 1, 10**10 + seconds)
    assert not laggards.silent


def test_nobody_is_silent_while_nobody_goes_on_nor_at_once_when_one_does_again() -> None:
    plans = [series(name, 0, 0) for name in "ABC"]
    for plan in plans:
        plan.failures = 5
    laggards = Laggards(policy())
    for second in range(300):
        look(laggards, plans, second)
    assert laggards.since_seconds.keys() == {"A", "B", "C"}
    assert not laggards.silent
    plans[0].newest_open_ms = 10**12
    look(laggards, plans, 301)
    look(laggards, plans, 330)
    assert not laggards.silent
    look(laggards, plans, 361)
    assert laggards.silent == {"B", "C"}


def listing() -> Listing:
    return Listing(3600.0, 20, 1000.0)


def due(subject: Listing, *since_seconds: float, budget: int = 4500) -> float:
    return subject.due_seconds(since_seconds, budget, 60.0)


def test_the_list_is_read_at_leisure_while_nothing_happens() -> None:
    assert due(listing()) == 1000 + 3600


def test_a_laggard_makes_it_be_read_soon_and_the_longer_it_lags_the_less_often() -> None:
    subject, reads, now = listing(), [], 5000.0
    subject.sent(4990.0)
    while now < 5000 + 86_400:
        now = max(now, due(subject, 5000.0))
        subject.sent(now)
        reads.append(now - 5000.0)
    assert reads[:3] == [20.0, 50.0, 80.0]
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(reads)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 3600
    assert len(reads) < 100


def test_lists_take_a_small_part_of_a_small_budget() -> None:
    assert due(listing(), 1000.0, budget=60) == 1000 + 1000


def test_a_wished_list_is_due_at_once_and_the_next_one_after_a_pause() -> None:
    subject = listing()
    subject.wish()
    assert due(subject) <= 1000
    subject.sent(1001.0)
    subject.wish()
    assert due(subject) == 1001 + 30


def info(count: int, trading: int) -> ExchangeInfo:
    return ExchangeInfo(
        {f"S{number}": "TRADING" if number < trading else "BREAK" for number in range(count)}, 6000, 60.0
    )


def test_a_list_that_stays_the_same_is_believed_but_never_one_without_symbols() -> None:
    subject, before = listing(), info(10, 10)

    def judged(newer: ExchangeInfo, now: float) -> bool:
        return subject.judge(before, newer, lagging=(), going_on={"S9"}, now_seconds=now)[1]

    step = BELIEVED_SECONDS / (BELIEVED_COUNT - 1)
    assert [judged(info(10, 2), step * count) for count in range(BELIEVED_COUNT)] == [False] * 4 + [True]
    # What changes its mind in between begins anew.
    minds = [10, 2, 2, 2, 9, 2, 2, 2, 2, 2]
    assert [judged(info(10, mind), step * count) for count, mind in enumerate(minds)] == [
        mind == 9 or mind == 10 or count == 9 for count, mind in enumerate(minds)
    ]
    assert not any(judged(info(0, 0), step * count) for count in range(100))


def test_a_list_is_believed_at_once_when_candles_confirm_it() -> None:
    lost = {f"S{number}" for number in range(2, 10)}
    for lagging, going_on, is_believed in (
        (lost, {"S0", "S1"}, True),
        ({"S9"}, {"S0", "S1"}, True),
        (lost - {"S9"}, {"S9"}, False),
        (set(), {"S0", "S1"}, False),
    ):
        judged = listing().judge(info(10, 10), info(10, 2), lagging=lagging, going_on=going_on, now_seconds=1000.0)
        assert judged == ("the exchange suddenly trades 2 symbols instead of 10", is_believed)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.mark.parametrize("live", ["rest", "ws"])
def test_a_symbol_that_gives_no_candles_though_listed_as_trading_is_waited_for_no_longer_until_it_does(
    exchange: SimulatedExchange, block_name: str, live: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"live": live, "ws_url": exchange.ws_url, "interval": "1s", "length": 60}
    with collecting(exchange, block_name, **settings) as (collector, feed):
        now_ms = exchange.now_ms() // MINUTE * MINUTE
        gone = Outage(start_ms=now_ms, end_ms=now_ms + 60 * MINUTE, market="SPOT", symbol="ETHUSDT")
        exchange.truth.add_outage(gone)
        exchange.stream_faults.add(StreamFault(kind="mute", symbol="ETHUSDT"))
        until(lambda: status_of(collector).silent == ("ETHUSDT",))
        assert "no new candles, although the exchange lists them as trading: ETHUSDT" in caplog.text
        for _ in range(3):
            assert feed.wait_closed(timeout=DEADLINE_SECONDS).symbols == ("BTCUSDT", "SUSHIBTC")
        panel = feed.panel("close", n=3)
        assert int(panel.open_time_ms[-1]) > (feed["ETHUSDT"].last_open_time_ms or 0)
        assert status_of(collector).not_trading == ()
        # It is listed, so that its rows are no staler than they are old.
        with candleshm.attach(block_name, max_age=3600.0) as strict:
            assert len(strict["ETHUSDT"].candles())

        exchange.truth._outages = tuple(one for one in exchange.truth._outages if one != gone)
        exchange.truth._forget()
        exchange.stream_faults.clear()
        until(lambda: status_of(collector).silent == ())
        until(lambda: len(feed.wait_closed(timeout=DEADLINE_SECONDS).symbols) == 3)
        until(lambda: feed.health.missing == 0)
        assert_true(exchange, feed)


def test_a_loaded_symbol_that_is_refused_from_now_on_stalls_nobody(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(exchange, block_name, interval="1s", length=60) as (collector, feed):
        exchange.faults.add(refused(503, -1008, "Request throttled.", symbol="ETHUSDT"))
        until(lambda: status_of(collector).silent == ("ETHUSDT",))
        assert feed.wait_closed(timeout=DEADLINE_SECONDS).symbols == ("BTCUSDT", "SUSHIBTC")


@pytest.mark.parametrize(
    ("market", "status"),
    [
        *(("SPOT", status) for status in ("HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY")),
        *(("UM", status) for status in ("PRE_DELIVERING", "SETTLING", "CLOSE")),
        *(("CM", status) for status in ("TRADING_HALT", "TRADING_CANCEL_ONLY", "SOMETHING_NEW")),
    ],
)
def test_the_last_candle_of_a_symbol_that_stops_trading_becomes_final_and_the_others_go_on(
    block_name: str, market: Market, status: str
) -> None:
    """With the default settings; minutes pass in seconds."""
    clock = WorldClock()
    clock.ahead_seconds += 60 - clock() % MINUTE / 1000 + 20  # 20 s into a minute
    symbol, others = SYMBOLS[market][1], SYMBOLS[market][::2]
    with SimulatedExchange(symbols=5, clock_ms=clock) as exchange:
        settings: dict[str, Any] = {"market": market, "live": "rest", "length": 60, "update_interval_seconds": 3.0}
        with collecting(exchange, block_name, clock=clock, **settings) as (collector, feed):
            trading = exchange.truth.instrument(market, symbol)
            ended_ms = clock()
            exchange.truth.enlist(replace(trading, delisted_ms=ended_ms, status=status))
            clock.let_pass(collector, 180.0)
            assert status_of(collector).not_trading == (symbol,)
            opened_ms = ended_ms // MINUTE * MINUTE
            rows = feed[symbol].candles(closed_only=True)
            final = truth_of(exchange, feed, symbol, rows[:, 0])
            assert (rows == final).all()
            assert int(rows[-1, 0]) >= opened_ms
            now_ms = clock()
            newest_ms = min(feed[other].last_open_time_ms or 0 for other in others)
            assert newest_ms == now_ms // MINUTE * MINUTE
            assert feed.wait_closed(newest_ms - MINUTE, timeout=0).symbols == tuple(others)
            requested = exchange.stats().count("/klines", symbol)
            clock.let_pass(collector, 120.0)
            assert exchange.stats().count("/klines", symbol) == requested

            # It comes back: what was missed is loaded, and closes wait for it again.
            exchange.truth.enlist(trading)
            clock.let_pass(collector, 150.0)
            assert status_of(collector).not_trading == ()
            assert feed.health.missing == 0
            newest_ms = clock() // MINUTE * MINUTE - MINUTE
            assert len(feed.wait_closed(newest_ms, timeout=0).symbols) == 3
            assert_true(exchange, feed, others)


def test_a_halt_before_the_start_leaves_no_unfinished_row(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.truth.delist("SPOT", "ETHUSDT", exchange.now_ms())
    with collecting(exchange, block_name, interval="1s", length=60) as (collector, feed):
        assert status_of(collector).not_trading == ("ETHUSDT",)
        until(lambda: int(feed["ETHUSDT"].states(1)[-1]) == CLOSED)
        assert_true(exchange, feed)
