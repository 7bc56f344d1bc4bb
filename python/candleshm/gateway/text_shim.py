"""Stand-ins for what the core is about to have: text of rows, and the exchange's clock of a block."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from candleshm._core import Series
from candleshm.columns import OPEN_TIME_MS
from candleshm.gateway.precision import Decimals
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState

__all__ = ["KlinesText", "exchange_ms_of", "klines_text", "series_text"]


class KlinesText(NamedTuple):
    """Rows as the exchange's JSON."""

    body: bytes
    rows: int
    last_open_ms: int | None
    lacking: Literal["missing", "before"] | None
    lacking_ms: int | None


def exchange_ms_of(feed: Feed) -> int | None:
    """Return the exchange's time as the collector of a block measured it."""
    read = getattr(feed, "exchange_ms", None)
    return None if read is None else read()


def klines_text(rows: npt.NDArray[np.float64], decimals: Decimals | None) -> bytes:
    """Return rows as the exchange's JSON array."""

    def number(value: float, digits: int) -> str:
        if decimals is None:
            return np.format_float_positional(value, trim="-")
        text = f"{value:.{digits}f}"
        if decimals.padded_to > digits:
            text += ("" if digits else ".") + "0" * (decimals.padded_to - digits)
        return text

    price, lot, turnover = decimals[:3] if decimals else (0, 0, 0)
    parts = []
    for row in rows.tolist():
        o, h, low, c = (number(value, price) for value in row[1:5])
        v, b = number(row[5], lot), number(row[9], lot)
        q, bq = number(row[7], turnover), number(row[10], turnover)
        parts.append(
            f'[{int(row[0])},"{o}","{h}","{low}","{c}","{v}",{int(row[6])},"{q}",{int(row[8])},"{b}","{bq}","0"]'
        )
    return f"[{','.join(parts)}]".encode()


def series_text(
    series: Series, low_ms: int | None, high_ms: int | None, limit: int, *, newest: bool, decimals: Decimals | None
) -> KlinesText:
    """Return the rows of a range, and whether one of them is not there."""
    slots, states = series.snapshot(holes="nan")
    opens = slots[:, OPEN_TIME_MS]
    wanted = np.ones(len(slots), bool)
    if low_ms is not None:
        wanted &= opens >= low_ms
    if high_ms is not None:
        wanted &= opens <= high_ms
    chosen = np.flatnonzero(wanted & (states != RowState.HOLE))
    is_cut = len(chosen) > limit
    chosen = (chosen[-limit:] if newest else chosen[:limit]) if is_cut else chosen
    rows = slots[chosen]
    missing = chosen[states[chosen] == RowState.MISSING]
    lacking, lacking_ms = None, None
    is_first_known = len(slots) < _length(series)
    reaches_back = (low_ms is None or not len(slots) or low_ms < opens[0]) and not (newest and is_cut)
    if reaches_back and newest and len(chosen) == limit:
        reaches_back = False
    if len(missing):
        lacking, lacking_ms = "missing", int(opens[missing[0]])
    elif reaches_back and not is_first_known:
        lacking, lacking_ms = "before", low_ms
    last_ms = int(rows[-1, OPEN_TIME_MS]) if len(rows) else None
    return KlinesText(klines_text(rows, decimals), len(rows), last_ms, lacking, lacking_ms)  # type: ignore[arg-type]


def _length(series: Series) -> int:
    from candleshm.reader.feed import attach

    name = series.__reduce__()[1][0]  # type: ignore[index]
    with attach(name) as feed:
        return feed.length
