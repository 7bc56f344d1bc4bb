"""How often a feed may open a stream connection. The exchange counts by IP address, so all feeds of a user share it."""

from __future__ import annotations

from candleshm.exchanges.base import StreamRules
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.rate_limiter import RateLimiter

__all__ = ["Connects"]

# One feed takes a part at most, so that a feed whose connections keep breaking leaves the others theirs.
FEED_PART = 0.2


class Connects:
    """The share of one feed in a budget of all processes of the user; without a budget it has only its own part."""

    def __init__(self, rules: StreamRules, budget: WeightBudget | None = None) -> None:
        self._own = RateLimiter(max(1, int(rules.connects_max * FEED_PART)), rules.connects_seconds)
        self._budget = budget

    def take(self, now_seconds: float) -> bool:
        """Take one connection, if there is one at `now_seconds`; return whether there was. Waiting feeds take turns."""
        if not self._own.is_free(now_seconds):
            return False
        if self._budget is not None:
            ticket, _ = self._budget.claim(1, now_seconds)
            if not ticket:
                return False
            self._budget.finished(ticket, now_seconds)
        return self._own.take(now_seconds)

    def stop(self, seconds: float, now_seconds: float) -> None:
        """Let no feed connect for `seconds`: the server refused a connection because there were too many."""
        if self._budget is not None:
            self._budget.stop(seconds, now_seconds)

    def close(self, now_seconds: float) -> None:
        """Leave the budget; the connections that were taken still count."""
        if self._budget is not None:
            self._budget.leave(now_seconds)
