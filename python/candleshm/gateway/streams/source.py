"""A block whose changes are sent: the streams that it feeds, and the thread that sleeps until it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from candleshm._core import KlineEvents
from candleshm.errors import BlockError
from candleshm.exchanges.base import Market
from candleshm.gateway.precision import Decimals
from candleshm.reader.feed import Feed

__all__ = ["Source", "Stream"]


@dataclass(eq=False, slots=True)
class Stream:
    """A kline stream: the series of a block under the name that clients have for it. Compared by identity."""

    market: Market
    symbol: str
    name: str
    block: str
    clients: int = 0


class Source:
    """One block in use, from its first stream to its last. All but `_sleep` runs in the event loop.

    It has a feed of its own, which stays attached when the block goes and follows when one of that name comes again;
    so what was sent is known, and no candle is final twice.
    """

    def __init__(self, name: str, changed: Callable[[Source], None]) -> None:
        """`changed` is called in the event loop when the block has changed since the last `take`, and at least every
        second, but not again before the next `take`. Raises BlockError when the block cannot be attached.
        """
        self.feed = Feed(name)
        self._kind = (self.feed.market, self.feed.price, self.feed.interval)
        self._events = KlineEvents(self.feed)
        self._streams: dict[str, list[Stream]] = {}
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._seen = self._events.announced()
        self._taken = threading.Event()
        self._taken.set()
        self._has_ended = False
        threading.Thread(target=self._sleep, name="gateway-streams", daemon=True).start()

    @property
    def streams(self) -> list[Stream]:
        """All streams of the block."""
        return [stream for streams in self._streams.values() for stream in streams]

    @property
    def is_used(self) -> bool:
        """Whether it has a stream."""
        return bool(self._streams)

    def watch(self, stream: Stream, decimals: Decimals | None) -> None:
        """Take what changes in a stream from now on. Raises UnknownSymbol."""
        if stream.symbol not in self._streams:
            self._events.watch(stream.symbol, decimals)
        self._streams.setdefault(stream.symbol, []).append(stream)

    def unwatch(self, stream: Stream) -> None:
        """Take it no more."""
        streams = self._streams[stream.symbol]
        streams.remove(stream)
        if not streams:
            del self._streams[stream.symbol]
            self._events.unwatch(stream.symbol)

    def take(self) -> list[tuple[bytes, list[Stream]]]:
        """Return the events since the last time, oldest first, each with the streams that it is sent on.

        Raises BlockError when another market, price or interval has the block's name by now.
        """
        # Before the look: what is published after it ends the next sleep at once.
        seen = self._events.announced()
        if (self.feed.market, self.feed.price, self.feed.interval) != self._kind:
            market, price, interval = self._kind
            kind = market if price == "trade" else f"{market}-{price}"
            raise BlockError(self.feed.name, f"it is no longer {kind} {interval}")
        events = [(event, self._streams[symbol]) for symbol, event in self._events.take()]
        self._seen = seen
        self._taken.set()
        return events

    def end(self) -> None:
        """End the thread, after its sleep of a second at most."""
        self._has_ended = True
        self._taken.set()

    @property
    def has_ended(self) -> bool:
        """Whether nobody needs it any more."""
        return self._has_ended

    def _sleep(self) -> None:
        """Tell of changes, one at a time."""
        while True:
            self._taken.wait()
            self._taken.clear()
            if self._has_ended:
                return
            self._seen.sleep()
            # The loop may have closed.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed, self)
