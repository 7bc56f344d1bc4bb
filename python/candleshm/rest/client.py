"""REST requests outside the collector's loop: claim weight, fetch, book the response, stop the pool on a 429 or 418."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

from candleshm.config import CollectorConfig
from candleshm.errors import BadResponse, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import Exchange, ExchangeInfo, Response
from candleshm.exchanges.binance import Binance
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.pools import open_budget
from candleshm.ratelimit.spending import claim, refusal_of
from candleshm.rest.transport import HttpTransport, Transport
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime, SystemClock

__all__ = ["Client", "MarketAccess"]

logger = logging.getLogger(__name__)

# The first measurement contains the handshake of a new connection; the others are a round trip apart.
MEASUREMENTS = 3


class Client:
    """Sends requests to one market and books each in the weight budget. `start_seconds` bounds the wait of `request`.

    Every method may be called from any thread.
    """

    def __init__(
        self,
        exchange: Exchange,
        transport: Transport,
        clock: Clock,
        budget: WeightBudget,
        start_seconds: float,
        *,
        with_volumes: bool = False,
    ) -> None:
        """`with_volumes`: `connect` and `info` also read the volumes of 24 hours."""
        self.exchange = exchange
        self.transport = transport
        self.clock = clock
        self.budget = budget
        self._start_seconds = start_seconds
        self._with_volumes = with_volumes
        self._stopped_until_seconds = -math.inf

    def connect(
        self, stopping: threading.Event, log: logging.Logger | BlockLog = logger
    ) -> tuple[ExchangeTime, ExchangeInfo] | None:
        """Measure the exchange's clock and read exchangeInfo; None when stopped meanwhile. `log` takes the failures.

        Failures are retried for `start_seconds`. Raises what the last attempt raised: BadResponse, ExchangeUnavailable,
        RateLimited, Banned; other errors at once.
        """
        deadline_seconds = self.clock.monotonic_seconds() + self._start_seconds
        backoff, random, attempt = Backoff(first_seconds=0.5, limit_seconds=5.0), Random(), 0
        while not stopping.is_set():
            try:
                exchange_time = self.measure(stopping)
                for _ in range(MEASUREMENTS - 1):
                    newer = self.measure(stopping)
                    if not exchange_time.overlaps(newer):
                        raise BadResponse("two responses of the exchange contradict each other about the time")
                    exchange_time = exchange_time.refined(newer)
                info = self.info(stopping)
                if not info.statuses:
                    raise BadResponse(f"the exchange lists no symbol of {self.exchange.market} at all")
            except (BadResponse, ExchangeUnavailable, RateLimited) as error:
                attempt += 1
                delay_seconds = backoff.delay_seconds(attempt, random)
                if isinstance(error, RateLimited):
                    delay_seconds = error.retry_after
                if self.clock.monotonic_seconds() + delay_seconds > deadline_seconds:
                    raise
                # The first of a row of failures, and then ever fewer.
                if attempt & (attempt - 1) == 0:
                    log.warning("%s; failure %d, next attempt in %.1f s", error, attempt, delay_seconds)
                stopping.wait(delay_seconds)
            else:
                if attempt:
                    log.info("the exchange responds again after %d failures", attempt)
                return exchange_time, info
        return None

    def measure(self, stopping: threading.Event) -> ExchangeTime:
        """Request the exchange's time. Raises as `request`."""
        response = self.request(self.exchange.time_url, self.exchange.time_weight, stopping)
        server_ms = self.exchange.server_time_ms(response)
        return ExchangeTime.measured(response.sent_seconds, response.received_seconds, server_ms)

    def info(self, stopping: threading.Event) -> ExchangeInfo:
        """Request exchangeInfo. Raises as `request`."""
        exchange = self.exchange
        info = exchange.info(self.request(exchange.info_url, exchange.info_weight, stopping))
        if not self._with_volumes:
            return info
        response = self.request(exchange.volumes_url, exchange.volumes_weight, stopping)
        return replace(info, volumes=exchange.volumes(response))

    def request(self, url: str, weight: int, stopping: threading.Event) -> Response:
        """Fetch `url` before anything else in the pool, and return a good response.

        Raises ExchangeError: RateLimited as well when there is no room for `start_seconds`, or `stopping` is set.
        """
        deadline_seconds = self.clock.monotonic_seconds() + self._start_seconds
        ticket, wait_seconds = claim(
            self.budget,
            self.clock,
            weight,
            lambda seconds: not stopping.wait(seconds),
            deadline_seconds=deadline_seconds,
            closing=True,
            urgent=True,
        )
        if not ticket:
            is_stopped = self.budget.blocked_until_seconds > self.clock.monotonic_seconds()
            reason = "stopped after a refusal (403, 407, 418 or 429)" if is_stopped else "used up by other requests"
            retry_after = max(wait_seconds, 0.0)
            raise RateLimited(
                f"the request weight is {reason}; try again in {retry_after:.0f} s", retry_after=retry_after
            )
        return self._send(url, ticket)

    def fetch(
        self, url: str, weight: int, pause: Callable[[float], bool], sent: Callable[[], object]
    ) -> Response | None:
        """Fetch `url` once the pool has room, however long that takes, and return a good response.

        None once `pause` returns False; it waits for so many seconds. `sent` is called when the request leaves. Raises
        ExchangeError.
        """
        ticket, _ = claim(self.budget, self.clock, weight, pause)
        if not ticket:
            return None
        sent()
        try:
            return self._send(url, ticket)
        except RateLimited as error:
            now_seconds = self.clock.monotonic_seconds()
            # Requests in flight are refused as well; the stop is logged once.
            if now_seconds >= self._stopped_until_seconds:
                logger.warning("%s; no requests for %.0f s", error, error.retry_after)
            self._stopped_until_seconds = max(self._stopped_until_seconds, now_seconds + error.retry_after)
            raise

    def _send(self, url: str, ticket: int) -> Response:
        used, error = None, None
        try:
            response = self.transport.fetch(url)
            error = refusal_of(response, self.budget, self.exchange, self.clock)
            used = self.exchange.used_weight(response, self.budget.window_seconds)
        finally:
            self.budget.finished(ticket, self.clock.monotonic_seconds(), used)
        if error is not None:
            raise error
        return response


class MarketAccess:
    """How one market is reached, by a configuration: exchange, transport and clock, wired once."""

    def __init__(
        self,
        config: CollectorConfig,
        *,
        exchange: Exchange | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        budget: WeightBudget | None = None,
    ) -> None:
        """Wire what is not given. Without a `budget` it is the one that all processes of the user share."""
        self.clock = clock or SystemClock()
        self.exchange: Exchange = exchange or Binance(
            config.market,
            price=config.price,
            base_url=config.base_url,
            proxy_host=config.proxy_host,
            ws_url=config.ws_url,
        )
        self.transport = transport or HttpTransport(self.clock, proxies=config.proxies, trust_env=config.trust_env)
        self._config = config
        self._budget = budget

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Be an owner of the weight budget for as long as the client is used. Raises as `pools.open_budget`."""
        budget = self._budget or open_budget(self._config, self.clock.monotonic_seconds())
        try:
            yield Client(
                self.exchange,
                self.transport,
                self.clock,
                budget,
                self._config.start_seconds,
                with_volumes=self._config.top is not None,
            )
        finally:
            budget.leave(self.clock.monotonic_seconds())
