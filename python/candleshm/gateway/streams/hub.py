"""Who gets which events: streams, the blocks that feed them, and the clients that have subscribed to them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from candleshm._core import frame_text
from candleshm.errors import BlockError, CandleShmError
from candleshm.exchanges.base import Market
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.precision import Decimals
from candleshm.gateway.refusals import Refused
from candleshm.gateway.staleness import MAX_AGE_SECONDS
from candleshm.gateway.streams.blocks import feeds_of
from candleshm.gateway.streams.names import KlineName
from candleshm.gateway.streams.source import Source, Stream
from candleshm.reader.feed import Feed

__all__ = ["Hub", "Listener", "StreamCounts"]

logger = logging.getLogger(__name__)

# The first change is sent at once, what changes within so long after it together.
ROUND_SECONDS = 0.015
# The rest of the gateway runs between two rounds, however long they take.
PAUSE_SECONDS = 0.002
LOOK_SECONDS = 1.0
DISCONNECTED = -1001
SERVICE_RESTART = 1012


class Listener(Protocol):
    """A client as the hub knows it."""

    def write(self, frames: bytes) -> None:
        """Send whole frames."""

    def close(self, code: int, reason: str) -> None:
        """End the connection; the client leaves the hub."""


@dataclass(slots=True)
class StreamCounts:
    """What the stream side did since its start, and `clients`, how many it has now."""

    clients: int = 0
    events: int = 0
    """Events that were taken from blocks, whoever got them."""
    sent_bytes: int = 0
    """Of their frames, to all clients."""
    refused: int = 0
    """Connections that were refused at the handshake."""
    closed: Counter[int] = field(default_factory=Counter)
    """Connections that the gateway closed, by code: 1008 for clients that were slow or sent too much, 1012 for a block
    that was stale."""


Frames = dict[Stream, bytes]
"""The frames of a round for each stream that changed, oldest first."""
_Wanted = tuple[frozenset[Stream], bool]
"""What a client has subscribed to, and whether its events are wrapped."""

NOTHING: _Wanted = (frozenset(), False)


class Hub:
    """All streams and clients of a gateway. Everything runs in the event loop."""

    def __init__(
        self,
        directory: BlockDirectory,
        decimals: Callable[[Market, str], Decimals | None],
        max_age_seconds: float | None = None,
    ) -> None:
        """`max_age_seconds` is how old the data of a block may be; None for what suits its market."""
        self.counts = StreamCounts()
        self._directory = directory
        self._decimals = decimals
        self._max_age_seconds = max_age_seconds
        self._sources: dict[str, Source] = {}
        self._streams: dict[tuple[Market, str], Stream] = {}
        self._clients: dict[Listener, _Wanted] = {}
        self._changed: dict[Source, None] = {}
        self._round_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._next_seconds = 0.0

    @property
    def streams(self) -> int:
        """How many streams some client has subscribed to."""
        return len(self._streams)

    def find(self, markets: Iterable[Market], names: Iterable[str]) -> list[Stream]:
        """Return the streams of names, each in the first of the markets that has it.

        Raises NotKlines for a name that is none, Refused (503) for candles that no block has, or only a stale one.
        """
        markets, faults = tuple(markets), dict[str, str | None]()
        try:
            return [self._stream_of(markets, name, faults) for name in names]
        except BlockError as error:  # it went this moment
            raise Refused(503, DISCONNECTED, str(error)) from None

    def place(self, client: Listener, streams: Iterable[Stream], *, is_combined: bool) -> None:
        """Send a client the events of these streams from now on, and of no others.

        Raises CandleShmError when a block has gone this moment; then the client has no streams.
        """
        old = self._clients.get(client, NOTHING)[0]
        # Another client may have subscribed since these were found.
        new = frozenset(self._streams.get((stream.market, stream.name), stream) for stream in streams)
        for stream in old - new:
            self._release(stream)
        held = set(old & new)
        try:
            for stream in new - old:
                self._hold(stream)
                held.add(stream)
        except CandleShmError:
            self._clients.pop(client, None)
            for stream in held:
                self._release(stream)
            raise
        if new:
            self._clients[client] = new, is_combined
        else:
            self._clients.pop(client, None)

    def leave(self, client: Listener) -> None:
        """Forget a client."""
        self.place(client, (), is_combined=False)

    def close(self) -> None:
        """End all threads and timers. Clients are the server's to close."""
        for source in self._sources.values():
            source.end()
        for timer in (self._round_timer, self._look_timer):
            if timer is not None:
                timer.cancel()

    def _stream_of(self, markets: tuple[Market, ...], name: str, faults: dict[str, str | None]) -> Stream:
        """Return the stream of a name; `faults` are those of the blocks that were judged already."""
        for market in markets:
            if (stream := self._streams.get((market, name))) is not None:
                return stream
        kline = KlineName.of(name)
        text = f"no block of {' or '.join(markets)} has {kline.symbol} {kline.interval}"
        for market in markets:
            for feed in feeds_of(self._directory, market, kline):
                if feed.name not in faults:
                    faults[feed.name] = self._fault_of(feed)
                if (fault := faults[feed.name]) is None:
                    return Stream(market, kline.symbol, name, feed.name)
                text = fault
        raise Refused(503, DISCONNECTED, text)

    def _fault_of(self, feed: Feed) -> str | None:
        """Return why a block as a whole cannot be relied on; None while it can.

        A series that is stale alone is silent, as a symbol that is not traded is.
        """
        max_age_seconds = self._max_age_seconds
        if max_age_seconds is None:
            max_age_seconds = MAX_AGE_SECONDS[feed.market]
        health = feed._health(max_age_seconds)
        if health["state"] == "closed" and feed.name not in self._sources:
            # Those who have streams of it already wait for its next collector.
            return f"without a collector: {feed.name}"
        if health["is_current"]:
            return None
        return f"stale by {health['oldest_age']:.0f} s, allowed {max_age_seconds:g}: {feed.name}"

    def _hold(self, stream: Stream) -> None:
        """Count a client of a stream, and watch its series for the first one. Raises CandleShmError."""
        if not stream.clients:
            source = self._sources.get(stream.block)
            if source is None:
                source = self._sources[stream.block] = Source(stream.block, self._on_change)
            try:
                source.watch(stream, self._decimals(stream.market, stream.symbol))
            except CandleShmError:
                self._end_if_unused(stream.block)
                raise
            self._streams[stream.market, stream.name] = stream
            # Its newest candle is sent at once.
            self._on_change(source)
        stream.clients += 1
        if self._look_timer is None:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _release(self, stream: Stream) -> None:
        stream.clients -= 1
        if not stream.clients:
            del self._streams[stream.market, stream.name]
            self._sources[stream.block].unwatch(stream)
            self._end_if_unused(stream.block)

    def _end_if_unused(self, block: str) -> None:
        if not self._sources[block].is_used:
            self._sources.pop(block).end()

    # Rounds

    def _on_change(self, source: Source) -> None:
        self._changed[source] = None
        if self._round_timer is None:
            loop = asyncio.get_running_loop()
            self._round_timer = loop.call_at(max(self._next_seconds, loop.time()), self._round)

    def _round(self) -> None:
        """Send what changed in the blocks since the last round."""
        loop = asyncio.get_running_loop()
        begin_seconds = loop.time()
        self._round_timer = None
        sources, self._changed = list(self._changed), {}
        raw: Frames = {}
        wrapped: Frames = {}
        for source in sources:
            if source.has_ended:
                continue
            try:
                events = source.take()
            except CandleShmError as error:
                self._drop(source, str(error))
                continue
            self.counts.events += len(events)
            for event, streams in events:
                frame = frame_text(event, None)
                for stream in streams:
                    raw[stream] = raw.get(stream, b"") + frame
                    wrapped[stream] = wrapped.get(stream, b"") + frame_text(event, stream.name)
        if raw:
            self._send(raw, wrapped)
        self._next_seconds = max(begin_seconds + ROUND_SECONDS, loop.time() + PAUSE_SECONDS)

    def _send(self, raw: Frames, wrapped: Frames) -> None:
        for client, (streams, is_combined) in list(self._clients.items()):
            data = joined(wrapped if is_combined else raw, streams)
            if data:
                self.counts.sent_bytes += len(data)
                client.write(data)

    # Stale blocks

    def _look(self) -> None:
        """Close the clients of a block that is stale: their libraries connect again, and their users learn of it."""
        for source in list(self._sources.values()):
            if (fault := self._fault_of(source.feed)) is not None:
                self._drop(source, fault)
        self._look_timer = None
        if self._sources:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _drop(self, source: Source, reason: str) -> None:
        streams = frozenset(source.streams)
        clients = [client for client, (wanted, _) in self._clients.items() if wanted & streams]
        if clients:
            logger.warning("%d stream clients are disconnected: %s", len(clients), reason)
        for client in clients:
            client.close(SERVICE_RESTART, reason)


def joined(frames: Frames, streams: frozenset[Stream]) -> bytes:
    """Return the frames of these streams in one piece."""
    if len(frames) <= len(streams):
        return b"".join([frame for stream, frame in frames.items() if stream in streams])
    return b"".join([frames[stream] for stream in streams if stream in frames])
