"""Attach to a block and read it in four ways: `python examples/attach.py candleshm-spot-1m`."""

import sys

import candleshm

with candleshm.attach(sys.argv[1], max_age=60.0) as feed:
    print(f"{feed.market} {feed.interval}: {len(feed)} symbols, up to {feed.length} candles each")
    for symbol in feed.symbols:
        print(f"{symbol}: {feed[symbol].last_close} confirmed {feed[symbol].age:.1f} s ago")

    series = feed[feed.symbols[0]]
    rows, states = series.snapshot(5)  # one moment: each state belongs to the row beside it
    for row, state in zip(rows, states, strict=True):
        print(int(row[candleshm.OPEN_TIME_MS]), row[candleshm.CLOSE], candleshm.RowState(state).name)

    with series.read(20) as view:  # no copy; raises OverwrittenView if a row changed while we computed
        mean = view.close.mean()
    print(f"mean of the last {len(view.close)} closes: {mean:.2f}")
    print(f"gaps: {series.gaps()}")
