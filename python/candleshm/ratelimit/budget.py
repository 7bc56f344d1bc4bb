"""How much request weight may still be spent: `(weight, now) -> delay`. Nothing here sleeps or reads a clock.

Four rules, the strictest counts. They hold for the sum over all owners of a pool, in this process and in others:

- **Ledger.** In any window (60 s at Binance) at most `share * limit` is spent, where a request counts from its sending
  until one window after its response: the exchange books it somewhere between the two.
- **Rate limiter.** Weight flows in evenly, into two accounts: one for closing candles, which come all at once, so that
  it saves up for one round of them, and one for everything else, which saves two seconds' worth. A stop empties both.
- **Burst.** Requests that load series may spend up to two thirds of the budget without waiting for an account. What is
  left flows in evenly until the burst no longer counts. For one window after a stop there is no burst.
- **Report.** The exchange's header counts everything from this IP address, other programs included. When that leaves no
  room, one request at a time is sent every `PROBE_SECONDS`, and its response has the newest number.

The core (`pool.rs`) decides by these rules, on words that lie in private memory or in a file that processes share (see
`ledger`). Here is the side of one owner of the pool: what it may book, and what it still has to book.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from candleshm._core import PoolWords
from candleshm.errors import CandleShmError

__all__ = [
    "HELD_SECONDS_MAX",
    "NOT_NOW_SECONDS",
    "PROBE_SECONDS",
    "PoolMemory",
    "PrivateMemory",
    "WeightBudget",
]

PROBE_SECONDS = PoolWords.PROBE_SECONDS
HELD_SECONDS_MAX = PoolWords.HELD_SECONDS_MAX
# Pause before the next attempt when another process, which may be stopped, holds the pool's words.
NOT_NOW_SECONDS = 0.05
# Interval between checks for dead owners, and for a ledger that was removed.
REAP_SECONDS = 0.5

T = TypeVar("T")


class PoolMemory(Protocol):
    """Where the words of a pool lie."""

    @property
    def words(self) -> PoolWords:
        """The words; `refresh` may replace them."""

    def patiently(self, attempt: Callable[[], T | None]) -> T | None:
        """Repeat `attempt` until it returns something; None when the words are held for too long."""

    def refresh(self) -> None:
        """Make sure that the words are still those that all owners of the pool use."""

    def hold(self, token: int) -> None:
        """Count as alive as the owner `token` until `let_go`, `close` or the end of this process, even by a kill."""

    def let_go(self, token: int) -> None:
        """Stop being that owner."""

    def is_alive(self, token: int) -> bool:
        """Return whether that owner is alive."""

    def close(self) -> None:
        """Stop changing the words."""


class PrivateMemory:
    """Words that only the owners within this process share."""

    def __init__(self) -> None:
        copies = (memoryview(bytearray(8 * PoolWords.WORDS)).cast("Q") for _ in range(2))
        self.words = PoolWords(memoryview(bytearray(64)).cast("Q"), (next(copies), next(copies)))

    def patiently(self, attempt: Callable[[], T | None]) -> T | None:
        """Repeat until other threads are done."""
        while (result := attempt()) is None:
            time.sleep(0)
        return result

    def refresh(self) -> None:
        """Nobody else can replace them."""

    def hold(self, token: int) -> None:
        """All owners live here."""

    def let_go(self, token: int) -> None:
        """Nothing is held."""

    def is_alive(self, token: int) -> bool:
        """All owners live here."""
        return True

    def close(self) -> None:
        """Others may go on with them."""


class WeightBudget:
    """One owner's access to what a pool (one egress to one exchange) may spend. Times are local monotonic.

    Owners that have the same `memory` keep the rules together; without one the owner has a pool of its own. `limit` is
    used until an exchangeInfo has been read. `share` is the part of the limit to use at most, zero to name none: of
    the shares that the owners of a pool name the smallest counts for all.

    Every method may be called from any thread. None waits longer than `memory` does: what cannot be booked at once, as
    the words are held by a process that is stopped, is booked before anything else once they are free.
    """

    def __init__(
        self,
        limit: int,
        share: float,
        window_seconds: float = 60.0,
        *,
        memory: PoolMemory | None = None,
        now_seconds: float = -math.inf,
    ) -> None:
        self._memory: PoolMemory = memory or PrivateMemory()
        self._assumed = (float(limit), window_seconds)
        self._place, self._token = 0, 0
        self._named = [share, 0.0, 0.0, 0.0]  # share, window, limit, weight of closing candles; zero for nothing
        self._tickets = 0
        self._gate, self._settling = threading.Lock(), threading.Lock()
        self._in_flight: dict[int, int] = {}
        self._unbooked: list[tuple[Callable[..., bool], tuple[Any, ...]]] = []
        self._refreshed_seconds = now_seconds
        self._closed = False
        self._memory.patiently(lambda: self._settle(now_seconds) or None)

    @property
    def limit(self) -> int:
        """Weight that the exchange allows in any window."""
        return int(self._look(PoolWords.LIMIT) or self._assumed[0])

    @property
    def window_seconds(self) -> float:
        """Length of the window that `limit` is stated for."""
        return self._look(PoolWords.WINDOW) or self._assumed[1]

    @property
    def budget(self) -> int:
        """Weight that may be spent in any window."""
        return max(1, math.floor(self.limit * (self._look(PoolWords.SHARE) or PoolWords.SHARE_UNNAMED)))

    @property
    def blocked_until_seconds(self) -> float:
        """When the stop after a 429 or 418 ends; in the past, or minus infinity, when there is none."""
        return self._look(PoolWords.BLOCKED_UNTIL)

    def is_burst_spent(self, now_seconds: float) -> bool:
        """Return whether what loads has had its burst, which still counts: everything else goes first now."""
        return self._memory.words.is_burst_spent(now_seconds)

    def set_limit(self, limit: int, window_seconds: float, now_seconds: float) -> None:
        """Use the limit that an exchangeInfo states; the strictest one in the pool counts."""
        self._named[1:3] = window_seconds, float(limit)
        self._name(now_seconds)

    def reserve(self, closing_weight: int, now_seconds: float) -> None:
        """Keep so much of every window for closing candles, for all owners together at most a third of the budget."""
        self._named[3] = float(closing_weight)
        self._name(now_seconds)

    def leave(self, now_seconds: float) -> None:
        """Leave the pool and book nothing more. Requests in flight count as ended now."""
        if not self._closed:
            self._book(now_seconds, PoolWords.leave, now_seconds)
            self._memory.let_go(self._token)
            self._closed = True
            self._memory.close()

    def used(self, now_seconds: float) -> int:
        """Return the weight that counts now: our own, or the exchange's number for this address where that is more."""
        self._look_after(now_seconds)
        return int(self._memory.words.used(now_seconds))

    def delay_seconds(self, weight: int, now_seconds: float, *, closing: bool = False) -> float:
        """Return how long a request of `weight` has to wait; infinite means: until one in flight ends."""
        return self._memory.words.delay(weight, now_seconds, closing)

    def wait_seconds(self, weight: int, now_seconds: float) -> float:
        """Return when so much weight could have been spent, seconds from now, if nobody else spent any."""
        windows, rest = divmod(weight, self.budget)
        rest_seconds = self.delay_seconds(rest, now_seconds)
        return windows * self.window_seconds + min(rest_seconds, self.window_seconds)

    def claim(
        self, weight: int, now_seconds: float, *, closing: bool = False, urgent: bool = False, loading: bool = False
    ) -> tuple[int, float]:
        """Book a request if it may leave now: (ticket, 0.0), or (0, how long it has to wait).

        A waiting owner claims again before its turn ends; turns are in the order of the first claims. While an `urgent`
        one waits no other request is sent: an expensive request would never find room between cheap ones. An owner that
        does not wait any longer calls `give_up`.

        A `loading` request may be part of a burst. Once that has spent its part, it takes what everything else leaves.
        """

        def claim() -> float | None:
            return self._memory.words.claim(self._place, self._token, weight, now_seconds, closing, urgent, loading)

        delay_seconds = self._try(now_seconds, claim)
        if delay_seconds is None:
            return 0, NOT_NOW_SECONDS
        if delay_seconds > 0 and self._reap(now_seconds):
            delay_seconds = self._try(now_seconds, claim)
            if delay_seconds is None:
                return 0, NOT_NOW_SECONDS
        return (0, delay_seconds) if delay_seconds > 0 else (self._ticket(weight), 0.0)

    def give_up(self, now_seconds: float) -> None:
        """Wait no longer for what could not be claimed, so that other owners get their turn."""
        self._book(now_seconds, PoolWords.give_up)

    def sent(self, weight: int, now_seconds: float, *, closing: bool = False) -> int:
        """Book a request that is sent now in any case, and return its ticket."""
        self._book(now_seconds, PoolWords.sent, weight, now_seconds, closing)
        return self._ticket(weight)

    def finished(self, ticket: int, now_seconds: float, reported: int | None = None) -> None:
        """Book the end of a request, successful or not, with the used weight that the exchange reported."""
        self._book(now_seconds, PoolWords.finished, self._in_flight.pop(ticket), now_seconds, reported)

    def stop(self, seconds: float, now_seconds: float) -> None:
        """Send nothing for `seconds`, after a 429 or 418. A longer stop that is in force stays."""
        self._book(now_seconds, PoolWords.stop, now_seconds + seconds)

    def _look(self, place: int) -> float:
        return self._memory.words.look(place)

    def _ticket(self, weight: int) -> int:
        with self._gate:
            self._tickets += 1
            self._in_flight[self._tickets] = weight
            return self._tickets

    def _name(self, now_seconds: float) -> None:
        self._reap(now_seconds)
        self._book(now_seconds, PoolWords.name, list(self._named), now_seconds)

    def _book(self, now_seconds: float, change: Callable[..., bool], *arguments: Any) -> None:
        """Make a change that must not be lost: later, before anything else, when the words are held now."""

        def book() -> bool | None:
            return change(self._memory.words, self._place, self._token, *arguments) or None

        if not self._closed and self._try(now_seconds, book) is None:
            self._unbooked.append((change, arguments))

    def _try(self, now_seconds: float, attempt: Callable[[], T | None]) -> T | None:
        """Return the result of an attempt, None when the words are held by another process."""
        if self._closed:
            return None
        self._look_after(now_seconds)
        if not self._unbooked and (result := attempt()) is not None:
            return result

        def again() -> T | None:
            return attempt() if self._settle(now_seconds) else None

        return self._memory.patiently(again)

    def _look_after(self, now_seconds: float) -> None:
        """Check at intervals that the words are still those that all owners use."""
        if not self._closed and now_seconds > self._refreshed_seconds + REAP_SECONDS:
            self._refreshed_seconds = now_seconds
            self._memory.refresh()

    def _settle(self, now_seconds: float) -> bool:
        """Be an owner and book what is not booked yet; False when the words are held by another process."""
        if not self._settling.acquire(blocking=False):
            return False
        try:
            if not self._memory.words.holds(self._place, self._token) and not self._join(now_seconds):
                return False
            while self._unbooked:
                change, arguments = self._unbooked[0]
                if not change(self._memory.words, self._place, self._token, *arguments):
                    return False
                self._unbooked.pop(0)
            return True
        finally:
            self._settling.release()

    def _join(self, now_seconds: float) -> bool:
        """Take a place among the owners; once more after others took this process for dead."""
        words = self._memory.words
        token = secrets.randbelow(PoolWords.TOKEN_MAX) + 1
        # Requests in flight count once more, in addition to their weight as those of a dead process.
        in_flight = sum(list(self._in_flight.values()))
        # First, or others would take the new owner for dead.
        self._memory.hold(token)
        place = words.join(token, os.getpid(), self._assumed, list(self._named), in_flight, now_seconds)
        if not place:
            self._memory.let_go(token)
        if place == 0 and self._reap(now_seconds):
            return False
        if place == 0:
            raise CandleShmError(
                f"{PoolWords.OWNERS_MAX} collectors and clients share this weight budget (the limit); end some of them"
            )
        if place is None:
            return False
        if self._token:
            self._memory.let_go(self._token)
        self._place, self._token = place, token
        return True

    def _reap(self, now_seconds: float) -> bool:
        """Remove dead owners, and return whether there were any."""
        words = self._memory.words
        if now_seconds < words.look(PoolWords.REAPED_AT) + REAP_SECONDS:
            return False
        dead = [
            (place, token)
            for place, token, _ in words.owners()
            if token != self._token and not self._memory.is_alive(token)
        ]
        return words.end_dead(dead, now_seconds) and bool(dead)
