"""`candleshm replay`, and readers in other processes: in lockstep a run is the same whatever the machine does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm._core import Zone
from tests.support.commanding import DEADLINE_SECONDS, complaint, first_lines, run, started
from tests.support.histories import MISSING, SYMBOLS, History, stored_history

SHM = Path("/dev/shm")
DAYS = ("2026-03-07", "2026-03-08")
CLOSES = 2 * 288
COMPLETE = [symbol for symbol in SYMBOLS if symbol != MISSING]
SPAN = ["--market", "spot", "--interval", "5m", "--start", DAYS[0], "--end", DAYS[1]]


@pytest.fixture(scope="module")
def candle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("candles")


@pytest.fixture(scope="module", autouse=True)
def history(candle_dir: Path) -> History:
    """Two days of 5m of five symbols, in `candle_dir`."""
    return stored_history(candle_dir, "5m", *DAYS, "UTC", np.random.default_rng(8))


def reader(
    name: str, way: str = "closes", seed: int = 1, *, sleeps: bool = False, **environment: str
) -> subprocess.Popen[str]:
    """Start a reader; see `tests.support.replay_reader`."""
    words = [sys.executable, "-m", "tests.support.replay_reader", name, way, "sleeps" if sleeps else "", str(seed)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def read_by(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the end of a reader; return its waits, its digest and how the replay ended."""
    shown, complaint = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, complaint) == (0, "")
    return shown.splitlines()[-1].split()


@pytest.fixture
def replaying(candle_dir: Path, block_name: str) -> Iterator[list[str]]:
    """The words of a command that replays `block_name`."""
    yield ["replay", "--candle-dir", str(candle_dir), *SPAN, "--name", block_name, "--symbols", ",".join(COMPLETE)]
    assert list(SHM.glob(f"*{block_name}*")) == []


def test_a_reader_in_another_process_gets_every_moment_and_the_command_says_what_it_did(
    replaying: list[str], block_name: str
) -> None:
    with started(*replaying, "--derive", "1h") as process:
        assert first_lines(process, 2) == [
            f'replaying {block_name}: candleshm.attach("{block_name}")\n',
            f'replaying {block_name}-1h: candleshm.attach("{block_name}-1h")\n',
        ]
        # Those who look do not hold it up, and do not let it go on.
        assert json.loads(run("ls", "--json").stdout)
        assert run("top", block_name, "--once").returncode == 0
        assert run("check", block_name).returncode in (0, 1)
        with candleshm.attach(block_name) as feed:
            assert feed.exchange_ms() == candleshm.history.Day.parse(DAYS[0], Zone("UTC")).start_ms
        waits, _, how = read_by(reader(block_name, "step"))
        assert process.wait(DEADLINE_SECONDS) == 0
        assert (int(waits), how) == (CLOSES, "complete")
        assert process.stderr is not None
        told = process.stderr.read()
        assert told.startswith("replayed 2026-03-07 00:00:00 to 2026-03-09 00:00:00 UTC: 4 symbols, 576 closes in ")


@pytest.mark.parametrize("way", ["closes", "async", "step"])
def test_two_runs_read_the_same_bytes_at_every_moment(replaying: list[str], block_name: str, way: str) -> None:
    read = []
    for sleeps, hash_seed in ((False, "0"), (True, "1"), (False, "2")):
        with started(*replaying) as process:
            first_lines(process, 1)
            # Something else keeps the machine busy in the last of them.
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if hash_seed == "2" else None
            read.append(read_by(reader(block_name, way, sleeps=sleeps, PYTHONHASHSEED=hash_seed)))
            if busy is not None:
                busy.kill()
                busy.wait()
            assert process.wait(DEADLINE_SECONDS) == 0
    assert read[0] == read[1] == read[2]
    assert read[0][2] == "complete"
    assert int(read[0][0]) >= CLOSES - 1


def test_several_readers_see_the_same_moments(replaying: list[str], block_name: str) -> None:
    with started(*replaying, "--consumers", "3") as process:
        first_lines(process, 1)
        readers = [reader(block_name, "step", sleeps=number == 1) for number in range(3)]
        read = [read_by(each) for each in readers]
        assert process.wait(DEADLINE_SECONDS) == 0
    assert read[0] == read[1] == read[2]
    assert read[0][::2] == [str(CLOSES), "complete"]


def test_the_bytes_are_those_of_a_replay_in_one_process(
    replaying: list[str], candle_dir: Path, block_name: str
) -> None:
    from tests.support.replay_reader import Reading, waits

    with started(*replaying) as process:
        first_lines(process, 1)
        elsewhere = read_by(reader(block_name, "step", seed=5))
        assert process.wait(DEADLINE_SECONDS) == 0
    with candleshm.replay(candle_dir, "SPOT", COMPLETE, "5m", *DAYS) as replay:
        reading = Reading(replay.feed, 5, sleeps=False)
        all_waits = waits(replay.feed, "step")
        for _ in range(CLOSES):
            reading.take(next(all_waits))
        with pytest.raises(candleshm.ReplayEnded, match="has ended") as end:
            next(all_waits)
        assert (end.value.name, end.value.now_ms, end.value.is_complete) == (replay.name, replay.end_ms, True)
        assert str(reading).split() == elsewhere[:2]
        # What is there stays readable.
        assert replay.feed["FULLUSDT"].last_open_time_ms == replay.end_ms - 300_000


def test_without_readers_it_goes_through_and_prints_an_object(replaying: list[str], block_name: str) -> None:
    done = run(*replaying, "--symbols", ",".join(SYMBOLS), "--absent", "accept", "--consumers", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {name: told[name] for name in ("name", "complete", "closes", "left_out")} == {
        "name": block_name,
        "complete": True,
        "closes": CLOSES,
        "left_out": [],
    }
    assert sorted(told["symbols"]) == sorted(SYMBOLS)
    assert told["missing"] > 0
    assert told["now_ms"] == told["end_ms"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_readers_learn_of_it(
    replaying: list[str], block_name: str, number: signal.Signals
) -> None:
    with started(*replaying, "--consumers", "2") as process:
        first_lines(process, 1)
        waiting = reader(block_name)  # for a second one, in vain
        with candleshm.attach(block_name) as feed:
            assert feed.health.state == "replay"
        first_lines(waiting, 1)
        time.sleep(0.5)  # Most of the time the reader waits by then; else it finds a block that is closed.
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stderr is not None
        assert "stopped at 2026-03-07 00:00:00 of 2026-03-09 00:00:00 UTC\n" in process.stderr.read()
        waits, _, how = read_by(waiting)
        assert waits == "0"
        assert how in ("stopped", "complete")


SWALLOWING = """
import os, signal, sys

class Swallowing:
    def find_spec(self, name, path=None, target=None):
        if name == "pyarrow":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):
                    pass
            except KeyboardInterrupt:
                print("swallowed", file=sys.stderr)

sys.meta_path.insert(0, Swallowing())
"""


def test_a_signal_that_an_import_swallows_ends_it_all_the_same(replaying: list[str], tmp_path: Path) -> None:
    # As some extension modules do while they begin, for a moment that no test can hit.
    (tmp_path / "sitecustomize.py").write_text(SWALLOWING)
    for consumers in ("0", "1"):
        done = run(*replaying, "--consumers", consumers, env={**os.environ, "PYTHONPATH": str(tmp_path)})
        assert done.returncode == 0
        assert done.stderr.startswith("swallowed\nstopped at 2026-03-07 00:00:00 of 2026-03-09 00:00:00 UTC\n")


def test_on_the_clock_nobody_is_waited_for(replaying: list[str], block_name: str) -> None:
    words = [word.replace(DAYS[1], f"{DAYS[0]}T04:00") for word in replaying]
    with started(*words, "--speed", "7200") as process:
        first_lines(process, 1)
        waits, _, how = read_by(reader(block_name, "closes"))
        assert process.wait(DEADLINE_SECONDS) == 0
    assert how == "complete"
    assert 40 <= int(waits) <= 48


def test_what_cannot_be_replayed_is_one_line(candle_dir: Path, block_name: str) -> None:
    words = ["replay", "--candle-dir", str(candle_dir), "--market", "spot", "--interval", "5m", "--start", DAYS[0]]
    assert "end is missing" in complaint(*words)
    line = complaint(*words, "--end", "2026-03-12", "--symbols", "FULLUSDT")
    assert "FULLUSDT may have traded then; `candleshm download --market spot --symbols FULLUSDT --interval 5m" in line
    done = run(*words, "--end", DAYS[1], "--symbols", MISSING, "--consumers", "0", "--name", block_name)
    assert done.returncode == 1
    assert done.stderr.startswith("candleshm: ")
    assert "downloading the day again completes it" in done.stderr.splitlines()[-1]
    assert "inside cannot be `often`" in complaint(*words, "--end", DAYS[1], "--inside", "often")


def test_a_reader_of_a_derived_block_waits_beside_one_of_the_base_block(replaying: list[str], block_name: str) -> None:
    with started(*replaying, "--derive", "1h", "--consumers", "2") as process:
        first_lines(process, 2)
        base, hours = reader(block_name), reader(f"{block_name}-1h")
        read = [read_by(base), read_by(hours)]
        assert process.wait(DEADLINE_SECONDS) == 0
    assert [int(waits) for waits, _, _ in read] == [CLOSES, CLOSES // 12]
    assert {how for _, _, how in read} == {"complete"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--length", "0"), "length cannot be `0`"),
        (("--length", "1"), "length cannot be `1`"),
        (("--warm", "-1"), "warm cannot be `-1`; allowed: a whole number, 0 to"),
        (("--consumers", "65"), "consumers cannot be `65`; allowed: a whole number, 0 to 64"),
        (("--consumers", "-1"), "consumers cannot be `-1`; allowed: a whole number, 0 to 64"),
        (("--speed", "0"), "speed cannot be `0.0`; allowed: max, or a number above 0 such as 60"),
        (("--speed", "fast"), "speed cannot be `fast`; allowed: max"),
        (("--candle-dir", ""), "candle_dir is empty"),
        (("--candle-dir", "/nowhere"), "there is no such directory"),
    ],
)
def test_a_value_that_is_not_allowed_is_a_configuration_that_cannot_be_used(
    replaying: list[str], words: tuple[str, str], says: str
) -> None:
    done = run(*replaying, *words)
    assert done.returncode == os.EX_CONFIG
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_epoch_ms_and_no_rows_before_them_are_taken(replaying: list[str]) -> None:
    start_ms = candleshm.history.Day.parse(DAYS[0], Zone("UTC")).start_ms
    moments = ["--start", str(start_ms + 300_000), "--end", str(start_ms + 1_500_000)]
    done = run(*replaying, *moments, "--warm", "0", "--consumers", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["start_ms"], told["closes"]) == (start_ms + 300_000, 4)
