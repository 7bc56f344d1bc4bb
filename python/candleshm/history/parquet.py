"""A day as a Parquet file: twelve typed columns, zstd, page checksums, and what is known about the day as metadata.

Two checks guard a file. Every page has the CRC of the format, which other tools can check, too. And the
metadata holds a SHA-256 over itself and the values, so that a change anywhere, be it in a page, a schema or a range of
holes, is found when we read. There are no statistics: they would be a second copy of values that no checksum covers,
and other tools believe them.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any, cast

import numpy as np

from candleshm._core import MARKETS, Zone
from candleshm.columns import CLOSE_TIME_MS, NAMES, OPEN_TIME_MS
from candleshm.history.candles import SOURCES, Candles, DayCandles, as_spans
from candleshm.history.day import Day
from candleshm.reader.frames import library

__all__ = ["decode", "encode"]

FORMAT = 1
# A day of 25 hours of 1s.
ROWS_MAX = 90_000
ABOUT, CHECKSUM = b"candleshm", b"candleshm.sha256"
TIMES = (OPEN_TIME_MS, CLOSE_TIME_MS)


def encode(candles: DayCandles) -> bytes:
    """Return the file of a day. Raises MissingExtra without pyarrow."""
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    about = json.dumps(_about(candles), separators=(",", ":")).encode()
    checksum = _checksum(about, candles.rows)
    columns = [_column(pa, candles.rows, index) for index in range(len(NAMES))]
    table = pa.Table.from_arrays(columns, schema=_schema(pa))
    sink = pa.BufferOutputStream()
    # Values hardly repeat, so dictionaries only add to them; times are an arithmetic row. Without the Arrow schema,
    # which would hold the column types a second time. See docs/decisions/daily-files.md.
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=False,
        column_encoding={NAMES[index]: "DELTA_BINARY_PACKED" for index in TIMES},
        write_page_checksum=True,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({ABOUT: about, CHECKSUM: checksum})
    return cast(bytes, sink.getvalue().to_pybytes())


def decode(data: bytes) -> DayCandles:
    """Read the file of a day. Raises ValueError for what is not one, or not as it was written; MissingExtra.

    The size that a file states is checked before it is unpacked.
    """
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        # What is not nullable comes back with a value in every place.
        is_ours = file.schema_arrow.equals(_schema(pa)) and file.metadata.num_rows <= ROWS_MAX
        metadata = file.metadata.metadata or {}
        rows = _rows(file) if is_ours else None
    except Exception as error:  # What it raises of damaged bytes is not written anywhere, and changes.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"not a readable Parquet file ({reason})") from None
    if rows is None:
        raise ValueError("its columns are not those of a daily file, or too long for one")
    about, checksum = metadata.get(ABOUT), metadata.get(CHECKSUM)
    if about is None or checksum is None or checksum != _checksum(about, rows):
        raise ValueError("its content does not match its checksum")
    return _candles(about, rows)


def _rows(file: Any) -> Candles:
    table = file.read(use_threads=False)
    rows = np.empty((table.num_rows, len(NAMES)))
    for index in range(len(NAMES)):
        rows[:, index] = table.column(index).to_numpy()
    return rows


def _schema(pa: Any) -> Any:
    return pa.schema(
        [
            pa.field(name, pa.int64() if index in TIMES else pa.float64(), nullable=False)
            for index, name in enumerate(NAMES)
        ]
    )


def _column(pa: Any, rows: Candles, index: int) -> Any:
    values = np.ascontiguousarray(rows[:, index])
    return pa.array(values.astype(np.int64) if index in TIMES else values)


def _about(candles: DayCandles) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": version("candleshm"),
        "market": candles.market,
        "symbol": candles.symbol,
        "interval": candles.interval,
        "timezone": candles.day.zone.name,
        "day": str(candles.day),
        "source": candles.source,
        "fetched_ms": candles.fetched_ms,
        "complete": candles.is_complete,
        "holes": candles.holes,
        "outside": candles.outside,
        "missing": candles.missing,
        "verified": candles.verified,
    }


def _candles(written: bytes, rows: Candles) -> DayCandles:
    try:
        about = json.loads(written)
        if about["format"] != FORMAT:
            raise ValueError(f"written in format {about['format']}, this version reads {FORMAT}")
        if about["source"] not in SOURCES or about["market"] not in MARKETS:
            raise ValueError(f"unknown source or market: `{about['source']}`, `{about['market']}`")
        return DayCandles(
            market=about["market"],
            symbol=about["symbol"],
            interval=about["interval"],
            day=Day.parse(about["day"], Zone(about["timezone"])),
            rows=rows,
            source=about["source"],
            fetched_ms=int(about["fetched_ms"]),
            holes=as_spans(about["holes"]),
            outside=as_spans(about["outside"]),
            verified=as_spans(about["verified"]),
        )
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its metadata are incomplete ({type(error).__name__}: {error})") from None


def _checksum(about: bytes, rows: Candles) -> bytes:
    digest = hashlib.sha256(about)
    digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest().encode()
