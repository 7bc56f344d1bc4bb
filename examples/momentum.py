"""Momentum on closes: long what rose over the last 20 candles. Live, in a replay and over history; see worlds.py:

`python examples/momentum.py --live candleshm-spot-1m`
"""

from collections.abc import Sequence

import numpy as np
import worlds

import candleshm

WINDOW = 21
THRESHOLD = 0.0005


def signals(closes: np.ndarray) -> list[str]:
    """Return a signal for each column of (21, S) closes; a hole at either end gives none."""
    change = closes[-1] / closes[0] - 1
    return [
        "none" if np.isnan(x) else "long" if x > THRESHOLD else "short" if x < -THRESHOLD else "flat" for x in change
    ]


def on_closes(feeds: Sequence[candleshm.Feed]) -> worlds.Signals:
    """Wait for closes: a collector's or a replay's, it makes no difference here."""
    (feed,) = feeds
    for closed in feed.closes():
        closes = worlds.closes_until(feed, closed.open_time_ms, WINDOW)
        for symbol, signal in zip(feed.symbols, signals(closes), strict=True):
            yield closed.open_time_ms, symbol, signal


def on_history(panels: Sequence[candleshm.Panel]) -> worlds.Signals:
    """Slide over all closes at once: quicker, and nothing but this slice keeps the future out."""
    (panel,) = panels
    for end in range(WINDOW, len(panel.array) + 1):
        for symbol, signal in zip(panel.symbols, signals(panel.array[end - WINDOW : end]), strict=True):
            yield int(panel.open_time_ms[end - 1]), symbol, signal


if __name__ == "__main__":
    worlds.run(__doc__, on_closes, on_history)
