"""Writer and readers in processes of their own: killed writers, takeover, and reads under fire."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.row_state import RowState
from tests.support.hot_writer import LENGTH, STEP_MS, SYMBOLS
from tests.support.klines import START_MS, torn_rows

ROOT = Path(__file__).parent.parent
HOT_WRITER = "tests.support.hot_writer"
ROUNDS = int(os.environ.get("KILL_ROUNDS", "30"))
READS = 3_000
SNAPSHOTS = 20_000


@contextmanager
def hot_writer(name: str, length: int = LENGTH) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run a hot writer; yield it with what it said at its start: taken over, rows there, milliseconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.hot_writer", name, str(length)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, [int(word) for word in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def check_rows(rows: np.ndarray) -> None:
    """Refuse rows of two writes, of another bar, out of order or twice."""
    assert torn_rows(rows) == 0
    bars = (rows[:, OPEN_TIME_MS] - START_MS) / STEP_MS
    assert (np.diff(bars) >= 1).all()
    assert (np.floor(rows[:, CLOSE]) == bars).all()


def check_reads(feed: candleshm.Feed) -> None:
    """Read every symbol in every way; whatever is handed out must be whole."""
    for symbol in feed:
        series = feed[symbol]
        rows = series.candles()
        check_rows(rows)
        check_rows(series.candles(64, closed_only=True, out=np.empty((64, 12))))
        live = series.live
        check_rows(live.reshape(1, 12))
        view = series.view(64)
        copy = view.array.copy()
        if view.valid():
            check_rows(copy[~np.isnan(copy[:, CLOSE])])
        assert series.last_close >= LENGTH - 1  # the first page ends with it, before the first live row


@contextmanager
def witness(name: str) -> Iterator[None]:
    """Let another process judge every close that is announced, until the end of the block; it must have seen many."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.close_witness", name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert int(said) >= 30


def check_closes(feed: candleshm.Feed) -> None:
    """What was announced for all symbols holds for each. Nobody may be writing."""
    (universe_bar,) = struct.unpack("<Q", (Path("/dev/shm") / feed.name).read_bytes()[448:456])
    if universe_bar:
        closed = feed.wait_closed(universe_bar * STEP_MS, timeout=0)
        assert (set(closed.symbols), closed.missing) == (set(SYMBOLS), ())
    panel = feed.panel("close", 16)
    if len(panel.open_time_ms):
        bars = (panel.open_time_ms - START_MS) / STEP_MS
        assert not np.isnan(panel.array[-1]).any()
        assert ((np.floor(panel.array) == bars[:, None]) | np.isnan(panel.array)).all()


def wait_for_length(feed: candleshm.Feed, length: int) -> None:
    deadline = time.monotonic() + 60
    while feed.length != length:
        assert time.monotonic() < deadline, "the feed did not move over"
        time.sleep(0.005)


def wait_for_rows(feed: candleshm.Feed) -> None:
    deadline = time.monotonic() + 60
    while any(feed[symbol].last_open_time_ms is None for symbol in SYMBOLS):
        assert time.monotonic() < deadline, "the writer wrote nothing"
        time.sleep(0.005)


@pytest.mark.long
def test_killed_writers_leave_whole_rows_and_are_succeeded(block_name: str) -> None:
    chance = random.Random(20260101)
    rows_before = 0
    took_ms = []
    with ExitStack() as attached:
        for round_number in range(ROUNDS):
            with hot_writer(block_name) as (process, (taken_over, rows_there, milliseconds)):
                assert taken_over == (round_number > 0)
                took_ms.append(milliseconds)
                # The successor finds what the reader saw; a killed rewrite costs its stretch, an outage its bars.
                assert rows_there >= rows_before - 60
                if round_number == 0:
                    feed = attached.enter_context(candleshm.attach(block_name))
                    attached.enter_context(witness(block_name))
                wait_for_rows(feed)
                deadline = time.monotonic() + chance.uniform(0.01, 0.12)
                while time.monotonic() < deadline:
                    check_reads(feed)
                if round_number % 2:
                    # Stopped somewhere, and killed while it is.
                    process.send_signal(signal.SIGSTOP)
                    check_reads(feed)
                process.send_signal(signal.SIGKILL)
                process.wait(30)
                # Nobody writes now. Every call returns, with whole rows, through the feed attached all along.
                check_reads(feed)
                check_closes(feed)
                newest_ms = feed[SYMBOLS[0]].last_open_time_ms
                assert feed.health.state == "ready"
                rows_before = len(feed[SYMBOLS[0]].candles(LENGTH - 1, closed_only=True))
            assert newest_ms == feed[SYMBOLS[0]].last_open_time_ms
        _core.Writer.open(block_name, market="SPOT", interval="1s", length=LENGTH, symbols=SYMBOLS).close()
    assert not (Path("/dev/shm") / block_name).exists()
    took_ms.sort()
    print(f"takeover: median {took_ms[ROUNDS // 2]} ms, longest {took_ms[-1]} ms in {ROUNDS} rounds")


def test_announced_closes_are_true_across_larger_and_smaller_blocks(block_name: str) -> None:
    with ExitStack() as attached:
        for round_number in range(6):
            length = LENGTH + round_number % 2 * 64
            with hot_writer(block_name, length) as (process, (taken_over, _, _)):
                assert not taken_over
                if round_number == 0:
                    feed = attached.enter_context(candleshm.attach(block_name))
                    attached.enter_context(witness(block_name))
                wait_for_length(feed, length)
                wait_for_rows(feed)
                check_reads(feed)
                time.sleep(0.2)
                process.send_signal(signal.SIGKILL)
                process.wait(30)
                check_reads(feed)
                check_closes(feed)
        _core.Writer.open(block_name, market="SPOT", interval="1s", length=length, symbols=SYMBOLS).close()


def test_stopped_writer_blocks_nobody_and_its_age_grows(block_name: str) -> None:
    with hot_writer(block_name) as (process, _), candleshm.attach(block_name) as feed:
        wait_for_rows(feed)
        for _ in range(10):
            process.send_signal(signal.SIGSTOP)
            age = feed[SYMBOLS[0]].age
            check_reads(feed)
            deadline = time.monotonic() + 10
            while feed[SYMBOLS[0]].age <= age and time.monotonic() < deadline:
                time.sleep(0.001)
            assert feed[SYMBOLS[0]].age > age
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)


def test_child_of_a_dead_writer_does_not_keep_its_block(block_name: str) -> None:
    code = f"""
import os, time
from candleshm import _core
writer = _core.Writer.open({block_name!r}, market="SPOT", interval="1m", length=16, symbols=["BTCUSDT"])
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(candleshm.BlockInUse):
            candleshm.unlink(block_name)
        process.kill()
        process.wait(30)
        os.kill(child, 0)  # alive
        candleshm.unlink(block_name)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_second_collector_is_refused_while_the_first_lives(block_name: str) -> None:
    with hot_writer(block_name) as (process, _):
        with pytest.raises(candleshm.BlockInUse) as caught:
            candleshm.unlink(block_name)
        assert caught.value.pid == process.pid
        second = subprocess.run(
            [sys.executable, "-m", HOT_WRITER, block_name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"process {process.pid}" in second.stderr
        assert second.returncode != 0


def test_reads_under_fire_are_whole_while_unguarded_ones_tear(block_name: str) -> None:
    """The control reads the same memory at the same time without `valid()`: unless it tears, this proves nothing."""
    torn = checked = invalid = 0
    with hot_writer(block_name), candleshm.attach(block_name) as feed:
        wait_for_rows(feed)
        deadline = time.monotonic() + 60
        while checked < READS or (not (torn and invalid) and time.monotonic() < deadline):
            check_reads(feed)
            series = feed[SYMBOLS[checked % len(SYMBOLS)]]
            view = series.view(64)
            # Column after column with a pause between, as a strategy computes.
            columns = [view.array[:, column].copy() for column in range(12)]
            copy = np.stack(columns, axis=1)
            present = ~np.isnan(copy).any(axis=1)
            if view.valid():
                check_rows(copy[~np.isnan(copy[:, CLOSE])])
            else:
                invalid += 1
                torn += torn_rows(copy[present])
            checked += 1
    assert invalid > 0
    assert torn > 0, f"no torn row in {invalid} windows that were said to be invalid"


def test_states_of_a_snapshot_are_those_of_its_rows_under_fire(block_name: str) -> None:
    """The control calls `candles` and then `states`: unless their rows and states differ, this proves nothing."""
    control = 0
    with hot_writer(block_name), candleshm.attach(block_name) as feed:
        wait_for_rows(feed)
        deadline = time.monotonic() + 60
        done = 0
        while done < SNAPSHOTS or (not control and time.monotonic() < deadline):
            series = feed[SYMBOLS[done % len(SYMBOLS)]]
            rows, states = series.snapshot(8, holes="nan")
            assert mismatches(rows, states) == 0
            rows, states = series.snapshot(8)
            assert mismatches(rows, states) == 0
            assert not np.isin(states, (RowState.HOLE, RowState.MISSING)).any()
            rows, states = series.candles(8, holes="nan"), series.states(8, holes="nan")
            control += len(rows) != len(states) or mismatches(rows, states)
            done += 1
    assert control > 0


def mismatches(rows: np.ndarray, states: np.ndarray) -> int:
    """Return how many states are not those of their rows; of a hot writer's row the value tells whether it is final."""
    assert len(rows) == len(states)
    above = rows[:, CLOSE] - (rows[:, OPEN_TIME_MS] - START_MS) / STEP_MS
    expected = np.where(np.isnan(above), RowState.MISSING, np.where(above < 1 / 16, RowState.CLOSED, RowState.LIVE))
    return int(np.count_nonzero(expected != states))
