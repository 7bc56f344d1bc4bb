"""Klines bodies to feed a writer with, and rows whose every value tells which write they came from."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm.columns import CLOSE_TIME_MS, IGNORE, OPEN_TIME_MS

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000
"""A full minute."""

VALUE_COLUMNS = [column for column in range(12) if column not in (OPEN_TIME_MS, CLOSE_TIME_MS, IGNORE)]


def kline(open_ms: int, value: float, step_ms: int = MINUTE_MS) -> list[object]:
    """Return a kline with `value` in every column that is not a time."""
    text = f"{value:.8f}"
    close_ms = open_ms + step_ms - 1
    return [open_ms, text, text, text, text, text, close_ms, text, int(value), text, text, "0"]


def body_of(*klines: list[object]) -> bytes:
    """Return the response body that holds these klines."""
    return json.dumps(klines).encode()


def ingest(
    writer: _core.Writer,
    symbol: str,
    *klines: list[object],
    sent_ms: int,
    settle_ms: int = 0,
    limit: int = 1000,
    end_ms: int | None = None,
) -> _core.Ingested:
    """Merge klines as the response to a request for the newest rows, sent at `sent_ms` and received at once."""
    return writer.ingest(
        symbol,
        body_of(*klines),
        sent_ms=sent_ms,
        received_ms=sent_ms,
        settle_ms=settle_ms,
        limit=limit,
        end_ms=end_ms,
        from_end=True,
    )


def torn_rows(rows: npt.NDArray[np.float64]) -> int:
    """Return how many rows hold values of more than one write."""
    values = rows[:, VALUE_COLUMNS]
    return int(
        np.count_nonzero((values[:, :-3] != values[:, :1]).any(axis=1) | (values[:, -2:] != values[:, :1]).any(axis=1))
    )
