"""A writer process without mercy: live updates, closes, corrections, outages and late fills as fast as they go.

``hot_writer NAME [LENGTH]`` takes the block over, or creates it, and runs until it is killed. Every row
holds one value in all its value columns, so a row of two writes shows. It prints one line once it writes: whether the
block was taken over, how many rows were there, and how many milliseconds it took.
"""

from __future__ import annotations

import itertools
import sys
import time

from candleshm import _core
from tests.support.klines import START_MS, ingest, kline

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
LENGTH = 256
STEP_MS = 1000


def second(bar: int, value: float) -> list[object]:
    return kline(START_MS + bar * STEP_MS, value, STEP_MS)


def closed_value(bar: int, version: int) -> float:
    """Return the value of a closed row: a function of bar and version, so that a row of another bar shows too."""
    return bar + version / 1024


def main(name: str, length: int = LENGTH) -> None:
    started = time.monotonic()
    writer = _core.Writer.open(name, market="SPOT", interval="1s", length=length, symbols=SYMBOLS)
    state = writer.state(SYMBOLS[0])
    rows = length - 1 - state.missing if writer.taken_over else 0
    print(int(writer.taken_over), rows, round((time.monotonic() - started) * 1000), flush=True)
    first = 0 if state.newest_open_ms is None else (state.newest_open_ms - START_MS) // STEP_MS + 1
    for bar in itertools.count(max(first, length)):
        skip = bar % 97 > 92  # an outage of a few bars, filled later
        now_ms = START_MS + bar * STEP_MS
        for symbol in SYMBOLS:
            if not skip:
                if bar in (first, length):
                    page = [second(old, closed_value(old, 0)) for old in range(bar - length, bar)]
                    ingest(writer, symbol, *page, sent_ms=now_ms + 1, end_ms=now_ms - 1)
                for tick in range(4):
                    live = second(bar, closed_value(bar, 0) + (tick + 1) / 16)
                    ingest(writer, symbol, second(bar - 1, closed_value(bar - 1, 0)), live, sent_ms=now_ms + 100 + tick)
            if bar % 3 == 0:
                # The exchange restates a stretch of closed rows, and fills what an outage left.
                version = bar % 7
                stretch = range(bar - 60, bar - 5)
                page = [second(old, closed_value(old, version)) for old in stretch]
                ingest(writer, symbol, *page, sent_ms=now_ms + 500, end_ms=now_ms - 5000)
        writer.heartbeat()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
