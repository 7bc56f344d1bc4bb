"""Asking the exchange outside the loop: before there is one, and for daily files. Every request is booked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from candleshm.config import CollectorConfig
from candleshm.errors import BadResponse, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import Exchange, ExchangeInfo, Response
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.pools import open_budget
from candleshm.rest.transport import Transport
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime

__all__ = ["Connection", "connection_of"]

logger = logging.getLogger(__name__)

# The first measurement contains the handshake of a new connection; the others are a round trip apart.
MEASUREMENTS = 3
LOOK_SECONDS = 0.5


class Connection:
    """The way to one market: transport and weight budget together. `start_seconds` bounds every wait."""

    def __init__(
        self, exchange: Exchange, transport: Transport, clock: Clock, budget: WeightBudget, start_seconds: float
    ) -> None:
        self.exchange = exchange
        self.transport = transport
        self.clock = clock
        self.budget = budget
        self._start_seconds = start_seconds

    def connect(
        self, stopping: threading.Event, log: logging.Logger | BlockLog = logger
    ) -> tuple[ExchangeTime, ExchangeInfo] | None:
        """Measure the exchange's clock and read exchangeInfo; None when stopped meanwhile. `log` takes the failures.

        Raises what the last attempt raised: BadResponse, ExchangeUnavailable, RateLimited, Banned; others at once.
        """
        deadline_seconds = self.clock.monotonic_seconds() + self._start_seconds
        backoff, random, attempt = Backoff(first_seconds=0.5, limit_seconds=5.0), Random(), 0
        while not stopping.is_set():
            try:
                exchange_time = self.measure(stopping)
                for _ in range(MEASUREMENTS - 1):
                    newer = self.measure(stopping)
                    if not exchange_time.overlaps(newer):
                        raise BadResponse("two answers of the exchange contradict each other about the time")
                    exchange_time = exchange_time.refined(newer)
                info = self.exchange.info(self.ask(self.exchange.info_url, self.exchange.info_weight, stopping))
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
                    log.warning("%s; failure %d, asked again in %.1f s", error, attempt, delay_seconds)
                stopping.wait(delay_seconds)
            else:
                if attempt:
                    log.info("the exchange answers after %d failures", attempt)
                return exchange_time, info
        return None

    def ask(self, url: str, weight: int, stopping: threading.Event) -> Response:
        """Wait for room in the budget, and return a good answer.

        Raises ExchangeError; a RateLimited one, also of ours, has stopped the pool or says that it is stopped.
        """
        ticket = self._ticket(weight, stopping)
        used = None
        try:
            answer = self.transport.fetch(url)
            used = self.exchange.used_weight(answer, self.budget.window_seconds)
        finally:
            self.budget.answered(ticket, self.clock.monotonic_seconds(), used)
        # Before the exchange's time is known, its own Date is the best guess of it.
        now_ms = self.clock.epoch_ms() if answer.date_ms is None else answer.date_ms
        error = self.exchange.error_of(answer, now_ms)
        if isinstance(error, RateLimited):
            self.budget.stop(error.retry_after, self.clock.monotonic_seconds())
        if error is not None:
            raise error
        return answer

    def measure(self, stopping: threading.Event) -> ExchangeTime:
        """Ask for the exchange's time. Raises ExchangeError."""
        answer = self.ask(self.exchange.time_url, self.exchange.time_weight, stopping)
        server_ms = self.exchange.server_time_ms(answer)
        return ExchangeTime.measured(answer.sent_seconds, answer.received_seconds, server_ms)

    def _ticket(self, weight: int, stopping: threading.Event) -> int:
        """Wait until the pool lets a request leave, and book it. Raises RateLimited when that takes too long."""
        deadline_seconds = self.clock.monotonic_seconds() + self._start_seconds
        while True:
            now_seconds = self.clock.monotonic_seconds()
            ticket, wait_seconds = self.budget.claim(weight, now_seconds, closing=True, urgent=True)
            if ticket:
                return ticket
            blocked_seconds = self.budget.blocked_until_seconds - now_seconds
            least_seconds = max(blocked_seconds, min(wait_seconds, LOOK_SECONDS))
            if stopping.is_set() or now_seconds + least_seconds > deadline_seconds:
                reason = "is stopped by a 429 or 418" if blocked_seconds > 0 else "is used up by others"
                raise RateLimited(f"the weight of this pool {reason}", retry_after=max(wait_seconds, 0.0))
            stopping.wait(min(wait_seconds, LOOK_SECONDS))


@contextmanager
def connection_of(
    config: CollectorConfig,
    exchange: Exchange,
    transport: Transport,
    clock: Clock,
    budget: WeightBudget | None = None,
) -> Iterator[Connection]:
    """Be an owner of a feed's weight budget for as long as the connection is used. Raises as `pools.open_budget`."""
    budget = budget or open_budget(config, clock.monotonic_seconds())
    try:
        yield Connection(exchange, transport, clock, budget, config.start_seconds)
    finally:
        budget.leave(clock.monotonic_seconds())
