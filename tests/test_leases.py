"""Leases: one holder at a time, a higher epoch with each, whatever is lost and whoever sleeps. The clock is by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from candleshm.cluster.leases import LEASE_SECONDS, Entry, Lease

KEY = "feed.0"


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Bucket:
    """Entries as JetStream keeps them; it can lose messages on both ways, and everything."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.sequence = 0
        self.is_lost: Callable[[], bool] = lambda: False

    async def read(self, key: str) -> Entry | None:
        if self.is_lost():
            raise TimeoutError
        return self.entries.get(key)

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        if self.is_lost():
            raise TimeoutError
        there = self.entries.get(key)
        if (there.revision if there is not None else 0) != revision:
            return None
        self.sequence += 1
        self.entries[key] = Entry(self.sequence, value)
        if self.is_lost():
            raise TimeoutError
        return self.sequence


def run(coroutine: object) -> bool:
    return bool(asyncio.run(coroutine))  # type: ignore[arg-type]


def take(lease: Lease, newest_epoch: int = 0) -> bool:
    return run(lease.acquire(patience_seconds=0.0, newest_epoch=newest_epoch))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def leases(bucket: Bucket, clock: Clock) -> list[Lease]:
    return [Lease(bucket, KEY, f"m{number}", now=clock) for number in range(3)]


def test_a_new_lease_is_taken_by_one(leases: list[Lease]) -> None:
    assert take(leases[0])
    assert not take(leases[1])
    assert leases[0].may_publish
    assert not leases[1].may_publish
    assert leases[1].holder == "m0"


def test_a_dead_holder_is_followed_after_the_lease_and_not_before(leases: list[Lease], clock: Clock) -> None:
    first, second, _ = leases
    assert take(first)
    assert not take(second)
    clock.seconds += LEASE_SECONDS - 0.01
    assert run(first.renew(0))
    assert not take(second)
    clock.seconds += LEASE_SECONDS - 0.01
    assert not take(second)
    assert first.may_publish
    clock.seconds += 0.02
    assert not first.may_publish
    assert take(second)
    assert (second.epoch or 0) > (first.epoch or 0)
    # The one that was paused wakes up, and has lost it.
    assert not run(first.renew(0))
    assert first.epoch is None


def test_patience_lets_another_be_first(leases: list[Lease], clock: Clock) -> None:
    assert not run(leases[0].acquire(patience_seconds=1.0, newest_epoch=0))
    clock.seconds += 0.5
    assert not run(leases[0].acquire(patience_seconds=1.0, newest_epoch=0))
    clock.seconds += 0.5
    assert run(leases[0].acquire(patience_seconds=1.0, newest_epoch=0))


def test_a_holder_that_steps_down_is_followed_at_once(leases: list[Lease]) -> None:
    first, second, _ = leases
    assert take(first)
    epoch = first.epoch or 0
    assert not take(second)
    asyncio.run(first.release())
    assert not first.may_publish
    assert take(second)
    assert (second.epoch or 0) > epoch


def test_a_lost_bucket_takes_no_epoch_back(leases: list[Lease], bucket: Bucket) -> None:
    first, second, third = leases
    for _ in range(5):
        assert take(first)
        asyncio.run(first.release())
    assert take(first)
    epoch = first.epoch or 0
    bucket.entries.clear()
    bucket.sequence = 0
    # The holder goes on; one that begins knows the newest epoch from what others say.
    assert run(first.renew(0))
    assert (first.epoch or 0) >= epoch
    bucket.entries.clear()
    bucket.sequence = 0
    assert take(third, newest_epoch=epoch)
    assert (third.epoch or 0) > epoch
    assert not run(first.renew(0))
    # One that knows of nothing takes a low epoch, and a higher one as soon as it hears.
    bucket.entries.clear()
    bucket.sequence = 0
    assert take(second)
    assert run(second.renew((third.epoch or 0) + 5))
    assert (second.epoch or 0) > (third.epoch or 0) + 5


def test_who_led_has_a_lease_s_life_to_write_a_lost_entry_again(
    leases: list[Lease], bucket: Bucket, clock: Clock
) -> None:
    first, second, _ = leases
    assert take(first)
    assert not take(second)
    clock.seconds += LEASE_SECONDS * 2
    bucket.entries.clear()
    bucket.sequence = 0
    assert not take(second)
    clock.seconds += LEASE_SECONDS - 0.01
    assert not take(second)
    assert run(first.renew(0))
    assert not take(second)
    bucket.entries.clear()
    assert not take(second)
    clock.seconds += LEASE_SECONDS + 0.01
    assert take(second)
    assert (second.epoch or 0) > (first.epoch or 0)


def test_a_lost_acknowledgement_costs_no_lease(leases: list[Lease], bucket: Bucket, clock: Clock) -> None:
    first = leases[0]
    assert take(first)
    epoch = first.epoch
    losses = iter([False, True])  # the renewal is written, and nobody says so
    bucket.is_lost = lambda: next(losses, False)
    with pytest.raises(TimeoutError):
        run(first.renew(0))
    clock.seconds += 1.0
    assert run(first.renew(0))
    assert first.epoch == epoch
    clock.seconds += 1.5
    assert first.may_publish


@pytest.mark.parametrize("seed", range(10))
def test_never_two_publish_and_epochs_only_rise(seed: int) -> None:
    """Members that sleep, lose messages and step down at random: at no moment may two of them publish."""
    chance, clock, bucket = random.Random(seed), Clock(), Bucket()
    leases = [Lease(bucket, KEY, f"m{number}", now=clock) for number in range(3)]
    bucket.is_lost = lambda: chance.random() < 0.2
    asleep_seconds = [0.0] * 3
    epochs: list[int] = []

    def look() -> None:
        publishing = [lease for lease in leases if lease.may_publish]
        assert len(publishing) <= 1
        for lease in publishing:
            assert lease.epoch is not None
            assert not epochs or lease.epoch >= epochs[-1]
            epochs.append(lease.epoch)

    for _ in range(1000):
        clock.seconds += chance.random() * 0.3
        look()
        number = chance.randrange(3)
        lease = leases[number]
        if clock.seconds < asleep_seconds[number]:
            continue
        if chance.random() < 0.02:
            asleep_seconds[number] = clock.seconds + chance.random() * 6
            continue
        with suppress(TimeoutError):
            if lease.epoch is None:
                take(lease)
            elif chance.random() < 0.02:
                asyncio.run(lease.release())
            else:
                run(lease.renew(0))
        look()
    assert len(set(epochs)) > 5
