"""The head of a message between hosts, as far as its way depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from candleshm._core import message_head
from candleshm.errors import ConfigError

__all__ = ["MessageHead"]


@dataclass(frozen=True, slots=True)
class MessageHead:
    """What a message is, and where it belongs."""

    kind: Literal["changes", "heartbeat", "request", "answer"]
    shard: int
    shards: int
    epoch: int
    """Counts the leaders of the shard."""
    sequence: int
    """Of changes their number in the epoch, from 1; of others that of the newest changes before them."""
    sent_boot_ns: int
    """The sender's boot clock."""

    @classmethod
    def of(cls, message: bytes) -> Self | None:
        """Return the head of a message; None where its bytes are not what was sent, or of another major version."""
        try:
            found = message_head(message)
        except ConfigError:
            return None
        return cls(*(found[name] for name in ("kind", "shard", "shards", "epoch", "sequence", "sent_boot_ns")))
