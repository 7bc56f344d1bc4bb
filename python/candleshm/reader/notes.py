"""What an operator should know about a block, in one line."""

from __future__ import annotations

import math

from candleshm.reader.figures import age
from candleshm.reader.health import Health

__all__ = ["note"]


def note(health: Health) -> str:
    """Return what an operator should know about a block, the worst first; nothing while all is well."""
    if health.state == "dead" and health.replayed_at is not None:
        return f"replay {health.pid} is dead: `candleshm rm {health.name}`"
    if health.state == "dead":
        return f"collector {health.pid} is dead: start it again, or `candleshm rm {health.name}` if not needed"
    if health.state == "closed":
        return "its collector has stopped" if health.replayed_at is None else "its replay has ended"
    if health.is_silent:
        pause = age(health.heartbeat_age) if math.isfinite(health.heartbeat_age) else "ever"
        return f"no heartbeat for {pause}, but process {health.pid} still owns the block: it is stopped or hangs"
    if health.replayed_at is not None:
        return f"at {health.replayed_at:%Y-%m-%d %H:%M:%S} UTC"
    words = []
    if health.banned_until is not None:
        words.append(f"banned until {health.banned_until:%H:%M:%S} UTC")
    if not health.loaded:
        words.append(
            f"loading, {health.missing} rows still missing"
            if health.missing
            else "loading, some symbols have no data yet"
        )
    elif health.stale:
        oldest = f"oldest {age(health.oldest_age)}" if math.isfinite(health.oldest_age) else "no symbol has data"
        words.append(f"{health.stale} stale, {oldest}")
    if health.holes and not words:
        words.append(f"{health.holes} holes")
    return "; ".join(words)
