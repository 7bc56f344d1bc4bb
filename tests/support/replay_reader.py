"""A reader of a replay, as a process: `python -m tests.support.replay_reader NAME WAY SLEEPS SEED`.

It waits by `closes`, `async` or `step`, and makes calls after each wait that follow from the seed. At the end it prints
how many waits ended, a digest of all bytes that it read, and how the replay ended. With SLEEPS it is slow now and then.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Iterator

import candleshm


class Reading:
    """What was read so far."""

    def __init__(self, feed: candleshm.Feed, seed: int, *, sleeps: bool) -> None:
        self._feed = feed
        self._calls = random.Random(seed)
        self._chance = random.Random() if sleeps else None
        self._digest = hashlib.sha256()
        self.waits = 0

    def take(self, waited: object) -> None:
        """Note what a wait returned, and read."""
        self.waits += 1
        if self._chance is not None and self._chance.random() < 0.02:
            time.sleep(self._chance.random() / 100)
        self._digest.update(repr(waited).encode())
        feed, count = self._feed, self._calls.randint(1, 30)
        symbol = self._calls.choice(feed.symbols)
        rows, states = feed[symbol].snapshot(count, holes="nan")
        panel = feed.panel("close", n=count)
        for array in (rows, states, panel.array, panel.open_time_ms, feed.asof("high", [feed.exchange_ms() or 0])):
            self._digest.update(array.tobytes())
        self._digest.update(repr((feed.exchange_ms(), feed[symbol].age, feed[symbol].gaps(), panel.symbols)).encode())

    def __str__(self) -> str:
        return f"{self.waits} {self._digest.hexdigest()}"


def waits(feed: candleshm.Feed, way: str) -> Iterator[object]:
    """Yield what each wait returns."""
    if way == "step":
        while True:
            yield feed.step()
    yield from feed.closes()


async def take_all(feed: candleshm.Feed, reading: Reading) -> None:
    """Wait in asyncio."""
    async for closed in feed.closes():
        reading.take(closed)


def main(name: str, way: str, sleeps: str, seed: str) -> None:
    """Read until the replay ends."""
    with candleshm.attach(name, timeout=60.0) as feed:
        reading = Reading(feed, int(seed), sleeps=sleeps == "sleeps")
        sys.stdout.write("attached\n")
        sys.stdout.flush()
        try:
            if way == "async":
                asyncio.run(take_all(feed, reading))
            else:
                for waited in waits(feed, way):
                    reading.take(waited)
        except candleshm.ReplayEnded as end:
            sys.stdout.write(f"{reading} {'complete' if end.is_complete else 'stopped'}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
