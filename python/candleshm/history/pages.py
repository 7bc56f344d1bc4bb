"""Which pages to request: days that are wanted -> requests that buy most rows for their weight. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from candleshm._core import parse_klines
from candleshm.errors import BadResponse
from candleshm.exchanges.base import Price, Response
from candleshm.history.assembly import Assembly
from candleshm.history.candles import Candles

__all__ = ["Page", "pages_of", "rows_of"]


@dataclass(slots=True, eq=False)
class Page:
    """The newest `limit` candles that open before `end_ms`, for the days that some of them belong to."""

    symbol: str
    end_ms: int
    limit: int
    days: Sequence[Assembly]
    not_before_seconds: float = 0.0
    failures: int = field(default=0)
    stops: int = field(default=0)


def pages_of(days: Iterable[Assembly], slots: int, looked_ms: int = 0) -> list[Page]:
    """Cut what is not requested yet of `days`, all of one symbol, into pages of so many slots, newest first.

    A page reaches across days and months, and across days that are complete, so that none is requested half empty: a
    day of 1d has one row, a page of SPOT 1000. Its limit ends with the oldest slot that is wanted. What a page would
    hold of days before `looked_ms` is not known yet: such a page is left for a later call.
    """
    pages: list[Page] = []
    waiting = sorted((day for day in days if day.is_uncut), key=lambda day: day.grid.first_ms, reverse=True)
    while waiting:
        end_ms, length_ms = waiting[0].uncut_ms, waiting[0].grid.length_ms
        first_ms = end_ms - slots * length_ms
        if first_ms < looked_ms:
            break
        touched = [day for day in waiting if day.uncut_ms > first_ms]
        first_ms = max(first_ms, touched[-1].grid.first_ms)
        pages.append(Page(touched[0].symbol, end_ms, (end_ms - first_ms) // length_ms, touched))
        for day in touched:
            day.pages_left += 1
            day.uncut_ms = max(first_ms, day.grid.first_ms)
        waiting = [day for day in waiting if day.is_uncut]
    return pages


def rows_of(response: Response, price: Price = "trade") -> Candles:
    """Return the rows of a good response, ascending. Raises BadResponse: a row that cannot be true spoils all."""
    rows, refused = parse_klines(response.body, price)
    if refused:
        raise BadResponse(f"{refused} of {len(rows) + refused} rows have impossible values", status=response.status)
    return rows[np.argsort(rows[:, 0], kind="stable")]
