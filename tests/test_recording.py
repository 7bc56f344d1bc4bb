"""What a collector recorded ends in the same block when it is replayed: row for row, also after faults and deaths."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.recorded_run import RecordedRun
from candleshm.collector.series_plan import SeriesPlan
from candleshm.reader.feed import Feed
from candleshm.sim import Fault, Outage, SimulatedExchange, StreamFault
from candleshm.sim.faults import rate_limited
from tests.support.collecting import MINUTE, SYMBOLS, WorldClock, close_seconds, config_of, loaded, status_of, until
from tests.support.commanding import CLI, lines_until, run, started
from tests.support.confined import mounted

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
    assert (report.strayed, report.first_strayed) == (0, None)
    assert sum(report.requests.values()) > 0
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
        minute_ms = clock() // MINUTE * MINUTE
        exchange.truth.add_outage(
            Outage(start_ms=minute_ms - 60 * MINUTE, end_ms=minute_ms - 50 * MINUTE, symbol="ETHUSDT")
        )
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
        assert set(replayed.report.requests) >= {"tail", "closing", "confirm", "hole"}
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


def serving(exchange: SimulatedExchange, name: str, directory: Path, *more: str) -> list[str]:
    words = f"serve --market spot --symbols BTCUSDT,ETHUSDT --interval 1s --length 90 --derive 1m --name {name}"
    return [*words.split(), "--base-url", exchange.base_url, "--record", str(directory), *more]


def test_a_killed_collector_and_the_next_one_are_replayed_to_the_same_block(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with started(*serving(exchange, block_name, tmp_path)) as first:
        live = candleshm.attach(block_name, timeout=60.0)
        derived = candleshm.attach(f"{block_name}-1m", timeout=60.0)
        until(lambda: live.health.pid == first.pid and live.health.ready)
        close_seconds(live, 2)
        first.kill()
        first.wait()
    with started(*serving(exchange, block_name, tmp_path)) as second:
        until(lambda: live.health.pid == second.pid and live.health.ready)
        close_seconds(live, 2)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
    with candleshm.replay_recording(tmp_path) as replayed:
        report = replayed.report
        assert (report.runs, report.ended, len(report.cuts)) == (2, True, 1)
        assert "checkpoint" in report.records
        assert (report.missing, report.left_out, report.differing, report.unasked) == (0, 0, 0, 0), report
        assert not report.is_whole
        assert_same(live, replayed.feed)
        assert_same(derived, replayed.derived["1m"])
        assert replayed.feed.health.state == "replay"


@pytest.fixture
def recorded(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Path:
    """A recording of a few seconds."""
    changes: dict[str, Any] = {"record": tmp_path / "recorded", "interval": "1s", "length": 60, "live": "rest"}
    with Collector(config_of(exchange, block_name, **changes)) as collector:
        close_seconds(loaded(collector), 2)
    return tmp_path / "recorded"


def test_the_command_prints_what_was_replayed(recorded: Path, block_name: str) -> None:
    told = run("replay", "--recording", str(recorded))
    assert (told.returncode, told.stderr) == (0, "")
    assert "requests the planner did not ask for: 0" in told.stdout
    assert told.stdout.count("1s") == len(SYMBOLS["SPOT"])
    facts = json.loads(run("replay", "--recording", str(recorded / block_name), "--json").stdout)
    assert facts["is_whole"]
    assert facts["records"]["response"] >= len(SYMBOLS["SPOT"])
    assert {(series["rows"], series["missing"]) for series in facts["series"]} == {(60, 0)}
    assert not list(Path("/dev/shm").glob("recording-*"))


def test_a_recording_that_was_cut_is_replayed_up_to_there(recorded: Path, block_name: str) -> None:
    file = next((recorded / block_name).iterdir())
    whole = file.read_bytes()
    for share in (0.3, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        told = run("replay", "--recording", str(recorded))
        assert told.returncode == 1
        assert f"{file}: cut after " in told.stderr
        assert "the newest without an end" in told.stdout
    file.write_bytes(whole[:30])
    told = run("replay", "--recording", str(recorded))
    assert told.returncode == os.EX_CONFIG
    assert told.stderr.count("\n") == 1
    assert "cannot be replayed" in told.stderr


def test_the_block_stays_for_readers_under_a_name(recorded: Path, block_name: str) -> None:
    name = f"{block_name}-again"
    with started("replay", "--recording", str(recorded), "--name", name) as process:
        feed = candleshm.attach(name, timeout=60.0)
        until(lambda: feed.health.ready)
        assert len(feed["BTCUSDT"].candles()) == 60
        lines_until(process, "until Ctrl-C")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    feed.close()
    assert not list(Path("/dev/shm").glob(f"{name}*"))


def test_a_request_that_the_planner_would_not_send_is_counted(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candleshm.collector.replayed_plans.next_tasks", lambda *_: ())
    with candleshm.replay_recording(recorded) as replayed:
        report = replayed.report
        assert report.unasked == sum(report.requests.values()) > 0
        assert report.strayed == 0
        assert not report.is_whole
        line = r"20[0-9: -]{17}\.[0-9]{3} UTC, tail of [A-Z]+ \([0-9]+ rows\): the planner wants nothing here"
        assert re.fullmatch(line, report.first_unasked or ""), report.first_unasked


def test_what_is_learned_otherwise_shows_at_the_next_request(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = SeriesPlan.learn

    def learn_less(plan: SeriesPlan, *arguments: Any, **more: Any) -> None:
        learn(plan, *arguments, **more)
        if plan.symbol == "ETHUSDT":
            plan.loaded = False

    monkeypatch.setattr(SeriesPlan, "learn", learn_less)
    with candleshm.replay_recording(recorded) as replayed:
        report = replayed.report
        assert 0 < report.strayed < sum(report.requests.values())
        assert not report.is_whole
        assert "plan of ETHUSDT: loaded is False here, and was True" in (report.first_strayed or "")
        # A series that is not loaded waits longer, and its closing candles have no requests of their own.
        assert " of ETHUSDT (" in (report.first_unasked or "")


def test_notes_of_requests_alone_are_checked_on_what_was_known(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"record": tmp_path, "interval": "1s", "length": 60, "live": "rest"}
    with monkeypatch.context() as before:
        before.setattr("candleshm.collector.recording.NOTES", 1)
        with Collector(config_of(exchange, block_name, **changes)) as collector:
            close_seconds(loaded(collector), 2)
    monkeypatch.setattr(SeriesPlan, "learn", lambda *_, **__: None)
    with candleshm.replay_recording(tmp_path) as replayed:
        assert_whole(replayed)


def test_a_disk_that_fails_costs_records_and_no_candle(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes: dict[str, Any] = {"record": tmp_path, "interval": "1s", "length": 60, "live": "rest"}
    directory = tmp_path / block_name
    caplog.set_level(logging.INFO, "candleshm")
    with Collector(config_of(exchange, block_name, **changes)) as collector:
        live = loaded(collector)
        # In its place stands a file, in which nothing can be created.
        shutil.rmtree(directory)
        directory.touch()
        until(lambda: status_of(collector).recording_fails)
        close_seconds(live, 2)
        assert not any(live[symbol].gaps() for symbol in live.symbols)
        until(lambda: "cannot be written" in caplog.text)
        assert caplog.text.count("cannot be written") == 1
        directory.unlink()
        directory.mkdir()
        until(lambda: not status_of(collector).recording_fails)
        until(lambda: "the recording goes on" in caplog.text)
        close_seconds(live, 2)
    assert list(directory.iterdir())
    with candleshm.replay_recording(tmp_path) as replayed:
        # It begins in the middle: plans count from their first requests.
        assert replayed.report.requests
        assert (replayed.report.unasked, replayed.report.strayed) == (0, 0), replayed.report


def test_a_full_disk_is_said_once_and_costs_no_candle(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    # Of a disk that small the first file takes a half.
    words = mounted(str(directory), "size=8k", [*CLI, *serving(exchange, block_name, directory)])
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            live = candleshm.attach(block_name, timeout=60.0)
            said = lines_until(process, "No space left on device")
            close_seconds(live, 2)
            assert not any(live[symbol].gaps() for symbol in live.symbols)
        finally:
            process.terminate()
            said += process.communicate()[1]
    assert process.returncode == 0
    assert said.count("No space left on device") == 1
    assert "candles come as ever" in said


def test_a_recording_that_cannot_begin_is_begun_later(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candleshm.collector.recording.RETRY_SECONDS", 0.1)
    (tmp_path / block_name).touch()
    changes: dict[str, Any] = {"record": tmp_path, "interval": "1s", "length": 60, "live": "rest"}
    with Collector(config_of(exchange, block_name, **changes)) as collector:
        live = loaded(collector)
        assert status_of(collector).recording_fails
        (tmp_path / block_name).unlink()
        until(lambda: not status_of(collector).recording_fails)
        # With checkpoints of all that is there by then.
        close_seconds(live, 3)
    with candleshm.replay_recording(tmp_path) as replayed:
        assert_same(live, replayed.feed)


def test_a_path_without_a_recording_is_a_wrong_argument(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong, reason in (
        (tmp_path / "nowhere", f"the recording cannot be `{tmp_path / 'nowhere'}`: there is no such directory; "),
        (tmp_path / "file", f"the recording cannot be `{tmp_path / 'file'}`: it is no directory; "),
        (tmp_path, f"{tmp_path} holds no recording; "),
    ):
        result = run("replay", "--recording", str(wrong))
        assert result.returncode == os.EX_CONFIG
        assert result.stderr.startswith(f"candleshm: {reason}`candleshm serve --record DIR` ")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(candleshm.ConfigError, match=r"holds no recording; `candleshm serve --record DIR` writes one"):
        candleshm.replay_recording(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.cshmrec").touch()
    with pytest.raises(candleshm.ConfigError, match="holds the recordings of 2 blocks; give one of its: a b"):
        candleshm.replay_recording(tmp_path)


@pytest.mark.parametrize("text", ["2", "900KiB", "two", "-1GiB", "1 PiB", ""])
def test_a_size_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(candleshm.ConfigError, match="record_bytes cannot be"):
        candleshm.CollectorConfig(market="SPOT", record_bytes=text)


def test_sizes_are_read_with_their_units() -> None:
    sizes = {"1MiB": 1 << 20, "2 gib": 2 << 30, "3000000": 3_000_000, "5MB": 5_000_000, "1T": 10**12}
    for text, size in sizes.items():
        assert candleshm.CollectorConfig(market="SPOT", record_bytes=text).record_bytes_max == size
