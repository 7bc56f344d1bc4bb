"""Feeds that are dropped without `close()` leave no thread behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.collecting import close_seconds, collecting, until

# A candle that nobody lives to see closed.
FAR_MS = 4_102_444_800_000


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=2) as running:
        yield running


def waiting() -> int:
    """Return how many threads wait for feeds."""
    gc.collect()
    return sum(thread.name == "candleshm-wait" for thread in threading.enumerate())


@pytest.mark.long
def test_feeds_dropped_after_every_kind_of_wait_leave_no_thread(exchange: SimulatedExchange, block_name: str) -> None:
    settings: dict[str, Any] = {"interval": "1s", "symbols": ["BTCUSDT"], "length": 20}
    with collecting(exchange, block_name, **settings) as (_, feed):
        close_seconds(feed, 1)
        before = waiting()
        dropped: list[weakref.ref[candleshm.Feed]] = []

        async def use() -> None:
            feed = candleshm.attach(block_name)
            dropped.append(weakref.ref(feed))
            async for _ in feed.closes():
                break
            await feed.wait_closed_async()
            await feed.wait_async("BTCUSDT")
            with pytest.raises(candleshm.WaitTimeout):
                await feed.wait_async("BTCUSDT", FAR_MS, timeout=0.05)
            cancelled = asyncio.ensure_future(feed.wait_async("BTCUSDT", FAR_MS))
            await asyncio.sleep(0.05)
            cancelled.cancel()

        for _ in range(3):
            asyncio.run(use())
        until(lambda: waiting() == before)
        assert all(feed() is None for feed in dropped)
