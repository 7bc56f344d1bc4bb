"""What a mirror tells the service manager and Prometheus: its block as any reader sees it, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from candleshm import _core
from candleshm.cluster.follower_status import FollowerStatus
from candleshm.cluster.mirror import Mirror
from candleshm.errors import BlockError
from candleshm.reader.health import health_of

__all__ = ["MirrorReport", "report_of"]


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """One mirror at one moment."""

    symbols: int
    loaded: int
    """Symbols that have every row of their leader: all of them or, while something differs, none."""
    stale: int
    oldest_age: float
    """Of a symbol that trades, in seconds."""
    block_names: tuple[str, ...]
    """Of the block and of those derived from it."""
    status: FollowerStatus
    answered: int
    """Requests of others for rows that this mirror answered."""


def report_of(mirror: Mirror) -> MirrorReport | None:
    """Return the report of a mirror; None while it has no block."""
    status = mirror.status
    if status is None or not mirror.is_open:
        return None
    try:
        health = health_of(_core.Feed(mirror.config.block_name))
    except BlockError:
        return None  # It is being replaced or removed.
    return MirrorReport(
        symbols=health.symbols,
        loaded=health.symbols if status.is_equal else 0,
        stale=health.stale,
        oldest_age=health.oldest_age,
        block_names=mirror.block_names,
        status=status,
        answered=mirror.answered,
    )
