"""Every example runs, against a real collector of the simulated exchange."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm.sim import SimulatedExchange

EXAMPLES = Path(__file__).parent.parent / "examples"
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
OTHER_TESTS = ("test_candle_server.py", "test_example_strategies.py")


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=5, symbols=6) as running:
        yield running


def collector(exchange: SimulatedExchange, name: str, interval: str, length: int = 600) -> candleshm.Collector:
    return candleshm.Collector(
        candleshm.CollectorConfig(
            market="SPOT",
            symbols=SYMBOLS,
            interval=interval,
            length=length,
            name=name,
            base_url=exchange.base_url,
            update_interval_seconds=0.2,
        )
    )


def output(name: str, *arguments: str) -> list[str]:
    """Run an example to its end; return the lines it printed."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_examples_of_minutes(exchange: SimulatedExchange, block_name: str) -> None:
    with collector(exchange, block_name, "1m") as running:
        assert running.wait_loaded(60)
        attached = output("attach.py", block_name)
        assert attached[0] == "SPOT 1m: 3 symbols, up to 600 candles each"
        assert [line.split(":")[0] for line in attached[1:4]] == SYMBOLS
        # For a moment after a candle's end two rows are live.
        states = [line.split()[-1] for line in attached[4:9]]
        assert states[:3] == ["CLOSED"] * 3
        assert set(states[3:]) <= {"LIVE", "CLOSED"}
        assert attached[-1] == "gaps: []"
        panel = output("panel.py", block_name)
        assert [line.split(":")[0] for line in panel[:-1]] == SYMBOLS
        assert panel[-1].startswith("correlation of BTCUSDT and ETHUSDT: ")


def test_the_example_of_a_panel_with_a_row_that_no_symbol_has(exchange: SimulatedExchange, block_name: str) -> None:
    # Of 60 candles the newest are live, so that the oldest of 60 closed ones are not there.
    with collector(exchange, block_name, "1s", length=60) as running:
        assert running.wait_loaded(60)
        assert -1 <= float(output("panel.py", block_name)[-1].split()[-1]) <= 1


def test_the_example_of_closes(exchange: SimulatedExchange, block_name: str) -> None:
    with collector(exchange, block_name, "1s") as running:
        assert running.wait_loaded(60)
        lines = output("asyncio_closes.py", block_name, "3")
    times_ms = [int(line.split(":")[0]) for line in lines]
    assert times_ms == [times_ms[0], times_ms[0] + 1000, times_ms[0] + 2000]
    assert all("'BTCUSDT': " in line for line in lines)


def test_the_example_of_a_test(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(EXAMPLES / "test_strategy.py")],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_every_example_is_listed_and_run() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    tests = (Path(__file__), *(Path(__file__).parent / name for name in OTHER_TESTS))
    written = "".join(path.read_text() for path in tests)
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f"[{path.name}]({path.name})" in listed
            assert f'"{path.name}"' in written, f"no test runs {path.name}"
