"""5m candles as they were known at each 1m close, nothing later:

`python examples/multi_interval_asof.py candleshm-spot-1m candleshm-spot-5m`
"""

import sys

import numpy as np

import candleshm

MINUTE_MS = 60_000

with candleshm.attach(sys.argv[1]) as minutes, candleshm.attach(sys.argv[2]) as fives:
    panel = minutes.panel("close", n=30)
    moments_ms = panel.open_time_ms + MINUTE_MS  # a 1m candle is known at its end
    trend = fives.asof("close", moments_ms)  # (30, symbols): the newest 5m candle that was final at that moment
    above = panel.array > trend
    for symbol, share in zip(panel.symbols, np.nanmean(above, axis=0), strict=True):
        print(f"{symbol}: {share:.0%} of the last {len(panel.open_time_ms)} closes lie above the last 5m close")
