"""The changes that a follower receives: those of all shards, but for what its own process tells others."""

from __future__ import annotations

from collections.abc import Iterable

from candleshm.cluster.connection import ClusterConnection, Subscription
from candleshm.cluster.message import Receive, TakeAhead
from candleshm.cluster.subjects import Subjects

__all__ = ["ReceivedChanges"]


class ReceivedChanges:
    """Subscriptions to the changes of a feed. For one thread; the two callbacks run in the connection's."""

    def __init__(
        self, connection: ClusterConnection, subjects: Subjects, receive: Receive, take_ahead: TakeAhead
    ) -> None:
        """Hear all shards. `receive` gets what `take_ahead` does not take."""
        self._connection = connection
        self._subjects = subjects
        self._receive = receive
        self._take_ahead = take_ahead
        self._led: frozenset[int] = frozenset()
        self._subscriptions = [self._subscribe(subjects.all_changes)]

    def leave_out(self, led: frozenset[int], shards: Iterable[int]) -> None:
        """Hear those of `shards` that are not `led` here, all of the feed where none is: nothing comes back."""
        if led == self._led:
            return
        self._led = led
        before = self._subscriptions
        followed = [self._subjects.changes(shard) for shard in shards if shard not in led]
        # Before the others end: what comes twice changes nothing.
        self._subscriptions = [
            self._subscribe(subject) for subject in (followed if led else [self._subjects.all_changes])
        ]
        for subscription in before:
            subscription.close()

    def _subscribe(self, subject: str) -> Subscription:
        return self._connection.subscribe(subject, self._receive, take_ahead=self._take_ahead)

    def close(self) -> None:
        """Hear nothing any more."""
        for subscription in self._subscriptions:
            subscription.close()
