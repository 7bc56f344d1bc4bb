"""Where a follower stands in the changes of one shard: epoch, sequence, the leader's clock, what waits for it."""

from __future__ import annotations

from candleshm.cluster.clock_offset import ClockOffset
from candleshm.cluster.message_head import MessageHead

__all__ = ["ShardPosition"]

# Messages that came before the leader's clock was measured wait for it, but not for ever.
HELD_MAX = 512
HELD_NS = 1_000_000_000
MEASURE_NS = 5_000_000_000
MEASURE_AGAIN_NS = 200_000_000
# Who leads says something each second. What a leader said that is silent for longer, others are asked for that often.
SILENT_NS, ASK_NS = 2_500_000_000, 1_000_000_000
# After so long without a word the age of the newest change grows.
LAG_GROWS_NS = 3_000_000_000


class ShardPosition:
    """The state of one shard. Pure: times are arguments, nanoseconds of this host's boot clock."""

    def __init__(self) -> None:
        self.epoch = 0
        self.sequence: int | None = None
        """The newest `CHANGES` that was taken; None while none of the epoch was, and nothing can be missing."""
        self.clock = ClockOffset()
        self.held: list[bytes] = []
        """Messages that wait until the leader's clock is measured."""
        self.received_ns = 0
        """When the leader said something last."""
        self.differing = 0
        """How many requests the newest comparison led to."""
        self.heartbeat: tuple[MessageHead, bytes] | None = None
        """The newest one that was applied."""
        self.standing: tuple[bytes, ...] = ()
        """All messages of the newest heartbeat, which may be several."""
        self.comparisons = 0
        """How often the block was compared with that one."""
        self.compared_ns = 0
        """When a heartbeat was last compared, at its own position."""
        self.lag_ns: int | None = None
        """How old the newest message was when it was applied."""
        self.gaps = 0
        self._new_ns = 0
        self._measured_ns = 0
        self._asked_ns = 0

    def follow(self, head: MessageHead, now_ns: int) -> bool:
        """Take in the head of a message; return whether it begins an epoch that is newer than those before."""
        is_new = head.epoch > self.epoch
        if is_new:
            self.epoch, self.sequence, self.clock = head.epoch, None, ClockOffset()
            self.held, self.lag_ns, self.heartbeat, self.standing = [], None, None, ()
            self._new_ns, self._measured_ns = now_ns, 0
        if head.epoch == self.epoch:
            self.received_ns = now_ns
        return is_new

    def missed(self, head: MessageHead) -> tuple[int, int] | None:
        """Return the first and the last number of the changes that are missing before a message of this epoch."""
        if self.sequence is None:
            return None
        last = head.sequence - 1 if head.kind == "changes" else head.sequence
        return (self.sequence + 1, last) if last > self.sequence else None

    def is_next(self, head: MessageHead) -> bool:
        """Return whether a message has the changes after those that were taken, and nothing waits."""
        is_followed = head.epoch == self.epoch and self.clock.is_known and not self.held
        return is_followed and head.kind == "changes" and head.sequence == (self.sequence or 0) + 1

    def advance(self, head: MessageHead, now_ns: int) -> None:
        """Stand behind a message of this epoch that was applied."""
        if head.epoch == self.epoch:
            self.sequence = max(head.sequence, self.sequence or 0)
        if head.kind == "changes" and self.clock.is_known:
            self.lag_ns = max(0, now_ns - head.sent_boot_ns - self.clock.at(now_ns))

    def stand(self, head: MessageHead, data: bytes) -> None:
        """Take in a heartbeat of this epoch that was applied."""
        is_next_part = self.heartbeat is not None and self.heartbeat[0] == head and data not in self.standing
        self.standing = (*self.standing, data) if is_next_part else (data,)
        self.heartbeat, self.comparisons = (head, data), 0

    def is_news(self, head: MessageHead) -> bool:
        """Return whether a heartbeat that another follower has kept is not older than what was taken."""
        return (head.epoch, head.sequence) >= (self.epoch, self.sequence or 0)

    def is_level(self, head: MessageHead) -> bool:
        """Return whether the newest comparison found nothing, no earlier than where a message of others stands."""
        is_equal = self.differing == 0 and self.heartbeat is not None and self.compared_ns > 0
        return is_equal and head.epoch == self.epoch and head.sequence <= (self.sequence or 0)

    def lag_seconds(self, now_ns: int) -> float | None:
        """Return how old the newest change was when it was applied, and since then, once the leader is silent."""
        if self.lag_ns is None:
            return None
        silent_ns = now_ns - self.received_ns
        return (self.lag_ns + (silent_ns if silent_ns > LAG_GROWS_NS else 0)) / 1e9

    def is_standing_due(self, now_ns: int) -> bool:
        """Return whether others are to be asked where the leader stood, which is silent; counts as done then."""
        is_needed = self.heartbeat is None or self.differing > 0
        if not is_needed or now_ns - self.received_ns < SILENT_NS or now_ns - self._asked_ns < ASK_NS:
            return False
        self._asked_ns = now_ns
        return True

    def waits(self, now_ns: int) -> bool:
        """Return whether messages wait for the leader's clock."""
        return not self.clock.is_known and now_ns - self._new_ns < HELD_NS and len(self.held) < HELD_MAX

    def is_clock_due(self, now_ns: int) -> bool:
        """Return whether the leader's clock is to be measured now; counts as done then."""
        pause_ns = MEASURE_NS if self.clock.is_known else MEASURE_AGAIN_NS
        if self.epoch == 0 or (self._measured_ns and now_ns - self._measured_ns < pause_ns):
            return False
        self._measured_ns = now_ns
        return True

    def offset_ns(self, head: MessageHead, now_ns: int) -> int:
        """Return what is added to the sender's times; while nothing is known of its clock they become ancient."""
        return self.clock.at(now_ns) if self.clock.is_known else -head.sent_boot_ns
