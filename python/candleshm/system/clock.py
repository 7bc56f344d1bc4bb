"""Local time, and what is known about the exchange's clock.

Two clocks never mix. Local time is CLOCK_BOOTTIME: it never steps and goes on through a suspend, so a wall clock that
is wrong by minutes, or is set while we run, changes nothing. Exchange time is what the exchange's time endpoint sends,
kept as an interval that surely contains it; what must not be judged too early uses its lower end.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["DATE_MS", "DRIFT", "Clock", "ExchangeTime", "SystemClock"]

# Bound on how fast two clocks run apart. Crystals stay below 1e-4; NTP may slew by up to 5e-4, but not for long.
DRIFT = 2e-4
# The unit of a Date header.
DATE_MS = 1000
# How far the clocks of the servers behind one name may lie apart. What differs by more was set, or is wrong.
APART_MS_MAX = 3000.0
# How much of a distance is kept after a measurement that does not show it: half after fourteen, about an hour.
APART_KEPT = 0.95


class Clock(Protocol):
    """Local time. Tests hand in one that they move by hand."""

    def monotonic_seconds(self) -> float:
        """Return seconds since some fixed moment; never steps and goes on through a suspend."""

    def sleep_seconds(self, until_seconds: float) -> float:
        """Return how long to sleep to wake at that local time; not below 0. A clock that runs faster sleeps less."""

    def epoch_ms(self) -> int:
        """Return the wall clock, which may be wrong; only for showing, and before the exchange's time is known."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_seconds(self) -> float:
        """Return CLOCK_BOOTTIME of the machine in seconds, or the nearest thing to it where that does not exist.

        A time namespace, as containers may have, adds an offset of its own. It is taken off: what processes share,
        blocks and ledgers, holds times that mean the same to all of them.
        """
        return time.clock_gettime(_MONOTONIC) - _OFFSET_SECONDS

    def sleep_seconds(self, until_seconds: float) -> float:
        """Return the seconds that are left."""
        return max(0.0, until_seconds - self.monotonic_seconds())

    def epoch_ms(self) -> int:
        """Return CLOCK_REALTIME in milliseconds."""
        return time.time_ns() // 1_000_000


def _offset_seconds() -> float:
    """Return by how much this process's time namespace is ahead of the machine's CLOCK_BOOTTIME."""
    try:
        with open("/proc/self/timens_offsets", encoding="ascii") as file:
            fields = dict(line.split(maxsplit=1) for line in file)
        seconds, nanoseconds = map(int, fields["boottime"].split())
    except (OSError, ValueError, KeyError):
        return 0.0  # a kernel without such namespaces
    return seconds + nanoseconds / 1e9


_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET_SECONDS = _offset_seconds()


@dataclass(frozen=True, slots=True)
class ExchangeTime:
    """Bounds of the exchange's clock, as measured at local time `measured_seconds`.

    The exchange stamps its response at some moment between sending and receiving, so one measurement gives two bounds
    that are a round trip apart. They widen by `DRIFT` with every second that passes.

    Several servers may respond, with clocks that differ by more than a round trip. The bounds then contain them all.
    """

    measured_seconds: float
    lower_ms: float
    """Exchange time at `measured_seconds` was at least this."""
    upper_ms: float
    """Exchange time at `measured_seconds` was at most this."""
    apart_ms: float = 0.0
    """How far the clocks of the exchange's servers were found to lie apart."""

    @classmethod
    def measured(cls, sent_seconds: float, received_seconds: float, server_ms: int) -> ExchangeTime:
        """Build the bounds from one response of the time endpoint; its stamp is cut down to whole milliseconds."""
        return cls(received_seconds, server_ms, server_ms + 1 + (received_seconds - sent_seconds) * 1000)

    def earliest_ms(self, local_seconds: float) -> int:
        """Return the exchange time that has surely been reached at `local_seconds`."""
        return math.floor(self.lower_ms + self._passed_ms(local_seconds) - self._drift_ms(local_seconds))

    def latest_ms(self, local_seconds: float) -> int:
        """Return the exchange time that has surely not been passed at `local_seconds`."""
        return math.ceil(self.upper_ms + self._passed_ms(local_seconds) + self._drift_ms(local_seconds))

    def error_ms(self, local_seconds: float) -> int:
        """Return the distance of the two bounds at `local_seconds`."""
        return self.latest_ms(local_seconds) - self.earliest_ms(local_seconds)

    def refined(self, newer: ExchangeTime) -> ExchangeTime:
        """Combine with a newer measurement: the overlap of both, each widened by how far servers lie apart.

        Where the two differ by no more than servers may, that is found here. Where they differ by more one of the
        clocks was set, and the newer measurement is returned alone.
        """
        at = newer.measured_seconds
        lower_ms = self.lower_ms + self._passed_ms(at) - self._drift_ms(at)
        upper_ms = self.upper_ms + self._passed_ms(at) + self._drift_ms(at)
        distance_ms = max(newer.lower_ms - upper_ms, lower_ms - newer.upper_ms)
        if distance_ms > APART_MS_MAX:
            return newer
        apart_ms = self.apart_ms * APART_KEPT
        if distance_ms > self.apart_ms:
            # As far as the two servers can lie apart.
            most_ms = max(newer.upper_ms - lower_ms, upper_ms - newer.lower_ms)
            apart_ms = min(APART_MS_MAX, most_ms)
        wider_ms = max(0.0, apart_ms - self.apart_ms)
        lower_ms = max(newer.lower_ms - apart_ms, lower_ms - wider_ms)
        upper_ms = min(newer.upper_ms + apart_ms, upper_ms + wider_ms)
        return ExchangeTime(at, lower_ms, upper_ms, apart_ms) if lower_ms <= upper_ms else newer

    def overlaps(self, newer: ExchangeTime) -> bool:
        """Return whether both can be right about the same clock, or about the clocks of servers that lie apart."""
        return self.refined(newer) is not newer

    def agrees_with(
        self, date_ms: int | None, sent_seconds: float, received_seconds: float, slack_ms: int = 2000
    ) -> bool:
        """Return whether an HTTP Date header (whole seconds, cut down) fits; fronts may cache it for a moment.

        A missing header (None) fits.
        """
        if date_ms is None:
            return True
        earliest_ms = self.earliest_ms(sent_seconds) - 1000 - slack_ms
        return earliest_ms <= date_ms <= self.latest_ms(received_seconds) + slack_ms

    def _passed_ms(self, local_seconds: float) -> float:
        return (local_seconds - self.measured_seconds) * 1000

    def _drift_ms(self, local_seconds: float) -> float:
        return abs(local_seconds - self.measured_seconds) * 1000 * DRIFT
