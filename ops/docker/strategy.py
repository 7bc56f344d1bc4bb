"""A strategy in a container of its own: it prints each close of BTCUSDT."""

import candleshm

feed = candleshm.attach("candleshm-spot-1m", max_age=60.0, timeout=None)
feed.wait_ready(timeout=None)
for _ in feed.closes():
    row = feed["BTCUSDT"].candles(1, closed_only=True)[-1]
    print(f"{row[candleshm.OPEN_TIME_MS]:.0f} closed at {row[candleshm.CLOSE]}", flush=True)
