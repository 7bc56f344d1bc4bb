"""The command `cluster status`: who takes part in a cluster, who leads what, and how far the others are behind."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from itertools import chain, groupby

import msgspec

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Message
from candleshm.cluster.presence import Presence, Roll, decoded
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.subjects import Subjects
from candleshm.commands.log import CLUSTER_LIBRARIES, HeldLog
from candleshm.commands.table import aligned, fitted
from candleshm.reader.figures import lag_text
from candleshm.system.clock import SystemClock
from candleshm.system.log_text import counted

__all__ = ["present_in", "status_json", "status_table"]

# Everyone says something each second.
LISTEN_SECONDS = 2.0
# A person waits for the answer.
OPEN_SECONDS = 3.0
HEADS = ("HOST", "PID", "ROLE", "LEADS", "EPOCH", "LAG", "SYMBOLS", "LENGTH", "BLOCK", "DIFFERS", "NOTE")
LEFT = ("HOST", "ROLE", "LEADS", "BLOCK", "DIFFERS", "NOTE", "EXIT", "TO")
# What a narrow terminal does without, in this order. `--json` has it all.
FIRST_TO_GO = ("LENGTH", "SYMBOLS", "EPOCH", "PID", "BLOCK", "LAG")
EXIT_HEADS = ("EXIT", "TO", "WEIGHT")


def present_in(settings: ClusterSettings) -> list[Presence]:
    """Return who is present in the cluster, of all its feeds. Raises as `ClusterConnection.open`."""
    log = HeldLog("warning", "text", *CLUSTER_LIBRARIES)
    said: deque[bytes] = deque()

    def hear(message: Message) -> None:
        said.append(message.data)

    connection = ClusterConnection(settings, "candleshm cluster status")
    connection.open(OPEN_SECONDS)
    with closing(connection):
        connection.subscribe(Subjects(settings.prefix, settings.name, "").all_present, hear)
        threading.Event().wait(LISTEN_SECONDS)
    log.release()
    now, roll = SystemClock().monotonic_seconds(), Roll()
    for presence in filter(None, map(decoded, said)):
        roll.note(presence, now)
    return roll.living(now)


def status_table(present: Sequence[Presence], width: int | None = None) -> str:
    """Return a table of the members and mirrors of each feed, and one of the exits by which members meet the exchange.

    They are at most `width` wide, if that is given.
    """
    if not present:
        return "nobody is present\n"
    parts = [_feed_table(feed, list(those), width) for feed, those in groupby(present, key=lambda each: each.feed)]
    exits = [(way, to, f"{used}/{limit}") for (way, to), (used, limit) in _exits(present).items()]
    return "\n".join([*parts, *([aligned(EXIT_HEADS, exits, left=LEFT)] if exits else [])])


def _feed_table(feed: str, present: Sequence[Presence], width: int | None) -> str:
    """Return who is present of one feed, below a line that names it and its shards."""
    leading = [each for each in present if each.epochs]
    divided = f", in {counted(leading[0].shards, 'shard')}" if leading else ", which nobody leads"
    rows = [
        (
            each.host,
            str(each.pid),
            each.role,
            _led(each),
            " ".join(map(str, sorted(set(each.epochs.values())))),
            "" if each.lag_ms is None else lag_text(each.lag_ms / 1000),
            str(each.symbols),
            str(each.length),
            each.block,
            _differing(each),
            each.why,
        )
        for each in present
    ]
    lines = fitted(HEADS, rows, left=LEFT, width=width, first_to_go=FIRST_TO_GO)
    return "".join(f"{line}\n" for line in [f"feed {feed}{divided}", *chain.from_iterable(lines)])


def status_json(present: Sequence[Presence]) -> str:
    """Return what the members and mirrors say of themselves, and the weight of each exit, as a JSON object."""
    exits = [
        {"exit": way, "to": to, "weight_used": used, "weight_limit": limit}
        for (way, to), (used, limit) in _exits(present).items()
    ]
    return json.dumps({"present": msgspec.to_builtins(list(present), str_keys=True), "exits": exits}, indent=2) + "\n"


def _led(presence: Presence) -> str:
    """Return which shards somebody leads; they are numbered from 0."""
    led = presence.leads
    if not led:
        return ""
    if len(led) == presence.shards:
        return "all"
    return f"shard{'s' if len(led) > 1 else ''} {','.join(map(str, led))}"


def _differing(presence: Presence) -> str:
    """Return whether somebody's rows differ from the leaders'."""
    if presence.differing:
        return f"{presence.differing} requests"
    return "" if presence.is_complete else "incomplete"


def _exits(present: Sequence[Presence]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the weight used and allowed of each exit and what it leads to; feeds of one exit share its weight."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for each in present:
        for exit in each.exits:
            used, limit = found.get((exit.way, exit.to), (0, 0))
            found[exit.way, exit.to] = max(used, exit.weight_used), max(limit, exit.weight_limit)
    return dict(sorted(found.items()))
