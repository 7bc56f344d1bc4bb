"""The collector against the simulated exchange, over real HTTP into a real block: what strategies read is true."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.status import CollectorStatus
from candleshm.config import CollectorConfig
from candleshm.errors import (
    BadResponse,
    Banned,
    BlockInUse,
    BlockNotFound,
    ConfigError,
    ExchangeError,
    ExchangeUnavailable,
    StaleData,
)
from candleshm.exchanges.base import INTERVAL_MS, Market, Price
from candleshm.sim import Fault, Outage, SimulatedExchange, banned, html, rate_limited, refused
from tests.support.collecting import (
    DEADLINE_SECONDS,
    KINDS,
    MINUTE,
    assert_complete_and_true,
    assert_true,
    config_of,
    klines,
    loaded,
    symbols_of,
    truth_of,
    until,
)

# UM streams the candles of trades only, and a premium is not streamed at all.
STREAMED = [("SPOT", "trade"), ("UM", "trade"), ("CM", "trade"), ("CM", "mark"), ("CM", "index")]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture
def make(exchange: SimulatedExchange, block_name: str) -> Iterator[Callable[..., Collector]]:
    """Make collectors of the simulated exchange; they are stopped at the end."""
    with ExitStack() as stop:

        def collector(**changes: Any) -> Collector:
            made = Collector(config_of(exchange, block_name, **changes))
            stop.callback(made.stop)
            return made

        yield collector


Make = Callable[..., Collector]


@pytest.mark.parametrize(("market", "price"), KINDS)
def test_history_longer_than_a_page_is_complete_and_true(
    exchange: SimulatedExchange, make: Make, market: Market, price: Price
) -> None:
    with loaded(make(market=market, price=price, length=1100)) as feed:
        assert (feed.market, feed.price, feed.health.price) == (market, price, price)
        assert_complete_and_true(exchange, feed)
        assert until(lambda: feed.health.ready)
    assert exchange.stats().count(status=200) == exchange.stats().count()
    if market == "CM":
        pages = [requested for _, requested in klines(exchange) if "endTime" in requested]
        assert pages
        assert all(0 < int(page["endTime"]) - int(page["startTime"]) < 200 * 86_400_000 for page in pages)


def test_seconds_captured_live_are_true_once_closed(exchange: SimulatedExchange, make: Make) -> None:
    with loaded(make(interval="1s", length=50)) as feed:
        newest_ms = max(feed[symbol].last_open_time_ms or 0 for symbol in feed.symbols)
        seen: dict[tuple[str, int], bytes] = {}
        for step in range(1, 9):
            feed.wait_closed(newest_ms + step * 1000, timeout=DEADLINE_SECONDS)
            for symbol in feed.symbols:
                for row in feed[symbol].candles(3):
                    seen.setdefault((symbol, int(row[candleshm.OPEN_TIME_MS])), row.tobytes())
        assert_complete_and_true(exchange, feed)
        rows = {(symbol, int(row[0])): row for symbol in feed.symbols for row in feed[symbol].candles(closed_only=True)}
    # The test would prove nothing if no candle had been seen before it was final.
    assert any(rows[key].tobytes() != first for key, first in seen.items() if key in rows)


def test_minutes_captured_live_are_true_once_closed_whatever_the_local_clock_shows(block_name: str) -> None:
    # The exchange's clock is set so that a minute ends soon, and is then minutes away from the local one.
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(symbols=4))
        exchange.skew_ms = 57_000 - exchange.now_ms() % MINUTE + 10 * MINUTE
        feeds = []
        # By requests, and once more by streams where there are some.
        ways = [(*kind, live) for kind in KINDS for live in ("rest", "ws") if live == "rest" or kind in STREAMED]
        for market, price, live in ways:
            config = CollectorConfig(
                market=market,
                price=price,
                symbols=symbols_of(market, price),
                length=60,
                name=f"{block_name}-{market}-{price}-{live}",
                base_url=exchange.base_url,
                ws_url=exchange.ws_url_of(market),
                live="ws" if live == "ws" else "rest",
                update_interval_seconds=0.25,
            )
            feeds.append(stack.enter_context(loaded(stack.enter_context(Collector(config)))))
        live_ms = exchange.now_ms() // MINUTE * MINUTE
        captured = [(feed[symbol].live, feed, symbol) for feed in feeds for symbol in feed.symbols]
        for feed in feeds:
            closed = feed.wait_closed(live_ms, timeout=DEADLINE_SECONDS)
            assert (closed.open_time_ms, set(closed.symbols)) == (live_ms, set(feed.symbols))
            assert_complete_and_true(exchange, feed)
            assert all(feed[symbol].revision == 0 for symbol in feed.symbols)
        final = [truth_of(exchange, feed, symbol, live[:1])[0] for live, feed, symbol in captured]
        assert any((live != row).any() for (live, _, _), row in zip(captured, final, strict=True))


def test_no_row_is_final_before_it_has_settled(exchange: SimulatedExchange, make: Make) -> None:
    # Trades show up to 3 s late: only a collector that waits as long gets the rows right.
    exchange.stop()
    with SimulatedExchange(symbols=4, late_ms=2500) as late:
        collector = make(interval="1s", length=30, settle_seconds=3.0, base_url=late.base_url)
        with loaded(collector) as feed:
            newest_ms = max(feed[symbol].last_open_time_ms or 0 for symbol in feed.symbols)
            feed.wait_closed(newest_ms + 4000, timeout=DEADLINE_SECONDS)
            assert_complete_and_true(late, feed)
            assert all(feed[symbol].revision == 0 for symbol in feed.symbols)


def test_a_short_history_is_served_as_long_as_it_is(exchange: SimulatedExchange, make: Make) -> None:
    listed_ms = exchange.truth.first_ms("SPOT", "NEWUSDT")
    length = (exchange.now_ms() - listed_ms) // MINUTE + 500

    with loaded(make(symbols=["NEWUSDT"], length=length)) as feed:
        rows = feed["NEWUSDT"].candles()
        assert int(rows[0, candleshm.OPEN_TIME_MS]) == listed_ms
        assert not feed["NEWUSDT"].gaps()
        assert feed.health.missing == 0
        assert_true(exchange, feed)


@pytest.mark.parametrize(("market", "price"), KINDS)
def test_holes_of_the_exchange_are_confirmed_and_the_symbol_stays(
    exchange: SimulatedExchange, make: Make, market: Market, price: Price
) -> None:
    whole, torn, _ = symbols_of(market, price)
    end_ms = (exchange.now_ms() // MINUTE - 30) * MINUTE
    start_ms = end_ms - 80 * MINUTE
    exchange.truth.add_outage(Outage(start_ms=start_ms, end_ms=end_ms, symbol=torn))

    with loaded(make(market=market, price=price, length=200)) as feed:
        gaps = [(gap.start_ms, gap.end_ms, gap.kind) for gap in feed[torn].gaps()]
        assert gaps == [(start_ms, end_ms, "hole")]
        assert not feed[whole].gaps()
        assert until(lambda: feed.health.ready)
        assert (feed.health.missing, feed.health.holes) == (0, 80)
        rows = feed[torn].candles(closed_only=True)
        np.testing.assert_array_equal(rows, truth_of(exchange, feed, torn, rows[:, candleshm.OPEN_TIME_MS]))


def test_an_exchange_clock_that_is_set_forward_is_measured_again(exchange: SimulatedExchange, make: Make) -> None:
    with loaded(make(interval="1s", length=90)) as feed:
        exchange.skew_ms += 45_000
        jumped_ms = exchange.now_ms() // 1000 * 1000
        until(lambda: (feed["BTCUSDT"].last_open_time_ms or 0) >= jumped_ms)
        feed.wait_closed(jumped_ms + 2000, timeout=DEADLINE_SECONDS)
        # Readers see the clock that was measured last; a round trip here is short.
        assert abs((feed.exchange_ms() or 0) - exchange.now_ms()) < 1000
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)


def test_the_budget_is_kept_and_used_up() -> None:
    with SimulatedExchange(symbols=30, spot_limit=150) as exchange:
        config = CollectorConfig(market="SPOT", length=2880, base_url=exchange.base_url, name="test-budget")
        with Collector(config) as collector:
            assert not collector.wait_loaded(4.0)
            status = collector.status()
        used = exchange.stats().pools["SPOT"].peak_60s
    assert exchange.stats().count(status=429) == 0
    assert 40 <= used <= 150 * 0.75
    assert status is not None
    assert status.weight_limit == 150


def test_a_429_stops_everything_for_as_long_as_it_states(exchange: SimulatedExchange, make: Make) -> None:
    exchange.faults.add(rate_limited(2, path="/klines", count=1))

    with loaded(make(workers=1)) as feed:
        assert_complete_and_true(exchange, feed)
    requested = [served for served in exchange.served() if served.status in (200, 429)]
    refused_at = next(index for index, served in enumerate(requested) if served.status == 429)
    assert requested[refused_at + 1].received_ms - requested[refused_at].received_ms >= 2000


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(rate_limited(path="/klines", count=1), 60), (html(403, path="/klines", count=1), 120)],
)
def test_without_a_time_a_refusal_stops_everything_for_a_known_one(
    exchange: SimulatedExchange, make: Make, fault: Fault, seconds: int
) -> None:
    exchange.faults.add(fault)
    collector = make(workers=1)
    collector.start()

    feed = candleshm.attach(collector.config.block_name)
    end = until(lambda: feed.health.banned_until)

    assert end is not None
    assert end.timestamp() * 1000 - exchange.now_ms() == pytest.approx(seconds * 1000, abs=5000)
    assert len(klines(exchange)) == 1


def test_a_ban_lasts_until_the_epoch_it_names(exchange: SimulatedExchange, make: Make) -> None:
    until_ms = exchange.now_ms() + 3000
    exchange.faults.add(banned(until_ms, path="/klines"))

    with loaded(make()) as feed:
        assert_complete_and_true(exchange, feed)
    requested = [received_ms for received_ms, _ in klines(exchange)]
    # What was on its way when the ban came is all that was requested before its end.
    assert not [received_ms for received_ms in requested[8:] if received_ms < until_ms - 50]


@pytest.mark.parametrize(
    "fault",
    [
        refused(503, -1008, "Request throttled by system-level protection.", symbol="ETHUSDT"),
        Fault(kind="hang", symbol="ETHUSDT"),
        html(200, symbol="ETHUSDT"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_a_symbol_that_fails_from_the_start_neither_delays_nor_drops_another(
    exchange: SimulatedExchange, make: Make, fault: Fault
) -> None:
    exchange.faults.add(fault)
    collector = make(interval="1s")
    collector.start()
    feed = candleshm.attach(collector.config.block_name)

    others = [symbol for symbol in feed.symbols if symbol != "ETHUSDT"]
    newest_ms = until(lambda: feed["BTCUSDT"].last_open_time_ms) or 0
    feed.wait_closed(newest_ms + 2000, symbols=others, timeout=DEADLINE_SECONDS)
    assert feed["ETHUSDT"].last_open_time_ms is None

    exchange.faults.clear()
    if fault.kind != "hang":
        assert until(lambda: feed["ETHUSDT"].last_open_time_ms)
        until(lambda: feed.health.ready)
        assert_complete_and_true(exchange, feed)


def test_a_symbol_that_keeps_failing_does_not_keep_loading_from_ending(exchange: SimulatedExchange, make: Make) -> None:
    exchange.faults.add(refused(500, -1000, "unknown", symbol="ETHUSDT"))
    collector = make()
    collector.start()

    assert collector.wait_loaded(DEADLINE_SECONDS)
    status = collector.status()
    assert status is not None
    assert (status.loaded, status.symbols, status.given_up, status.ready) == (2, 3, ("ETHUSDT",), True)
    assert status.failing["ETHUSDT"] >= 3
    assert status.errors["ExchangeUnavailable"] >= 3


def test_after_an_outage_of_the_exchange_everything_recovers_by_itself(exchange: SimulatedExchange, make: Make) -> None:
    with loaded(make(interval="1s", length=60)) as feed:
        exchange.faults.add(Fault(kind="reset"))
        until(lambda: exchange.stats().count(status=0) >= 12)
        exchange.faults.clear()
        now_ms = exchange.now_ms()
        feed.wait_closed(now_ms // 1000 * 1000, timeout=DEADLINE_SECONDS)
        until(lambda: feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)


def test_a_symbol_removed_by_the_exchange_is_dropped_and_the_service_goes_on(
    exchange: SimulatedExchange, make: Make
) -> None:
    with loaded(make(interval="1s")) as feed:
        exchange.truth.remove("SPOT", "ETHUSDT")
        until(lambda: exchange.stats().count("/exchangeInfo") >= 2)
        requested = until(lambda: exchange.stats().count("/klines", "ETHUSDT", 400))
        newest_ms = feed["BTCUSDT"].last_open_time_ms or 0
        closed = feed.wait_closed(newest_ms + 2000, timeout=DEADLINE_SECONDS)
        assert closed.symbols == ("BTCUSDT", "SUSHIBTC")
        assert exchange.stats().count("/klines", "ETHUSDT", 400) == requested
    with candleshm.attach(feed.name, max_age=3600.0) as strict, pytest.raises(StaleData, match="no longer trades"):
        strict["ETHUSDT"].candles()


@pytest.mark.parametrize(("market", "price"), [("SPOT", "trade"), ("UM", "mark"), ("CM", "premium")])
def test_a_block_of_a_collector_killed_with_9_is_taken_over_without_fetching_history_again(
    exchange: SimulatedExchange, make: Make, block_name: str, market: Market, price: Price
) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", _SERVE, block_name, exchange.base_url, market, price, *symbols_of(market, price)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "loaded\n"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        if first.stdout is not None:
            first.stdout.close()
    requested_before = len(klines(exchange))

    with loaded(make(market=market, price=price, length=1500)) as feed:
        assert_complete_and_true(exchange, feed)
    tails = [requested for _, requested in klines(exchange)[requested_before:]]
    assert tails
    assert max(int(requested["limit"]) for requested in tails) < 20


_SERVE = """
import sys, threading
from candleshm.system.clock import ExchangeTime, SystemClock
from candleshm.config import CollectorConfig
from candleshm.collector.status import CollectorStatus
from candleshm.collector.collector import Collector
name, base_url, market, price, *symbols = sys.argv[1:]
config = CollectorConfig(
    market=market, price=price, symbols=symbols, length=1500, name=name, base_url=base_url
)
collector = Collector(config)
collector.start()
assert collector.wait_loaded(60)
sys.stdout.write("loaded\\n")
sys.stdout.flush()
threading.Event().wait()
"""


def test_stop_is_prompt_removes_the_block_and_lets_nothing_be_written_any_more(
    exchange: SimulatedExchange, make: Make
) -> None:
    collector = make(interval="1s")
    feed = loaded(collector)
    # Every request is on its way for longer than stop may take.
    exchange.faults.add(Fault(kind="latency", delay_ms=8000))
    until(lambda: exchange.faults.in_force()[0][1] >= 3)

    before = time.monotonic()
    collector.stop()
    assert time.monotonic() - before < 5.0

    assert feed.health.state == "closed"
    with pytest.raises(BlockNotFound):
        candleshm.attach(collector.config.block_name)
    assert not [thread for thread in threading.enumerate() if thread.name == "candleshm-loop"]
    collector.stop()


def test_stop_ends_a_start_that_still_blocks(exchange: SimulatedExchange, make: Make) -> None:
    exchange.faults.add(Fault(kind="hang"))
    collector = make()
    starting = threading.Thread(target=collector.start)
    starting.start()
    until(lambda: exchange.faults.in_force()[0][1])

    collector.stop()
    starting.join(5.0)

    assert not starting.is_alive()
    with pytest.raises(BlockNotFound):
        candleshm.attach(collector.config.block_name)


def test_run_that_has_to_end_while_it_still_connects(exchange: SimulatedExchange, make: Make) -> None:
    exchange.faults.add(Fault(kind="hang"))
    end = threading.Event()
    running = threading.Thread(target=make().run, args=(end,))
    running.start()
    until(lambda: exchange.faults.in_force()[0][1])

    end.set()
    running.join(5.0)

    assert not running.is_alive()


def test_run_serves_until_its_event_is_set_and_reports_progress(exchange: SimulatedExchange, make: Make) -> None:
    collector, end = make(length=1500), threading.Event()
    seen: list[CollectorStatus] = []
    running = threading.Thread(target=collector.run, args=(end, seen.append))
    running.start()
    until(lambda: seen and seen[-1].ready)
    end.set()
    running.join(DEADLINE_SECONDS)

    assert not running.is_alive()
    assert (seen[-1].symbols, seen[-1].loaded, seen[-1].missing) == (3, 3, 0)
    assert seen[-1].rows >= 3 * 1500
    assert seen[-1].eta_seconds == 0
    with pytest.raises(BlockNotFound):
        candleshm.attach(collector.config.block_name)


def test_symbols_that_the_exchange_does_not_list_are_left_out(
    exchange: SimulatedExchange, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with loaded(make(symbols=["BTCUSDT", "BTCUSTD"])) as feed:
        assert feed.symbols == ("BTCUSDT",)
    assert "did you mean BTCUSDT?" in caplog.text


def test_all_means_every_symbol_that_trades(exchange: SimulatedExchange, make: Make) -> None:
    trading = {item.symbol for item in exchange.truth.instruments("UM") if item.status == "TRADING"}
    listed = {item.symbol for item in exchange.truth.instruments("UM")}
    assert trading < listed

    with loaded(make(market="UM", symbols="all")) as feed:
        assert set(feed.symbols) == trading


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"symbols": ["NOPE", "NADA"]}, "SPOT lists none of `NOPE, NADA`"),
        ({"market": "UM", "interval": "1s"}, "interval cannot be `1s`; UM has: 1m 3m"),
        ({"interval": "7m"}, "interval cannot be `7m`"),
    ],
)
def test_what_the_market_does_not_have_is_a_config_error(make: Make, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**changes).start()

    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (html(200), BadResponse),
        (html(403), Banned),
        (html(451), ExchangeError),
        (html(502), ExchangeUnavailable),
        (Fault(kind="reset"), ExchangeUnavailable),
        (Fault(kind="truncate"), BadResponse),
        (rate_limited(3600), ExchangeError),
    ],
    ids=lambda value: value.kind + str(value.status) if isinstance(value, Fault) else "",
)
def test_a_start_that_cannot_succeed_gives_the_reason_and_leaves_nothing(
    exchange: SimulatedExchange, make: Make, fault: Fault, kind: type[ExchangeError]
) -> None:
    exchange.faults.add(fault)
    collector = make(start_seconds=0.3)

    with pytest.raises(kind) as caught:
        collector.start()

    assert "127.0.0.1" in str(caught.value)
    with pytest.raises(BlockNotFound):
        candleshm.attach(collector.config.block_name)
    assert collector.status() is None


def test_a_start_waits_for_an_exchange_that_comes_back(exchange: SimulatedExchange, make: Make) -> None:
    exchange.faults.add(html(502, count=1), rate_limited(1, count=1))

    with loaded(make()) as feed:
        assert_complete_and_true(exchange, feed)


def test_a_second_collector_under_the_same_name_is_refused_and_harms_nothing(
    exchange: SimulatedExchange, make: Make
) -> None:
    with loaded(make(interval="1s")) as feed:
        with pytest.raises(BlockInUse):
            make(interval="1s").start()
        newest_ms = feed["BTCUSDT"].last_open_time_ms or 0
        feed.wait_closed(newest_ms + INTERVAL_MS["1s"], timeout=DEADLINE_SECONDS)
        assert_complete_and_true(exchange, feed)
