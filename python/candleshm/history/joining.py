"""Daily files for the past, and the final rows of a block after them, without a seam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from candleshm._core import INTERVAL_MS, candle_end_ms, derivation_parts
from candleshm.columns import CLOSE, NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, GapError
from candleshm.history.candles import Candles
from candleshm.history.day import Day
from candleshm.history.file_names import market_name
from candleshm.history.stored_rows import SOURCE, StoredRows, days_until, runs, without_file
from candleshm.reader.derivation import derive
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState

__all__ = ["Join"]


@dataclass(frozen=True)
class Tail:
    """The newest final rows of a series, without a row that is still missing among them."""

    rows: Candles
    start_ms: int
    """From here on the block knows every candle."""
    end_ms: int
    """Where the newest final candle ends."""
    is_window: bool
    """Whether it begins where the window does, and not behind a missing row.

    LENGTH counts the live row; the final row before the window may be there as well.
    """
    is_short: bool
    """Whether it has fewer rows than the window: it begins with the symbol's first candle, or the first derived one."""


class Join:
    """Candles of one interval: those of days as far as the block does not reach back, then the block's."""

    def __init__(self, feed: Feed, files: StoredRows) -> None:
        """Raises ConfigError for a feed whose candles are not of this interval, and not of 1m either."""
        if not isinstance(feed, Feed):
            raise ConfigError(f"join cannot be `{feed}`; allowed: a feed, as candleshm.attach(name) returns it")
        self._feed = feed
        self._files = files
        here = market_name(files.source.market, files.source.price)
        if (feed.market, feed.price) != (files.source.market, files.source.price):
            there = market_name(feed.market, feed.price)
            raise ConfigError(f"join: block `{feed.name}` has candles of {there}, not of {here}")
        if feed.interval != files.interval and not (feed.interval == SOURCE and _is_made_of(SOURCE, files.interval)):
            raise ConfigError(
                f"join: block `{feed.name}` has candles of {feed.interval}; candles of {files.interval} come from a "
                f"block of {files.interval}, or are derived from one of {SOURCE}"
            )
        self._past = files if feed.interval == files.interval else files.of(SOURCE)

    def rows(self, symbol: str, first: Day) -> tuple[Candles, int]:
        """Return the candles from `first` on, and where the newest final candle of the block ends.

        Raises DayNotFound for days to download, GapError for candles that no day can bring, UnknownSymbol, StaleData.
        """
        tail = self._tail(symbol)
        return self._joined(symbol, first, tail), tail.end_ms

    def rows_of_stored(self, symbol: str, first: Day) -> tuple[Candles, int]:
        """Return the same, without the candles of days that have no file."""
        tail = self._tail(symbol)
        if first.start_ms >= tail.start_ms:
            return self._joined(symbol, first, tail), tail.end_ms
        days = days_until(first, tail.start_ms)
        if not tail.is_short:
            self._check_reach(symbol, days[-1], tail)
        store = max(self._past.stores, key=lambda store: len(days) - len(without_file(store, symbol, days)))
        stored = runs(store, symbol, days)
        if stored and stored[-1][-1] == days[-1]:
            seam = stored[-1][0]
            newest = self._joined(symbol, seam, tail)
        else:
            seam = days[-1].next()
            newest = self._made(tail.rows, tail.start_ms, tail.end_ms)
        before = [day for day in days if day.date < seam.date]
        older = self._files.rows_of_stored(symbol, before) if before else np.empty((0, len(NAMES)))
        if len(newest):
            older = older[older[:, OPEN_TIME_MS] < newest[0, OPEN_TIME_MS]]
        return np.concatenate([older, newest]), tail.end_ms

    def _joined(self, symbol: str, first: Day, tail: Tail) -> Candles:
        start_ms = first.start_ms
        if start_ms >= tail.start_ms:
            return self._made(tail.rows[tail.rows[:, OPEN_TIME_MS] >= start_ms], start_ms, tail.end_ms)
        days = days_until(first, tail.start_ms)
        self._check_reach(symbol, days[-1], tail)
        past = self._past.rows(symbol, days, tail.start_ms)
        return self._made(np.concatenate([past, tail.rows]), start_ms, tail.end_ms)

    def _made(self, rows: Candles, start_ms: int, end_ms: int) -> Candles:
        """Return rows of the block's interval as candles of the one that is wanted."""
        if self._past is self._files:
            return rows
        feed = self._feed
        return derive(
            rows, self._files.interval, source=feed.interval, start_ms=start_ms, end_ms=end_ms, price=feed.price
        )

    def _check_reach(self, symbol: str, last: Day, tail: Tail) -> None:
        """Raise GapError where the day before the block's first candle is not over, so that it cannot be stored."""
        stores = self._past.stores
        if last.end_ms <= tail.end_ms or not all(without_file(store, symbol, [last]) for store in stores):
            return
        feed = self._feed
        slots = -(-(tail.start_ms - last.start_ms) // INTERVAL_MS[feed.interval.split("@")[0]])
        if tail.is_short:
            advice = (
                f"block `{feed.name}` begins there. If the symbol was listed then, its `candles()` are all there is,"
                f" and a panel with absent='nan' takes them; if they are derived, the source needs a larger LENGTH"
            )
        elif tail.is_window:
            advice = f"block `{feed.name}` is too short to reach a day that is over; LENGTH {feed.length + slots} does"
        else:
            advice = f"block `{feed.name}` is still fetching them; try again later"
        raise GapError(symbol, last.start_ms, tail.start_ms, "missing", advice)

    def _tail(self, symbol: str) -> Tail:
        feed = self._feed
        rows, states = feed[symbol].snapshot(closed_only=True, holes="nan")
        known = np.isin(states, (RowState.CLOSED, RowState.VERIFIED, RowState.HOLE))
        missing = np.flatnonzero(~known)
        start = int(missing[-1]) + 1 if len(missing) else 0
        if start == len(rows):
            raise ConfigError(f"join: block `{feed.name}` has no final candle of {symbol} yet")
        rows = rows[start:]
        end_ms = candle_end_ms(feed.interval, int(rows[-1, OPEN_TIME_MS]))
        final = np.ascontiguousarray(rows[~np.isnan(rows[:, CLOSE])])
        is_short = start == 0 and len(rows) < feed.length - 1
        return Tail(final, int(rows[0, OPEN_TIME_MS]), end_ms, is_window=start <= 1, is_short=is_short)


def _is_made_of(source: str, interval: str) -> bool:
    try:
        return derivation_parts(source, interval) > 1
    except ConfigError:
        return False
