"""Days fetched from the simulated exchange over real HTTP: complete, true, cheap, honest about what is not there."""

from __future__ import annotations

import errno
import json
import logging
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from candleshm import history
from candleshm._core import Zone
from candleshm.errors import ConfigError, StoreInUse, StoreUnavailable
from candleshm.exchanges.base import Market, Response
from candleshm.history.assembly import Assembly, Coverage
from candleshm.history.day import Day, Grid
from candleshm.history.pages import pages_of
from candleshm.history.store import ParquetStore
from candleshm.rest import transport
from candleshm.rest.transport import HttpTransport
from candleshm.sim import Fault, Outage, SimulatedExchange, html, rate_limited, refused
from tests.support.collecting import DEADLINE_SECONDS, SYMBOLS, SteppedClock, klines, until
from tests.support.days import MINUTE, UTC_ZONE, candles_of, day_of, rows_of, store_in, written
from tests.support.downloading import counts, day_before, downloaded, truth_of


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of candles may take the simulated exchange longer than a request may take, which is then sent again."""
    monkeypatch.setattr(transport, "READ_SECONDS", DEADLINE_SECONDS)


def utc_store(directory: Path, market: str = "SPOT", interval: str = "1m") -> ParquetStore:
    return store_in(directory, interval, market=market, zone=UTC_ZONE)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_days_are_complete_and_true_and_cost_little(
    exchange: SimulatedExchange, tmp_path: Path, market: Market
) -> None:
    days = [day_before(exchange, count) for count in (1, 2, 3)]
    symbols = SYMBOLS[market][:2]
    done = downloaded(exchange, tmp_path, days[2].date, days[0].date, market=market, symbols=symbols)
    assert counts(done) == [(str(day), 2, 0, 2, 0, 0) for day in days]
    for symbol in symbols:
        rows = history.load(market, symbol, days[2].date, days[0].date, timezone="UTC", base_dir=tmp_path)
        truth = np.concatenate([truth_of(exchange, day, symbol, market) for day in reversed(days)])
        assert rows.tobytes() == truth.tobytes()
    asked = [query for _, query in klines(exchange)]
    # 4320 rows: five pages of 1000 for SPOT, nine of 499 at weight 2 for futures; the last as long as needed.
    limits = ["1000"] * 4 + ["320"] if market == "SPOT" else ["499"] * 8 + ["328"]
    assert sorted(query["limit"] for query in asked) == sorted(2 * limits)
    assert all(("startTime" in query) == (market == "CM") for query in asked)


def test_days_of_a_zone_that_changes_its_clocks(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = downloaded(exchange, tmp_path, "2026-10-31", "2026-11-02", symbols=["BTCUSDT"], timezone="America/New_York")
    assert [tally.written for tally in done.tallies] == [1, 1, 1]
    reports = history.verify("SPOT", timezone="America/New_York", base_dir=tmp_path)
    assert [(report.rows, report.slots) for report in reports] == [(1440, 1440), (1500, 1500), (1440, 1440)]
    day = Day.parse("2026-11-01", Zone("America/New_York"))
    rows = history.load("SPOT", "BTCUSDT", day.date, day.date, timezone="America/New_York", base_dir=tmp_path)
    assert rows.tobytes() == truth_of(exchange, day, "BTCUSDT").tobytes()


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("interval", ["15m", "1h", "1d"])
def test_longer_intervals(exchange: SimulatedExchange, tmp_path: Path, interval: str) -> None:
    days = [day_before(exchange, count) for count in (1, 2, 3, 4)]
    done = downloaded(exchange, tmp_path, days[3].date, days[0].date, interval=interval, symbols=["BTCUSDT"])
    assert done.failed == 0
    rows = history.load(
        "SPOT", "BTCUSDT", days[3].date, days[0].date, interval=interval, timezone="UTC", base_dir=tmp_path
    )
    truth = [truth_of(exchange, day, "BTCUSDT", interval=interval) for day in reversed(days)]
    assert rows.tobytes() == np.concatenate(truth).tobytes()
    assert len(klines(exchange)) == 1


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("market", "interval", "days_count", "pages"),
    [
        ("SPOT", "1d", 900, 1),
        ("SPOT", "2h", 160, 2),
        ("SPOT", "15m", 62, 6),
        ("UM", "4h", 160, 2),
        # 200 days are all that a request of COIN-M reaches back.
        ("CM", "1d", 400, 2),
        ("CM", "8h", 160, 1),
    ],
)
def test_pages_are_full_across_months(
    exchange: SimulatedExchange, tmp_path: Path, market: Market, interval: str, days_count: int, pages: int
) -> None:
    symbol, first, last = SYMBOLS[market][0], day_before(exchange, days_count), day_before(exchange)
    done = downloaded(exchange, tmp_path, first.date, market=market, symbols=[symbol], interval=interval)
    assert (done.files_done, done.fetched) == (days_count, days_count)
    assert len(klines(exchange)) == pages
    rows = history.load(market, symbol, first.date, last.date, interval=interval, timezone="UTC", base_dir=tmp_path)
    truth = exchange.truth.floats(market, symbol, interval, first.start_ms, last.end_ms)
    assert rows.tobytes() == truth.tobytes()


@pytest.mark.usefixtures("patience")
def test_pages_are_full_across_complete_days(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in range(1, 70)]
    for day in days[::2]:
        rows = truth_of(exchange, day, "BTCUSDT", interval="1h")
        written(utc_store(tmp_path, interval="1h"), candles_of(day, interval="1h", rows=rows))
    done = downloaded(exchange, tmp_path, days[-1].date, symbols=["BTCUSDT"], interval="1h")
    assert (done.files_done, done.fetched) == (69, 34)
    assert len(klines(exchange)) == 2


@pytest.mark.usefixtures("patience")
def test_one_more_request_confirms_the_holes_of_a_page(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in range(1, 161)]
    for day in days[::20]:
        exchange.truth.add_outage(Outage(start_ms=day.start_ms, end_ms=day.start_ms + 240 * MINUTE, market="SPOT"))
    done = downloaded(exchange, tmp_path, days[-1].date, symbols=["BTCUSDT"], interval="4h")
    assert (done.files_done, sum(tally.remarked for tally in done.tallies)) == (160, 8)
    assert len(klines(exchange)) == 2
    store = utc_store(tmp_path, interval="4h")
    assert {len(store.read("BTCUSDT", day).holes) for day in days[::20]} == {1}


def test_what_is_there_and_whole_is_not_requested_again(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    days = [day_before(exchange, count) for count in (1, 2)]
    downloaded(exchange, tmp_path, days[1].date, symbols=["BTCUSDT", "ETHUSDT"])
    asked = len(klines(exchange))
    done = downloaded(exchange, tmp_path, days[1].date, symbols=["BTCUSDT", "ETHUSDT"])
    assert counts(done) == [(str(day), 2, 2, 0, 0, 0) for day in days]
    assert len(klines(exchange)) == asked

    damaged = utc_store(tmp_path).path("ETHUSDT", days[1])
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    caplog.clear()
    done = downloaded(exchange, tmp_path, days[1].date, symbols=["BTCUSDT", "ETHUSDT"])
    assert counts(done) == [(str(days[0]), 2, 2, 0, 0, 0), (str(days[1]), 2, 1, 1, 0, 0)]
    assert len(klines(exchange)) == asked + 2
    said = [record.getMessage() for record in caplog.records]
    assert any(str(damaged) in line and "damaged" in line for line in said)
    assert f"ETHUSDT: {days[1]} written" in said
    assert f"downloaded {days[1]}: 1 of 2 symbols new, 1 done before, 0 with remarks, 0 failed" in said
    assert [report.verdict for report in history.verify("SPOT", timezone="UTC", base_dir=tmp_path)] == ["complete"] * 4

    done = downloaded(exchange, tmp_path, days[1].date, symbols=["BTCUSDT"], options={"replace": True})
    assert [tally.written for tally in done.tallies] == [1, 1]


def test_an_incomplete_file_is_fetched_again(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange)
    written(utc_store(tmp_path), candles_of(day, rows=truth_of(exchange, day, "BTCUSDT")[:700]))
    done = downloaded(exchange, tmp_path, day.date, symbols=["BTCUSDT"])
    assert counts(done) == [(str(day), 1, 0, 1, 0, 0)]
    assert utc_store(tmp_path).read("BTCUSDT", day).is_complete


def test_a_hole_counts_once_two_responses_a_settle_time_apart_confirm_it(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses: list[Response] = []

    def noted(self: HttpTransport, url: str) -> Response:
        responses.append(fetch(self, url))
        return responses[-1]

    fetch = HttpTransport.fetch
    monkeypatch.setattr(HttpTransport, "fetch", noted)
    days = [day_before(exchange, count) for count in (1, 2, 3)]
    hole = (days[1].start_ms + 700 * MINUTE, days[1].start_ms + 780 * MINUTE)
    exchange.truth.add_outage(Outage(start_ms=hole[0], end_ms=hole[1], market="SPOT", symbol="BTCUSDT"))
    done = downloaded(exchange, tmp_path, days[2].date, symbols=["BTCUSDT", "ETHUSDT"], settle_seconds=1.5)
    assert [(tally.written, tally.remarked) for tally in done.tallies] == [(2, 0), (1, 1), (2, 0)]
    assert len(done.tallies) == 3
    candles = utc_store(tmp_path).read("BTCUSDT", days[1])
    assert (candles.holes, candles.is_complete, len(candles.rows)) == ((hole,), True, 1360)
    assert candles.rows.tobytes() == truth_of(exchange, days[1], "BTCUSDT").tobytes()
    assert any("the exchange has no candle at 80 of 1440" in record.getMessage() for record in caplog.records)
    # By when requests left: on a busy machine the first one may arrive much later.
    left_seconds = moments_asked(responses, "BTCUSDT", hole)
    assert max(left_seconds) - min(left_seconds) >= 1.4
    # What is known to be complete is not asked for again.
    asked = len(klines(exchange))
    assert downloaded(exchange, tmp_path, days[2].date, symbols=["BTCUSDT"]).fetched == 0
    assert len(klines(exchange)) == asked


def moments_asked(responses: list[Response], symbol: str, span: tuple[int, int]) -> list[float]:
    """Return when requests left for pages that would have held the last slot of `span`."""
    asked = [(response.sent_seconds, parse_qs(urlsplit(response.url).query)) for response in responses]
    return [
        sent_seconds
        for sent_seconds, query in asked
        if query.get("symbol") == [symbol]
        and span[1] - MINUTE <= int(query["endTime"][0]) < span[1] + int(query["limit"][0]) * MINUTE
    ]


def test_a_day_without_any_candle(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in (1, 2, 3, 4)]
    span = (days[2].start_ms, days[1].end_ms)
    exchange.truth.add_outage(Outage(start_ms=span[0], end_ms=span[1], market="SPOT"))
    done = downloaded(exchange, tmp_path, days[3].date, symbols=["BTCUSDT"])
    assert [(tally.written, tally.remarked) for tally in done.tallies] == [(1, 0), (0, 1), (0, 1), (1, 0)]
    candles = utc_store(tmp_path).read("BTCUSDT", days[2])
    assert (candles.holes, len(candles.rows)) == (((days[2].start_ms, days[2].end_ms),), 0)


def test_the_outage_of_2018_with_rows_off_the_grid(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_of(text, UTC_ZONE) for text in ("2018-02-08", "2018-02-09", "2018-02-10")]
    done = downloaded(exchange, tmp_path, days[0].date, days[2].date, symbols=["BTCUSDT"])
    assert done.failed == 0
    for day in days:
        candles = utc_store(tmp_path).read("BTCUSDT", day)
        assert candles.is_complete
        assert candles.rows.tobytes() == truth_of(exchange, day, "BTCUSDT").tobytes()
    rows = history.load("SPOT", "BTCUSDT", days[0].date, days[2].date, timezone="UTC", base_dir=tmp_path)
    assert np.any(rows[:, 0] % MINUTE != 0)
    assert sum(len(report.holes) for report in history.verify("SPOT", timezone="UTC", base_dir=tmp_path)) > 0
    for interval in ("5m", "1h", "1d"):
        larger = history.load(
            "SPOT", "BTCUSDT", days[0].date, days[2].date, interval=interval, timezone="UTC", base_dir=tmp_path
        )
        truth = exchange.truth.klines("SPOT", "BTCUSDT", interval, days[0].start_ms, days[2].end_ms)
        assert np.array_equal(larger[:, :7], np.array(truth, dtype=float)[:, :7]), interval
        second = history.load(
            "SPOT", "BTCUSDT", days[1].date, days[1].date, interval=interval, timezone="UTC", base_dir=tmp_path
        )
        is_second = (larger[:, 0] >= days[1].start_ms) & (larger[:, 0] < days[1].end_ms)
        assert np.array_equal(second, larger[is_second]), interval


def test_a_symbol_listed_at_noon_is_complete_from_then_on(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange, 2)
    listed_ms = day.start_ms + 700 * MINUTE
    model = exchange.truth.instrument("SPOT", "SOLUSDT")
    exchange.truth.enlist(replace(model, symbol="LATEUSDT", base="LATE", listed_ms=listed_ms))
    first = day_before(exchange, 60)
    done = downloaded(exchange, tmp_path, first.date, symbols=["LATEUSDT"])
    assert [(tally.written, tally.remarked, tally.failed) for tally in done.tallies] == [(1, 0, 0)] + [(0, 1, 0)] * 59
    candles = utc_store(tmp_path).read("LATEUSDT", day)
    assert (candles.outside, candles.holes, candles.is_complete) == (((day.start_ms, listed_ms),), (), True)
    assert candles.rows.tobytes() == truth_of(exchange, day, "LATEUSDT").tobytes()
    assert history.days("SPOT", "LATEUSDT", timezone="UTC", base_dir=tmp_path) == [day.date, day_before(exchange).date]
    # Two months before the listing cost next to nothing: an answer that holds all there is speaks for them too.
    assert len(klines(exchange)) < 30


def test_a_symbol_that_ended_is_complete_up_to_then(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in (1, 2, 3)]
    ended_ms = days[1].start_ms + 900 * MINUTE
    exchange.truth.delist("SPOT", "ETHUSDT", ended_ms)
    with pytest.raises(ConfigError, match="SPOT lists none of type `trading`"):
        downloaded(exchange, tmp_path, days[2].date, symbols=["ETHUSDT"])
    done = downloaded(exchange, tmp_path, days[2].date, symbols=["ETHUSDT"], options={"kind": "not_trading"})
    assert [(tally.written, tally.remarked) for tally in done.tallies] == [(0, 1), (0, 1), (1, 0)]
    store = utc_store(tmp_path)
    assert store.read("ETHUSDT", days[1]).outside == ((ended_ms, days[1].end_ms),)
    assert store.read("ETHUSDT", days[0]).outside == ((days[0].start_ms, days[0].end_ms),)
    assert store.read("ETHUSDT", days[1]).holes == ()


def test_a_day_that_is_not_over_is_left_out(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    today = day_before(exchange, 0)
    done = downloaded(exchange, tmp_path, today.previous().date, today.date, symbols=["BTCUSDT"])
    assert [str(tally.day) for tally in done.tallies] == [str(today.previous())]
    assert any(f"{today} is not over yet and is left out" in record.getMessage() for record in caplog.records)
    with pytest.raises(ConfigError, match=f"a day that is over, up to {today.previous()}"):
        downloaded(exchange, tmp_path, today.date, symbols=["BTCUSDT"])
    assert history.days("SPOT", "BTCUSDT", timezone="UTC", base_dir=tmp_path) == [today.previous().date]


def test_the_exchanges_clock_says_whether_a_day_is_over(tmp_path: Path) -> None:
    # The local clock is a day ahead of the exchange's.
    with SimulatedExchange(symbols=4, skew_ms=-86_400_000) as late:
        yesterday = day_before(late)
        done = downloaded(late, tmp_path, None, symbols=["BTCUSDT"])
        assert counts(done) == [(str(yesterday), 1, 0, 1, 0, 0)]


def test_errors_of_the_exchange_are_survived(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in range(1, 7)]
    exchange.faults.add(
        Fault(kind="status", status=503, path="/klines", rate=0.15),
        Fault(kind="truncate", path="/klines", rate=0.15),
        Fault(kind="reset", path="/klines", rate=0.1),
        html(200, path="/klines", rate=0.1),
    )
    done = downloaded(exchange, tmp_path, days[-1].date, symbols=["BTCUSDT", "ETHUSDT"])
    assert done.failed == 0
    for day in days:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            rows = utc_store(tmp_path).read(symbol, day).rows
            assert rows.tobytes() == truth_of(exchange, day, symbol).tobytes()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_any_world_is_stored_as_it_is(tmp_path: Path, market: Market, seed: int) -> None:
    """Outages, late listings and failing requests at random: every file equals the truth, with its exact holes."""
    random = np.random.default_rng(seed)
    with SimulatedExchange(symbols=4, seed=seed) as exchange:
        days = [day_before(exchange, count) for count in range(1, 8)]
        names = {symbol: days[-1].start_ms - 90 * 86_400_000 for symbol in SYMBOLS[market][:2]}
        model = exchange.truth.instrument(market, SYMBOLS[market][0])
        for number in range(3):
            name = f"LATE{number}"
            names[name] = days[-1].start_ms + int(random.integers(7 * 24)) * 15 * MINUTE * 4
            exchange.truth.enlist(replace(model, symbol=name, base=name, listed_ms=names[name]))
        outages: list[tuple[int, int]] = []
        for _ in range(5):
            start_ms = days[-1].start_ms + int(random.integers(7 * 96)) * 15 * MINUTE
            outages.append((start_ms, start_ms + int(random.integers(1, 150)) * 15 * MINUTE))
            exchange.truth.add_outage(Outage(start_ms=outages[-1][0], end_ms=outages[-1][1], market=market))
        exchange.faults.add(
            Fault(kind="status", status=503, path="/klines", rate=0.1), Fault(kind="truncate", path="/klines", rate=0.1)
        )
        done = downloaded(
            exchange, tmp_path, days[-1].date, market=market, symbols=list(names), interval="15m", settle_seconds=0.05
        )
        assert done.failed == 0
        assert done.files_done == done.files == 35
        assert all(tally.is_done for tally in done.tallies)
        store = utc_store(tmp_path, market, "15m")
        for symbol, listed_ms in names.items():
            kept = {day for day in days if store.has(symbol, day)}
            # A symbol whose first candles an outage swallowed begins with its first row.
            assert kept >= {day for day in days if len(truth_of(exchange, day, symbol, market, "15m"))}
            for day in kept:
                candles = store.read(symbol, day)
                truth = truth_of(exchange, day, symbol, market, "15m")
                assert candles.is_complete
                assert candles.rows.tobytes() == truth.tobytes()
                absent = sum(end - start for start, end in (*candles.holes, *candles.outside))
                assert absent == (96 - len(truth)) * 15 * MINUTE
                assert all(end <= max(listed_ms, day.end_ms) for _, end in candles.outside)


def test_a_symbol_that_fails_delays_no_other_and_is_counted(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = day_before(exchange, 2)
    exchange.faults.add(
        refused(400, -1121, "Invalid symbol.", symbol="ETHUSDT", path="/klines"),
        Fault(kind="status", status=500, symbol="SUSHIBTC", path="/klines"),
    )
    done = downloaded(exchange, tmp_path, day.date)
    assert [(tally.all, tally.written, tally.failed) for tally in done.tallies] == [(3, 1, 2)] * 2
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any(line.startswith("ETHUSDT: ") and "Invalid symbol" in line for line in said)
    assert any(line.startswith("SUSHIBTC: ") for line in said)
    # The next call goes on with what failed, and only that.
    exchange.faults.clear()
    done = downloaded(exchange, tmp_path, day.date)
    assert [(tally.skipped, tally.written) for tally in done.tallies] == [(1, 2)] * 2


def page_of(exchange: SimulatedExchange, first_ms: int, count: int) -> str:
    """Return an answer with the candles from `first_ms` on."""
    rows = exchange.truth.floats("SPOT", "ETHUSDT", "1m", first_ms, first_ms + count * MINUTE)
    return json.dumps([[int(row[0]), *map(str, row[1:6]), int(row[6]), *map(str, row[7:])] for row in rows.tolist()])


@pytest.mark.parametrize("count", [1000, 999, 1], ids=["full", "short", "one row"])
@pytest.mark.parametrize("days_later", [-3, 0, 1])
def test_a_page_that_is_always_the_same_ends_and_holds_up_nobody(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, days_later: int
) -> None:
    day = day_before(exchange, 2)
    body = page_of(exchange, day.start_ms + days_later * 1440 * MINUTE, count)
    exchange.faults.add(Fault(kind="status", status=200, body=body, symbol="ETHUSDT", path="/klines"))
    done = downloaded(exchange, tmp_path, day.date, day.date, symbols=["BTCUSDT", "ETHUSDT"])
    assert done.files_done == 2
    assert store_in(tmp_path, zone=UTC_ZONE).read("BTCUSDT", day).is_complete
    assert len([True for _, query in klines(exchange) if query["symbol"] == "ETHUSDT"]) < 30
    if days_later > 0:
        assert done.failed == 1
        line = next(record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
        assert line.startswith(f"ETHUSDT: {day} could not be fetched: ")


def test_a_server_that_counts_slots_instead_of_rows_loses_no_older_day(
    exchange: SimulatedExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [day_before(exchange, count) for count in (1, 2, 3)]
    hole = (days[0].start_ms + 700 * MINUTE, days[0].start_ms + 720 * MINUTE)
    exchange.truth.add_outage(Outage(start_ms=hole[0], end_ms=hole[1], market="SPOT", symbol="BTCUSDT"))
    fetch = HttpTransport.fetch

    def by_slots(transport: HttpTransport, url: str) -> Response:
        answer = fetch(transport, url)
        query = parse_qs(urlsplit(url).query)
        if "endTime" not in query:
            return answer
        first_ms = int(query["endTime"][0]) + 1 - int(query["limit"][0]) * MINUTE
        return replace(answer, body=json.dumps([row for row in json.loads(answer.body) if row[0] >= first_ms]).encode())

    monkeypatch.setattr(HttpTransport, "fetch", by_slots)
    # One page after the other, so that what one says decides whether the next is asked for.
    done = downloaded(exchange, tmp_path, days[2].date, days[0].date, symbols=["BTCUSDT"], workers=1)
    assert [(tally.written, tally.remarked) for tally in done.tallies] == [(0, 1), (1, 0), (1, 0)]
    for day in days:
        candles = store_in(tmp_path, zone=UTC_ZONE).read("BTCUSDT", day)
        assert candles.rows.tobytes() == truth_of(exchange, day, "BTCUSDT").tobytes()
        assert candles.holes == ((hole,) if day is days[0] else ())


@pytest.mark.parametrize(
    ("status", "code"), [(400, -1121), (400, -1122), (400, -1100), (400, -9999), (404, -1121), (200, -1122), (451, 0)]
)
def test_a_symbol_that_is_refused_for_good_is_named_and_the_others_complete(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, code: int
) -> None:
    day = day_before(exchange, 3)
    exchange.faults.add(refused(status, code, "No.", symbol="ETHUSDT", path="/klines"))
    done = downloaded(exchange, tmp_path, day.date, symbols=["BTCUSDT", "ETHUSDT"])
    assert (done.files, done.files_done, done.failed) == (6, 6, 3)
    # Pages that were on their way together may each bring a refusal.
    assert len([True for _, query in klines(exchange) if query["symbol"] == "ETHUSDT"]) <= 8
    assert any(
        record.getMessage().startswith(f"ETHUSDT: {day} .. ") and record.levelno == logging.ERROR
        for record in caplog.records
    )


@pytest.mark.long
def test_a_symbol_that_is_limited_for_ever_ends_after_the_others(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange, 2)
    exchange.faults.add(rate_limited(1, symbol="ETHUSDT", path="/klines"))
    done = downloaded(exchange, tmp_path, day.date, day.date, symbols=["BTCUSDT", "ETHUSDT"], workers=1)
    assert (done.files_done, done.failed) == (2, 1)
    assert store_in(tmp_path, zone=UTC_ZONE).read("BTCUSDT", day).is_complete


@pytest.mark.parametrize("status", [429, 418])
def test_a_429_stops_everything_until_the_exchange_allows(
    exchange: SimulatedExchange, tmp_path: Path, status: int
) -> None:
    day = day_before(exchange, 3)
    limited = rate_limited(2, path="/klines", count=1)
    exchange.faults.add(replace(limited, status=status))
    done = downloaded(exchange, tmp_path, day.date)
    assert done.failed == 0
    served = [(request.received_ms, request.status) for request in exchange.served() if "/klines" in request.target]
    stopped_ms = next(at_ms for at_ms, got in served if got == status)
    # Those that had left already may still arrive.
    assert all(at_ms - stopped_ms < 500 or at_ms - stopped_ms >= 1950 for at_ms, _ in served)


def test_a_page_that_waits_for_weight_is_no_request_yet(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(rate_limited(60, path="/klines", count=1))
    stopping, day = threading.Event(), day_before(exchange, 2)

    def stop_while_blocked(progress: Any) -> None:
        if progress.blocked_seconds > 0:
            stopping.set()

    done = downloaded(
        exchange, tmp_path, day.date, stopping=stopping, progress=stop_while_blocked, symbols=["BTCUSDT"], workers=1
    )
    assert done.is_stopped
    assert done.requests == exchange.stats().count("/klines") == 1


def test_the_weight_stays_within_the_share(exchange: SimulatedExchange, tmp_path: Path) -> None:
    with SimulatedExchange(symbols=4, spot_limit=200) as strict:
        done = downloaded(
            strict, tmp_path, day_before(strict, 4).date, symbols=["BTCUSDT"], clock=SteppedClock(), server_weight=0.5
        )
        assert done.failed == 0
        assert strict.stats().pools["SPOT"].peak_60s <= 100


def test_a_stopped_download_goes_on_where_it_was(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=150, path="/klines"))
    first = day_before(exchange, 29)
    stopping = threading.Event()

    def stop_soon(progress: Any) -> None:
        if progress.files_done >= 3:
            stopping.set()

    done = downloaded(exchange, tmp_path, first.date, symbols=["BTCUSDT"], stopping=stopping, progress=stop_soon)
    assert done.is_stopped
    kept = history.verify("SPOT", timezone="UTC", base_dir=tmp_path)
    assert 3 <= len(kept) < 29
    assert all(report.is_complete for report in kept)
    # Newest first.
    assert kept[-1].day == day_before(exchange).date
    done = downloaded(exchange, tmp_path, first.date, symbols=["BTCUSDT"])
    assert (sum(tally.skipped for tally in done.tallies), done.fetched) == (len(kept), 29 - len(kept))


def test_a_download_that_was_stopped_within_a_page_requests_the_rest(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    # Pages have 1000 days; those of a page that fall into one file are written together.
    first, stopping = day_before(exchange, 2600), threading.Event()

    def stop_soon(progress: Any) -> None:
        if progress.files_done >= 20:
            stopping.set()

    options: dict[str, Any] = {"symbols": ["BTCUSDT"], "interval": "1d"}
    done = downloaded(exchange, tmp_path, first.date, stopping=stopping, progress=stop_soon, **options)
    assert done.is_stopped
    kept = history.days("SPOT", "BTCUSDT", interval="1d", timezone="UTC", base_dir=tmp_path)
    assert 20 <= len(kept) < 2600
    # Each was written as soon as it was complete, newest first.
    assert kept == [day_before(exchange, count).date for count in range(len(kept), 0, -1)]
    done = downloaded(exchange, tmp_path, first.date, **options)
    assert (sum(tally.skipped for tally in done.tallies), done.fetched) == (len(kept), 2600 - len(kept))
    assert len(klines(exchange)) <= 5


def test_a_stop_waits_for_no_socket(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="hang", path="/klines"))
    stopping, day = threading.Event(), day_before(exchange, 3)

    def run() -> None:
        downloaded(exchange, tmp_path, day.date, symbols=["BTCUSDT"], stopping=stopping)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert until(lambda: klines(exchange))
    stopping.set()
    thread.join(DEADLINE_SECONDS)
    # Its requests are still out, and what they bring is dropped.
    assert any(worker.name.startswith("candleshm-history") for worker in threading.enumerate())
    exchange.faults.clear()
    assert downloaded(exchange, tmp_path, day.date, symbols=["BTCUSDT"]).fetched == 3


def test_a_full_disk_ends_the_download(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange, 2)
    folder = utc_store(tmp_path).path("BTCUSDT", day).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(StoreUnavailable) as refused:
        downloaded(exchange, tmp_path, day.date, symbols=["BTCUSDT"])
    assert refused.value.errno in (errno.ENOTDIR, errno.EEXIST)


def test_a_second_download_into_the_same_files_is_refused(exchange: SimulatedExchange, tmp_path: Path) -> None:
    with utc_store(tmp_path).writing(), pytest.raises(StoreInUse):
        downloaded(exchange, tmp_path, None, symbols=["BTCUSDT"])
    assert exchange.stats().count() == 0


# The pure parts.


def assembly_of(day: Day, symbol: str = "BTCUSDT", interval: str = "1m") -> Assembly:
    return Assembly(symbol, day, Grid.of(day, interval), interval)


def test_pages_join_days_that_follow_one_another() -> None:
    days = [assembly_of(day_of(text, UTC_ZONE)) for text in ("2026-11-03", "2026-11-04", "2026-11-07")]
    pages = pages_of(days, 1000)
    sizes = [(str(page.days[0].day), (page.end_ms - days[0].grid.first_ms) // MINUTE) for page in pages]
    seventh, fourth, third = "2026-11-07", "2026-11-04", "2026-11-03"
    assert sizes == [(seventh, 7200), (seventh, 6200), (fourth, 2880), (fourth, 1880), (third, 880)]
    touched = {(str(day.day), page.end_ms) for page in pages for day in page.days}
    assert len(touched) == 2 + 2 + 2


def test_days_that_wait_take_no_memory() -> None:
    days = [day_of(f"2026-10-{number:02}", UTC_ZONE) for number in range(1, 31)]
    tracemalloc.start()
    waiting = [assembly_of(day, f"SIM{number}USDT") for number in range(100) for day in days]
    pages = [page for start in range(0, 3000, 30) for page in pages_of(waiting[start : start + 30], 1000)]
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pages) == 100 * 44
    assert size_bytes < 3000 * 2000  # a day in hand takes 200 000


def test_a_row_that_comes_with_the_second_response_is_no_hole() -> None:
    day = assembly_of(day_of("2026-11-03", UTC_ZONE))
    rows = rows_of(day.day)
    grid = day.grid
    lacking = np.delete(rows, np.s_[100:110], axis=0)

    def answer(held: Any, sent_ms: int) -> None:
        coverage = Coverage(held, limit=1000, asked_start_ms=None, end_ms=grid.end_ms, length_ms=MINUTE)
        day.take(held, coverage, sent_ms)

    answer(lacking, grid.end_ms + 5000)
    assert day.unconfirmed(1000) == (100, 110)
    answer(np.delete(rows, np.s_[100:104], axis=0), grid.end_ms + 5999)
    assert day.unconfirmed(1000) == (100, 104)
    answer(np.delete(rows, np.s_[100:102], axis=0), grid.end_ms + 6000)
    assert day.unconfirmed(1000) is None
    candles = day.candles("SPOT", has_ended=False)
    assert candles.holes == ((grid.first_ms + 100 * MINUTE, grid.first_ms + 102 * MINUTE),)
    assert candles.fetched_ms == grid.end_ms + 5000


def test_of_two_responses_the_later_one_counts_whichever_comes_first() -> None:
    day = assembly_of(day_of("2026-11-03", UTC_ZONE))
    for seed, sent_ms in ((2, 2000), (1, 1000)):
        rows = rows_of(day.day, seed=seed)
        day.take(
            rows, Coverage(rows, limit=1440, asked_start_ms=None, end_ms=day.grid.end_ms, length_ms=MINUTE), sent_ms
        )
    assert day.candles("SPOT", has_ended=False).rows.tobytes() == rows_of(day.day, seed=2).tobytes()
