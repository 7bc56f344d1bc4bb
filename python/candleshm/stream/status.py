"""What the streams of a feed do, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StreamStatus"]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What the streams of a collector do, and did so far."""

    connections: int
    """Open now."""
    streams: int
    """Symbols with a subscribed stream on an open connection."""
    stalled: tuple[str, ...]
    """Symbols whose stream stalled or lost its connection, until data arrives again; requested by REST (failover)."""
    path: str
    """URL at which connections are opened, without the names of streams."""
    path_moves: int
    """How often that changed because a path was refused or sent no data."""
    opened: int
    """Connections opened so far."""
    lost: int
    """Of these, connections that ended before another one had taken over."""
    batches: int
    """Socket reads with frames."""
    events: int
    """Candles pushed."""
    stale: int
    """Of these, candles older than what was known."""
    verified: int
    """Rows proven by trade ids, or pushed with the values of a response."""
    conflicts: int
    """Rows in which the stream differed from an earlier response."""
    refused: int
    """Candles with impossible values."""
    faults: int
    """Frames that could not be read, or held a candle of another stream; the latter count as refused, too."""
