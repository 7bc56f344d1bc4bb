"""What is requested next, for every state a series can be in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest

from candleshm.collector.planner import (
    HEAD_START_SECONDS,
    choose,
    closing_weight_of,
    loading_weight_of,
    next_tasks,
    request_for,
)
from candleshm.collector.series_plan import FetchTask, Kind, PollPolicy, SeriesPlan
from candleshm.exchanges.base import candle_end_ms
from candleshm.exchanges.binance import Binance

MINUTE = 60_000
NOW_MS = 1_000_000 * MINUTE + 30_000  # half a minute into a candle
OPEN_MS = 1_000_000 * MINUTE
NOW = 5_000.0

SPOT, UM, CM = Binance("SPOT"), Binance("UM"), Binance("CM")


@dataclass
class Position:
    """What the writer reports."""

    newest_open_ms: int | None
    unsettled_open_ms: int | None
    missing: int = 0
    closed: int = 0
    holes: int = 0
    absent: int = 0


def policy(interval: str = "1m", length: int = 2880, exchange: Binance = SPOT) -> PollPolicy:
    return PollPolicy(interval, length, 3.0, 1000, exchange.tail_limit)


def loaded(**changes: Any) -> SeriesPlan:
    facts: dict[str, Any] = {
        "newest_open_ms": OPEN_MS,
        "unsettled_open_ms": OPEN_MS,
        "tail_sent_seconds": NOW - 1.0,
        "tail_sent_ms": NOW_MS - 1000,
        "response_seconds": NOW - 1.0,
        "loaded": True,
    }
    return SeriesPlan("BTCUSDT", **(facts | changes))


def tasks_by_kind(series: SeriesPlan, now: float = NOW, now_ms: int = NOW_MS) -> dict[Kind, FetchTask]:
    return {turn.kind: turn for turn in next_tasks(series, policy(), now, now_ms)}


@pytest.mark.parametrize(
    ("interval", "open_ms", "end_ms"),
    [
        ("1s", 5_000, 6_000),
        ("1m", 1_518_084_014_789, 1_518_084_060_000),  # a real candle that opened off the grid, 2018-02-09T10:00:14.789
        ("1d", 1_518_084_014_789, 1_518_134_400_000),
        ("3d", 86_400_000, 4 * 86_400_000),  # counted from the candle, whatever the symbol's first day
        ("1w", 4 * 86_400_000, 11 * 86_400_000),  # 1970-01-05 was a Monday
        ("1M", 1_704_067_200_000, 1_706_745_600_000),  # January 2024
        ("1M", 1_706_745_600_000, 1_709_251_200_000),  # February of a leap year
        ("1M", 1_701_388_800_000, 1_704_067_200_000),  # December
    ],
)
def test_a_candle_ends_where_the_next_begins(interval: str, open_ms: int, end_ms: int) -> None:
    assert candle_end_ms(interval, open_ms) == end_ms


def test_the_newest_page_of_a_new_series_is_requested_at_once() -> None:
    series = SeriesPlan("BTCUSDT")

    assert tasks_by_kind(series)[Kind.TAIL].due_seconds <= NOW
    request = request_for(series, Kind.TAIL, SPOT, policy(), NOW_MS)
    assert (request.limit, request.start_ms, request.end_ms) == (1000, None, None)
    assert request_for(series, Kind.TAIL, UM, policy(), NOW_MS).limit == 499
    assert request_for(series, Kind.TAIL, UM, policy(length=60), NOW_MS).limit == 61


def test_a_tail_reaches_from_the_oldest_row_that_is_not_final_to_the_next_open() -> None:
    assert request_for(loaded(), Kind.TAIL, SPOT, policy(), NOW_MS).limit == 2
    behind = loaded(unsettled_open_ms=OPEN_MS - 9 * MINUTE)
    assert request_for(behind, Kind.TAIL, SPOT, policy(), NOW_MS).limit == 11
    settled = loaded(newest_open_ms=OPEN_MS - MINUTE, unsettled_open_ms=None)
    assert request_for(settled, Kind.TAIL, SPOT, policy(), NOW_MS).limit == 3


def test_a_tail_reaches_back_as_far_where_the_exchange_may_be_further_than_is_known() -> None:
    behind = loaded(unsettled_open_ms=OPEN_MS - 9 * MINUTE)
    assert request_for(behind, Kind.TAIL, SPOT, policy(), NOW_MS, NOW_MS + 3 * MINUTE).limit == 14


def test_a_futures_tail_never_costs_more_than_one() -> None:
    away = loaded(newest_open_ms=OPEN_MS - 5000 * MINUTE, unsettled_open_ms=OPEN_MS - 5000 * MINUTE)

    request = request_for(away, Kind.TAIL, UM, policy(exchange=UM), NOW_MS)

    assert (request.limit, request.weight) == (99, 1)


def test_a_tail_is_due_every_update_interval_and_closing_when_the_candle_has_settled() -> None:
    due = tasks_by_kind(loaded())

    assert due[Kind.TAIL].due_seconds == NOW + 2.0
    assert due[Kind.CLOSING].due_seconds == pytest.approx(NOW + 31.0)
    assert Kind.BACKFILL not in due


def test_a_closing_candle_is_requested_once_then_with_the_tail() -> None:
    requested = loaded(tail_sent_ms=OPEN_MS + MINUTE + 1000)

    assert set(tasks_by_kind(requested, now_ms=OPEN_MS + MINUTE + 1500)) == {Kind.TAIL}


def test_a_gap_is_requested_from_its_end_with_the_rows_around_it() -> None:
    start_ms, end_ms = OPEN_MS - 100 * MINUTE, OPEN_MS - 20 * MINUTE
    series = loaded(missing=80, missing_range_ms=(start_ms, end_ms))

    spot = request_for(series, Kind.BACKFILL, SPOT, policy(), NOW_MS)
    assert (spot.limit, spot.start_ms, spot.end_ms) == (82, None, end_ms + MINUTE - 1)
    um = request_for(series, Kind.BACKFILL, UM, policy(), NOW_MS)
    assert (um.limit, um.weight, um.start_ms, um.end_ms) == (82, 1, None, end_ms + MINUTE - 1)
    cm = request_for(series, Kind.BACKFILL, CM, policy(), NOW_MS)
    assert (cm.limit, cm.end_ms) == (82, end_ms + MINUTE - 1)
    assert cm.start_ms == end_ms + MINUTE - 200 * 86_400_000


def test_a_long_gap_is_requested_in_the_pages_that_buy_most() -> None:
    series = loaded(missing=2000, missing_range_ms=(OPEN_MS - 2000 * MINUTE, OPEN_MS))

    assert request_for(series, Kind.BACKFILL, SPOT, policy(), NOW_MS).limit == 1000
    assert request_for(series, Kind.BACKFILL, CM, policy(), NOW_MS).limit == 499


def test_coin_margined_pages_of_long_candles_hold_what_200_days_hold() -> None:
    day = 86_400_000
    series = loaded(missing=900, missing_range_ms=(100 * day, 1000 * day))

    assert request_for(series, Kind.BACKFILL, CM, policy("1d"), NOW_MS).limit == 201
    assert request_for(series, Kind.BACKFILL, CM, policy("1M"), NOW_MS).weight == 1


def test_rows_that_did_not_come_are_requested_again_after_the_settle_time_and_then_ever_less() -> None:
    series = loaded(missing=5, missing_range_ms=(OPEN_MS - 9 * MINUTE, OPEN_MS - 4 * MINUTE))
    pauses = []
    for _ in range(20):
        series.learn(
            Position(OPEN_MS, OPEN_MS, 5), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.BACKFILL
        )
        pauses.append(tasks_by_kind(series)[Kind.BACKFILL].due_seconds - NOW)

    assert pauses[0] == 1.0
    assert pauses == sorted(pauses)
    assert 60 < pauses[-1] <= 121
    # What came in the meantime by a tail does not make the gap more urgent, a new gap does.
    series.learn(Position(OPEN_MS, OPEN_MS, 5), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.TAIL)
    assert tasks_by_kind(series)[Kind.BACKFILL].due_seconds - NOW == pauses[-1]
    series.learn(Position(OPEN_MS, OPEN_MS, 6), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.TAIL)
    assert tasks_by_kind(series)[Kind.BACKFILL].due_seconds == NOW


def test_a_hole_is_confirmed_when_a_second_response_counts_and_no_page_waits_for_it() -> None:
    older, hole = (OPEN_MS - 900 * MINUTE, OPEN_MS - 400 * MINUTE), (OPEN_MS - 80 * MINUTE, OPEN_MS - 70 * MINUTE)
    series = loaded(loaded=False, missing=520, missing_range_ms=older)
    # A page that brings no row and lacks ten: that is progress, too.
    position = Position(OPEN_MS, OPEN_MS, 510, absent=10)
    series.learn(position, sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.BACKFILL)
    series.unconfirmed_range_ms, series.confirm_from_ms = hole, NOW_MS + 1000
    due = tasks_by_kind(series)
    assert due[Kind.BACKFILL].due_seconds == NOW
    assert due[Kind.CONFIRM].due_seconds == NOW + 1
    assert request_for(series, Kind.CONFIRM, SPOT, policy(), NOW_MS).limit == 12
    # Responses that do not settle it are repeated ever less, and still no page waits.
    pauses = []
    for _ in range(20):
        position = Position(OPEN_MS, OPEN_MS, 510)
        series.learn(position, sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.CONFIRM)
        pauses.append(tasks_by_kind(series)[Kind.CONFIRM].due_seconds - NOW)
        assert tasks_by_kind(series)[Kind.BACKFILL].due_seconds == NOW
    assert pauses[0] == 1.0
    assert pauses == sorted(pauses)
    assert 60 < pauses[-1] <= 121
    position = Position(OPEN_MS, OPEN_MS, 500, holes=10)
    series.learn(position, sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.CONFIRM)
    assert tasks_by_kind(series)[Kind.CONFIRM].due_seconds == NOW + 1


def test_a_listing_without_rows_is_loaded_after_two_responses_and_requested_ever_less() -> None:
    series = SeriesPlan("NEWUSDT")
    pauses = []
    for count in range(1, 20):
        series.learn(Position(None, None), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.TAIL)
        assert series.loaded == (count >= 2)
        pauses.append(tasks_by_kind(series)[Kind.TAIL].due_seconds - NOW)

    assert pauses[0] == 1.0
    assert 60 < pauses[-1] <= 121


def test_a_series_is_loaded_when_nothing_is_missing_any_more() -> None:
    series = SeriesPlan("BTCUSDT")
    series.learn(Position(OPEN_MS, OPEN_MS, 880), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.TAIL)
    assert not series.loaded
    series.learn(Position(OPEN_MS, OPEN_MS, 0), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.BACKFILL)
    assert series.loaded


def test_a_series_taken_over_is_not_loaded_before_its_tail_was_requested() -> None:
    series = SeriesPlan("BTCUSDT", newest_open_ms=OPEN_MS, unsettled_open_ms=OPEN_MS, missing=4)
    series.learn(Position(OPEN_MS, OPEN_MS, 0), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.BACKFILL)

    assert not series.loaded
    assert tasks_by_kind(series)[Kind.TAIL].due_seconds <= NOW


def test_while_a_series_loads_backfill_goes_before_its_tail() -> None:
    series = loaded(loaded=False, missing=9, missing_range_ms=(OPEN_MS - 9 * MINUTE, OPEN_MS))

    due = tasks_by_kind(series)

    assert due[Kind.BACKFILL].due_seconds <= NOW < due[Kind.TAIL].due_seconds
    assert Kind.CLOSING not in due


def test_a_row_left_behind_by_an_outage_of_our_own_is_fetched_although_no_tail_reaches_it() -> None:
    left_ms = OPEN_MS - 300 * MINUTE
    futures = policy(exchange=UM)
    series = loaded(unsettled_open_ms=left_ms, tail_sent_ms=NOW_MS)

    due = {turn.kind for turn in next_tasks(series, futures, NOW, NOW_MS)}
    request = request_for(series, Kind.BACKFILL, UM, futures, NOW_MS)

    assert Kind.BACKFILL in due
    assert request.end_ms is not None
    assert request.end_ms - (request.limit - 1) * MINUTE <= left_ms <= request.end_ms <= NOW_MS


def test_a_row_that_never_settles_does_not_keep_gaps_from_being_requested() -> None:
    gap = (OPEN_MS - 50 * MINUTE, OPEN_MS - 40 * MINUTE)
    series = loaded(unsettled_open_ms=OPEN_MS - 3000 * MINUTE, missing=10, missing_range_ms=gap)
    ends = []
    for no_progress in range(2):
        series.no_progress = no_progress
        ends.append(request_for(series, Kind.BACKFILL, UM, policy(exchange=UM), NOW_MS).end_ms)

    assert gap[1] + MINUTE - 1 in ends
    assert len(set(ends)) == 2


def test_once_a_series_no_longer_trades_its_last_candle_is_requested_until_it_is_final() -> None:
    series = loaded()
    series.end(NOW_MS)
    due = tasks_by_kind(series)
    assert set(due) == {Kind.CLOSING}
    assert due[Kind.CLOSING].due_seconds == pytest.approx(NOW + 31.0)
    # Futures go on with flat candles, which are not requested.
    sent_ms = OPEN_MS + MINUTE + 1500
    request = request_for(series, Kind.CLOSING, UM, policy(exchange=UM), sent_ms)
    assert (request.limit, request.end_ms) == (2, NOW_MS)

    pauses = []
    for _ in range(20):
        series.learn(Position(OPEN_MS, OPEN_MS), sent_seconds=NOW, sent_ms=sent_ms, now_seconds=NOW, kind=Kind.CLOSING)
        pauses.append(tasks_by_kind(series, now_ms=sent_ms)[Kind.CLOSING].due_seconds - NOW)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 5
    assert pauses[-1] == pytest.approx(3601)

    final = Position(OPEN_MS, OPEN_MS + MINUTE, closed=1)
    series.learn(final, sent_seconds=NOW, sent_ms=sent_ms, now_seconds=NOW, kind=Kind.CLOSING)
    assert not tasks_by_kind(series, now_ms=sent_ms)


def test_a_series_that_ended_between_two_candles_is_requested_once_more_and_then_left() -> None:
    series = loaded(newest_open_ms=OPEN_MS - MINUTE, unsettled_open_ms=OPEN_MS, tail_sent_ms=OPEN_MS + 500)
    series.end(OPEN_MS + 600)
    assert tasks_by_kind(series, now_ms=OPEN_MS + 600)[Kind.CLOSING].due_seconds == pytest.approx(NOW + 1.0)
    series.learn(
        Position(OPEN_MS - MINUTE, OPEN_MS),
        sent_seconds=NOW + 1,
        sent_ms=OPEN_MS + 1600,
        now_seconds=NOW + 1,
        kind=Kind.CLOSING,
    )
    assert not tasks_by_kind(series, NOW + 1, OPEN_MS + 1600)


def test_what_is_missing_of_a_series_that_no_longer_trades_is_still_loaded() -> None:
    gap = (OPEN_MS - MINUTE, OPEN_MS)
    assert Kind.BACKFILL in tasks_by_kind(loaded(trading=False, missing=1, missing_range_ms=gap))
    assert Kind.TAIL in tasks_by_kind(loaded(trading=False, loaded=False, missing=1, missing_range_ms=gap))


def test_a_failed_series_waits_for_its_retry_whatever_else_is_due() -> None:
    series = loaded(retry_seconds=NOW + 40, missing=1, missing_range_ms=(OPEN_MS - MINUTE, OPEN_MS))

    assert min(task.due_seconds for task in tasks_by_kind(series).values()) == NOW + 40


def waiting(symbol: str, kind: Kind, due_seconds: float) -> SeriesPlan:
    head_start_seconds = HEAD_START_SECONDS if kind is Kind.CLOSING else 0.0
    return SeriesPlan(symbol, tasks=(FetchTask(kind, due_seconds, due_seconds - head_start_seconds),))


def test_first_come_first_served_with_a_head_start_for_closing_candles() -> None:
    serieses = [
        waiting("TAIL", Kind.TAIL, NOW - 3),
        waiting("BACKFILL", Kind.BACKFILL, NOW - 5),
        waiting("CLOSING", Kind.CLOSING, NOW),
        waiting("STARVED", Kind.BACKFILL, NOW - 30),
        waiting("LATER", Kind.CLOSING, NOW + 7),
        waiting("NEXT", Kind.TAIL, NOW + 5),
    ]
    order = []
    while (choice := choose(serieses, NOW)).first is not None:
        series, _ = choice.first
        order.append(series.symbol)
        series.tasks = ()

    assert order == ["STARVED", "CLOSING", "BACKFILL", "TAIL"]
    assert (choice.next_seconds, choice.next_closing_seconds) == (NOW + 5, NOW + 7)


def test_with_more_closing_candles_than_weight_everything_still_gets_its_turn() -> None:
    closing = [waiting(f"C{number}", Kind.CLOSING, NOW) for number in range(50)]
    backfill = waiting("LOADING", Kind.BACKFILL, NOW)
    for now in itertools.count(NOW, 0.5):  # two requests a second, and every candle closes again at once
        found = choose([*closing, backfill], now).first
        assert found is not None
        if found[0] is backfill:
            break
        assert now < NOW + 60
        found[0].tasks = waiting("", Kind.CLOSING, now).tasks


def test_the_closing_candle_behind_a_turn_that_has_to_wait_is_known() -> None:
    serieses = [waiting("TAIL", Kind.TAIL, NOW - 60), waiting("CLOSING", Kind.CLOSING, NOW - 1)]

    choice = choose(serieses, NOW)

    assert choice.first == (serieses[0], Kind.TAIL)
    assert choice.closing == (serieses[1], Kind.CLOSING)
    assert choose(serieses[:1], NOW).closing is None


def test_what_may_be_part_of_a_burst_is_known_beside_what_may_not() -> None:
    tail, backfill = waiting("TAIL", Kind.TAIL, NOW - 5), waiting("BACKFILL", Kind.BACKFILL, NOW - 9)
    tail.loaded = backfill.loaded = True
    starting = SeriesPlan("STARTING", tasks=waiting("", Kind.TAIL, NOW - 7).tasks)

    choice = choose([tail, backfill, starting], NOW)
    assert choice.first == choice.steady == (backfill, Kind.BACKFILL)
    assert choice.loading == (starting, Kind.TAIL)
    assert choice.backfills == 1

    choice = choose([tail, backfill, starting], NOW, repairs_many=True)
    assert choice.first == choice.loading == (backfill, Kind.BACKFILL)
    assert choice.steady == (tail, Kind.TAIL)


def test_what_a_start_still_costs_is_counted_in_pages() -> None:
    assert loading_weight_of(SeriesPlan("NEW"), SPOT, policy("1m")) == 2 * math.ceil(policy("1m").length / 1000)
    assert loading_weight_of(SeriesPlan("HALF", missing=1001, tail_sent_ms=1), SPOT, policy("1m")) == 4
    assert loading_weight_of(loaded(missing=1001), SPOT, policy("1m")) == 0


@pytest.mark.parametrize(("interval", "weight"), [("1s", 400 * 2 * 60), ("1m", 800), ("1h", 800)])
def test_a_round_of_closing_candles_is_reserved_for_every_window(interval: str, weight: int) -> None:
    assert closing_weight_of(400, SPOT, policy(interval), 60.0) == weight


def test_frequent_tails_do_not_put_off_the_second_look_at_a_gap() -> None:
    gap = (OPEN_MS - 80 * MINUTE, OPEN_MS - 10 * MINUTE)
    series = loaded(missing=70, missing_range_ms=gap)
    series.learn(Position(OPEN_MS, OPEN_MS, 70), sent_seconds=NOW, sent_ms=NOW_MS, now_seconds=NOW, kind=Kind.BACKFILL)
    due = tasks_by_kind(series)[Kind.BACKFILL].due_seconds
    assert due > NOW
    for tail in (0.4, 0.8, 1.2):
        at = NOW + tail
        position = Position(OPEN_MS, OPEN_MS, 70)
        series.learn(position, sent_seconds=at, sent_ms=NOW_MS + 400, now_seconds=at, kind=Kind.TAIL)
        assert tasks_by_kind(series)[Kind.BACKFILL].due_seconds == due
