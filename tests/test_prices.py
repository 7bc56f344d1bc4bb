"""Feeds of mark, index and premium prices, as the commands configure and show them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import candleshm
from candleshm.commands.metrics import MetricsServer
from candleshm.exchanges.base import Price
from candleshm.sim import SimulatedExchange
from tests.support.collecting import assert_true, collecting
from tests.support.commanding import run
from tests.support.downloading import day_before, downloaded


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=8) as running:
        yield running


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_flag_variable_and_file_say_the_price(
    exchange: SimulatedExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    words = ["serve", "--check", "--base-url", exchange.base_url]
    if way == "file":
        path = tmp_path / "feeds.toml"
        path.write_text('[[feed]]\nmarket = "cm"\nprice = "index"\nsymbols = ["BTCUSD"]\nderive = ["1h"]\n')
        words += ["--config", str(path)]
    else:
        words += ["--market", "cm", "--symbols", "BTCUSD", "--derive", "1h"]
        words += ["--price", "index"] if way == "flag" else []
    if way == "variable":
        monkeypatch.setenv("CANDLESHM_PRICE", "index")

    done = run(*words)

    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[1:3]]
    assert [row[:4] for row in rows] == [
        ["candleshm-cm-index-1m", "CM-index", "1m", "1"],
        ["candleshm-cm-index-1h", "CM-index", "1h", "1"],
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--market spot --price mark", "price cannot be `mark` with market SPOT; allowed there: trade"),
        ("--market um --price last", "price cannot be `last`; allowed: trade | mark | index | premium"),
        (
            "--market cm --price index --symbols BTCUSD,ETHUSD_PERP",
            "symbols cannot be `ETHUSD_PERP` with price `index`: an index is of a pair, here `ETHUSD`",
        ),
        (
            "--market cm --price mark --symbols BTCUSD",
            "symbols cannot be `BTCUSD`, which is a pair; its symbols: BTCUSD_PERP",
        ),
    ],
)
def test_what_a_market_does_not_have_is_one_line_with_the_choices(
    exchange: SimulatedExchange, words: str, message: str
) -> None:
    done = run("serve", "--check", "--base-url", exchange.base_url, *words.split())

    assert done.returncode == 78
    assert done.stderr.startswith(f"candleshm: {message}")
    assert done.stderr.count("\n") == 1


def test_what_shows_a_block_says_its_price(exchange: SimulatedExchange, block_name: str) -> None:
    with collecting(exchange, block_name, market="UM", price="premium", symbols=["BTCUSDT"]) as (collector, feed):
        assert (feed.market, feed.price) == ("UM", "premium")
        assert f"<Feed UM-premium 1m of {block_name}: 1 symbol" in repr(feed)
        assert repr(feed["BTCUSDT"]) == f"<Series UM-premium BTCUSDT 1m of {block_name}>"
        assert next(health.price for health in candleshm.blocks() if health.name == block_name) == "premium"
        listed = next(line.split() for line in run("ls").stdout.splitlines() if line.startswith(f"{block_name} "))
        assert listed[:3] == [block_name, "UM-premium", "1m"]
        row = next(row for row in json.loads(run("ls", "--json").stdout) if row["name"] == block_name)
        assert (row["market"], row["price"]) == ("UM", "premium")
        assert f"{block_name}  UM-premium 1m, " in run("top", block_name, "--once").stdout
        assert run("read", block_name, "BTCUSDT").stdout.startswith(f"BTCUSDT  UM-premium 1m  {block_name}")
        with MetricsServer("127.0.0.1", 0, lambda: {block_name: collector.status()}) as metrics:
            scraped = requests.get(metrics.url, timeout=30).text
        lines = [line for line in scraped.splitlines() if f'_info{{block="{block_name}"' in line]
        assert ['price="premium"' in line for line in lines] == [True]
        # A premium is about nothing and often below it.
        assert abs(feed["BTCUSDT"].candles()[:, candleshm.CLOSE]).max() < 0.1
        assert (feed["BTCUSDT"].candles()[:, candleshm.LOW] < 0).any()


@pytest.mark.parametrize("price", ["mark", "premium"])
def test_daily_files_of_trades_do_not_get_into_a_block_of_another_price(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, price: Price
) -> None:
    days = (day_before(exchange, 2).date, day_before(exchange).date)
    changes: dict[str, Any] = {"market": "UM", "symbols": ["BTCUSDT"]}
    assert downloaded(exchange, tmp_path, *days, **changes).failed == 0
    changes |= {"price": price, "length": 200, "derive": ["1h:40"], "candle_dir": tmp_path}
    with collecting(exchange, block_name, **changes) as (_, feed), candleshm.attach(f"{block_name}-1h") as hours:
        assert_true(exchange, feed)
        assert_true(exchange, hours)
        assert len(hours["BTCUSDT"].candles()) == 40
    # Those of its own price do.
    assert downloaded(exchange, tmp_path, *days, **changes).failed == 0
    with collecting(exchange, block_name, **changes) as (_, feed), candleshm.attach(f"{block_name}-1h") as hours:
        assert_true(exchange, feed)
        assert_true(exchange, hours)
