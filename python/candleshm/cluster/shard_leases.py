"""The leases of all shards of a feed, as one member holds them, waits for them and hands them on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from candleshm.cluster.leases import RENEW_SECONDS, Lease
from candleshm.cluster.presence import MIRROR, Presence, Roll
from candleshm.cluster.sharding import assignment, heir
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ClusterUnavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

    from candleshm.cluster.connection import ClusterConnection
    from candleshm.cluster.served import OwnFeed, Served

__all__ = ["ShardLeases"]

# How often a lease is looked at that another holds: so much is added to the lease's life when a leader dies.
LOOK_SECONDS = 0.1
# Looks of so many shards in that time are what a server is asked for by one member.
LOOKS_MAX = 4
# Whose turn it is not waits for the one whose turn it is; who lacks rows waits for those who have them.
SECOND_SECONDS, INCOMPLETE_SECONDS = 0.3, 1.5
# A shard moves to another member once that has been its heir for so long; who handed it on waits as long.
HEIR_SECONDS = 3.0
# Who has just begun to lead may find out that another did at the same moment, and serves something else.
SETTLING_SECONDS = 10.0
# So long it takes until all of them know what each one says of itself.
KNOWN_SECONDS = 2.0
# Before it takes one of several shards, a member has to know whether others divide the feed as it does.
GREETING_SECONDS = 1.5
ANSWER_SECONDS = 1.0


class ShardLeases:
    """Belongs to the member's thread, but for `may_publish` and `held_until_ns`, which may be called from any."""

    def __init__(
        self,
        connection: ClusterConnection,
        subjects: Subjects,
        member: str,
        *,
        shards: int,
        now: Callable[[], float],
        own: OwnFeed | None = None,
    ) -> None:
        """`now` tells seconds of the boot clock. `own` says what this member serves; without it, it may lead any."""
        self._own = own
        self._connection = connection
        self._subjects = subjects
        self._member = member
        self._now = now
        from candleshm.cluster.lease_bucket import LeaseBucket

        self._bucket = LeaseBucket(subjects.leases, replicas=connection.settings.replicas)
        self._leases = [
            Lease(self._bucket, subjects.lease(shard), member, now=now, serves=partial(self._served, shard))
            for shard in range(shards)
        ]
        self._due_seconds = [-math.inf] * shards
        self._started_seconds = self._reached_seconds = now()
        self._is_silent = False
        self.failure = "the cluster's servers did not respond"
        """Why the servers could not be used the last time that they could not."""
        self._heir_seconds: dict[int, float] = {}
        self._handed_seconds: dict[int, float] = {}
        self._led_since_seconds = self._opposed_since_seconds = math.inf

    @property
    def epochs(self) -> dict[int, int]:
        """The epoch of each shard that this member leads."""
        return {shard: lease.epoch for shard, lease in enumerate(self._leases) if lease.epoch is not None}

    @property
    def newest_epochs(self) -> dict[int, int]:
        """The newest epoch of each shard that the bucket had."""
        return {shard: lease.newest_epoch for shard, lease in enumerate(self._leases) if lease.newest_epoch}

    def holder(self, shard: int) -> str | None:
        """Return who leads a shard by the newest entry; None or empty for nobody."""
        return self._leases[shard].holder

    def served(self, shard: int) -> Served | None:
        """Return what the leader of a shard serves, or the last one did; None where it is unknown."""
        return self._leases[shard].served

    @property
    def objection(self) -> str | None:
        """Why this member may take no lease, beside those that it has: what it serves is not what leaders serve."""
        if self._own is None:
            return None
        others = (lease.served for lease in self._leases if lease.epoch is None)
        return next(filter(None, map(self._own.objection, others)), None)

    def _served(self, shard: int) -> Served | None:
        return None if self._own is None else self._own.served(shard)

    def may_publish(self, shard: int) -> bool:
        """Return whether this member surely leads a shard now."""
        return self._leases[shard].may_publish

    def held_until_ns(self, shard: int) -> int:
        """Return until when this member surely leads a shard, by the boot clock; 0 where it does not lead it."""
        return int(max(0.0, self._leases[shard].held_until_seconds) * 1e9)

    @property
    def silent_seconds(self) -> float:
        """For how long no lease could be looked at; 0 while they can."""
        return self._now() - self._reached_seconds if self._is_silent else 0.0

    def tend(self, present: Collection[Presence], roll: Roll, *, is_complete: bool) -> None:
        """Renew, take and hand on what is due, among those that are `present`.

        `is_complete` says whether this member has all rows, so that its turn to lead comes first.
        """
        now = self._now()
        if self._is_opposed(present):
            self.release(forgets=True)
        due = [shard for shard, due_seconds in enumerate(self._due_seconds) if due_seconds <= now]
        members = [each for each in present if each.feed == self._subjects.feed and each.role != MIRROR]

        async def tend(client: Client) -> list[str | None]:
            self._bucket.use(client)
            steps = (self._step(shard, members, roll, is_complete=is_complete) for shard in due)
            return await asyncio.gather(*steps)

        if not due:
            return
        try:
            failures = self._connection.run(tend, ANSWER_SECONDS)
        except ClusterUnavailable as error:
            failures = [error.reason]
        failed = [failure for failure in failures if failure is not None]
        self._is_silent = len(failed) == len(failures)
        if failed:
            self.failure = failed[0]
        if not self._is_silent:
            self._reached_seconds = self._now()

    def release(self, *, forgets: bool = False) -> None:
        """Step down from everything, as far as the servers can be reached.

        What was served stays known to those who lead next, unless the entries `forget` it.
        """

        async def release(_client: Client) -> None:
            with suppress(ConnectionError, TimeoutError):
                await asyncio.gather(*(lease.release(forgets=forgets) for lease in self._leases))

        with suppress(ClusterUnavailable):
            self._connection.run(release, ANSWER_SECONDS)

    def _is_opposed(self, present: Collection[Presence]) -> bool:
        """Return whether to give everything back: another began to lead at the same moment, and serves something else.

        Neither could see what the other serves. The leader of the first shard stays, unless only this one objects.
        """
        now, own = self._now(), self._own
        if own is None or not self.epochs:
            self._led_since_seconds = self._opposed_since_seconds = math.inf
            return False
        self._led_since_seconds = min(self._led_since_seconds, now)
        others = [
            each
            for each in present
            if each.member != self._member
            and any(
                lease.holder == each.member and own.objection(lease.served)
                for lease in self._leases
                if lease.epoch is None
            )
        ]
        if not others or now - self._led_since_seconds > SETTLING_SECONDS:
            self._opposed_since_seconds = math.inf
            return False
        self._opposed_since_seconds = min(self._opposed_since_seconds, now)
        leads_first = all(min(self.epochs) < min(each.epochs, default=len(self._leases)) for each in others)
        is_wrong = any(each.may_lead for each in others) or not leads_first
        return is_wrong and now - self._opposed_since_seconds > KNOWN_SECONDS

    async def _step(self, shard: int, members: Collection[Presence], roll: Roll, *, is_complete: bool) -> str | None:
        """Do what is due for one shard; return why it could not be done."""
        lease = self._leases[shard]
        newest_epoch = roll.newest_epoch(self._subjects.feed, shard)
        try:
            if lease.epoch is None:
                patience_seconds = self._patience_seconds(shard, members, is_complete=is_complete)
                await lease.acquire(
                    patience_seconds=patience_seconds,
                    newest_epoch=newest_epoch,
                    may_lead=lambda: self.objection is None,
                )
            elif self._is_divided_otherwise(members) or self._is_handed_on(shard, members):
                await lease.release()
                self._handed_seconds[shard] = self._now()
            else:
                await lease.renew(newest_epoch)
        except (ConnectionError, TimeoutError) as error:
            return str(error) or "no response in time"
        finally:
            look_seconds = LOOK_SECONDS * max(1.0, len(self._leases) / LOOKS_MAX)
            if lease.epoch is not None:
                self._due_seconds[shard] = self._now() + RENEW_SECONDS
            else:
                # A lease that ends sooner is looked at as soon as it may be taken.
                self._due_seconds[shard] = self._now() + min(look_seconds, lease.free_in_seconds or look_seconds)
        return None

    def _patience_seconds(self, shard: int, members: Collection[Presence], *, is_complete: bool) -> float:
        """Return how long a lease has to be free before this member takes it: whose turn it is comes first."""
        if self._now() - self._handed_seconds.get(shard, -math.inf) < HEIR_SECONDS:
            return HEIR_SECONDS
        if len(self._leases) > 1 and self._now() - self._started_seconds < GREETING_SECONDS:
            return math.inf
        if any(each.epochs and each.shards != len(self._leases) for each in members):
            return math.inf  # The feed is divided otherwise; `Member` says so.
        # Whoever led it until now is gone, although it may have spoken a moment ago.
        holder = self._leases[shard].holder
        able = {each.member for each in members if each.is_complete and each.may_lead and each.member != holder}
        able.discard(self._member)
        if not is_complete:
            return INCOMPLETE_SECONDS if able else SECOND_SECONDS
        first = assignment(len(self._leases), able | {self._member})[shard]
        return 0.0 if first == self._member else SECOND_SECONDS

    def _is_divided_otherwise(self, members: Collection[Presence]) -> bool:
        """Return whether who leads the first shard divides the feed otherwise: so all agree on who leads nothing.

        Who divides it otherwise takes no lease, but may have taken some before it knew of the others.
        """
        first = self._leases[0]
        return first.epoch is None and any(
            each.member == first.holder and each.shards != len(self._leases) for each in members
        )

    def _is_handed_on(self, shard: int, members: Collection[Presence]) -> bool:
        """Return whether another member should lead a shard, and has been ready for it long enough."""
        leading = {
            each.member: len(each.epochs)
            for each in members
            if each.is_complete and each.may_lead and each.role != "alone"
        }
        leading[self._member] = len(self.epochs)
        if heir(shard, self._member, leading, shards=len(self._leases)) is None:
            self._heir_seconds.pop(shard, None)
            return False
        return self._now() - self._heir_seconds.setdefault(shard, self._now()) > HEIR_SECONDS
