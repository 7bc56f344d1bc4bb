"""A relay between two prefixes of subjects that spoils what it passes on: twice, out of order, cut, altered, or never.

Members of a cluster use one prefix, a mirror uses another: all that it gets, and each answer to what it asks, comes by
this relay.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

__all__ = ["BadRelay", "bad_relay"]

FAULTS = ("twice", "late", "cut", "altered", "lost")
PART = 0.08
"""Of all messages, for each fault."""
DEADLINE_SECONDS = 30.0


class BadRelay:
    """Runs in an event loop of its own; `spoiled` counts what it did, by fault."""

    def __init__(self, url: str, near: str, far: str, seed: int) -> None:
        self.is_honest = False
        """Whether it passes everything on as it came, from now on."""
        self.rewrite: Callable[[bytes], bytes] = bytes
        """Makes another message of each one before anything else happens to it."""
        self.spoiled: Counter[str] = Counter()
        self.passed = 0
        self._url = url
        self._near, self._far = near, far
        self._random = Random(seed)
        self._late: list[tuple[str, bytes]] = []
        self._inboxes: dict[str, str] = {}

    async def run(self, ready: threading.Event, ended: asyncio.Event) -> None:
        """Relay until the end."""
        client = await nats.connect(self._url, allow_reconnect=False)
        self._client: Client = client
        await client.subscribe(f"{self._near}.>", cb=self._outward)
        await client.subscribe(f"{self._far}.>", cb=self._inward)
        await client.flush()
        ready.set()
        await ended.wait()
        await client.close()

    async def _outward(self, message: Msg) -> None:
        if not message.reply:
            await self._pass_on(self._far + message.subject.removeprefix(self._near), message.data)

    async def _inward(self, message: Msg) -> None:
        """Pass a question on; each asker has an inbox of ours for its answers."""
        if not message.reply:
            return
        if message.reply not in self._inboxes:
            reply, inbox = message.reply, self._client.new_inbox()

            async def passed_back(answer: Msg) -> None:
                await self._pass_on(reply, answer.data)

            await self._client.subscribe(inbox, cb=passed_back)
            self._inboxes[reply] = inbox
        subject = self._near + message.subject.removeprefix(self._far)
        await self._client.publish(subject, message.data, self._inboxes[message.reply])

    async def _pass_on(self, subject: str, data: bytes) -> None:
        self.passed += 1
        data = self.rewrite(data)
        fault = next((fault for fault in FAULTS if self._random.random() < PART), "") if not self.is_honest else ""
        self.spoiled[fault] += 1
        late, self._late = self._late, []
        if fault == "late":
            self._late = [(subject, data)]
        elif fault == "cut":
            await self._client.publish(subject, data[: self._random.randrange(len(data) + 1)])
        elif fault == "altered" and data:
            spoiled = bytearray(data)
            spoiled[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            await self._client.publish(subject, bytes(spoiled))
        elif fault != "lost":
            for _ in range(1 + (fault == "twice")):
                await self._client.publish(subject, data)
        for one in late:
            await self._client.publish(*one)


@contextmanager
def bad_relay(url: str, near: str, far: str, seed: int = 1) -> Iterator[BadRelay]:
    """Relay from subjects under `near` to the same ones under `far`, until the end of the context."""
    relay = BadRelay(url, near, far, seed)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(relay.run(ready, ended)), daemon=True)
    thread.start()
    try:
        assert ready.wait(DEADLINE_SECONDS)
        yield relay
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(DEADLINE_SECONDS)
        loop.close()
