"""One request at a time, outside of the scheduler's loop: of the start, and of who asks for a list of symbols.

Like every request of ours it leaves when the pool's budget lets it, and what comes back is booked for everybody.
"""

from __future__ import annotations

import threading

from candleshm.clock import Clock
from candleshm.errors import RateLimited
from candleshm.exchanges.base import Answer, Exchange
from candleshm.ratelimit import WeightBudget
from candleshm.transport import Transport

__all__ = ["Inquiry"]

LOOK_SECONDS = 0.5


class Inquiry:
    """Asks `exchange` over `transport` and books in `budget`; `stopping` ends a wait for weight."""

    def __init__(
        self,
        exchange: Exchange,
        transport: Transport,
        clock: Clock,
        budget: WeightBudget,
        stopping: threading.Event,
    ) -> None:
        self._exchange = exchange
        self._transport = transport
        self._clock = clock
        self._budget = budget
        self._stopping = stopping

    def ask(self, url: str, weight: int, timeout_seconds: float) -> Answer:
        """Return a usable answer; wait for the weight at most `timeout_seconds`.

        Raises ExchangeError; a RateLimited one, also of ours, has stopped the pool or says that it is stopped.
        """
        ticket = self._ticket(weight, timeout_seconds)
        used = None
        try:
            answer = self._transport.fetch(url)
            used = self._exchange.used_weight(answer, self._budget.window_seconds)
        finally:
            self._budget.answered(ticket, self._clock.monotonic_seconds(), used)
        # Before the exchange's time is known, its own Date is the best guess of it.
        now_ms = self._clock.epoch_ms() if answer.date_ms is None else answer.date_ms
        error = self._exchange.error_of(answer, now_ms)
        if isinstance(error, RateLimited):
            self._budget.stop(error.retry_after, self._clock.monotonic_seconds())
        if error is not None:
            raise error
        return answer

    def _ticket(self, weight: int, timeout_seconds: float) -> int:
        deadline_seconds = self._clock.monotonic_seconds() + timeout_seconds
        while True:
            now_seconds = self._clock.monotonic_seconds()
            ticket, wait_seconds = self._budget.claim(weight, now_seconds, closing=True, urgent=True)
            if ticket:
                return ticket
            blocked_seconds = self._budget.blocked_until_seconds - now_seconds
            least_seconds = max(blocked_seconds, min(wait_seconds, LOOK_SECONDS))
            if self._stopping.is_set() or now_seconds + least_seconds > deadline_seconds:
                reason = "is stopped by a 429 or 418" if blocked_seconds > 0 else "is used up by others"
                raise RateLimited(f"the weight of this pool {reason}", retry_after=max(wait_seconds, 0.0))
            self._stopping.wait(min(wait_seconds, LOOK_SECONDS))
