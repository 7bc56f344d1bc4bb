"""The command `ls`: the blocks of this machine, for people and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime

from candleshm import _core
from candleshm.commands.table import fitted
from candleshm.errors import BlockError, BlockIncompatible, BlockNotFound, BlockOfAnotherUser
from candleshm.reader.feed import attach, blocks
from candleshm.reader.figures import age, kind_of, lag_of, role_of
from candleshm.reader.health import Health
from candleshm.reader.notes import note
from candleshm.system.log_text import counted

__all__ = ["listing_json", "listing_table", "unlisted"]

# What cannot be read may be a block of ours if its name begins so, as those do that get no other name.
OUR_NAMES = "candleshm"

HEADS = ("NAME", "MARKET", "INTERVAL", "SYMBOLS", "LENGTH", "STATE", "PID", "AGE", "WEIGHT", "EXCHANGE")
CLUSTER_HEADS = ("ROLE", "SOURCE", "LAG")
REMARKS = "NOTE"
LEFT = ("NAME", "MARKET", "STATE", "EXCHANGE", "ROLE", "SOURCE", REMARKS)
BINANCE = "binance"
# What a narrow terminal does without, in this order; first of all the exchange where all have the same. `--json` has
# it all.
FIRST_TO_GO = ("WEIGHT", "LENGTH", "SOURCE", "SYMBOLS", "PID", "EXCHANGE", "INTERVAL", "MARKET", "AGE", "ROLE", "LAG")


def listing_table(width: int | None = None) -> str:
    """Return a table of the blocks, at most `width` wide if that is given.

    Where one is of a cluster, there are columns for what it is in it, whose rows it has, and how long these were on
    their way.
    """
    found = blocks()
    if not found:
        return "no blocks\n"
    is_clustered = any(health.source is not None for health in found)
    is_mixed = not {health.exchange for health in found} <= {BINANCE, ""}
    lines = fitted(
        (*HEADS, *(CLUSTER_HEADS if is_clustered else ()), REMARKS),
        [_row(health, is_clustered=is_clustered) for health in found],
        left=LEFT,
        width=width,
        first_to_go=FIRST_TO_GO if is_mixed else ("EXCHANGE", *FIRST_TO_GO),
    )
    return "".join(f"{line}\n" for lines_of in lines for line in lines_of)


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


def _row(health: Health, *, is_clustered: bool) -> tuple[str, ...]:
    return (
        health.name,
        kind_of(health),
        health.interval,
        str(health.symbols),
        str(health.length),
        health.condition,
        str(health.pid),
        age(health.heartbeat_age),
        f"{health.weight_used}/{health.weight_limit}",
        health.exchange or "-",
        *((role_of(health), health.source or "", lag_of(health)) if is_clustered else ()),
        note(health),
    )


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        # As msgspec writes it, which `top --json` uses.
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
