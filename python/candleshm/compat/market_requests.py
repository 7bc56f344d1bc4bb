"""A market without a collector: its symbols, its clock, its days; each request is booked in the shared budget."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from candleshm._core import parse_klines
from candleshm.columns import OPEN_TIME_MS
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import ExchangeInfo
from candleshm.history.archive import ARCHIVE_URL
from candleshm.history.day import Day, DayLike
from candleshm.history.fetching import archive_of, fetch_days
from candleshm.history.store import DayStore
from candleshm.history.tally import DownloadProgress
from candleshm.rest.client import MarketAccess
from candleshm.system.clock import Clock, ExchangeTime
from candleshm.universe import Kind, Universe, symbols_of

__all__ = ["MarketRequests"]

# The list of symbols has weight 20 on SPOT; calls in a loop get the same one for this long.
INFO_SECONDS = 60.0
MEASURED_SECONDS = 600.0


class MarketRequests:
    """Requests outside the collector's loop, within the weight that the collector spends too."""

    def __init__(self, config: CollectorConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._access = MarketAccess(config, clock=clock)
        self._info: tuple[ExchangeInfo, float] | None = None
        self._time: ExchangeTime | None = None

    def connect(self, stopping: threading.Event) -> bool:
        """Measure the clock and read the list of symbols, as a collector does; False when stopped meanwhile.

        Raises as `Client.connect`.
        """
        with self._access.client() as client:
            connected = client.connect(stopping)
        if connected is None:
            return False
        self._time, self._info = connected[0], (connected[1], self._clock.monotonic_seconds())
        return True

    def serves(self, symbol: str) -> bool:
        """Return whether the configuration lets a symbol pass, by the list that was read last, without a request."""
        return self._info is not None and Universe(self._config).keeps(symbol, self._info[0])

    def known_ms(self) -> int | None:
        """Return the exchange's time by the last measurement, without a request; None before the first one."""
        return None if self._time is None else self._time.earliest_ms(self._clock.monotonic_seconds())

    def has_candle(self, symbol: str, row: npt.NDArray[np.float64]) -> bool:
        """Request one final candle; return whether the exchange has it bit for bit. Raises ExchangeError."""
        exchange = self._access.exchange
        request = exchange.until(symbol, self._config.interval, 1, int(row[OPEN_TIME_MS]))
        with self._access.client() as client:
            response = client.request(exchange.klines_url(request), request.weight, threading.Event())
        rows, _ = parse_klines(response.body)
        return np.array_equal(rows[-1:], row[None])

    def exchange_ms(self) -> int:
        """Return the exchange's time, measured in the last ten minutes. Raises ExchangeError."""
        now_seconds = self._clock.monotonic_seconds()
        if self._time is None or now_seconds > self._time.measured_seconds + MEASURED_SECONDS:
            with self._access.client() as client:
                self._time = client.measure(threading.Event())
        return self._time.earliest_ms(self._clock.monotonic_seconds())

    def symbols(self, kind: Kind) -> list[str]:
        """Return the symbols that the configuration leaves, from a list at most a minute old. Raises ExchangeError."""
        return symbols_of(self._config, self._exchange_info(), kind)

    def fetch_days(
        self,
        store: DayStore,
        start: DayLike,
        end: DayLike | None,
        *,
        kind: Kind,
        replace: bool,
        source: str = "exchange",
        verify: bool = False,
    ) -> DownloadProgress | None:
        """Fetch days into `store`; `source` is 'exchange', 'archive' or the URL of a mirror. Raises as `fetch_days`."""
        archive = None
        if source != "exchange" or verify:
            url = ARCHIVE_URL if source in {"archive", "exchange"} else source
            archive = archive_of(self._config, url, self._clock)
        with self._access.client() as client:
            return fetch_days(
                self._config,
                store,
                client,
                start,
                end,
                kind=kind,
                replace=replace,
                archive=archive,
                verify=verify,
            )

    def fetch_day(self, store: DayStore, day: Day, kind: Kind, *, replace: bool) -> bool:
        """Fetch one day, and return whether every symbol's file is there now."""
        done = self.fetch_days(store, day.date, day.date, kind=kind, replace=replace)
        return done is not None and done.failed == 0

    def _exchange_info(self) -> ExchangeInfo:
        now_seconds = self._clock.monotonic_seconds()
        if self._info is not None and now_seconds < self._info[1] + INFO_SECONDS:
            return self._info[0]
        with self._access.client() as client:
            info = client.info(threading.Event())
        self._info = (info, now_seconds)
        return info
