"""Who leads a shard: a lease in a key-value bucket that one member at a time can write.

An entry names its holder and its epoch, and is written only in place of the revision that the writer has read, so two
members never both succeed. The holder renews it; who wants it waits until the entry has stood unchanged for the lease's
whole life by the waiter's own boot clock. So no clock is compared with another, a server's wall clock may jump, and a
holder that was paused knows by its own boot clock that its lease may be over before anybody else can have it.

The entry outlives its holder, and every take-over writes a higher epoch. When the bucket is lost altogether, as with
the memory of its only server, whoever led has a lease's life to write the entry again, and the epoch goes on above the
newest that anybody knows of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from candleshm.cluster.served import Served

__all__ = ["LEASE_SECONDS", "RENEW_SECONDS", "Entry", "Lease", "LeaseStore"]

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.5


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry says."""

    member: str
    """Who leads; empty once the leader has stepped down."""
    epoch: int
    beat: int = 0
    """Counts renewals, so that each makes another entry."""
    served: Served | None = None
    """What the leader serves; it outlives the leader as the entry does. None in entries of earlier versions."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the bucket, as it was read."""

    revision: int
    value: bytes


class LeaseStore(Protocol):
    """The bucket. Every method raises ConnectionError or TimeoutError where the servers do not answer."""

    async def read(self, key: str) -> Entry | None:
        """Return the newest entry, None where there is none."""

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        """Write in place of that revision, 0 for none, and return the new one; None where another was there."""


_DECODER = msgspec.json.Decoder(Holding)


class Lease:
    """One shard's lease, as one member holds it or waits for it. For one task.

    `may_publish` and `held_until_seconds` may be read from any thread.
    """

    def __init__(
        self,
        store: LeaseStore,
        key: str,
        member: str,
        *,
        now: Callable[[], float],
        serves: Callable[[], Served | None] = lambda: None,
    ) -> None:
        """`now` tells seconds of the boot clock, which goes on while the machine sleeps.

        `serves` tells what this member serves where it leads, for others to read.
        """
        self._serves = serves
        self._store = store
        self._key = key
        self._member = member
        self._now = now
        self._revision = 0
        self._since_seconds = -math.inf  # when this revision was first seen
        self._confirmed_seconds = -math.inf
        self._beat = 0
        self.epoch: int | None = None
        """The epoch under which this member leads; None while it does not."""
        self.holder: str | None = None
        """Who leads by the newest entry that was read; empty or None for nobody."""
        self.newest_epoch = 0
        """The newest epoch that an entry had."""
        self.served: Served | None = None
        """What the leader serves, or the last one did, by the newest entry that was read."""

    @property
    def may_publish(self) -> bool:
        """Whether this member surely leads now: nobody else can have taken the lease yet."""
        return self._now() < self.held_until_seconds

    @property
    def held_until_seconds(self) -> float:
        """Until when nobody else can have taken the lease; before all times while this member does not lead."""
        return -math.inf if self.epoch is None else self._confirmed_seconds + LEASE_SECONDS

    @property
    def free_in_seconds(self) -> float:
        """How long it is until the newest entry has stood unchanged for a lease's life; 0 when it has."""
        return max(0.0, self._since_seconds + LEASE_SECONDS - self._now())

    async def acquire(
        self, *, patience_seconds: float, newest_epoch: int, may_lead: Callable[[], bool] = lambda: True
    ) -> bool:
        """Take the lease if it is free, and has been for `patience_seconds`; return whether this member leads now.

        The new epoch is above `newest_epoch` and above that of the entry. `may_lead` is asked once the entry was read.
        """
        entry = await self._store.read(self._key)
        # Not before the answer was there: the entry may have been written while the question was on its way.
        holding = self._note(entry, self._now())
        free_seconds = self._since_seconds
        is_lost = entry is None and self.newest_epoch > 0
        if is_lost or (holding is not None and holding.member not in {"", self._member}):
            free_seconds += LEASE_SECONDS
        if self._now() - free_seconds < patience_seconds or not may_lead():
            return False
        revision = 0 if entry is None else entry.revision
        epoch = max(newest_epoch, revision, self.newest_epoch) + 1
        return await self._write(epoch, revision)

    async def renew(self, newest_epoch: int) -> bool:
        """Confirm a lease that is held; return whether this member still leads.

        Where an epoch is known that is newer than its own, as after the bucket was lost, it goes on under one that is
        newer still.
        """
        if self.epoch is None:
            return False
        # Read first: after the bucket was lost, another's entry may have the very revision that this one expects.
        entry = await self._store.read(self._key)
        holding = self._note(entry, self._now())
        if entry is None or (holding is not None and holding.member == self._member):
            told_epoch = max(newest_epoch, 0 if holding is None else holding.epoch)
            epoch = self.epoch if told_epoch <= self.epoch else told_epoch + 1
            if await self._write(epoch, self._revision):
                return True
        self.epoch = None
        return False

    async def release(self, *, forgets: bool = False) -> None:
        """Step down, so that others need not wait. What was served stays known unless the entry `forgets` it."""
        if self.epoch is None:
            return
        epoch, self.epoch = self.epoch, None
        served = None if forgets else self._serves()
        value = msgspec.json.encode(Holding(member="", epoch=epoch, beat=self._beat, served=served))
        await self._store.write(self._key, value, self._revision)

    def _note(self, entry: Entry | None, now: float) -> Holding | None:
        """Take in an entry that was read, and return what it says; one that cannot be read says nothing."""
        revision = 0 if entry is None else entry.revision
        if revision != self._revision or self._since_seconds == -math.inf:
            self._revision, self._since_seconds = revision, now
        self.holder = self.served = None
        if entry is None:
            return None
        try:
            holding = _DECODER.decode(entry.value)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        self.holder, self.served = holding.member, holding.served
        self.newest_epoch = max(self.newest_epoch, holding.epoch)
        return holding

    async def _write(self, epoch: int, revision: int) -> bool:
        sent_seconds = self._now()
        self._beat += 1
        served = self._serves()
        value = msgspec.json.encode(Holding(member=self._member, epoch=epoch, beat=self._beat, served=served))
        written = await self._store.write(self._key, value, revision)
        if written is None:
            return False
        self._revision, self._since_seconds = written, sent_seconds
        self._confirmed_seconds = sent_seconds
        self.epoch, self.holder, self.served = epoch, self._member, served
        self.newest_epoch = max(self.newest_epoch, epoch)
        return True
