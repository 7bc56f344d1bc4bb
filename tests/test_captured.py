"""Rows that the exchange really sent, from body to reader: each value is the float of its text, each hole is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE_TIME_MS, IGNORE, OPEN_TIME_MS, TRADES

DATA = Path(__file__).parent / "data" / "captured"
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
FILES = sorted(path.stem for path in DATA.glob("*.json"))


def floats(body: bytes) -> np.ndarray:
    """Return the rows as Python's own parsers read them, the column to be ignored as 0."""
    rows = np.array([[float(value) for value in row] for row in json.loads(body)])
    rows[:, IGNORE] = 0
    return rows


@contextmanager
def served(name: str, file: str, length: int = 200) -> Iterator[tuple[_core.Writer, candleshm.Series, bytes]]:
    """Merge a file as one answer, received a year later; yield writer, series and body."""
    market, symbol, interval = file.split("_")[0].upper(), *file.replace("BTCUSD_PERP", "BTCUSD-PERP").split("_")[1:3]
    body = (DATA / f"{file}.json").read_bytes()
    writer = _core.Writer.open(name, market=market, interval=interval, length=length, symbols=[symbol])  # type: ignore[arg-type]
    try:
        merge(writer, symbol, body)
        with candleshm.attach(name) as feed:
            yield writer, feed[symbol], body
    finally:
        writer.close()


def merge(writer: _core.Writer, symbol: str, body: bytes, *, seconds: int = 0, limit: int = 1000) -> _core.Ingested:
    now_ms = int(floats(body)[-1, OPEN_TIME_MS]) + 365 * DAY_MS + seconds * 1000
    return writer.ingest(symbol, body, sent_ms=now_ms, received_ms=now_ms, settle_ms=1000, limit=limit, from_end=True)


def gaps(series: candleshm.Series) -> list[tuple[int, int, str]]:
    return [(gap.start_ms, gap.end_ms, gap.kind) for gap in series.gaps()]


def test_the_captures_are_there() -> None:
    assert len(FILES) == 12


@pytest.mark.parametrize("file", FILES)
def test_values_are_the_floats_of_their_text(block_name: str, file: str) -> None:
    with served(block_name, file) as (writer, series, body):
        merge(writer, series.symbol, body, seconds=2)
        expected = floats(body)
        rows = series.candles()
        assert rows.shape == expected.shape
        assert (rows.view(np.uint64) == expected.view(np.uint64)).all()
        assert series.states().tolist() == [2] * len(expected)
        view = series.view()
        there = view.array[~np.isnan(view.close)]
        assert (there == expected).all()
        assert view.complete == (gaps(series) == [])
        assert series.revision == 0


@pytest.mark.parametrize(
    ("file", "holes"),
    [
        ("spot_BTCUSDT_1h_2023-03-24", [("2023-03-24T13:00", 1)]),
        ("spot_BTCUSDT_2h_2017-09-06", [("2017-09-06T18:00", 2)]),
        ("spot_BTCUSDT_2h_2018-02-07", [("2018-02-08T02:00", 16)]),
        ("spot_BTCUSDT_1d_2018-02-01", []),
        ("spot_BTCUSDT_3d", []),
        ("spot_LINKUSDT_1M", []),
        ("cm_BTCUSD_PERP_1m_2022-10-25", []),
    ],
)
def test_outage_is_missing_first_and_a_hole_once_confirmed(
    block_name: str, file: str, holes: list[tuple[str, int]]
) -> None:
    step_ms = {"1h": HOUR_MS, "2h": 2 * HOUR_MS}.get(file.split("_")[2], 0)
    expected = []
    for start, count in holes:
        start_ms = int(np.datetime64(start, "ms").astype(np.int64))
        expected.append((start_ms, start_ms + count * step_ms))
    with served(block_name, file) as (writer, series, body):
        oldest_ms = int(floats(body)[0, OPEN_TIME_MS])
        assert [gap for gap in gaps(series) if gap[0] >= oldest_ms] == [(*gap, "missing") for gap in expected]
        merge(writer, series.symbol, body, seconds=2)
        # Nothing older came either time, so the history begins with the oldest row.
        assert gaps(series) == [(*gap, "hole") for gap in expected]
        assert series.candles(holes="nan").shape[0] == len(floats(body)) + sum(count for _, count in holes)


def test_close_time_cut_short_by_an_outage_is_kept_as_sent(block_name: str) -> None:
    with served(block_name, "spot_BTCUSDT_2h_2017-09-06") as (_, series, _):
        rows = series.candles()
        cut = rows[rows[:, CLOSE_TIME_MS] != rows[:, OPEN_TIME_MS] + 2 * HOUR_MS - 1]
        assert cut.shape[0] == 1
        assert cut[0, CLOSE_TIME_MS] == cut[0, OPEN_TIME_MS]


def test_candles_without_trades_are_candles(block_name: str) -> None:
    with served(block_name, "cm_BTCUSD_PERP_1m_2022-10-25") as (_, series, _):
        rows = series.candles()
        quiet = rows[rows[:, TRADES] == 0]
        assert len(quiet) > 0
        assert (quiet[:, 1:5] == quiet[:, 1:2]).all()


def test_each_symbol_has_its_own_3d_grid(block_name: str) -> None:
    bodies = {symbol: (DATA / f"spot_{symbol}_3d.json").read_bytes() for symbol in ("BTCUSDT", "LINKUSDT", "DOTUSDT")}
    writer = _core.Writer.open(block_name, market="SPOT", interval="3d", length=50, symbols=list(bodies))
    try:
        with candleshm.attach(block_name) as feed:
            for symbol, body in bodies.items():
                merge(writer, symbol, body)
                merge(writer, symbol, body, seconds=2)
                assert feed[symbol].gaps() == []
                assert (feed[symbol].candles(holes="raise") == floats(body)).all()
            phases = {symbol: int(feed[symbol].candles(1)[0, OPEN_TIME_MS] // DAY_MS % 3) for symbol in bodies}
            assert phases == {"BTCUSDT": 1, "LINKUSDT": 2, "DOTUSDT": 0}
    finally:
        writer.close()


def test_off_grid_open_times_fall_into_their_minute_and_are_kept_as_sent(block_name: str) -> None:
    # After the outage of 2018-02-08 rows opened at 14.789 s past the minute, as published for many symbols.
    first_ms = int(np.datetime64("2018-02-09T10:00:14.789", "ms").astype(np.int64))
    rows = [
        [
            first_ms + minute * 60_000,
            "1",
            "2",
            "0.5",
            "1.5",
            "3",
            first_ms + minute * 60_000 + 59_999,
            "4",
            5,
            "1",
            "2",
            "0",
        ]
        for minute in range(3)
    ]
    on_grid_ms = first_ms - 14_789 + 3 * 60_000
    rows.append([on_grid_ms, "1", "2", "0.5", "1.5", "3", on_grid_ms + 59_999, "4", 5, "1", "2", "0"])
    body = json.dumps(rows).encode()
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"])
    try:
        merge(writer, "BTCUSDT", body)
        merge(writer, "BTCUSDT", body, seconds=2)
        with candleshm.attach(block_name) as feed:
            series = feed["BTCUSDT"]
            assert series.gaps() == []
            assert (series.candles() == floats(body)).all()
    finally:
        writer.close()


@pytest.mark.parametrize("cut", [1, 2, 60, 1000])
def test_truncated_body_changes_nothing_and_names_the_byte(block_name: str, cut: int) -> None:
    with served(block_name, "spot_ETHUSDT_1m_2022-08-14") as (writer, series, body):
        before = series.candles()
        broken = body.rstrip()[:-cut]
        with pytest.raises(candleshm.BadResponse) as caught:
            merge_raw(writer, series.symbol, broken)
        assert caught.value.offset == len(broken)
        assert f"byte {len(broken)}" in str(caught.value)
        assert (series.candles() == before).all()


def merge_raw(writer: _core.Writer, symbol: str, body: bytes) -> _core.Ingested:
    return writer.ingest(symbol, body, sent_ms=2 * 10**12, received_ms=2 * 10**12, settle_ms=0, limit=1000)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>banned</html>", b'{"code":-1121,"msg":"Invalid symbol."}', b"[[1,2,3]]", b"null", b"[] []"],
)
def test_body_that_is_no_array_of_klines_is_refused_whole(block_name: str, body: bytes) -> None:
    with (
        served(block_name, "spot_ETHUSDT_1m_2022-08-14") as (writer, series, _),
        pytest.raises(candleshm.BadResponse, match="byte"),
    ):
        merge_raw(writer, series.symbol, body)


def test_row_that_cannot_be_true_is_left_out_and_the_others_stand(block_name: str) -> None:
    with served(block_name, "spot_ETHUSDT_1m_2022-08-14") as (writer, series, body):
        rows = json.loads(body)
        good = rows[-1].copy()
        broken = [good.copy() for _ in range(4)]
        broken[0][4] = "NaN"
        broken[1][2], broken[1][3] = "1", "2"
        broken[2][5] = "-1"
        broken[3][0] += 10 * 365 * DAY_MS
        for minute, row in enumerate([*broken, good], start=1):
            row[0] += minute * 60_000
            row[6] = row[0] + 59_999
        ingested = merge(writer, series.symbol, json.dumps([*rows, *broken, good]).encode())
        assert (ingested.refused, ingested.beyond, ingested.changed) == (4, 1, 1)
        assert series.last_open_time_ms == good[0]
