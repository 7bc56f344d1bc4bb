"""The witness and the judge of cluster tests: what readers saw is on record, and a lie is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candleshm.columns import QUOTE_VOLUME
from candleshm.sim import SimulatedExchange
from tests.support.collecting import collecting, until
from tests.support.final_rows import RECORD, Judge, witnessing

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def test_what_a_collector_shows_is_on_record_and_no_lie(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    judge = Judge(exchange, "SPOT", "1s", {f"{block_name}-1m": "1m"})
    names = [block_name, f"{block_name}-1m"]
    settings: dict[str, Any] = {"symbols": SYMBOLS, "interval": "1s", "length": 300, "derive": ["1m"]}
    with witnessing(tmp_path / "seen", names) as witness, collecting(exchange, block_name, **settings) as (_, feed):
        minute_ms = int(feed["BTCUSDT"].candles()[0, 0]) // 60_000 * 60_000 + 120_000
        until(lambda: {b"copy", b"close"} <= set(witness.records()["how"]))
        judge.restate("BTCUSDT", minute_ms)
        until(lambda: len({*witness.records()["block"]}) == 2 and len(witness.records()) > 600)
    records = witness.records()
    assert {*records["symbol"]} == {symbol.encode() for symbol in SYMBOLS}
    assert judge.lies(records) == []


@pytest.mark.parametrize("lie", ["value", "open time", "close"])
def test_a_lie_is_found(exchange: SimulatedExchange, lie: str) -> None:
    now_ms = exchange.now_ms() // 1000 * 1000 - 60_000
    rows = exchange.truth.floats("SPOT", "BTCUSDT", "1s", now_ms - 10_000, now_ms)
    records = np.zeros(len(rows) + 1, RECORD)
    records["block"], records["symbol"], records["how"] = b"a-block", b"BTCUSDT", b"copy"
    records["words"][:-1] = np.ascontiguousarray(rows).view(np.uint64)
    records["how"][-1], records["words"][-1, 0] = b"close", rows[0, :1].view(np.uint64)[0]
    judge = Judge(exchange, "SPOT", "1s")
    assert judge.lies(records) == []
    if lie == "value":
        records["words"][3, 4] += 1
    elif lie == "open time":
        records["words"][3, 0] = np.float64(rows[3, 0] + 1).view(np.uint64)
    else:
        records = np.append(records, records[-1:])
    found = judge.lies(records)
    assert found
    assert all("BTCUSDT" in each for each in found)


def test_readers_of_derived_blocks_see_the_same_although_sums_may_be_rounded(exchange: SimulatedExchange) -> None:
    minute_ms = exchange.now_ms() // 60_000 * 60_000 - 120_000
    true = exchange.truth.floats("SPOT", "BTCUSDT", "1m", minute_ms, minute_ms + 1)
    records = np.zeros(2, RECORD)
    records["block"], records["symbol"], records["how"] = [b"one-1m", b"two-1m"], b"BTCUSDT", b"copy"
    records["words"] = np.ascontiguousarray(true).view(np.uint64)
    judge = Judge(exchange, "SPOT", "1s", {"one-1m": "1m", "two-1m": "1m"})
    records["words"][:, QUOTE_VOLUME] += 1
    assert judge.lies(records) == []
    records["words"][0, QUOTE_VOLUME] += 1
    (found,) = judge.lies(records)
    assert "not the same in ['one-1m', 'two-1m']" in found
    records["words"][:, QUOTE_VOLUME] += 3
    assert len(judge.lies(records)) == 3


def test_what_was_right_before_a_correction_is_no_lie(exchange: SimulatedExchange) -> None:
    minute_ms = exchange.now_ms() // 60_000 * 60_000 - 120_000
    before = exchange.truth.floats("SPOT", "BTCUSDT", "1m", minute_ms, minute_ms + 1)
    records = np.zeros(1, RECORD)
    records["block"], records["symbol"], records["how"] = b"a-block", b"BTCUSDT", b"copy"
    records["words"] = before.view(np.uint64)
    honest, forgetful = (Judge(exchange, "SPOT", "1m") for _ in range(2))
    honest.restate("BTCUSDT", minute_ms)
    assert honest.lies(records) == []
    assert len(forgetful.lies(records)) == 1
