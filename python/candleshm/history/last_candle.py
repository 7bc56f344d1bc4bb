"""Whether a symbol has traded for the last time before the end of a day: what a day alone does not show."""

from __future__ import annotations

import threading

from candleshm.exchanges.base import ExchangeInfo
from candleshm.history.assembly import Assembly
from candleshm.history.pages import rows_of
from candleshm.rest.client import Client

__all__ = ["LastCandles"]


class LastCandles:
    """The newest candle of symbols that no longer trade, requested once per symbol."""

    def __init__(self, client: Client, info: ExchangeInfo, interval: str, stopping: threading.Event) -> None:
        self._client = client
        self._info = info
        self._interval = interval
        self._stopping = stopping
        self._open_ms: dict[str, int] = {}

    def has_ended(self, day: Assembly) -> bool:
        """Return whether the symbol's last candle lies before the end of the day. Raises ExchangeError."""
        trailing_ms = day.trailing_ms()
        if trailing_ms is None or day.is_before_the_first or self._info.is_trading(day.symbol):
            return False
        if day.symbol not in self._open_ms:
            exchange = self._client.exchange
            request = exchange.newest(day.symbol, self._interval, 1)
            response = self._client.request(exchange.klines_url(request), request.weight, self._stopping)
            rows = rows_of(response, request.price)
            self._open_ms[day.symbol] = int(rows[-1, 0]) if len(rows) else 0
        return self._open_ms[day.symbol] < trailing_ms
