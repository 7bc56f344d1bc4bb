"""The names that one feed of a cluster has on the servers: subjects, the stream of its changes, its leases."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Subjects", "encoded"]

# What a name may hold on its way through subjects, streams and key-value buckets alike.
_UNFIT = re.compile(rb"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Subjects:
    """Every name of one feed. `feed` is the name of the feed in the cluster, which is that of its leader's block.

    >>> Subjects("candleshm", "main", "candleshm-spot-1m").changes(0)
    'candleshm.main.candleshm-spot-1m.changes.0'
    """

    prefix: str
    cluster: str
    feed: str

    @property
    def feed_token(self) -> str:
        """The feed's name as one part of a subject."""
        return encoded(self.feed)

    @property
    def root(self) -> str:
        """What all subjects of the feed begin with."""
        return f"{self.prefix}.{self.cluster}.{self.feed_token}"

    def changes(self, shard: int) -> str:
        """Changes and heartbeats of a shard: one publisher, in order."""
        return f"{self.root}.changes.{shard}"

    @property
    def all_changes(self) -> str:
        """Changes and heartbeats of all shards, to subscribe to."""
        return f"{self.root}.changes.*"

    def ask(self, shard: int) -> str:
        """Requests for rows of a shard; all who can answer take them in turn."""
        return f"{self.root}.ask.{shard}"

    def clock(self, shard: int | str) -> str:
        """Requests for the boot clock of the shard's leader; `*` for those of all shards."""
        return f"{self.root}.clock.{shard}"

    def present(self, member: str) -> str:
        """What a member says of itself each second."""
        return f"{self.root}.present.{encoded(member)}"

    @property
    def all_present(self) -> str:
        """What all members of all feeds of the cluster say of themselves, to subscribe to."""
        return f"{self.prefix}.{self.cluster}.*.present.*"

    @property
    def log(self) -> str:
        """The stream that keeps the last minute of all changes."""
        return f"{self.prefix}_{self.cluster}_{self.feed_token}"

    @property
    def leases(self) -> str:
        """The key-value bucket of the cluster's leases."""
        return f"{self.prefix}_{self.cluster}_leases"

    def lease(self, shard: int) -> str:
        """The key of a shard's lease in that bucket."""
        return f"{self.feed_token}.{shard}"


def encoded(name: str) -> str:
    """Return a name as one part of a subject: bytes that may not stand there as `=2E`.

    >>> encoded("my.block")
    'my=2Eblock'
    """
    return _UNFIT.sub(lambda found: f"={found[0][0]:02X}".encode(), name.encode()).decode()
