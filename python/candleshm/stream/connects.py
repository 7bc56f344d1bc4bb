"""How often a feed may open a stream connection. The exchange counts by address, so all feeds of the user share it."""

from __future__ import annotations

from candleshm.exchanges.base import StreamRules
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.rate_limiter import RateLimiter

__all__ = ["Connects"]

# One feed takes a part at most, so that a feed whose connections keep breaking leaves the others theirs.
FEED_PART = 0.2


class Connects:
    """The turns of one feed, out of a budget that all processes of the user share; without one it has only its part."""

    def __init__(self, rules: StreamRules, budget: WeightBudget | None = None) -> None:
        self._own = RateLimiter(max(1, int(rules.connects_max * FEED_PART)), rules.connects_seconds)
        self._budget = budget

    def take(self, now_seconds: float) -> bool:
        """Take one turn, if there is one at `now_seconds`; say whether that is so. Feeds that wait take turns."""
        if not self._own.is_free(now_seconds):
            return False
        if self._budget is not None:
            ticket, _ = self._budget.claim(1, now_seconds)
            if not ticket:
                return False
            self._budget.answered(ticket, now_seconds)
        return self._own.take(now_seconds)

    def stop(self, seconds: float, now_seconds: float) -> None:
        """Let nobody connect for `seconds`: the server refused a connection because there were too many."""
        if self._budget is not None:
            self._budget.stop(seconds, now_seconds)

    def close(self, now_seconds: float) -> None:
        """Take part in the budget no more; what was taken counts on."""
        if self._budget is not None:
            self._budget.leave(now_seconds)
