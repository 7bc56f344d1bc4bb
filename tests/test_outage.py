"""What is logged about an outage, what every way of reading shows of it, and how many lines it costs."""

from __future__ import annotations

import json
import logging
import math
import re
import signal
import threading
import time

import pytest
import requests

import candleshm
from candleshm._core import Writer, is_owned
from candleshm.collector import outage
from candleshm.collector.outage import Outage, Steady
from candleshm.commands.listing import listing_json, listing_table
from candleshm.errors import ExchangeUnavailable
from candleshm.reader import freshness
from candleshm.reader.freshness import Freshness
from candleshm.sim import SimulatedExchange, StreamFault, refused
from candleshm.system.block_log import is_worth_logging
from candleshm.system.clock import SystemClock
from tests.support.collecting import collecting, status_of, until
from tests.support.commanding import first_line, run, serving, started

FRESH = Freshness.of([0.5] * 400)
REFUSAL = ExchangeUnavailable("503 from the exchange", status=503)


# The judgement.


@pytest.mark.parametrize(
    ("ages", "stale", "oldest_age", "is_current"),
    [
        ([0.5] * 400, 0, 0.5, True),
        ([0.5] * 399 + [900.0], 1, 900.0, True),
        ([0.5] * 360 + [61.0] * 40, 40, 61.0, True),
        ([0.5] * 359 + [61.0] * 41, 41, 61.0, False),
        ([0.5, 61.0], 1, 61.0, True),
        ([61.0], 1, 61.0, False),
        ([0.5, 61.0, 62.0], 2, 62.0, False),
        ([0.5, math.inf, math.inf], 2, 0.5, True),
        ([math.inf, math.inf], 2, math.inf, False),
        ([], 0, 0.0, True),
    ],
)
def test_a_feed_is_current_while_stale_symbols_are_the_exception(
    ages: list[float],
    stale: int,
    oldest_age: float,
    is_current: bool,  # noqa: FBT001
) -> None:
    assert Freshness.of(ages) == Freshness(stale, oldest_age, is_current)


def test_the_limit_is_the_reader_s_where_it_has_one() -> None:
    assert Freshness.of([5.0], max_age=4.0).stale == 1
    assert Freshness.of([5.0], max_age=6.0).stale == 0
    assert Freshness.of([70.0], max_age=math.inf).stale == 1


# The lines.


def test_one_bad_symbol_among_many_is_logged_ever_more_rarely() -> None:
    outage, logged = Outage(), []
    for failures in range(1, 101):
        outage.failed(REFUSAL, f"AUSDT fails {failures}" if is_worth_logging(failures) else None)
        logged += outage.look(1, 400, FRESH, now=float(failures))

    assert logged == [f"AUSDT fails {failures}" for failures in (1, 2, 4, 8, 16, 32, 64)]


def test_an_outage_of_hours_is_a_handful_of_lines() -> None:
    outage, logged = Outage(), []
    for second in range(4 * 3600):
        for number in range(10):
            outage.failed(REFUSAL, f"{number} fails")
        logged += outage.look(400, 400, Freshness.of([float(second)] * 400), now=float(second))
    for second in range(10):
        logged += outage.look(0, 400, FRESH, now=4 * 3600.0 + second)

    assert "outage: requests for 400 of 400 symbols fail: 503 from the exchange; none is stale yet" in logged[0]
    assert "the oldest data is 2 s old and is stale in 58 s" in logged[0]
    assert all(line.startswith("outage for ") for line in logged[1:-1])
    assert "400 are stale" in logged[2]
    assert logged[-1] == (
        "the outage is over after 14400 s: 144000 requests failed (HTTP 503: 144000); "
        "data flows again, and 0 of 400 symbols are still stale"
    )
    assert len(logged) <= 15


def test_a_moment_in_which_all_fail_is_no_outage_and_its_lines_are_logged() -> None:
    outage = Outage()
    for number in range(400):
        outage.failed(REFUSAL, f"{number} fails")

    assert outage.look(400, 400, FRESH, now=0.0) == []
    assert len(outage.look(0, 400, FRESH, now=1.0)) == 11


def test_an_outage_that_comes_and_goes_within_moments_is_one() -> None:
    outage, logged = Outage(), []
    for second in range(60):
        failing = 0 if second % 4 == 3 else 400
        logged += outage.look(failing, 400, FRESH, now=float(second))

    assert [line.partition(":")[0] for line in logged] == ["outage", "outage for 30 s"]


def test_responses_that_bring_nothing_are_an_outage_as_well() -> None:
    outage, old = Outage(), Freshness.of([70.0] * 40)

    assert outage.look(0, 40, old, now=0.0) == []
    assert outage.look(0, 40, old, now=3.0) == [
        "outage: no request fails, but no new data arrives; 40 are stale, and the oldest data is 70 s old"
    ]


def test_a_state_is_believed_once_it_has_lasted() -> None:
    live = Steady("ws", 20.0)
    flapping = [live.becomes("ws+rest" if second % 10 < 5 else "ws", float(second)) for second in range(600)]
    lasting = [live.becomes("rest", 600.0 + second) for second in range(60)]

    assert not any(flapping)
    assert lasting.index(True) == 20
    assert sum(lasting) == 1


# The real thing.


def test_an_outage_is_the_same_truth_wherever_one_looks(
    block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    from candleshm.commands.metrics import MetricsServer

    monkeypatch.setattr(freshness, "STALE_SECONDS", 3.0)
    monkeypatch.setattr(outage, "STALE_SECONDS", 3.0)
    caplog.set_level(logging.INFO, logger="candleshm")
    with (
        SimulatedExchange(symbols=40) as exchange,
        collecting(
            exchange, block_name, symbols="all", live="auto", ws_url=exchange.ws_url, interval="1s", length=20
        ) as (collector, feed),
        MetricsServer("127.0.0.1", 0, lambda: {block_name: collector.status()}) as metrics,
    ):
        count = len(feed)

        def row() -> list[str]:
            return next(line for line in listing_table().splitlines() if line.startswith(block_name)).split()

        def scraped() -> dict[str, float]:
            families = parser.text_string_to_metric_families(requests.get(metrics.url, timeout=30).text)
            return {sample.name: sample.value for family in families for sample in family.samples}

        until(lambda: feed.health.ready and status_of(collector).ready)
        until(lambda: scraped()["candleshm_ready"] == 1)
        assert row()[5] == "ready"
        caplog.clear()
        exchange.faults.add(refused(503, -1008, "Request throttled."))
        exchange.stream_faults.add(StreamFault(kind="stall"))
        until(lambda: feed.health.stale == count)
        health = feed.health
        assert (health.ready, health.state, health.loaded) == (False, "ready", True)
        assert health.oldest_age > 3.0
        until(lambda: status_of(collector).stale == count)
        assert not status_of(collector).ready
        assert row()[5] == "stale"
        assert re.search(rf"{count} stale, oldest \d+\.\d s", listing_table())
        listed = next(entry for entry in json.loads(listing_json()) if entry["name"] == block_name)
        assert (listed["ready"], listed["stale"]) == (False, count)
        assert listed["oldest_age"] > 3.0
        until(lambda: scraped()["candleshm_stale_symbols"] == count)
        values = scraped()
        assert values["candleshm_ready"] == 0
        assert (values["candleshm_loaded"], values["candleshm_stale_symbols"]) == (1, count)
        assert values["candleshm_oldest_age_seconds"] > 3.0
        assert candleshm.attach(block_name, max_age=3600.0).health.ready, "a reader may be more patient"
        time.sleep(5.0)
        during = [record.getMessage() for record in caplog.records]

        exchange.faults.clear()
        exchange.stream_faults.clear()
        until(lambda: feed.health.ready and status_of(collector).ready)
        until(lambda: any("the outage is over" in record.getMessage() for record in caplog.records))

        # The simulated exchange logs under a name of its own.
        lines = [record.getMessage() for record in caplog.records if not record.name.startswith("candleshm.sim")]
    assert sum(f"{block_name}: outage: requests for " in line for line in lines) == 1
    assert not any("is over" in line for line in during), "nothing flowed yet"
    assert sum("the outage is over after" in line for line in lines) == 1
    assert all(line.startswith(f"{block_name}: ") for line in lines)
    assert not any("failure 2" in line for line in lines), lines


@pytest.mark.long
def test_a_dead_collector_s_block_is_dead_and_is_taken_over(block_name: str) -> None:
    with SimulatedExchange(symbols=4) as exchange:
        words = serving(exchange, block_name)
        with started(*words) as process:
            first_line(process)
            with candleshm.attach(block_name) as feed:
                until(lambda: feed.health.ready)
                process.send_signal(signal.SIGSTOP)
                until(lambda: feed.health.is_silent)
                assert (feed.health.state, feed.health.ready) == ("ready", False), "a stopped process owns its block"
                shown = next(line for line in run("ls").stdout.splitlines() if line.startswith(block_name))
                assert shown.split()[5] == "silent"
                assert f"process {process.pid} still owns the block" in shown
                process.send_signal(signal.SIGCONT)
                until(lambda: feed.health.ready)
                process.kill()
                process.wait()
                until(lambda: feed.health.state == "dead")
                assert not feed.health.ready
                shown = next(line for line in run("ls").stdout.splitlines() if line.startswith(block_name))
                assert shown.split()[5] == "dead"
                assert "start it again" in shown
                (listed,) = (row for row in json.loads(run("ls", "--json").stdout) if row["name"] == block_name)
                assert (listed["state"], listed["ready"]) == ("dead", False)
                with started(*words) as successor:
                    first_line(successor)
                    until(lambda: feed.health.ready and feed.health.pid == successor.pid)


def test_readers_that_check_whether_a_block_is_owned_keep_no_collector_from_it(block_name: str) -> None:
    settings = {"market": "SPOT", "interval": "1m", "length": 10, "symbols": ["BTCUSDT"]}
    Writer.open(block_name, **settings).close(unlink=False)  # type: ignore[arg-type]
    stop, seen = threading.Event(), set()

    def check() -> None:
        while not stop.is_set():
            seen.add(is_owned(block_name))

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            Writer.open(block_name, **settings).close(unlink=False)  # type: ignore[arg-type]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen == {True, False}


class WrongWallClock(SystemClock):
    """A machine whose wall clock is ninety seconds ahead."""

    def epoch_ms(self) -> int:
        """Return the wrong time."""
        return super().epoch_ms() + 90_000


def test_a_clock_of_the_machine_that_is_off_is_logged_once(
    block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("candleshm.collector.clock_sync.MEASURE_SECONDS", 0.2)
    caplog.set_level(logging.INFO, logger="candleshm")
    with (
        SimulatedExchange(symbols=4) as exchange,
        collecting(exchange, block_name, clock=WrongWallClock()),
    ):
        until(lambda: exchange.stats().count("/time") >= 4)
    logged = [record.getMessage() for record in caplog.records if "this machine's clock" in record.getMessage()]

    assert len(logged) == 1
    assert logged[0].startswith(f"{block_name}: this machine's clock is 90.0 s ahead of the exchange's")


def test_a_feed_with_few_requests_has_no_outage_between_two_responses(
    block_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(freshness, "STALE_SECONDS", 0.5)
    caplog.set_level(logging.INFO, logger="candleshm")
    with (
        SimulatedExchange(symbols=4) as exchange,
        collecting(exchange, block_name, live="rest", interval="1h", update_interval_seconds=8.0) as (collector, feed),
    ):
        until(lambda: max(feed[symbol].age for symbol in feed.symbols) > 6.0)
        assert status_of(collector).ready
    assert "outage" not in caplog.text
