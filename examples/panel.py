"""Returns of all symbols side by side, and how they move together: `python examples/panel.py candleshm-spot-1m`."""

import sys

import numpy as np

import candleshm

with candleshm.attach(sys.argv[1], max_age=60.0) as feed:
    panel = feed.panel("close", n=60)  # (60, symbols): ends at the newest candle that all symbols have final
    returns = np.diff(np.log(panel.array), axis=0)
    means, deviations = np.nanmean(returns, axis=0), np.nanstd(returns, axis=0)  # holes are NaN
    for symbol, mean, deviation in zip(panel.symbols, means, deviations, strict=True):
        print(f"{symbol}: mean {mean * 1e4:+.2f} bp, deviation {deviation * 1e4:.2f} bp per candle")
    if len(panel.symbols) > 1:
        both = returns[np.isfinite(returns[:, :2]).all(axis=1), :2]
        print(f"correlation of {panel.symbols[0]} and {panel.symbols[1]}: {np.corrcoef(both.T)[0, 1]:+.2f}")
