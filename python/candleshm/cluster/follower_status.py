"""Where a follower stands, for status, metrics and log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FollowerStatus", "ShardStatus"]


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """Where a follower stands in one shard."""

    epoch: int
    sequence: int | None
    silent_seconds: float | None
    """Seconds since the leader said something; None before."""
    lag_seconds: float | None
    """How old the newest change was when it was applied, and since then, once the leader is silent; None before."""
    differing: int
    """Requests that the newest comparison led to; 0 where everything agrees."""
    is_equal: bool
    """Whether a comparison within the last seconds found every row to be the leader's."""
    gaps: int
    """How often messages were missing."""


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """Where a follower stands in all shards that it follows."""

    shards: Mapping[int, ShardStatus] = field(default_factory=dict)
    messages: int = 0
    rows: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    """Messages that were not used, by reason."""
    dropped: int = 0
    """Messages for which there was no room."""
    requests: int = 0
    unanswered: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether every shard was found to be its leader's within the last seconds."""
        return bool(self.shards) and all(shard.is_equal for shard in self.shards.values())

    @property
    def epoch(self) -> int:
        """The newest epoch of a shard's leader; 0 before one said something."""
        return max((shard.epoch for shard in self.shards.values()), default=0)

    @property
    def differing(self) -> int:
        """How many requests the newest comparisons led to."""
        return sum(shard.differing for shard in self.shards.values())

    @property
    def gaps(self) -> int:
        """How often messages were missing, of all shards."""
        return sum(shard.gaps for shard in self.shards.values())

    @property
    def silent_seconds(self) -> float:
        """For how long the most silent leader has said nothing; infinite while one never did."""
        silent = [math.inf if shard.silent_seconds is None else shard.silent_seconds for shard in self.shards.values()]
        return max(silent, default=math.inf)

    @property
    def lag_seconds(self) -> float | None:
        """The largest lag of a shard."""
        return max((shard.lag_seconds for shard in self.shards.values() if shard.lag_seconds is not None), default=None)
