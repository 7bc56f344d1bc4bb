"""Of which shards a follower has every row that their leaders have, or had while they spoke. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from candleshm.cluster.follower_status import ShardStatus

__all__ = ["SILENT_SECONDS", "CompleteShards"]

# Who leads a shard says something each second. One that is silent for longer has died, and what was equal stays so.
SILENT_SECONDS = 2.5


class CompleteShards:
    """Remembers which shards were found to be their leaders'."""

    def __init__(self) -> None:
        self._complete: frozenset[int] = frozenset()

    def after(self, shards: Mapping[int, ShardStatus], *, collected: frozenset[int] = frozenset()) -> frozenset[int]:
        """Return the complete shards, of those before and of `shards`, which say where the follower stands now.

        Shards that are `collected` on this host are nobody else's, and not among them.
        """
        complete = set(self._complete)
        for shard, status in shards.items():
            if status.is_equal:
                complete.add(shard)
            elif status.silent_seconds is not None and status.silent_seconds < SILENT_SECONDS:
                complete.discard(shard)
        self._complete = frozenset(complete - collected)
        return self._complete
