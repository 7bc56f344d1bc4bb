"""Which member of a cluster should lead which shard. Pure: every host that sees the same members finds the same.

Rendezvous hashing: each pair of a shard and a member has a score, and a shard belongs to the member of its highest one.
So a member that dies moves no shard but its own. No member gets two shards more than another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping

__all__ = ["assignment", "heir"]


def assignment(shards: int, members: Collection[str]) -> dict[int, str]:
    """Return the member that should lead each shard; nothing without members.

    >>> sorted(assignment(4, ["a", "b"]).values())
    ['a', 'a', 'b', 'b']
    """
    pairs = sorted((_score(shard, member), shard, member) for shard in range(shards) for member in members)[::-1]
    led: dict[int, str] = {}
    counts: Counter[str] = Counter()
    most = 0
    while members and len(led) < shards:
        most += 1
        for _, shard, member in pairs:
            if shard not in led and counts[member] < most:
                led[shard] = member
                counts[member] += 1
    return led


def heir(shard: int, member: str, leading: Mapping[str, int], *, shards: int) -> str | None:
    """Return who should have a shard that `member` leads; None while it should keep it.

    `leading` has for each member that lives and is complete, this one included, how many shards it leads. A shard moves
    only when that makes the load more even: a host that joins takes nothing from a leader of one shard.
    """
    other = assignment(shards, leading.keys()).get(shard, member)
    return other if other != member and leading[member] > leading[other] + 1 else None


def _score(shard: int, member: str) -> bytes:
    return hashlib.blake2b(f"{shard} {member}".encode(), digest_size=8).digest()
