"""When holes are requested again.

Two responses confirmed that the exchange does not have the row. It may add the row later: after an outage, or when the
server that responds has caught up. So every hole is requested again, at growing pauses, and at every start. Only rows
of a time in which the symbol's market did not trade are not: that they are absent is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from candleshm.exchanges.base import INTERVAL_MS

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["HoleRequests"]

# How long after a look at the holes of a series the next one comes; the last pause repeats.
PAUSES_SECONDS = (60.0, 300.0, 1800.0, 7200.0, 21600.0, 86400.0)


# Half-open, ms.
Range = tuple[int, int]


@dataclass(slots=True)
class _Series:
    """The holes of one series: when they are requested next, and which pages are left."""

    due_seconds: float
    looks: int = 0
    pages_ms: list[tuple[int, int]] = field(default_factory=list)  # half-open, oldest first


class HoleRequests:
    """When which holes are requested again. Belongs to one thread; times in seconds are local."""

    def __init__(
        self, writer: Writer, interval: str, page_limit: int, quiet_ms: Callable[[str], list[Range]] = lambda _: []
    ) -> None:
        """`quiet_ms` returns when the market of a symbol does not trade."""
        self._quiet_ms = quiet_ms
        self._writer = writer
        self._interval_ms = INTERVAL_MS[interval]
        self._page_ms = (page_limit - 2) * self._interval_ms
        self._series: dict[str, _Series] = {}
        self.due_seconds = float("inf")

    def suspect(self, symbol: str, now_seconds: float) -> None:
        """Have holes requested at once that another collector confirmed, as before a takeover."""
        if self._holes_ms(symbol):
            self._series[symbol] = _Series(now_seconds)
            self.due_seconds = min(self.due_seconds, now_seconds)

    def confirmed(self, symbol: str, now_seconds: float) -> None:
        """Start the pauses of a series anew: holes were just confirmed."""
        self._series[symbol] = _Series(now_seconds + PAUSES_SECONDS[0])
        self.due_seconds = min(self.due_seconds, self._series[symbol].due_seconds)

    def next_page(self, symbols: frozenset[str], now_seconds: float) -> tuple[str, tuple[int, int]] | None:
        """Return the next range (ms, half-open) that is due, of one of `symbols`; None, and `due_seconds`, if none is.

        What is returned counts as requested. Series that are no longer carried are forgotten.
        """
        self.due_seconds = float("inf")
        for symbol, series in list(self._series.items()):
            if series.due_seconds <= now_seconds:
                if symbol not in symbols:
                    # It has a request on its way, or is no longer carried.
                    if symbol not in self._writer.symbols:
                        del self._series[symbol]
                    else:
                        self.due_seconds = min(self.due_seconds, now_seconds + 1.0)
                    continue
                if not series.pages_ms:
                    series.pages_ms = self._pages_ms(symbol)
                if not series.pages_ms:
                    del self._series[symbol]
                    continue
                page_ms = series.pages_ms.pop()
                if not series.pages_ms:
                    series.due_seconds = now_seconds + PAUSES_SECONDS[min(series.looks, len(PAUSES_SECONDS) - 1)]
                    series.looks += 1
                self.due_seconds = min([self.due_seconds, *(other.due_seconds for other in self._series.values())])
                return symbol, page_ms
            self.due_seconds = min(self.due_seconds, series.due_seconds)
        return None

    def postpone(self, symbol: str, page_ms: tuple[int, int], until_seconds: float) -> None:
        """Take a page back that could not be requested."""
        series = self._series[symbol]
        series.pages_ms.append(page_ms)
        series.due_seconds = until_seconds
        self.due_seconds = min(self.due_seconds, until_seconds)

    def _holes_ms(self, symbol: str) -> list[tuple[int, int]]:
        holes_ms = [(gap.start_ms, gap.end_ms) for gap in self._writer.gaps(symbol) if gap.kind == "hole"]
        return _without(holes_ms, self._quiet_ms(symbol)) if holes_ms else []

    def _pages_ms(self, symbol: str) -> list[tuple[int, int]]:
        """Return ranges of a page at most that together contain all holes, oldest first."""
        pages_ms: list[tuple[int, int]] = []
        for start_ms, end_ms in self._holes_ms(symbol):
            at_ms = start_ms
            while at_ms < end_ms:
                if pages_ms and end_ms - pages_ms[-1][0] <= self._page_ms:
                    pages_ms[-1] = (pages_ms[-1][0], end_ms)
                    break
                pages_ms.append((at_ms, min(end_ms, at_ms + self._page_ms)))
                at_ms = pages_ms[-1][1]
        return pages_ms


def _without(ranges: list[Range], others: list[Range]) -> list[Range]:
    """Return what is left of ranges beside others; both in order."""
    for other_start, other_end in others:
        ranges = [
            part
            for start, end in ranges
            for part in ((start, min(end, other_start)), (max(start, other_end), end))
            if part[0] < part[1]
        ]
    return ranges
