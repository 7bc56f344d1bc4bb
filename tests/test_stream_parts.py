"""What is decided about streams without any I/O: rate limits, shards, stalls, and tasks of series with a stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm._core import StreamThread, Writer
from candleshm.collector.planner import next_tasks, request_for
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Market
from candleshm.exchanges.binance import Binance
from candleshm.stream.connection import Connection
from candleshm.stream.outage import Outage
from candleshm.stream.paths import SILENT_SECONDS, Paths
from candleshm.stream.rate_limiter import RateLimiter
from candleshm.stream.repeated_log import RepeatedLog
from candleshm.stream.shards import Shards
from candleshm.stream.watchdog import RESUBSCRIBE_SECONDS, Watchdog, stall_seconds
from candleshm.system.block_log import BlockLog

MINUTE = 60_000
POLICY = PollPolicy("1m", 100, 3.0, 1000, 1000, stall_seconds=6.0, late_ms=2500)
# A minute that opens at 1000 s of local time, when the exchange's clock shows OPEN.
OPEN, SECONDS = 1_773_232_500_000, 1000.0


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 5))
def test_a_rate_limit_is_never_exceeded_in_any_window(pauses: list[float], count: int) -> None:
    limiter, now, taken = RateLimiter(count, 10.0), 0.0, []
    for pause in pauses:
        now += pause
        if limiter.take(now):
            taken.append(now)
    for last in range(count, len(taken)):
        assert taken[last] - taken[last - count] >= 10.0


def test_a_rate_limit_allows_as_much_as_it_can() -> None:
    limiter = RateLimiter(2, 1.0)
    assert [limiter.take(now) for now in (0.0, 0.5, 0.9, 1.0, 1.1, 1.5)] == [True, True, False, True, False, True]


@given(st.lists(st.sets(st.sampled_from([f"S{number}" for number in range(30)])), max_size=12), st.integers(1, 9))
def test_shards_carry_what_is_wanted_and_nobody_moves(wishes: list[set[str]], size: int) -> None:
    shards, before = Shards(size), dict[str, int]()
    for wanted in wishes:
        changed = shards.align(sorted(wanted))
        now = {symbol: number for number, group in enumerate(shards.groups) for symbol in group}
        assert now.keys() == wanted
        assert sum(map(len, shards.groups)) == len(wanted)
        assert all(len(group) <= size for group in shards.groups)
        assert changed == (before.keys() != wanted)
        assert all(now[symbol] == number for symbol, number in before.items() if symbol in now)
        before = now


def test_full_markets_fit_the_documented_streams_per_connection() -> None:
    shards = Shards(Binance("SPOT").stream_rules("1m").streams_max)
    shards.align(f"S{number}" for number in range(1262))
    assert [len(group) for group in shards.groups] == [1024, 238]


@pytest.mark.parametrize(
    ("market", "interval", "seconds"), [("SPOT", "1m", 6.0), ("SPOT", "1s", 3.0), ("UM", "1m", 3.0), ("CM", "1h", 3.0)]
)
def test_silence_is_three_periods(market: Market, interval: str, seconds: float) -> None:
    assert stall_seconds(Binance(market).stream_rules(interval)) == seconds


@pytest.mark.parametrize(
    ("market", "urls", "paths"),
    [
        ("SPOT", ("wss://stream.binance.com:9443/stream",), ["/stream"]),
        (
            "UM",
            ("wss://fstream.binance.com/market/stream", "wss://fstream.binance.com/stream"),
            ["/market/stream", "/stream"],
        ),
        (
            "CM",
            (
                "wss://dstream.binance.com/stream",
                "wss://dstream.binance.com/market/stream",
                "wss://fstream.binance.com/market/stream",
            ),
            ["/stream", "/market/stream"],
        ),
    ],
)
def test_addresses_and_names(market: Market, urls: tuple[str, ...], paths: list[str]) -> None:
    exchange = Binance(market)
    assert exchange.stream_rules("1m").urls == urls
    assert exchange.stream_name("BTCUSD_PERP", "1M") == "btcusd_perp@kline_1M"
    here = Binance(market, ws_url="ws://h:1/um/").stream_rules("1m").urls
    assert here == tuple(f"ws://h:1/um{path}" for path in paths)


def test_a_connection_whose_symbols_all_rest_says_nothing_of_its_path(block_name: str) -> None:
    now = [0.0]
    writer = Writer.open(block_name, market="UM", interval="1m", length=8, symbols=["TSLAUSDT", "AAPLUSDT"])
    thread = StreamThread(writer)
    rules, paths = Binance("UM").stream_rules("1m"), Paths("UM", ["wss://h/first", "wss://h/second"])
    names = ["tslausdt@kline_1m", "aaplusdt@kline_1m"]
    connection = Connection(1, paths.choose(), names, rules, thread=thread, now=lambda: now[0])
    try:
        for now[0] in range(0, 3601, 60):
            connection.look(paths, may_be_silent=True)
        # Their market opens: from now on they have as long as any connection to send something.
        now[0] += SILENT_SECONDS
        connection.look(paths)
        assert (paths.moves, connection.rotation) == (0, "")
        now[0] += 1.0
        connection.look(paths)
        assert (paths.moves, connection.rotation) == (1, "its path acknowledged 2 streams and sent no data")
    finally:
        thread.stop(5.0)
        writer.close()


def test_a_spot_stream_is_stalled_three_periods_after_its_last_event_or_subscription() -> None:
    dog = Watchdog(Binance("SPOT").stream_rules("1m"))
    subscribed = {"A": 100.0, "B": 100.0, "C": 105.0}
    last = {"A": 104.0, "B": -math.inf}
    assert dog.stalled(subscribed, last, {}, 106.5) == ["B"]
    assert dog.stalled(subscribed, last, {}, 110.5) == ["A", "B"]
    assert dog.stalled(subscribed, last, {}, 111.5) == ["A", "B", "C"]


def test_a_futures_stream_is_stalled_only_where_a_response_had_a_newer_row() -> None:
    dog = Watchdog(Binance("UM").stream_rules("1m"))
    subscribed = {"A": 100.0, "B": 100.0}
    suspects = {"A": 400.0, "B": 400.0, "X": 400.0}
    assert dog.stalled(subscribed, {}, {}, 500.0) == []
    assert dog.stalled(subscribed, {"A": 499.0}, suspects, 500.0) == ["B"]
    assert dog.stalled(subscribed, {}, suspects | {"A": 498.0}, 500.0) == ["B"], "it may be pushed yet"


def test_resubscriptions_become_rarer_and_start_over_once_one_worked() -> None:
    dog = Watchdog(Binance("SPOT").stream_rules("1m"))
    tried = [now for now in range(60) if dog.due(["A"], float(now))]
    assert tried == [0, 2 * RESUBSCRIBE_SECONDS, 6 * RESUBSCRIBE_SECONDS, 14 * RESUBSCRIBE_SECONDS]
    assert dog.due([], 200.0) == {}
    assert dog.due(["A"], 201.0) == {"A": 1}


def test_a_remedy_is_no_recovery_for_the_pauses_between_remedies() -> None:
    dog = Watchdog(Binance("SPOT").stream_rules("1m"))
    assert dog.due(["A"], 0.0) == {"A": 1}
    assert dog.due([], 1.0, {"A"}) == {}, "just subscribed again, and no event yet"
    assert dog.due(["A"], 9.0, {"A"}) == {"A": 2}
    assert dog.due([], 10.0, ()) == {}
    assert dog.due(["A"], 11.0, {"A"}) == {"A": 1}, "it had an event in between"


def looks(outage: Outage, failed: str, events: Mapping[str, float], now: float, idle: str = "") -> list[str]:
    """Let an outage of three symbols look, and return its lines."""
    return [line.text for line in outage.look(dict.fromkeys(failed, "why"), events, "ABC", idle, now)]


def test_an_outage_ends_when_data_flows_and_not_when_a_connection_is_new() -> None:
    outage = Outage()
    (begin,) = looks(outage, "ABC", {}, 100.0)
    assert begin == "3 of 3 streams are stalled: A B C (why); requested by REST meanwhile (failover)"
    for now in range(101, 175):
        assert looks(outage, "ABC" if now % 10 < 5 else "", {"A": 99.0}, float(now)) == []
        assert list(outage.since) == ["A", "B", "C"]
    assert looks(outage, "", {"A": 175.0, "B": 175.0, "C": 175.0}, 175.0) == []
    assert not outage.since
    logged = [text for now in range(176, 300) for text in looks(outage, "", {}, float(now))]
    assert logged == ["every stream flows again, after 75 s"]


def test_a_lasting_outage_is_logged_rarely_and_a_growing_one_when_it_has_doubled() -> None:
    outage = Outage()
    assert len(looks(outage, "A", {}, 0.0)) == 1
    assert looks(outage, "AB", {}, 1.0) == [
        "2 of 3 streams are stalled for 1 s: A B (why); requested by REST meanwhile (failover)"
    ]
    assert looks(outage, "ABC", {}, 2.0) == []
    later = [text for now in range(3, 3600) for text in looks(outage, "ABC", {}, float(now))]
    assert len(later) == 3600 // 300 - 1
    assert "for 301 s: A B C" in later[0]


def test_streams_that_come_and_go_do_not_fill_the_log() -> None:
    outage, logged = Outage(), []
    for now in range(7200):
        flows = now % 40 >= 20
        last = dict.fromkeys("ABC", float(now)) if flows else {}
        logged += looks(outage, "" if flows else "ABC", last, float(now))
    assert len(logged) < 7200 // 300 + 10


def test_an_idle_stream_on_a_new_connection_is_no_outage() -> None:
    outage = Outage()
    looks(outage, "ABC", {}, 0.0)
    looks(outage, "", {"A": 5.0}, 5.0, idle="B")
    assert list(outage.since) == ["C"]


def test_equal_lines_are_logged_less_and_less_often() -> None:
    repeats = RepeatedLog(BlockLog(logging.getLogger("candleshm"), "x"))
    assert [repeats.count("x", float(now)) for now in range(9)] == [1, 2, 0, 4, 0, 0, 0, 8, 0]
    assert repeats.count("y", 9.0) == 1
    assert repeats.count("x", 1000.0) == 1


def streamed(**changes: Any) -> SeriesPlan:
    """Return a loaded series whose live row opened at OPEN; then its tail was requested and its stream had an event."""
    settings: dict[str, Any] = {
        "newest_open_ms": OPEN,
        "unsettled_open_ms": OPEN,
        "tail_sent_seconds": SECONDS,
        "tail_sent_ms": OPEN,
        "response_seconds": SECONDS,
        "loaded": True,
        "is_streamed": True,
        "last_event_seconds": SECONDS,
    }
    return SeriesPlan("BTCUSDT", **(settings | changes))


def due(plan: SeriesPlan, after_seconds: float = 0.0) -> dict[Kind, float]:
    """Return when each kind of turn is due, in seconds from the opening of the live candle."""
    turns = next_tasks(plan, POLICY, SECONDS + after_seconds, OPEN + round(after_seconds * 1000))
    return {turn.kind: round(turn.due_seconds - SECONDS, 3) for turn in turns}


def test_an_event_counts_as_much_as_a_response() -> None:
    assert due(streamed()) == {Kind.TAIL: 6.0, Kind.CLOSING: 62.5}
    assert due(streamed(last_event_seconds=SECONDS + 40), 40) == {Kind.TAIL: 46.0, Kind.CLOSING: 62.5}


def test_the_symbol_of_a_stalled_stream_is_requested_as_if_there_were_none() -> None:
    stalled = streamed(tail_sent_seconds=SECONDS + 6, tail_sent_ms=OPEN + 6000)
    assert due(stalled, 6)[Kind.TAIL] == 9.0
    assert due(streamed(last_event_seconds=-math.inf))[Kind.TAIL] == 3.0


def test_requests_take_over_within_an_update_interval_of_the_last_event() -> None:
    lost = streamed(is_streamed=False, last_event_seconds=SECONDS + 40)
    assert due(lost, 40) == {Kind.TAIL: 43.0, Kind.CLOSING: 61.0}


def test_an_idle_series_is_requested_less_and_less_often() -> None:
    assert [due(streamed(idle_responses=idle))[Kind.TAIL] for idle in range(4)] == [6.0, 12.0, 24.0, 30.0]


def test_a_response_without_news_of_an_idle_stream_is_as_good_as_an_event() -> None:
    idle = streamed(idle_responses=2, tail_sent_seconds=SECONDS + 12, tail_sent_ms=OPEN + 12_000)
    assert due(idle, 12)[Kind.TAIL] == 36.0


def test_a_stream_may_be_idle_for_longer_than_its_recent_pauses() -> None:
    assert [due(streamed(stream_pause_seconds=pause))[Kind.TAIL] for pause in (0.5, 4.0, 9.0, 900.0)] == [6, 12, 27, 30]


def test_a_suspect_row_is_requested_once_a_response_can_decide() -> None:
    plan = streamed(last_event_seconds=SECONDS + 5)
    plan.mark_suspect(OPEN - 3 * MINUTE, OPEN + 6000)
    assert due(plan, 5) == {Kind.TAIL: 11.0, Kind.CLOSING: 6.0}
    request = request_for(plan, Kind.CLOSING, Binance("SPOT"), POLICY, OPEN + 6000)
    assert (request.limit, request.end_ms) == (5, None), "from the suspect row to one beyond the live one"


def test_a_suspect_row_too_far_back_for_a_tail_is_backfilled() -> None:
    policy = replace(POLICY, tail_limit=99, length=2000)
    plan = streamed()
    plan.mark_suspect(OPEN - 300 * MINUTE, OPEN)
    turns = {turn.kind for turn in next_tasks(plan, policy, SECONDS, OPEN)}
    assert Kind.BACKFILL in turns
    request = request_for(plan, Kind.BACKFILL, Binance("UM"), policy, OPEN + 6000)
    assert request.end_ms is not None
    assert request.end_ms - (request.limit - 1) * MINUTE <= OPEN - 300 * MINUTE <= request.end_ms


def test_a_row_that_no_response_makes_final_is_requested_now_and_then() -> None:
    plan = streamed(
        unsettled_open_ms=OPEN - MINUTE,
        tail_sent_seconds=SECONDS + 5,
        tail_sent_ms=OPEN + 5000,
        last_event_seconds=SECONDS + 20,
    )
    assert due(plan, 20) == {Kind.TAIL: 26.0}
    assert due(replace(plan, last_event_seconds=SECONDS + 33), 33) == {Kind.TAIL: 35.0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"live": "udp"}, "live"),
        ({"ws_url": "http://h"}, "ws_url"),
        ({"ws_url": "wss://"}, "ws_url"),
        ({"live": "ws", "base_url": "http://h"}, "ws_url"),
        ({"live": "ws", "proxies": {"https": "https://me:secret@h:1"}}, "proxies has one whose URL begins with https"),
        ({"live": "ws", "proxy_host": "http://h"}, "proxy_host"),
    ],
)
def test_settings_that_leave_no_way_to_the_streams(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        CollectorConfig(market="SPOT", **settings)
    if settings.get("live") == "ws":
        hindered = CollectorConfig(market="SPOT", **(settings | {"live": "auto"}))
        assert hindered.stream_hindrance is not None


@pytest.mark.parametrize(
    "settings",
    [{}, {"proxies": {"https": "http://h:1"}}, {"proxies": {"all": "socks5h://h:1"}}, {"trust_env": True}],
)
def test_settings_that_leave_a_way_to_the_streams(settings: dict[str, Any]) -> None:
    assert CollectorConfig(market="SPOT", live="ws", **settings).stream_hindrance is None
