"""Stored days as rows with states, given to the core span by span, so that a year does not lie in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.history.block import with_states
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.day import Day
from candleshm.history.store import ParquetStore
from candleshm.replaying.lives import Life
from candleshm.row_state import RowState

__all__ = ["DayRows", "RowsTaker"]

# Of a symbol so many rows are given in one go, and whole days: a day of 1m, two months of 1h.
ROWS_AT_ONCE = 1440
DAY_MS = INTERVAL_MS["1d"]


class RowsTaker(Protocol):
    """What takes the rows: the core's `Replay`."""

    def give(self, symbol: str, rows: Candles, states: npt.NDArray[np.uint8]) -> None:
        """Take base candles, ascending."""

    def give_inside(self, symbol: str, rows: Candles) -> None:
        """Take 1s candles, ascending."""


class DayRows:
    """The rows of several symbols in `[start_ms, end_ms)`, read when they are needed.

    `missing` counts the candles that may exist and are not in the files.
    """

    def __init__(
        self, store: ParquetStore, lives: Mapping[str, Life], days: Sequence[Day], start_ms: int, end_ms: int
    ) -> None:
        """Name the days; nothing is read."""
        self.missing = 0
        self.given_ms = start_ms
        """Up to here all rows were given."""
        self._store = store
        self._lives = lives
        at_once = max(1, -(-ROWS_AT_ONCE * INTERVAL_MS[store.interval] // DAY_MS))
        self._spans = [days[first : first + at_once] for first in range(0, len(days), at_once)]
        self._spans.reverse()
        self._bounds = (start_ms, end_ms)

    def give(self, taker: RowsTaker, *, is_inside: bool = False) -> int:
        """Give the rows of the next days, and return up to when all are given now; no row is given twice.

        Raises DayDamaged, DayNotFound, StoreUnavailable for a file that changed since it was looked for.
        """
        if not self._spans:
            return self.given_ms
        days = self._spans.pop()
        for symbol, life in self._lives.items():
            known = [self._known(symbol, day) for day in days if day.date in life.stored]
            rows = np.concatenate([np.empty((0, len(NAMES))), *(rows for rows, _ in known)])
            states = np.concatenate([np.empty(0, np.uint8), *(states for _, states in known)])
            if not len(rows):
                continue
            if is_inside:
                taker.give_inside(symbol, np.ascontiguousarray(rows[states != RowState.HOLE]))
            else:
                taker.give(symbol, rows, states)
        self.given_ms = self._bounds[1] if not self._spans else self._first_ms(self._spans[-1][0])
        return self.given_ms

    def _known(self, symbol: str, day: Day) -> tuple[Candles, npt.NDArray[np.uint8]]:
        """Return the rows and holes of a day that open inside the bounds, by their place on the grid."""
        candles = self._store.read(symbol, day)
        start_ms, end_ms = self._bounds
        self.missing += sum(
            max(0, min(end, end_ms) - max(start, start_ms)) // candles.grid.length_ms for start, end in candles.missing
        )
        rows, states = with_states(_with_pauses(candles, self._lives[symbol]))
        length_ms = candles.grid.length_ms
        places = rows[:, OPEN_TIME_MS] // length_ms * length_ms
        inside = (places >= start_ms) & (places < end_ms)
        return rows[inside], states[inside]

    def _first_ms(self, day: Day) -> int:
        """Return the first open time of a day."""
        length_ms = INTERVAL_MS[self._store.interval]
        return -(-day.start_ms // length_ms) * length_ms


def _with_pauses(candles: DayCandles, life: Life) -> DayCandles:
    """Return a day where the times without trading inside the symbol's life are holes: it paused, and went on later."""
    first_ms, last_ms = life.listed_ms or 0, life.ended_ms
    pauses = tuple(span for span in candles.outside if span[0] >= first_ms and (last_ms is None or span[1] <= last_ms))
    if not pauses:
        return candles
    return DayCandles(
        market=candles.market,
        price=candles.price,
        symbol=candles.symbol,
        interval=candles.interval,
        day=candles.day,
        rows=candles.rows,
        source=candles.source,
        fetched_ms=candles.fetched_ms,
        holes=tuple(sorted((*candles.holes, *pauses))),
        outside=tuple(span for span in candles.outside if span not in pauses),
        verified=candles.verified,
    )
