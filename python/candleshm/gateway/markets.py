"""What a gateway knows of the three markets: their blocks, their lists of symbols, and the way to the exchange."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from candleshm._core import MARKETS
from candleshm.exchanges.base import Market
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.exchange_info import ExchangeInfos
from candleshm.gateway.precision import Decimals
from candleshm.gateway.settings import GatewaySettings
from candleshm.gateway.text_shim import exchange_ms_of
from candleshm.gateway.upstream import MarketUpstream

__all__ = ["Markets"]


class Markets:
    """The parts that answers are made of, opened by `with`. Methods may be called from any thread."""

    def __init__(self, directory: BlockDirectory, settings: GatewaySettings) -> None:
        """The directory is the caller's, who closes it. Raises ConfigError."""
        self.directory = directory
        self.settings = settings
        self.upstreams = {market: MarketUpstream(settings.upstream(market)) for market in MARKETS}
        self.infos = ExchangeInfos(self.upstreams, directory, settings.cache_dir)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for upstream in self.upstreams.values():
            self._open.callback(upstream.close)
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
        for feed in self.directory.of_market(market):
            if (now_ms := exchange_ms_of(feed)) is not None:
                return now_ms
        return self.upstreams[market].measured_ms
