"""Index, mark price and premium index of futures, as samples: pure functions of (seed, pair, time), in 1e-8 units.

Once a second the index is a basket of three exchanges, each of which strays from the path that all markets of a coin
follow. The mark price is the mean of the index over 30 seconds, times what the contract is worth above or below the
index. Every five seconds the premium is what the mark price is above the index, as a share of it.
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
    bits_of,
    day_levels,
    day_path,
    draw_words,
)

SAMPLES: dict[str, int] = {"mark": 60, "index": 60, "premium": 12}
"""How many samples a minute has."""

_UNIT = 10**8
_SECONDS = 60
_SMOOTHED_SECONDS = 30
_BASKET = (0.5, 0.3, 0.2)
_STRAY = 1.5  # how far an exchange of the basket strays, in standard deviations of one minute
_LANE = 7


@dataclass(frozen=True)
class Basket:
    """An index: the coin's path in 1e-8 units, and the key that draws how its exchanges stray from it."""

    coin: Voice
    key: int

    @classmethod
    def of(cls, voice: Voice, price: float, key: int) -> Basket:
        """Return the index round ``price`` of a coin that trades as ``voice`` does."""
        return cls(replace(voice, level=price * _UNIT), key)

    def index(self, first_minute: int, minutes: int) -> Ints:
        """Return the index in each second of some minutes, counted from the epoch; shape (minutes * 60,)."""
        before, after = self._ends(first_minute, minutes)
        share = np.arange(1, _SECONDS + 1) / _SECONDS
        path = (before[:, None] + (after - before)[:, None] * share).reshape(-1)
        words = draw_words(self.key, first_minute * _SECONDS + np.arange(len(path), dtype=np.int64), _LANE)
        strays = sum(weight * (bits_of(words, 16 * at, 16) / 65536 - 0.5) for at, weight in enumerate(_BASKET))
        index: Ints = np.rint(path * (1.0 + strays * (self.coin.volatility * _STRAY))).astype(np.int64)
        return np.maximum(index, 1)

    def mark(self, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the mark price in each second of a contract worth ``worth`` times the index."""
        sums = np.cumsum(self.index(first_minute - 1, minutes + 1))
        means = (sums[_SECONDS:] - sums[_SECONDS - _SMOOTHED_SECONDS : -_SMOOTHED_SECONDS]) / _SMOOTHED_SECONDS
        return np.maximum(np.rint(means * worth).astype(np.int64), 1)

    def premium(self, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the premium every five seconds."""
        step = _SECONDS // SAMPLES["premium"]
        index = self.index(first_minute, minutes)[::step]
        return np.rint((self.mark(first_minute, minutes, worth)[::step] - index) / index * _UNIT).astype(np.int64)

    def samples(self, kind: str, first_minute: int, minutes: int, worth: float) -> Ints:
        """Return the samples of some minutes, shape (minutes, `SAMPLES` of the kind)."""
        if kind == "index":
            values = self.index(first_minute, minutes)
        else:
            values = (self.mark if kind == "mark" else self.premium)(first_minute, minutes, worth)
        return values.reshape(minutes, SAMPLES[kind])

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


def minutes_of_samples(first_minute: int, samples: Ints) -> Ints:
    """Return the candles of minutes, given their samples: no volume, and as many trades as samples."""
    count, per_minute = samples.shape
    candles = empty(count)
    candles[OPEN_MS] = (first_minute + np.arange(count, dtype=np.int64)) * MINUTE_MS
    candles[OPEN], candles[CLOSE] = samples[:, 0], samples[:, -1]
    candles[HIGH], candles[LOW] = samples.max(axis=1), samples.min(axis=1)
    candles[TRADES] = per_minute
    return candles


def moments_of_samples(open_ms: Ints, samples: Ints) -> Ints:
    """Return samples as the moments of their minutes, shape (10, minutes, 480), as `moments_of_minutes` does."""
    count, per_minute = samples.shape
    moments = np.zeros((COLUMNS, count, MOMENTS), dtype=np.int64)
    moments[OPEN_MS] = open_ms[:, None] + np.arange(MOMENTS) * (MINUTE_MS // MOMENTS)
    at = slice(None, None, MOMENTS // per_minute)
    moments[OPEN : CLOSE + 1, :, at] = samples
    moments[TRADES, :, at] = 1
    return moments
