"""Rows as the exchange's JSON: captured bodies come back, and every answer is whole or says what it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import OPEN_TIME_MS
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

DATA = Path(__file__).parent / "data" / "captured"
LENGTH = 16
SPOT = (2, 5, 7, 8)


def open_ms(bar: int) -> int:
    return START_MS + bar * MINUTE_MS


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(
        block_name, market="SPOT", interval="1m", length=LENGTH, symbols=["BTCUSDT", "ETHUSDT"], spare_symbols=1
    )
    yield writer
    writer.close()


@pytest.fixture
def btc(writer: _core.Writer) -> Iterator[candleshm.Series]:
    with candleshm.attach(writer.name) as feed:
        yield feed["BTCUSDT"]


def fill(writer: _core.Writer, *bars: int, live: bool = True) -> None:
    """Let the exchange have had these candles; the last one is live, or ended a while ago."""
    rows = [kline(open_ms(bar), 100 + bar) for bar in bars]
    ingest(writer, "BTCUSDT", *rows, sent_ms=open_ms(bars[-1]) + (30_000 if live else 59_999 + 30_000), settle_ms=1000)


def confirm_holes(writer: _core.Writer, *bars: int) -> None:
    """Let two responses that reach over the holes why them."""
    rows = [kline(open_ms(bar), 100 + bar) for bar in bars]
    for second in (31, 40):
        sent_ms = open_ms(bars[-1]) + second * 1000
        ingest(writer, "BTCUSDT", *rows, sent_ms=sent_ms, settle_ms=1000, limit=len(rows))


def found(text: _core.KlinesText) -> list[int]:
    """Return the bars of an answer that is whole."""
    assert text.incomplete is None
    rows = json.loads(text.body)
    assert text.rows == len(rows)
    assert text.last_open_ms == (rows[-1][0] if rows else None)
    return [(row[0] - START_MS) // MINUTE_MS for row in rows]


def ask(
    series: candleshm.Series, low: int | None, high: int | None, limit: int = 1000, *, newest: bool = True
) -> _core.KlinesText:
    """Ask for the bars from low to high."""
    low_ms, high_ms = (None if bar is None else open_ms(bar) for bar in (low, high))
    return series.klines_text(low_ms, high_ms, limit, newest=newest, decimals=SPOT)


def why(text: _core.KlinesText) -> tuple[str | None, int | None]:
    """Return what an answer lacks, and the bar; it has no row then."""
    assert (text.body, text.rows, text.last_open_ms) == (b"", 0, None)
    assert text.incomplete is not None
    return text.incomplete, None if text.incomplete_ms is None else (text.incomplete_ms - START_MS) // MINUTE_MS


@pytest.mark.parametrize("file", sorted(path.stem for path in DATA.glob("*.json")))
def test_captured_bodies_come_back(file: str) -> None:
    sent = json.loads((DATA / f"{file}.json").read_bytes())
    rows, _ = _core.parse_klines(json.dumps(sent).encode())
    decimals = {column: [row[column].partition(".")[2] for row in sent] for column in (1, 5, 7)}
    price, lot, turnover = (len(decimals[column][0]) for column in (1, 5, 7))
    rules = (price, lot, turnover, 0)
    if file.startswith("spot"):
        # The exchange prints eight digits, of which tick and lot allow fewer.
        price, lot = (max(len(text.rstrip("0")) for text in decimals[column]) for column in (1, 5))
        rules = (price, lot, min(price + lot, 8), 8)
    orders: tuple[Literal["C", "F"], ...] = ("C", "F")
    for order in orders:
        body = _core.klines_text(np.asarray(rows, order=order), rules)
        assert b" " not in body
        for row, original in zip(json.loads(body), sent, strict=True):
            for column, (text, value) in enumerate(zip(row, original, strict=True)):
                if column < 11 and len(str(value).replace(".", "").lstrip("0").rstrip("0")) <= 15:
                    assert text == value, (column, text, value)
                else:
                    # More digits than a double keeps: the nearest decimal with as many.
                    assert abs(float(text) - float(value)) <= 1e-15 * float(value)
    shortest = json.loads(_core.klines_text(rows, None))
    assert [[float(value) for value in row] for row in shortest] == rows.tolist()


def test_rows_that_are_no_text() -> None:
    rows = np.ones((3, 12))
    assert _core.klines_text(rows[:0], None) == b"[]"
    for value in (np.nan, np.inf, -np.inf):
        rows[1, 4] = value
        with pytest.raises(candleshm.ConfigError, match="row 1 has a value that is not finite"):
            _core.klines_text(rows, None)
    with pytest.raises(candleshm.ConfigError, match="rows must have 12 columns: `11`"):
        _core.klines_text(rows[:, :11], None)
    for decimals in ((19, 0, 0, 0), (0, 0, 0, 400)):
        with pytest.raises(candleshm.ConfigError, match="four numbers of digits up to 18"):
            _core.klines_text(np.ones((1, 12)), decimals)


def test_a_body_has_the_digits_of_the_symbol(writer: _core.Writer, btc: candleshm.Series) -> None:
    fill(writer, 0, 1)
    assert btc.klines_text(None, None, 1, newest=True, decimals=SPOT).body == (
        b'[[1700000100000,"101.00000000","101.00000000","101.00000000","101.00000000","101.00000000",1700000159999,'
        b'"101.00000000",101,"101.00000000","101.00000000","0"]]'
    )
    assert btc.klines_text(None, None, 1, newest=True, decimals=(2, 0, 3, 0)).body == (
        b'[[1700000100000,"101.00","101.00","101.00","101.00","101",1700000159999,"101.000",101,"101","101.000","0"]]'
    )
    assert b'"101"' in btc.klines_text(None, None, 1, newest=True, decimals=None).body
    assert repr(btc.klines_text(None, None, 1, newest=True, decimals=SPOT)) == "<KlinesText of 1 rows>"
    with pytest.raises(candleshm.ConfigError, match="limit must be a positive integer: `0`"):
        ask(btc, 0, 1, 0)


def test_the_newest_and_the_oldest_of_a_range(writer: _core.Writer, btc: candleshm.Series) -> None:
    fill(writer, *range(21))
    # The window begins with bar 4; the live row is one more.
    assert found(ask(btc, 4, None)) == list(range(4, 21))
    assert found(ask(btc, 6, 9)) == [6, 7, 8, 9]
    assert found(ask(btc, 6, 9, 2)) == [8, 9]
    assert found(ask(btc, 6, 9, 2, newest=False)) == [6, 7]
    assert found(ask(btc, 9, 6)) == []
    assert found(ask(btc, 18, None, newest=False)) == [18, 19, 20]
    assert found(ask(btc, 18, 99)) == [18, 19, 20]
    assert found(ask(btc, 21, 99)) == found(ask(btc, 21, None, newest=False)) == []
    assert found(ask(btc, None, 5, 1)) == [5]
    between = btc.klines_text(open_ms(6) + 1, open_ms(9) - 1, 1000, newest=True, decimals=None)
    assert found(between) == [7, 8]
    assert found(btc.klines_text(open_ms(6), open_ms(6), 1000, newest=False, decimals=None)) == [6]
    assert ask(btc, 18, None).unsettled_open_ms == open_ms(20)
    assert ask(btc, 18, 19).unsettled_open_ms is None


def test_rows_older_than_the_window_make_an_answer_incomplete(writer: _core.Writer, btc: candleshm.Series) -> None:
    assert why(ask(btc, 0, 9)) == why(ask(btc, None, None, newest=False)) == ("before", None)
    fill(writer, *range(21))
    assert why(ask(btc, 3, None)) == why(ask(btc, 3, 7, 2, newest=False)) == ("before", 4)
    assert why(ask(btc, None, None)) == why(ask(btc, None, 9, 99)) == ("before", 4)
    assert why(ask(btc, 0, 3)) == why(ask(btc, None, -5)) == ("before", 4)
    assert repr(ask(btc, None, None)) == f"<KlinesText: before {open_ms(4)}>"
    # As many rows as were requested are there already.
    assert found(ask(btc, None, None, 17)) == list(range(4, 21))
    assert found(ask(btc, 0, 9, 6)) == list(range(4, 10))
    assert why(ask(btc, 0, 9, 7)) == ("before", 4)


def test_nothing_is_older_than_the_first_candle(writer: _core.Writer, btc: candleshm.Series) -> None:
    rows = [kline(open_ms(bar), 100 + bar) for bar in range(5, 9)]
    # The whole history fits into each of two responses.
    for second in (30, 40):
        ingest(writer, "BTCUSDT", *rows, sent_ms=open_ms(8) + second * 1000, settle_ms=1000, limit=1000)
    assert found(ask(btc, None, None)) == found(ask(btc, -100, None, newest=False)) == [5, 6, 7, 8]
    assert found(ask(btc, None, 4)) == found(ask(btc, -100, 4, newest=False)) == []
    # A derived block's first candle may only be the first that could be derived.
    for newest in (True, False):
        text = btc.klines_text(None, None, 1000, newest=newest, decimals=None, derived=True)
        assert why(text) == ("before", 5)
    assert found(btc.klines_text(open_ms(5), None, 1000, newest=True, decimals=None, derived=True)) == [5, 6, 7, 8]


def test_a_missing_row_counts_only_where_it_is_wanted(writer: _core.Writer, btc: candleshm.Series) -> None:
    fill(writer, *range(10), 12, 13)
    fill(writer, 12, 13)
    assert btc.gaps()
    assert why(ask(btc, 5, None)) == ("missing", 11)
    assert why(ask(btc, 5, None, newest=False)) == ("missing", 10)
    assert why(ask(btc, 5, 10)) == why(ask(btc, 10, 10)) == ("missing", 10)
    assert found(ask(btc, 5, 9)) == found(ask(btc, 5, 20, 5, newest=False)) == [5, 6, 7, 8, 9]
    assert found(ask(btc, 5, None, 2)) == [12, 13]
    assert why(ask(btc, 5, None, 3)) == ("missing", 11)


def test_holes_are_left_out_and_count_for_nothing(writer: _core.Writer, btc: candleshm.Series) -> None:
    fill(writer, *range(21), 23, 24)
    confirm_holes(writer, 19, 20, 23, 24)
    assert [gap.kind for gap in btc.gaps()] == ["hole"]
    assert found(ask(btc, 18, None)) == [18, 19, 20, 23, 24]
    assert found(ask(btc, 18, 30, 4)) == [19, 20, 23, 24]
    assert found(ask(btc, 19, 30, 3, newest=False)) == [19, 20, 23]
    assert found(ask(btc, 21, 22)) == []


def test_open_times_off_the_grid_are_compared_as_they_are(writer: _core.Writer, btc: candleshm.Series) -> None:
    off = 14_789
    rows = [kline(open_ms(bar) + (off if bar in (6, 8) else 0), 100 + bar) for bar in range(10)]
    ingest(writer, "BTCUSDT", *rows, sent_ms=open_ms(9) + 30_000, settle_ms=1000)

    def bars(low_ms: int, high_ms: int, limit: int = 1000, *, newest: bool) -> list[int]:
        return found(btc.klines_text(low_ms, high_ms, limit, newest=newest, decimals=None))

    for newest in (True, False):
        assert bars(open_ms(6), open_ms(8), newest=newest) == [6, 7]
        assert bars(open_ms(6) + off, open_ms(8) + off, newest=newest) == [6, 7, 8]
        assert bars(open_ms(6) + off + 1, open_ms(8) + off - 1, newest=newest) == [7]
        assert bars(open_ms(6) + off + 1, open_ms(8) + off - 1, 1, newest=newest) == [7]
    assert bars(open_ms(5), open_ms(8), 2, newest=True) == [6, 7]
    assert bars(open_ms(6) + off + 1, open_ms(9), 2, newest=False) == [7, 8]


def test_a_candle_that_ended_and_is_not_final_yet_is_told(writer: _core.Writer, btc: candleshm.Series) -> None:
    fill(writer, *range(10))
    rows = [kline(open_ms(bar), 100 + bar) for bar in (9, 10)]
    ingest(writer, "BTCUSDT", *rows, sent_ms=open_ms(10) + 100, settle_ms=60_000, limit=2)
    assert btc.states(2).tolist() == [1, 1]
    text = ask(btc, 7, None)
    assert found(text) == [7, 8, 9, 10]
    assert text.unsettled_open_ms == open_ms(9)


def test_random_ranges_of_random_series_beside_plain_python(block_name: str) -> None:
    random = Random(8)
    for round_ in range(30):
        name = f"{block_name}-{round_}"
        writer = _core.Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=["BTCUSDT"])
        with candleshm.attach(name) as feed:
            series = feed["BTCUSDT"]
            offsets = {bar: random.choice([0, 0, 0, 30_123]) for bar in range(60)}
            rows: dict[int, list[Any]] = {
                bar: kline(open_ms(bar) + offsets[bar], 100 + bar, MINUTE_MS - offsets[bar]) for bar in range(60)
            }
            absent = {bar for bar in range(1, 40) if random.random() < 0.25}
            newest = random.randrange(40, 44)
            sent_ms = open_ms(newest) + 31_000
            there = [rows[bar] for bar in range(newest + 1) if bar not in absent]
            responses = random.choice([1, 2])
            for second in range(responses):
                ingest(writer, "BTCUSDT", *there, sent_ms=sent_ms + 5000 * second, settle_ms=1000, limit=len(there))
            kind = "missing" if responses == 1 else "hole"
            assert {gap.kind for gap in series.gaps()} <= {kind}
            gaps = dict.fromkeys(absent, kind)
            start = newest - LENGTH
            for _ in range(200):
                off_ms = [random.choice([0, -1, 1, 30_123, 30_122]) for _ in range(2)]
                low_ms, high_ms = (open_ms(random.randrange(20, 50)) + off for off in off_ms)
                limit, from_end = random.randrange(1, 20), random.random() < 0.5
                check(series, rows, gaps, (start, newest), (low_ms, high_ms, limit), newest=from_end)
        writer.close()


def check(
    series: candleshm.Series,
    rows: dict[int, list[Any]],
    gaps: dict[int, str],
    window: tuple[int, int],
    request: tuple[int, int, int],
    *,
    newest: bool,
) -> None:
    """Compare one answer with what a loop over all candles gives."""
    low_ms, high_ms, limit = request
    start, end = window
    bars = [bar for bar in range(end + 1) if low_ms < open_ms(bar + 1) and open_ms(bar) <= high_ms]
    taken: list[int] = []
    incomplete = None
    for bar in reversed(bars) if newest else bars:
        if len(taken) == limit:
            break
        if bar < start or gaps.get(bar) == "missing":
            incomplete = ("before", start) if bar < start else ("missing", bar)
            break
        if bar not in gaps and low_ms <= rows[bar][OPEN_TIME_MS] <= high_ms:
            taken.append(bar)
    text = series.klines_text(low_ms, high_ms, limit, newest=newest, decimals=SPOT)
    assert (text.incomplete and why(text)) == incomplete, (request, newest)
    if incomplete is None:
        assert found(text) == sorted(taken)
