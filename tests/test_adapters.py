"""The recipes of docs/adapters.md, as printed: libraries that backtest, on daily files of the simulated exchange."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from candleshm import CLOSE, history
from candleshm.sim import SimulatedExchange
from tests.support.commanding import run
from tests.test_gateway_clients import ENVIRONMENTS, ROOT
from tests.test_snippets import FENCE

PAGE = ROOT / "docs" / "adapters.md"


@dataclass(frozen=True)
class Files:
    """A directory with `candles`, and the days that they cover."""

    directory: Path
    days: tuple[str, str]

    def execute(self, environment: str, heading: str) -> list[str]:
        """Run the recipes under a heading in a client's environment; return the words of the last line."""
        shown = dict(zip(("2026-11-01", "2026-11-27"), self.days, strict=True))
        text = re.sub("|".join(shown), lambda day: shown[day[0]], "\n".join(recipes_of(heading)))
        result = subprocess.run(
            [ENVIRONMENTS / environment / "bin" / "python", "-c", text],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "HOME": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()[-1].split()

    def closes(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        rows = history.load("SPOT", "BTCUSDT", *self.days, base_dir=self.directory / "candles")
        closes: np.ndarray[tuple[int], np.dtype[np.float64]] = rows[:, CLOSE]
        return closes


def recipes_of(heading: str) -> list[str]:
    """Return the Python snippets under a heading of the page."""
    section = re.split(rf"^## {re.escape(heading)}$", PAGE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return [text for _, language, text in FENCE.findall(section) if language == "python"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("research")
    first, last = ((datetime.now(UTC) - timedelta(days=back)).strftime("%Y-%m-%d") for back in (2, 1))
    with SimulatedExchange(seed=3, symbols=6) as exchange:
        words = ["--market", "spot", "--symbols", "BTCUSDT,ETHUSDT", "--base-url", exchange.base_url]
        downloaded = run("download", *words, "--start", first, "--candle-dir", str(directory / "candles"))
    assert downloaded.returncode == 0, downloaded.stderr
    return Files(directory, (first, last))


def crossings(closes: np.ndarray[tuple[int], np.dtype[np.float64]], *, fills_at_once: bool = False) -> int:
    """Return how often a position is opened: when the mean of 20 closes rises above that of 60, and none is open.

    Without `fills_at_once` an order fills at the next open, which the last row's would wait for in vain.
    """
    fast, slow = (np.convolve(closes, np.ones(n) / n, "valid")[60 - n :] for n in (20, 60))
    opened, is_open = 0, False
    for row in range(1, len(slow) - (not fills_at_once)):
        if fast[row - 1] < slow[row - 1] and fast[row] > slow[row]:
            opened, is_open = opened + (not is_open), True
        elif fast[row - 1] > slow[row - 1] and fast[row] < slow[row]:
            is_open = False
    return opened


def test_backtesting_py_trades_on_the_exchange_s_candles(files: Files) -> None:
    trades, _ = files.execute("research", "backtesting.py")
    assert int(trades) == crossings(files.closes()) > 10


@pytest.mark.acceptance
def test_vectorbt_trades_on_the_exchange_s_candles(files: Files) -> None:
    [trades] = files.execute("vectorbt", "vectorbt")
    assert int(trades) == crossings(files.closes(), fills_at_once=True) > 10


@pytest.mark.acceptance
def test_nautilus_trader_takes_the_candles_as_bars(files: Files) -> None:
    count, bar = files.execute("nautilus", "nautilus_trader")
    closes = files.closes()
    assert int(count) == len(closes)
    assert f"{closes[-1]:.2f}" in bar
