"""What a collector logs about requests that fail: a line for each symbol while few fail, one outage while many do.

Pure: the caller passes what failed and the time (local seconds), and logs the lines that it returns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from candleshm.errors import ExchangeError
from candleshm.reader.freshness import STALE_SECONDS, Freshness

__all__ = ["Outage", "Steady"]

# Up to so many failing symbols are logged one by one; of a large feed, a tenth.
FEW_MAX, FEW_PART = 3, 10
# Failures must last for so long to be an outage, and must be over for so long to end it.
BEGIN_SECONDS, END_SECONDS = 2.0, 3.0
SUMMARY_SECONDS, SUMMARY_SECONDS_MAX = 30.0, 3600.0
KINDS_SHOWN = 3
# Lines of single failures that wait until it is known whether they are part of an outage.
HELD_MAX = 10


@dataclass(slots=True)
class Outage:
    """Whether there is an outage: many symbols fail together, or no data arrives."""

    is_on: bool = False
    _since_seconds: float | None = None
    """Since when many fail, or the data is not current."""
    _over_seconds: float | None = None
    """Since when that is over, while the outage is on."""
    _summary_seconds: float = 0.0
    _summary_pause_seconds: float = SUMMARY_SECONDS
    _kinds: Counter[str] = field(default_factory=Counter)
    _newest: str = ""
    _held: list[str] = field(default_factory=list)
    _unlogged: int = 0

    def failed(self, error: Exception, line: str | None) -> None:
        """Note a failed request, and the line about it alone, which `look` returns if there is no outage."""
        self._kinds[_kind(error)] += 1
        self._newest = str(error)
        if line is not None and not self.is_on:
            if len(self._held) < HELD_MAX:
                self._held.append(line)
            else:
                self._unlogged += 1

    def look(
        self, failing: int, trading: int, freshness: Freshness, now: float, *, is_loaded: bool = True
    ) -> list[str]:
        """Return the lines to log now; to be called about once a second.

        `failing` of `trading` symbols failed at their newest request; `freshness` is that of their data, which
        counts once the feed was loaded.
        """
        is_old = (is_loaded or self.is_on) and not freshness.is_current
        is_bad = trading > 0 and (_are_many(failing, trading) or is_old)
        lines: list[str] = []
        if not is_bad:
            if self.is_on:
                self._over_seconds = now if self._over_seconds is None else self._over_seconds
                if now - self._over_seconds >= END_SECONDS:
                    lines.append(self._end(trading, freshness))
            else:
                lines += self._held
                if self._unlogged:
                    lines.append(f"{self._unlogged} more requests failed at the same time; requests succeed again")
                self._forget()
            return lines
        self._over_seconds = None
        if self._since_seconds is None:
            self._since_seconds = now
        if not self.is_on and now - self._since_seconds >= BEGIN_SECONDS:
            self.is_on = True
            self._held.clear()
            self._summary_pause_seconds = SUMMARY_SECONDS
            self._summary_seconds = self._since_seconds + SUMMARY_SECONDS
            why = f"requests for {failing} of {trading} symbols fail: {self._newest}"
            if not failing:
                why = "no request fails, but no new data arrives"
            lines.append(f"outage: {why}; {_data(freshness)}")
        elif self.is_on and now >= self._summary_seconds:
            self._summary_pause_seconds = min(2 * self._summary_pause_seconds, SUMMARY_SECONDS_MAX)
            self._summary_seconds = now + self._summary_pause_seconds
            lines.append(
                f"outage for {now - self._since_seconds:.0f} s: requests for {failing} of {trading} symbols fail "
                f"({self._shown_kinds()}); {_data(freshness)}"
            )
        return lines

    def _end(self, trading: int, freshness: Freshness) -> str:
        lasted_seconds = (self._over_seconds or 0.0) - (self._since_seconds or 0.0)
        line = (
            f"the outage is over after {lasted_seconds:.0f} s: {self._kinds.total()} requests failed "
            f"({self._shown_kinds()}); data flows again, and {freshness.stale} of {trading} symbols are still stale"
        )
        self._forget()
        return line

    def _forget(self) -> None:
        self.is_on = False
        self._since_seconds = self._over_seconds = None
        self._kinds.clear()
        self._held.clear()
        self._unlogged = 0

    def _shown_kinds(self) -> str:
        shown = [f"{kind}: {count}" for kind, count in self._kinds.most_common(KINDS_SHOWN)]
        return ", ".join(shown) if shown else "no request failed"


class Steady:
    """A state that is believed once it has lasted, so that changes to and fro are not logged."""

    def __init__(self, believed: str, lasts_seconds: float) -> None:
        self.believed = believed
        self._lasts_seconds = lasts_seconds
        self._other = believed
        self._other_seconds = 0.0

    def becomes(self, seen: str, now: float) -> bool:
        """Note what is seen; return whether another state is believed from now on."""
        if seen != self._other:
            self._other, self._other_seconds = seen, now
        if seen == self.believed:
            return False
        if now - self._other_seconds < self._lasts_seconds:
            return False
        self.believed = seen
        return True


def _are_many(failing: int, trading: int) -> bool:
    return failing >= trading or failing > max(FEW_MAX, trading // FEW_PART)


def _kind(error: Exception) -> str:
    status = getattr(error, "status", None)
    if isinstance(error, ExchangeError) and isinstance(status, int) and status != 200:
        return f"HTTP {status}"
    return type(error).__name__


def _data(freshness: Freshness) -> str:
    oldest = freshness.oldest_age
    if oldest == float("inf"):
        return "no symbol has data yet"
    if freshness.stale:
        return f"{freshness.stale} are stale, and the oldest data is {oldest:.0f} s old"
    if oldest >= STALE_SECONDS:  # a feed with few requests
        return f"none is stale yet; the oldest data is {oldest:.0f} s old"
    return f"none is stale yet; the oldest data is {oldest:.0f} s old and is stale in {STALE_SECONDS - oldest:.0f} s"
