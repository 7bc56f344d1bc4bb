"""What is short: shared memory, disks, descriptors, memory, threads, somebody to read the output.

Each time either a clear error with nothing left behind, or a service that says once what it goes without.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
import resource
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import candleshm
from candleshm import _core
from candleshm.collector.collector import Collector
from candleshm.commands.metrics import MetricsServer
from candleshm.sim import Fault, SimulatedExchange
from candleshm.system.console import Console
from candleshm.system.log_lines import TextFormatter
from tests.long.soak import soak
from tests.support.collecting import assert_complete_and_true, collecting, config_of, status_of, until
from tests.support.commanding import CLI, DEADLINE_SECONDS, serving
from tests.support.confined import finished, forked, limited, mounted, script, with_small_shm
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

SHM = Path("/dev/shm")
LEAK_CALLS = 15_000
LOW_UID = 61_234
"""A user who has no process, so that a limit on threads counts ours only."""


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        yield exchange


def block(name: str, **changes: Any) -> _core.Writer:
    settings: dict[str, Any] = {"market": "SPOT", "interval": "1m", "length": 100, "symbols": ["BTCUSDT"]}
    return _core.Writer.open(name, **(settings | changes))


@contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    """Lower a limit of this very process for a moment."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


# Shared memory.


def test_serve_says_that_dev_shm_is_too_small_and_leaves_nothing(exchange: SimulatedExchange, block_name: str) -> None:
    command = [*CLI, *serving(exchange, block_name, "--length", "100000")]
    shell = ["sh", "-c", '"$@"; echo "exit $?"; ls -A /dev/shm', "sh", *command]
    done = subprocess.run(with_small_shm(512, *shell), capture_output=True, text=True, timeout=100, check=False)

    assert done.stdout == f"exit {os.EX_TEMPFAIL}\n"
    assert re.fullmatch(
        rf"candleshm: block `{block_name}`: it needs \d+ MiB of shared memory, and /dev/shm has 0 MiB free of 0 MiB; "
        r"enlarge it \(docker: --shm-size\), or serve fewer symbols or a smaller length\n",
        done.stderr,
    )


def test_the_sum_of_all_blocks_is_compared_before_the_first_is_made(
    exchange: SimulatedExchange, block_name: str
) -> None:
    """Each block alone would have room."""
    derive = ["--derive", "5m,15m,1h", "--spare-symbols", "0"]
    command = [*CLI, *serving(exchange, block_name, "--length", "8000", *derive)]
    shell = ["sh", "-c", '"$@"; echo "exit $?"; ls -A /dev/shm', "sh", *command]
    done = subprocess.run(with_small_shm(8 << 10, *shell), capture_output=True, text=True, timeout=100, check=False)

    assert done.stdout == f"exit {os.EX_TEMPFAIL}\n"
    found = re.search(r"it and 3 derived blocks need (\d+) MiB of shared memory, and /dev/shm has 8 MiB", done.stderr)
    assert found is not None
    assert "or give derived intervals a length of their own (1d:400)" in done.stderr
    lengths = [8000] * 4
    assert int(found[1]) == -(-sum(_core.block_bytes(length, 2) for length in lengths) // (1 << 20))
    assert max(_core.block_bytes(length, 2) for length in lengths) < 8 << 20


def test_a_block_that_is_taken_over_needs_no_memory_again(exchange: SimulatedExchange, block_name: str) -> None:
    """Two starts in a /dev/shm that has room for one block only; the first is killed."""
    first = shlex.join([*CLI, *serving(exchange, block_name, "--length", "5000", "--spare-symbols", "0")])
    killed = f"{first} >/tmp/$$ & pid=$!; until grep -q attach /tmp/$$; do sleep 0.1; done; kill -9 $pid; rm /tmp/$$"
    ended = f"timeout --signal TERM --preserve-status 5 {first}"
    shell = ["sh", "-c", f"{killed}; {ended}; echo exit $?"]
    done = subprocess.run(with_small_shm(4 << 10, *shell), capture_output=True, text=True, timeout=100, check=False)

    assert done.stdout.endswith("exit 0\n")
    assert "block taken over" in done.stderr


def test_serve_says_that_dev_shm_is_read_only(exchange: SimulatedExchange, block_name: str) -> None:
    command = [*CLI, *serving(exchange, block_name)]
    done = subprocess.run(mounted("/dev/shm", "ro", command), capture_output=True, text=True, timeout=100, check=False)

    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("\n") == 1


_ENLARGE = """
import os, sys
from tests.support.collecting import assert_complete_and_true, close_seconds, collecting, status_of, until
from candleshm.sim import SimulatedExchange
import logging, io
said = io.StringIO()
logging.getLogger("candleshm").addHandler(logging.StreamHandler(said))
with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6) as exchange:
    with collecting(exchange, "full", interval="1s", symbols=["BTCUSDT"], spare_symbols=1) as (collector, feed):
        room = os.statvfs("/dev/shm")
        with open("/dev/shm/filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, (room.f_bavail - 1) * room.f_frsize)
        collector.add_symbols(["ETHUSDT", "SUSHIBTC"])
        until(lambda: "left out, because the block is full: SUSHIBTC" in said.getvalue())
        until(lambda: "ETHUSDT" in feed and status_of(collector).ready and feed["ETHUSDT"].last_open_time_ms)
        close_seconds(feed, 2)
        assert feed.symbols == ("BTCUSDT", "ETHUSDT")
        assert_complete_and_true(exchange, feed)
        assert sorted(os.listdir("/dev/shm")) == ["filler", "full"]

        os.unlink("/dev/shm/filler")
        collector.add_symbols(["SUSHIBTC"])
        until(lambda: len(feed) == 3 and feed.health.ready and feed.health.missing == 0)
        close_seconds(feed, 2)
        assert_complete_and_true(exchange, feed)
assert os.listdir("/dev/shm") == []
"""


def test_a_full_block_without_room_for_a_larger_one_goes_on_until_there_is_room() -> None:
    finished(with_small_shm(512, *script(_ENLARGE)))


def test_a_block_that_cannot_be_enlarged_is_as_it_was(block_name: str) -> None:
    writer = block(block_name)
    feed = candleshm.attach(block_name)
    with limit(resource.RLIMIT_FSIZE, 1 << 20), pytest.raises(candleshm.BlockUnavailable):
        writer.enlarge(["BTCUSDT"] * 2000)
    assert (feed.health.state, writer.symbol_capacity, writer.symbols) == ("ready", 1, ("BTCUSDT",))

    writer.enlarge(["BTCUSDT", "ETHUSDT"], 3)
    assert (writer.symbol_capacity, feed.symbols, feed.health.state) == (5, ("BTCUSDT", "ETHUSDT"), "ready")
    writer.close()
    assert not list(SHM.glob(f"*{block_name}*"))


def test_a_limit_on_file_sizes_is_an_error_and_leaves_nothing(block_name: str) -> None:
    with (
        limit(resource.RLIMIT_FSIZE, 4096),
        pytest.raises(candleshm.BlockUnavailable, match="File too large") as caught,
    ):
        block(block_name)
    assert caught.value.errno == errno.EFBIG
    assert not list(SHM.glob(f"*{block_name}*"))


# Descriptors, memory, threads.


def test_without_descriptors_attaching_is_an_error_and_who_is_attached_goes_on(block_name: str) -> None:
    writer = block(block_name)
    with candleshm.attach(block_name) as feed:
        with limit(resource.RLIMIT_NOFILE, 0):
            with pytest.raises(candleshm.BlockUnavailable, match="Too many open files") as caught:
                candleshm.attach(block_name)
            with pytest.raises(candleshm.BlockUnavailable, match="Too many open files"):
                block(f"{block_name}-2")
            writer.heartbeat()
            assert feed.health.heartbeat_age < 30
            assert len(feed["BTCUSDT"].candles()) == 0
        assert caught.value.errno == errno.EMFILE
        candleshm.attach(block_name).close()
    writer.close()


def test_without_address_space_attaching_is_an_error_and_who_is_attached_goes_on(block_name: str) -> None:
    writer = block(block_name, length=100_000, symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"])
    feed = candleshm.attach(block_name)

    def attach_in_vain() -> None:
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        with limit(resource.RLIMIT_AS, used_bytes + (4 << 20)):
            with pytest.raises(candleshm.BlockUnavailable, match="Cannot allocate memory") as caught:
                candleshm.attach(block_name)
            assert caught.value.errno == errno.ENOMEM
            assert feed.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
        candleshm.attach(block_name).close()

    assert forked(attach_in_vain) == 0
    writer.close()


def test_more_workers_than_descriptors_still_load_everything(exchange: SimulatedExchange, block_name: str) -> None:
    command = limited("-n", 24, *CLI, *serving(exchange, block_name, "--workers", "64"))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        feed = once_attached(block_name)
        until(lambda: feed.health.ready and feed.health.missing == 0)
        assert_complete_and_true(exchange, feed)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert not (SHM / block_name).exists()


def once_attached(name: str) -> candleshm.Feed:
    """Attach to a block that comes up."""

    def attached() -> candleshm.Feed | None:
        try:
            return candleshm.attach(name)
        except candleshm.BlockNotFound:
            return None

    feed = until(attached)
    assert feed is not None
    return feed


def test_fewer_threads_than_workers_do_the_work(exchange: SimulatedExchange, block_name: str) -> None:
    def serve() -> None:
        said: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("candleshm").addHandler(handler)
        threads = len(os.listdir("/proc/self/task"))
        # The loop, the writer of reports, and two workers.
        resource.setrlimit(resource.RLIMIT_NPROC, (threads + 4, threads + 4))
        with collecting(exchange, block_name, workers=8) as (collector, feed):
            assert_complete_and_true(exchange, feed)
            assert status_of(collector).ready
        assert [line for line in said if "only 2 of 8 worker threads can be started" in line]

    assert forked(serve, uid=LOW_UID) == 0
    assert not (SHM / block_name).exists()


@pytest.mark.parametrize(
    ("spare", "words"), [(0, "no thread can be started that serves"), (1, "cannot start a worker thread")]
)
def test_without_threads_a_start_fails_and_leaves_nothing(
    exchange: SimulatedExchange, block_name: str, spare: int, words: str
) -> None:
    def serve() -> None:
        threads = len(os.listdir("/proc/self/task"))
        resource.setrlimit(resource.RLIMIT_NPROC, (threads + spare, threads + spare))
        collector = Collector(config_of(exchange, block_name))
        with pytest.raises(candleshm.CandleShmError, match=words):
            collector.run()
        collector.stop()

    assert forked(serve, uid=LOW_UID) == 0
    assert not (SHM / block_name).exists()


# Logs and output.

_LOG = """
import logging, os, sys
from pathlib import Path
from candleshm._core import Zone
from candleshm.compat.log_files import RuleLog
directory = Path(sys.argv[1])
log = RuleLog(directory / "logs", Zone("UTC"), file_level="INFO", console_level="INFO")
log.open()
log.to_files()
logger = logging.getLogger("candleshm")
logger.info("first")
room = os.statvfs(directory)
with open(directory / "filler", "wb") as filler:
    os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)
for number in range(200):
    logger.info("%d %s", number, "x" * 100)
os.unlink(directory / "filler")
logger.info("last")
log.close()
print("".join(path.read_text() for path in (directory / "logs").iterdir()), end="")
"""


def test_a_full_disk_costs_lines_of_the_log_is_said_once_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    words = mounted(str(tmp_path), "size=64k", script(_LOG, str(tmp_path)))
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    written = done.stdout.splitlines()

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cannot be written, logging to stderr only: [Errno 28] No space left on device") == 1
    assert len(done.stderr.splitlines()) == 2 + 200 + 2  # nothing is lost on stderr
    assert written[0].endswith("[INFO] first")
    assert written[-2].endswith("[INFO] last")
    whole = [line for line in written if line.endswith("x" * 100)]
    # Of the line that the disk took half of, the half stands on a line of its own.
    assert len(written) - len(whole) in (3, 4)
    missing = 200 - len(whole)  # and the warning that says so, which is for the file too
    assert missing > 0
    assert written[-1].endswith(f"is written again; {missing + 1} lines are missing")


def test_stderr_that_refuses_costs_lines_and_is_told_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.setFormatter(TextFormatter())
    record = logging.makeLogRecord({"msg": "said", "levelname": "INFO"})

    def log() -> None:
        record.__dict__.pop("candleshm_places", None)
        console.handle(record)

    healthy = sys.stderr
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log()
        log()
        monkeypatch.setattr(sys, "stderr", None)
        log()
        monkeypatch.setattr(sys, "stderr", healthy)
        log()
        log()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("[WARNING] stderr refused 2 log lines")
    assert [line.endswith("[INFO] said") for line in lines[1:]] == [True, True]


OUTPUTS = {
    "full": '"$@" >/dev/full 2>/dev/full & echo $!',
    "closed": '"$@" <&- >&- 2>&- & echo $!',
    "broken pipe": 'exec 3>&1; ("$@" & echo $! >&3) 2>&1 | true',
}


@pytest.mark.parametrize("redirections", OUTPUTS.values(), ids=OUTPUTS)
def test_serve_goes_on_when_nobody_can_read_what_it_says(
    exchange: SimulatedExchange, block_name: str, redirections: str
) -> None:
    command = ["sh", "-c", redirections, "sh", *CLI, *serving(exchange, block_name, "--interval", "1s")]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    try:
        feed = once_attached(block_name)
        until(lambda: feed.health.ready and feed.health.missing == 0)
        feed.wait_closed(timeout=DEADLINE_SECONDS)
        assert_complete_and_true(exchange, feed)
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not (SHM / block_name).exists())
    shell.stdout.close()
    shell.wait(DEADLINE_SECONDS)


def test_serve_goes_on_when_nobody_empties_the_pipe_that_it_logs_to(
    exchange: SimulatedExchange, block_name: str
) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(512))
    os.set_blocking(theirs, True)
    exchange.faults.add(Fault(kind="status", path="/klines", count=4))
    process = subprocess.Popen([*CLI, *serving(exchange, block_name, "--interval", "1s")], stderr=theirs, stdout=theirs)
    os.close(theirs)
    try:
        # What `serve` says on stdout waits for room, in a thread that nothing depends on.
        feed = once_attached(block_name)
        until(lambda: feed.health.missing == 0 and feed["BTCUSDT"].last_open_time_ms)
        for _ in range(3):
            feed.wait_closed(timeout=DEADLINE_SECONDS)
        assert_complete_and_true(exchange, feed)
    finally:
        os.close(ours)
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
        exchange.faults.clear()


@pytest.mark.parametrize(
    ("redirections", "ending"),
    [
        ('"$@" | head -1', "0"),
        ('"$@" >/dev/full', f"{os.EX_TEMPFAIL} candleshm: No space left on device"),
        ('"$@" >&-', "0"),
        ('"$@" >/dev/full 2>/dev/full', f"{os.EX_TEMPFAIL}"),
    ],
)
def test_reading_into_nothing(block_name: str, redirections: str, ending: str) -> None:
    writer = block(block_name, symbols=[f"SYM{number}" for number in range(2000)])
    command = [*CLI, "read", block_name, "SYM7", "--json"]
    shell = f"set -o pipefail; {{ {redirections}; echo $? >&3; }} 3>&1 >/dev/null"
    done = subprocess.run(["bash", "-c", shell, "bash", *command], capture_output=True, text=True, check=False)
    writer.close()

    assert f"{done.stdout.strip()} {done.stderr.strip()}".strip() == ending


def test_scrapers_that_leave_early_cost_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with MetricsServer("127.0.0.1", 0, dict) as metrics:
        port = int(metrics.url.rsplit(":", 1)[1].split("/")[0])
        for sent in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff\xfe\r\n\r\n") * 10:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(sent)
                # A linger of zero makes the kernel send RST instead of FIN.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert requests.get(metrics.url, timeout=10).status_code == 200
    assert capfd.readouterr().err == ""


def test_closed_streams_do_not_become_a_block(exchange: SimulatedExchange, block_name: str) -> None:
    """The numbers 0 to 2 must not go to a file of ours: what is printed in need would be written into it."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *CLI, *serving(exchange, block_name)]
    process = subprocess.Popen(command)
    try:
        once_attached(block_name)
        open_files = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
    finally:
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert open_files == ["/dev/null"] * 3


# Everything together, for longer.


@pytest.mark.long
def test_no_way_to_read_leaks(block_name: str) -> None:
    """A few bytes at each of a million calls are seen neither by eye nor by a soak of a minute."""
    writer = block(block_name, length=500)
    rows = [kline(START_MS + bar * MINUTE_MS, 100 + bar) for bar in range(400)]
    ingest(writer, "BTCUSDT", *rows[:150], *rows[152:], sent_ms=START_MS + 400 * MINUTE_MS)
    with candleshm.attach(block_name) as feed:
        btc, out, columns = feed["BTCUSDT"], np.empty((500, 12)), np.empty((500, 12), order="F")
        ways: dict[str, Callable[[], object]] = {
            "candles": lambda: btc.candles(400),
            "candles, out": lambda: btc.candles(out=out),
            "candles, out by columns": lambda: btc.candles(out=columns),
            "candles, nan": lambda: btc.candles(300, holes="nan", closed_only=True),
            "states": lambda: btc.states(300),
            "snapshot": lambda: btc.snapshot(300),
            "view": lambda: btc.view(300).close,
            "view, array": lambda: btc.view(300).array[:, 2],
            "scalars": lambda: (btc.live, btc.last_close, btc.age, btc.last_open_time_ms, btc.revision),
            "gaps": btc.gaps,
            "panel": lambda: feed.panel("close", n=50),
            "last": lambda: feed.last("close"),
            "health": lambda: feed.health,
            "writer": lambda: (writer.state("BTCUSDT"), writer.gaps("BTCUSDT"), writer.symbols),
            "attach": lambda: candleshm.attach(block_name).close(),
        }
        grown_bytes = {}
        for way, use in ways.items():
            for _ in range(500):
                use()
            before_bytes = own_bytes()
            for _ in range(LEAK_CALLS):
                use()
            grown_bytes[way] = own_bytes() - before_bytes
    writer.close()
    # Nothing that Python or the core could leave behind at each call is smaller than 16 bytes.
    assert {way: grown for way, grown in grown_bytes.items() if grown >= 12 * LEAK_CALLS} == {}


def own_bytes() -> int:
    """Return the memory of this process that is no file and no block."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.long
@pytest.mark.parametrize("live", ["rest", "ws"])
def test_a_collector_that_ended_keeps_no_descriptor(live: str, exchange: SimulatedExchange, block_name: str) -> None:
    def descriptors() -> list[str]:
        links = (os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return sorted(link for link in links if "weight" in link or "eventfd" in link or "eventpoll" in link)

    before = descriptors()
    # Programs that trade often turn it off; nothing here may wait for it.
    gc.disable()
    try:
        with collecting(exchange, block_name, live=live, ws_url=exchange.ws_url_of("SPOT")):
            pass
        until(lambda: descriptors() == before)
    finally:
        gc.enable()


def test_a_short_soak(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak(seconds=150, symbols=40, rate=10) == []
    assert "collector" in capsys.readouterr().out
