"""A pair that drifts apart: sell the dear one, buy the cheap one. Live, in a replay and over history; see worlds.py:

`python examples/pairs.py --replay candles --symbols BTCUSDT,ETHUSDT --start 2026-11-02 --end 2026-11-27`
"""

from collections.abc import Sequence

import numpy as np
import worlds

import candleshm

WINDOW = 60
FAR = 2.0


def signal(closes: np.ndarray) -> str:
    """Return what to do with the first two columns of (60, S) closes: how far is their ratio from its mean?"""
    ratio = np.log(np.ascontiguousarray(closes[:, 0]) / np.ascontiguousarray(closes[:, 1]))
    known = ratio[~np.isnan(ratio)]
    if len(known) < WINDOW // 2 or np.isnan(ratio[-1]):
        return "none"
    distance = (ratio[-1] - known.mean()) / known.std()
    return "sell-first" if distance > FAR else "buy-first" if distance < -FAR else "hold"


def on_closes(feeds: Sequence[candleshm.Feed]) -> worlds.Signals:
    """Wait until both have closed."""
    (feed,) = feeds
    name = "/".join(feed.symbols[:2])
    for closed in feed.closes():
        yield closed.open_time_ms, name, signal(worlds.closes_until(feed, closed.open_time_ms, WINDOW))


def on_history(panels: Sequence[candleshm.Panel]) -> worlds.Signals:
    """Slide over a panel of both."""
    (panel,) = panels
    name = "/".join(panel.symbols[:2])
    for end in range(WINDOW, len(panel.array) + 1):
        yield int(panel.open_time_ms[end - 1]), name, signal(panel.array[end - WINDOW : end])


if __name__ == "__main__":
    worlds.run(__doc__, on_closes, on_history)
