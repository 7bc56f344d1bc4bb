"""A replay of made-up candles by the raw binding, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from candleshm import _core

__all__ = ["CLOSED", "HOLE", "MINUTE_MS", "START_MS", "Given", "made", "row_of"]

MINUTE_MS = 60_000
START_MS = 1_700_006_400_000  # 2023-11-15T00:00:00Z
CLOSED, HOLE = 2, 4


def row_of(open_ms: int, shift: float = 0.0, step_ms: int = MINUTE_MS) -> list[float]:
    """Return a candle that is a function of its open time: odd minutes rise, even ones fall."""
    base = 100.0 + (open_ms // step_ms) % 97 + shift
    rise = 1.0 if (open_ms // step_ms) % 2 else -1.0
    prices = [base, base + 2.0, base - 2.0, base + rise]
    return [float(open_ms), *prices, 3.0, float(open_ms + step_ms - 1), 3.0 * base, 5.0, 1.0, base, 0.0]


class Given:
    """Rows that a replay is to have, asked for hour by hour."""

    def __init__(self, symbols: Sequence[str], *, step_ms: int = MINUTE_MS) -> None:
        self.symbols = tuple(symbols)
        self.step_ms = step_ms
        self.holes: set[tuple[str, int]] = set()
        self.absent: set[tuple[str, int]] = set()
        self.lives: dict[str, tuple[int | None, int | None]] = {}
        self.seconds = False
        self.asked: list[int] = []
        self.fails_at: int | None = None
        self.replay: _core.Replay | None = None

    def rows(self, symbol: str, from_ms: int, until_ms: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        listed_ms, ended_ms = self.lives.get(symbol, (None, None))
        opens = range(from_ms, until_ms, self.step_ms)
        there = [ms for ms in opens if ms >= (listed_ms or 0) and (ended_ms is None or ms < ended_ms)]
        there = [ms for ms in there if (symbol, ms) not in self.absent]
        rows = np.array([row_of(ms, self.symbols.index(symbol), self.step_ms) for ms in there]).reshape(-1, 12)
        states = np.array([HOLE if (symbol, ms) in self.holes else CLOSED for ms in there], np.uint8)
        rows[states == HOLE] = np.nan
        return rows, states

    def __call__(self, from_ms: int) -> int:
        assert self.replay is not None
        self.asked.append(from_ms)
        if self.fails_at is not None and from_ms >= self.fails_at:
            raise RuntimeError("the files are gone")
        until_ms = from_ms + 3_600_000
        for symbol in self.symbols:
            self.replay.give(symbol, *self.rows(symbol, from_ms, until_ms))
            if self.seconds:
                opens = range(from_ms, until_ms, 1000)
                self.replay.give_inside(symbol, np.array([row_of(ms, 0.0, 1000) for ms in opens]))
        return until_ms


def made(name: str, given: Given, minutes: int, *, warm_rows: int = 0, **options: Any) -> _core.Replay:
    """Return a replay that has begun; whoever calls closes it."""
    settings: dict[str, Any] = {"market": "SPOT", "interval": "1m", "length": 200} | options
    replay = _core.Replay(
        name,
        symbols=given.symbols,
        start_ms=START_MS,
        end_ms=START_MS + minutes * MINUTE_MS,
        more=given,
        **settings,
    )
    given.replay = replay
    for symbol, life in given.lives.items():
        replay.set_life(symbol, *life)
    replay.begin(warm_rows)
    return replay
