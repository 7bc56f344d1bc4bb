"""`check` judges a block as readers do, for health checks of containers and for cron."""

from __future__ import annotations

import math
import signal

import pytest

import candleshm
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

            process.send_signal(signal.SIGKILL)
            process.wait()
            until(lambda: math.isfinite(feed.health.heartbeat_age) and feed.health.state == "dead")
            code, line, _ = checked(block_name, "--max-age", "1000")
            assert code == 1
            assert "is dead: start it again" in line
    assert run("check").returncode == 2
    assert run("check", block_name, "--max-age", "no").returncode == 2
