"""Where candles open that are derived on request: the grid of an interval, moved by SPOT's `timeZone`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from candleshm.exchanges.base import DAY_MS, INTERVAL_MS

__all__ = ["Grid", "is_same_grid"]

MONDAY_MS = 4 * DAY_MS  # 1970-01-05


def is_same_grid(interval: str, zone_ms: int) -> bool:
    """Return whether the candles of an interval open at the same moments whatever the zone.

    >>> is_same_grid("1h", 8 * 3_600_000), is_same_grid("1d", 8 * 3_600_000), is_same_grid("1w", 0)
    (True, False, True)
    """
    length_ms = INTERVAL_MS[interval]
    return zone_ms == 0 or (length_ms <= DAY_MS and zone_ms % length_ms == 0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The open times of an interval. `anchor_ms` is one of those of `3d`, which each symbol has for itself."""

    interval: str
    zone_ms: int = 0
    anchor_ms: int = 0

    def floors_ms(self, moments_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the open times of the candles that contain these moments: int64 (m,)."""
        local_ms = moments_ms + self.zone_ms
        if self.interval == "1M":
            months = local_ms.astype("datetime64[ms]").astype("datetime64[M]")
            return months.astype("datetime64[ms]").astype(np.int64) - self.zone_ms
        anchor_ms = {"1w": MONDAY_MS, "3d": self.anchor_ms}.get(self.interval, 0)
        length_ms = INTERVAL_MS[self.interval]
        return local_ms - (local_ms - anchor_ms) % length_ms - self.zone_ms

    def floor_ms(self, moment_ms: int) -> int:
        """Return the open time of the candle that contains a moment."""
        return int(self.floors_ms(np.array([moment_ms], np.int64))[0])

    def end_ms(self, open_ms: int) -> int:
        """Return where the candle ends that opens at `open_ms`."""
        if self.interval == "1M":
            return self.floor_ms(open_ms + 31 * DAY_MS)
        return open_ms + INTERVAL_MS[self.interval]

    def ceil_ms(self, moment_ms: int) -> int:
        """Return the first open time that is not before a moment."""
        floor_ms = self.floor_ms(moment_ms)
        return floor_ms if floor_ms == moment_ms else self.end_ms(floor_ms)
