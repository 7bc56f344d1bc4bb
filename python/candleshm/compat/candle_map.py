"""`candle_map`: a mapping from symbols to private copies of their candles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from candleshm.reader.feed import Feed

__all__ = ["CandleMap", "Candles"]

Candles: TypeAlias = npt.NDArray[np.float64]


class CandleMap(Mapping[str, Candles]):
    """Symbol -> its candles: a private, writable, C-ordered copy, float64 (n, 12), oldest first, the live row last.

    Slots without a row are left out. A symbol is in the map once it has a candle, and stays when it stops trading.
    Read-only as a mapping. Before the server runs it is empty; after its end it keeps the last state.
    """

    def __init__(self) -> None:
        self._feed: Feed | None = None
        self._length = 0
        self._has: Callable[[str], bool] = bool
        self._kept: dict[str, Candles] = {}
        self._confirmed_seconds: dict[str, float] = {}

    def __getitem__(self, symbol: str) -> Candles:
        feed = self._feed
        if feed is None:
            return self._kept[symbol].copy()
        if not self._has(symbol):
            raise KeyError(symbol)
        length = min(self._length, feed.length)
        rows = feed[symbol].candles(length, out=np.empty((length, 12)))
        if len(rows) == 0:
            raise KeyError(symbol)
        return rows

    def __iter__(self) -> Iterator[str]:
        feed = self._feed
        if feed is None:
            return iter(tuple(self._kept))
        return iter([symbol for symbol in feed.symbols if symbol in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, symbol: object) -> bool:
        feed = self._feed
        if feed is None:
            return symbol in self._kept
        if not isinstance(symbol, str) or symbol not in feed or not self._has(symbol):
            return False
        return feed[symbol].last_open_time_ms is not None

    def __repr__(self) -> str:
        return repr(dict(self))

    def _serve(self, feed: Feed, length: int, has: Callable[[str], bool]) -> None:
        """Give the newest `length` candles of the symbols of `feed` for which `has` is true."""
        self._length, self._has = length, has
        self._feed = feed

    def _keep(self, now_seconds: float) -> None:
        """Copy the last state out of the block: another collector may open one under the same name."""
        feed = self._feed
        if feed is not None:
            self._kept = dict(self)
            self._confirmed_seconds = {symbol: now_seconds - feed[symbol].age for symbol in self._kept}
            self._feed = None

    def _age_seconds(self, symbol: str, now_seconds: float) -> float:
        feed = self._feed
        return feed[symbol].age if feed is not None else now_seconds - self._confirmed_seconds[symbol]
