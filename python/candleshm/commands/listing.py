"""The command `ls`: the blocks of this machine, for people and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime

from candleshm import _core
from candleshm.commands.table import aligned
from candleshm.errors import BlockError, BlockIncompatible, BlockNotFound, BlockOfAnotherUser
from candleshm.reader.feed import attach, blocks
from candleshm.reader.figures import age, kind_of, lag_of, role_of
from candleshm.reader.notes import note
from candleshm.system.log_text import counted

__all__ = ["listing_json", "listing_table", "unlisted"]

# What cannot be read may be a block of ours if its name begins so, as those do that get no other name.
OUR_NAMES = "candleshm"

# The exchange has a column where a block is of another one than Binance, such as a simulated one.
BINANCE = "binance"
HEADS = ("NAME", "MARKET", "INTERVAL", "SYMBOLS", "LENGTH", "STATE", "PID", "AGE", "WEIGHT")
CLUSTER_HEADS = ("ROLE", "SOURCE", "LAG")
LEFT = ("NAME", "MARKET", "STATE", "ROLE", "SOURCE", "EXCHANGE", "NOTE")


def listing_table() -> str:
    """Return a table of the blocks.

    Where one has candles of another exchange than Binance, there is a column for that; where one is of a cluster, there
    are columns for what it is in it, whose rows it has, and how long these were on their way.
    """
    found = blocks()
    heads: tuple[str, ...] = HEADS
    rows: list[tuple[str, ...]] = [
        (
            health.name,
            kind_of(health),
            health.interval,
            str(health.symbols),
            str(health.length),
            health.condition,
            str(health.pid),
            age(health.heartbeat_age),
            f"{health.weight_used}/{health.weight_limit}",
        )
        for health in found
    ]
    if not rows:
        return "no blocks\n"
    if any(health.source is not None for health in found):
        heads = heads + CLUSTER_HEADS
        more = [(role_of(health), health.source or "", lag_of(health)) for health in found]
        rows = [row + of_cluster for row, of_cluster in zip(rows, more, strict=True)]
    if not {health.exchange for health in found} <= {BINANCE, ""}:
        heads = (*heads, "EXCHANGE")
        rows = [(*row, health.exchange or "-") for row, health in zip(rows, found, strict=True)]
    rows = [(*row, note(health)) for row, health in zip(rows, found, strict=True)]
    return aligned((*heads, "NOTE"), rows, left=LEFT)


def listing_json() -> str:
    """Return the blocks as a JSON list of objects: the fields of `Health`, its `condition`, the `note` of the table.

    `heartbeat_age` is null when there never was a heartbeat, `oldest_age` while no symbol has data, `banned_until`
    (ISO 8601, UTC) while nothing is banned.
    """
    rows = [
        {name: _json_value(value) for name, value in asdict(health).items()}
        | {"condition": health.condition, "note": note(health)}
        for health in blocks()
    ]
    return json.dumps(rows, indent=2) + "\n"


def unlisted() -> list[str]:
    """Return a line for each block that cannot be read, those of each other user in one line.

    Shared memory of other programs does not count: what cannot be read is known by its name, `candleshm...`.
    """
    lines: list[str] = []
    of_others: dict[tuple[int, int, int], list[BlockOfAnotherUser]] = {}
    for name in _core.block_names():
        try:
            attach(name).close()
        except BlockNotFound:
            continue  # It was removed meanwhile, or is being created.
        except BlockOfAnotherUser as error:
            if name.startswith(OUR_NAMES):
                of_others.setdefault((error.uid, error.gid, error.mode), []).append(error)
        except BlockError as error:
            if isinstance(error, BlockIncompatible) or name.startswith(OUR_NAMES):
                lines.append(str(error))
    for errors in of_others.values():
        names = ", ".join(error.name for error in errors)
        lines.append(f"{counted(len(errors), 'block')} of another user cannot be read: {names}; {errors[0].owned}")
    return lines


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        # As msgspec writes it, which `top --json` uses.
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
