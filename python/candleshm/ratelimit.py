"""How much request weight may still be spent: `(weight, now) -> delay`. Nothing here sleeps or reads a clock.

Three rules, the strictest counts:

- **Ledger.** In any window (60 s at Binance) at most `share * limit` is spent, where a request counts from its sending
  until one window after its answer: the exchange books it somewhere between the two.
- **Pace.** Weight flows in evenly, into two accounts: one for closing candles, which come all at once and saves up for
  one round of them, and one for everything else, which saves two seconds' worth. A stop empties both, so that nothing
  bursts after it.
- **Report.** The exchange's header counts everything from this address, other programs included. When that leaves no
  room, one request at a time goes out every `PROBE_SECONDS`, and its answer brings the newest number.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass

__all__ = ["HELD_SECONDS_MAX", "PROBE_SECONDS", "WeightBudget"]

PROBE_SECONDS = 10.0
SAVED_SECONDS = 2.0
SAVED_WEIGHT_MIN = 20.0  # the dearest single request, exchangeInfo
RESERVED_PART_MAX = 1 / 3
# Who waits urgently comes back in time to claim; should it end meanwhile, others wait no longer than this.
HELD_SECONDS_MAX, HELD_SECONDS_MORE = 2.0, 0.1


@dataclass(slots=True)
class _Account:
    """Weight that flows in at `rate` per second and is kept up to `depth`."""

    rate: float
    depth: float
    saved: float
    at_seconds: float = -math.inf

    def balance(self, now_seconds: float) -> float:
        if self.at_seconds == -math.inf:
            return min(self.saved, self.depth)
        return min(self.depth, self.saved + max(0.0, now_seconds - self.at_seconds) * self.rate)

    def delay_seconds(self, weight: int, now_seconds: float) -> float:
        # A full account lets even a request leave that is larger than what it can hold.
        short = min(weight, max(1.0, self.depth)) - self.balance(now_seconds)
        if short <= 0:
            return 0.0
        # A hair more than the quotient, or rounding would leave the account a hair short at that very moment.
        return self._waits(now_seconds) + short / self.rate + 1e-6 if self.rate > 0 else math.inf

    def spend(self, weight: int, now_seconds: float) -> None:
        self.saved, self.at_seconds = self.balance(now_seconds) - weight, max(now_seconds, self.at_seconds)

    def change(self, rate: float, depth: float, now_seconds: float) -> None:
        self.saved, self.at_seconds = self.balance(now_seconds), max(now_seconds, self.at_seconds)
        self.rate, self.depth = rate, depth

    def empty(self, from_seconds: float) -> None:
        self.saved, self.at_seconds = min(0.0, self.saved), from_seconds

    def _waits(self, now_seconds: float) -> float:
        return max(0.0, self.at_seconds - now_seconds)


class WeightBudget:
    """What one pool (one exit address towards one exchange) may spend. Times are local monotonic seconds.

    Several collectors may share one, each in its own thread; `owner` is then the name of the collector that speaks.
    """

    def __init__(self, limit: int, share: float, window_seconds: float = 60.0) -> None:
        self.share = share
        self.limit = limit
        self.window_seconds = window_seconds
        self._lock = threading.Lock()
        self._stated: dict[str, tuple[float, int]] = {}  # owner: (window in seconds, limit), as its exchangeInfo says
        self._wanted: dict[str, int] = {}  # owner: weight of its closing candles in a window
        self._reserved = 0.0
        self._held_until_seconds = -math.inf
        self._blocked_until_seconds = -math.inf
        self._in_flight: dict[int, int] = {}
        self._answered: deque[tuple[float, int]] = deque()  # (moment it stops counting, weight), oldest first
        self._answered_weight = 0
        self._tickets = 0
        self._reported: int | None = None
        self._reported_seconds = -math.inf
        self._common = _Account(self._common_rate, self._common_depth, self._common_depth)
        self._closing = _Account(0.0, 0.0, 0.0)

    @property
    def budget(self) -> int:
        """Weight that may be spent in any window."""
        return max(1, math.floor(self.limit * self.share))

    @property
    def blocked_until_seconds(self) -> float:
        """When the stop after a 429 or 418 ends; in the past, or minus infinity, when there is none."""
        return self._blocked_until_seconds

    def set_limit(self, limit: int, window_seconds: float, now_seconds: float, *, owner: str = "") -> None:
        """Take the limit that an exchangeInfo states; of different ones in a pool the strictest."""
        with self._lock:
            self._stated[owner] = (window_seconds, limit)
            self.window_seconds, self.limit = min(self._stated.values(), key=lambda stated: stated[1] / stated[0])
            self._share_out(now_seconds)

    def reserve(self, closing_weight: int, now_seconds: float, *, owner: str = "") -> None:
        """Keep so much of every window for closing candles, for all owners together at most a third of the budget."""
        with self._lock:
            self._wanted[owner] = closing_weight
            reserved = min(float(sum(self._wanted.values())), self.budget * RESERVED_PART_MAX)
            if reserved != self._reserved:
                self._reserved = reserved
                self._share_out(now_seconds)

    def leave(self, now_seconds: float, *, owner: str = "") -> None:
        """Give back what is kept for the closing candles of an owner that ended."""
        self.reserve(0, now_seconds, owner=owner)

    def used(self, now_seconds: float) -> int:
        """Return the weight that counts now: our own, or the exchange's number for this address where that is more."""
        with self._lock:
            own = self._own(now_seconds)
            fresh = now_seconds < self._reported_seconds + self.window_seconds
            return max(own, self._reported) if fresh and self._reported is not None else own

    def delay_seconds(self, weight: int, now_seconds: float, *, closing: bool = False) -> float:
        """Return how long a request of `weight` has to wait; infinite means: until one in flight is answered."""
        with self._lock:
            return self._delay(weight, now_seconds, closing)

    def claim(
        self, weight: int, now_seconds: float, *, closing: bool = False, urgent: bool = False
    ) -> tuple[int, float]:
        """Book a request if it may leave now: (ticket, 0.0), or (0, how long it has to wait).

        While an `urgent` one waits nothing else leaves: a dear request would never find room between cheap ones.
        """
        with self._lock:
            if not urgent and now_seconds < self._held_until_seconds:
                return 0, self._held_until_seconds - now_seconds
            delay_seconds = self._delay(weight, now_seconds, closing)
            if delay_seconds > 0:
                if urgent:
                    self._held_until_seconds = now_seconds + min(delay_seconds, HELD_SECONDS_MAX) + HELD_SECONDS_MORE
                return 0, delay_seconds
            if urgent:
                self._held_until_seconds = -math.inf
            return self._book(weight, now_seconds, closing), 0.0

    def sent(self, weight: int, now_seconds: float, *, closing: bool = False) -> int:
        """Book a request that leaves now, whether it may or not, and return its ticket."""
        with self._lock:
            return self._book(weight, now_seconds, closing)

    def answered(self, ticket: int, now_seconds: float, reported: int | None = None) -> None:
        """Book the end of a request, answered or failed, with the used weight that the exchange stated."""
        with self._lock:
            weight = self._in_flight.pop(ticket)
            self._answered.append((now_seconds + self.window_seconds, weight))
            self._answered_weight += weight
            if reported is not None:
                self._reported = reported
                self._reported_seconds = now_seconds

    def stop(self, seconds: float, now_seconds: float) -> None:
        """Let nothing leave for `seconds`: the exchange answered 429 or 418. A longer stop that is on stays."""
        with self._lock:
            until_seconds = now_seconds + seconds
            if until_seconds > self._blocked_until_seconds:
                self._blocked_until_seconds = until_seconds
                self._common.empty(until_seconds)
                self._closing.empty(until_seconds)

    def _delay(self, weight: int, now_seconds: float, closing: bool) -> float:  # noqa: FBT001
        pace_seconds = self._common.delay_seconds(weight, now_seconds)
        if closing:
            pace_seconds = min(pace_seconds, self._closing.delay_seconds(weight, now_seconds))
        return max(
            0.0,
            self._blocked_until_seconds - now_seconds,
            self._ledger_delay(weight, now_seconds),
            self._report_delay(weight, now_seconds),
            pace_seconds,
        )

    def _book(self, weight: int, now_seconds: float, closing: bool) -> int:  # noqa: FBT001
        saved_for_it = closing and self._closing.delay_seconds(weight, now_seconds) <= 0
        (self._closing if saved_for_it else self._common).spend(weight, now_seconds)
        if self._reported is not None:
            self._reported += weight
        self._tickets += 1
        self._in_flight[self._tickets] = weight
        return self._tickets

    @property
    def _common_depth(self) -> float:
        return max(SAVED_WEIGHT_MIN, self.budget * SAVED_SECONDS / self.window_seconds)

    @property
    def _common_rate(self) -> float:
        # What the accounts can hold is taken off, so that a window that starts with a full one keeps within the ledger.
        even = self.budget - self._common_depth - self._reserved
        return max(even, self.budget * RESERVED_PART_MAX) / self.window_seconds

    def _share_out(self, now_seconds: float) -> None:
        self._common.change(self._common_rate, self._common_depth, now_seconds)
        self._closing.change(self._reserved / self.window_seconds, self._reserved, now_seconds)

    def _own(self, now_seconds: float) -> int:
        while self._answered and self._answered[0][0] <= now_seconds:
            self._answered_weight -= self._answered.popleft()[1]
        return self._answered_weight + sum(self._in_flight.values())

    def _ledger_delay(self, weight: int, now_seconds: float) -> float:
        # A request dearer than the whole budget leaves when nothing else counts, or it would wait for ever.
        excess = self._own(now_seconds) + weight - max(self.budget, weight)
        if excess <= 0:
            return 0.0
        for until_seconds, answered_weight in self._answered:
            excess -= answered_weight
            if excess <= 0:
                return until_seconds - now_seconds
        return math.inf

    def _report_delay(self, weight: int, now_seconds: float) -> float:
        if self._reported is None or now_seconds >= self._reported_seconds + self.window_seconds:
            return 0.0
        if self._reported + weight <= max(self.budget, weight):
            return 0.0
        if self._in_flight:
            return math.inf
        return max(0.0, self._reported_seconds + PROBE_SECONDS - now_seconds)
