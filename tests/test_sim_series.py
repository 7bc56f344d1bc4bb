"""The simulated exchange beside plain klines, over HTTP and sockets: prices, continuous contracts, funding, hours."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import requests

from candleshm.sim import BlockTrade, Market, Outage, Price, Restatement, SimulatedExchange, StreamFault, Truth, cutover
from tests.test_sim import DAY, HOUR, MINUTE, NOW, UNLIMITED, Clock, Exchange, aggregate, opens, serve, utc, values
from tests.test_sim_streams import END, exchange_at, open_stream, receive, row, rules, silent, to_close

KINDS: list[tuple[Market, Price, str, dict[str, str]]] = [
    ("UM", "mark", "markPriceKlines", {"symbol": "BTCUSDT"}),
    ("UM", "index", "indexPriceKlines", {"pair": "BTCUSDT"}),
    ("UM", "premium", "premiumIndexKlines", {"symbol": "BTCUSDT"}),
    ("CM", "mark", "markPriceKlines", {"symbol": "BTCUSD_PERP"}),
    ("CM", "index", "indexPriceKlines", {"pair": "BTCUSD"}),
    ("CM", "premium", "premiumIndexKlines", {"symbol": "BTCUSD_PERP"}),
]
SAMPLES = {"mark": 60, "index": 60, "premium": 12}
DELIVERY = utc("2026-03-27T08:00")


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """An exchange whose world nobody changes."""
    yield from serve(symbols=3, spot_limit=UNLIMITED, futures_limit=UNLIMITED)


@pytest.fixture
def own() -> Iterator[Exchange]:
    """An exchange of the test's own, to change and break."""
    yield from serve(symbols=3, spot_limit=UNLIMITED, futures_limit=UNLIMITED)


def rows_of(exchange: Exchange, market: Market, name: str, interval: str = "1m", **parameters: object) -> Any:
    answer = exchange.get(market, name, interval=interval, **parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def code_of(answer: requests.Response) -> int:
    assert answer.status_code == 400, answer.text
    return int(answer.json()["code"])


# Mark price, index and premium


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_rows_have_the_form_of_the_exchange(
    exchange: Exchange, market: Market, kind: Price, name: str, key: dict[str, str]
) -> None:
    rows = rows_of(exchange, market, name, startTime=NOW - HOUR, limit=30, **key)
    start = NOW // MINUTE * MINUTE - HOUR + MINUTE
    if market == "UM" or kind == "premium":
        assert opens(rows) == [start + index * MINUTE for index in range(30)]
    else:
        assert opens(rows)[-1] == NOW // MINUTE * MINUTE  # CM counts back from the end
    for at in rows[:-1]:
        assert [at[5], at[7], *at[8:]] == ["0", "0", SAMPLES[kind], "0", "0", "0"]
        assert at[6] == at[0] + MINUTE - 1
        assert all(len(text.partition(".")[2]) == 8 for text in at[1:5])
        first, high, low, last = map(Decimal, at[1:5])
        assert low <= first <= high
        assert low <= last <= high


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_rows_are_those_of_the_truth_whatever_the_interval(
    exchange: Exchange, market: Market, kind: Price, name: str, key: dict[str, str]
) -> None:
    symbol = next(iter(key.values()))
    for interval in ("1m", "3m", "30m", "4h", "12h", "1d", "3d", "1w", "1M"):
        got = rows_of(exchange, market, name, interval, limit=4, **key)
        for at in got[:-1]:
            assert exchange.sim.truth.kline(market, symbol, interval, at[0], price=kind) == at
        assert exchange.sim.truth.live(market, symbol, interval, NOW, price=kind) == got[-1]


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
@pytest.mark.parametrize(("small", "big", "per_big"), [("1m", "5m", 5), ("5m", "1h", 12), ("1h", "1d", 24)])
def test_bigger_candles_are_made_of_smaller_ones(
    exchange: Exchange,
    market: Market,
    kind: Price,
    name: str,
    key: dict[str, str],
    small: str,
    big: str,
    per_big: int,
) -> None:
    whole = rows_of(exchange, market, name, big, limit=2, **key)[0]
    parts = rows_of(exchange, market, name, small, startTime=whole[0], endTime=whole[6], limit=per_big, **key)
    assert len(parts) == per_big
    assert values(whole) == aggregate(parts)


@pytest.mark.parametrize(("market", "pair", "symbol"), [("UM", "BTCUSDT", "BTCUSDT"), ("CM", "ETHUSD", "ETHUSD_PERP")])
def test_one_truth_ties_the_prices_together(exchange: Exchange, market: Market, pair: str, symbol: str) -> None:
    instrument = exchange.sim.truth.instrument(market, symbol)
    worth = Decimal(instrument.price) / Decimal(instrument.index_price)
    bounds: dict[str, Any] = {"startTime": NOW - 3 * HOUR, "endTime": NOW - HOUR, "limit": 120}
    index = rows_of(exchange, market, "indexPriceKlines", pair=pair, **bounds)
    mark = rows_of(exchange, market, "markPriceKlines", symbol=symbol, **bounds)
    premium = rows_of(exchange, market, "premiumIndexKlines", symbol=symbol, **bounds)
    spot = exchange.klines("SPOT", symbol=f"{instrument.base}USDT", **bounds)
    assert len(index) == len(mark) == len(premium) == len(spot) == 120
    tick = Decimal("0.00000002")
    for one, two, three, four in zip(index, mark, premium, spot, strict=True):
        assert one[0] == two[0] == three[0] == four[0]
        # The mark price at the end of a minute is a mean of the minute's index.
        assert Decimal(one[3]) * worth - tick <= Decimal(two[4]) <= Decimal(one[2]) * worth + tick
        first_index, first_mark = Decimal(one[1]), Decimal(two[1])
        assert abs((first_mark - first_index) / first_index - Decimal(three[1])) < tick
        assert abs(Decimal(one[4]) / Decimal(four[4]) - 1) < Decimal("0.002")
    rough, smooth = (sum(abs(Decimal(at[4]) - Decimal(at[1])) for at in rows) for rows in (index, mark))
    assert smooth < rough * worth
    assert {Decimal(at[4]) < 0 for at in premium} >= {True}


def test_prices_of_a_dated_contract_end_with_it(exchange: Exchange) -> None:
    truth = exchange.sim.truth
    rows = truth.klines("UM", "BTCUSDT_260327", "1m", DELIVERY - 5 * MINUTE, DELIVERY + HOUR, price="mark")
    assert opens(rows) == [DELIVERY - 5 * MINUTE + index * MINUTE for index in range(5)]
    dated, perpetual = (
        float(rows_of(exchange, "UM", "markPriceKlines", symbol=symbol, limit=2)[0][4])
        for symbol in ("BTCUSDT_260327", "BTCUSDT")
    )
    assert dated / perpetual == pytest.approx(1.01)


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_the_live_row_grows_sample_by_sample(market: Market, kind: Price, name: str, key: dict[str, str]) -> None:
    for exchange in serve(symbols=1, futures_limit=UNLIMITED):
        minute = NOW // MINUTE * MINUTE
        counts = []
        for at in (0, 299, 300, 1_299, 1_300, 30_400, 59_299, 59_300, 59_999, 60_000):
            exchange.clock.now_ms = minute + at
            counts.append(rows_of(exchange, market, name, endTime=minute, limit=1, **key)[0][8])
        every = [0, 0, 1, 1, 2, 31, 59, 60, 60, 60]
        assert counts == (every if kind != "premium" else [0, 0, 1, 1, 1, 7, 12, 12, 12, 12])


def test_a_minute_without_a_sample_yet_does_not_raise_a_negative_high(own: Exchange) -> None:
    start = utc("2026-03-11T12:30")
    own.clock.now_ms = start + 3 * MINUTE + 100
    minutes = rows_of(own, "CM", "premiumIndexKlines", symbol="BTCUSD_PERP", startTime=start)
    assert [at[8] for at in minutes] == [12, 12, 12, 0]
    whole = rows_of(own, "CM", "premiumIndexKlines", "5m", symbol="BTCUSD_PERP", startTime=start)[0]
    assert values(whole) == aggregate(minutes)
    assert Decimal(whole[2]) < 0


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_an_outage_may_be_of_one_price(
    own: Exchange, market: Market, kind: Price, name: str, key: dict[str, str]
) -> None:
    start = NOW // HOUR * HOUR - HOUR
    own.sim.truth.add_outage(Outage(start_ms=start, end_ms=start + 10 * MINUTE, market=market, price=kind))
    bounds: dict[str, Any] = {"startTime": start - MINUTE, "endTime": start + 11 * MINUTE}
    assert opens(rows_of(own, market, name, **bounds, **key)) == [
        start - MINUTE,
        start + 10 * MINUTE,
        start + 11 * MINUTE,
    ]
    assert len(own.klines(market, **bounds)) == 13


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_a_restatement_may_be_of_one_price(
    own: Exchange, market: Market, kind: Price, name: str, key: dict[str, str]
) -> None:
    minute = NOW // HOUR * HOUR - 10 * MINUTE
    symbol = next(iter(key.values()))
    before = rows_of(own, market, name, startTime=minute, endTime=minute + MINUTE, **key)
    trades = own.klines(market, startTime=minute, endTime=minute)
    own.sim.truth.restate(Restatement(market=market, symbol=symbol, minute_ms=minute, lots=5_000_000, price=kind))
    after = rows_of(own, market, name, startTime=minute, endTime=minute + MINUTE, **key)
    assert Decimal(after[0][4]) - Decimal(before[0][4]) == Decimal("0.05")
    assert after[0][5:] == before[0][5:]
    assert after[1] == before[1]
    assert own.klines(market, startTime=minute, endTime=minute) == trades


@pytest.mark.parametrize(
    ("market", "target", "code"),
    [
        ("UM", "markPriceKlines?pair=BTCUSDT&interval=1m", -1102),
        ("UM", "markPriceKlines?symbol=NOPEUSDT&interval=1m", -1121),
        ("UM", "premiumIndexKlines?symbol=NOPEUSDT&interval=1m", -1121),
        ("UM", "indexPriceKlines?symbol=BTCUSDT&interval=1m", -1102),
        ("UM", "indexPriceKlines?pair=BTCUSDT_260327&interval=1m", -1121),
        ("CM", "indexPriceKlines?pair=BTCUSD_PERP&interval=1m", -1121),
        ("CM", "markPriceKlines?symbol=BTCUSD&interval=1m", -1121),
        ("UM", "markPriceKlines?symbol=BTCUSDT&interval=1s", -1120),
        ("UM", "indexPriceKlines?pair=BTCUSDT&interval=2m", -1120),
        ("UM", "premiumIndexKlines?symbol=BTCUSDT&interval=1m&limit=1501", -1130),
        ("UM", "indexPriceKlines?pair=BTCUSDT&interval=1m&startTime=2&endTime=1", -1023),
        ("CM", "markPriceKlines?symbol=BTCUSD_PERP&interval=1d&startTime=0&endTime=17280000001", -1127),
        ("CM", "indexPriceKlines?pair=BTCUSD&interval=1d&startTime=0&endTime=17280000001", -1127),
        (
            "CM",
            "continuousKlines?pair=BTCUSD&contractType=PERPETUAL&interval=1d&startTime=0&endTime=17280000001",
            -1127,
        ),
        ("CM", "continuousKlines?pair=BTCUSD&contractType=PERPETUAL&interval=1s", -1120),
        ("UM", "continuousKlines?pair=BNBUSDT&contractType=NEXT_QUARTER&interval=1m", -1121),
    ],
)
def test_what_is_refused(exchange: Exchange, market: Market, target: str, code: int) -> None:
    assert code_of(exchange.get(market, target)) == code


def test_cm_counts_back_but_for_the_premium_index(exchange: Exchange) -> None:
    start = utc("2025-01-01")
    bounds: dict[str, Any] = {"startTime": start, "limit": 1}
    assert opens(rows_of(exchange, "CM", "markPriceKlines", "1h", symbol="BTCUSD_PERP", **bounds)) == [
        start + 200 * DAY
    ]
    assert opens(rows_of(exchange, "CM", "indexPriceKlines", "1h", pair="BTCUSD", **bounds)) == [start + 200 * DAY]
    assert opens(rows_of(exchange, "CM", "premiumIndexKlines", "1h", symbol="BTCUSD_PERP", **bounds)) == [start]
    assert opens(rows_of(exchange, "UM", "markPriceKlines", "1h", symbol="BTCUSD_PERP", **bounds)) == [start]


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
def test_either_host_has_both_families(
    exchange: Exchange, market: Market, kind: Price, name: str, key: dict[str, str]
) -> None:
    other: Market = "CM" if market == "UM" else "UM"
    assert rows_of(exchange, other, name, limit=3, **key) == rows_of(exchange, market, name, limit=3, **key), kind
    listed = [item["symbol"] for item in exchange.get(other, "exchangeInfo").json()["symbols"]]
    assert key.get("symbol", "-") not in listed


@pytest.mark.parametrize(
    ("market", "name", "parameters", "weight"),
    [
        ("UM", "markPriceKlines", {"symbol": "BTCUSDT", "limit": 99}, 1),
        ("UM", "indexPriceKlines", {"pair": "BTCUSDT", "limit": 499}, 2),
        ("UM", "premiumIndexKlines", {"symbol": "BTCUSDT"}, 5),
        ("CM", "indexPriceKlines", {"pair": "BTCUSD", "limit": 1001}, 10),
        ("CM", "continuousKlines", {"pair": "BTCUSD", "contractType": "NEXT_QUARTER", "limit": 1000}, 5),
        ("UM", "fundingRate", {"symbol": "BTCUSDT"}, 0),
        ("UM", "fundingInfo", {}, 0),
        ("CM", "fundingRate", {"symbol": "BTCUSD_PERP"}, 1),
        ("UM", "tradingSchedule", {}, 5),
    ],
)
def test_weights(own: Exchange, market: Market, name: str, parameters: dict[str, object], weight: int) -> None:
    if name.endswith("Klines"):
        parameters = {"interval": "1m", **parameters}
    answer = own.get(market, name, **parameters)
    assert answer.status_code == 200
    assert answer.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)
    assert own.sim.stats().pools["FUTURES"].total == weight


# Continuous contracts


@pytest.mark.parametrize(
    ("market", "pair", "kind", "before", "after"),
    [
        ("UM", "BTCUSDT", "CURRENT_QUARTER", "BTCUSDT_260327", "BTCUSDT_260626"),
        ("UM", "BTCUSDT", "NEXT_QUARTER", "BTCUSDT_260626", "BTCUSDT_260925"),
        ("CM", "ETHUSD", "CURRENT_QUARTER", "ETHUSD_260327", "ETHUSD_260626"),
        ("CM", "ETHUSD", "NEXT_QUARTER", "ETHUSD_260626", "ETHUSD_260925"),
    ],
)
def test_a_quarter_rolls_at_the_delivery(market: Market, pair: str, kind: str, before: str, after: str) -> None:
    for exchange in serve(symbols=2, futures_limit=UNLIMITED):
        exchange.clock.now_ms = DELIVERY + 30 * HOUR
        bounds: dict[str, Any] = {"startTime": DELIVERY - 5 * MINUTE, "endTime": DELIVERY + 5 * MINUTE}
        asked: dict[str, Any] = {"pair": pair, "contractType": kind}
        rows = rows_of(exchange, market, "continuousKlines", **asked, **bounds)
        assert len(rows) == 11
        assert rows[:5] == exchange.klines(market, symbol=before, **(bounds | {"endTime": DELIVERY - MINUTE}))
        assert rows[5:] == exchange.klines(market, symbol=after, **(bounds | {"startTime": DELIVERY}))
        assert rows == exchange.sim.truth.klines(
            market, f"{pair}:{kind}", "1m", DELIVERY - 5 * MINUTE, DELIVERY + 6 * MINUTE
        )
        midnight = DELIVERY // DAY * DAY
        day = rows_of(exchange, market, "continuousKlines", "1d", startTime=midnight, endTime=midnight, **asked)[0]
        parts = [
            *exchange.klines(market, "1h", before, startTime=midnight, endTime=DELIVERY - HOUR),
            *exchange.klines(market, "1h", after, startTime=DELIVERY, endTime=midnight + DAY - HOUR),
        ]
        assert len(parts) == 24
        assert values(day) == aggregate(parts)


def test_contracts_are_delivered_and_listed_anew(own: Exchange) -> None:
    def listed() -> dict[str, tuple[str, str]]:
        symbols = own.get("CM", "exchangeInfo").json()["symbols"]
        return {
            item["symbol"]: (item["contractType"], item["contractStatus"])
            for item in symbols
            if item["pair"] == "BTCUSD" and item["contractType"] != "PERPETUAL"
        }

    march, june, september = (f"BTCUSD_{day}" for day in ("260327", "260626", "260925"))
    assert listed() == {march: ("CURRENT_QUARTER", "TRADING"), june: ("NEXT_QUARTER", "TRADING")}
    own.clock.now_ms = DELIVERY - 1
    assert list(listed()) == [march, june]
    own.clock.now_ms = DELIVERY
    rolled = {june: ("CURRENT_QUARTER", "TRADING"), september: ("NEXT_QUARTER", "TRADING")}
    assert listed() == {march: ("CURRENT_QUARTER DELIVERING", "DELIVERING"), **rolled}
    dates = {item["symbol"]: item for item in own.get("CM", "exchangeInfo").json()["symbols"]}
    assert dates[march]["deliveryDate"] == DELIVERY
    assert dates[september]["onboardDate"] == DELIVERY
    own.clock.now_ms = DELIVERY + HOUR
    assert listed() == rolled
    assert opens(own.klines("CM", symbol=march, limit=1)) == [DELIVERY - MINUTE], "its candles stay"
    assert own.klines("CM", symbol=september, limit=1)[0][0] == DELIVERY + HOUR


def test_the_newest_row_of_a_contract_is_found_years_later(exchange: Exchange) -> None:
    """However long ago it was, and without looking at every minute since."""
    delivered = utc("2021-03-26T08:00")
    assert opens(exchange.klines("UM", symbol="BTCUSDT_210326", limit=1)) == [delivered - MINUTE]
    assert exchange.klines("UM", symbol="BTCUSDT_210326", startTime=delivered) == []
    assert exchange.klines("CM", symbol="BTCUSD_210326") == [], "CM looks back 200 days"
    assert opens(exchange.klines("SPOT", symbol="LUNAUSDT", limit=1)) == [utc("2022-05-12T23:59")]


def test_seconds_are_in_continuous_klines_of_um_alone(exchange: Exchange) -> None:
    minute = exchange.klines("UM", limit=2)[0]
    asked: dict[str, Any] = {
        "pair": "BTCUSDT",
        "contractType": "PERPETUAL",
        "startTime": minute[0],
        "endTime": minute[6],
    }
    seconds = rows_of(exchange, "UM", "continuousKlines", "1s", **asked)
    assert len(seconds) == 60
    assert values(minute) == aggregate(seconds)
    assert code_of(exchange.get("UM", "klines", symbol="BTCUSDT", interval="1s")) == -1120


def test_an_outage_of_a_contract_is_one_of_its_quarter(own: Exchange) -> None:
    start = NOW // HOUR * HOUR
    own.sim.truth.add_outage(
        Outage(start_ms=start, end_ms=start + 5 * MINUTE, market="UM", symbol="BTCUSDT_260327", price="trade")
    )
    asked: dict[str, Any] = {"pair": "BTCUSDT", "startTime": start, "endTime": start + 6 * MINUTE}
    current, following = (
        opens(rows_of(own, "UM", "continuousKlines", contractType=kind, **asked))
        for kind in ("CURRENT_QUARTER", "NEXT_QUARTER")
    )
    assert current == [start + 5 * MINUTE, start + 6 * MINUTE]
    assert len(following) == 7


# Funding


def funding(exchange: Exchange, market: Market = "UM", **parameters: object) -> Any:
    answer = exchange.get(market, "fundingRate", **parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_funding_has_the_fields_of_each_market(exchange: Exchange) -> None:
    newest = funding(exchange, symbol="BTCUSDT", limit=1)[0]
    assert list(newest) == ["symbol", "fundingTime", "fundingRate", "markPrice", "rateType"]
    assert newest["fundingTime"] // HOUR * HOUR == utc("2026-03-11T08:00")
    assert newest["fundingTime"] % HOUR < 10
    at = newest["fundingTime"] // MINUTE * MINUTE
    assert (
        newest["markPrice"] == rows_of(exchange, "UM", "markPriceKlines", symbol="BTCUSDT", startTime=at, limit=1)[0][1]
    )
    assert list(funding(exchange, "CM", symbol="BTCUSD_PERP", limit=1)[0]) == ["symbol", "fundingTime", "fundingRate"]
    assert funding(exchange, symbol="BTCUSDT_260327") == []
    for rate in funding(exchange, symbol="BTCUSDT", limit=300):
        assert len(rate["fundingRate"].partition(".")[2]) == 8
        assert abs(float(rate["fundingRate"])) < 0.003


def test_which_charges_a_request_gets(exchange: Exchange) -> None:
    start = utc("2025-06-01")
    every = funding(exchange, symbol="BTCUSDT", startTime=start, endTime=start + 400 * DAY, limit=1000)
    times = [rate["fundingTime"] for rate in every]
    assert times == sorted(set(times))
    assert len(times) == (NOW - start) // (8 * HOUR) + 1
    assert funding(exchange, symbol="BTCUSDT") == every[-200:], "without any time the newest 200"
    assert funding(exchange, symbol="BTCUSDT", startTime=start) == every[:100]
    assert funding(exchange, symbol="BTCUSDT", startTime=times[3], endTime=times[5]) == every[3:6], (
        "bounds are inclusive"
    )
    assert funding(exchange, symbol="BTCUSDT", startTime=times[3] + 1, limit=2) == every[4:6]
    assert funding(exchange, symbol="BTCUSDT", endTime=times[50], limit=3) == every[48:51]
    both = funding(exchange, limit=1000)
    assert {rate["symbol"] for rate in both} > {"BTCUSDT", "ETHUSDT", "XAUUSDT"}
    assert [rate for rate in both if rate["symbol"] == "BTCUSDT"] == every[
        -sum(r["symbol"] == "BTCUSDT" for r in both) :
    ]
    assert funding(exchange, "CM", symbol="BTCUSDT", limit=2) == [
        {key: rate[key] for key in ("symbol", "fundingTime", "fundingRate")} for rate in every[-2:]
    ]


@pytest.mark.parametrize(
    ("market", "query", "code"),
    [
        ("CM", "", -1102),
        ("UM", "symbol=NOPEUSDT", -1121),
        ("UM", "symbol=BTCUSDT&limit=1001", -1130),
        ("UM", "symbol=BTCUSDT&limit=0", -1130),
        ("UM", "symbol=BTCUSDT&startTime=2&endTime=1", -1023),
        ("UM", "symbol=BTCUSDT&startTime=x", -1100),
    ],
)
def test_what_funding_does_not_take(exchange: Exchange, market: Market, query: str, code: int) -> None:
    assert code_of(exchange.get(market, f"fundingRate?{query}")) == code


def test_funding_has_a_limit_of_its_own(own: Exchange) -> None:
    own.clock.now_ms = NOW // (5 * MINUTE) * 5 * MINUTE
    bounds: dict[str, Any] = {"symbol": "BTCUSDT", "startTime": NOW, "limit": 1}
    for _ in range(499):
        assert own.get("UM", "fundingRate", **bounds).status_code == 200
    assert own.get("UM", "fundingInfo").status_code == 200
    refused = own.get("UM", "fundingRate", **bounds)
    assert (refused.status_code, refused.json()["code"]) == (429, -1003)
    assert "500" in refused.json()["msg"]
    assert own.get("CM", "fundingRate", symbol="BTCUSD_PERP").status_code == 429, "both families share it"
    assert own.klines("UM", limit=1), "klines have theirs"
    own.clock.now_ms += 5 * MINUTE
    assert own.get("UM", "fundingRate", **bounds).status_code == 200
    pool = own.sim.stats().pools["FUNDING"]
    assert (pool.limit, pool.total, pool.used) == (500, 503, 1)


def test_some_symbols_are_charged_more_often() -> None:
    for exchange in serve(symbols=30, futures_limit=UNLIMITED):
        often = exchange.get("UM", "fundingInfo").json()
        assert often
        for item in often:
            assert item["fundingIntervalHours"] == 4
            times = [rate["fundingTime"] // HOUR for rate in funding(exchange, symbol=item["symbol"], limit=5)]
            assert {after - before for before, after in pairwise(times)} == {4}


# Hours of TradFi contracts


def sessions_of(exchange: Exchange, market: str) -> list[dict[str, Any]]:
    document = exchange.get("UM", "tradingSchedule").json()
    assert document["updateTime"] == exchange.clock.now_ms
    sessions: list[dict[str, Any]] = document["marketSchedules"][market]["sessions"]
    return sessions


def test_the_schedule_is_a_week_from_the_day_before(exchange: Exchange) -> None:
    midnight = NOW // DAY * DAY
    for market in ("EQUITY", "KR_EQUITY", "HK_EQUITY", "CN_EQUITY", "COMMODITY", "FX"):
        sessions = sessions_of(exchange, market)
        assert sessions[0]["startTime"] <= midnight - DAY < sessions[0]["endTime"]
        assert sessions[-1]["startTime"] < midnight + 6 * DAY <= sessions[-1]["endTime"]
        assert all(before["endTime"] == after["startTime"] for before, after in pairwise(sessions))
    equity = sessions_of(exchange, "EQUITY")
    assert {session["type"] for session in equity} == {
        "PRE_MARKET",
        "REGULAR",
        "AFTER_MARKET",
        "OVERNIGHT",
        "NO_TRADING",
    }
    assert {session["type"] for session in sessions_of(exchange, "COMMODITY")} == {"REGULAR", "NO_TRADING"}
    regular = next(session for session in equity if session["type"] == "REGULAR" and session["startTime"] > NOW)
    assert regular["startTime"] == utc("2026-03-11T13:30"), "New York has summer time since the 8th"
    assert exchange.get("CM", "tradingSchedule").status_code == 404


@pytest.mark.parametrize(("symbol", "market"), [("XAUUSDT", "COMMODITY"), ("TSLAUSDT", "EQUITY")])
def test_closed_markets_are_flat_or_absent_by_a_switch(own: Exchange, symbol: str, market: str) -> None:
    info = {item["symbol"]: item for item in own.get("UM", "exchangeInfo").json()["symbols"]}[symbol]
    assert (info["contractType"], info["underlyingType"]) == ("TRADIFI_PERPETUAL", market)
    closed = max(
        (session for session in sessions_of(own, market) if session["type"] == "NO_TRADING"),
        key=lambda session: session["endTime"] - session["startTime"],
    )
    start, end = closed["startTime"], closed["endTime"]
    assert end - start > 40 * HOUR, "a weekend"
    own.clock.now_ms = end + HOUR
    bounds: dict[str, Any] = {"startTime": start - 10 * MINUTE, "endTime": end + 10 * MINUTE}

    def rows(interval: str = "1m") -> Any:
        pages = [
            own.klines("UM", interval, symbol, limit=1500, **(bounds | {"startTime": at}))
            for at in (start - 10 * MINUTE, start + 1490 * MINUTE)
        ]
        return list({at[0]: at for page in pages for at in page}.values())

    flat = rows()
    assert opens(flat) == list(range(start - 10 * MINUTE, end + 10 * MINUTE + 1, MINUTE))
    inside = [at for at in flat if start <= at[0] < end]
    close = flat[9][4]
    assert all(at[1:5] == [close] * 4 and at[8] == 0 for at in inside)
    assert sum(at[8] for at in flat if not start <= at[0] < end) > 0
    assert next(at[1:5] for at in rows("1h") if start <= at[0] and at[6] < end) == [close] * 4

    own.session.post(f"{own.sim.base_url}/sim/world", data='{"off_hours":"absent"}', timeout=5).raise_for_status()
    absent = rows()
    assert absent == [at for at in flat if not start <= at[0] < end]
    own.clock.now_ms = start + HOUR + 1
    assert own.klines("UM", symbol=symbol, limit=1) == [flat[9]], "the newest row is the last before the hours end"
    own.sim.truth.off_hours = "trade"
    assert own.klines("UM", symbol=symbol, limit=1)[0][0] == start + HOUR


def test_the_mark_price_goes_on_while_a_market_is_closed(own: Exchange) -> None:
    own.sim.truth.off_hours = "absent"
    saturday = utc("2026-03-07T12:00")
    assert own.klines("UM", symbol="XAUUSDT", startTime=saturday, endTime=saturday + HOUR) == []
    rows = rows_of(own, "UM", "markPriceKlines", symbol="XAUUSDT", startTime=saturday, endTime=saturday + HOUR)
    assert len(rows) == 61


# Faults


@pytest.mark.parametrize("numbered", [False, True])
def test_cutover_bodies(own: Exchange, numbered: bool) -> None:  # noqa: FBT001
    own.sim.faults.add(cutover(numbered=numbered, path="/klines", count=1))
    answer = own.get("UM", "klines", symbol="BTCUSDT", interval="1m")
    assert answer.status_code == 400
    body = answer.json()
    if numbered:
        assert list(body) == ["239999"]
    else:
        assert body["code"] == -1109
    assert own.klines("UM", limit=1)


def test_retired_paths_are_no_endpoints(exchange: Exchange) -> None:
    for path in ("/api/v1/klines", "/api/v1/time", "/fapi/v2/klines", "/dapi/v2/klines"):
        answer = exchange.session.get(f"{exchange.sim.base_url}{path}?symbol=BTCUSDT&interval=1m", timeout=5)
        assert answer.status_code == 404
    others: list[tuple[Market, str]] = [("SPOT", "markPriceKlines"), ("SPOT", "fundingRate"), ("CM", "uiKlines")]
    for market, name in others:
        assert exchange.get(market, name, symbol="BTCUSDT", interval="1m").status_code == 404


def test_block_trades_count_and_have_ids_of_their_own() -> None:
    with exchange_at() as exchange:
        minute = END - MINUTE
        before = exchange.truth.kline("SPOT", "BTCUSDT", "1m", minute)
        following = exchange.truth.kline("SPOT", "BTCUSDT", "1m", END)
        assert before is not None
        exchange.truth.add_block_trade(BlockTrade(symbol="BTCUSDT", minute_ms=minute, lots=700))
        after = exchange.truth.kline("SPOT", "BTCUSDT", "1m", minute)
        assert after is not None
        assert Decimal(after[5]) - Decimal(before[5]) == Decimal("0.00700")
        assert (after[8], after[1:5]) == (before[8] + 1, before[1:5])
        assert exchange.truth.kline("SPOT", "BTCUSDT", "1m", END) == following
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
            to_close(exchange)
            candles = [receive(client)["k"]]
            while not (candles[-1]["t"] == END and candles[-1]["n"]):
                candles.append(receive(client)["k"])
        closed = next(candle for candle in candles if candle["x"])
        assert row(closed) == after
        assert closed["n"] == closed["L"] - closed["f"] + 2
        assert candles[-1]["f"] == closed["L"] + 1, "its id is not among the others'"
        with pytest.raises(KeyError):
            exchange.truth.add_block_trade(BlockTrade(symbol="NOPEUSDT", minute_ms=minute))


# Archive


@pytest.mark.parametrize(("market", "kind", "name", "key"), KINDS)
@pytest.mark.parametrize(("period", "interval"), [("2026-03-10", "1m"), ("2026-02", "1h")])
def test_the_archive_has_folders_of_prices(
    exchange: Exchange, market: Market, kind: Price, name: str, key: dict[str, str], period: str, interval: str
) -> None:
    symbol = next(iter(key.values()))
    folder = "daily" if len(period) == 10 else "monthly"
    path = f"data/futures/{market.lower()}/{folder}/{name}/{symbol}/{interval}/{symbol}-{interval}-{period}.zip"
    zipped = exchange.session.get(f"{exchange.sim.base_url}/{path}", timeout=20)
    assert zipped.status_code == 200
    checksum = exchange.session.get(f"{exchange.sim.base_url}/{path}.CHECKSUM", timeout=20).text
    assert checksum == f"{hashlib.sha256(zipped.content).hexdigest()}  {symbol}-{interval}-{period}.zip\n"
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as packed:
        lines = list(csv.reader(packed.read(f"{symbol}-{interval}-{period}.csv").decode().splitlines()))
    assert lines[0][:2] == ["open_time", "open"]
    start = utc(period if folder == "daily" else f"{period}-01")
    end = start + DAY if folder == "daily" else utc("2026-03-01")
    rows = exchange.sim.truth.klines(market, symbol, interval, start, end, price=kind)
    assert [[str(value) for value in at] for at in rows] == lines[1:]


def test_the_archive_has_months_of_funding(exchange: Exchange) -> None:
    path = "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-02.zip"
    zipped = exchange.session.get(f"{exchange.sim.base_url}/{path}", timeout=20)
    assert zipped.status_code == 200
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as packed:
        lines = packed.read("BTCUSDT-fundingRate-2026-02.csv").decode().splitlines()
    assert lines[0] == "calc_time,funding_interval_hours,last_funding_rate"
    start, end = utc("2026-02-01"), utc("2026-03-01") - 1
    charges = funding(exchange, symbol="BTCUSDT", startTime=start, endTime=end)
    assert lines[1:] == [f"{charge['fundingTime']},8,{charge['fundingRate']}" for charge in charges]
    assert len(charges) == 84
    daily = path.replace("monthly", "daily").replace("2026-02", "2026-03-10")
    dated = path.replace("BTCUSDT", "BTCUSDT_260327")
    for other in (daily, dated):
        assert exchange.session.get(f"{exchange.sim.base_url}/{other}", timeout=5).status_code == 404


def test_the_archive_has_no_other_folders(exchange: Exchange) -> None:
    for path in (
        "spot/daily/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m",
        "futures/um/daily/continuousKlines/BTCUSDT/1m/BTCUSDT-1m",
        "futures/cm/daily/indexPriceKlines/BTCUSD_PERP/1m/BTCUSD_PERP-1m",
    ):
        assert exchange.session.get(f"{exchange.sim.base_url}/data/{path}-2026-03-10.zip", timeout=5).status_code == 404


# Streams


def price_event(client: Any) -> dict[str, Any]:
    message = receive(client)
    data: dict[str, Any] = message.get("data", message)
    return data


@pytest.mark.parametrize("path", ["/cm/ws", "/cm/market/ws", "/um/market/ws"])
@pytest.mark.parametrize(
    ("name", "kind", "symbol", "event"),
    [
        ("btcusd_perp@markPriceKline_1m", "mark", "BTCUSD_PERP", "markPrice_kline"),
        ("btcusd@indexPriceKline_1m", "index", "BTCUSD", "indexPrice_kline"),
    ],
)
def test_streams_of_prices(path: str, name: str, kind: Price, symbol: str, event: str) -> None:
    with exchange_at() as exchange, open_stream(f"{exchange.ws_url}{path}/{name}") as client:
        first = price_event(client)
        assert list(first) == ["e", "E", "ps", "k"]
        assert (first["e"], first["ps"]) == (event, "BTCUSD")
        assert first["k"]["s"] == ("0" if kind == "index" else "BTCUSD_PERP")
        assert list(first["k"]) == [*"tTsifLochlvnxqVQB"]
        to_close(exchange)
        data = price_event(client)
        while not data["k"]["x"]:
            candle = data["k"]
            assert candle["n"] <= (data["E"] - candle["t"]) // 1000 + 1
            assert candle["L"] == candle["t"] + (candle["n"] - 1) * 1000
            data = price_event(client)
        assert row(data["k"]) == exchange.truth.kline("CM", symbol, "1m", END - MINUTE, price=kind)


@pytest.mark.parametrize(
    ("path", "name", "symbol"),
    [
        ("/um/market/ws", "btcusdt_perpetual@continuousKline_1m", "BTCUSDT:PERPETUAL"),
        ("/um/market/ws", "btcusdt_current_quarter@continuousKline_1m", "BTCUSDT:CURRENT_QUARTER"),
        ("/um/market/ws", "xauusdt_tradifi_perpetual@continuousKline_1m", "XAUUSDT:TRADIFI_PERPETUAL"),
        ("/cm/ws", "btcusd_next_quarter@continuousKline_1m", "BTCUSD:NEXT_QUARTER"),
        ("/cm/ws", "btcusdt_perpetual@continuousKline_1m", "BTCUSDT:PERPETUAL"),
        ("/um/market/ws", "btcusdt_perpetual@continuousKline_1s", "BTCUSDT:PERPETUAL"),
    ],
)
def test_streams_of_continuous_contracts(path: str, name: str, symbol: str) -> None:
    pair, _, kind = symbol.partition(":")
    market: Market = "UM" if pair.endswith("USDT") else "CM"
    with exchange_at() as exchange, open_stream(f"{exchange.ws_url}{path}/{name}") as client:
        if name.endswith("_1m"):
            to_close(exchange)
        data = price_event(client)
        ids = []
        while not data["k"]["x"]:
            ids.append((data["k"]["n"], data["k"]["L"] - data["k"]["f"] + 1))
            data = price_event(client)
        assert list(data) == ["e", "E", "ps", "ct", "k"]
        assert (data["e"], data["ps"], data["ct"]) == ("continuous_kline", pair, kind)
        assert "s" not in data["k"]
        assert row(data["k"]) == exchange.truth.kline(market, symbol, data["k"]["i"], data["k"]["t"])
        assert all(count != number for count, number in ids if count), "its ids are not those of trades"


def test_a_stream_fault_may_be_of_one_price() -> None:
    with exchange_at() as exchange:
        exchange.stream_faults.add(StreamFault(kind="wrong", price="mark", symbol="BTCUSD_PERP"))
        names = "btcusd_perp@markPriceKline_1m/btcusd_perp@kline_1m"
        with open_stream(f"{exchange.ws_url}/cm/stream?streams={names}") as client:
            to_close(exchange)
            closed: dict[str, Any] = {}
            while len(closed) < 2:
                data = price_event(client)
                if data["k"]["x"]:
                    closed[data["e"]] = data["k"]
        final = {
            "kline": exchange.truth.kline("CM", "BTCUSD_PERP", "1m", END - MINUTE),
            "markPrice_kline": exchange.truth.kline("CM", "BTCUSD_PERP", "1m", END - MINUTE, price="mark"),
        }
        assert row(closed["kline"]) == final["kline"]
        mark, right = row(closed["markPrice_kline"]), final["markPrice_kline"]
        assert right is not None
        assert Decimal(mark[4]) - Decimal(right[4]) == Decimal("0.00000001")
        assert mark[5:] == right[5:]


@pytest.mark.parametrize(
    "name",
    [
        "btcusdt@markPriceKline_1m",
        "btcusdt@indexPriceKline_1m",
        "btcusd_perp@premiumIndexKline_1m",
        "btcusd@markPriceKline_1m",
        "btcusd_perp@indexPriceKline_1m",
        "btcusd_perp@markPriceKline_1s",
        "btcusd_perpetual@continuousKline_1s",
        "btcusd_current_month@continuousKline_1m",
        "btcusd:perpetual@kline_1m",
    ],
)
def test_names_that_nothing_is_sent_for(name: str) -> None:
    with exchange_at() as exchange:
        for path in ("/um/market/ws", "/cm/ws"):
            with open_stream(f"{exchange.ws_url}{path}/{name}") as client:
                assert silent(client), path


def test_um_may_send_prices_by_a_rule() -> None:
    with (
        exchange_at(stream_rules=rules(um_prices=True)) as exchange,
        open_stream(f"{exchange.ws_url}/um/market/ws/btcusdt@markPriceKline_1m") as client,
    ):
        assert price_event(client)["k"]["s"] == "BTCUSDT"


def test_the_truth_tells_what_it_does_not_have() -> None:
    truth = Truth(seed=1, symbols=1, as_of_ms=NOW)
    for market, symbol, price in (
        ("SPOT", "BTCUSDT", "mark"),
        ("UM", "BTCUSDT:NEXT_MONTH", "trade"),
        ("UM", "BTCUSDT_260327", "index"),
        ("CM", "BTCUSD", "premium"),
    ):
        with pytest.raises(KeyError):
            truth.series(market, symbol, price)  # type: ignore[arg-type]


def test_the_exchange_takes_the_switch() -> None:
    with SimulatedExchange(clock_ms=Clock(), seed=7, symbols=1, off_hours="absent") as sim:
        assert sim.truth.off_hours == "absent"
        stats = json.loads(requests.get(f"{sim.base_url}/sim/stats", timeout=5).text)
        assert set(stats["pools"]) == {"SPOT", "FUTURES", "FUNDING"}
