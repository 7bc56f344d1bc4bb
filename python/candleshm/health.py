"""Health: what a block says about itself and its collector."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from candleshm import _core

# The last second that a datetime can hold: a damaged block may name any number.
LAST_MS = 253_402_300_799_000


@dataclass(frozen=True)
class Health:
    """One block at one moment, as `Feed.health` and `segments()` give it.

    ``state`` is 'ready', 'superseded' (another block stands under the name) or 'closed' (its collector ended).
    ``ready`` says that every symbol was loaded once; ``missing`` and ``holes`` count rows of all windows that are not
    fetched yet, and that the exchange confirmed not to have. ``heartbeat_age`` is in seconds: a living collector
    gives a sign of life every half second. Weights are the exchange's request weight in its current minute;
    ``banned_until`` is aware, UTC.
    """

    name: str
    market: str
    interval: str
    length: int
    symbols: int
    state: str
    pid: int
    heartbeat_age: float
    ready: bool
    missing: int
    holes: int
    weight_used: int
    weight_limit: int
    banned_until: datetime | None


def health_of(feed: _core.Feed) -> Health:
    """Return the health of the block that ``feed`` is attached to."""
    fields = feed._health()
    until_ms = fields.pop("banned_until_ms")
    banned_until = None if until_ms is None else datetime.fromtimestamp(min(until_ms, LAST_MS) / 1000, tz=UTC)
    return Health(**fields, banned_until=banned_until)
