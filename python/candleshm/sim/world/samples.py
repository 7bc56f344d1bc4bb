"""Index, mark price and premium index of futures, as samples: pure functions of (seed, pair, time), in 1e-8 units.

Every five seconds the index is a basket of three exchanges, each of which strays from the path that all markets of a
coin follow. The mark price is the mean of the index over 30 seconds, times what the contract is worth above or below
the index. The premium is what the mark price is above the index, as a share of it. Index and mark price are sampled
once a second, so that five samples are the same; the premium is sampled when it changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from candleshm.sim.world.candles import CLOSE, COLUMNS, HIGH, LOW, OPEN, OPEN_MS, TRADES, Ints, empty
from candleshm.sim.world.grid import MINUTE_MS
from candleshm.sim.world.tape import (
    MINUTES_PER_DAY,
    MOMENTS,
    Voice,
    day_levels,
    day_path,
    draw_words,
)

SAMPLES: dict[str, int] = {"mark": 60, "index": 60, "premium": 12}
"""How many samples a minute has."""

_UNIT = 10**8
_CHANGES = 12  # of the index in a minute
_SMOOTHED = 6  # values of the index make one of the mark price
_BASKET = np.array([0.5, 0.3, 0.2])
_STRAY = 1.5  # how far an exchange of the basket strays, in standard deviations of one minute
_LANE = 7


@dataclass(frozen=True)
class Basket:
    """An index: the coin's path in 1e-8 units, and the key that draws how its exchanges stray from it.

    Values are those of some minutes, counted from the epoch, twelve a minute. ``worth`` is what a contract is worth,
    in indexes.
    """

    coin: Voice
    key: int

    @classmethod
    def of(cls, voice: Voice, price: float, key: int) -> Basket:
        """Return the index round ``price`` of a coin that trades as ``voice`` does."""
        return cls(replace(voice, level=price * _UNIT), key)

    def index(self, first_minute: int, minutes: int) -> Ints:
        """Return the index."""
        before, after = self._ends(first_minute, minutes)
        share = np.arange(1, _CHANGES + 1) / _CHANGES
        path = (before[:, None] + (after - before)[:, None] * share).reshape(-1)
        words = draw_words(self.key, first_minute * _CHANGES + np.arange(len(path), dtype=np.int64), _LANE)
        draws = words.astype("<u8", copy=False).view("<u2").reshape(-1, 4)[:, : len(_BASKET)]
        reach = self.coin.volatility * _STRAY
        index: Ints = np.rint(path * (draws @ (_BASKET * (reach / 65536)) + (1.0 - reach / 2))).astype(np.int64)
        return np.maximum(index, 1)

    def mark(self, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the mark price of a contract."""
        return _smoothed(self.index(first_minute - 1, minutes + 1), worth)

    def premium(self, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the premium of a contract."""
        index = self.index(first_minute - 1, minutes + 1)
        now = index[_CHANGES:]
        premium: Ints = np.rint((_smoothed(index, worth) - now) / now * _UNIT).astype(np.int64)
        return premium

    def values(self, kind: str, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the values of ``mark``, ``index`` or ``premium``, shape (minutes, 12)."""
        if kind == "index":
            values = self.index(first_minute, minutes)
        else:
            values = (self.mark if kind == "mark" else self.premium)(first_minute, minutes, worth)
        return values.reshape(minutes, _CHANGES)

    def _ends(self, first_minute: int, minutes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the path at the opening and at the end of each minute."""
        befores, afters = [], []
        end_minute = first_minute + minutes
        for day in range(first_minute // MINUTES_PER_DAY, -(-end_minute // MINUTES_PER_DAY)):
            after = day_path(self.coin, day)
            before = np.concatenate(([day_levels(self.coin, day)[0]], after[:-1]))
            low = max(first_minute - day * MINUTES_PER_DAY, 0)
            high = min(end_minute - day * MINUTES_PER_DAY, MINUTES_PER_DAY)
            befores.append(before[low:high])
            afters.append(after[low:high])
        return np.concatenate(befores), np.concatenate(afters)


def _smoothed(index: Ints, worth: float) -> Ints:
    """Return the mark price under an index whose first minute only precedes it."""
    sums = np.cumsum(index)
    means = sums[_CHANGES:] - sums[_CHANGES - _SMOOTHED : -_SMOOTHED]
    mark: Ints = np.rint(means * (worth / _SMOOTHED)).astype(np.int64)
    return np.maximum(mark, 1)


def minutes_of_values(kind: str, first_minute: int, values: Ints) -> Ints:
    """Return the candles of minutes, given their values: no volume, and as many trades as samples."""
    candles = empty(len(values))
    candles[OPEN_MS] = (first_minute + np.arange(len(values), dtype=np.int64)) * MINUTE_MS
    candles[OPEN], candles[CLOSE] = values[:, 0], values[:, -1]
    candles[HIGH], candles[LOW] = values.max(axis=1), values.min(axis=1)
    candles[TRADES] = SAMPLES[kind]
    return candles


def moments_of_values(kind: str, open_ms: Ints, values: Ints) -> Ints:
    """Return values as the moments of their minutes, shape (10, minutes, 480), as `moments_of_minutes` does."""
    per_minute = SAMPLES[kind]
    moments = np.zeros((COLUMNS, len(values), MOMENTS), dtype=np.int64)
    moments[OPEN_MS] = open_ms[:, None] + np.arange(MOMENTS) * (MINUTE_MS // MOMENTS)
    at = slice(None, None, MOMENTS // per_minute)
    moments[OPEN : CLOSE + 1, :, at] = np.repeat(values, per_minute // _CHANGES, axis=1)
    moments[TRADES, :, at] = 1
    return moments
