"""The command `mirror` as a service: it waits for servers, tells its manager and Prometheus, and `ls` shows it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm._core import Writer
from tests.support.commanding import DEADLINE_SECONDS, first_lines, lines_until, run, started, until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.telling import differences_of, leading, reaching

SYMBOLS = ["AUSDT", "BUSDT"]


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture
def block(block_name: str) -> Iterator[Writer]:
    with closing(Writer.open(block_name, market="SPOT", interval="1m", length=30, symbols=SYMBOLS)) as writer:
        for symbol in SYMBOLS:
            rows = [kline(START_MS + minute * MINUTE_MS, 5.0) for minute in range(30)]
            ingest(writer, symbol, *rows, sent_ms=START_MS + 30 * MINUTE_MS)
        yield writer


def mirror_words(server: NatsServer, block: Writer) -> tuple[str, ...]:
    """Return the command that mirrors the block under another name."""
    return ("mirror", block.name, "--cluster", server.url, "--as", f"{block.name}-copy")


def test_a_mirror_waits_for_servers_as_a_collector_does(server: NatsServer, block: Writer) -> None:
    server.kill()
    try:
        with started(*mirror_words(server, block)) as process:
            assert "nothing listens there; it is tried again" in lines_until(process, "tried again")
            server.restart()
            with leading(reaching(server), block.name):
                assert f"mirroring {block.name}-copy" in first_lines(process, 1)[0]
                until(lambda: not differences_of(block.name, f"{block.name}-copy"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        server.restart()


def test_a_service_manager_learns_when_a_mirror_has_everything(
    server: NatsServer, block: Writer, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(DEADLINE_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}

        def told(word: str) -> str:
            """Return the first message with that word, and what came before."""
            text = ""
            while word not in text:
                text += listener.recv(65536).decode() + "\n"
            return text

        with started(*mirror_words(server, block), env=environment) as process:
            waiting = told("WATCHDOG=1")
            assert "STATUS=waiting for the cluster" in waiting
            assert "EXTEND_TIMEOUT_USEC=" in waiting
            assert "READY" not in waiting
            with leading(reaching(server), block.name):
                assert "STATUS=2 symbols, " in told("READY=1")
                process.send_signal(signal.SIGTERM)
                told("STOPPING=1")
                assert process.wait(DEADLINE_SECONDS) == 0


def test_metrics_and_tables_show_what_a_mirror_is(server: NatsServer, block: Writer) -> None:
    copy = f"{block.name}-copy"
    with (
        leading(reaching(server), block.name, epoch=3) as leader,
        started(*mirror_words(server, block), "--metrics", "0") as process,
    ):
        metrics, mirroring = first_lines(process, 2)
        assert copy in mirroring
        url = metrics.split()[1]

        def values() -> dict[str, float]:
            lines = requests.get(url, timeout=DEADLINE_SECONDS).text.splitlines()
            found = (line.rpartition(" ") for line in lines if f'block="{copy}"' in line)
            return {
                name.replace(f'{{block="{copy}"}}', "").removeprefix("candleshm_"): float(v) for name, _, v in found
            }

        until(lambda: values().get("mirror_complete") == 1)
        found = values()
        assert found["mirror_epoch"] == 3
        assert found["mirror_shards"] == 1
        assert found["mirror_differing"] == 0
        assert found["mirror_requests_total"] >= 1
        assert found["symbols"] == 2
        assert found["mirror_leader_silent_seconds"] < DEADLINE_SECONDS

        heads, *lines = run("ls").stdout.splitlines()
        (line,) = (line for line in lines if line.startswith(copy))
        for word in ("ROLE", "SOURCE", "LAG"):
            assert word in heads.split()
        assert " follower " in line
        assert f" {leader.source} " in line
        assert f"cluster: follower of {leader.source}, " in run("top", copy, "--once").stdout
        (line,) = (line for line in run("top", "--once").stdout.splitlines() if f" {copy} " in line)
        assert f" follower  {leader.source} " in line
        # Blocks that are of no cluster show nothing new.
        assert "cluster:" not in run("top", block.name, "--once").stdout
        with candleshm.attach(block.name) as feed:
            assert feed.health.source is None
