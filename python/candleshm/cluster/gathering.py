"""Who is there: a member says each second what it is, and hears what the others of its feed say."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from candleshm.cluster.connection import ClusterConnection, Subscription
from candleshm.cluster.message import Message
from candleshm.cluster.presence import Presence, Roll, decoded, encoded
from candleshm.cluster.subjects import Subjects

__all__ = ["Gathering"]

PRESENT_SECONDS = 1.0
LEAVE_SECONDS = 0.5
# Said and not looked at yet; a member that was asleep needs no more than the newest.
SAID_MAX = 10_000


class Gathering:
    """Belongs to the member's thread; `present` and `said` may be read from any."""

    def __init__(self, connection: ClusterConnection, subjects: Subjects) -> None:
        self._connection = connection
        self._subjects = subjects
        self._present: deque[bytes] = deque(maxlen=SAID_MAX)
        self._hearing: Subscription | None = None
        self._due_seconds = -math.inf
        self.roll = Roll()
        self.present: list[Presence] = []
        """Who spoke within the last seconds, this member included."""
        self.said: Presence | None = None
        """What this member said last."""

    def open(self) -> None:
        """Begin to hear."""
        self._hearing = self._connection.subscribe(f"{self._subjects.root}.present.*", self._hear)

    def close(self, farewell: Presence) -> None:
        """Say farewell, as far as there is a connection, and hear nothing any more."""
        with suppress(TimeoutError):
            self._say(farewell).result(LEAVE_SECONDS)
        if self._hearing is not None:
            self._hearing.close()

    def look(self, now: float) -> None:
        """Take in what others said."""
        while self._present:
            presence = decoded(self._present.popleft())
            if presence is not None:
                self.roll.note(presence, now)
        self.present = self.roll.living(now)

    def is_due(self, now: float) -> bool:
        """Return whether this member should say something again."""
        return now >= self._due_seconds

    def say(self, presence: Presence, now: float) -> None:
        """Say what this member is."""
        self._due_seconds = now + PRESENT_SECONDS
        self.said = presence
        self._say(presence)

    def _say(self, presence: Presence) -> Future[bool]:
        return self._connection.publish([(self._subjects.present(presence.member), encoded(presence))])

    def _hear(self, message: Message) -> None:
        self._present.append(message.data)
