"""Damaged blocks through the Python API: in a process of its own, so that a crash is seen as one."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from tests.support.commanding import run
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

ROOT = Path(__file__).parent.parent
SHM = Path("/dev/shm")
LONG = [("header", 100_000), ("body", 10_000)]


@pytest.mark.parametrize(
    ("what", "count"),
    [("header", 10_000), ("body", 2_000), *(pytest.param(*long, marks=pytest.mark.long) for long in LONG)],
)
def test_whatever_stands_in_a_block_is_an_error_or_harmless(block_name: str, what: str, count: int) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "tests.support.damaged_blocks", block_name, what, str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    # Neither kind of header is rare; behind a whole one every block can be attached to.
    attached = int(asked.stdout)
    assert count // 20 < attached < count if what == "header" else attached == count


def test_a_block_that_an_outsider_cuts_short_ends_who_touches_it_and_is_refused_from_then_on(block_name: str) -> None:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=1000, symbols=["BTCUSDT"])
    ingest(writer, "BTCUSDT", kline(START_MS, 100), sent_ms=START_MS + MINUTE_MS)
    reader = subprocess.Popen(
        [sys.executable, "-c", _READ, block_name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.stdout.readline() == "attached\n"
    with candleshm.attach(block_name) as feed:
        os.truncate(SHM / block_name, 8192)
        # What lies in front of the cut is still there, and asked for by name.
        assert feed["BTCUSDT"].last_close == 100
    reader.communicate("read\n", timeout=60)
    assert reader.returncode == -signal.SIGBUS
    with pytest.raises(candleshm.BlockCorrupt, match=r"its size contradicts its header: `8192` bytes"):
        candleshm.attach(block_name)
    with pytest.raises(candleshm.BlockInUse):
        candleshm.unlink(block_name)
    writer.close(unlink=False)
    with pytest.raises(candleshm.BlockCorrupt, match="candleshm rm"):
        _core.Writer.open(block_name, market="SPOT", interval="1m", length=1000, symbols=["BTCUSDT"])
    assert run("rm", block_name).returncode == 0
    assert not (SHM / block_name).exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 8192])
def test_a_foreign_file_is_refused_without_advice_that_would_be_refused(block_name: str, content: bytes) -> None:
    (SHM / block_name).write_bytes(content)
    for use in (candleshm.attach, candleshm.unlink):
        with pytest.raises(candleshm.BlockCorrupt) as refused:
            use(block_name)
        remedy = f"if no program needs it, remove /dev/shm/{block_name}"
        assert refused.value.reason == f"it is not a candleshm block; {remedy}"
    assert run("rm", block_name).returncode == 1


_READ = """
import sys, candleshm
feed = candleshm.attach(sys.argv[1])
print("attached", flush=True)
sys.stdin.readline()
feed["BTCUSDT"].candles()
"""


def test_a_time_from_the_future_vouches_for_nothing(block_name: str) -> None:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=16, symbols=["BTCUSDT"])
    ingest(writer, "BTCUSDT", kline(START_MS, 100), sent_ms=START_MS + MINUTE_MS)
    feed = candleshm.attach(block_name, max_age=60)
    assert feed["BTCUSDT"].candles().shape == (1, 12)
    with (SHM / block_name).open("r+b") as file:
        for latch in range(4):
            file.seek(4096 + 64 + 128 * latch + 24)
            file.write((2**63).to_bytes(8, "little"))
        file.seek(208)
        file.write((2**63).to_bytes(8, "little"))
    with pytest.raises(candleshm.StaleData):
        feed["BTCUSDT"].candles()
    assert feed["BTCUSDT"].age == feed.health.heartbeat_age == math.inf
    with pytest.raises(candleshm.StaleData):
        feed.wait_closed(timeout=30)
    feed.close()
    writer.close()


def test_a_block_named_by_the_number_of_a_living_process_can_be_removed_and_taken_over(block_name: str) -> None:
    code = (
        "import os, sys\n"
        "from candleshm._core import Writer\n"
        "Writer.open(sys.argv[1], market='SPOT', interval='1m', length=16, symbols=['BTCUSDT'])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, block_name], check=False)
    with (SHM / block_name).open("r+b") as file:
        # The dead collector's number went to this process.
        file.seek(192)
        file.write(os.getpid().to_bytes(8, "little"))
    assert candleshm.attach(block_name).health.pid == os.getpid()
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=16, symbols=["BTCUSDT"])
    assert writer.taken_over
    writer.close(unlink=False)
    assert run("rm", block_name).stdout == f"removed {block_name}\n"
