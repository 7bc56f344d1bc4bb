"""TradFi perpetuals while their market does not trade, flat or without rows; cutover bodies; block trades of SPOT."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

import candleshm
from candleshm.collector import hole_requests, scheduler
from candleshm.collector.sessions import Sessions
from candleshm.commands.check import check
from candleshm.errors import BadResponse, ExchangeUnavailable
from candleshm.exchanges.base import Market, Response, ScheduledSession
from candleshm.exchanges.binance import MARKETS, Binance
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from candleshm.sim.faults import cutover, refused
from candleshm.sim.world.events import BlockTrade
from tests.support.collecting import (
    MINUTE,
    WorldClock,
    assert_true,
    close_seconds,
    collecting,
    status_of,
    truth_of,
    until,
)

SYMBOLS = ["BTCUSDT", "XAUUSDT"]
# Commodities pause each day from 17:00 to 18:00 in New York.
PAUSE = datetime(2026, 3, 10, 21, tzinfo=UTC)
PAUSE_MS = int(PAUSE.timestamp() * 1000)
RESUMED = datetime(2026, 3, 10, 22, tzinfo=UTC)
OffHours = Literal["flat", "absent"]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=5) as running:
        yield running


@pytest.mark.parametrize("derive", [(), ("5m",)])
@pytest.mark.parametrize("off_hours", ["flat", "absent"])
def test_a_market_that_does_not_trade_alarms_nobody(
    block_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    off_hours: OffHours,
    derive: tuple[str, ...],
) -> None:
    monkeypatch.setattr(scheduler, "ASLEEP_SECONDS", 60.0)
    monkeypatch.setattr(hole_requests, "PAUSES_SECONDS", (20.0,))
    caplog.set_level("INFO")
    clock = WorldClock(PAUSE_MS - 10 * MINUTE + 20_000)
    clock.step_seconds = 10.0
    changes: dict[str, Any] = {"market": "UM", "symbols": SYMBOLS, "live": "rest", "length": 200, "derive": derive}
    with SimulatedExchange(symbols=3, clock_ms=clock) as exchange:
        exchange.truth.off_hours = off_hours
        with collecting(exchange, block_name, clock=clock, **changes) as (collector, feed):
            session = feed.sessions["XAUUSDT"]
            assert (session.kind, session.until, session.trades) == ("REGULAR", PAUSE, True)
            assert set(feed.sessions) == {"XAUUSDT"}
            clock.let_pass(collector, 10 * 60)
            lists = exchange.stats().count("/exchangeInfo")
            for _ in range(8):
                clock.let_pass(collector, 5 * 60)
                session = feed.sessions["XAUUSDT"]
                assert (session.kind, session.until, session.trades) == ("NO_TRADING", RESUMED, False)
                status = status_of(collector)
                assert (status.silent, status.standing, status.not_trading, status.stale) == ((), (), (), 0)
                health = feed.health
                assert (health.ready, health.stale) == (True, 0)
                assert feed["XAUUSDT"].age < 30
                for name in collector.config.block_names:
                    with candleshm.attach(name, max_age=45.0) as strict:
                        assert len(strict["XAUUSDT"].candles(5)) == 5
                        assert check(name, 45.0)[0]
                # Closes of the others do not wait for it.
                newest_ms = clock() // MINUTE * MINUTE - MINUTE
                assert "BTCUSDT" in feed.wait_closed(newest_ms - MINUTE, timeout=0).symbols
            assert exchange.stats().count("/exchangeInfo") - lists <= 40 * 60 / 120 + 1, "no more than on any day"
            rows, states = feed["XAUUSDT"].snapshot(60, closed_only=True)
            assert set(states) <= {RowState.CLOSED, RowState.VERIFIED}, "the last candle of the session as well"
            assert (rows == truth_of(exchange, feed, "XAUUSDT", rows[:, 0])[-len(rows) :]).all()
            if off_hours == "absent":
                assert int(rows[-1, 0]) == PAUSE_MS - MINUTE

            clock.let_pass(collector, 22 * 60)
            assert feed.sessions["XAUUSDT"].kind == "REGULAR"
            assert feed.health.missing == 0
            gaps = [gap for gap in feed["XAUUSDT"].gaps() if gap.end_ms > PAUSE_MS]
            if off_hours == "absent":
                assert [(gap.start_ms, gap.kind) for gap in gaps] == [(PAUSE_MS, "hole")]
            else:
                assert gaps == []
            newest_ms = clock() // MINUTE * MINUTE - 2 * MINUTE
            assert feed.wait_closed(newest_ms, timeout=0).symbols == tuple(SYMBOLS)
            assert_true(exchange, feed)
            # What is absent by the hours is not requested again and again.
            before = {symbol: exchange.stats().count("/klines", symbol) for symbol in SYMBOLS}
            clock.let_pass(collector, 10 * 60)
            asked = {symbol: exchange.stats().count("/klines", symbol) - before[symbol] for symbol in SYMBOLS}
            assert asked["XAUUSDT"] <= asked["BTCUSDT"] + 2
    assert not [
        record for record in caplog.records if record.levelname in {"WARNING", "ERROR"} and "XAU" in record.message
    ]
    assert sum("does not trade until" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("off_hours", ["flat", "absent"])
def test_a_start_in_the_pause(block_name: str, caplog: pytest.LogCaptureFixture, off_hours: OffHours) -> None:
    clock = WorldClock(PAUSE_MS + 30 * MINUTE)
    changes: dict[str, Any] = {"market": "UM", "symbols": ["XAUUSDT", "XAUUSDT:TRADIFI_PERPETUAL"], "length": 200}
    with SimulatedExchange(symbols=3, clock_ms=clock) as exchange:
        exchange.truth.off_hours = off_hours
        with collecting(exchange, block_name, clock=clock, live="ws", ws_url=exchange.ws_url, **changes) as (
            collector,
            feed,
        ):
            clock.let_pass(collector, 90)
            assert {session.kind for session in feed.sessions.values()} == {"NO_TRADING"}
            assert set(feed.sessions) == set(feed.symbols)
            assert feed.contracts["XAUUSDT:TRADIFI_PERPETUAL"].symbol == "XAUUSDT"
            assert (feed.health.ready, feed.health.stale) == (True, 0)
            status = status_of(collector)
            assert (status.silent, status.standing) == ((), ())
            assert status.stream is not None
            assert status.stream.path_moves == 0, "silence proves nothing of a path"
            assert all(feed[symbol].age < 60 for symbol in feed)
    warnings = [record for record in caplog.records if record.levelname == "WARNING" and "collector" in record.name]
    assert not [record for record in warnings if "XAU" in record.message]


def test_without_a_schedule_candles_are_awaited_at_any_time(block_name: str) -> None:
    """As on a test host: flat candles need no schedule."""
    clock = WorldClock(PAUSE_MS + 10 * MINUTE)
    changes: dict[str, Any] = {"market": "UM", "symbols": SYMBOLS, "live": "rest"}
    with SimulatedExchange(symbols=3, clock_ms=clock) as exchange:
        exchange.faults.add(refused(404, -5000, "Path is invalid", path="/tradingSchedule"))
        with collecting(exchange, block_name, clock=clock, **changes) as (collector, feed):
            clock.let_pass(collector, 130)
            assert feed.sessions == {}
            assert feed.health.ready
            assert exchange.stats().count("/tradingSchedule") <= 3
            exchange.faults.clear()
            clock.let_pass(collector, 300)
            assert feed.sessions["XAUUSDT"].kind == "NO_TRADING"


def test_sessions_of_a_market() -> None:
    def at(start: int, end: int, kind: str) -> ScheduledSession:
        return ScheduledSession(start, end, kind)

    sessions = Sessions()
    sessions.take({"EQUITY": (at(0, 10, "REGULAR"), at(10, 15, "NO_TRADING"), at(15, 20, "NO_TRADING"))})
    assert sessions.quiet_ms("EQUITY") == [(10, 20)]
    assert [sessions.quiet_until_ms("EQUITY", now) for now in (9, 10, 19, 20)] == [0, 20, 20, 20]
    assert [(one.kind if (one := sessions.at("EQUITY", now)) else None) for now in (0, 10, 20)] == [
        "REGULAR",
        "NO_TRADING",
        None,
    ]
    sessions.take({"EQUITY": (at(20, 30, "REGULAR"), at(30, 40, "NO_TRADING"))})
    assert sessions.quiet_ms("EQUITY") == [(10, 20), (30, 40)], "older ones are kept"
    assert (sessions.name_of("US_EQUITY"), sessions.name_of("EQUITY"), sessions.name_of("FX")) == (
        "EQUITY",
        "EQUITY",
        None,
    )


@pytest.mark.parametrize(
    "body", [b'{"updateTime":1}', b'{"marketSchedules":{"FX":{}}}', b'{"marketSchedules":[]}', b"[]"]
)
def test_what_is_no_schedule_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse, match=r"tradingSchedule|not a JSON object"):
        Binance("UM").schedule(Response("https://host/fapi/v1/tradingSchedule", 200, {}, body, 0.0, 0.0, None))


@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize(
    "body", [b'{"code":-1109,"msg":"Invalid account."}', b'{"239999":"System is being upgraded."}']
)
def test_cutover_bodies_are_an_outage(body: bytes, status: int) -> None:
    response = Response("https://host/fapi/v1/klines", status, {}, body, 0.0, 0.0, None)
    assert type(Binance("UM").error_of(response, 0)) is ExchangeUnavailable


@pytest.mark.parametrize("numbered", [False, True])
def test_a_cutover_ends_without_a_trace(block_name: str, numbered: bool) -> None:  # noqa: FBT001
    clock = WorldClock()
    changes: dict[str, Any] = {"market": "CM", "symbols": ["BTCUSD_PERP", "BTCUSD:PERPETUAL"], "live": "rest"}
    with (
        SimulatedExchange(symbols=3, clock_ms=clock) as exchange,
        collecting(exchange, block_name, clock=clock, **changes) as (collector, feed),
    ):
        exchange.faults.add(cutover(numbered=numbered, path="lines"))
        clock.let_pass(collector, 90)
        status = status_of(collector)
        assert set(status.errors) == {"ExchangeUnavailable"}
        assert status.not_trading == ()
        exchange.faults.clear()
        clock.let_pass_until(collector, lambda: status_of(collector).failing == {} and feed.health.ready)
        assert_true(exchange, feed)


def test_block_trades_are_no_gap_in_the_ids_of_trades(exchange: SimulatedExchange, block_name: str) -> None:
    changes: dict[str, Any] = {"interval": "1s", "live": "ws", "length": 60, "symbols": ["BTCUSDT"]}
    with collecting(exchange, block_name, ws_url=exchange.ws_url, **changes) as (collector, feed):
        until(lambda: status_of(collector).live == "ws")
        close_seconds(feed, 2)
        minute_ms = exchange.now_ms() // MINUTE * MINUTE
        for ahead in range(2):
            exchange.truth.add_block_trade(BlockTrade(symbol="BTCUSDT", minute_ms=minute_ms + ahead * MINUTE, lots=700))
        requests = exchange.stats().count("/klines", "BTCUSDT")
        close_seconds(feed, 10)
        assert exchange.stats().count("/klines", "BTCUSDT") - requests <= 3, "audits, and nothing repaired"
        assert status_of(collector).conflicts == 0


def test_the_product_asks_for_milliseconds_and_for_no_retired_path(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with collecting(exchange, block_name, symbols=["BTCUSDT"]) as (_, feed):
        assert 10**12 < feed["BTCUSDT"].candles(1)[0, 0] < 10**13
    prefixes: dict[Market, str] = {"SPOT": "/api/v3/", "UM": "/fapi/v1/", "CM": "/dapi/v1/"}
    for market, prefix in prefixes.items():
        rules = Binance(market)
        urls = [rules.time_url, rules.info_url, rules.volumes_url, rules.klines_url(rules.newest("BTCUSDT", "1m", 2))]
        assert all(prefix in url for url in urls)


@pytest.mark.parametrize(
    ("market", "host"),
    [
        ("SPOT", "stream.testnet.binance.vision"),
        ("UM", "demo-fstream.binance.com"),
        ("CM", "demo-dstream.binance.com"),
    ],
)
def test_hosts_for_tests_have_the_paths_of_the_market(market: Market, host: str) -> None:
    own, real = Binance(market, base_url="https://demo", ws_url=f"wss://{host}"), Binance(market)
    assert own.info_url == "https://demo" + real.info_url.removeprefix(MARKETS[market].host)
    paths = {url.removeprefix(f"wss://{host}") for url in own.stream_rules("1m").urls}
    assert paths == {urlsplit(url).path for url in real.stream_rules("1m").urls}
