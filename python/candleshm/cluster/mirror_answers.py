"""What a mirror answers: requests of others for rows, while it has the same as the leader, be that alive or not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress

from candleshm._core import Shadow, message_feed
from candleshm.cluster.answer_right import AnswerRight
from candleshm.cluster.clock_offset import asked_epoch
from candleshm.cluster.complete_shards import SILENT_SECONDS, CompleteShards
from candleshm.cluster.connection import ClusterConnection, Subscription
from candleshm.cluster.follower import Follower
from candleshm.cluster.inbox import Inbox
from candleshm.cluster.message import Message
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.subjects import Subjects
from candleshm.errors import CandleShmError, ClusterUnavailable
from candleshm.system.block_log import BlockLog

__all__ = ["MirrorAnswers"]

logger = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
SEND_SECONDS = 5.0
# So much is sent before the servers have taken it.
PART_BYTES = 1 << 20
WAITING_BYTES_MAX = 1 << 20
QUEUE = "answer"


class MirrorAnswers:
    """Answers for the block that `follower` fills: `start`, `look` again and again, `stop`. For the mirror's thread.

    A request is answered by one of all who could, so a mirror that may not publish answers takes none.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        subjects: Subjects,
        follower: Follower,
        *,
        block_name: str,
        length: int,
        source: str,
    ) -> None:
        """The block has `length` candles of each symbol; `source` says to others who sent its rows."""
        self._connection = connection
        self._subjects = subjects
        self._follower = follower
        self._block_name, self._length, self._source = block_name, length, source
        self._log = BlockLog(logger, block_name)
        self._complete = CompleteShards()
        self._inbox = Inbox(WAITING_BYTES_MAX)
        self._asked: dict[int, tuple[Subscription, Subscription]] = {}
        self._right = AnswerRight(connection)
        self._shadow: tuple[int, Shadow] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="candleshm-answers", daemon=True)
        self.answered = 0
        """How many requests for rows were answered."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nothing more."""
        self._ask(frozenset())
        self._right.close()
        self._stopping.set()
        self._inbox.rouse()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Take requests for the shards of which the block has everything, and no others."""
        shards = self._follower.status.shards
        complete = frozenset(shard for shard in self._complete.after(shards) if shard in shards and self._fits(shard))
        if complete and not self._right.is_given():
            complete = frozenset()
        self._ask(complete if self._thread.is_alive() else frozenset())

    def _fits(self, shard: int) -> bool:
        """Return whether nothing was found to differ, and the block is at least as long as the leader's."""
        standing, status = self._follower.standing(shard), self._follower.status.shards[shard]
        return bool(standing) and status.differing == 0 and message_feed(standing[0]).length <= self._length

    def _ask(self, shards: frozenset[int]) -> None:
        for shard in self._asked.keys() - shards:
            for subscription in self._asked.pop(shard):
                subscription.close()
        for shard in shards - self._asked.keys():
            self._asked[shard] = (
                self._connection.subscribe(self._subjects.ask(shard), self._inbox.receiver(self._answer), QUEUE),
                self._connection.subscribe(self._subjects.clock(shard), self._inbox.receiver(self._stand_in), QUEUE),
            )

    def _work(self) -> None:
        """Be the thread that answers."""
        try:
            while not self._stopping.is_set():
                self._inbox.work(WAIT_SECONDS)
        except ClusterUnavailable:
            pass  # The connection was closed.
        except Exception:
            self._log.exception("the mirror goes on and answers no requests because of an internal error")

    def _answer(self, request: Message) -> None:
        """Send the rows that are requested; an empty message ends them, and is all that is sent of older rows.

        Who gets nothing compares again, and another may take the next request.
        """
        head = MessageHead.of(request.data)
        if head is None or not request.reply:
            return
        answers: list[bytes] = []
        if self._follower.is_level(head):
            # A block that is being replaced has nothing for a moment.
            with suppress(CandleShmError):
                answers = self._open().answer(request.data)
        self._send(request.reply, [*answers, b""])
        self.answered += bool(answers)

    def _stand_in(self, request: Message) -> None:
        """Send the newest heartbeat of a leader that is silent, to who asks whoever leads to say something."""
        text = request.subject.rpartition(".")[2]
        if asked_epoch(request.data) != 0 or not request.reply or not text.isascii() or not text.isdigit():
            return
        status = self._follower.status.shards.get(int(text))
        if status is not None and status.silent_seconds is not None and status.silent_seconds > SILENT_SECONDS:
            self._send(request.reply, self._follower.standing(int(text)))

    def _send(self, subject: str, messages: Sequence[bytes]) -> None:
        part: list[tuple[str, bytes]] = []
        size_bytes = 0
        for number, message in enumerate(messages, 1):
            part.append((subject, message))
            size_bytes += len(message)
            if size_bytes >= PART_BYTES or number == len(messages):
                with suppress(TimeoutError, CancelledError):
                    self._connection.publish(part).result(SEND_SECONDS)
                part, size_bytes = [], 0

    def _open(self) -> Shadow:
        """Return what reads the block, for as many shards as the feed has now."""
        shards = len(self._follower.status.shards)
        if self._shadow is None or self._shadow[0] != shards:
            self._shadow = shards, Shadow(self._block_name, shards, self._source)
        return self._shadow[1]
