"""What a gateway did since its start, counted: requests, seconds, connections, clients of streams."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["BUCKETS_SECONDS", "Counts", "Seconds"]

KLINES_PATHS = ("/api/v3/klines", "/fapi/v1/klines", "/dapi/v1/klines")
# Upper ends of the histogram's buckets; one more counts what took longer.
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Seconds:
    """A histogram of durations."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counts:
    """All counts of a gateway. Values of labels are few: templates of paths, statuses, sources, reasons, codes.

    What other parts count is asked of them: they set the functions here.
    """

    requests: Counter[tuple[str, int, str]] = field(
        default_factory=lambda: Counter({(path, 503, ""): 0 for path in KLINES_PATHS})
    )
    """Responses by path, status and source. Refusals of candles are there from the start: a counter that appears with
    the first of them shows no increase by it."""
    seconds: dict[str, Seconds] = field(default_factory=dict)
    """Time from the whole request to the response's last byte, by path."""
    connections: Callable[[], int] = lambda: 0
    """How many connections are open."""
    in_flight: Callable[[], int] = lambda: 0
    """How many requests have no response yet."""
    closed: Callable[[], Mapping[str, int]] = dict
    """Connections that were closed or refused, by reason in a word."""
    websockets: Callable[[], int] = lambda: 0
    """How many websockets are open."""
    streams: Callable[[], int] = lambda: 0
    """How many streams some client has subscribed to."""
    dropped: Callable[[], Mapping[int, int]] = dict
    """Websockets that the gateway closed, by code."""

    def response(self, path: str, status: int, source: str, seconds: float) -> None:
        """Count one response."""
        self.requests[path, status, source] += 1
        if path not in self.seconds:
            self.seconds[path] = Seconds()
        self.seconds[path].add(seconds)
