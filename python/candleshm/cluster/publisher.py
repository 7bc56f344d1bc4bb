"""A publisher: tells followers what changes in a block of this host, where it stands, and the rows that they request.

It is a reader of the block and keeps what it told. Whatever happens to it, the block's own readers notice nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from candleshm.cluster.clock_offset import asked_epoch, boot_ns, clock_answer
from candleshm.cluster.connection import ClusterConnection, Subscription
from candleshm.cluster.log import ChangeLog
from candleshm.cluster.message import Message
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ClusterUnavailable
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Shadow

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

HEARTBEAT_NS = 1_000_000_000
# A heartbeat that followers request, so that they need not wait, comes this long after another at least.
SOON_NS = 50_000_000
LOG_NS = 15_000_000_000
# After so long a lease that was renewed meanwhile is looked at again.
WAIT_SECONDS_MAX = 0.25
# Between two looks at the block: what changes meanwhile is told together. What comes after a silence is told at once.
GATHER_NS = 1_000_000
# A lease that nobody else can have.
FOREVER_NS = 1 << 63
SEND_SECONDS = 5.0
# Requests that wait beyond so many are dropped; their followers request again.
REQUESTS_MAX = 256
# After so many bytes of answers changes go first.
ANSWER_BYTES = 1 << 20
QUEUE = "answer"


class Publisher:
    """Tells of the block that `shadow` reads: `start` .. `stop`. It leads no shard until `lead`.

    Belongs to a thread of its own; its methods may be called from any thread.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        subjects: Subjects,
        shadow: Shadow,
        *,
        block_name: str,
        held_until_ns: Callable[[int], int] = lambda shard: FOREVER_NS,
    ) -> None:
        """`held_until_ns` says of a shard until when its lease holds, by the boot clock: nothing is sent later."""
        self._connection = connection
        self._subjects = subjects
        self._shadow = shadow
        self._held_until_ns = held_until_ns
        self._log = BlockLog(logger, block_name)
        self._history = ChangeLog(connection, subjects, block_name=block_name)
        self._led: Mapping[int, int] = {}
        self._turns: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._asked: dict[int, Subscription] = {}
        self._answers = _Answers(shadow)
        self._sending: Future[bool] | None = None
        self._due = _Due()
        self._clock = connection.subscribe(subjects.clock("*"), self._tell_clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="candleshm-publisher", daemon=True)
        self.failure: BaseException | None = None
        """What ended the thread, if anything did."""

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing more."""
        self._stopping.set()
        self._shadow.rouse()
        if self._thread.is_alive():
            self._thread.join()
        for subscription in (self._clock, *self._asked.values()):
            subscription.close()
        self._asked.clear()

    def lead(self, shard: int, epoch: int) -> None:
        """Tell of a shard from now on, as its leader of that epoch."""

        def lead() -> None:
            self._shadow.lead(shard, epoch)
            self._led = {**self._led, shard: epoch}
            self._due.now()

        self._take_turn(lead)

    def leave(self, shard: int) -> None:
        """Tell of a shard no longer."""

        def leave() -> None:
            self._shadow.leave(shard)
            self._led = {led: epoch for led, epoch in self._led.items() if led != shard}
            self._set_asked(self._asked.keys() - {shard})

        self._take_turn(leave)

    def answer_also(self, shards: Collection[int]) -> None:
        """Answer requests for these shards as well, which others lead and of which the block has the same rows."""
        self._take_turn(lambda: self._set_asked({*self._led, *shards}))

    def _take_turn(self, turn: Callable[[], None]) -> None:
        """Have something done by the thread that the shadow belongs to."""
        self._turns.put(turn)
        self._shadow.rouse()

    def _work(self) -> None:
        """Be the thread of the publisher."""
        try:
            while not self._stopping.is_set():
                while not self._turns.empty():
                    self._turns.get()()
                if not self._connection.is_connected:
                    # What changes meanwhile is told at once, and as one change, when there is a connection again.
                    self._stopping.wait(WAIT_SECONDS_MAX)
                    self._due.now()
                    continue
                if not self._led.keys() <= self._asked.keys():
                    self._set_asked({*self._led, *self._asked})
                looked_ns = boot_ns()
                self._tell(looked_ns)
                if part := self._answers.part():
                    self._send(part)
                if self._answers.is_empty:
                    self._listen(looked_ns)
        except ClusterUnavailable:
            pass  # The connection was closed.
        except BaseException as error:
            self.failure = error
            self._log.exception("the publisher ends because of an internal error")

    def _tell(self, now_ns: int) -> None:
        """Publish what changed, and where the block stands when that is due."""
        messages = self._shadow.collect()
        if self._led and self._due.is_log_due(now_ns):
            self._history.keep()
        if self._due.is_heartbeat_due(now_ns):
            messages += self._shadow.heartbeat()
        self._send_held(messages)

    def _send_held(self, messages: list[tuple[int, bytes]]) -> None:
        """Send messages, given as shard and bytes, as far as the leases hold."""
        # They are looked at last of all: this process may just have been stopped for a while.
        now_ns = boot_ns()
        allowed = [
            (self._subjects.changes(shard), data) for shard, data in messages if now_ns < self._held_until_ns(shard)
        ]
        if allowed:
            self._send(allowed)

    def _listen(self, looked_ns: int) -> None:
        """Wait for a change; tell of it past the loop, and past Python, where that can be."""
        seconds = min(WAIT_SECONDS_MAX, self._due.seconds(boot_ns()))
        outlet = self._connection.outlet
        held = [(shard, self._subjects.changes(shard), self._held_until_ns(shard)) for shard in self._led]
        if outlet is not None and self._is_sent() and any(until_ns for _, _, until_ns in held):
            self._send_held(self._shadow.tell(outlet, held, seconds, GATHER_NS / 1e9))
            self._connection.settle()
        else:
            self._shadow.wait(seconds)
            if (left_ns := looked_ns + GATHER_NS - boot_ns()) > 0:
                time.sleep(left_ns / 1e9)

    def _is_sent(self) -> bool:
        """Whether the connection has taken all that it was given."""
        return self._sending is None or self._sending.done()

    def _send(self, messages: list[tuple[str, bytes]]) -> None:
        """Send, once what was to be sent before is: so the servers' pace is ours."""
        if self._sending is not None:
            with suppress(TimeoutError, CancelledError):
                self._sending.result(SEND_SECONDS)
        self._sending = self._connection.publish(messages)

    def _set_asked(self, shards: Collection[int]) -> None:
        """Take requests for these shards, and no others."""
        for shard in self._asked.keys() - set(shards):
            self._asked.pop(shard).close()
        for shard in set(shards) - self._asked.keys():
            self._asked[shard] = self._connection.subscribe(self._subjects.ask(shard), self._take_request, QUEUE)

    def _take_request(self, request: Message) -> None:
        """Take a request in the connection's thread."""
        if request.reply:
            self._answers.put(request)
            self._shadow.rouse()

    def _tell_clock(self, request: Message) -> None:
        """Answer in the connection's thread, at once: the follower counts the time until then."""
        shard = request.subject.rpartition(".")[2]
        epoch = self._led.get(int(shard)) if shard.isascii() and shard.isdigit() else None
        asked = asked_epoch(request.data)
        if epoch is None or asked not in {0, epoch} or not request.reply:
            return
        self._connection.publish_soon(request.reply, clock_answer(epoch))
        if not asked:
            self._due.soon()
            self._shadow.rouse()


class _Answers:
    """Requests that wait, and what is still to be sent for one of them."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._requests: deque[Message] = deque(maxlen=REQUESTS_MAX)
        self._left: deque[tuple[str, bytes]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be answered."""
        return not self._left and not self._requests

    def put(self, request: Message) -> None:
        """Take a request. May be called from any thread; the oldest of too many is dropped."""
        self._requests.append(request)

    def part(self) -> list[tuple[str, bytes]]:
        """Return the next messages, as subject and bytes, of one request; an empty one ends its answers."""
        if not self._left and self._requests:
            request = self._requests.popleft()
            self._left.extend((request.reply, answer) for answer in self._shadow.answer(request.data))
            self._left.append((request.reply, b""))
        part: list[tuple[str, bytes]] = []
        size_bytes = 0
        while self._left and size_bytes < ANSWER_BYTES:
            part.append(self._left.popleft())
            size_bytes += len(part[-1][1])
        return part


class _Due:
    """When the next heartbeat and the next look at the log are due."""

    def __init__(self) -> None:
        self._sent_ns = 0
        self._is_soon = False
        self._log_ns = 0

    def now(self) -> None:
        """Have a heartbeat, and a look at the log, at once."""
        self._sent_ns = self._log_ns = 0

    def soon(self) -> None:
        """Have the next heartbeat earlier. May be called from any thread."""
        self._is_soon = True

    def seconds(self, now_ns: int) -> float:
        """Return how long it is until the next heartbeat."""
        return max(0, self._sent_ns + self._pause_ns - now_ns) / 1e9

    def is_heartbeat_due(self, now_ns: int) -> bool:
        """Return whether a heartbeat is due; it counts as sent then."""
        if now_ns - self._sent_ns < self._pause_ns:
            return False
        self._sent_ns, self._is_soon = now_ns, False
        return True

    def is_log_due(self, now_ns: int) -> bool:
        """Return whether the log is to be looked after; counts as done then."""
        if self._log_ns and now_ns - self._log_ns < LOG_NS:
            return False
        self._log_ns = now_ns
        return True

    @property
    def _pause_ns(self) -> int:
        return SOON_NS if self._is_soon else HEARTBEAT_NS
