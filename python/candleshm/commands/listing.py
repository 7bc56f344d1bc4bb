"""The command `ls`: the blocks of this machine, for people and as JSON."""

from __future__ import annotations

import json
import math

from candleshm import _core
from candleshm.commands.table import aligned
from candleshm.errors import BlockError, BlockIncompatible, BlockNotFound
from candleshm.reader.feed import attach, blocks
from candleshm.reader.figures import age
from candleshm.reader.notes import note

__all__ = ["broken", "listing_json", "listing_table"]

HEADS = ("NAME", "MARKET", "INTERVAL", "SYMBOLS", "LENGTH", "STATE", "PID", "AGE", "WEIGHT", "NOTE")


def listing_table() -> str:
    """Return a table of the blocks."""
    rows = [
        (
            health.name,
            health.market,
            health.interval,
            str(health.symbols),
            str(health.length),
            health.condition,
            str(health.pid),
            age(health.heartbeat_age),
            f"{health.weight_used}/{health.weight_limit}",
            note(health),
        )
        for health in blocks()
    ]
    return aligned(HEADS, rows, left=("NAME", "MARKET", "STATE", "NOTE")) if rows else "no blocks\n"


def listing_json() -> str:
    """Return the blocks as a JSON list; `age` is that of the heartbeat in seconds, null when there never was one.

    `oldest_age` is null while no symbol has data, `banned_until` (ISO 8601, UTC) while nothing is banned.
    """
    rows = [
        {
            "name": health.name,
            "market": health.market,
            "interval": health.interval,
            "symbols": health.symbols,
            "length": health.length,
            "state": health.state,
            "pid": health.pid,
            "age": _finite(health.heartbeat_age),
            "ready": health.ready,
            "stale": health.stale,
            "oldest_age": _finite(health.oldest_age),
            "missing": health.missing,
            "holes": health.holes,
            "weight_used": health.weight_used,
            "weight_limit": health.weight_limit,
            "banned_until": None if health.banned_until is None else health.banned_until.isoformat(),
            "note": note(health),
        }
        for health in blocks()
    ]
    return json.dumps(rows, indent=2) + "\n"


def broken() -> list[BlockError]:
    """Return the errors of blocks that cannot be read; shared memory of other programs does not count."""
    errors: list[BlockError] = []
    for name in _core.block_names():
        try:
            attach(name).close()
        except BlockNotFound:
            continue  # It was removed meanwhile, or is being created.
        except BlockError as error:
            if isinstance(error, BlockIncompatible) or name.startswith("candleshm"):
                errors.append(error)
    return errors


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None
