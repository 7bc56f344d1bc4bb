"""By how much this host's boot clock is ahead of another's, found by requests. Pure: the times are arguments."""

from __future__ import annotations

import struct
from collections import deque

from candleshm.system.clock import DRIFT, SystemClock

__all__ = ["ClockOffset", "asked_epoch", "boot_ns", "clock_answer", "clock_request", "told_clock"]

MEASUREMENTS = 12
_CLOCK = SystemClock()
_REQUEST, _ANSWER = struct.Struct("<Q"), struct.Struct("<QQ")


class ClockOffset:
    """What is to be added to times of another host, so that they become times of this one and none too new.

    A request left this host before the other looked at its clock. So the difference of the two moments is never above
    the offset, and misses it by less than the round trip: the largest of several is the best. Data is taken for older
    than it is by that much, never for newer.
    """

    def __init__(self) -> None:
        self._lowest: deque[tuple[int, int]] = deque(maxlen=MEASUREMENTS)
        self.round_trip_ns: int | None = None
        """The smallest of all round trips."""

    @property
    def is_known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._lowest)

    def measure(self, sent_ns: int, other_ns: int, received_ns: int) -> None:
        """Take in that a request left at `sent_ns`, found the other clock at `other_ns`, and came back."""
        round_trip_ns = received_ns - sent_ns
        if round_trip_ns < 0:
            return
        self._lowest.append((sent_ns, sent_ns - other_ns))
        self.round_trip_ns = min(round_trip_ns, self.round_trip_ns or round_trip_ns)

    def at(self, now_ns: int) -> int:
        """Return the offset at `now_ns`, in nanoseconds. Raises ValueError before the first measurement."""
        if not self._lowest:
            raise ValueError("no clock was measured yet")
        return max(lower_ns - int(max(0, now_ns - at_ns) * DRIFT) for at_ns, lower_ns in self._lowest)


def boot_ns() -> int:
    """Return the machine's boot clock, as the messages have it."""
    return int(_CLOCK.monotonic_seconds() * 1e9)


def clock_request(epoch: int) -> bytes:
    """Return a request for the clock of the leader of that epoch, 0 for whoever leads."""
    return _REQUEST.pack(epoch)


def asked_epoch(request: bytes) -> int | None:
    """Return whose clock is requested, None where that cannot be read."""
    return _REQUEST.unpack(request)[0] if len(request) == _REQUEST.size else None


def clock_answer(epoch: int) -> bytes:
    """Return what the leader of that epoch answers now."""
    return _ANSWER.pack(epoch, boot_ns())


def told_clock(answer: bytes) -> tuple[int, int] | None:
    """Return the epoch of who answered and its boot clock, None where that cannot be read."""
    return _ANSWER.unpack(answer) if len(answer) == _ANSWER.size else None
