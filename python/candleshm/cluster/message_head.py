"""The head of a message between hosts, as far as its way depends on it. The core reads and checks everything else."""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

__all__ = ["ANSWER", "CHANGES", "HEARTBEAT", "REQUEST", "MessageHead"]

CHANGES, HEARTBEAT, REQUEST, ANSWER = 1, 2, 3, 4
_MAGIC, _MAJOR = b"CNDLREPL", 1
# Magic, major and minor, kind, flags, checksum, size, head size, feed, shard, shards, epoch, sequence, boot clock.
_HEAD = struct.Struct("<8sBBBBIIIQIIQQQ")


class MessageHead(NamedTuple):
    """What a message is, and where it belongs."""

    kind: int
    shard: int
    shards: int
    epoch: int
    """Counts the leaders of the shard."""
    sequence: int
    """Of `CHANGES` its number in the epoch, from 1; of others that of the newest `CHANGES` before it."""
    sent_boot_ns: int
    """The sender's boot clock."""

    @classmethod
    def of(cls, message: bytes) -> Self | None:
        """Return the head of a message, None where it is none of this version."""
        if len(message) < _HEAD.size:
            return None
        magic, major, _, kind, _, _, _, _, _, shard, shards, epoch, sequence, boot_ns = _HEAD.unpack_from(message)
        if magic != _MAGIC or major != _MAJOR or shard >= shards:
            return None
        return cls(kind, shard, shards, epoch, sequence, boot_ns)
