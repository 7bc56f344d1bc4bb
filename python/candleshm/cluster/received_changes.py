"""The changes that a follower receives: those of all shards, but for what its own process tells others."""

from __future__ import annotations

from collections.abc import Iterable

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Receive
from candleshm.cluster.subjects import Subjects

__all__ = ["ReceivedChanges"]


class ReceivedChanges:
    """Subscriptions to the changes of a feed. For one thread; `receive` is called in the connection's."""

    def __init__(self, connection: ClusterConnection, subjects: Subjects, receive: Receive) -> None:
        """Hear all shards."""
        self._connection = connection
        self._subjects = subjects
        self._receive = receive
        self._led: frozenset[int] = frozenset()
        self._subscriptions = [connection.subscribe(subjects.all_changes, receive)]

    def leave_out(self, led: frozenset[int], shards: Iterable[int]) -> None:
        """Hear those of `shards` that are not `led` here, all of the feed where none is: nothing comes back."""
        if led == self._led:
            return
        self._led = led
        before = self._subscriptions
        followed = [self._subjects.changes(shard) for shard in shards if shard not in led]
        # Before the others end: what comes twice changes nothing.
        self._subscriptions = [
            self._connection.subscribe(subject, self._receive)
            for subject in (followed if led else [self._subjects.all_changes])
        ]
        for subscription in before:
            subscription.close()

    def close(self) -> None:
        """Hear nothing any more."""
        for subscription in self._subscriptions:
            subscription.close()
