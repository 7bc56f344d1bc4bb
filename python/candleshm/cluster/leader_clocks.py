"""The boot clocks of leaders, as followers request them."""

from __future__ import annotations

from candleshm.cluster.clock_offset import boot_ns, clock_request, told_clock
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Message, Receive
from candleshm.cluster.subjects import Subjects

__all__ = ["LeaderClocks"]


class LeaderClocks:
    """Requests clocks. `receive` is called with each answer, in the connection's thread; `read` reads it anywhere."""

    def __init__(self, connection: ClusterConnection, subjects: Subjects, receive: Receive) -> None:
        self._connection = connection
        self._subjects = subjects
        self._inbox = connection.new_inbox()
        self._subscription = connection.subscribe(f"{self._inbox}.*.*", receive)

    def request(self, shard: int, epoch: int) -> None:
        """Request the clock of who leads a shard under an epoch, 0 for any; a heartbeat of it follows.

        Where the answer goes says when the request left.
        """
        reply = f"{self._inbox}.{shard}.{boot_ns()}"
        self._connection.request(self._subjects.clock(shard), clock_request(epoch), reply)

    @staticmethod
    def read(answer: Message) -> tuple[int, int, int, int] | None:
        """Return shard, epoch, when the request left, and the leader's clock then, ns; None for no such answer."""
        told = told_clock(answer.data)
        shard, sent_ns = answer.subject.split(".")[-2:]
        return None if told is None else (int(shard), told[0], int(sent_ns), told[1])

    def close(self) -> None:
        """Take no more answers."""
        self._subscription.close()
