"""The connections of one feed: which symbols on which, opened, watched, rotated, reconnected.

It decides which connections there are. What their events mean is the core's business, and what to request by REST while
streams are stalled is the collector's (failover).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random

from candleshm.errors import ExchangeUnavailable
from candleshm.exchanges.base import Exchange
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.connection import Connection
from candleshm.stream.counters import StreamCounters
from candleshm.stream.dialer import Dialer
from candleshm.stream.lane import Lane
from candleshm.stream.lanes import Lanes
from candleshm.stream.loop_thread import LoopThread
from candleshm.stream.repeated_log import RepeatedLog
from candleshm.stream.source import FrameSink
from candleshm.stream.stalls import Stalls
from candleshm.stream.status import StreamStatus
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock
from candleshm.system.log_text import printable

__all__ = ["StreamManager"]

logger = logging.getLogger(__name__)

ROUNDS_MAX = 100


class StreamManager:
    """Keeps every wanted stream flowing, from `start` until `stop`. Methods may be called from any thread."""

    def __init__(
        self,
        exchange: Exchange,
        interval: str,
        *,
        block_name: str,
        sink: FrameSink,
        changed: Callable[[], None],
        clock: Clock,
        context: ssl.SSLContext | None = None,
        random: Random | None = None,
        connects: WeightBudget | None = None,
    ) -> None:
        """`changed` is called when there are repair requests, or a connection was opened or lost."""
        self.rules = exchange.stream_rules(interval)
        self._sink = sink
        self._changed = changed
        self._now = clock.monotonic_seconds
        block_log = BlockLog(logger, block_name)
        self._log = RepeatedLog(block_log)
        self._dialer = Dialer(self.rules, self._now, context=context, random=random, connects=connects)
        self._stalls = Stalls(self.rules, block_log, self._now)
        self._lanes = Lanes(exchange, interval, self.rules.streams_max)
        self._wanted: tuple[str, ...] = ()
        self._covered: frozenset[str] = frozenset()
        self._connected: set[Connection] = set()
        self._repair_requests: deque[tuple[str, str, int]] = deque()
        self._counters = StreamCounters()
        self._thread = LoopThread("candleshm-stream", self._tick, self._end, lambda: self._failed(block_log))

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on a connection that is open."""
        return self._covered

    @property
    def status(self) -> StreamStatus:
        """What the streams do now, and did so far."""
        return self._counters.status(self._lanes.connections, len(self._covered), self._stalls.down)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def follow(self, symbols: Iterable[str]) -> None:
        """Stream exactly these symbols."""
        self._wanted = tuple(symbols)
        self._thread.rouse()

    def suspect(self, symbol: str) -> None:
        """Note that REST had a newer row which the stream of `symbol` should have sent."""
        self._stalls.suspect(symbol)

    def repair_requests(self) -> list[tuple[str, str, int]]:
        """Return the repair requests since the last call: (symbol, reason, open time)."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._repair_requests.popleft())
        return taken

    def stop(self) -> None:
        """Close the connections and end the thread within moments."""
        self._thread.stop()

    # In the thread.

    def _tick(self) -> None:
        now = self._now()
        if self._lanes.align(self._wanted):
            self._stalls.want(self._wanted)
        for lane in self._lanes:
            if lane.rotate(self.rules, now) and self._dialer.may_open(now):
                if lane.current is not None:
                    text = "opening a standby for a stream connection of %d symbols, because %s"
                    self._log.write(logging.INFO, "rotated", now, text, len(lane.group), lane.current.rotation)
                lane.opening = asyncio.create_task(self._open(lane))
            for connection in (lane.current, lane.standby):
                if connection is not None:
                    connection.subscriptions.want(lane.names.keys())
                    connection.look()
        self._stalls.look(tuple(self._lanes), self._sink.last_event_seconds())
        self._cover()

    async def _open(self, lane: Lane) -> None:
        try:
            connection = await self._dialer.open(lane.names, self)
        except ExchangeUnavailable as error:
            lane.attempts += 1
            now, pause_seconds = self._now(), self._dialer.retry_seconds(lane.attempts, error.status)
            lane.retry_seconds, lane.reason = now + pause_seconds, printable(str(error))
            text = "%s; reconnecting in %.1f s"
            self._log.write(logging.WARNING, "unopened", now, text, lane.reason, pause_seconds)
        else:
            self._counters.opened += 1
            self._connected.add(connection)
            lane.opened(connection, self._dialer.life_seconds())
            if not connection.is_open:
                self.ended(connection)  # It was lost in between.
        finally:
            lane.opening = None
            self._thread.rouse()

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Merge a batch of frames, and act on what the core found in it; for connections."""
        pushed = self._sink.frames(frames)
        if pushed is None:
            return
        connection.events += pushed.events
        self._counters.add(pushed)
        for place in pushed.acknowledgements:
            wrong = connection.subscriptions.acknowledged(frames[place], self._now())
            if wrong is not None:
                text = "the server refused a stream message: %s"
                self._log.write(logging.WARNING, "refused", self._now(), text, wrong)
        if pushed.shuts_down:
            connection.rotation = connection.rotation or "the server is shutting down"
            self._thread.rouse()
        if pushed.faults:
            text = "a stream frame was skipped: %s"
            self._log.write(logging.WARNING, "faults", self._now(), text, pushed.faults[0][1])
        self._repair_requests.extend(pushed.repair_requests)
        if pushed.repair_requests or pushed.refused:
            self._changed()

    def ended(self, connection: Connection) -> None:
        """Have a lost connection reconnected; for connections."""
        self._connected.discard(connection)
        now = self._now()
        for lane in self._lanes:
            if connection not in (lane.current, lane.standby):
                continue
            if lane.lost(connection, now):
                self._counters.lost += 1
                if not self._thread.is_stopping and lane.group:
                    text = "a stream connection of %d symbols ended: %s"
                    self._log.write(logging.WARNING, "ended", now, text, len(lane.group), connection.reason)
            lane.retry_seconds = now + self._dialer.retry_seconds(lane.attempts)
        self._cover()
        self._thread.rouse()

    def _cover(self) -> None:
        """Note which symbols are covered, and report a change."""
        covered = self._lanes.covered
        if covered != self._covered:
            self._covered = covered
            self._changed()

    async def _end(self) -> None:
        """Close every connection, and leave no socket behind."""
        self._dialer.close()
        for lane in self._lanes:
            if lane.opening is not None:
                lane.opening.cancel()
                with suppress(asyncio.CancelledError):
                    await lane.opening
        for connection in list(self._connected):
            connection.close()
            connection.abort("the collector stops")
        # Transports close their sockets in the next rounds of the loop.
        for _ in range(ROUNDS_MAX):
            await asyncio.sleep(0)
            if not self._connected:
                break
        self._uncover()

    def _failed(self, log: BlockLog) -> None:
        log.exception("streams stopped because of an internal error; the collector continues by REST")
        self._uncover()

    def _uncover(self) -> None:
        self._covered = frozenset()
        self._changed()
