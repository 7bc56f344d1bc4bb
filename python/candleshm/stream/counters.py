"""What the streams of a feed did so far, counted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from candleshm.stream.paths import Paths
from candleshm.stream.status import StreamStatus

if TYPE_CHECKING:
    from candleshm._core import StreamCounts

__all__ = ["StreamCounters"]


@dataclass(slots=True)
class StreamCounters:
    """Connections since the start; `StreamStatus` describes each count."""

    opened: int = 0
    lost: int = 0

    def status(
        self, counts: StreamCounts, paths: Paths, *, connections: int, streams: int, stalled: Collection[str]
    ) -> StreamStatus:
        """Return these counts and those of the stream thread, with what is true now."""
        return StreamStatus(
            connections=connections,
            streams=streams,
            stalled=tuple(sorted(stalled)),
            path=paths.choose(),
            path_moves=paths.moves,
            opened=self.opened,
            lost=self.lost,
            batches=counts.batches,
            events=counts.events,
            stale=counts.stale,
            verified=counts.verified,
            conflicts=counts.conflicts,
            refused=counts.refused,
            faults=counts.faults,
        )
