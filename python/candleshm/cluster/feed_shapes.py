"""What a feed of the cluster is, as its leaders tell it: market, interval, length, symbols of all shards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from candleshm._core import message_feed
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.inbox import Inbox
from candleshm.cluster.leader_clocks import LeaderClocks
from candleshm.cluster.message import Message
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ConfigError

if TYPE_CHECKING:
    from candleshm._core import FeedShape

__all__ = ["FeedShapes"]

# Shards without a leader are not waited for longer than this after the first that has one.
PATIENCE_SECONDS = 2.0
ASK_SECONDS = 1.0


class FeedShapes:
    """Listens until each shard's leader has said what it leads. For one thread; `close` ends it."""

    def __init__(self, connection: ClusterConnection, subjects: Subjects) -> None:
        self._inbox = Inbox()
        self._changes = connection.subscribe(subjects.all_changes, self._inbox.receiver(self._take))
        # While a leader is silent, a mirror answers with the heartbeat that it has.
        self._clocks = LeaderClocks(connection, subjects, self._inbox.receiver(self._take))
        self._shapes: dict[int, FeedShape] = {}
        self._first_seconds: float | None = None
        self._newest: MessageHead | None = None
        self._asked_seconds = time.monotonic()
        # Whoever leads a shard, and there is a first one in any feed, says so at once.
        self._clocks.request(0, 0)

    def close(self) -> None:
        """Listen no longer."""
        self._changes.close()
        self._clocks.close()

    def wait(self, seconds: float) -> bool:
        """Wait for so long at most, and return whether what is known suffices."""
        deadline_seconds = time.monotonic() + seconds
        if time.monotonic() - self._asked_seconds >= ASK_SECONDS:
            self._ask()
        while not self._suffices():
            left_seconds = deadline_seconds - time.monotonic()
            if left_seconds <= 0:
                return False
            self._inbox.work(left_seconds)
        return True

    @property
    def shards(self) -> int:
        """Into how many shards the feed's symbols are divided. Raises ValueError before anything was told."""
        if self._newest is None:
            raise ValueError("nothing was told of the feed yet")
        return self._newest.shards

    @property
    def newest(self) -> FeedShape:
        """What the newest leader said. Raises ValueError before anything was told."""
        if self._newest is None:
            raise ValueError("nothing was told of the feed yet")
        return self._shapes[self._newest.shard]

    @property
    def symbols(self) -> list[str]:
        """The symbols of all shards that have a leader, each once."""
        return list(dict.fromkeys(symbol for _, shape in sorted(self._shapes.items()) for symbol in shape.symbols))

    def _ask(self) -> None:
        """Request once more what is unknown."""
        self._asked_seconds = time.monotonic()
        for shard in range(1 if self._newest is None else self._newest.shards):
            if shard not in self._shapes:
                self._clocks.request(shard, 0)

    def _suffices(self) -> bool:
        if self._newest is None or self._first_seconds is None:
            return False
        waited_seconds = time.monotonic() - self._first_seconds
        return len(self._shapes) == self._newest.shards or waited_seconds >= PATIENCE_SECONDS

    def _take(self, message: Message) -> None:
        head = MessageHead.of(message.data)
        if head is None or head.kind != "heartbeat" or (self._newest is not None and head.epoch < self._newest.epoch):
            return
        try:
            shape = message_feed(message.data)
        except ConfigError:
            return
        if self._newest is not None and head.shards != self._newest.shards:
            self._shapes.clear()
        if self._first_seconds is None:
            self._first_seconds = time.monotonic()
            for shard in range(1, head.shards):
                self._clocks.request(shard, 0)
        self._newest = head
        self._shapes[head.shard] = shape
