"""When a row is final: by evidence, not by a response alone. And which rows count as holes only for a time."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm._core import Writer
from candleshm.collector.outdated_responses import OutdatedResponses
from candleshm.columns import OPEN_TIME_MS
from candleshm.sim import Outage, SimulatedExchange
from candleshm.system.clock import APART_MS_MAX, ExchangeTime
from tests.support.collecting import MINUTE, SteppedClock, collecting, klines, status_of, truth_of, until


@contextmanager
def front(exchange: SimulatedExchange, change: Callable[[str, bytes], bytes]) -> Iterator[str]:
    """Yield the address of a relay that forwards every response of `exchange`; `change(path, body)` makes its body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with urllib.request.urlopen(exchange.base_url + self.path, timeout=30) as response:
                body = change(self.path, response.read())
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_outdated_responses_close_nothing_and_data_grows_old(block_name: str) -> None:
    frozen, kept = threading.Event(), dict[str, bytes]()

    def picture(path: str, body: bytes) -> bytes:
        if "/klines" not in path or (frozen.is_set() and path.split("&")[0] not in kept):
            return body
        if not frozen.is_set():
            kept[path.split("&")[0]] = body
        return kept[path.split("&")[0]]

    # No late trades: a later row proves that a picture was made after a candle's end, not how long after it.
    with SimulatedExchange(symbols=4, late_ms=0) as exchange, front(exchange, picture) as url:
        settings: dict[str, Any] = {"base_url": url, "interval": "1s", "length": 30, "update_interval_seconds": 0.2}
        with collecting(exchange, block_name, **settings) as (_, feed):
            time.sleep(2.0)
            frozen.set()
            time.sleep(1.0)  # for what was under way
            newest_ms = {symbol: feed[symbol].last_open_time_ms for symbol in feed.symbols}
            time.sleep(6.0)
            for symbol in feed.symbols:
                series = feed[symbol]
                assert series.last_open_time_ms == newest_ms[symbol]
                rows = series.candles(closed_only=True)
                np.testing.assert_array_equal(rows, truth_of(exchange, feed, symbol, rows[:, OPEN_TIME_MS]))
                assert rows[-1, OPEN_TIME_MS] < newest_ms[symbol]
                assert series.age > 3.0
            with candleshm.attach(block_name, max_age=3.0) as strict, pytest.raises(candleshm.StaleData):
                strict[feed.symbols[0]].candles(1)
            # What becomes of it when the picture moves again.
            frozen.clear()
            until(lambda: all((feed[s].last_open_time_ms or 0) > (newest_ms[s] or 0) for s in feed.symbols))
            until(lambda: all(feed[symbol].age < 3.0 for symbol in feed.symbols))


def test_rows_that_come_late_fill_a_hole_by_requests_alone_and_count_as_a_revision(block_name: str) -> None:
    with SimulatedExchange(symbols=4) as exchange:
        end_ms = exchange.now_ms() // MINUTE * MINUTE - 20 * MINUTE
        exchange.truth.add_outage(Outage(start_ms=end_ms - 3 * MINUTE, end_ms=end_ms, market="SPOT"))
        clock = SteppedClock()
        with collecting(exchange, block_name, clock=clock, length=100, live="rest") as (collector, feed):
            until(lambda: feed.health.holes == 3 * len(feed))
            revisions = {symbol: feed[symbol].revision for symbol in feed.symbols}
            exchange.truth.end_outages()
            # Nothing is requested at once, and something after a minute.
            requested = len(klines(exchange))
            clock.ahead_seconds += 61.0
            exchange.skew_ms += 61_000
            until(lambda: feed.health.holes == 0 and feed.health.missing == 0)
            for symbol in feed.symbols:
                assert feed[symbol].gaps() == []
                assert feed[symbol].revision > revisions[symbol]
            assert len(klines(exchange)) > requested
            assert status_of(collector).errors == {}


def test_holes_that_a_dead_collector_left_are_requested_again_at_once(block_name: str) -> None:
    count, lacks = 50, 20
    with SimulatedExchange(symbols=4) as exchange:
        now_ms = exchange.now_ms()
        first_ms = now_ms // MINUTE * MINUTE - (count - 1) * MINUTE
        request = f"{exchange.base_url}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000&startTime={first_ms}"
        rows = json.loads(urllib.request.urlopen(request, timeout=30).read())
        body = json.dumps(rows[:lacks] + rows[lacks + 1 :]).encode()
        # Twice there was no such row, and then the collector died: the block stays.
        writer = Writer.open(block_name, market="SPOT", interval="1m", length=count, symbols=["BTCUSDT"])
        for sent_ms in (now_ms - 1, now_ms):
            writer.ingest(
                "BTCUSDT", body, sent_ms=sent_ms, received_ms=now_ms, settle_ms=1, limit=1000, start_ms=first_ms
            )
        assert writer.gaps("BTCUSDT")[-1].kind == "hole"
        del writer
        with collecting(exchange, block_name, symbols=["BTCUSDT"], length=count) as (_, feed):
            until(lambda: not feed["BTCUSDT"].gaps())
            np.testing.assert_array_equal(
                feed["BTCUSDT"].candles(closed_only=True)[:, 4],
                truth_of(exchange, feed, "BTCUSDT", feed["BTCUSDT"].candles(closed_only=True)[:, OPEN_TIME_MS])[:, 4],
            )


def test_servers_whose_clocks_lie_apart_do_not_keep_a_start_from_succeeding(block_name: str) -> None:
    responses = iter(range(1_000_000))

    def jitter(path: str, body: bytes) -> bytes:
        if not path.endswith("/time"):
            return body
        server_ms = int(body.split(b":")[1].strip(b"} ")) + (400 if next(responses) % 2 else 0)
        return b'{"serverTime":%d}' % server_ms

    with (
        SimulatedExchange(symbols=4) as exchange,
        front(exchange, jitter) as url,
        collecting(exchange, block_name, base_url=url, interval="1s", length=30) as (collector, feed),
    ):
        until(lambda: feed.health.ready)
        assert status_of(collector).clock_error_ms >= 400
        rows = feed["BTCUSDT"].candles(closed_only=True)
        np.testing.assert_array_equal(rows, truth_of(exchange, feed, "BTCUSDT", rows[:, OPEN_TIME_MS]))


def test_bounds_contain_the_clocks_of_all_servers() -> None:
    known = ExchangeTime.measured(0.0, 0.02, 1_000_000)
    for number in range(1, 6):
        sent_seconds = number * 300.0
        ahead_ms = 250 if number % 2 else 0
        true_ms = 1_000_000 + number * 300_000
        newer = ExchangeTime.measured(sent_seconds, sent_seconds + 0.02, true_ms + ahead_ms)
        assert known.overlaps(newer)
        known = known.refined(newer)
        assert known.earliest_ms(sent_seconds + 0.02) <= true_ms + 20
        assert known.latest_ms(sent_seconds + 0.02) >= true_ms + 250
        assert known.error_ms(sent_seconds + 0.02) < 2000
    # Once all agree the bounds become narrow again.
    for number in range(6, 60):
        sent_seconds = number * 300.0
        known = known.refined(ExchangeTime.measured(sent_seconds, sent_seconds + 0.02, 1_000_000 + number * 300_000))
    assert known.error_ms(59 * 300.0 + 0.02) < 250


def test_a_clock_that_differs_by_more_than_servers_may_was_set() -> None:
    before = ExchangeTime.measured(0.0, 0.02, 1_000_000)
    after = ExchangeTime.measured(10.0, 10.02, 1_010_000 + round(APART_MS_MAX) + 100)

    assert not before.overlaps(after)
    assert before.refined(after) == after


def test_outdated_responses_are_logged_once_with_their_symbols_and_once_when_they_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "candleshm")
    outdated, both = OutdatedResponses("block", "api.example"), frozenset({"AUSDT", "BUSDT"})
    for sent_ms in (1_001_000, 1_016_000, 1_020_000, 1_100_000):
        outdated.note("AUSDT", 1_000_000, sent_ms)
        outdated.note("BUSDT", 1_060_000, sent_ms)
        outdated.report(both)
    assert sorted(outdated.symbols) == ["AUSDT", "BUSDT"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "api.example has sent the same old data since 1970-01-01T00:16:40+00:00 (exchange time)" in line
    assert "AUSDT" in line
    outdated.note("AUSDT", 1_120_000, 1_101_000)
    outdated.report(frozenset({"AUSDT"}))
    assert len(outdated.symbols) == 0
    assert "new data again" in caplog.records[-1].getMessage()
