"""What was received and waits for the thread that works on it, with a bound on its bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from candleshm.cluster.message import Message, Receive

__all__ = ["Inbox"]

Take = Callable[[Message], None]
WAITING_BYTES_MAX = 256 << 20


class Inbox:
    """Messages on their way from the connection's thread to one other thread, in order.

    A message may be taken at once, in the connection's thread, while the other one has nothing to do.
    """

    def __init__(self, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._waiting_bytes_max = waiting_bytes_max
        self._queue: SimpleQueue[tuple[Take, Message] | None] = SimpleQueue()
        # Each belongs to one thread; the difference is what waits.
        self._received_bytes = 0
        self._taken_bytes = 0
        self.taking = threading.Lock()
        """Held while a message is taken, in either thread."""
        self.dropped = 0
        """Messages for which there was no room. What they said is found by digests."""

    def receiver(
        self,
        take: Take,
        *,
        is_wanted: Callable[[Message], bool] = lambda message: True,
        at_once: Callable[[Message], bool] = lambda message: False,
    ) -> Receive:
        """Return what the connection calls for each message; `take` gets those that are wanted.

        While nothing waits and nothing is taken, `at_once` is called before, in the connection's thread, where it must
        not wait; what it returns True for is done.
        """

        def receive(message: Message) -> None:
            if not is_wanted(message):
                return
            if self._queue.empty() and self.taking.acquire(blocking=False):
                try:
                    if at_once(message):
                        return
                finally:
                    self.taking.release()
            if self._received_bytes - self._taken_bytes > self._waiting_bytes_max:
                self.dropped += 1
                return
            self._received_bytes += len(message.data)
            self._queue.put((take, message))

        return receive

    def work(self, seconds: float) -> None:
        """Wait for a message, for so long at most, and let whom it is for take it."""
        try:
            item = self._queue.get(timeout=seconds)
        except Empty:
            return
        if item is not None:
            take, message = item
            self._taken_bytes += len(message.data)
            with self.taking:
                take(message)

    def rouse(self) -> None:
        """End a wait from another thread."""
        self._queue.put(None)
