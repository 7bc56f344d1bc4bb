"""Whether the servers let this host answer the requests of others, found out by a message to itself."""

from __future__ import annotations

import math
import threading
import time

from candleshm.cluster.connection import ClusterConnection

__all__ = ["AnswerRight"]

# It is tried again that often.
TRY_SECONDS = 60.0


class AnswerRight:
    """The right to publish to inboxes, where answers go: a message to an own one arrives if there is the right."""

    def __init__(self, connection: ClusterConnection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._is_proven = threading.Event()
        self._tried_seconds = -math.inf
        connection.tolerate(self._inbox)
        self._subscription = connection.subscribe(self._inbox, lambda message: self._is_proven.set())

    def close(self) -> None:
        """Try no more."""
        self._subscription.close()

    def is_given(self) -> bool:
        """Return whether the right is known to be there; where it is not, it is tried now and then."""
        now_seconds = time.monotonic()
        is_due = now_seconds - self._tried_seconds >= TRY_SECONDS and self._connection.is_connected
        if is_due and not self._is_proven.is_set():
            self._tried_seconds = now_seconds
            self._connection.publish([(self._inbox, b"")])
        return self._is_proven.is_set()
