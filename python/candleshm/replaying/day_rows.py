"""Stored days as rows with states, given to the core span by span, so that a year does not lie in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import DayIncomplete
from candleshm.history.block import with_states
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.day import Day
from candleshm.history.store import ParquetStore
from candleshm.replaying.lives import Absent, Life
from candleshm.row_state import RowState

__all__ = ["DayRows", "RowsTaker"]

# Of a symbol so many rows are given in one go, and whole days: a day of 1m, two months of 1h.
ROWS_AT_ONCE = 1440
DAY_MS = INTERVAL_MS["1d"]
READERS = 2
"""Threads that read days while those before are replayed; most of it is done without the GIL."""
_Rows: TypeAlias = tuple[Candles, npt.NDArray[np.uint8], int]


class RowsTaker(Protocol):
    """What takes the rows: the core's `Replay`."""

    def give(self, symbol: str, rows: Candles, states: npt.NDArray[np.uint8]) -> None:
        """Take base candles, ascending."""

    def give_inside(self, symbol: str, rows: Candles) -> None:
        """Take 1s candles, ascending."""


@dataclass(frozen=True)
class _Ahead:
    """Days that are being read."""

    first_ms: int
    """Open time of their first candle."""
    rows: list[tuple[str, Future[_Rows]]]


class DayRows:
    """The rows of several symbols inside bounds: given when they are needed, read while those before are used.

    With `absent` "accept" candles may be missing, and `missing` counts them. To be closed: threads read.
    """

    def __init__(
        self,
        store: ParquetStore,
        lives: Mapping[str, Life],
        days: Sequence[Day],
        bounds: tuple[int, int],
        absent: Absent = "raise",
    ) -> None:
        """Name the days, and the first and the last open time, excluded; nothing is read."""
        self.missing = 0
        self.given_ms = bounds[0]
        """Up to here all rows were given."""
        self._store = store
        self._lives = lives
        at_once = max(1, -(-ROWS_AT_ONCE * INTERVAL_MS[store.interval] // DAY_MS))
        self._spans = [days[first : first + at_once] for first in range(0, len(days), at_once)]
        self._spans.reverse()
        self._bounds = bounds
        self._absent = absent
        self._readers = ThreadPoolExecutor(READERS, "candleshm-replay")
        self._ahead: _Ahead | None = None

    def give(self, taker: RowsTaker, *, is_inside: bool = False) -> int:
        """Give the rows of the next days, and return up to when all are given now; no row is given twice.

        Raises DayDamaged, DayIncomplete; DayNotFound, StoreUnavailable for a file that is gone since it was looked for.
        """
        ahead = self._ahead or self._read_ahead()
        if ahead is None:
            return self.given_ms
        ready = [(symbol, rows.result()) for symbol, rows in ahead.rows]
        self._ahead = self._read_ahead()
        self.given_ms = self._bounds[1] if self._ahead is None else self._ahead.first_ms
        for symbol, (rows, states, missing) in ready:
            self.missing += missing
            if is_inside:
                taker.give_inside(symbol, np.ascontiguousarray(rows[states != RowState.HOLE]))
            else:
                taker.give(symbol, rows, states)
        return self.given_ms

    @property
    def is_done(self) -> bool:
        """Whether all rows were given."""
        return self.given_ms >= self._bounds[1]

    def close(self) -> None:
        """End the reading. May be called twice."""
        self._readers.shutdown(cancel_futures=True)

    def _read_ahead(self) -> _Ahead | None:
        """Begin to read the next days of every symbol that has some; return None when there are no more days."""
        if not self._spans:
            return None
        days = self._spans.pop()
        ahead = _Ahead(self._first_ms(days[0]), [])
        for symbol, life in self._lives.items():
            if stored := [day for day in days if day.date in life.stored]:
                ahead.rows.append((symbol, self._readers.submit(self._known, symbol, stored)))
        return ahead

    def _known(self, symbol: str, days: Sequence[Day]) -> _Rows:
        """Return rows and holes of days that open inside the bounds, their states, and how many are missing."""
        start_ms, end_ms = self._bounds
        length_ms, missing = INTERVAL_MS[self._store.interval], 0
        parts = []
        for day in days:
            candles = self._store.read(symbol, day)
            gaps = [(max(start, start_ms), min(end, end_ms)) for start, end in candles.missing]
            gaps = [(start, end) for start, end in gaps if start < end]
            if gaps and self._absent == "raise":
                raise DayIncomplete(str(self._store.path(symbol, day)), tuple(gaps))
            missing += sum(end - start for start, end in gaps) // length_ms
            rows, states = with_states(_with_pauses(candles, self._lives[symbol]))
            places = rows[[0, -1], OPEN_TIME_MS] // length_ms * length_ms if len(rows) else np.empty(0)
            if len(places) and (places[0] < start_ms or places[1] >= end_ms):
                places = rows[:, OPEN_TIME_MS] // length_ms * length_ms
                inside = (places >= start_ms) & (places < end_ms)
                rows, states = rows[inside], states[inside]
            parts.append((rows, states))
        if len(parts) == 1:
            return (*parts[0], missing)
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([states for _, states in parts]), missing

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
