"""Rows as a Parquet file: typed columns, zstd, page checksums, and what is known about the rows as metadata.

Two checks guard a file. Every page has the CRC of the format, which other tools can check, too. And the
metadata holds a SHA-256 over itself and the values, so that a change anywhere, be it in a page, a schema or a range of
holes, is found when we read. There are no statistics: they would be a second copy of values that no checksum covers,
and other tools believe them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from candleshm._core import read_daily
from candleshm.columns import CLOSE_TIME_MS, NAMES, OPEN_TIME_MS
from candleshm.reader.frames import library

__all__ = ["CANDLES", "Columns", "packed", "unpacked"]

# A day of 25 hours of 1s; a month of 15m and a year of 1d have fewer.
ROWS_MAX = 90_000
ABOUT, CHECKSUM = b"candleshm", b"candleshm.sha256"

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """The columns of numbers of a file: those of `times` are int64, the others float64; none is nullable."""

    names: Sequence[str]
    times: frozenset[int]
    text: str = ""
    """Name of one more column, of text; empty for none."""


CANDLES = Columns(NAMES, frozenset({OPEN_TIME_MS, CLOSE_TIME_MS}))


def packed(about: Mapping[str, object], rows: Rows, columns: Columns = CANDLES, texts: Sequence[str] = ()) -> bytes:
    """Return a file of float64 rows (n, columns), and what is known about them. Raises MissingExtra without pyarrow.

    `texts` is the column of text, where there is one.
    """
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    text = json.dumps({**about, "version": version("candleshm")}, separators=(",", ":")).encode()
    checksum = _checksum(text, rows, texts)
    arrays = [_array(pa, rows, index, columns) for index in range(len(columns.names))]
    if columns.text:
        arrays.append(pa.array(texts, pa.string()))
    table = pa.Table.from_arrays(arrays, schema=_schema(pa, columns))
    sink = pa.BufferOutputStream()
    # Values hardly repeat, so dictionaries only add to them; times are an arithmetic row. Without the Arrow schema,
    # which would hold the column types a second time. See docs/decisions/daily-files.md.
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=False,
        column_encoding={columns.names[index]: "DELTA_BINARY_PACKED" for index in columns.times},
        write_page_checksum=True,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({ABOUT: text, CHECKSUM: checksum})
    return cast(bytes, sink.getvalue().to_pybytes())


def unpacked(data: bytes, columns: Columns = CANDLES) -> tuple[dict[str, Any], Rows, list[str]]:
    """Return what is known about the rows of a file, the rows, and the column of text.

    Files of candles in the form that `packed` gives them are read by the core, which has no verdict on others; pyarrow
    reads these, and says what is wrong with them. Raises ValueError for what is no such file, or not as it was written;
    MissingExtra. The size that a file states is checked before it is unpacked.
    """
    ours = read_daily(data) if columns is CANDLES else None
    if ours is not None:
        return _about(ours[0]), ours[1], []
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        # What is not nullable comes back with a value in every place.
        is_ours = file.schema_arrow.equals(_schema(pa, columns)) and file.metadata.num_rows <= ROWS_MAX
        metadata = file.metadata.metadata or {}
        rows, texts = _read(file, columns) if is_ours else (None, [])
    except Exception as error:  # What it raises of damaged bytes is not written anywhere, and changes.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"not a readable Parquet file ({reason})") from None
    if rows is None:
        raise ValueError("its columns are not those of a daily file, or too long for one")
    text, checksum = metadata.get(ABOUT), metadata.get(CHECKSUM)
    if text is None or checksum is None or checksum != _checksum(text, rows, texts):
        raise ValueError("its content does not match its checksum")
    return _about(text), rows, texts


def _about(text: bytes) -> dict[str, Any]:
    """Return what is known about the rows. Raises ValueError."""
    try:
        return dict(json.loads(text))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"its metadata are incomplete ({type(error).__name__}: {error})") from None


def _read(file: Any, columns: Columns) -> tuple[Rows, list[str]]:
    table, count = file.read(use_threads=False), len(columns.names)
    rows = np.empty((table.num_rows, count))
    for index in range(count):
        rows[:, index] = table.column(index).to_numpy()
    return rows, table.column(count).to_pylist() if columns.text else []


def _schema(pa: Any, columns: Columns) -> Any:
    fields = [
        pa.field(name, pa.int64() if index in columns.times else pa.float64(), nullable=False)
        for index, name in enumerate(columns.names)
    ]
    return pa.schema([*fields, *([pa.field(columns.text, pa.string(), nullable=False)] if columns.text else [])])


def _array(pa: Any, rows: Rows, index: int, columns: Columns) -> Any:
    values = np.ascontiguousarray(rows[:, index])
    return pa.array(values.astype(np.int64) if index in columns.times else values)


def _checksum(about: bytes, rows: Rows, texts: Sequence[str] = ()) -> bytes:
    digest = hashlib.sha256(about)
    digest.update(np.ascontiguousarray(rows).tobytes())
    digest.update("".join(f"{text}\n" for text in texts).encode())
    return digest.hexdigest().encode()
