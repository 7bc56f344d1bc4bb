"""What the streams of a feed did so far, counted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from candleshm.stream.status import StreamStatus

if TYPE_CHECKING:
    from candleshm._core import Pushed

__all__ = ["StreamCounters"]


@dataclass(slots=True)
class StreamCounters:
    """Counts since the start; `StreamStatus` describes each of them."""

    opened: int = 0
    lost: int = 0
    batches: int = 0
    events: int = 0
    stale: int = 0
    verified: int = 0
    conflicts: int = 0
    refused: int = 0
    faults: int = 0

    def add(self, pushed: Pushed) -> None:
        """Count one batch."""
        self.batches += 1
        self.events += pushed.events
        self.stale += pushed.stale
        self.verified += pushed.verified
        self.conflicts += pushed.conflicts
        self.refused += pushed.refused
        self.faults += len(pushed.faults)

    def status(self, connections: int, streams: int, stalled: Collection[str]) -> StreamStatus:
        """Return the counts with what is true now."""
        return StreamStatus(connections, streams, tuple(sorted(stalled)), **asdict(self))
