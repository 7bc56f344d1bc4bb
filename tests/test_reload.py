"""SIGHUP: `serve` reads its file again, under readers that stay attached."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm.errors import StaleData
from candleshm.sim import SimulatedExchange
from tests.support.commanding import DEADLINE_SECONDS, first_lines, lines_until, started, until


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=6, spot_limit=10**6, futures_limit=10**6) as running:
        yield running


@pytest.fixture
def path(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Path:
    path = tmp_path / "feeds.toml"
    path.write_text(
        f'base_url = "{exchange.base_url}"\nlength = 50\nupdate_interval_seconds = 0.5\n'
        f'[[feed]]\nmarket = "spot"\nsymbols = ["BTCUSDT", "ETHUSDT"]\nname = "{block_name}-a"\n'
        f'[[feed]]\nmarket = "um"\nsymbol_endswith = "USDT"\nname = "{block_name}-b"\n'
    )
    return path


def reload(process: subprocess.Popen[str], path: Path, before: str = "", after: str = "", *, until_words: str) -> str:
    """Change the file, send the signal, and return what is logged until these words."""
    path.write_text(path.read_text().replace(before, after))
    process.send_signal(signal.SIGHUP)
    return lines_until(process, until_words)


def trades(feed: candleshm.Feed, symbol: str) -> bool:
    """Say whether a symbol is collected."""
    try:
        return feed[symbol].last_close > 0
    except StaleData:
        return False


def test_symbols_follow_the_file_under_readers_and_everything_else_stays(path: Path, block_name: str) -> None:
    with started("serve", "--config", str(path)) as process:
        first_lines(process, 2)
        feed, other = (candleshm.attach(f"{block_name}-{end}", max_age=60.0) for end in "ab")
        until(lambda: feed.health.ready and other.health.ready)
        many = len(other)

        read = "was read again; the symbols of"
        logged = reload(process, path, '"ETHUSDT"]', '"SOLUSDT", "NOSUCHUSDT"]', until_words=f"{read} 1 feeds")
        until(lambda: "SOLUSDT" in feed and feed["SOLUSDT"].age < DEADLINE_SECONDS)
        assert feed["SOLUSDT"].candles().shape[0] > 0
        assert "takes a restart" not in logged
        until(lambda: not trades(feed, "ETHUSDT"))
        assert len(candleshm.attach(feed.name)["ETHUSDT"].candles()) >= 49, "its rows stay"

        reload(process, path, '"SOLUSDT", "NOSUCHUSDT"]', '"ETHUSDT"]', until_words=f"{read} 1 feeds")
        until(lambda: trades(feed, "ETHUSDT"))
        assert [symbol for symbol in feed if symbol not in ("BTCUSDT", "ETHUSDT")] == ["SOLUSDT"]

        logged = reload(process, path, "length = 50", "length = 60\nmetrics = 9100", until_words=f"{read} 0 feeds")
        for name in (feed.name, other.name):
            assert f"length of block {name} is `60` now, and stays `50`; it takes a restart" in logged
        assert "metrics has changed, and stays as it was; it takes a restart" in logged

        filtered = '"USDT"\nsymbols_filter = ["BTCUSDT"]'
        reload(
            process, path, 'symbol_endswith = "USDT"', f"symbol_endswith = {filtered}", until_words=f"{read} 1 feeds"
        )
        until(lambda: not trades(other, "BTCUSDT"))
        assert len(other) == many
        assert trades(other, "ETHUSDT")

        logged = reload(process, path, "length", "lenght", until_words="everything stays as it is")
        assert "unknown key `lenght`; did you mean length?" in logged.splitlines()[-1]
        path.unlink()
        process.send_signal(signal.SIGHUP)
        assert "No such file" in lines_until(process, "everything stays as it is: ")
        until(lambda: feed.health.ready)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_feed_that_comes_or_goes_takes_a_restart(path: Path, block_name: str) -> None:
    with started("serve", "--config", str(path)) as process:
        first_lines(process, 2)
        logged = reload(process, path, f"{block_name}-b", f"{block_name}-c", until_words="the symbols of 0 feeds")
        assert f"the feed of block {block_name}-c is new, and is not started; it takes a restart" in logged
        assert f"the feed of block {block_name}-b is gone, and goes on; it takes a restart" in logged
        assert candleshm.attach(f"{block_name}-b").health.state == "ready"
