"""Two servers of one market and BAR: the second reads the first one's block, or serves one under a free name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.compat import server_run
from candleshm.compat.candle_server import CandleRule, CandleServer
from candleshm.sim import SimulatedExchange
from tests.test_candle_server import QUICK, SPOT, until
from tests.test_collector_universe import enlist

Make = Callable[..., CandleServer]

PROGRAM = """
import sys
from candleshm import CandleRule, CandleServer
class MyRule(CandleRule):
    SYMBOLS = {symbols!r}
    LENGTH = 100
    DOWNLOAD_TIME = LOCAL_CANDLE_DAYS = None
    UPDATE_INTERVAL_SECONDS = {pause}
with CandleServer("SPOT", MyRule, base_url={url!r}, name={name!r}) as server:
    print(server.status().state, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture
def other(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start another program with a server; it ends when its stdin is closed."""
    with ExitStack() as close:

        def start(*symbols: str, UPDATE_INTERVAL_SECONDS: float = 0.5) -> subprocess.Popen[str]:
            text = PROGRAM.format(
                symbols=list(symbols) or SPOT,
                url=exchange.base_url,
                name=block_name,
                pause=UPDATE_INTERVAL_SECONDS,
            )
            directory = tmp_path / "other"
            directory.mkdir(exist_ok=True)
            program = subprocess.Popen(
                [sys.executable, "-c", text],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            close.callback(end, program)
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            return program

        yield start


def end(program: subprocess.Popen[str]) -> None:
    program.communicate(timeout=60)


@pytest.fixture
def make(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Make servers whose default block name is this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(candleshm.CollectorConfig, "block_name", property(lambda config: config.name or block_name))
    with ExitStack() as close:

        def server(*, url: str = "", name: str | None = None, **settings: Any) -> CandleServer:
            rule = type("MyRule", (CandleRule,), QUICK | settings)
            made = CandleServer("SPOT", rule, base_url=url or exchange.base_url, name=name)
            close.callback(made.close_run_candle_map)
            return made

        yield server


def klines(exchange: SimulatedExchange) -> int:
    return exchange.stats().count("/klines")


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_the_second_server_reads_the_block_of_the_first_and_sends_one_request_for_candles(
    exchange: SimulatedExchange,
    make: Make,
    other: Callable[..., Any],
    block_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = other("BTCUSDT", "ETHUSDT", "SOLUSDT", UPDATE_INTERVAL_SECONDS=86400)
    before = klines(exchange)
    server = make(LENGTH=50)
    with caplog.at_level("INFO", "candleshm"):
        server.run_candle_map()

    assert f"block {block_name} of process {program.pid} has everything; candle_map reads it" in said(caplog)
    assert list(server.candle_map) == SPOT  # its own symbols only
    rows = server.candle_map["BTCUSDT"]
    assert rows.shape == (50, 12)
    with pytest.raises(KeyError):
        server.candle_map["SOLUSDT"]
    first_ms, end_ms = int(rows[0, 0]), int(rows[-3, 0]) + 1
    np.testing.assert_array_equal(rows[:-2], exchange.truth.floats("SPOT", "BTCUSDT", "1m", first_ms, end_ms))
    assert server.get_candle_security("BTCUSDT", security_seconds=180).shape == (50, 12)
    assert server.status().name == block_name
    assert server.status().pid != os.getpid()
    # One candle is compared; a minute that ends meanwhile is requested by the first server.
    assert klines(exchange) - before in {1, 4}
    server.run_candle_map()  # harmless
    server.close_run_candle_map()
    assert server.candle_map["BTCUSDT"].shape == (50, 12)
    with candleshm.attach(block_name) as feed:
        assert feed.health.state == "ready"


@pytest.mark.parametrize("pause", ["short", "long"])
def test_a_first_server_that_is_restarted_gets_its_name_back(
    pause: str, make: Make, other: Callable[..., Any], block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = other()
    server = make()
    with caplog.at_level("INFO", "candleshm"):
        server.run_candle_map()
        end(first)
        if pause == "long":
            until(lambda: "has ended; unless it starts again, this server goes on by itself" in said(caplog))
        again = other()
        # After a short pause the reader has followed to the new block before the server saw the old one end.
        until(lambda: server.status().ready and server.status().pid == again.pid)
        if pause == "long":
            until(lambda: f"block {block_name} of process {again.pid} has everything" in said(caplog))
    assert _pid(block_name) == again.pid
    assert list(server.candle_map) == SPOT
    until(lambda: len(server.get_candle_security("BTCUSDT", security_seconds=70)))


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_the_second_server_collects_once_the_first_has_ended(
    ending: str,
    make: Make,
    other: Callable[..., Any],
    block_name: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_run, "RESTART_SECONDS", 1.0)
    program = other()
    server = make(UPDATE_INTERVAL_SECONDS=0.2)
    third = make()
    server.run_candle_map()
    third.run_candle_map()
    newest = server.candle_map["BTCUSDT"]
    if ending == "killed":
        program.send_signal(signal.SIGKILL)
    end(program)

    def is_collecting() -> bool:
        # What is shown meanwhile is the last state, never a block that is being loaded.
        assert {len(server.candle_map[symbol]) for symbol in SPOT} == {100}
        return _pid(block_name) == os.getpid()

    until(is_collecting)
    assert list(server.candle_map) == SPOT
    until(lambda: server.status().ready and third.status().ready)
    for one in (server, third):
        assert list(one.candle_map) == SPOT
        rows = one.candle_map["BTCUSDT"]
        assert rows.shape == (100, 12)
        assert rows[-1, 0] >= newest[-1, 0]
        until(lambda one=one: len(one.get_candle_security("BTCUSDT", security_seconds=70)))  # type: ignore[misc]
    assert "has ended; unless it starts again, this server goes on by itself" in said(caplog)
    server.close_run_candle_map()
    third.close_run_candle_map()
    assert not list(Path("/dev/shm").glob(f"*{block_name}*"))


def _pid(name: str) -> int | None:
    try:
        with candleshm.attach(name) as feed:
            return feed.health.pid if feed.health.state == "ready" else None
    except candleshm.BlockNotFound:
        return None


@pytest.mark.parametrize(
    ("settings", "lack"),
    [
        ({"SYMBOLS": ["BTCUSDT", "SOLUSDT"]}, "does not have SOLUSDT"),
        ({"SYMBOLS": "all"}, "does not have "),
        ({"LENGTH": 101}, "has 100 candles of each symbol instead of 101"),
        ({"BAR": "5m"}, "has 1m of SPOT"),
        ({"url": "another"}, "has the candles of another exchange"),
    ],
)
def test_a_block_that_lacks_something_is_left_alone_and_the_next_free_name_is_taken(
    settings: dict[str, Any],
    lack: str,
    make: Make,
    other: Callable[..., Any],
    block_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other()
    with ExitStack() as close:
        if "url" in settings:
            settings = {"url": close.enter_context(SimulatedExchange(symbols=4, seed=99)).base_url}
        close.enter_context(caplog.at_level("INFO", "candleshm"))
        with make(**settings) as server, make(**settings) as third:
            assert server.status().name == third.status().name == f"{block_name}-2"
            assert server.status().pid == os.getpid()
            assert f"block {block_name} of another program {lack}" in said(caplog)
            assert "BTCUSDT" in server.candle_map


def test_the_block_of_a_given_name_that_lacks_something_is_an_error(
    make: Make, other: Callable[..., Any], block_name: str
) -> None:
    other()
    with pytest.raises(candleshm.BlockInUse, match=f"{block_name}.*does not have SOLUSDT.*name"):
        make(name=block_name, SYMBOLS=["SOLUSDT"]).run_candle_map()
    with make(name=block_name) as server:
        assert list(server.candle_map) == SPOT


def test_the_second_server_writes_the_daily_files_of_its_own_rule(
    exchange: SimulatedExchange, make: Make, other: Callable[..., Any], tmp_path: Path
) -> None:
    other()
    settings = {"CANDLE_DIR": str(tmp_path / "mine"), "DOWNLOAD_TIME": "00:00:00", "TIMEZONE": "UTC"}
    with make(SYMBOLS=["ETHUSDT"], **settings) as server:
        assert server.status().pid != os.getpid()
        until(lambda: candleshm.history.days("SPOT", "ETHUSDT", base_dir=settings["CANDLE_DIR"]))
    assert candleshm.history.paths("SPOT", "BTCUSDT", base_dir=settings["CANDLE_DIR"]) == []


def test_a_symbol_that_is_listed_later_comes_with_the_first_server(
    exchange: SimulatedExchange, make: Make, block_name: str
) -> None:
    config = candleshm.CollectorConfig(
        market="SPOT",
        symbols="all",
        length=100,
        name=block_name,
        base_url=exchange.base_url,
        universe_refresh_seconds=0.3,
    )
    with candleshm.Collector(config) as collector:
        assert collector.wait_loaded(60)
        with make(SYMBOLS="all", SYMBOL_ENDSWITH="USDT") as server:
            assert server.status().name == block_name
            assert "ETHBTC" not in server.candle_map
            enlist(exchange, "FRESHUSDT")
            until(lambda: "FRESHUSDT" in server.candle_map)
