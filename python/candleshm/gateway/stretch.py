"""A stretch of a series: its rows, and from when to when nothing that the exchange has is missing among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm._core import Series, candle_end_ms
from candleshm.columns import CLOSE_TIME_MS, OPEN_TIME_MS
from candleshm.exchanges.base import Price
from candleshm.gateway.grid import Grid
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState

__all__ = ["ALL_MS", "NO_MOMENTS", "Absent", "Rows", "Stretch"]

Rows = npt.NDArray[np.float64]
Moments = npt.NDArray[np.int64]

# From here on means: from the symbol's first candle on.
ALL_MS = 0
NO_ROWS: Rows = np.empty((0, 12))
NO_MOMENTS: Moments = np.empty(0, np.int64)


class Absent(NamedTuple):
    """Why a stretch cannot answer a query."""

    kind: Literal["before", "after", "missing", "stale"]
    """It would need candles from before the stretch or from after it, one that is not fetched, or newer data."""
    at_ms: int
    """Which moment is concerned."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Rows of one interval, ascending, float64 (n, 12). All times are epoch ms."""

    interval: str
    rows: Rows
    start_ms: int
    """From here on all rows are known; `ALL_MS` when the symbol's first candle is among them."""
    end_ms: int
    """Where the newest candle that is known ends."""
    final_ms: int
    """Candles that end by then are final."""
    missing_ms: Moments
    """Open times of candles in between that are not fetched yet, ascending."""
    is_block: bool = False
    """Whether it ends where a block ends: what comes after that is newer than the block's data."""
    is_fresh: bool = False
    """Whether `end_ms` is where the exchange is as well, but for the age that is allowed."""
    price: Price = "trade"
    """What the prices of its rows are."""
    farthest: Literal["block", "derived", "files"] = "block"
    """The farthest source of its rows."""

    @classmethod
    def of_block(cls, feed: Feed, series: Series, *, is_derived: bool, is_fresh: bool) -> Self | None:
        """Return all that a block has of a series, None while that is nothing.

        In a derived block the first candle may be the first that could be derived.
        """
        slots, states = series.snapshot(holes="nan")
        if not len(slots):
            return None
        # The grid's open times: a row that an outage moved is looked for in its own place.
        opens_ms = slots[:, OPEN_TIME_MS].astype(np.int64)
        unsettled = np.flatnonzero(states == RowState.LIVE)
        end_ms = candle_end_ms(feed.interval, int(opens_ms[-1]))
        final_ms = int(opens_ms[unsettled[0]]) if len(unsettled) else end_ms
        is_whole = len(slots) < feed.length and not is_derived
        there = (states != RowState.HOLE) & (states != RowState.MISSING)
        return cls(
            interval=feed.interval,
            rows=np.ascontiguousarray(slots[there]),
            start_ms=ALL_MS if is_whole else int(opens_ms[0]),
            end_ms=end_ms,
            final_ms=final_ms,
            missing_ms=opens_ms[states == RowState.MISSING],
            is_block=True,
            is_fresh=is_fresh,
            price=feed.price,
            farthest="derived" if is_derived else "block",
        )

    def joined_to(self, older: Stretch) -> Stretch:
        """Return both as one: rows before `start_ms` of this one are those of `older`, which must reach so far."""
        cut = np.searchsorted(older.rows[:, OPEN_TIME_MS], self.start_ms)
        missing_ms = older.missing_ms[older.missing_ms < self.start_ms]
        return Stretch(
            interval=self.interval,
            rows=np.concatenate([older.rows[:cut], self.rows]),
            start_ms=older.start_ms,
            end_ms=self.end_ms,
            final_ms=self.final_ms,
            missing_ms=np.concatenate([missing_ms, self.missing_ms]),
            is_block=self.is_block,
            is_fresh=self.is_fresh,
            price=self.price,
            farthest=older.farthest,
        )

    def resampled(self, grid: Grid) -> Stretch:
        """Return the candles of a larger interval that are made of these, the newest one as far as it is known."""
        missing_ms = np.unique(grid.floors_ms(self.missing_ms)) if len(self.missing_ms) else NO_MOMENTS
        start_ms = self.start_ms if self.start_ms == ALL_MS else grid.ceil_ms(self.start_ms)
        end_ms = grid.end_ms(grid.floor_ms(self.end_ms - 1))
        local = self.rows.copy()
        local[:, (OPEN_TIME_MS, CLOSE_TIME_MS)] += grid.zone_ms
        anchor_ms = grid.anchor_ms if grid.interval == "3d" else None
        local_start_ms = None if self.start_ms == ALL_MS else start_ms + grid.zone_ms
        rows = _core.derive(
            local,
            self.interval,
            grid.interval,
            -(2**52) if local_start_ms is None else local_start_ms,
            end_ms + grid.zone_ms,
            anchor_ms,
            self.price,
        ).reshape(-1, 12)
        rows[:, (OPEN_TIME_MS, CLOSE_TIME_MS)] -= grid.zone_ms
        opens_ms = rows[:, OPEN_TIME_MS].astype(np.int64)
        final_ms = grid.floor_ms(self.final_ms)
        for place in np.flatnonzero(opens_ms >= final_ms):
            # A candle in progress ends on the grid.
            rows[place, CLOSE_TIME_MS] = grid.end_ms(int(opens_ms[place])) - 1
        return Stretch(
            interval=grid.interval,
            rows=rows[~np.isin(opens_ms, missing_ms)],
            start_ms=start_ms,
            end_ms=end_ms,
            final_ms=final_ms,
            missing_ms=missing_ms,
            is_block=self.is_block,
            is_fresh=self.is_fresh,
            price=self.price,
            farthest="derived" if self.farthest == "block" else self.farthest,
        )

    def choose(self, grid: Grid, low_ms: int | None, high_ms: int | None, limit: int, *, newest: bool) -> Rows | Absent:
        """Return the newest or the oldest `limit` rows that open in [low_ms, high_ms], or why that cannot be known."""
        opens_ms = self.rows[:, OPEN_TIME_MS]
        first = 0 if low_ms is None else int(np.searchsorted(opens_ms, low_ms))
        last = len(opens_ms) if high_ms is None else int(np.searchsorted(opens_ms, high_ms, side="right"))
        is_full = last - first >= limit
        if is_full:
            first, last = (last - limit, last) if newest else (first, first + limit)
        rows = self.rows[first : max(first, last)]
        # A candle that an outage moved off the grid may open behind `low_ms` in the place before it.
        from_ms = ALL_MS if low_ms is None else grid.floor_ms(low_ms)
        to_ms = high_ms
        if is_full and newest:
            from_ms = int(rows[0, OPEN_TIME_MS])
        elif is_full:
            to_ms = int(rows[-1, OPEN_TIME_MS])
        if low_ms is not None and high_ms is not None and high_ms < low_ms:
            return NO_ROWS
        if from_ms < self.start_ms:
            return Absent("before", self.start_ms)
        between = self.missing_ms[self.missing_ms >= grid.floor_ms(from_ms)]
        between = between if to_ms is None else between[between <= to_ms]
        if len(between):
            return Absent("missing", int(between[0]))
        # Candles that could open up to the end of the range, but are not known to.
        if (to_ms is None or to_ms >= self.final_ms) and not self.is_fresh:
            return Absent("stale" if self.is_block else "after", self.final_ms)
        return rows
