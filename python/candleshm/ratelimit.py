"""How much request weight may still be spent: `(weight, now) -> delay`. Nothing here sleeps or reads a clock.

Three rules, the strictest counts. They hold for the sum over all owners of a pool, in this process and in others:

- **Ledger.** In any window (60 s at Binance) at most `share * limit` is spent, where a request counts from its sending
  until one window after its answer: the exchange books it somewhere between the two.
- **Pace.** Weight flows in evenly, into two accounts: one for closing candles, which come all at once and saves up for
  one round of them, and one for everything else, which saves two seconds' worth. A stop empties both, so that nothing
  bursts after it.
- **Report.** The exchange's header counts everything from this address, other programs included. When that leaves no
  room, one request at a time goes out every `PROBE_SECONDS`, and its answer brings the newest number.

All that a pool remembers is one array of float64 words of fixed size, so that it can lie in private memory as well as
in a file that processes share (see `ledger`); the functions at the end decide on these words, whoever holds them.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from candleshm.errors import CandleShmError

__all__ = [
    "BLOCKED_UNTIL",
    "HELD_SECONDS_MAX",
    "LIMIT",
    "NOT_NOW_SECONDS",
    "PROBE_SECONDS",
    "SHARE_UNNAMED",
    "WINDOW",
    "WORDS",
    "PoolMemory",
    "PrivateMemory",
    "WeightBudget",
    "Words",
    "are_plausible",
    "budget_of",
    "used_of",
]

PROBE_SECONDS = 10.0
SAVED_SECONDS = 2.0
SAVED_WEIGHT_MIN = 20.0  # the dearest single request, exchangeInfo
RESERVED_PART_MAX = 1 / 3
# Who waits urgently comes back in time to claim; should it end meanwhile, others wait no longer than this.
HELD_SECONDS_MAX, HELD_SECONDS_MORE = 2.0, 0.1
# Who finds the pool's words held by another process, which may be stopped, asks again after this.
NOT_NOW_SECONDS = 0.05
# Whose turn comes after one that is about to be taken looks again after this.
QUEUE_SECONDS = 0.02
# How often is looked for owners that died, and for a ledger that was removed.
REAP_SECONDS = 0.5
# What counts for a pool in which nobody names a share.
SHARE_UNNAMED = 0.75

Words: TypeAlias = "memoryview[float]"
"""float64 words; the names below are places in it. Times are local monotonic seconds, minus infinity for never."""

LIMIT, WINDOW, SHARE, RESERVED, HELD_UNTIL, BLOCKED_UNTIL = range(6)
REPORTED, REPORTED_AT = 6, 7  # the exchange's number and what was booked since, minus one before the first
IN_FLIGHT, ANSWERED, OLDEST, COUNT = 8, 9, 10, 11  # weights; first place and length of the ring of answered requests
REAPED_AT, QUEUE_UNTIL = 12, 13  # the latest FIRST_UNTIL of all
COMMON, CLOSING = 16, 20  # accounts
RATE, DEPTH, SAVED, AT = range(4)  # of an account: weight flows in at RATE per second and is kept up to DEPTH
OWNERS, OWNERS_MAX, OWNER_WORDS = 24, 64, 10
# Of an owner: its number, zero for a free place; its process; what it named (zero for nothing); its weight in flight;
# since when it waits for its turn (zero when it does not), and until when others let it go first.
NUMBER, PID, STARTED, OWN_SHARE, OWN_WINDOW, OWN_LIMIT, WANTED, OWN_IN_FLIGHT, WAITS_SINCE, FIRST_UNTIL = range(10)
# The ring of answered requests: the moment they stop counting, and their weight. Those of the same moment, a 700th of
# a window, share a place and count until the latest of them ends, so there is always a place.
RING, RING_MAX, RING_WORDS, MOMENTS = OWNERS + OWNERS_MAX * OWNER_WORDS, 720, 2, 700
WORDS = RING + RING_MAX * RING_WORDS

_NO_OWNER: Words = memoryview(bytes(8 * OWNER_WORDS)).cast("d")
_OWNER_PLACES = range(OWNERS, RING, OWNER_WORDS)


class PoolMemory(Protocol):
    """Where the words of a pool lie. Between `begin` and `commit` or `abandon` they are the caller's alone."""

    def begin(self) -> Words | None:
        """Return the words to change them, None when somebody else holds them for longer than one may wait."""

    def commit(self) -> None:
        """Make the changes count, all at once, and let others in."""

    def abandon(self) -> None:
        """Drop the changes and let others in; harmless for who holds nothing."""

    def glance(self) -> Words:
        """Return a copy of the words as they are; never waits."""

    def look(self, place: int) -> float:
        """Return one word as it is; never waits."""

    def refresh(self) -> None:
        """See to it that the words are still those that everybody in the pool uses."""

    def process(self) -> tuple[int, float]:
        """Return this process: its id, and when it was started."""

    def is_alive(self, pid: int, started: float) -> bool:
        """Say whether a process, as `process` names it, still runs."""

    def close(self) -> None:
        """Use the words no more."""


class PrivateMemory:
    """Words that only the owners within this process share."""

    def __init__(self) -> None:
        self._gate = threading.RLock()
        self._words: Words = memoryview(bytearray(8 * WORDS)).cast("d")

    def begin(self) -> Words:
        """Return the words, once other threads are done with them."""
        self._gate.acquire()
        return self._words

    def commit(self) -> None:
        """Let others in."""
        self._gate.release()

    def abandon(self) -> None:
        """Let others in. What was changed stays: nothing of this outlives the process."""
        if self._gate.acquire(blocking=False):
            self._gate.release()
            try:
                self._gate.release()
            except RuntimeError:
                return

    def glance(self) -> Words:
        """Return a copy."""
        with self._gate:
            return memoryview(bytearray(self._words)).cast("d")

    def look(self, place: int) -> float:
        """Return one word."""
        return self._words[place]

    def refresh(self) -> None:
        """Nobody else can replace them."""

    def process(self) -> tuple[int, float]:
        """Return our process id; when it was started matters to nobody."""
        return os.getpid(), 0.0

    def is_alive(self, pid: int, started: float) -> bool:
        """All owners live here."""
        return True

    def close(self) -> None:
        """Nothing is to be given back."""


class WeightBudget:
    """One owner's access to what a pool (one exit address towards one exchange) may spend. Times are local monotonic.

    Owners that have the same `memory` keep the rules together; without one the owner has a pool of its own. `limit` is
    taken until an exchangeInfo says more. `share` is the part of the limit to use at most, zero to name none: of
    the shares that the owners of a pool name the smallest counts for all, so that none is promised more.

    Every method may be called from any thread. None waits longer than `memory` does: what cannot be booked at once, as
    the words are held by a process that is stopped, is booked before anything else is once they are free.
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
        self._number = 0.0
        self._place = OWNERS
        self._named = [share, 0.0, 0.0, 0.0]  # as in the owner's words, from OWN_SHARE on
        self._tickets = 0
        self._in_flight: dict[int, int] = {}
        self._unbooked: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._refreshed_seconds = now_seconds
        self._closed = False
        self._book(now_seconds, _share_out, now_seconds)

    @property
    def limit(self) -> int:
        """Weight that the exchange allows in any window."""
        return int(self._memory.look(LIMIT) or self._assumed[0])

    @property
    def window_seconds(self) -> float:
        """Length of the window that `limit` is stated for."""
        return self._memory.look(WINDOW) or self._assumed[1]

    @property
    def budget(self) -> int:
        """Weight that may be spent in any window."""
        return budget_of(self.limit, self._memory.look(SHARE) or SHARE_UNNAMED)

    @property
    def blocked_until_seconds(self) -> float:
        """When the stop after a 429 or 418 ends; in the past, or minus infinity, when there is none."""
        return self._memory.look(BLOCKED_UNTIL)

    def set_limit(self, limit: int, window_seconds: float, now_seconds: float) -> None:
        """Take the limit that an exchangeInfo states; of different ones in a pool the strictest."""
        self._named[1:3] = window_seconds, float(limit)
        self._book(now_seconds, self._name, now_seconds)

    def reserve(self, closing_weight: int, now_seconds: float) -> None:
        """Keep so much of every window for closing candles, for all owners together at most a third of the budget."""
        self._named[3] = float(closing_weight)
        self._book(now_seconds, self._name, now_seconds)

    def leave(self, now_seconds: float) -> None:
        """Leave the pool, with nothing named any more. What is in flight counts as answered now. Books nothing more."""
        self._book(now_seconds, self._end, now_seconds)
        self._closed = True
        self._memory.close()

    def used(self, now_seconds: float) -> int:
        """Return the weight that counts now: our own, or the exchange's number for this address where that is more."""
        return used_of(self._memory.glance(), now_seconds)

    def delay_seconds(self, weight: int, now_seconds: float, *, closing: bool = False) -> float:
        """Return how long a request of `weight` has to wait; infinite means: until one in flight is answered."""
        return _delay(self._memory.glance(), weight, now_seconds, closing)

    def claim(
        self, weight: int, now_seconds: float, *, closing: bool = False, urgent: bool = False
    ) -> tuple[int, float]:
        """Book a request if it may leave now: (ticket, 0.0), or (0, how long it has to wait).

        Owners that wait take turns, first come, first served, if they come back in time; and while an `urgent` one
        waits nothing else leaves: a dear request would never find room between cheap ones. Who gives up says so.
        """
        try:
            words = self._begin(now_seconds)
            if words is None:
                return 0, NOT_NOW_SECONDS
            delay_seconds = self._claim(words, weight, now_seconds, closing, urgent)
            if delay_seconds > 0:
                self._memory.commit()
                return 0, delay_seconds
            ticket = self._spend(words, weight, now_seconds, closing)
            # Known before it counts: an interrupt between the two leaves a request too many, never one too few.
            self._in_flight[ticket] = weight
            self._memory.commit()
        except BaseException:
            self._memory.abandon()
            raise
        return ticket, 0.0

    def give_up(self, now_seconds: float) -> None:
        """Wait no more for what was refused, so that others need not."""
        self._book(now_seconds, self._leave_queue)

    def sent(self, weight: int, now_seconds: float, *, closing: bool = False) -> int:
        """Book a request that leaves now, whether it may or not, and return its ticket."""
        self._tickets += 1
        ticket = self._tickets
        self._in_flight[ticket] = weight
        self._book(now_seconds, self._count_sent, weight, now_seconds, closing)
        return ticket

    def answered(self, ticket: int, now_seconds: float, reported: int | None = None) -> None:
        """Book the end of a request, answered or failed, with the used weight that the exchange stated."""
        weight = self._in_flight.pop(ticket)
        self._book(now_seconds, self._count_answered, weight, now_seconds, reported)

    def stop(self, seconds: float, now_seconds: float) -> None:
        """Let nothing leave for `seconds`: the exchange answered 429 or 418. A longer stop that is on stays."""
        self._book(now_seconds, _stop, now_seconds + seconds)

    def _book(self, now_seconds: float, change: Callable[..., object], *arguments: Any) -> None:
        """Make a change that must not be lost: when the words cannot be had now, before anything else later."""
        try:
            words = self._begin(now_seconds)
            if words is None:
                if not self._closed:
                    self._unbooked.append((change, arguments))
                return
            change(words, *arguments)
            self._memory.commit()
        except BaseException:
            self._memory.abandon()
            raise

    def _begin(self, now_seconds: float) -> Words | None:
        if self._closed:
            return None
        if now_seconds > self._refreshed_seconds + REAP_SECONDS:
            self._refreshed_seconds = now_seconds
            self._memory.refresh()
        words = self._memory.begin()
        if words is not None:
            if words[self._place] != self._number or self._number == 0.0:
                self._join(words, now_seconds)
            while self._unbooked:
                change, arguments = self._unbooked.pop(0)
                change(words, *arguments)
        return words

    def _join(self, words: Words, now_seconds: float) -> None:
        """Take a place among the owners; again after others had reason to think that this process had died."""
        if words[LIMIT] == 0.0:
            _begin_anew(words, *self._assumed, self._named[0])
        _reap(words, now_seconds, self._memory.is_alive)
        place = next((place for place in _OWNER_PLACES if words[place] == 0.0), None)
        if place is None:
            raise CandleShmError(f"{OWNERS_MAX} collectors and clients share this weight budget already; end some")
        words[place] = self._number = float(int.from_bytes(os.urandom(6), "little") + 1)
        words[place + PID], words[place + STARTED] = self._memory.process()
        self._place = place
        self._write_named(words)
        _share_out(words, now_seconds)
        # Tickets that are out count as in flight again, besides what they counted for as those of a dead process.
        _fly(words, place, sum(self._in_flight.values()))

    def _name(self, words: Words, now_seconds: float) -> None:
        place = self._place
        if now_seconds >= words[REAPED_AT] + REAP_SECONDS:
            _reap(words, now_seconds, self._memory.is_alive)
        if words[place + OWN_SHARE : place + OWN_IN_FLIGHT].tolist() != self._named:
            self._write_named(words)
            _share_out(words, now_seconds)

    def _write_named(self, words: Words) -> None:
        for offset, value in enumerate(self._named, OWN_SHARE):
            words[self._place + offset] = value

    def _end(self, words: Words, now_seconds: float) -> None:
        _end_owner(words, self._place, now_seconds)
        _share_out(words, now_seconds)

    def _claim(self, words: Words, weight: int, now: float, closing: bool, urgent: bool) -> float:  # noqa: FBT001
        held_until = words[HELD_UNTIL]
        if now < held_until and not urgent:
            return max(held_until, words[BLOCKED_UNTIL]) - now
        delay = _delay(words, weight, now, closing)
        if now < words[QUEUE_UNTIL] and not urgent and not (closing and _is_saved_for(words, weight, now)):
            delay = max(delay, _queue_delay(words, self._place, now))
        if delay <= 0:
            if urgent:
                words[HELD_UNTIL] = -math.inf
            elif words[self._place + WAITS_SINCE] > 0:
                self._leave_queue(words)
            return 0.0
        if now >= words[REAPED_AT] + REAP_SECONDS and _reap(words, now, self._memory.is_alive):
            delay = _delay(words, weight, now, closing)
        held_until = now + min(delay, HELD_SECONDS_MAX) + HELD_SECONDS_MORE
        if urgent:
            words[HELD_UNTIL] = held_until
        else:
            place = self._place
            words[place + WAITS_SINCE] = words[place + WAITS_SINCE] or now
            words[place + FIRST_UNTIL] = held_until
            words[QUEUE_UNTIL] = max(held_until, words[QUEUE_UNTIL])
        return delay

    def _leave_queue(self, words: Words) -> None:
        words[self._place + WAITS_SINCE] = words[self._place + FIRST_UNTIL] = 0.0

    def _spend(self, words: Words, weight: int, now: float, closing: bool) -> int:  # noqa: FBT001
        self._tickets += 1
        self._count_sent(words, weight, now, closing)
        return self._tickets

    def _count_sent(self, words: Words, weight: int, now: float, closing: bool) -> None:  # noqa: FBT001
        account = CLOSING if closing and _is_saved_for(words, weight, now) else COMMON
        words[account + SAVED] = _balance(words, account, now) - weight
        words[account + AT] = max(now, words[account + AT])
        if words[REPORTED] >= 0:
            words[REPORTED] += weight
        _fly(words, self._place, weight)

    def _count_answered(self, words: Words, weight: int, now: float, reported: int | None) -> None:
        _fly(words, self._place, -weight)
        _count_spent(words, weight, now)
        if reported is not None:
            words[REPORTED], words[REPORTED_AT] = reported, now


def budget_of(limit: float, share: float) -> int:
    """Return the weight that may be spent in any window."""
    return max(1, math.floor(limit * share))


def used_of(words: Words, now: float) -> int:
    """Return the weight that counts now, by ourselves or by the exchange's number. Forgets in `words` what is over."""
    own = _own(words, now)
    return int(max(own, words[REPORTED]) if _is_fresh(words, now) else own)


def are_plausible(words: Words) -> bool:
    """Say whether words that come from outside can have been written by the functions here."""
    oldest, count = words[OLDEST], words[COUNT]
    if not (oldest in range(RING_MAX) and count in range(RING_MAX + 1)):
        return False
    limits = (words[LIMIT], words[WINDOW], words[SHARE])
    weights = [words[place + OWN_IN_FLIGHT] for place in _OWNER_PLACES]
    moments = [RING + int(oldest + number) % RING_MAX * RING_WORDS for number in range(int(count))]
    if all(word == 0.0 for word in words):
        return True
    return (
        all(0 < word < math.inf for word in limits)
        and not any(math.isnan(word) for word in words)
        and all(0 <= weight < math.inf for weight in (*weights, words[IN_FLIGHT], words[ANSWERED]))
        and words[IN_FLIGHT] == sum(weights)
        and words[ANSWERED] == sum(words[moment + 1] for moment in moments)
        and all(words[account + RATE] < math.inf and words[account + DEPTH] < math.inf for account in (COMMON, CLOSING))
    )


def _begin_anew(words: Words, limit: float, window_seconds: float, share: float) -> None:
    words[LIMIT], words[WINDOW], words[SHARE], words[REPORTED] = limit, window_seconds, share or SHARE_UNNAMED, -1.0
    for place in (HELD_UNTIL, BLOCKED_UNTIL, REPORTED_AT, REAPED_AT, QUEUE_UNTIL, COMMON + AT, CLOSING + AT):
        words[place] = -math.inf
    words[COMMON + SAVED] = words[COMMON + DEPTH] = math.inf  # as much as the account will hold


def _delay(words: Words, weight: int, now: float, closing: bool) -> float:  # noqa: FBT001
    delay = _account_delay(words, COMMON, weight, now)
    if closing and delay > 0:
        delay = min(delay, _account_delay(words, CLOSING, weight, now))
    delay = max(delay, words[BLOCKED_UNTIL] - now)
    budget = max(budget_of(words[LIMIT], words[SHARE]), weight)
    # A request dearer than the whole budget leaves when nothing else counts, or it would wait for ever.
    excess = _own(words, now) + weight - budget
    if excess > 0:
        delay = max(delay, _ledger_delay(words, excess, now))
    if words[REPORTED] + weight > budget and _is_fresh(words, now):
        delay = max(delay, math.inf if words[IN_FLIGHT] > 0 else words[REPORTED_AT] + PROBE_SECONDS - now)
    return delay


def _ledger_delay(words: Words, excess: float, now: float) -> float:
    oldest = int(words[OLDEST])
    for number in range(int(words[COUNT])):
        place = RING + (oldest + number) % RING_MAX * RING_WORDS
        excess -= words[place + 1]
        if excess <= 0:
            return words[place] - now
    return math.inf


def _is_fresh(words: Words, now: float) -> bool:
    return words[REPORTED] >= 0 and now < words[REPORTED_AT] + words[WINDOW]


def _own(words: Words, now: float) -> float:
    """Return our own weight that counts, after forgetting what no longer does."""
    while words[COUNT] > 0:
        place = RING + int(words[OLDEST]) * RING_WORDS
        if words[place] > now:
            break
        words[ANSWERED] -= words[place + 1]
        words[OLDEST] = (words[OLDEST] + 1) % RING_MAX
        words[COUNT] -= 1
    return words[ANSWERED] + words[IN_FLIGHT]


def _count_spent(words: Words, weight: float, now: float) -> None:
    """Let a weight count until one window from now."""
    _own(words, now)
    window, count = words[WINDOW], int(words[COUNT])
    until = now + window
    words[ANSWERED] += weight
    if count > 0:
        newest = RING + (int(words[OLDEST]) + count - 1) % RING_MAX * RING_WORDS
        # Clocks are read before the words are had, so the order may differ by a moment: the later one counts.
        until = max(until, words[newest])
        is_same_moment = until // (window / MOMENTS) == words[newest] // (window / MOMENTS)
        if is_same_moment or count == RING_MAX:
            words[newest] = until
            words[newest + 1] += weight
            return
    place = RING + (int(words[OLDEST]) + count) % RING_MAX * RING_WORDS
    words[place], words[place + 1] = until, weight
    words[COUNT] = count + 1


def _stop(words: Words, until: float) -> None:
    if until > words[BLOCKED_UNTIL]:
        words[BLOCKED_UNTIL] = until
        for account in (COMMON, CLOSING):
            words[account + SAVED], words[account + AT] = min(0.0, words[account + SAVED]), until


def _balance(words: Words, account: int, now: float) -> float:
    saved, at = words[account + SAVED], words[account + AT]
    if now > at > -math.inf:
        saved += (now - at) * words[account + RATE]
    return min(words[account + DEPTH], saved)


def _account_delay(words: Words, account: int, weight: int, now: float) -> float:
    # A full account lets even a request leave that is larger than what it can hold.
    short = min(weight, max(1.0, words[account + DEPTH])) - _balance(words, account, now)
    if short <= 0:
        return 0.0
    rate = words[account + RATE]
    # A hair more than the quotient, or rounding would leave the account a hair short at that very moment.
    return max(0.0, words[account + AT] - now) + short / rate + 1e-6 if rate > 0 else math.inf


def _is_saved_for(words: Words, weight: int, now: float) -> bool:
    """Say whether the account for closing candles has the weight of one."""
    return _account_delay(words, CLOSING, weight, now) <= 0


def _queue_delay(words: Words, place: int, now: float) -> float:
    """Return how long an owner lets others go first that wait longer, and will come back for it any moment."""
    since = words[place + WAITS_SINCE] or now
    firsts = [
        words[other + FIRST_UNTIL]
        for other in _OWNER_PLACES
        if words[other + FIRST_UNTIL] > now and words[other + WAITS_SINCE] < since and other != place
    ]
    return max(QUEUE_SECONDS, min(firsts) - HELD_SECONDS_MORE - now) if firsts else 0.0


def _change_account(words: Words, account: int, rate: float, depth: float, now: float) -> None:
    words[account + SAVED] = min(_balance(words, account, now), depth)
    words[account + AT] = max(now, words[account + AT])
    words[account + RATE], words[account + DEPTH] = rate, depth


def _share_out(words: Words, now: float) -> None:
    """Take the strictest of what the owners name, and let weight flow accordingly."""
    owners = [place for place in _OWNER_PLACES if words[place] != 0.0]
    words[SHARE] = min((share for place in owners if (share := words[place + OWN_SHARE]) > 0), default=SHARE_UNNAMED)
    stated = [place for place in owners if words[place + OWN_LIMIT] > 0]
    if stated:
        strictest = min(stated, key=lambda place: words[place + OWN_LIMIT] / words[place + OWN_WINDOW])
        words[WINDOW], words[LIMIT] = words[strictest + OWN_WINDOW], words[strictest + OWN_LIMIT]
    budget, window = budget_of(words[LIMIT], words[SHARE]), words[WINDOW]
    wanted = sum(words[place + WANTED] for place in owners)
    reserved = words[RESERVED] = min(wanted, budget * RESERVED_PART_MAX)
    depth = max(SAVED_WEIGHT_MIN, budget * SAVED_SECONDS / window)
    # What the accounts can hold is taken off, so that a window that starts with a full one keeps within the ledger.
    rate = max(budget - depth - reserved, budget * RESERVED_PART_MAX) / window
    _change_account(words, COMMON, rate, depth, now)
    _change_account(words, CLOSING, reserved / window, reserved, now)


def _fly(words: Words, place: int, weight: float) -> None:
    words[place + OWN_IN_FLIGHT] += weight
    words[IN_FLIGHT] += weight


def _end_owner(words: Words, place: int, now: float) -> None:
    """Free the place of an owner that ended: its weight in flight counts as answered now."""
    weight = words[place + OWN_IN_FLIGHT]
    if weight > 0:
        _fly(words, place, -weight)
        _count_spent(words, weight, now)
    words[place : place + OWNER_WORDS] = _NO_OWNER


def _reap(words: Words, now: float, is_alive: Callable[[int, float], bool]) -> bool:
    """End the owners whose process died, and say whether there were any."""
    words[REAPED_AT] = now
    dead = [
        place
        for place in _OWNER_PLACES
        if words[place] != 0.0 and not is_alive(int(words[place + PID]), words[place + STARTED])
    ]
    for place in dead:
        _end_owner(words, place, now)
    if dead:
        _share_out(words, now)
    return bool(dead)
