"""What a gateway knows of the three markets: their blocks, their lists of symbols, and the way to the exchange."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeAlias

from candleshm._core import MARKETS
from candleshm.errors import BlockError, ConfigError
from candleshm.exchanges.base import Market
from candleshm.gateway.answers import Answers
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.exchange_info import ExchangeInfos
from candleshm.gateway.files import DailyFiles
from candleshm.gateway.precision import Decimals
from candleshm.gateway.settings import GatewaySettings
from candleshm.gateway.threads import Threads
from candleshm.gateway.upstream import MarketUpstream
from candleshm.reader.feed import Feed

__all__ = ["Markets"]

# Threads that make candles and read daily files, and requests that may wait for one of these.
THREADS = 2
WAITING_MAX = 128

Headers: TypeAlias = list[tuple[bytes, bytes]]


class Markets:
    """The parts that answers are made of, opened by `with`. Methods may be called from any thread."""

    def __init__(self, directory: BlockDirectory, settings: GatewaySettings) -> None:
        """The directory is the caller's, who closes it. Raises ConfigError."""
        self.directory = directory
        self.settings = settings
        self.upstreams = {market: MarketUpstream(settings.upstream(market)) for market in MARKETS}
        self.infos = ExchangeInfos(self.upstreams, directory, settings.cache_dir)
        files = None if settings.candle_dir is None else DailyFiles(settings.candle_dir)
        self.answers = Answers(directory, self.infos, files, settings.max_age_seconds)
        self.threads = Threads("answers", THREADS, WAITING_MAX)
        self._weights: dict[Market, tuple[float, Headers]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for upstream in self.upstreams.values():
            self._open.callback(upstream.close)
        self._open.callback(self.threads.close)
        self._open.enter_context(self.infos)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def decimals(self, market: Market, symbol: str) -> Decimals | None:
        """Return the digits of a symbol; None for the shortest text of each number, where they are not known."""
        return self.infos.decimals(market, symbol)

    def now_ms(self, market: Market) -> int | None:
        """Return the exchange's time as a collector of the market or a measurement has it, None when nobody knows.

        Sends nothing.
        """
        for feed in self.directory.clocks_of(market):
            if (now_ms := _exchange_ms(feed)) is not None:
                return now_ms
        return self.upstreams[market].measured_ms

    def weight_headers(self, market: Market) -> Headers:
        """Return the headers that tell the weight that is used up; they are at most a second old."""
        now_seconds = time.monotonic()
        read_seconds, headers = self._weights.get(market, (-math.inf, []))
        if now_seconds > read_seconds + 1.0:
            try:
                used = b"%d" % self.upstreams[market].weight_state().used
            except ConfigError:  # the directory of the ledger is not ours alone
                used = b"0"
            headers = [(b"x-mbx-used-weight-1m", used)]
            if market == "SPOT":
                headers.append((b"x-mbx-used-weight", used))
            self._weights[market] = now_seconds, headers
        return headers


def _exchange_ms(feed: Feed) -> int | None:
    try:
        return feed.exchange_ms()
    except BlockError:
        return None
