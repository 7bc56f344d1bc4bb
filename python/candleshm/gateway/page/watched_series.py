"""The candles of one series as the page draws them: all of them once, then what changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from candleshm._core import Series
from candleshm.columns import CLOSE, HIGH, LOW, OPEN, OPEN_TIME_MS, VOLUME

__all__ = ["WatchedSeries"]

# The newest of a longer window: more than any screen has columns of pixels for.
CANDLES_MAX = 5000
# Beyond this many changes all candles are sent again.
CHANGES_MAX = 500
DRAWN = (OPEN, HIGH, LOW, CLOSE, VOLUME)


class WatchedSeries:
    """One viewer's series. Belongs to one thread at a time."""

    def __init__(self, block: str, interval: str, series: Series) -> None:
        self._block = block
        self._interval = interval
        self._series = series
        self._rows: npt.NDArray[np.float64] = np.empty((0, 12))
        self._states: npt.NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def all(self) -> dict[str, Any]:
        """Return all candles. Raises UnknownSymbol, BlockNotFound."""
        self._rows, self._states = self._series.snapshot(CANDLES_MAX, holes="nan")
        return self._message(self._rows, self._states, whole=True)

    def changes(self) -> dict[str, Any] | None:
        """Return the candles that are new or differ, None when none do. Raises UnknownSymbol, BlockNotFound."""
        rows, states = self._series.snapshot(CANDLES_MAX, holes="nan")
        before_rows, before_states = self._rows, self._states
        self._rows, self._states = rows, states
        changed = _changed(before_rows, before_states, rows, states)
        if changed is None or len(changed) > CHANGES_MAX:
            return self._message(rows, states, whole=True)
        return self._message(rows[changed], states[changed], whole=False) if len(changed) else None

    def _message(self, rows: npt.NDArray[np.float64], states: npt.NDArray[np.uint8], *, whole: bool) -> dict[str, Any]:
        # Prices that are NaN, of rows that are absent, become null.
        open_, high, low, close, volume = (rows[:, column].tolist() for column in DRAWN)
        return {
            "k": "candles",
            "block": self._block,
            "symbol": self._series.symbol,
            "interval": self._interval,
            "whole": whole,
            "t": rows[:, OPEN_TIME_MS].astype(np.int64).tolist(),
            "o": open_,
            "h": high,
            "l": low,
            "c": close,
            "v": volume,
            "s": states.tolist(),
        }


def _changed(
    before_rows: npt.NDArray[np.float64],
    before_states: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.float64],
    states: npt.NDArray[np.uint8],
) -> npt.NDArray[np.intp] | None:
    """Return the places of rows that are new or differ; None when the two have nothing to compare."""
    if not len(rows):
        return np.empty(0, dtype=np.intp) if not len(before_rows) else None
    if not len(before_rows) or rows[0, OPEN_TIME_MS] < before_rows[0, OPEN_TIME_MS]:
        return None
    gone = int(np.searchsorted(before_rows[:, OPEN_TIME_MS], rows[0, OPEN_TIME_MS]))
    both = min(len(before_rows) - gone, len(rows))
    if both <= 0:
        return None
    old, new = before_rows[gone : gone + both], rows[:both]
    differs = before_states[gone : gone + both] != states[:both]
    for column in (OPEN_TIME_MS, *DRAWN):
        differs |= (old[:, column] != new[:, column]) & ~(np.isnan(old[:, column]) & np.isnan(new[:, column]))
    return np.concatenate([np.flatnonzero(differs), np.arange(both, len(rows))])
