"""Which pages to request: days that are wanted -> requests that buy most rows for their weight. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from candleshm._core import parse_klines
from candleshm.errors import BadResponse
from candleshm.exchanges.base import Response
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


def pages_of(days: Iterable[Assembly], limit: int) -> Iterator[Page]:
    """Yield the pages that hold every slot of `days`, all of one symbol, newest page first.

    Days that follow one another share pages, so that none is requested half empty: a day of 1m has 1440 rows, a page
    of SPOT 1000.
    """
    run: list[Assembly] = []
    for day in sorted(days, key=lambda day: day.grid.first_ms, reverse=True):
        if day.grid.count == 0:
            continue
        if run and run[-1].grid.first_ms != day.grid.end_ms:
            yield from _cut(run, limit)
            run = []
        run.append(day)
    if run:
        yield from _cut(run, limit)


def _cut(run: Sequence[Assembly], limit: int) -> Iterator[Page]:
    """Cut adjoining days, newest first, into pages."""
    length_ms = run[0].grid.length_ms
    end_ms, start_ms = run[0].grid.end_ms, run[-1].grid.first_ms
    while end_ms > start_ms:
        first_ms = max(start_ms, end_ms - limit * length_ms)
        touched = [day for day in run if day.grid.first_ms < end_ms and first_ms < day.grid.end_ms]
        yield Page(run[0].symbol, end_ms, limit, touched)
        end_ms = first_ms


def rows_of(response: Response) -> Candles:
    """Return the rows of a good response, ascending. Raises BadResponse: a row that cannot be true spoils all."""
    rows, refused = parse_klines(response.body)
    if refused:
        raise BadResponse(f"{refused} of {len(rows) + refused} rows have impossible values", status=response.status)
    return rows[np.argsort(rows[:, 0], kind="stable")]
