"""`check` judges a block as readers do, for health checks of containers and for cron."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from candleshm.sim import Fault, SimulatedExchange
from tests.support.commanding import first_lines, run, serving, started, until


def checked(*words: str) -> tuple[int, str, str]:
    done = run("check", *words)
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout, done.stderr


def test_a_check_follows_the_block_through_its_life(block_name: str) -> None:
    with SimulatedExchange(seed=7, symbols=4) as exchange:
        code, line, _ = checked(block_name)
        assert (code, line) == (1, f"block `{block_name}`: no block has that name; `candleshm ls` lists the blocks\n")

        exchange.faults.add(Fault(kind="hang", path="/klines"))
        with started(*serving(exchange, block_name)) as process:
            first_lines(process, 1)
            code, line, _ = checked(block_name)
            assert (code, line) == (1, f"{block_name}: loading, loading, some symbols have no data yet\n")

            exchange.faults.clear()
            feed = candleshm.attach(block_name)
            until(lambda: feed.health.ready)
            code, line, stderr = checked(block_name, "--max-age", "60")
            assert (code, stderr) == (0, "")
            assert line.startswith(f"{block_name}: ready, 2 symbols, oldest ")

            code, line, _ = checked(block_name, "--require-streams")
            assert (code, line) == (1, f"{block_name}: ready, but 2 of 2 symbols come by requests\n")
            assert (feed.health.failing, feed.health.polled) == (0, 2)

            # The exchange falls silent: as `attach(max_age=...)` has it, so has the check.
            exchange.faults.add(Fault(kind="status", status=503, path="/klines"))
            strict = candleshm.attach(block_name, max_age=1.0)
            until(lambda: not strict.health.ready)
            code, line, _ = checked(block_name, "--max-age", "1")
            assert code == 1
            assert line.startswith(f"{block_name}: stale, 2 stale, oldest ")
            assert checked(block_name, "--max-age", "1000")[0] == 0
            with pytest.raises(candleshm.StaleData):
                _ = strict["BTCUSDT"].last_close
            until(lambda: feed.health.failing == 2)
            health = feed.health
            assert health.last_error == "ExchangeUnavailable"
            assert health.last_error_at is not None
            assert abs(health.last_error_at.timestamp() - time.time()) < 60
            shown = run("top", block_name, "--once").stdout.splitlines()[2]
            assert "2 failing, last error ExchangeUnavailable at " in shown

            process.send_signal(signal.SIGKILL)
            process.wait()
            until(lambda: math.isfinite(feed.health.heartbeat_age) and feed.health.state == "dead")
            code, line, _ = checked(block_name, "--max-age", "1000")
            assert code == 1
            assert "is dead: start it again" in line
    assert run("check").returncode == 2
    assert run("check", block_name, "--max-age", "no").returncode == 2


def test_a_check_may_ask_for_streams(block_name: str) -> None:
    with (
        SimulatedExchange(seed=7, symbols=4) as exchange,
        started(*serving(exchange, block_name, "--ws-url", exchange.ws_url)) as process,
    ):
        first_lines(process, 1)
        feed = candleshm.attach(block_name)
        until(lambda: feed.health.ready and feed.health.has_streams)
        code, line, _ = checked(block_name, "--require-streams")
        assert (code, line.startswith(f"{block_name}: ready, 2 symbols")) == (0, True)


def test_a_configuration_can_be_checked_without_a_block(block_name: str, tmp_path: Path) -> None:
    with SimulatedExchange(seed=7, symbols=4) as exchange:
        path = tmp_path / "feeds.toml"
        path.write_text(
            f'base_url = "{exchange.base_url}"\nsymbols = ["BTCUSDT", "ETHUSDT"]\n'
            f'[[feed]]\nmarket = "spot"\nlength = 2500\nderive = ["5m:400"]\nname = "{block_name}-a"\n'
            f'[[feed]]\nmarket = "um"\nws_url = "{exchange.ws_url}"\nname = "{block_name}-b"\n'
        )
        done = run("serve", "--config", str(path), "--check")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        shown = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(block_name)}
        assert shown[f"{block_name}-a"][:4] == ["SPOT", "1m", "2", "2500"]
        assert shown[f"{block_name}-a"][6:] == ["requests", "free"]
        assert shown[f"{block_name}-a-5m"][1:4] == ["5m", "2", "400"]
        assert shown[f"{block_name}-b"][6:] == ["streams", "free"]
        need = sum(_core.block_bytes(length, 2) for length in (2500, 400, 2880))
        assert any(line.startswith(f"memory: {-(-need // 2**20)} MiB in all, ") for line in lines)
        # For each of two symbols three pages of weight 2; then every 3 s a request of weight 2.
        assert f"{block_name}-a: weight 12 to load everything" in done.stdout
        assert "then 80 a minute by requests; all feeds may spend 4,500 a minute" in done.stdout
        assert f"{block_name}-b: weight 24 to load" in done.stdout
        assert "next to nothing while streams flow" in done.stdout.splitlines()[-1]
        assert not list(Path("/dev/shm").glob(f"{block_name}*"))
        assert exchange.stats().count("/klines") == 0

        with started("serve", "--config", str(path)) as process:
            first_lines(process, 3)
            taken = run("serve", "--config", str(path), "--check")
            assert taken.returncode == os.EX_TEMPFAIL
            assert f"served by process {process.pid}" in taken.stdout
            assert f"block `{block_name}-a`: a collector (process {process.pid}) already serves it" in taken.stderr
        path.write_text(path.read_text().replace("BTCUSDT", "NOSUCH").replace("ETHUSDT", "NEITHER"))
        assert run("serve", "--config", str(path), "--check").returncode == os.EX_CONFIG
