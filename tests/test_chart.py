"""The chart of `read --chart`: what each column shows, and that it fits."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm.columns import CLOSE, HIGH, LOW, OPEN, OPEN_TIME_MS, VOLUME
from candleshm.commands.chart import PLAIN, Chart
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from tests.support.commanding import first_line, run, serving, started, until

MINUTE_MS = 60_000


def chart(*candles: tuple[float, float, float, float] | None, states: list[RowState] | None = None) -> Chart:
    """Return a chart of (open, high, low, close); None is a slot without a row."""
    rows = np.full((len(candles), 12), np.nan)
    rows[:, OPEN_TIME_MS] = np.arange(len(candles)) * MINUTE_MS
    for row, candle in zip(rows, candles, strict=True):
        if candle is not None:
            row[[OPEN, HIGH, LOW, CLOSE]] = candle
            row[VOLUME] = 1.0
    return Chart(rows, np.array(states or [RowState.CLOSED] * len(candles), np.uint8))


def column(lines: list[str], index: int, height: int) -> str:
    return "".join(line[index : index + 1] or " " for line in lines[:height])


def test_a_candle_is_a_body_between_wicks_thin_when_it_rises_and_full_when_it_falls() -> None:
    lines = chart((2, 8, 0, 6), (6, 8, 0, 2)).lines(8, coloured=False, plain=False)
    assert column(lines, 0, 8) == "││┃┃┃┃╿│"
    assert column(lines, 1, 8) == "││████▀│"


def test_what_the_exchange_has_not_and_what_is_missing_are_told_apart() -> None:
    states = [RowState.CLOSED, RowState.HOLE, RowState.MISSING, RowState.LIVE]
    lines = chart((1, 2, 0, 1), None, None, (1, 2, 0, 1), states=states).lines(5, coloured=False, plain=False)
    assert column(lines, 1, 5).strip() == column(lines, 2, 5).strip() == ""
    assert lines[-2] == " ·?  · the exchange has none, ? missing"
    assert lines[-1].endswith("(live)")


def test_without_rows_it_says_so() -> None:
    assert chart().lines(5, coloured=False, plain=False) == ["no candles yet"]
    assert chart(None, None).lines(5, coloured=False, plain=False) == ["no candles yet"]


def test_every_character_has_one_of_ascii_in_its_place() -> None:
    lines = chart((2, 8, 0, 6), (6, 8, 0, 2), None, states=[RowState.CLOSED, RowState.LIVE, RowState.HOLE]).lines(
        8, coloured=False, plain=True
    )
    assert "".join(lines).isascii()
    assert all(chr(character).isascii() for character in PLAIN.values())


@given(
    st.lists(st.tuples(*[st.floats(1e-8, 1e9)] * 4), min_size=1, max_size=60),
    st.integers(5, 30),
)
def test_any_candles_fit_and_fill_their_columns(prices: list[tuple[float, float, float, float]], height: int) -> None:
    candles = [(opened, max(four), min(four), closed) for four in prices for opened, _, _, closed in [four]]
    lines = chart(*candles).lines(height, coloured=False, plain=False)
    assert len(lines) == height + 3
    for index in range(len(candles)):
        assert column(lines, index, height).strip()


@pytest.mark.parametrize("columns", ["30", "200"])
def test_read_draws_as_many_candles_as_fit_in_any_encoding(block_name: str, columns: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, started(*serving(exchange, block_name)) as process:
        first_line(process)
        environment = {**os.environ, "COLUMNS": columns, "LINES": "20", "PYTHONIOENCODING": "ascii"}
        until(lambda: "volume" in run("read", block_name, "BTCUSDT", "--chart", env=environment).stdout)
        shown = run("read", block_name, "BTCUSDT", "--chart", env=environment).stdout
    title, *lines = shown.splitlines()
    assert title.startswith("BTCUSDT  SPOT 1m")
    assert len(lines) == 16
    assert max(map(len, lines)) <= int(columns)
