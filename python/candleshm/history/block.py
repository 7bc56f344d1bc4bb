"""Between daily files and blocks: a day out of a block, and days into one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from candleshm._core import Feed
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import DayDamaged, DayNotFound, StaleData, UnknownSymbol
from candleshm.history.candles import Candles, DayCandles, Span, slots_of, spans_of
from candleshm.history.day import Day, Grid
from candleshm.history.store import DayStore
from candleshm.row_state import RowState

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["day_of_block", "load_days", "with_states"]

logger = logging.getLogger(__name__)


def day_of_block(feed: Feed, symbol: str, day: Day, now_ms: int) -> DayCandles | None:
    """Return a day of a block when every row of it is closed, verified or a hole there; else None.

    `now_ms` is the exchange's time. A day that reaches below the window, or below the symbol's first candle, is not
    all there: of such a day the exchange knows more.
    """
    grid = Grid.of(day, feed.interval)
    try:
        rows, states = feed[symbol].snapshot(closed_only=True, holes="nan")
    except (StaleData, UnknownSymbol):
        return None
    slots = slots_of(rows, grid)
    mine = (slots >= 0) & (slots < grid.count)
    states = states[mine]
    if len(states) != grid.count or not np.isin(states, (RowState.CLOSED, RowState.VERIFIED, RowState.HOLE)).all():
        return None
    return DayCandles(
        market=feed.market,
        price=feed.price,
        symbol=symbol,
        interval=feed.interval,
        day=day,
        rows=np.ascontiguousarray(rows[mine][states != RowState.HOLE]),
        source="block",
        fetched_ms=now_ms,
        holes=spans_of(states == RowState.HOLE, grid),
        verified=spans_of(states == RowState.VERIFIED, grid),
    )


def load_days(
    writer: Writer, store: DayStore, symbols: Iterable[str], days: Sequence[Day], stopping: threading.Event
) -> int:
    """Put what is stored of these days into a block, and return the number of rows that were new to it.

    A damaged file is named and left out; a download, or the next daily run, replaces it. Raises StoreUnavailable.
    """
    loaded = 0
    for symbol in symbols:
        for day in days:
            if stopping.is_set():
                return loaded
            try:
                candles = store.read(symbol, day)
            except DayNotFound:
                continue
            except DayDamaged as error:
                logger.warning("%s; left out", error)
                continue
            if candles.source == "csv":
                continue  # the predecessor stored rows before they were final, and its files do not show which
            rows, states = with_states(candles)
            writer.heartbeat()  # there may be thousands of files
            loaded += writer.load_rows(symbol, rows, states, sent_ms=candles.fetched_ms).changed
    return loaded


def with_states(candles: DayCandles) -> tuple[Candles, npt.NDArray[np.uint8]]:
    """Return the rows and holes of a day as a block gives them: holes as grid open time and NaN, and every state.

    The rows of a whole day are those of `candles` themselves, which may not be writeable.
    """
    grid = candles.grid
    if len(candles.rows) == grid.count:
        states = np.full(grid.count, RowState.CLOSED, np.uint8)
        _mark(states, grid, candles.verified, RowState.VERIFIED)
        return candles.rows, states
    rows = np.full((grid.count, candles.rows.shape[1]), np.nan)
    rows[:, OPEN_TIME_MS] = grid.first_ms + np.arange(grid.count) * grid.length_ms
    states = np.full(grid.count, RowState.EMPTY, np.uint8)
    slots = slots_of(candles.rows, grid)
    rows[slots], states[slots] = candles.rows, RowState.CLOSED
    _mark(states, grid, candles.verified, RowState.VERIFIED)
    _mark(states, grid, candles.holes, RowState.HOLE)
    known = states != RowState.EMPTY
    return rows[known], states[known]


def _mark(states: npt.NDArray[np.uint8], grid: Grid, spans: Iterable[Span], state: RowState) -> None:
    for start_ms, end_ms in spans:
        states[(start_ms - grid.first_ms) // grid.length_ms : (end_ms - grid.first_ms) // grid.length_ms] = state
