"""The two ways of one block through a cluster: it tells what its host leads, and takes in what others lead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from candleshm._core import Shadow
from candleshm.cluster.complete_shards import CompleteShards
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.follower import Follower
from candleshm.cluster.publisher import Publisher
from candleshm.cluster.subjects import Subjects

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Replica"]


class Replica:
    """Publisher and follower of one block, from the start until `close`. Belongs to the member's thread."""

    def __init__(
        self,
        connection: ClusterConnection,
        subjects: Subjects,
        writer: Writer,
        *,
        shards: int,
        source: str,
        held_until_ns: Callable[[int], int],
        missing: Callable[[Sequence[str]], None],
    ) -> None:
        """Begin to follow all shards, and to lead none.

        Readers on other hosts are told that rows come from `source`. `held_until_ns` says until when a shard's lease
        holds, by the boot clock; `missing` is called with symbols that a leader has and the block has not.
        """
        self._writer = writer
        self._shards = shards
        self._source = source
        self._collected: frozenset[int] = frozenset()
        self._complete: frozenset[int] = frozenset()
        self._found = CompleteShards()
        self._publisher = Publisher(
            connection,
            subjects,
            Shadow(writer.name, shards, source),
            block_name=writer.name,
            held_until_ns=held_until_ns,
        )
        self._follower = Follower(connection, subjects, writer, shards=shards, missing=missing)
        writer.follow(shards, [])
        self._publisher.start()
        self._follower.start()

    def close(self) -> None:
        """Say and take nothing any more."""
        self._publisher.stop()
        self._follower.stop()

    def collect(self, shards: Collection[int]) -> None:
        """Let the block's rows of these shards come from the exchange alone, and the others from who leads them."""
        self._collected = frozenset(shards)
        self._follower.leave_out(shards)
        self._writer.follow(self._shards, sorted(shards))

    def lead(self, shard: int, epoch: int) -> None:
        """Tell what changes in a shard, under that epoch; readers here are told where it comes from."""
        self.show_source(epoch)
        self._publisher.lead(shard, epoch)

    def show_source(self, epoch: int) -> None:
        """Tell readers here that rows come from this collector, of that epoch; 0 while it is alone."""
        self._writer.set_source(epoch, self._source)

    def leave(self, shard: int) -> None:
        """Tell nothing of a shard any more."""
        self._publisher.leave(shard)

    def look(self) -> bool:
        """Return whether the block has what the leaders of all shards have, or had while they spoke.

        Requests of others are answered for the shards of which it has everything.
        """
        before = self._complete
        self._complete = self._found.after(self._follower.status.shards, collected=self._collected)
        if self._complete != before:
            self._publisher.answer_also(self._complete)
        return len(self._complete | self._collected) == self._shards

    @property
    def failure(self) -> BaseException | None:
        """What ended one of the two by a fault of its own, if anything did; the other is of no use then."""
        return self._publisher.failure or self._follower.failure

    @property
    def symbols(self) -> int:
        """How many symbols the block has."""
        return len(self._writer.symbols)

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """The symbols that the block has."""
        return self._writer.symbols

    @property
    def lag_ms(self) -> float | None:
        """How old the newest change from another host was when it was applied; None where none came lately."""
        lags = [
            status.lag_seconds
            for shard, status in self._follower.status.shards.items()
            if shard not in self._collected and status.lag_seconds is not None
        ]
        return max(lags) * 1000 if lags else None

    @property
    def differing(self) -> int:
        """How many requests the newest comparisons with leaders led to; 0 while everything agrees."""
        shards = self._follower.status.shards.items()
        return sum(status.differing for shard, status in shards if shard not in self._collected)
