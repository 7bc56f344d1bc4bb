"""The command `ls`: the blocks of this machine, for people and as JSON."""

from __future__ import annotations

import json
import math

from candleshm import _core
from candleshm.commands.figures import age
from candleshm.commands.table import aligned
from candleshm.errors import SegmentError, SegmentIncompatible, SegmentNotFound
from candleshm.health import Health
from candleshm.reader import attach, segments

__all__ = ["SILENT_SECONDS", "broken", "listing_json", "listing_table"]

HEADS = ("NAME", "MARKET", "INTERVAL", "SYMBOLS", "LENGTH", "STATE", "PID", "AGE", "WEIGHT", "NOTE")
# A collector gives a sign of life every half second.
SILENT_SECONDS = 5.0


def listing_table() -> str:
    """Return a table of the blocks."""
    rows = [
        (
            health.name,
            health.market,
            health.interval,
            str(health.symbols),
            str(health.length),
            health.state,
            str(health.pid),
            age(health.heartbeat_age),
            f"{health.weight_used}/{health.weight_limit}",
            _note(health),
        )
        for health in segments()
    ]
    return aligned(HEADS, rows, left=("NAME", "MARKET", "STATE", "NOTE")) if rows else "no blocks\n"


def listing_json() -> str:
    """Return the blocks as a JSON list; `age` is that of the heartbeat in seconds, null when there never was one."""
    rows = [
        {
            "name": health.name,
            "market": health.market,
            "interval": health.interval,
            "symbols": health.symbols,
            "length": health.length,
            "state": health.state,
            "pid": health.pid,
            "age": round(health.heartbeat_age, 3) if math.isfinite(health.heartbeat_age) else None,
        }
        for health in segments()
    ]
    return json.dumps(rows, indent=2) + "\n"


def broken() -> list[SegmentError]:
    """Return what is wrong with blocks that cannot be read; other programs' shared memory does not count."""
    errors: list[SegmentError] = []
    for name in _core.block_names():
        try:
            attach(name).close()
        except SegmentNotFound:
            continue  # It went away meanwhile, or comes up just now.
        except SegmentError as error:
            if isinstance(error, SegmentIncompatible) or name.startswith("candleshm"):
                errors.append(error)
    return errors


def _note(health: Health) -> str:
    if health.heartbeat_age > SILENT_SECONDS:
        return f"no sign of life; `candleshm rm {health.name}` removes a left-over"
    if health.banned_until is not None:
        return f"banned until {health.banned_until:%H:%M:%S} UTC"
    if not health.ready:
        return (
            f"loading, {health.missing} rows to come"
            if health.missing
            else "loading, some symbols not answered for yet"
        )
    return f"{health.holes} holes" if health.holes else ""
