"""What a collector recorded ends in the same block when it is replayed: row for row, also after faults and deaths."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.recorded_run import RecordedRun
from candleshm.reader.feed import Feed
from candleshm.sim import Fault, SimulatedExchange, StreamFault
from candleshm.sim.faults import rate_limited
from tests.support.collecting import SYMBOLS, WorldClock, close_seconds, config_of, loaded, status_of, until
from tests.support.commanding import run, started

HOUR_SECONDS = 3600.0


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=6) as running:
        yield running


def assert_same(live: Feed, replayed: Feed) -> None:
    """Both blocks have the same rows, states, gaps and revisions."""
    assert replayed.symbols == live.symbols
    for symbol in live.symbols:
        theirs, ours = live[symbol].snapshot(holes="nan"), replayed[symbol].snapshot(holes="nan")
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert replayed[symbol].gaps() == live[symbol].gaps()
        assert replayed[symbol].revision == live[symbol].revision


def assert_whole(replayed: RecordedRun) -> None:
    """Nothing is missing in a recording, and the planner asks for every request."""
    report = replayed.report
    assert (report.cuts, report.missing, report.left_out, report.differing) == ((), 0, 0, 0), report
    assert (report.unasked, report.first_unasked) == (0, None)
    assert report.requests > 0
    assert report.is_whole


def test_an_hour_with_faults_is_replayed_to_the_same_block(block_name: str, tmp_path: Path) -> None:
    clock = WorldClock()
    with SimulatedExchange(symbols=6, clock_ms=clock) as exchange:
        changes: dict[str, Any] = {
            "record": tmp_path,
            "length": 80,
            "derive": ["5m", "15m:40"],
            "live": "rest",
            "update_interval_seconds": 3.0,
        }
        collector = Collector(config_of(exchange, block_name, **changes), clock=clock)
        live = loaded(collector)
        derived = [candleshm.attach(f"{block_name}-{interval}") for interval in ("5m", "15m")]
        exchange.faults.add(
            Fault(kind="status", status=503, path="/klines", rate=0.05),
            Fault(kind="truncate", path="/klines", rate=0.02),
            Fault(kind="rows", rows="empty", path="/klines", rate=0.02),
            Fault(kind="reset", path="/klines", rate=0.02),
        )
        clock.let_pass(collector, HOUR_SECONDS / 2)
        exchange.faults.add(rate_limited(5, path="/klines", count=2))
        clock.let_pass(collector, HOUR_SECONDS / 2)
        errors = status_of(collector).errors
        collector.stop()
    assert len(errors) >= 3, errors
    with candleshm.replay_recording(tmp_path) as replayed:
        assert_whole(replayed)
        assert replayed.report.records["response"] > 100
        assert_same(live, replayed.feed)
        for feed, interval in zip(derived, ("5m", "15m"), strict=True):
            assert_same(feed, replayed.derived[interval])


def test_streams_with_faults_are_replayed_to_the_same_block(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "record": tmp_path,
        "interval": "1s",
        "length": 60,
        "derive": ["1m"],
        "live": "ws",
        "ws_url": exchange.ws_url_of("SPOT"),
    }
    with Collector(config_of(exchange, block_name, **changes)) as collector:
        live = loaded(collector)
        until(lambda: status_of(collector).live == "ws")
        exchange.stream_faults.add(
            StreamFault(kind="lose", rate=0.1),
            StreamFault(kind="unclosed", rate=0.1),
            StreamFault(kind="wrong", rate=0.05),
            StreamFault(kind="garbage", rate=0.05),
            StreamFault(kind="duplicate", rate=0.1),
            StreamFault(kind="reset", count=1),
        )
        close_seconds(live, 8)
        derived = candleshm.attach(f"{block_name}-1m")
    with candleshm.replay_recording(tmp_path) as replayed:
        assert_whole(replayed)
        assert replayed.report.records["frames"] > 20
        assert_same(live, replayed.feed)
        assert_same(derived, replayed.derived["1m"])
