"""No look-ahead: at every moment exactly that has closed which had closed by then, whatever is read, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm._core import candle_end_ms
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.row_state import RowState
from tests.support.histories import FULL, LISTED, SYMBOLS, History, stored_history

# Interval, days, zone of the days, derived intervals: the clocks of New York change on 2026-03-08 and 2026-11-01.
RUNS = [
    ("1s", "2026-03-07", "2026-03-07", "UTC", ["1m", "3m"]),
    ("1m", "2026-03-07", "2026-03-09", "America/New_York", ["5m", "1h", "1d@America/New_York"]),
    ("1m", "2026-11-01", "2026-11-01", "America/New_York", ["3m", "15m", "30m"]),
    ("3m", "2026-03-07", "2026-03-08", "UTC", ["30m", "4h"]),
    ("5m", "2026-10-31", "2026-11-02", "America/New_York", ["15m", "2h", "1d@America/New_York"]),
    ("15m", "2026-03-06", "2026-03-10", "Europe/Berlin", ["1h", "8h", "1d@Asia/Shanghai"]),
    ("30m", "2026-03-06", "2026-03-10", "UTC", ["6h", "12h", "1d"]),
    ("1h", "2026-02-25", "2026-03-12", "America/New_York", ["4h", "1d@America/New_York", "1w"]),
    ("2h", "2026-02-25", "2026-03-12", "UTC", ["6h", "1d"]),
    ("4h", "2026-02-01", "2026-03-12", "UTC", ["12h", "1w"]),
    ("6h", "2026-02-01", "2026-03-12", "UTC", ["1d"]),
    ("8h", "2026-02-01", "2026-03-12", "UTC", ["1d"]),
    ("12h", "2026-01-01", "2026-03-12", "UTC", ["1d", "1w"]),
    ("1d", "2025-10-01", "2026-03-12", "UTC", ["1w", "1M"]),
]
LOOKS = 60


class Witness:
    """Reads a replay at random, and compares everything with what had closed by then."""

    def __init__(
        self,
        replay: candleshm.Replay,
        history: History,
        from_ms: int,
        chance: np.random.Generator,
        *,
        opens_are_seen: bool,
    ) -> None:
        self.replay = replay
        self.history = history
        self.from_ms = from_ms
        self.chance = chance
        self.opens_are_seen = opens_are_seen
        self.feeds = {history.interval: replay.feed, **replay.derived}

    def known(self, symbol: str, interval: str) -> Any:
        now_ms = self.replay.now_ms
        return self.history.known(symbol, interval, now_ms, self.from_ms, opens_are_seen=self.opens_are_seen)

    def look(self) -> None:
        """Make one random call on one random feed."""
        interval = str(self.chance.choice(list(self.feeds)))
        calls = [self.candles, self.snapshot, self.panel, self.asof, self.view, self.newest, self.symbols]
        calls[int(self.chance.integers(len(calls)))](interval)

    def symbol_of(self, interval: str) -> str:
        return str(self.chance.choice(list(self.feeds[interval].symbols)))

    def symbols(self, interval: str) -> None:
        """A symbol is there from its first candle on."""
        is_listed = self.replay.now_ms >= self.history.listed_ms[LISTED]
        there = [symbol for symbol in self.replay.symbols if is_listed or symbol != LISTED]
        assert sorted(self.feeds[interval].symbols) == sorted(there)

    def candles(self, interval: str) -> None:
        """Everything that has closed is there, and nothing else is closed."""
        symbol = self.symbol_of(interval)
        rows = self.feeds[interval][symbol].candles(closed_only=True)
        np.testing.assert_array_equal(rows, self.known(symbol, interval), err_msg=f"{symbol} {interval}")

    def snapshot(self, interval: str) -> None:
        """What is not closed yet is live and begins before now; it ends later, unless its trading ended inside."""
        symbol = self.symbol_of(interval)
        rows, states = self.feeds[interval][symbol].snapshot()
        is_live = states == RowState.LIVE
        np.testing.assert_array_equal(rows[~is_live], self.known(symbol, interval), err_msg=f"{symbol} {interval}")
        for row in rows[is_live]:
            assert row[OPEN_TIME_MS] <= self.replay.now_ms
            if symbol == FULL:
                assert self.replay.now_ms < candle_end_ms(interval, int(row[OPEN_TIME_MS]))

    def panel(self, interval: str) -> None:
        feed, count = self.feeds[interval], int(self.chance.integers(1, 40))
        symbols = [self.symbol_of(interval) for _ in range(2)]
        panel = feed.panel("close", n=count, symbols=list(dict.fromkeys(symbols)))
        for open_ms in panel.open_time_ms[-1:]:
            assert candle_end_ms(interval, int(open_ms)) <= self.replay.now_ms
        for column, symbol in enumerate(panel.symbols):
            known = {int(row[OPEN_TIME_MS]): row[CLOSE] for row in self.known(symbol, interval)}
            expected = [known.get(int(open_ms), np.nan) for open_ms in panel.open_time_ms]
            np.testing.assert_array_equal(panel.array[:, column], expected, err_msg=f"{panel} {symbol} {interval}")

    def asof(self, interval: str) -> None:
        symbol, now_ms = self.symbol_of(interval), self.replay.now_ms
        span_ms = now_ms - self.history.bounds[0] + 1
        moments = np.sort(self.history.bounds[0] + self.chance.integers(0, 2 * span_ms, 5))
        values = self.feeds[interval].asof("close", moments, symbols=[symbol])[:, 0]
        known = self.known(symbol, interval)
        ends = np.array([candle_end_ms(interval, int(open_ms)) for open_ms in known[:, OPEN_TIME_MS]])
        expected = [
            known[ends <= moment][-1, CLOSE] if (ends <= moment).any() else np.nan for moment in moments.tolist()
        ]
        np.testing.assert_array_equal(values, expected, err_msg=f"{symbol} {interval} {moments} {now_ms}")

    def view(self, interval: str) -> None:
        known = self.known(FULL, interval)
        count = min(len(known), int(self.chance.integers(1, 30)))
        if count:
            with self.feeds[interval][FULL].read(count) as view:
                np.testing.assert_array_equal(view.array, known[-count:])

    def newest(self, interval: str) -> None:
        series = self.feeds[interval][FULL]
        known = self.known(FULL, interval)
        if len(known) and series.states()[-1] != RowState.LIVE:
            assert series.last_close == known[-1, CLOSE]
            assert series.last_open_time_ms == known[-1, OPEN_TIME_MS]


@pytest.mark.parametrize("inside", [None, "open,high,low,close"], ids=["closes", "steps"])
@pytest.mark.parametrize(
    ("interval", "first", "last", "zone", "derive"), RUNS, ids=[run[0] + run[1][4:] for run in RUNS]
)
def test_random_reads_at_random_moments_see_what_had_closed_and_nothing_else(
    tmp_path: Path, interval: str, first: str, last: str, zone: str, derive: list[str], inside: str | None
) -> None:
    chance = np.random.default_rng([ord(letter) for letter in f"{interval}{first}{inside}"])
    history = stored_history(tmp_path, interval, first, last, zone, chance)
    slots = (history.bounds[1] - history.bounds[0]) // history.length_ms
    if interval == "1s":
        slots = 1200  # of a day
    warm = int(chance.integers(0, slots // 3))
    start_ms = history.bounds[0] + int(chance.integers(warm, slots // 2)) * history.length_ms
    end_ms = min(history.bounds[1], start_ms + slots * history.length_ms)
    with candleshm.replay(
        tmp_path,
        "SPOT",
        SYMBOLS,
        interval,
        start_ms,
        end_ms,
        derive=derive,
        warm=warm,
        length=2 * slots + 10,
        inside=inside,
        timezone=zone,
        absent="accept",  # of a symbol that was listed at midnight the files do not show it
    ) as replay:
        from_ms = start_ms - warm * history.length_ms
        witness = Witness(replay, history, from_ms, chance, opens_are_seen=inside is not None)
        moments = 0
        often = LOOKS / (slots * (4 if inside else 1))
        while replay.step():
            moments += 1
            while chance.random() < often:
                witness.look()
        for call in (witness.candles, witness.snapshot, witness.panel, witness.asof, witness.view, witness.symbols):
            for of in witness.feeds:
                call(of)
        assert replay.now_ms == end_ms
        assert moments >= (end_ms - start_ms) // history.length_ms
