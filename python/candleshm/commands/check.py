"""The command `check`: whether a block may be relied on now, as an exit code and one line."""

from __future__ import annotations

import math

from candleshm.errors import BlockError
from candleshm.reader.feed import attach
from candleshm.reader.figures import age
from candleshm.reader.notes import note
from candleshm.system.log_text import counted

__all__ = ["check"]


def check(name: str, max_age_seconds: float | None, *, requires_streams: bool = False) -> tuple[bool, str]:
    """Return whether the block `name` is ready (`Health.ready` with that `max_age`), and one line about it.

    With `requires_streams` it is not while requests bring the candles of more than a few symbols.
    """
    try:
        with attach(name, max_age_seconds) as feed:
            health = feed.health
    except BlockError as error:
        return False, str(error)
    oldest = f"oldest {age(health.oldest_age)}" if math.isfinite(health.oldest_age) else "no data yet"
    words = note(health) or f"{counted(health.symbols, 'symbol')}, {oldest}"
    if requires_streams and health.ready and not health.has_streams:
        return (
            False,
            f"{name}: {health.condition}, but {health.polled} of {counted(health.symbols, 'symbol')} come by requests",
        )
    return health.ready, f"{name}: {health.condition}, {words}"
