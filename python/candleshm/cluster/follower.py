"""A follower: applies what leaders tell of a feed to a block of this host, and requests what differs."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from candleshm.cluster.clock_offset import boot_ns
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.follower_status import FollowerStatus, ShardStatus
from candleshm.cluster.inbox import Inbox
from candleshm.cluster.leader_clocks import LeaderClocks
from candleshm.cluster.log import ChangeLog
from candleshm.cluster.message import Message
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.received_changes import ReceivedChanges
from candleshm.cluster.requests import Requests
from candleshm.cluster.shard_position import ShardPosition
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ClusterUnavailable
from candleshm.system.block_log import BlockLog, is_worth_logging

if TYPE_CHECKING:
    from candleshm._core import Applied, Writer

__all__ = ["Follower"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
# A comparison at most this old says that a block is the leader's.
COMPARED_NS = 3_000_000_000
# Series whose answers were lost are left out of comparisons for so long.
LEFT_OUT_NS = 3_000_000_000
# Comparisons with one heartbeat: each finds more exactly what differs.
COMPARISONS_MAX = 16
REFUSED = "refused "
# Requests wait, and are sent a few at a time.
REQUESTS_MAX = 100_000
REASONS = {
    "feed": "it is about other candles than this block's: another market, price, interval or exchange",
    "damaged": "its bytes are not what was sent",
    "version": "its sender speaks another major version of the messages; update the older of the two",
    "shards": "its sender divides the symbols into another number of shards",
}


class Follower:
    """Follows a feed of the cluster with the block of `writer`: `start` .. `stop`. Belongs to a thread of its own."""

    def __init__(
        self,
        connection: ClusterConnection,
        subjects: Subjects,
        writer: Writer,
        *,
        shards: int,
        missing: Callable[[Sequence[str]], None],
        reshard: Callable[[int], None] | None = None,
    ) -> None:
        """`missing` is called with symbols that a leader has and the block has not; it may add them.

        `reshard` is called when leaders divide the symbols into another number of shards than `shards`.
        """
        self._writer = writer
        self._missing = missing
        self._reshard = reshard
        self._log = BlockLog(logger, writer.name)
        self._history = ChangeLog(connection, subjects, block_name=writer.name)
        self._positions = {shard: ShardPosition() for shard in range(shards)}
        self._led: frozenset[int] = frozenset()
        self._inbox = Inbox()
        self._requests = Requests(connection, subjects, self._inbox.receiver(self._take_answer))
        self._clocks = LeaderClocks(connection, subjects, self._inbox.receiver(self._take_clock))
        self._counts: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="candleshm-follower", daemon=True)
        self.failure: BaseException | None = None
        """What ended the thread, if anything did."""
        self.status = FollowerStatus()
        """The newest status; may be read from any thread."""
        # Last: from here on messages are taken.
        receive = self._inbox.receiver(self._take_message, is_wanted=self._is_followed, at_once=self._take_next)
        self._changes = ReceivedChanges(connection, subjects, receive)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def leave_out(self, led: Collection[int]) -> None:
        """Take no messages of these shards, which this process leads itself. May be called from any thread."""
        self._led = frozenset(led)
        self._inbox.rouse()

    def standing(self, shard: int) -> tuple[bytes, ...]:
        """Return the messages of a shard's newest heartbeat; nothing before. May be called from any thread."""
        position = self._positions.get(shard)
        return () if position is None else position.standing

    def is_level(self, head: MessageHead) -> bool:
        """Return whether the block surely has what a sender of this head requests. May be called from any thread."""
        position = self._positions.get(head.shard)
        return position is not None and position.is_level(head)

    def stop(self) -> None:
        """Follow no longer; what was received and not applied is dropped."""
        self._stopping.set()
        self._inbox.rouse()
        if self._thread.is_alive():
            self._thread.join()
        for part in (self._changes, self._clocks, self._requests):
            part.close()

    def _is_followed(self, message: Message) -> bool:
        """Return, in the connection's thread, whether a message is of a shard that others lead."""
        return message.subject.rpartition(".")[2] not in map(str, self._led)

    def _work(self) -> None:
        """Be the thread of the follower."""
        try:
            for shard in self._positions:
                self._clocks.request(shard, 0)
            looked_ns = 0
            while not self._stopping.is_set():
                self._changes.leave_out(self._led, self._positions)
                self._inbox.work(LOOK_SECONDS)
                now_ns = boot_ns()
                if now_ns - looked_ns > LOOK_SECONDS * 1e9:
                    looked_ns = now_ns
                    with self._inbox.taking:
                        self._look(now_ns)
        except ClusterUnavailable:
            pass  # The connection was closed.
        except BaseException as error:
            self.failure = error
            self._log.exception("the follower ends because of an internal error")

    def _look(self, now_ns: int) -> None:
        self._requests.look(now_ns)
        for shard, position in self._positions.items():
            if position.is_clock_due(now_ns):
                self._clocks.request(shard, position.epoch)
            if shard not in self._led and position.is_standing_due(now_ns):
                self._clocks.request(shard, 0)
            if position.held and not position.waits(now_ns):
                self._release(position, now_ns)
        self.status = self._snapshot(now_ns)

    def _take_clock(self, message: Message) -> None:
        now_ns = boot_ns()
        head = MessageHead.of(message.data)
        if head is not None:
            self._take_standing(head, message)
            return
        told = self._clocks.read(message)
        position = None if told is None else self._positions.get(told[0])
        if told is not None and position is not None and told[1] == position.epoch:
            position.clock.measure(told[2], told[3], now_ns)
            self._release(position, now_ns)

    def _take_standing(self, head: MessageHead, message: Message) -> None:
        """Take the heartbeat of a silent leader, as another follower has kept it; its leader stays silent."""
        before = self._positions.get(head.shard)
        if head.kind != "heartbeat" or (before is not None and not before.is_news(head)):
            return
        received_ns = 0 if before is None else before.received_ns
        self._take_message(message)
        if head.shard in self._positions:
            self._positions[head.shard].received_ns = received_ns

    def _release(self, position: ShardPosition, now_ns: int) -> None:
        """Take the messages that waited for the leader's clock."""
        held, position.held = position.held, []
        for data in held:
            head = MessageHead.of(data)
            if head is not None:
                self._follow(position, head, data, now_ns)

    def _take_message(self, message: Message) -> None:
        now_ns = boot_ns()
        head = MessageHead.of(message.data)
        if head is None:
            self._put(message.data, partial(self._writer.apply, message.data, 0))  # It is refused, with the reason.
            return
        if head.shards != len(self._positions) and not self._divide_anew(head):
            self._refuse("shards", message.data)
            return
        position = self._positions[head.shard]
        if position.follow(head, now_ns):
            self._requests.drop(head.shard)
            if position.is_clock_due(now_ns):
                self._clocks.request(head.shard, head.epoch)
        if head.epoch == position.epoch and position.waits(now_ns):
            position.held.append(message.data)
        else:
            self._release(position, now_ns)
            self._follow(position, head, message.data, now_ns)

    def _take_next(self, message: Message) -> bool:
        """Take changes, in the connection's thread, that follow those before and need nothing else.

        The change of threads would take longer than everything that is done here. False leaves the message to the
        follower's thread; whatever was done of it may be done again.
        """
        head = MessageHead.of(message.data)
        if head is None or head.shards != len(self._positions) or self._stopping.is_set():
            return False
        position = self._positions[head.shard]
        if not position.is_next(head):
            return False
        now_ns = boot_ns()
        try:
            applied = self._writer.apply(message.data, position.offset_ns(head, now_ns))
        except Exception:
            return False  # The follower's thread meets the same, and ends by it.
        if applied.refused is not None or applied.symbols_missing:
            return False
        position.follow(head, now_ns)
        position.advance(head, now_ns)
        self._count(applied)
        return True

    def _divide_anew(self, head: MessageHead) -> bool:
        """Follow another number of shards, if that is new; return whether a message about them can be taken."""
        if self._reshard is None or head.epoch <= max(position.epoch for position in self._positions.values()):
            return False
        self._reshard(head.shards)
        self._positions = {shard: ShardPosition() for shard in range(head.shards)}
        self._requests.drop()
        return True

    def _follow(self, position: ShardPosition, head: MessageHead, data: bytes, now_ns: int) -> None:
        """Apply a message, after those that are missing before it as far as the log has them."""
        if head.epoch == position.epoch:
            missed = position.missed(head)
            if missed is not None:
                position.gaps += 1
                for earlier in self._history.read(head.shard, head.epoch, *missed):
                    earlier_head = MessageHead.of(earlier)
                    if earlier_head is not None:
                        self._apply(position, earlier_head, earlier, now_ns)
        self._apply(position, head, data, now_ns)
        if head.kind == "heartbeat" and head.epoch == position.epoch:
            position.stand(head, data)
            self._compare(position, head, data, now_ns)

    def _apply(self, position: ShardPosition, head: MessageHead, data: bytes, now_ns: int) -> Applied | None:
        applied = self._put(data, partial(self._writer.apply, data, position.offset_ns(head, now_ns)))
        if applied is not None:
            position.advance(head, now_ns)
        return applied

    def _put(self, data: bytes, apply: Callable[[], Applied]) -> Applied | None:
        """Apply a message, its new symbols included; None for one that is refused."""
        applied = apply()
        if applied.refused is not None:
            self._refuse(applied.refused, data)
            return None
        if applied.symbols_missing:
            self._missing(applied.symbols_missing)
            applied = apply()
        self._count(applied)
        return applied

    def _count(self, applied: Applied) -> None:
        self._counts["messages"] += 1
        self._counts["rows"] += applied.rows

    def _compare(self, position: ShardPosition, head: MessageHead, data: bytes, now_ns: int) -> None:
        """Compare with where the leader stands, and request what differs."""
        if self._requests.is_busy(head.shard):
            return
        requests = self._writer.differences(data, REQUESTS_MAX)
        position.comparisons += 1
        position.differing = len(requests)
        if requests:
            self._requests.put(head.shard, requests)
        elif position.sequence == head.sequence and now_ns - self._requests.unanswered_ns > LEFT_OUT_NS:
            position.compared_ns = now_ns

    def _take_answer(self, message: Message) -> None:
        taken = self._requests.take(message)
        if taken is None:
            return
        shard, sent_ns = taken
        if message.data:
            self._put(message.data, partial(self._writer.apply_answer, message.data, sent_ns))
        elif not self._requests.is_busy(shard):
            # What was unknown of the differences may be known now.
            position = self._positions[shard]
            if position.heartbeat is not None and position.comparisons < COMPARISONS_MAX:
                self._compare(position, *position.heartbeat, boot_ns())

    def _refuse(self, reason: str, data: bytes) -> None:
        count = self._counts[REFUSED + reason] = self._counts[REFUSED + reason] + 1
        # Messages of an older epoch come whenever a leader that was paused wakes up.
        if reason not in {"epoch", "led"} and is_worth_logging(count):
            text = "a message of %d bytes was not used (%s); %d so far"
            self._log.warning(text, len(data), REASONS.get(reason, reason), count)

    def _snapshot(self, now_ns: int) -> FollowerStatus:
        counts = self._counts
        return FollowerStatus(
            shards={
                shard: ShardStatus(
                    epoch=position.epoch,
                    sequence=position.sequence,
                    silent_seconds=(now_ns - position.received_ns) / 1e9 if position.received_ns else None,
                    lag_seconds=position.lag_seconds(now_ns),
                    differing=position.differing,
                    is_equal=bool(position.compared_ns) and now_ns - position.compared_ns < COMPARED_NS,
                    gaps=position.gaps,
                )
                for shard, position in self._positions.items()
                if shard not in self._led
            },
            messages=counts["messages"],
            rows=counts["rows"],
            refused={name.removeprefix(REFUSED): count for name, count in counts.items() if name.startswith(REFUSED)},
            dropped=self._inbox.dropped,
            requests=self._requests.sent,
            unanswered=self._requests.unanswered,
        )
