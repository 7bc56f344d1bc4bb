"""The demo as a whole: it shows true numbers, says how to attach, ends when it should and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm.commands.demo import SYMBOLS

SHM = Path("/dev/shm")
DEADLINE_SECONDS = 60.0


@contextmanager
def demo(name: str, seconds: float, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "candleshm", "demo", "--seconds", str(seconds), "--name", name]
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        for pid in processes_of(name):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def processes_of(name: str) -> dict[int, str]:
    """Return the processes whose command names one of the demo's blocks, by pid: collectors, gateway, strategy."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_text().split("\0") if folder.name.isdigit() else []
        except (OSError, UnicodeDecodeError):
            continue  # It has ended.
        if any(word.startswith(f"{name}-1") for word in words):
            found[int(folder.name)] = " ".join(words)
    return found


def until(question: Callable[[], object]) -> None:
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not question():
        assert time.monotonic() < deadline_seconds, "did not come true"
        time.sleep(0.02)


def assert_nothing_is_left(name: str) -> None:
    assert processes_of(name) == {}
    assert list(SHM.glob(f"{name}*")) == []


def test_demo_shows_every_symbol_of_both_intervals_and_ends_by_itself(block_name: str) -> None:
    with demo(block_name, 5) as process:
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    shown = stdout.decode()

    assert (process.returncode, stderr) == (0, b"")
    assert f"read {block_name}-1m BTCUSDT" in shown
    assert "docs/tutorials/first-candles.md" in shown.splitlines()[-1]
    assert "\x1b" not in shown
    snapshots = shown.split("SYMBOL ")[1:]
    assert len(snapshots) >= 2
    for snapshot in snapshots:
        assert f'candleshm.attach("{block_name}-1s"): SPOT 1s' in snapshot
        lines = [line.split() for line in snapshot.splitlines() if "USDT" in line]
        assert [line[0] for line in lines] == [*SYMBOLS, *SYMBOLS]
        assert all(re.fullmatch(r"[\d,]+\.\d+", line[1]) for line in lines)
        assert all(re.fullmatch(r"[+-]\d+\.\d{3}%", line[-5]) for line in lines)
        assert all(int(line[-4].replace(",", "")) > 2800 for line in lines)
        assert {line[-1] for line in lines} == {"live"}
    assert_nothing_is_left(block_name)


def test_demo_can_be_attached_to_while_it_runs(block_name: str) -> None:
    with demo(block_name, 60) as process:
        until(lambda: len(processes_of(block_name)) == 4)
        assert process.stdout is not None
        [url] = re.findall(rb"http://127.0.0.1:[0-9]+", process.stdout.readline())
        page = requests.get(url.decode(), timeout=10)
        assert (page.status_code, "candleshm" in page.text) == (200, True)
        names = {block.name for block in candleshm.blocks()}
        assert {f"{block_name}-1s", f"{block_name}-1m"} <= names
        with candleshm.attach(f"{block_name}-1s", max_age=30.0) as feed:
            opened_ms = feed["BTCUSDT"].wait(timeout=30.0)
            assert feed["BTCUSDT"].candles(2)[-1, candleshm.OPEN_TIME_MS] >= opened_ms
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    assert_nothing_is_left(block_name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_everything(number: signal.Signals, block_name: str) -> None:
    with demo(block_name, 60) as process:
        until(lambda: len(processes_of(block_name)) >= 2)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)

    assert (process.returncode, stderr) == (0, b"")
    assert_nothing_is_left(block_name)


@pytest.mark.long
@pytest.mark.parametrize(
    ("which", "label"),
    [("serve --market spot.*-1s", "the collector of `{}-1s`"), ("candleshm.commands.strategy", "the strategy")],
    ids=["collector", "strategy"],
)
def test_a_process_that_dies_ends_the_demo_and_is_named(which: str, label: str, block_name: str) -> None:
    with demo(block_name, 60) as process:
        until(lambda: len(processes_of(block_name)) == 4)
        (victim,) = (pid for pid, words in processes_of(block_name).items() if re.search(which, words))
        os.kill(victim, signal.SIGKILL)
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 1
    assert stderr.decode() == f"candleshm: {label.format(block_name)} ended early, killed by SIGKILL\n"
    assert_nothing_is_left(block_name)


@pytest.mark.long
def test_a_demo_that_is_killed_takes_its_processes_with_it(block_name: str) -> None:
    with demo(block_name, 60) as process:
        until(lambda: len(processes_of(block_name)) == 4)
        process.kill()
        process.wait(DEADLINE_SECONDS)
        until(lambda: not processes_of(block_name))
    assert_nothing_is_left(block_name)


@pytest.mark.long
def test_a_second_demo_of_the_same_name_leaves_the_first_alone(block_name: str) -> None:
    with demo(block_name, 60) as first:
        until(lambda: len(processes_of(block_name)) == 4)
        with demo(block_name, 60) as second:
            _, stderr = second.communicate(timeout=DEADLINE_SECONDS)
            assert second.returncode == 1
            assert re.fullmatch(r"candleshm: the collector of .* already serves it; .*\n", stderr.decode())
            assert candleshm.attach(f"{block_name}-1s").health.state == "ready"
            assert first.poll() is None


@pytest.mark.long
def test_demo_redraws_in_place_on_a_terminal_and_gives_the_cursor_back(block_name: str) -> None:
    ours, theirs = pty.openpty()
    with demo(block_name, 60, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"\x1b[20F") < 5:  # back to the first line: three heads, two times eight symbols, the foot
            assert select.select([ours], [], [], DEADLINE_SECONDS)[0], shown
            shown += os.read(ours, 65536)
        (victim,) = (pid for pid, words in processes_of(block_name).items() if "candleshm.commands.strategy" in words)
        os.kill(victim, signal.SIGKILL)
        assert process.wait(DEADLINE_SECONDS) == 1
        while select.select([ours], [], [], 0)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break  # Linux says that nobody holds the other end any more.
    os.close(ours)

    assert b"\x1b[?25l" in shown
    assert shown.rstrip().endswith(b"\x1b[?25h\x1b[?7h")
