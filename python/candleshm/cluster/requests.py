"""The requests of a follower for rows that differ: a few at a time, each with any number of answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from candleshm.cluster.clock_offset import boot_ns
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Message
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ClusterUnavailable

__all__ = ["Requests"]

OUTSTANDING_MAX = 8
# A request whose answers pause for so long is given up; the next heartbeat tells what is still to be requested.
PATIENCE_NS = 2_000_000_000
# Whoever was asked may not have what is requested any more, or not yet; the next one may.
ATTEMPTS_MAX = 5


@dataclass(frozen=True)
class _Request:
    shard: int
    data: bytes
    attempt: int = 1


@dataclass
class _Outstanding:
    request: _Request
    sent_ns: int
    received_ns: int
    has_rows: bool = False


class Requests:
    """Sends requests, and knows which are still being answered. For one thread; `receive` is called in another.

    Each request has a number, which is the last part of the subject that its answers come to. An empty answer ends it.
    """

    def __init__(self, connection: ClusterConnection, subjects: Subjects, receive: Callable[[Message], None]) -> None:
        """`receive` gets each answer, for `take`."""
        self._connection = connection
        self._subjects = subjects
        self._inbox = connection.new_inbox()
        self._subscription = connection.subscribe(f"{self._inbox}.*", receive)
        self._waiting: deque[_Request] = deque()
        self._vain: list[_Request] = []
        self._outstanding: dict[int, _Outstanding] = {}
        self._numbers = 0
        self.sent = 0
        """How many were sent."""
        self.unanswered = 0
        """How many were given up, or found nobody."""
        self.unanswered_ns = 0
        """When that was last, on the boot clock."""

    def close(self) -> None:
        """Take no more answers."""
        self._subscription.close()

    def is_busy(self, shard: int) -> bool:
        """Return whether a request of the shard waits or is being answered."""
        sent = (outstanding.request for outstanding in self._outstanding.values())
        return any(request.shard == shard for request in (*self._waiting, *self._vain, *sent))

    def put(self, shard: int, requests: Sequence[bytes]) -> None:
        """Send requests, those beyond the bound once others are answered."""
        self._waiting.extend(_Request(shard, request) for request in requests)
        self._send()

    def drop(self, shard: int | None = None) -> None:
        """Forget the requests of a shard whose leader is another now, of all shards without one."""
        self._waiting = deque(each for each in self._waiting if shard is not None and each.shard != shard)
        self._vain = [each for each in self._vain if shard is not None and each.shard != shard]
        self._outstanding = {
            number: outstanding
            for number, outstanding in self._outstanding.items()
            if shard is not None and outstanding.request.shard != shard
        }

    def take(self, answer: Message) -> tuple[int, int] | None:
        """Take an answer in; return its shard and when its request left this host, None for one that is too late."""
        text = answer.subject.rpartition(".")[2]
        outstanding = self._outstanding.get(int(text)) if text.isascii() and text.isdigit() else None
        if outstanding is None:
            return None
        if answer.data:
            outstanding.received_ns, outstanding.has_rows = boot_ns(), True
        else:
            del self._outstanding[int(text)]
            if answer.is_unheard:
                self.unanswered += 1
                self.unanswered_ns = boot_ns()
            elif not outstanding.has_rows and outstanding.request.attempt < ATTEMPTS_MAX:
                self._vain.append(replace(outstanding.request, attempt=outstanding.request.attempt + 1))
            self._send()
        return outstanding.request.shard, outstanding.sent_ns

    def look(self, now_ns: int) -> None:
        """Give up what is not answered any more, and send what waits, or was sent in vain."""
        self._waiting.extend(self._vain)
        self._vain.clear()
        for number, outstanding in list(self._outstanding.items()):
            if now_ns - outstanding.received_ns > PATIENCE_NS:
                del self._outstanding[number]
                self.unanswered += 1
                self.unanswered_ns = now_ns
                # The others wait for the same one, who is gone.
                self._waiting = deque(each for each in self._waiting if each.shard != outstanding.request.shard)
        self._send()

    def _send(self) -> None:
        while self._waiting and len(self._outstanding) < OUTSTANDING_MAX:
            request = self._waiting.popleft()
            self._numbers += 1
            sent_ns = boot_ns()
            self._outstanding[self._numbers] = _Outstanding(request, sent_ns, sent_ns)
            try:
                reply = f"{self._inbox}.{self._numbers}"
                is_sent = self._connection.request(self._subjects.ask(request.shard), request.data, reply)
            except ClusterUnavailable:
                is_sent = False
            if not is_sent:
                del self._outstanding[self._numbers]
                self._waiting.clear()
            self.sent += is_sent
