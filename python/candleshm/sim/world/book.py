"""The order book of a symbol round its last price: a function of seed, price and second, one level on every tick."""

from __future__ import annotations

import numpy as np

from candleshm.sim.world.candles import Ints
from candleshm.sim.world.tape import Voice, draw_words

_LANE = 6


def levels(voice: Voice, prices: Ints, second: int) -> Ints:
    """Return the lots that wait at each price during a second."""
    words = draw_words(voice.key, prices + (second << 32), _LANE)
    return 1 + (((words & np.uint64(0xFF)).astype(np.int64) * voice.lots) >> 5)


def book(voice: Voice, last: int, second: int, depth: int) -> tuple[Ints, Ints]:
    """Return bids and asks, best first, shape (2, n): price in ticks and lots. No bid is below one tick."""
    steps = np.arange(1, depth + 1, dtype=np.int64)
    bids = last - steps[: max(last - 1, 0)]
    asks = last - 1 + steps
    return np.stack([bids, levels(voice, bids, second)]), np.stack([asks, levels(voice, asks, second)])
