"""One request and the budget it is paid from: wait for room and book it; stop the pool when the exchange refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

from candleshm.errors import ExchangeError, RateLimited
from candleshm.exchanges.base import Exchange, Response
from candleshm.ratelimit.budget import WeightBudget
from candleshm.system.clock import Clock

__all__ = ["claim", "refusal_of"]

# Weight may come back earlier than the budget expects, when a request in flight ends or another owner gives up.
LOOK_SECONDS = 0.5


def claim(
    budget: WeightBudget,
    clock: Clock,
    weight: int,
    pause: Callable[[float], bool],
    *,
    deadline_seconds: float = math.inf,
    closing: bool = False,
    urgent: bool = False,
    loading: bool = False,
) -> tuple[int, float]:
    """Wait until a request of `weight` may leave, and book it: (ticket, 0.0).

    Without room: (0, seconds that it would still have to wait), at the deadline, at once when a 429 or 418 stops the
    pool for longer than that, or as soon as `pause` returns False. `pause` waits for so many seconds and returns
    whether to go on waiting. For `closing`, `urgent` and `loading` see `WeightBudget.claim`.
    """
    while True:
        now_seconds = clock.monotonic_seconds()
        ticket, wait_seconds = budget.claim(weight, now_seconds, closing=closing, urgent=urgent, loading=loading)
        if ticket:
            return ticket, 0.0
        if max(now_seconds, budget.blocked_until_seconds) >= deadline_seconds:
            return 0, wait_seconds
        if not pause(min(wait_seconds, LOOK_SECONDS, deadline_seconds - now_seconds)):
            return 0, wait_seconds


def refusal_of(response: Response, budget: WeightBudget, exchange: Exchange, clock: Clock) -> ExchangeError | None:
    """Return the error that a response reports, None for a good one. A 429 or 418 has stopped the pool by then.

    Call it before `WeightBudget.finished`: between the two nobody else may send a request.
    """
    # The response's own Date is the best guess of the exchange's time.
    now_ms = clock.epoch_ms() if response.date_ms is None else response.date_ms
    error = exchange.error_of(response, now_ms)
    if isinstance(error, RateLimited):
        budget.stop(error.retry_after, clock.monotonic_seconds())
    return error
