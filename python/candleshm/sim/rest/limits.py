"""The request weight of a pool per clock minute, as the exchange counts it, with 429, then 418 for who goes on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW_MS = 60_000
_BAN_FIRST_MS = 2 * 60_000
_BAN_LONGEST_MS = 3 * 86_400_000


@dataclass(frozen=True)
class Verdict:
    """The pool's verdict on a request: HTTP status (200, 429, 418), weight used, and the end of the refusal."""

    status: int
    used: int
    until_ms: int


class WeightPool:
    """The weight of one IP. Times are the exchange's clock; ``patience`` is how many 429s a window precede a ban."""

    def __init__(self, limit: int, patience: int = 10, *, window_ms: int = _WINDOW_MS) -> None:
        self.limit = limit
        self._window_ms = window_ms
        self.total = 0
        self.peak_60s = 0
        self._patience = patience
        self._window = 0
        self._used = 0
        self._refused = 0
        self._banned_until_ms = 0
        self._bans = 0
        self._recent: deque[tuple[int, int]] = deque()
        self._recent_weight = 0

    @property
    def used(self) -> int:
        """Return the weight used in the newest window."""
        return self._used

    def admit(self, weight: int, now_ms: int) -> Verdict:
        """Count a request of ``weight`` and return its verdict. Refused requests count as well."""
        window = now_ms // self._window_ms
        if window != self._window:
            self._window, self._used, self._refused = window, 0, 0
        self._used += weight
        self._count(weight, now_ms)
        if now_ms < self._banned_until_ms:
            self._refused += 1
            if self._refused > self._patience:
                self._ban(now_ms)
            return Verdict(418, self._used, self._banned_until_ms)
        if self._used <= self.limit:
            return Verdict(200, self._used, 0)
        self._refused += 1
        if self._refused > self._patience:
            self._ban(now_ms)
            return Verdict(418, self._used, self._banned_until_ms)
        return Verdict(429, self._used, (window + 1) * self._window_ms)

    def _ban(self, now_ms: int) -> None:
        self._banned_until_ms = now_ms + min(_BAN_FIRST_MS << self._bans, _BAN_LONGEST_MS)
        self._bans = min(self._bans + 1, 16)
        self._refused = 0

    def _count(self, weight: int, now_ms: int) -> None:
        self.total += weight
        self._recent.append((now_ms, weight))
        self._recent_weight += weight
        while self._recent[0][0] <= now_ms - _WINDOW_MS:
            self._recent_weight -= self._recent.popleft()[1]
        self.peak_60s = max(self.peak_60s, self._recent_weight)
