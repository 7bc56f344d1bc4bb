"""1m closes beside the 5m candle that was known then, nothing later. Live, in a replay and over history; see worlds.py:

`python examples/multi_interval_asof.py --live candleshm-spot-1m candleshm-spot-5m`
"""

from collections.abc import Sequence

import numpy as np
import worlds

import candleshm

WINDOW = 30


def signals(closes: np.ndarray, trend: np.ndarray) -> list[str]:
    """Compare the newest of (30, S) closes of 1m with the close of 5m that was known beside each of them, (30, S)."""
    share = np.mean(closes > trend, axis=0)  # a hole is not above
    return ["above" if x > 0.6 else "below" if x < 0.4 else "between" for x in share]


def moments_of(open_time_ms: int) -> np.ndarray:
    """Return when the last 30 candles of 1m ended: a candle is known at its end."""
    return open_time_ms + worlds.MINUTE_MS * np.arange(2 - WINDOW, 2)


def on_closes(feeds: Sequence[candleshm.Feed]) -> worlds.Signals:
    """Wait for closes of 1m; the block of 5m is derived from the same candles, and published with them."""
    minutes, fives = feeds
    for closed in minutes.closes():
        closes = worlds.closes_until(minutes, closed.open_time_ms, WINDOW)
        trend = fives.asof("close", moments_of(closed.open_time_ms), symbols=minutes.symbols)
        for symbol, signal in zip(minutes.symbols, signals(closes, trend), strict=True):
            yield closed.open_time_ms, symbol, signal


def on_history(panels: Sequence[candleshm.Panel]) -> worlds.Signals:
    """Slide over both panels; that of 5m is derived from the files of 1m."""
    minutes, fives = panels
    for end in range(WINDOW, len(minutes.array) + 1):
        open_time_ms = int(minutes.open_time_ms[end - 1])
        trend = fives.asof(moments_of(open_time_ms))
        for symbol, signal in zip(minutes.symbols, signals(minutes.array[end - WINDOW : end], trend), strict=True):
            yield open_time_ms, symbol, signal


if __name__ == "__main__":
    worlds.run(__doc__, on_closes, on_history, derive=["5m"])
