"""The table of docs/reading.md: what stands on its left raises an error, what stands on its right runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import _core, history
from tests.support.days import candles_of, day_of, store_in, written
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms

PAGE = Path(__file__).parent.parent / "docs" / "reading.md"
DAY = "2026-03-04"

# Expressions of the page that stand for something longer, or for a call with other arguments.
MEANT = {
    "candles(start=...)": "series.candles(start=0)",
    "candles(n)": "series.candles(n)",
    'feed.panel("close", n, symbols=[...])': "feed.panel('close', n, symbols=['BTCUSDT'])",
    "for closed in feed.closes():": "feed.closes()",
    "async for": "feed.closes().__aiter__()",
    "history.panel(...)": "history.panel('SPOT', None, 'close', start, start, base_dir=base)",
    "history.scan(...).collect()": "history.scan('SPOT', base_dir=base).collect()",
    "to_polars(rows)": "candleshm.to_polars(rows)",
    "to_arrow(rows)": "candleshm.to_arrow(rows)",
    "history.load(market, symbol, start, join=feed)": "history.load(market, symbol, later, join=feed)",
    "history.panel(..., join=feed)": "history.panel(market, SYMBOLS[:2], 'close', later, join=feed)",
    'scan(interval="5m")': "history.scan('SPOT', interval='5m', base_dir=base)",
    'history.load(..., interval="5m")': "history.load('SPOT', 'BTCUSDT', start, interval='5m', base_dir=base)",
    'symbols="BTCUSDT"': "feed.panel('close', symbols='BTCUSDT')",
    'symbols=["BTCUSDT"]': "feed.panel('close', symbols=['BTCUSDT'])",
    "history.load": "history.load('SPOT', ['BTCUSDT', 'ETHUSDT'], start, start, base_dir=base)",
    "LIVE": "candleshm.LIVE",
    "VERIFIED": "candleshm.VERIFIED",
}
# Words of the page in code type that are arguments, or stand for what another row shows.
WORDS = {"n", "closed_only", "scan", "candles", "derive"}


def rows_of_the_page() -> list[tuple[list[str], list[str]]]:
    found = []
    for line in PAGE.read_text().split("## What to call")[1].split("\n## ")[0].splitlines():
        if line.startswith("| ") and not line.startswith(("| looked", "|---")):
            _, left, right, _ = line.split("|")
            found.append(tuple([code for code in re.findall(r"`([^`]+)`", cell)] for cell in (left, right)))
    return found  # type: ignore[return-value]


@pytest.fixture
def stage(block_name: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    written(store_in(tmp_path), candles_of(day_of(DAY)))
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    load(writer, "BTCUSDT", 0, 20)
    load(writer, "ETHUSDT", 0, 20)
    writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
    writer.heartbeat()
    with candleshm.attach(block_name) as feed:
        yield {
            "candleshm": candleshm,
            "history": history,
            "np": np,
            "feed": feed,
            "other": feed,
            "series": feed["BTCUSDT"],
            "rows": feed["BTCUSDT"].candles(5),
            "n": 5,
            "name": block_name,
            "market": "SPOT",
            "symbol": "BTCUSDT",
            "SYMBOLS": SYMBOLS,
            "start": DAY,
            # A day that the window has from its beginning on.
            "later": history.Day.of(open_ms(0), _core.Zone("UTC")).next().date,
            "base": tmp_path,
            "f": print,
            "timeout": 10,
        }
    writer.close()


def run(code: str, stage: dict[str, Any]) -> object:
    return eval(MEANT.get(code, code), dict(stage))


def test_what_is_looked_for_is_an_error(stage: dict[str, Any]) -> None:
    looked_for = [code for left, _ in rows_of_the_page() for code in left if code not in WORDS]
    assert len(looked_for) >= 20
    for code in looked_for:
        with pytest.raises((TypeError, AttributeError, candleshm.CandleShmError)):
            run(code, stage)


def test_what_is_to_be_called_instead_runs(stage: dict[str, Any]) -> None:
    called = [code for _, right in rows_of_the_page() for code in right if code not in WORDS]
    assert len(called) >= 20
    for code in called:
        run(code, stage)
