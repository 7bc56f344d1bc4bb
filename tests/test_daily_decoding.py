"""Daily files in the core: it reads what candleshm writes as pyarrow does, and has nothing to say of anything else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from candleshm import history
from candleshm._core import read_daily
from candleshm.columns import CLOSE, CLOSE_TIME_MS, NAMES, OPEN, OPEN_TIME_MS, VOLUME
from candleshm.errors import DayDamaged, MissingExtra
from candleshm.history import day_file, parquet
from candleshm.history.candles import Candles
from tests.support.days import candles_of, day_of, rows_of, store_in, written

TIMES = parquet.CANDLES.times
RARE = [0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.5, 0.1 + 0.2]


def read_by_pyarrow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Candles]:
    """Read a file as if the core had nothing to say of it."""
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "read_daily", lambda _: None)
        about, rows, _ = parquet.unpacked(data)
    return about, rows


def file_of(interval: str = "1h", days: int = 1) -> bytes:
    """Return a file of so many days, with values that are seldom in the first rows."""
    candles = [candles_of(day_of(f"2026-11-{number + 1:02}"), interval=interval) for number in range(days)]
    first = candles[0].rows.copy()
    first[: len(RARE), VOLUME] = RARE[: len(first)]
    candles[0] = candles_of(candles[0].day, interval=interval, rows=first)
    return day_file.encode(candles, "day" if days == 1 else "month")


@pytest.mark.parametrize(("interval", "days"), [("1s", 1), ("1m", 1), ("15m", 30), ("1h", 1), ("12h", 30)])
def test_core_and_pyarrow_read_the_same_bits(interval: str, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(interval, days)
    about, rows = read_by_pyarrow(data, monkeypatch)
    read = read_daily(data)
    assert read is not None
    assert json.loads(read[0]) == about
    assert read[1].shape == rows.shape
    assert read[1].tobytes() == rows.tobytes()


def test_times_off_the_grid_and_far_apart_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(7).random((5000, len(NAMES)))
    for column in (OPEN_TIME_MS, CLOSE_TIME_MS):
        steps = np.random.default_rng(column).integers(-(2**40), 2**40, len(rows))
        rows[:, column] = np.cumsum(steps)
    data = parquet.packed({"of": "times"}, rows)
    read = read_daily(data)
    assert read is not None
    assert read[1].tobytes() == rows.tobytes() == read_by_pyarrow(data, monkeypatch)[1].tobytes()


@pytest.mark.parametrize(("interval", "days"), [("1h", 1), ("12h", 7)])
def test_a_flipped_bit_is_found_or_means_nothing_to_pyarrow_either(
    interval: str, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(interval, days)
    whole = read_daily(data)
    assert whole is not None
    found = 0
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            read = read_daily(bytes(flipped))
            found += read is None
            if read is not None:
                assert (read[0], read[1].tobytes()) == (whole[0], whole[1].tobytes()), (position, bit)
                assert read_by_pyarrow(bytes(flipped), monkeypatch)[1].tobytes() == whole[1].tobytes()
    assert found > 8 * len(data) * 0.8


def test_a_cut_or_longer_file_is_none() -> None:
    data = file_of()
    assert all(read_daily(data[:size]) is None for size in range(len(data)))
    assert read_daily(data + b"\0") is None
    assert read_daily(b"") is None


def signed(rows: Candles, about: dict[str, Any], schema: pa.Schema | None = None, **options: Any) -> bytes:
    """Write rows as another program could, with our metadata."""
    text = json.dumps(about).encode()
    schema = schema or parquet._schema(pa, parquet.CANDLES)
    whole = [pa.array(rows[:, column].astype(np.int64 if column in TIMES else np.float64)) for column in range(12)]
    arrays = [values.cast(field.type, safe=False) for values, field in zip(whole, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    sink = pa.BufferOutputStream()
    ours: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": False,
        "column_encoding": {NAMES[index]: "DELTA_BINARY_PACKED" for index in TIMES},
        "write_page_checksum": True,
        "write_statistics": False,
        "store_schema": False,
    }
    size = options.pop("row_group_size", None)
    with pq.ParquetWriter(sink, table.schema, **(ours | options)) as writer:
        writer.write_table(table, row_group_size=size)
        writer.add_key_value_metadata({parquet.ABOUT: text, parquet.CHECKSUM: parquet._checksum(text, rows)})
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True, "column_encoding": None},
        {"column_encoding": None},
        {"compression": "snappy"},
        {"compression": "none"},
        {"write_page_checksum": False},
        {"write_statistics": True},
        {"data_page_version": "2.0"},
        {"row_group_size": 5},
    ],
    ids=str,
)
def test_another_form_is_left_to_pyarrow(options: dict[str, Any], tmp_path: Path) -> None:
    day = day_of("2026-11-03")
    rows, about = rows_of(day), day_file._about([candles_of(day)], "day")
    ours = read_daily(signed(rows, about))
    assert ours is not None
    assert ours[1].tobytes() == rows.tobytes()
    data = signed(rows, about, **options)
    assert read_daily(data) is None
    store = store_in(tmp_path)
    written(store, candles_of(day))
    store.path("BTCUSDT", day).write_bytes(data)
    assert store.read("BTCUSDT", day).rows.tobytes() == rows.tobytes()


def test_small_pages_are_read(tmp_path: Path) -> None:
    day = day_of("2026-11-03")
    rows, about = rows_of(day), day_file._about([candles_of(day)], "day")
    data = signed(rows, about, data_page_size=1000, write_batch_size=50)
    read = read_daily(data)
    assert read is not None
    assert read[1].tobytes() == rows.tobytes()


def test_columns_that_are_not_those_of_candles_are_none() -> None:
    day = day_of("2026-11-03")
    rows, about = rows_of(day), day_file._about([candles_of(day)], "day")
    right = parquet._schema(pa, parquet.CANDLES)
    for wrong in (
        right.set(OPEN, pa.field("opened", pa.float64(), nullable=False)),
        right.set(OPEN, pa.field("open", pa.float64(), nullable=True)),
        right.set(OPEN, pa.field("open", pa.float32(), nullable=False)),
        right.set(OPEN_TIME_MS, pa.field("open_time_ms", pa.timestamp("ms"), nullable=False)),
        right.set(OPEN, right.field(CLOSE)).set(CLOSE, right.field(OPEN)),
    ):
        assert read_daily(signed(rows, about, wrong)) is None
    assert read_daily(signed(rows, about, right)) is not None


def test_only_another_form_and_damage_need_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    path = store.path("BTCUSDT", day)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        rows = history.load("SPOT", "BTCUSDT", "2026-11-03", "2026-11-03", base_dir=tmp_path)
        assert rows.tobytes() == rows_of(day).tobytes()
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(MissingExtra, match=r"pip install '\.\[parquet\]'"):
            store.read("BTCUSDT", day)
    with pytest.raises(DayDamaged, match="damaged: not a readable Parquet file"):
        store.read("BTCUSDT", day)
