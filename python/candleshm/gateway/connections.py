"""All connections of a gateway: how many there may be, who has to leave, and who is served while too much is asked.

One rule keeps others served beside a client that asks without end: a connection whose requests were answered before
goes first. A new one is refused, cheaply, while too many requests are in flight or there is no room for it.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from typing import Protocol

__all__ = ["CONNECTIONS_MAX", "Connections", "raise_descriptor_limit"]

# At most so many answers precede the one that a known client waits for.
CONNECTIONS_MAX = 2048
# Beyond so many requests in flight, connections without an answered request are refused.
REQUESTS_MAX = 256
# So many more, as a part of the bound, get a refusal; those beyond that are closed without a word.
REFUSED_PART = 8
# Connections that are accepted at once, before any of them is counted.
ACCEPTED_MAX = 1024
# Descriptors that stay free for blocks, files and requests to the exchange, or as many as there are connections.
DESCRIPTORS_KEPT = 256
# A connection that waits for so long may have to make room for another.
IDLE_SECONDS = 1.0
# A request's head, or a body that nobody wants, must arrive in this time.
REQUEST_SECONDS = 10.0
# A client that does not read its response is closed after this time.
RESPONSE_SECONDS = 20.0


class Member(Protocol):
    """What is asked of a connection."""

    was_answered: bool

    def is_late(self, now_seconds: float) -> bool:
        """Say whether its client took too long to send a request, or to read a response."""

    def drop(self) -> None:
        """Close it at once."""


class Connections:
    """Which connections wait for a request, how many requests are in flight, and whether there is room for more.

    `total` is always the number of all connections, websockets included.
    """

    def __init__(self, connections_max: int = CONNECTIONS_MAX, requests_max: int = REQUESTS_MAX) -> None:
        self._connections_max = connections_max
        self.accepted_max = max(1, min(ACCEPTED_MAX, connections_max // 2))
        """How many connections may be accepted at once."""
        self._requests_max = requests_max
        self._members: set[Member] = set()
        # Those for which there was no room: their first request is refused.
        self._surplus: set[Member] = set()
        # Since when they wait, the longest first: those that never sent a request, and the others.
        self._silent: dict[Member, float] = {}
        self._idle: dict[Member, float] = {}
        self.in_flight = 0
        self.closed: Counter[str] = Counter()
        """Connections that were closed or refused, by reason."""

    def enter(self, member: Member, total: int) -> bool:
        """Take a new connection in; return False when it has to be closed at once. One that is idle may have to go."""
        now = now_seconds()
        if total > self._connections_max:
            oldest = self._longest_idle(now)
            if oldest is not None:
                self.closed["idle"] += 1
                oldest.drop()
            elif total > self._connections_max + self._connections_max // REFUSED_PART:
                self.closed["full"] += 1
                return False
            else:
                self._surplus.add(member)
        self._members.add(member)
        self._silent[member] = now
        return True

    def is_refused(self, member: Member) -> bool:
        """Say whether a request that begins now has to be refused."""
        if member.was_answered or (self.in_flight < self._requests_max and member not in self._surplus):
            return False
        self.closed["busy"] += 1
        return True

    def began(self, member: Member) -> None:
        """Note that a request is in flight."""
        self.in_flight += 1
        self._silent.pop(member, None)
        self._idle.pop(member, None)

    def ended(self) -> None:
        """Note that the application is done with a request."""
        self.in_flight -= 1

    def rests(self, member: Member) -> None:
        """Note that a connection waits for its next request."""
        if member in self._members:
            self._idle[member] = now_seconds()

    def leave(self, member: Member) -> None:
        """Forget a connection."""
        self._members.discard(member)
        self._surplus.discard(member)
        self._silent.pop(member, None)
        self._idle.pop(member, None)

    def sweep(self) -> None:
        """Close all connections whose clients are too slow; to be called about once a second."""
        now = now_seconds()
        for member in [member for member in self._members if member.is_late(now)]:
            self.closed["slow"] += 1
            member.drop()

    def _longest_idle(self, now: float) -> Member | None:
        """Return who makes room: a client that never asked, or one that was answered once these hold half the room."""
        for waiting in (self._silent, self._idle if 2 * len(self._idle) > self._connections_max else {}):
            member, since = next(iter(waiting.items()), (None, now))
            if member is not None and now - since >= IDLE_SECONDS:
                return member
        return None


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it needs and the system allows; return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _descriptors_for(CONNECTIONS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return next((count for count in range(CONNECTIONS_MAX, 1, -1) if _descriptors_for(count) <= soft), 1)


def _descriptors_for(connections: int) -> int:
    accepted = min(ACCEPTED_MAX, connections // 2)
    return connections + connections // REFUSED_PART + accepted + min(DESCRIPTORS_KEPT, connections)


def now_seconds() -> float:
    """Return the time by which connections are late."""
    return time.monotonic()
