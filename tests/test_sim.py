"""The simulated exchange, asked over real HTTP: the exchange's rules, its candles, its limits and its faults."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import requests

from candleshm.sim import (
    Fault,
    Market,
    Outage,
    Restatement,
    SimulatedExchange,
    Truth,
    banned,
    html,
    rate_limited,
    run,
)

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
API: dict[Market, str] = {"SPOT": "/api/v3", "UM": "/fapi/v1", "CM": "/dapi/v1"}
SYMBOL: dict[Market, str] = {"SPOT": "BTCUSDT", "UM": "BTCUSDT", "CM": "BTCUSD_PERP"}
UNLIMITED = 10**9


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = utc("2026-03-11T12:34:56.789")


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now_ms: int = NOW

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Exchange:
    """A running exchange, its clock and a session to ask it with."""

    sim: SimulatedExchange
    clock: Clock
    session: requests.Session

    def get(self, market: Market, name: str, **parameters: object) -> requests.Response:
        url = f"{self.sim.base_url}{API[market]}/{name}"
        return self.session.get(url, params={key: str(value) for key, value in parameters.items()}, timeout=10)

    def klines(self, market: Market, interval: str = "1m", symbol: str | None = None, **parameters: object) -> Any:
        answer = self.get(market, "klines", symbol=symbol or SYMBOL[market], interval=interval, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(seed=7, symbols=30, as_of_ms=NOW)


def serve(**options: Any) -> Iterator[Exchange]:
    clock = Clock()
    with SimulatedExchange(clock_ms=clock, seed=7, **options) as sim, requests.Session() as session:
        yield Exchange(sim, clock, session)


@pytest.fixture(scope="module")
def exchange(truth: Truth) -> Iterator[Exchange]:
    """An exchange whose world nobody changes."""
    yield from serve(truth=truth, spot_limit=UNLIMITED, futures_limit=UNLIMITED)


@pytest.fixture
def own() -> Iterator[Exchange]:
    """An exchange of the test's own, to change and break."""
    yield from serve(symbols=3, spot_limit=UNLIMITED, futures_limit=UNLIMITED)


def opens(rows: list[list[Any]]) -> list[int]:
    return [row[0] for row in rows]


def aggregate(rows: list[list[Any]]) -> list[Any]:
    """Make one candle of smaller ones by the exchange's rule, in the plainest way."""
    traded = [row for row in rows if row[8] > 0]
    last_close = rows[-1][4]
    sums = {column: sum(Decimal(row[column]) for row in rows) for column in (5, 7, 9, 10)}
    return [
        traded[0][1] if traded else last_close,
        max((row[2] for row in traded), key=Decimal, default=last_close),
        min((row[3] for row in traded), key=Decimal, default=last_close),
        last_close,
        sums[5],
        sums[7],
        sum(row[8] for row in rows),
        sums[9],
        sums[10],
    ]


def values(row: list[Any]) -> list[Any]:
    """Bring a served candle into the form that `aggregate` returns."""
    return [*row[1:5], Decimal(row[5]), Decimal(row[7]), row[8], Decimal(row[9]), Decimal(row[10])]


# Candles


@pytest.mark.parametrize(
    ("market", "symbol", "small", "big", "per_big"),
    [
        ("SPOT", "BTCUSDT", "1s", "1m", 60),
        ("SPOT", "SUSHIBTC", "1s", "1m", 60),
        ("SPOT", "BTCUSDT", "1m", "3m", 3),
        ("SPOT", "SUSHIBTC", "1m", "5m", 5),
        ("SPOT", "SUSHIBTC", "1m", "1h", 60),
        ("SPOT", "SUSHIBTC", "15m", "30m", 2),
        ("SPOT", "ETHUSDT", "30m", "2h", 4),
        ("SPOT", "SUSHIBTC", "1m", "1d", 1440),
        ("SPOT", "ETHUSDT", "1h", "4h", 4),
        ("SPOT", "ETHUSDT", "2h", "6h", 3),
        ("SPOT", "ETHUSDT", "4h", "8h", 2),
        ("SPOT", "ETHUSDT", "6h", "12h", 2),
        ("SPOT", "ETHUSDT", "12h", "1d", 2),
        ("SPOT", "ETHUSDT", "1d", "3d", 3),
        ("SPOT", "ETHUSDT", "1d", "1w", 7),
        ("SPOT", "ETHUSDT", "1d", "1M", 31),
        ("UM", "BTCUSDT", "1m", "15m", 15),
        ("UM", "BTCUSDT", "1h", "1d", 24),
        ("CM", "BTCUSD_PERP", "1m", "1h", 60),
        ("CM", "ETHUSD_PERP", "1d", "1w", 7),
    ],
)
def test_bigger_candles_are_made_of_smaller_ones(
    truth: Truth, market: Market, symbol: str, small: str, big: str, per_big: int
) -> None:
    big_open = truth.klines(market, symbol, big, utc("2025-12-20"), utc("2025-12-20") + 1)[0][0]
    for _ in range(3):
        candle = truth.kline(market, symbol, big, big_open)
        assert candle is not None
        parts = truth.klines(market, symbol, small, big_open, candle[6] + 1)
        assert opens(parts)[0] == candle[0] == big_open
        assert len(parts) == per_big or big == "1M"
        assert aggregate(parts) == values(candle)
        big_open = candle[6] + 1


@pytest.mark.parametrize(("market", "symbol"), [("SPOT", "BTCUSDT"), ("SPOT", "SUSHIBTC"), ("UM", "SUSHIUSDT")])
def test_a_row_can_be_true(truth: Truth, market: Market, symbol: str) -> None:
    for interval in ("1m", "1h") + (("1s",) if market == "SPOT" else ()):
        previous_close = None
        for row in truth.klines(market, symbol, interval, NOW - 3 * HOUR, NOW):
            opening, high, low, close, volume, quote, buy, buy_quote = (
                Decimal(row[i]) for i in (1, 2, 3, 4, 5, 7, 9, 10)
            )
            assert 0 < low <= min(opening, close) <= max(opening, close) <= high
            assert low * volume <= quote <= high * volume
            assert low * buy <= buy_quote <= high * buy
            assert buy <= volume
            assert (row[8] == 0) == (volume == 0)
            if row[8] == 0 and previous_close is not None:
                assert opening == high == low == close == previous_close
            previous_close = close


def test_quiet_symbols_have_flat_candles_and_busy_ones_have_none(truth: Truth) -> None:
    quiet = truth.klines("SPOT", "SUSHIBTC", "1m", NOW - 10 * HOUR, NOW)
    busy = truth.klines("SPOT", "BTCUSDT", "1m", NOW - 10 * HOUR, NOW)
    assert 300 < sum(row[8] == 0 for row in quiet) < 600
    assert all(row[8] > 0 for row in busy)
    # A traded candle opens with its first trade, which is often not the close before it.
    same = sum(row[1] == before[4] for before, row in itertools.pairwise(busy))
    assert 0.3 < same / len(busy) < 0.7


def test_flat_candles_carry_the_close_before_them_over_midnight(truth: Truth) -> None:
    for day in range(10):
        midnight = utc("2026-03-01") + day * DAY
        rows = truth.klines("SPOT", "SUSHIBTC", "1m", midnight - HOUR, midnight + HOUR)
        for before, row in itertools.pairwise(rows):
            assert row[8] > 0 or {*row[1:5]} == {before[4]}


def test_decimals_are_printed_as_each_market_does(truth: Truth) -> None:
    def decimals(market: Market) -> list[int]:
        row = truth.kline(market, SYMBOL[market], "1m", NOW)
        assert row is not None
        assert [type(row[i]) for i in (0, 6, 8)] == [int, int, int]
        assert row[11] == "0"
        return [len(str(row[i]).partition(".")[2]) for i in (1, 2, 3, 4, 5, 7, 9, 10)]

    assert decimals("SPOT") == [8] * 8
    assert decimals("UM") == [1, 1, 1, 1, 3, 4, 3, 4]
    assert decimals("CM") == [1, 1, 1, 1, 0, 8, 0, 8]


def test_cm_volume_is_contracts_and_turnover_is_coin(truth: Truth) -> None:
    for symbol, dollars in (("BTCUSD_PERP", 100), ("ETHUSD_PERP", 10)):
        for row in truth.klines("CM", symbol, "1m", NOW - HOUR, NOW):
            contracts, coins = int(row[5]), Decimal(row[7])
            slack = contracts * Decimal("0.00000001")
            assert (coins - slack) * Decimal(row[3]) <= contracts * dollars <= (coins + slack) * Decimal(row[2])


def test_floats_are_the_floats_of_the_text(truth: Truth) -> None:
    rows = truth.klines("SPOT", "BTCUSDT", "1m", NOW - HOUR, NOW)
    array = truth.floats("SPOT", "BTCUSDT", "1m", NOW - HOUR, NOW)
    assert array.shape == (61, 12)
    assert array.tolist() == [[float(value) for value in row] for row in rows]


def test_the_same_seed_tells_the_same_story_in_any_order(truth: Truth) -> None:
    other = Truth(seed=7, symbols=30, as_of_ms=NOW)
    assert other.live("SPOT", "ETHUSDT", "1h", NOW) == truth.live("SPOT", "ETHUSDT", "1h", NOW)
    for interval in ("1M", "1s", "1m"):
        span = (NOW - 5 * MINUTE, NOW)
        assert other.klines("SPOT", "ETHUSDT", interval, *span) == truth.klines("SPOT", "ETHUSDT", interval, *span)
    assert other.instruments("UM") == truth.instruments("UM")
    assert Truth(seed=8, symbols=1).kline("SPOT", "BTCUSDT", "1m", NOW) != truth.kline("SPOT", "BTCUSDT", "1m", NOW)


def test_grids_of_the_long_intervals(truth: Truth) -> None:
    """Days mod 3 are those of the real symbols: BTC 1, LINK 2, XRP 0; the first 1w and 1M open before the listing."""
    for symbol, day in (("BTCUSDT", 1), ("LINKUSDT", 2), ("XRPUSDT", 0)):
        row = truth.kline("SPOT", symbol, "3d", NOW)
        assert row is not None
        assert row[0] // DAY % 3 == day
    listed_ms = truth.instrument("SPOT", "BTCUSDT").listed_ms
    first = {i: truth.klines("SPOT", "BTCUSDT", i, 0, listed_ms + 1)[0] for i in ("1m", "1d", "3d", "1w", "1M")}
    assert {interval: row[0] for interval, row in first.items()} == {
        "1m": utc("2017-08-17T04:00"),
        "1d": utc("2017-08-17"),
        "3d": utc("2017-08-17"),
        "1w": utc("2017-08-14"),
        "1M": utc("2017-08-01"),
    }
    assert first["1M"][6] == utc("2017-09-01") - 1


@pytest.mark.parametrize(("symbol", "interval"), [("BTCUSDT", "1m"), ("SUSHIBTC", "1h"), ("SUSHIBTC", "1d")])
def test_the_live_candle_grows_into_the_final_one(truth: Truth, symbol: str, interval: str) -> None:
    final = truth.kline("SPOT", symbol, interval, NOW)
    assert final is not None
    open_ms, close_ms = final[0], final[6]
    step = (close_ms - open_ms) // 50
    seen = [truth.live("SPOT", symbol, interval, now) for now in range(open_ms, close_ms, step)]
    trades = [row[8] for row in seen if row is not None]
    assert len(trades) == len(seen)
    assert trades == sorted(trades)
    assert trades[0] < trades[-1]
    settled = truth.klines("SPOT", symbol, interval, open_ms, open_ms + 1, now_ms=close_ms + 1 + truth.late_ms)
    assert settled == [final]


def test_the_live_minute_is_made_of_the_seconds_seen_so_far(truth: Truth) -> None:
    for symbol in ("BTCUSDT", "SUSHIBTC"):
        for now_ms in range(NOW, NOW + 3 * MINUTE, 7_013):
            minute = truth.live("SPOT", symbol, "1m", now_ms)
            assert minute is not None
            seconds = truth.klines("SPOT", symbol, "1s", minute[0], now_ms + 1, now_ms=now_ms)
            assert aggregate(seconds) == values(minute)


def test_btc_moves_within_a_second(truth: Truth) -> None:
    rows = truth.klines("SPOT", "BTCUSDT", "1s", NOW - MINUTE, NOW)
    assert sum(row[2] != row[3] for row in rows) > 50


def test_a_candle_still_changes_for_a_moment_after_its_end(own: Exchange) -> None:
    open_ms = utc("2026-03-11T12:34")
    final = own.sim.truth.kline("SPOT", "BTCUSDT", "1m", open_ms)
    own.clock.now_ms = open_ms + MINUTE + 10
    assert final is not None
    early = own.klines("SPOT", startTime=open_ms, endTime=open_ms)
    own.clock.now_ms = open_ms + MINUTE + own.sim.truth.late_ms
    assert early[0][0] == open_ms
    assert early[0][8] < final[8]
    assert own.klines("SPOT", startTime=open_ms, endTime=open_ms) == [final]


# Outages, corrections, listings


def test_known_outages_of_the_real_market(truth: Truth) -> None:
    def rows(interval: str, start: str, end: str) -> list[list[Any]]:
        return truth.klines("SPOT", "BTCUSDT", interval, utc(start), utc(end))

    hours = rows("1h", "2023-03-24", "2023-03-25")
    assert len(hours) == 23
    assert utc("2023-03-24T13:00") not in opens(hours)
    odd = [row for row in hours if row[6] - row[0] != HOUR - 1]
    assert [(row[0], row[6]) for row in odd] == [(utc("2023-03-24T12:00"), utc("2023-03-24T12:39:41.646"))]
    # Candles in which trading went on again close when they should.
    for interval, length in (("4h", 4 * HOUR), ("1d", DAY)):
        assert all(row[6] == row[0] + length - 1 for row in rows(interval, "2023-03-24", "2023-03-25"))
    minutes = rows("1m", "2023-03-24T11:27", "2023-03-24T14:01")
    assert [row[8] == 0 for row in minutes] == [False] + [True] * 72 + [False]
    assert opens(minutes)[-2:] == [utc("2023-03-24T12:39"), utc("2023-03-24T14:00")]

    day = rows("1d", "2018-02-08", "2018-02-09")[0]
    assert day[6] == utc("2018-02-08T00:28:14.788")
    off_grid = rows("1m", "2018-02-09T10:00", "2018-02-09T10:02")
    assert opens(off_grid) == [utc("2018-02-09T10:00:14.789"), utc("2018-02-09T10:01:14.789")]
    assert [row[6] - row[0] for row in off_grid] == [MINUTE - 1] * 2


def test_off_grid_rows_are_found_by_the_time_they_were_sent_with(exchange: Exchange) -> None:
    resumed = utc("2018-02-09T10:00")
    sent = [resumed + 14_789, resumed + MINUTE + 14_789]
    assert opens(exchange.klines("SPOT", startTime=resumed, endTime=sent[1])) == sent
    assert opens(exchange.klines("SPOT", startTime=resumed, endTime=sent[1] - 1)) == sent[:1]
    assert opens(exchange.klines("SPOT", startTime=sent[0] + 1, limit=1)) == sent[1:]


def test_an_outage_added_at_run_time_leaves_a_hole_in_every_interval(own: Exchange) -> None:
    start_ms = utc("2026-03-11T10:00")
    before = own.klines("SPOT", startTime=start_ms, limit=200)
    hour = own.klines("SPOT", "1h", startTime=start_ms, limit=1)[0]
    assert aggregate(before[:60]) == values(hour)
    own.sim.truth.add_outage(
        Outage(start_ms=start_ms + 10 * MINUTE, end_ms=start_ms + HOUR, market="SPOT", symbol="BTCUSDT")
    )
    after = own.klines("SPOT", startTime=start_ms, limit=95)
    assert [row[0] - start_ms for row in after] == [
        *range(0, 10 * MINUTE, MINUTE),
        *range(HOUR, HOUR + 85 * MINUTE, MINUTE),
    ]
    assert own.klines("SPOT", startTime=start_ms + 10 * MINUTE, endTime=start_ms + HOUR - 1) == []
    assert aggregate(after[:10]) == values(own.klines("SPOT", "1h", startTime=start_ms, limit=1)[0])
    assert len(own.klines("SPOT", endTime=start_ms + HOUR, limit=20)) == 20
    assert len(own.klines("UM", startTime=start_ms, limit=95)) == 95
    seconds = own.klines("SPOT", "1s", startTime=start_ms + 10 * MINUTE - 2 * SECOND, limit=3)
    assert [row[0] - start_ms for row in seconds] == [598_000, 599_000, HOUR]


def test_a_restatement_changes_a_closed_candle_in_every_interval(own: Exchange) -> None:
    for market in API:
        minute_ms, span = utc("2026-03-11T10:05"), (utc("2026-03-11T10:00"), utc("2026-03-11T11:00"))
        symbol = SYMBOL[market]
        truth = own.sim.truth
        old = truth.kline(market, symbol, "1m", minute_ms)
        truth.restate(Restatement(market=market, symbol=symbol, minute_ms=minute_ms, lots=500))
        new = own.klines(market, startTime=minute_ms, endTime=minute_ms)[0]
        assert old is not None
        assert new[8] == old[8] + 1
        assert Decimal(new[5]) > Decimal(old[5])
        assert Decimal(new[7]) > Decimal(old[7])
        minutes = truth.klines(market, symbol, "1m", *span)
        hour = truth.klines(market, symbol, "1h", *span)[0]
        assert aggregate(minutes) == values(hour)
    seconds = own.sim.truth.klines("SPOT", "BTCUSDT", "1s", minute_ms, minute_ms + MINUTE)
    assert aggregate(seconds) == values(own.klines("SPOT", startTime=minute_ms, limit=1)[0])


def test_a_minute_without_a_trade_cannot_be_restated(own: Exchange) -> None:
    quiet = next(row for row in own.klines("SPOT", symbol="SUSHIBTC", endTime=NOW - HOUR) if row[8] == 0)
    with pytest.raises(ValueError, match=str(quiet[0])):
        own.sim.truth.restate(Restatement(market="SPOT", symbol="SUSHIBTC", minute_ms=quiet[0]))


def test_before_the_listing_there_is_nothing_and_history_may_be_short(exchange: Exchange) -> None:
    listed_ms = exchange.sim.truth.instrument("SPOT", "NEWUSDT").listed_ms
    assert listed_ms == utc("2026-03-10T06:00")
    assert exchange.klines("SPOT", symbol="NEWUSDT", startTime=0, endTime=listed_ms - 1) == []
    assert opens(exchange.klines("SPOT", symbol="NEWUSDT", startTime=0, limit=2)) == [listed_ms, listed_ms + MINUTE]
    assert len(exchange.klines("SPOT", "1h", symbol="NEWUSDT", limit=1000)) == 31
    assert exchange.klines("UM", symbol="BTCSTUSDT") == []


def test_symbols_come_and_go(own: Exchange) -> None:
    truth = own.sim.truth
    template = truth.instrument("SPOT", "ETHUSDT")
    assert own.get("SPOT", "klines", symbol="FRESHUSDT", interval="1m").json()["code"] == -1121
    truth.enlist(replace(template, symbol="FRESHUSDT", base="FRESH", listed_ms=NOW - 5 * MINUTE))
    assert len(own.klines("SPOT", symbol="FRESHUSDT")) == 6
    ended_ms = NOW // MINUTE * MINUTE
    truth.delist("SPOT", "ETHUSDT", NOW)
    truth.delist("UM", "ETHUSDT", NOW)
    own.clock.now_ms = NOW + 3 * DAY
    assert opens(own.klines("SPOT", symbol="ETHUSDT", limit=1)) == [ended_ms]
    flat = own.klines("UM", symbol="ETHUSDT", limit=2)
    assert flat[1][0] == own.clock.now_ms // MINUTE * MINUTE
    assert [row[8] for row in flat] == [0, 0]
    assert {flat[1][column] for column in (1, 2, 3, 4)} == {flat[0][4]}
    status = {item["symbol"]: item["status"] for item in own.get("SPOT", "exchangeInfo").json()["symbols"]}
    assert (status["ETHUSDT"], status["BTCUSDT"], status["LUNAUSDT"]) == ("BREAK", "TRADING", "BREAK")
    truth.remove("SPOT", "ETHUSDT")
    assert own.get("SPOT", "klines", symbol="ETHUSDT", interval="1m").json()["code"] == -1121


# Parameters


def test_the_last_row_is_the_candle_in_progress(exchange: Exchange) -> None:
    for market in API:
        rows = exchange.klines(market)
        assert len(rows) == 500
        assert opens(rows) == list(range(opens(rows)[0], NOW, MINUTE))
        assert rows[-1][6] > NOW
        assert rows == exchange.sim.truth.klines(market, SYMBOL[market], "1m", rows[0][0], NOW, now_ms=NOW)


@pytest.mark.parametrize("market", ["SPOT", "UM"])
def test_ranges_on_spot_and_um(exchange: Exchange, market: Market) -> None:
    start = utc("2026-03-11T10:00")
    oldest = exchange.klines(market, startTime=start, limit=3)
    assert opens(oldest) == [start, start + MINUTE, start + 2 * MINUTE]
    assert opens(exchange.klines(market, startTime=start + 1, limit=1)) == [start + MINUTE]
    assert opens(exchange.klines(market, endTime=start, limit=2)) == [start - MINUTE, start]
    assert opens(exchange.klines(market, endTime=start - 1, limit=1)) == [start - MINUTE]
    assert opens(exchange.klines(market, startTime=start, endTime=start)) == [start]
    assert opens(exchange.klines(market, startTime=start, endTime=start + 10 * MINUTE, limit=2)) == opens(oldest)[:2]
    assert len(exchange.klines(market, startTime=start, endTime=start + 10 * MINUTE)) == 11
    assert exchange.klines(market, startTime=NOW + 1) == []
    assert opens(exchange.klines(market, "1M", startTime=0, limit=2))[1] > utc("2017-08-01")


def test_ranges_on_cm_count_back_from_the_end(exchange: Exchange) -> None:
    start = utc("2026-03-11T10:00")
    rows = exchange.klines("CM", startTime=start, endTime=start + 10 * MINUTE, limit=3)
    assert opens(rows) == [start + k * MINUTE for k in (8, 9, 10)]
    # Only a start: the newest rows of the 200 days after it, not the oldest.
    assert opens(exchange.klines("CM", startTime=start, limit=2))[-1] == NOW // MINUTE * MINUTE
    early = utc("2025-01-01")
    assert opens(exchange.klines("CM", "1h", startTime=early, limit=1)) == [early + 200 * DAY]
    days = exchange.klines("CM", "1d", limit=1500)
    assert len(days) == 200
    assert len(exchange.klines("CM", "1d", endTime=early, limit=1500)) == 201
    assert len(exchange.klines("CM", "1d", startTime=early, endTime=early + 200 * DAY, limit=1500)) == 201


@pytest.mark.parametrize(
    ("market", "pair", "kind", "symbol"),
    [
        ("UM", "BTCUSDT", "PERPETUAL", "BTCUSDT"),
        ("CM", "BTCUSD", "PERPETUAL", "BTCUSD_PERP"),
        ("UM", "XAUUSDT", "TRADIFI_PERPETUAL", "XAUUSDT"),
    ],
)
def test_continuous_klines_of_perpetuals(exchange: Exchange, market: Market, pair: str, kind: str, symbol: str) -> None:
    for parameters in ({}, {"limit": 3}, {"startTime": NOW - HOUR, "limit": 3}, {"endTime": NOW - HOUR, "limit": 3}):
        response = exchange.get(market, "continuousKlines", pair=pair, contractType=kind, interval="5m", **parameters)
        assert response.json() == exchange.klines(market, "5m", symbol, **parameters)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("contractType=PERPETUAL&interval=1m", -1102),
        ("pair=BTCUSDT&interval=1m", -1102),
        ("pair=BTCUSDT&contractType=perpetual&interval=1m", -1130),
        ("pair=BTCUSDT&contractType=CURRENT_MONTH&interval=1m", -1130),
        ("pair=BTCUSDT_260327&contractType=CURRENT_QUARTER&interval=1m", -1121),
        ("pair=BTCUSDT&contractType=PERPETUAL&interval=1m&limit=1501", -1130),
        ("pair=BTCUSDT&contractType=TRADIFI_PERPETUAL&interval=1m", -1121),
        ("pair=NOPEUSDT&contractType=PERPETUAL&interval=1m", -1121),
    ],
)
def test_what_continuous_klines_do_not_take(exchange: Exchange, parameters: str, code: int) -> None:
    response = exchange.get("UM", f"continuousKlines?{parameters}")
    assert response.status_code == 400
    assert response.json()["code"] == code


def test_spot_takes_too_large_a_limit_for_its_maximum(exchange: Exchange) -> None:
    assert len(exchange.klines("SPOT", limit=1500)) == 1000
    assert len(exchange.klines("UM", limit=1500)) == 1500
    assert exchange.get("SPOT", "uiKlines", symbol="BTCUSDT", interval="1m", limit=1).status_code == 200


def test_spot_takes_microseconds_and_a_time_zone(exchange: Exchange) -> None:
    start = utc("2026-03-11T10:00")
    assert opens(exchange.klines("SPOT", startTime=start * 1000, limit=1)) == [start]
    assert opens(exchange.klines("SPOT", "1d", limit=1, timeZone="8")) == [utc("2026-03-10T16:00")]
    assert opens(exchange.klines("SPOT", "1h", limit=1, timeZone="05:45")) == [utc("2026-03-11T12:15")]
    months = exchange.klines("SPOT", "1M", limit=1, timeZone="-1:00")
    assert opens(months) == [utc("2026-03-01T01:00")]
    assert exchange.get("SPOT", "klines", symbol="BTCUSDT", interval="1d", timeZone="15").json()["code"] == -1130


def test_spot_sends_microseconds_to_order(exchange: Exchange) -> None:
    def get(market: Market, name: str, unit: str) -> requests.Response:
        url = f"{exchange.sim.base_url}{API[market]}/{name}?symbol={SYMBOL[market]}&interval=1m&limit=2"
        return exchange.session.get(url, headers={"X-MBX-TIME-UNIT": unit}, timeout=10)

    plain = exchange.klines("SPOT", limit=2)
    finer = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in plain]
    assert get("SPOT", "klines", "MICROSECOND").json() == finer
    assert get("SPOT", "klines", "millisecond").json() == plain
    assert get("SPOT", "time", "MICROSECOND").json() == {"serverTime": NOW * 1000}
    assert get("SPOT", "klines", "HOUR").json()["code"] == -1194
    assert get("UM", "klines", "MICROSECOND").json() == exchange.klines("UM", limit=2)


def test_intervals_are_case_sensitive(exchange: Exchange) -> None:
    assert opens(exchange.klines("SPOT", "1M", limit=1)) == [utc("2026-03-01")]
    assert opens(exchange.klines("SPOT", "1m", limit=1)) == [NOW // MINUTE * MINUTE]
    assert opens(exchange.klines("SPOT", "1s", limit=1)) == [NOW // SECOND * SECOND]


@pytest.mark.parametrize(
    ("market", "parameters", "code"),
    [
        ("SPOT", "interval=1m", -1102),
        ("SPOT", "symbol=BTCUSDT", -1102),
        ("UM", "interval=1m", -1102),
        ("SPOT", "symbol=&interval=1m", -1105),
        ("SPOT", "symbol=BTC/USDT&interval=1m", -1100),
        ("SPOT", "symbol=btcusdt&interval=1m", -1100),
        ("SPOT", "symbol=BTCUSDT&interval=1m&limit=x", -1100),
        ("SPOT", "symbol=BTCUSDT&interval=1m&startTime=-5", -1100),
        ("SPOT", "symbol=BTCUSDT&interval=1m&color=red", -1104),
        ("SPOT", "symbol=BTCUSDT&interval=1m&interval=1m", -1101),
        ("SPOT", "symbol=NOPEUSDT&interval=1m", -1121),
        ("UM", "symbol=NOPEUSDT&interval=1m", -1121),
        ("CM", "symbol=NOPEUSD_PERP&interval=1m", -1121),
        ("SPOT", "symbol=BTCUSDT&interval=1H", -1120),
        ("UM", "symbol=BTCUSDT&interval=1s", -1120),
        ("CM", "symbol=BTCUSD_PERP&interval=1s", -1120),
        ("UM", "symbol=BTCUSDT&interval=1m&limit=1501", -1130),
        ("CM", "symbol=BTCUSD_PERP&interval=1m&limit=1501", -1130),
        ("UM", "symbol=BTCUSDT&interval=1m&limit=0", -1130),
        ("UM", "symbol=BTCUSDT&interval=1m&startTime=2&endTime=1", -1023),
        ("CM", "symbol=BTCUSD_PERP&interval=1m&startTime=2&endTime=1", -1023),
        ("CM", "symbol=BTCUSD_PERP&interval=1m&startTime=0&endTime=17280000001", -1127),
    ],
)
def test_what_the_exchange_does_not_take(exchange: Exchange, market: Market, parameters: str, code: int) -> None:
    answer = exchange.session.get(f"{exchange.sim.base_url}{API[market]}/klines?{parameters}", timeout=10)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert set(answer.json()) == {"code", "msg"}


def test_unknown_paths_and_methods(exchange: Exchange) -> None:
    spot = exchange.get("SPOT", "nonsense")
    assert (spot.status_code, spot.headers["Content-Type"]) == (404, "text/html")
    assert (exchange.get("UM", "nonsense").status_code, exchange.get("UM", "nonsense").json()["code"]) == (404, -5000)
    assert exchange.session.get(f"{exchange.sim.base_url}/", timeout=10).status_code == 404
    assert exchange.session.post(f"{exchange.sim.base_url}/api/v3/time", timeout=10).status_code == 405


@pytest.mark.parametrize("path", ["/api/api/v3/time", "/fapi/fapi/v1/time", "/dapi/dapi/v1/time"])
def test_a_prefix_that_a_relay_would_take_away_may_stand_there(exchange: Exchange, path: str) -> None:
    found = exchange.session.get(f"{exchange.sim.base_url}{path}", timeout=10)
    assert (found.status_code, list(found.json())) == (200, ["serverTime"])


def test_time_and_ping(exchange: Exchange) -> None:
    for market in API:
        assert exchange.get(market, "time").json() == {"serverTime": NOW}
        assert exchange.get(market, "ping").text == "{}"


def test_a_symbol_that_is_not_ascii(exchange: Exchange) -> None:
    names = [item["symbol"] for item in exchange.get("UM", "exchangeInfo").json()["symbols"]]
    symbol = next(name for name in names if not name.isascii())
    assert len(exchange.klines("UM", symbol=symbol, limit=2)) == 2


# exchangeInfo


def test_exchange_info(exchange: Exchange) -> None:
    spot, um, cm = (exchange.get(market, "exchangeInfo").json() for market in API)
    assert spot["serverTime"] == NOW
    assert um["serverTime"] < NOW - HOUR  # not the clock
    assert cm["serverTime"] < NOW - HOUR
    limits = [
        {item["rateLimitType"]: item["limit"] for item in info["rateLimits"] if item["interval"] == "MINUTE"}
        for info in (spot, um, cm)
    ]
    assert [item["REQUEST_WEIGHT"] for item in limits] == [UNLIMITED] * 3
    assert ["RAW_REQUESTS" in item for item in limits] == [True, False, False]

    def trading(info: Any, field: str) -> int:
        return sum(item[field] == "TRADING" for item in info["symbols"])

    assert trading(spot, "status") >= 30
    assert trading(um, "status") >= 30
    assert trading(cm, "contractStatus") >= 30
    by_name = {item["symbol"]: item for item in um["symbols"]}
    assert by_name["BTCUSDT"]["deliveryDate"] == 4_133_404_800_000
    assert by_name["BTCSTUSDT"]["contractType"] == ""
    assert by_name["BTCSTUSDT"]["status"] == "PENDING_TRADING"
    assert by_name["XAUUSDT"]["contractType"] == "TRADIFI_PERPETUAL"
    assert by_name["BTCUSDT_260327"]["contractType"] == "CURRENT_QUARTER"
    assert by_name["BTCUSDT_260327"]["deliveryDate"] == utc("2026-03-27T08:00")
    assert by_name["BTCUSDT_260626"]["contractType"] == "NEXT_QUARTER"
    coins = {item["symbol"]: item for item in cm["symbols"]}
    assert [coins[name]["contractSize"] for name in ("BTCUSD_PERP", "ETHUSD_PERP")] == [100, 10]
    assert "status" not in coins["BTCUSD_PERP"]
    assert "BTCUSD_260327" in coins
    assert spot["symbols"][0]["permissions"] == []
    assert spot["symbols"][0]["permissionSets"] == [["SPOT", "MARGIN"]]


def test_spot_exchange_info_of_some_symbols(exchange: Exchange) -> None:
    def names(**parameters: object) -> list[str]:
        return [item["symbol"] for item in exchange.get("SPOT", "exchangeInfo", **parameters).json()["symbols"]]

    assert names(symbol="ETHUSDT") == ["ETHUSDT"]
    assert names(symbols='["BTCUSDT","ETHUSDT"]') == ["BTCUSDT", "ETHUSDT"]
    assert names(symbolStatus="BREAK") == ["LUNAUSDT"]
    assert exchange.get("SPOT", "exchangeInfo", symbol="NOPE").json()["code"] == -1121
    assert exchange.get("SPOT", "exchangeInfo", symbolStatus="ODD").json()["code"] == -1122


def test_the_universe_has_the_requested_size() -> None:
    truth = Truth(seed=1, symbols=400, as_of_ms=NOW)
    for market in API:
        names = [item.symbol for item in truth.instruments(market) if item.status == "TRADING"]
        assert len(set(names)) == len(names) >= 400


# Limits


@pytest.mark.parametrize(
    ("market", "name", "parameters", "weight"),
    [
        ("SPOT", "ping", {}, 1),
        ("SPOT", "time", {}, 1),
        ("SPOT", "exchangeInfo", {}, 20),
        ("UM", "exchangeInfo", {}, 1),
        ("CM", "time", {}, 1),
        ("SPOT", "klines", {"limit": 1}, 2),
        ("SPOT", "klines", {"limit": 1000}, 2),
        ("SPOT", "klines", {"interval": "bad"}, 1),
        ("UM", "klines", {"limit": 99}, 1),
        ("UM", "klines", {"limit": 100}, 2),
        ("UM", "klines", {"limit": 499}, 2),
        ("UM", "klines", {}, 5),
        ("CM", "klines", {"limit": 1000}, 5),
        ("CM", "klines", {"limit": 1001}, 10),
        ("CM", "klines", {"limit": 1501}, 1),
    ],
)
def test_weights(own: Exchange, market: Market, name: str, parameters: dict[str, object], weight: int) -> None:
    if name == "klines":
        parameters = {"symbol": SYMBOL[market], "interval": "1m", **parameters}
    headers = own.get(market, name, **parameters).headers
    assert headers["X-MBX-USED-WEIGHT-1M"] == str(weight)
    assert headers.get("x-mbx-used-weight") == (str(weight) if market == "SPOT" else None)
    pool = own.sim.stats().pools["SPOT" if market == "SPOT" else "FUTURES"]
    assert (pool.used, pool.total, pool.peak_60s) == (weight, weight, weight)


def test_um_and_cm_share_a_pool_and_a_new_minute_begins_at_zero(own: Exchange) -> None:
    assert own.get("UM", "time").headers["X-MBX-USED-WEIGHT-1M"] == "1"
    assert own.get("CM", "time").headers["X-MBX-USED-WEIGHT-1M"] == "2"
    assert own.get("SPOT", "time").headers["X-MBX-USED-WEIGHT-1M"] == "1"
    own.clock.now_ms = utc("2026-03-11T12:35:00.001")
    assert own.get("CM", "time").headers["X-MBX-USED-WEIGHT-1M"] == "1"
    # The clock minute forgets, a sliding window does not.
    assert own.sim.stats().pools["FUTURES"].peak_60s == 3
    own.clock.now_ms += MINUTE
    own.get("CM", "time")
    assert own.sim.stats().pools["FUTURES"].peak_60s == 3


def test_over_the_limit_comes_429_and_for_who_goes_on_418() -> None:
    for exchange in serve(symbols=1, spot_limit=10, futures_limit=10):
        assert [exchange.get("SPOT", "ping").status_code for _ in range(10)] == [200] * 10
        refused = exchange.get("SPOT", "time")
        assert (refused.status_code, refused.json()["code"]) == (429, -1003)
        assert refused.headers["Retry-After"] == "4"  # to the end of the minute
        assert exchange.get("UM", "time").status_code == 200
        assert [exchange.get("SPOT", "ping").status_code for _ in range(9)] == [429] * 9
        ban = exchange.get("SPOT", "ping")
        assert (ban.status_code, ban.headers["Retry-After"]) == (418, "120")
        assert f"IP banned until {NOW + 120_000}" in ban.json()["msg"]
        exchange.clock.now_ms = NOW + 119_999
        assert exchange.get("SPOT", "ping").status_code == 418
        exchange.clock.now_ms = NOW + 120_000
        assert exchange.get("SPOT", "ping").status_code == 200


def test_hammering_during_a_ban_extends_it_and_futures_give_no_retry_after() -> None:
    for exchange in serve(symbols=1, futures_limit=0):
        answers = [exchange.get("UM", "ping") for _ in range(22)]
        assert [answer.status_code for answer in answers] == [429] * 10 + [418] * 12
        assert all("Retry-After" not in answer.headers for answer in answers)
        assert f"until {NOW + 120_000}" in answers[10].json()["msg"]
        assert f"until {NOW + 240_000}" in answers[-1].json()["msg"]


# Faults


def test_a_fault_meets_what_it_names_and_is_used_up(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="status", status=503, market="SPOT", symbol="ETHUSDT", path="/klines", count=2))
    asked = {"interval": "1m", "limit": 1}
    assert own.get("SPOT", "klines", symbol="BTCUSDT", **asked).status_code == 200
    assert own.get("UM", "klines", symbol="ETHUSDT", **asked).status_code == 200
    codes = [own.get("SPOT", "klines", symbol="ETHUSDT", **asked).status_code for _ in range(3)]
    assert codes == [503, 503, 200]
    assert [met for _, met in own.sim.faults.in_force()] == [2]
    stats = own.sim.stats()
    assert (stats.count("/klines", "ETHUSDT", 503), stats.count("/klines", "ETHUSDT"), stats.count()) == (2, 4, 5)
    assert [item.status for item in own.sim.served()] == [200, 200, 503, 503, 200]


def test_a_share_of_requests_fails_by_a_fixed_sequence(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="status", status=500, rate=0.3))
    codes = [own.get("SPOT", "ping").status_code for _ in range(200)]
    assert 30 < codes.count(500) < 90
    for again in serve(symbols=1, spot_limit=UNLIMITED):
        again.sim.faults.add(Fault(kind="status", status=500, rate=0.3))
        assert [again.get("SPOT", "ping").status_code for _ in range(200)] == codes


@pytest.mark.parametrize("status", [200, 403, 451, 502])
def test_html_where_json_is_expected(own: Exchange, status: int) -> None:
    own.sim.faults.add(html(status))
    answer = own.get("SPOT", "klines", symbol="BTCUSDT", interval="1m")
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html")
    assert answer.text.startswith("<html>")
    own.sim.faults.clear()
    assert own.get("SPOT", "ping").text == "{}"


def test_429_and_418_to_order(own: Exchange) -> None:
    own.sim.faults.add(rate_limited(7, count=1), rate_limited(count=1), banned(NOW + 5_000))
    first, second, third = (own.get("SPOT", "ping") for _ in range(3))
    assert (first.status_code, first.headers["Retry-After"]) == (429, "7")
    assert (second.status_code, second.headers.get("Retry-After")) == (429, None)
    assert (third.status_code, f"until {NOW + 5_000}" in third.json()["msg"]) == (418, True)
    own.clock.now_ms = NOW + 5_000
    assert own.get("SPOT", "ping").status_code == 200


def test_a_reset_connection(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="reset", count=1))
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        own.get("SPOT", "ping")
    assert own.sim.stats().count(status=0) == 1
    assert own.get("SPOT", "ping").status_code == 200


def test_a_truncated_body(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="truncate", count=1))
    answer = own.session.get(f"{own.sim.base_url}/api/v3/time", stream=True, timeout=10)
    assert answer.status_code == 200
    assert answer.raw.read(decode_content=False, amt=13) == b'{"serverTime"'
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        _ = answer.content


def test_a_hanging_and_a_trickling_response(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="hang", count=1), Fault(kind="trickle", bytes_per_second=40, count=1))
    with pytest.raises(requests.ReadTimeout):
        own.session.get(f"{own.sim.base_url}/api/v3/time", timeout=0.2)
    began = time.monotonic()
    assert own.get("SPOT", "time").json() == {"serverTime": NOW}
    assert time.monotonic() - began >= 0.5  # 28 bytes at 40 a second


def test_the_date_of_a_response_follows_the_clock(own: Exchange) -> None:
    assert own.get("UM", "ping").headers["Date"] == "Wed, 11 Mar 2026 12:34:56 GMT"
    own.sim.skew_ms = -90_000
    assert own.get("SPOT", "ping").headers["Date"] == "Wed, 11 Mar 2026 12:33:26 GMT"


def test_right_responses_under_wrong_headers_and_with_too_many_bytes(own: Exchange) -> None:
    wrong = {"date": "yesterday", "X-MBX-USED-WEIGHT-1M": "many"}
    own.sim.faults.add(
        Fault(kind="headers", content_type="text/plain", headers=wrong, count=1),
        Fault(kind="oversize", size_bytes=100_000, count=1),
    )
    first, second = (own.get("SPOT", "time") for _ in range(2))
    assert (first.json(), second.json()) == ({"serverTime": NOW}, {"serverTime": NOW})
    assert first.headers["Content-Type"] == "text/plain"
    assert (first.headers["Date"], first.headers["x-mbx-used-weight-1m"]) == ("yesterday", "many")
    assert first.headers["x-mbx-used-weight"] == "1"
    assert len(second.content) == 100_000


def test_rows_are_spoiled_as_requested_and_nothing_else_is(own: Exchange) -> None:
    right = own.klines("SPOT", limit=4)

    def spoiled(rows: Any) -> Any:
        own.sim.faults.add(Fault(kind="rows", rows=rows, path="/klines", count=1))
        return own.klines("SPOT", limit=4)

    first, second, third, newest = right
    assert spoiled("duplicated") == [first, first, second, second, third, third, newest, newest]
    assert spoiled("shuffled") == [second, newest, third, first]
    assert opens(spoiled("off_grid")) == [row[0] + 7 for row in right]
    assert spoiled("non_finite") == [*right[:3], [*newest[:2], "NaN", newest[3], "Infinity", *newest[5:]]]
    absurd = spoiled("absurd")
    assert absurd[:3] == right[:3]
    assert float(absurd[3][2]) < float(absurd[3][3])
    assert absurd[3][5] == "-1"
    assert [float(row[4]) for row in spoiled("jump")] == [pytest.approx(float(row[4]) * 1000) for row in right]
    assert opens(spoiled("future")) == [*opens(right), newest[0] + DAY]
    assert spoiled("partial") == right[:2]
    assert spoiled("empty") == []
    assert spoiled("extra_column") == [[*row, "0"] for row in right]
    own.sim.faults.add(Fault(kind="rows", rows="few", path="/klines", count=1))
    assert own.klines("SPOT", limit=40) == own.klines("SPOT", limit=40)[-10:]
    own.sim.faults.add(Fault(kind="rows", rows="empty", count=1))
    assert own.get("SPOT", "time").json() == {"serverTime": NOW}
    assert own.klines("SPOT", limit=4) == right


def test_a_limit_that_counts_times_instead_of_rows_swallows_a_page(own: Exchange) -> None:
    minute = NOW // MINUTE * MINUTE
    own.sim.truth.add_outage(Outage(start_ms=minute - 30 * MINUTE, end_ms=minute - 10 * MINUTE))
    assert len(own.klines("SPOT", limit=21, endTime=minute - 10 * MINUTE - 1)) == 21
    own.sim.faults.add(Fault(kind="rows", rows="slots", path="/klines"))
    assert opens(own.klines("SPOT", limit=21, endTime=minute - 10 * MINUTE - 1)) == [minute - 31 * MINUTE]
    assert opens(own.klines("SPOT", limit=3)) == [minute - 2 * MINUTE, minute - MINUTE, minute]


def test_latency_delays_one_client_and_not_the_others(own: Exchange) -> None:
    own.sim.faults.add(Fault(kind="latency", delay_ms=400, path="/time"))
    slow: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        requests.get(f"{own.sim.base_url}/api/v3/time", timeout=10)
        slow.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: own.sim.stats().count("/time") == 1)
    assert own.get("SPOT", "ping").status_code == 200
    assert not slow
    thread.join()
    assert slow[0] >= 0.4


def test_the_clock_can_be_wrong(own: Exchange) -> None:
    own.sim.skew_ms = -43_000
    assert own.get("UM", "time").json() == {"serverTime": NOW - 43_000}
    assert own.klines("UM", limit=1)[0][0] == (NOW - 43_000) // MINUTE * MINUTE


def test_faults_and_world_over_http(own: Exchange) -> None:
    control = f"{own.sim.base_url}/sim"

    def post(path: str, body: object) -> int:
        return own.session.post(f"{control}/{path}", json=body, timeout=10).status_code

    assert post("faults", [{"kind": "status", "status": 502, "symbol": "BTCUSDT", "headers": {"X-Odd": "1"}}]) == 200
    broken = own.get("SPOT", "klines", symbol="BTCUSDT", interval="1m")
    assert (broken.status_code, broken.headers["X-Odd"]) == (502, "1")
    listed = own.session.get(f"{control}/faults", timeout=10).json()
    assert [(item["fault"]["status"], item["met"]) for item in listed] == [(502, 1)]
    assert own.session.delete(f"{control}/faults", timeout=10).status_code == 200
    assert post("faults", {"kind": "explode"}) == 400
    assert post("faults", {"kind": "latency", "rate": 2}) == 400
    assert post("nothing", {}) == 404

    hole = {"start_ms": NOW - HOUR, "end_ms": NOW, "market": "SPOT", "symbol": "BTCUSDT"}
    change = {"skew_ms": 5, "outages": [hole], "delist": [{"market": "UM", "symbol": "ETHUSDT"}]}
    assert post("world", change) == 200
    assert own.get("SPOT", "time").json() == {"serverTime": NOW + 5}
    assert own.klines("SPOT", startTime=NOW - HOUR, endTime=NOW - MINUTE) == []
    assert own.sim.truth.instrument("UM", "ETHUSDT").status == "SETTLING"
    assert post("world", {"remove": [{"market": "UM", "symbol": "NOPE"}]}) == 400
    stats = own.session.get(f"{control}/stats", timeout=10).json()
    assert stats["pools"]["SPOT"]["used"] == own.sim.stats().pools["SPOT"].used == 5
    assert {"path": "/api/v3/klines", "symbol": "BTCUSDT", "status": 502, "count": 1} in stats["requests"]


# Life


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def test_stopping_frees_the_port_and_drops_who_is_waiting() -> None:
    threads = set(threading.enumerate())
    first = SimulatedExchange(symbols=1).start()
    first.faults.add(Fault(kind="hang", path="/ping"))
    failures: list[Exception] = []

    def ask() -> None:
        try:
            requests.get(f"{first.base_url}/api/v3/ping", timeout=10)
        except requests.ConnectionError as error:
            failures.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    wait_until(lambda: first.stats().count("/ping") == 1)
    first.stop()
    first.stop()
    waiting.join()
    assert len(failures) == 1
    assert set(threading.enumerate()) == threads
    port = int(first.base_url.rpartition(":")[2])
    with SimulatedExchange(port=port, symbols=1) as second:
        assert requests.get(f"{second.base_url}/api/v3/ping", timeout=10).status_code == 200
        with pytest.raises(OSError, match="in use"):
            SimulatedExchange(port=port, symbols=1).start()


def test_connections_that_it_has_not_looked_at_are_dropped_when_it_ends() -> None:
    is_busy, is_free = threading.Event(), threading.Event()

    def clock_ms() -> int:
        if threading.current_thread().name == "candleshm-sim":
            is_busy.set()
            is_free.wait(60)
        return NOW

    with SimulatedExchange(symbols=1, clock_ms=clock_ms) as exchange, ExitStack() as stack:
        host, port = exchange.base_url.removeprefix("http://").split(":")

        def connected() -> socket.socket:
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            client.sendall(b"GET /api/v3/time HTTP/1.1\r\nHost: sim\r\n\r\n")
            return client

        clients = [connected()]
        assert is_busy.wait(60)
        clients += [connected() for _ in range(9)]
        ending = threading.Thread(target=exchange.stop)
        ending.start()
        time.sleep(0.1)
        is_free.set()
        ending.join()
        for client in clients:
            with suppress(ConnectionResetError):
                assert b"".join(iter(partial(client.recv, 65536), b"")).count(b"HTTP/1.1 200 OK") <= 1


def test_requests_sent_together_get_responses_in_order(own: Exchange) -> None:
    host, port = own.sim.base_url.removeprefix("http://").split(":")
    request = "GET /{}/time HTTP/1.1\r\nHost: sim\r\n{}\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        text = request.format("api/v3", "") + request.format("fapi/v1", "Connection: close\r\n")
        for part in (text[:20], text[20:]):
            client.sendall(part.encode())
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"x-mbx-used-weight: 1") < received.index(b"X-MBX-USED-WEIGHT-1M: 1")


def test_run_serves_until_it_is_stopped() -> None:
    stop = threading.Event()
    addresses: list[str] = []
    thread = threading.Thread(
        target=run, kwargs={"symbols": 1, "stop": stop, "on_ready": lambda sim: addresses.append(sim.base_url)}
    )
    thread.start()
    wait_until(lambda: bool(addresses))
    assert requests.get(f"{addresses[0]}/api/v3/ping", timeout=10).text == "{}"
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
