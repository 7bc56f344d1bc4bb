"""Which block a server uses: that of another program, where it has all that the rule wants, or one of its own."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from candleshm._core import is_owned
from candleshm.compat.market_requests import MarketRequests
from candleshm.config import CollectorConfig
from candleshm.errors import BlockError, BlockInUse, BlockNotFound
from candleshm.reader.feed import Feed
from candleshm.reader.figures import kind_of
from candleshm.system.clock import Clock

__all__ = ["BlockChoice"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


class BlockChoice:
    """Goes through the names that a server may use: the one given, or the default, with `-2`, `-3`, ... behind it."""

    def __init__(
        self, config: CollectorConfig, market: MarketRequests, clock: Clock, stopping: threading.Event
    ) -> None:
        self._config = config
        self._market = market
        self._clock = clock
        self._stopping = stopping

    def choose(self) -> tuple[str, Feed | None]:
        """Return a name, and a feed of its block where another program serves all that is wanted; None where none does.

        Raises BlockInUse when the block of the given name has something else, ExchangeError.
        """
        for name in self._names():
            if not self.is_served(name):
                return name, None
            if not self._market.connect(self._stopping):
                return name, None
            misfit = self.misfit(name)
            if misfit is None:
                return name, Feed(name)
            if self._config.name is not None:
                raise BlockInUse(name, lack=misfit)
            logger.info("block %s of another program %s; this server takes the next free name", name, misfit)
        raise AssertionError("names never end")

    def misfit(self, name: str) -> str | None:
        """Return what the block of another program lacks for this server, None when it has everything.

        Raises ExchangeError.
        """
        try:
            with closing(Feed(name)) as feed:
                return lack_of(feed, self._config, self.symbols()) or self._foreign(feed)
        except BlockError as error:
            return f"cannot be read: {error}"

    def is_served(self, name: str) -> bool:
        """Return whether a process owns the block of that name, which may be another user's."""
        try:
            return is_owned(name)
        except BlockNotFound:
            return False
        except BlockError:
            return True

    def symbols(self) -> list[str]:
        """Return the symbols that the rule wants now, by the exchange's list. Raises ExchangeError."""
        return self._market.symbols("trading" if self._config.symbols == "all" else "all")

    def _names(self) -> Iterator[str]:
        stem = self._config.block_name
        yield stem
        for number in itertools.count(2):
            yield f"{stem}-{number}"

    def _foreign(self, feed: Feed) -> str | None:
        """Return that the candles are not those of this server's exchange: a simulated one may serve the other program.

        One final candle is compared.
        """
        symbols = [symbol for symbol in self.symbols() if symbol in feed]
        deadline_seconds = self._clock.monotonic_seconds() + self._config.start_seconds
        while (found := _final_row(feed, symbols)) is None:
            if self._stopping.wait(LOOK_SECONDS) or self._clock.monotonic_seconds() > deadline_seconds:
                return "has no candles yet"
        return None if self._market.has_candle(*found) else "has the candles of another exchange"


def lack_of(feed: Feed, config: CollectorConfig, symbols: list[str]) -> str | None:
    """Return what a block lacks of what a server needs; None when it has all."""
    if (feed.market, feed.price, feed.interval) != (config.market, config.price, config.interval):
        return f"has {feed.interval} of {kind_of(feed)}"
    if feed.length < config.length:
        return f"has {feed.length} candles of each symbol instead of {config.length}"
    absent = [symbol for symbol in symbols if symbol not in feed]
    if absent or not symbols:
        return f"does not have {', '.join(absent[:3]) or 'any symbol'}{' ...' if len(absent) > 3 else ''}"
    return None


def _final_row(feed: Feed, symbols: list[str]) -> tuple[str, npt.NDArray[np.float64]] | None:
    for symbol in symbols:
        rows = feed[symbol].candles(1, closed_only=True)
        if len(rows):
            return symbol, rows[-1]
    return None
