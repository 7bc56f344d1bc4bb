"""Candles as columns of integers, shape (10, n), and the exchange's rule for making big ones of small ones.

Prices are in ticks, volumes in lots, turnover in ticks times lots (CM: 1e-8 coin). Sums are exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

OPEN_MS, OPEN, HIGH, LOW, CLOSE, VOLUME, QUOTE, TRADES, BUY_VOLUME, BUY_QUOTE = range(10)
COLUMNS = 10

_FAR = np.iinfo(np.int64).max


def empty(count: int = 0) -> Ints:
    """Return ``count`` candles of zeros."""
    return np.zeros((COLUMNS, count), dtype=np.int64)


def flat(open_ms: Ints, close: int) -> Ints:
    """Return candles without a trade at the previous close."""
    candles = empty(len(open_ms))
    candles[OPEN_MS] = open_ms
    candles[OPEN : CLOSE + 1] = close
    return candles


def fold(candles: Ints, open_ms: Ints) -> Ints:
    """Aggregate candles that share an element of ``open_ms`` (ascending, one per candle).

    Candles without a trade do not give open, high or low; a window of nothing else is flat at its last close.
    """
    if candles.shape[1] == 0:
        return candles
    first = np.flatnonzero(np.diff(open_ms, prepend=open_ms[0] - 1))
    traded = candles[TRADES] > 0
    out = empty(len(first))
    out[OPEN_MS] = open_ms[first]
    out[CLOSE] = candles[CLOSE, np.append(first[1:], len(open_ms)) - 1]
    out[HIGH] = np.maximum.reduceat(np.where(traded, candles[HIGH], -_FAR), first)
    out[LOW] = np.minimum.reduceat(np.where(traded, candles[LOW], _FAR), first)
    index = np.arange(len(open_ms))
    first_traded = np.minimum.reduceat(np.where(traded, index, len(open_ms)), first)
    any_traded = first_traded < len(open_ms)
    out[OPEN] = candles[OPEN, np.where(any_traded, first_traded, 0)]
    out[VOLUME:] = np.add.reduceat(candles[VOLUME:], first, axis=1)
    out[OPEN:CLOSE, ~any_traded] = out[CLOSE, ~any_traded]
    return out


def grow(candles: Ints, size: int) -> Ints:
    """Return for every candle what `fold` makes of its window up to it; windows are ``size`` candles long.

    Candles without a trade carry the price before them, as `fold` expects.
    """
    parts = candles.reshape(COLUMNS, -1, size)
    traded = parts[TRADES] > 0
    any_traded = np.logical_or.accumulate(traded, axis=1)
    first = np.argmax(traded, axis=1)[:, None]
    out = np.empty_like(parts)
    out[OPEN_MS] = parts[OPEN_MS, :, :1]
    out[CLOSE] = parts[CLOSE]
    out[OPEN] = np.where(any_traded, np.take_along_axis(parts[OPEN], first, axis=1), parts[CLOSE])
    highs = np.maximum.accumulate(np.where(traded, parts[HIGH], -_FAR), axis=1)
    lows = np.minimum.accumulate(np.where(traded, parts[LOW], _FAR), axis=1)
    out[HIGH] = np.where(any_traded, highs, parts[CLOSE])
    out[LOW] = np.where(any_traded, lows, parts[CLOSE])
    out[VOLUME:] = np.cumsum(parts[VOLUME:], axis=2)
    return out.reshape(COLUMNS, -1)
