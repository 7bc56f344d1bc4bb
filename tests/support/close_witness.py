"""A reader that asks for the next close over and over, and judges every one that is announced.

``python -m tests.support.close_witness NAME`` goes on while writers of `hot_writer` are killed, stopped, succeeded and
superseded, until the block is closed. It prints how many closes it judged; the first lie ends it with an assertion.

The values tell: a final row of `hot_writer` lies less than 7/1024 above its bar, a live one at least 1/16. A row
that was announced may be restated at the moment, and is missing until that is done; a writer may die in the middle, and
then the next one does it. So a missing row is asked for again. One that is there has to be final.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import candleshm
from candleshm.columns import CLOSE, OPEN_TIME_MS
from tests.support.hot_writer import STEP_MS, SYMBOLS
from tests.support.klines import START_MS

PATIENCE_SECONDS = 30.0
"""For a restatement to be done, by a successor at the latest; and for a close while there is no writer."""
FINAL_BELOW = 7 / 1024


def main(name: str) -> int:
    judged = 0
    with candleshm.attach(name) as feed:
        while feed.health.state != "closed":
            length = feed.length
            try:
                closed = feed.wait_closed(timeout=0.5)
            except candleshm.WaitTimeout:
                continue
            assert set(closed.symbols) == set(SYMBOLS)
            assert closed.missing == ()
            for symbol in closed.symbols:
                judge(feed, symbol, closed.open_time_ms, length)
            judge_panel(feed)
            judged += 1
    sys.stdout.write(f"{judged}\n")
    return 0


def judge(feed: candleshm.Feed, symbol: str, open_time_ms: int, length: int) -> None:
    """Demand that the candle is final, unless the window has moved beyond it, or the feed to another block."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        rows = feed[symbol].candles(holes="nan")
        if feed.length != length or feed.health.state == "closed" or rows[0, OPEN_TIME_MS] > open_time_ms:
            return
        (row,) = rows[rows[:, OPEN_TIME_MS] == open_time_ms]
        if not np.isnan(row[CLOSE]):
            bar = (open_time_ms - START_MS) / STEP_MS
            assert 0 <= row[CLOSE] - bar < FINAL_BELOW, f"{symbol} at {bar}: {row[CLOSE]}"
            return
        assert time.monotonic() < deadline, f"{symbol} at {open_time_ms} was announced and never came back"
        time.sleep(0.001)


def judge_panel(feed: candleshm.Feed) -> None:
    """Demand that every value of a panel is a final one of its row's candle."""
    panel = feed.panel("close", 16)
    above = panel.array - ((panel.open_time_ms - START_MS) / STEP_MS)[:, None]
    assert (((above >= 0) & (above < FINAL_BELOW)) | np.isnan(above)).all(), panel.array


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
