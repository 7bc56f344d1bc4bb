"""The exchange's interval grids: where candles open, in UTC milliseconds.

Up to 1d the grid is the epoch's multiples; 1w opens on Mondays and 1M on the first of the month. 3d has no common
grid: it is anchored at the symbol's first trading day. A time zone offset (SPOT's ``timeZone``) moves the grid only.

The collector's lengths and grids come from the Rust core. Here the same rules are written a second time on purpose: a
simulated exchange that used the core would agree with any mistake in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

# The epoch was a Thursday; the Monday before it lies three days back.
_MONDAY_ANCHOR_MS = -3 * DAY_MS

FIXED_MS: dict[str, int] = {
    "1s": SECOND_MS,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
}
INTERVALS = (*FIXED_MS, "1M")


def _month_start_ms(month: int) -> int:
    """Return the opening time of a month, counted from January 1970."""
    return int(np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64))


@dataclass(frozen=True)
class Grid:
    """The open times of one interval for one symbol. ``anchor_ms`` is any open time; months need none."""

    interval: str
    anchor_ms: int = 0
    zone_ms: int = 0

    @classmethod
    def of(cls, interval: str, listed_ms: int = 0, zone_ms: int = 0) -> Grid:
        """Return the grid of ``interval`` for a symbol first traded at ``listed_ms``. Raises KeyError."""
        if interval == "1M":
            return cls(interval, 0, zone_ms)
        step_ms = FIXED_MS[interval]
        anchor_ms = {"3d": listed_ms // DAY_MS * DAY_MS, "1w": _MONDAY_ANCHOR_MS}.get(interval, 0)
        return cls(interval, (anchor_ms - zone_ms) % step_ms, zone_ms)

    @property
    def step_ms(self) -> int:
        """Return the length of a candle; months have none. Raises KeyError."""
        return FIXED_MS[self.interval]

    def floor(self, time_ms: int) -> int:
        """Return the opening time of the candle that contains ``time_ms``."""
        if self.interval == "1M":
            month = int(np.datetime64(time_ms + self.zone_ms, "ms").astype("datetime64[M]").astype(np.int64))
            return _month_start_ms(month) - self.zone_ms
        return time_ms - (time_ms - self.anchor_ms) % FIXED_MS[self.interval]

    def shift(self, open_ms: int, candles: int) -> int:
        """Return the opening time ``candles`` further on (negative: back)."""
        if self.interval == "1M":
            month = int(np.datetime64(open_ms + self.zone_ms, "ms").astype("datetime64[M]").astype(np.int64))
            return _month_start_ms(month + candles) - self.zone_ms
        return open_ms + candles * FIXED_MS[self.interval]

    def floors(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return `floor` of every element."""
        if self.interval == "1M":
            months = (times_ms + self.zone_ms).astype("datetime64[ms]").astype("datetime64[M]")
            return months.astype("datetime64[ms]").astype(np.int64) - self.zone_ms
        return times_ms - (times_ms - self.anchor_ms) % FIXED_MS[self.interval]

    @property
    def of_whole_days(self) -> bool:
        """Return whether every candle consists of whole UTC days, so that day candles are enough to build it."""
        step_ms = FIXED_MS.get(self.interval, DAY_MS)
        return step_ms % DAY_MS == 0 and self.anchor_ms % DAY_MS == 0 and self.zone_ms % DAY_MS == 0
