"""What the benches write and how they know it again: every value tells its symbol, its candle and its version.

A value is ``candle + (10,000 symbol + version) / 1e8``, the same in all value columns of a row. So half a row, a row
of another candle, a window out of order and a window of another symbol all show in what a reader returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm.columns import CLOSE_TIME_MS, IGNORE, OPEN_TIME_MS, TRADES

FloatArray = npt.NDArray[np.float64]
MINUTE_MS = 60_000
START_MS = 1_700_000_040_000
"""A full minute: candle 0 opens here."""
VALUES = [column for column in range(12) if column not in (OPEN_TIME_MS, CLOSE_TIME_MS, TRADES, IGNORE)]
VERSIONS = 10_000
WINDOW = 1440


def symbol_name(symbol: int) -> str:
    return f"S{symbol:04d}USDT"


def rows_of(symbol: int, candles: range, version: int = 0) -> FloatArray:
    """Return the rows of these candles, C-ordered (n, 12)."""
    numbers = np.arange(candles.start, candles.stop, dtype=np.float64)
    rows = np.empty((len(numbers), 12))
    rows[:, VALUES] = (numbers + (symbol * VERSIONS + version) / 1e8)[:, None]
    rows[:, OPEN_TIME_MS] = START_MS + numbers * MINUTE_MS
    rows[:, CLOSE_TIME_MS] = rows[:, OPEN_TIME_MS] + MINUTE_MS - 1
    rows[:, TRADES] = numbers
    rows[:, IGNORE] = 0
    return rows


@lru_cache(maxsize=8)
def _page(candles: range) -> bytes:
    """Return the body of these candles with SSSSVVVV where symbol and version go."""
    rows = []
    for candle in candles:
        text, open_ms = f'"{candle}.SSSSVVVV"', START_MS + candle * MINUTE_MS
        before, after = ",".join([text] * 5), ",".join([text] * 2)
        rows.append(f'[{open_ms},{before},{open_ms + MINUTE_MS - 1},{text},{candle},{after},"0"]')
    return f"[{','.join(rows)}]".encode()


def body_of(symbol: int, candles: range, version: int = 0) -> bytes:
    """Return the response body that holds the rows of `rows_of`."""
    return _page(candles).replace(b"SSSSVVVV", b"%04d%04d" % (symbol, version))


def ingest(writer: _core.Writer, symbol: int, candle: int, body: bytes, tick: int = 0) -> _core.Ingested:
    """Merge a body as the answer to a request for the newest rows, sent while `candle` was live, `tick` ms later on.

    Of two answers that differ the one asked later is believed: ticks must grow (below 57,000) while a candle is live.
    """
    now_ms = START_MS + candle * MINUTE_MS + 2000 + tick
    return writer.ingest(
        symbol_name(symbol), body, sent_ms=now_ms, received_ms=now_ms, settle_ms=1000, limit=1000, from_end=True
    )


@contextmanager
def block(name: str, symbols: int, length: int) -> Iterator[_core.Writer]:
    """Make a block full of candles 0 .. length - 1, the last one live; remove it at the end."""
    names = [symbol_name(symbol) for symbol in range(symbols)]
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=length, symbols=names)
    try:
        fill(writer, range(symbols), length)
        yield writer
    finally:
        writer.close()


def fill(writer: _core.Writer, symbols: range, length: int) -> None:
    candles = range(length)
    for symbol in symbols:
        ingest(writer, symbol, length - 1, body_of(symbol, candles))


def whole(symbol: int, rows: FloatArray, count: int = WINDOW) -> bool:
    """Return whether these are `count` rows of this symbol, candle after candle, each row of one write."""
    if rows.shape != (count, 12):
        return False
    value = rows[:, VALUES[0]]
    candles = np.floor(value)
    return bool(
        (rows[:, VALUES] == value[:, None]).all()
        and whole_column(symbol, value, count)
        and (rows[:, OPEN_TIME_MS] == START_MS + candles * MINUTE_MS).all()
        and (rows[:, CLOSE_TIME_MS] == rows[:, OPEN_TIME_MS] + (MINUTE_MS - 1)).all()
        and (rows[:, TRADES] == candles).all()
        and not rows[:, IGNORE].any()
    )


def whole_column(symbol: int, values: FloatArray, count: int = WINDOW) -> bool:
    """Return whether this is a value column of `count` candles of this symbol, one after the other."""
    candles = np.floor(values)
    consecutive = (np.diff(candles) == 1).all()
    return bool(values.shape == (count,) and consecutive and (symbols_of(values) == symbol).all())


def symbols_of(values: FloatArray) -> FloatArray:
    """Return which symbol each value tells."""
    return np.rint((values - np.floor(values)) * 1e8) // VERSIONS


class Turns:
    """How a symbol goes on: mostly its live row changes, every eighth turn a candle closes and the next one opens."""

    def __init__(self, symbols: int, length: int) -> None:
        self._turns = [0] * symbols
        self._length = length

    def next(self, symbol: int) -> tuple[int, int, bool]:
        """Return the live candle, its version, and whether it opens with this turn."""
        self._turns[symbol] += 1
        turn = self._turns[symbol]
        return self._length - 1 + turn // 8, turn % VERSIONS, turn % 8 == 0


def advance(window: FloatArray, symbol: int, turn: tuple[int, int, bool]) -> FloatArray:
    """Do a turn in place in a (n, 12) window."""
    candle, version, opens = turn
    if opens:
        window[:-1] = window[1:]
    window[-1] = rows_of(symbol, range(candle, candle + 1), version)[0]
    return window
