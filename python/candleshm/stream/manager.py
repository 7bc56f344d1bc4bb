"""The connections of one feed: which symbols on which, opened, watched, rotated, reconnected.

It decides which connections there are. The stream thread serves them, what their events mean is the core's business,
and what to request by REST while streams are stalled is the collector's (failover).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from candleshm.exchanges.base import Exchange
from candleshm.network.egress import Egress
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.connection import Connection
from candleshm.stream.counters import StreamCounters
from candleshm.stream.dialer import Dialer, Dialing
from candleshm.stream.lane import Lane
from candleshm.stream.lanes import Lanes
from candleshm.stream.paths import Paths
from candleshm.stream.repeated_log import RepeatedLog
from candleshm.stream.source import EventSink
from candleshm.stream.stalls import Stalls
from candleshm.stream.status import StreamStatus
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock
from candleshm.system.log_text import printable

if TYPE_CHECKING:
    from candleshm._core import StreamNews

__all__ = ["StreamManager"]

logger = logging.getLogger(__name__)

# How often connections are looked at while nothing happens.
LOOK_SECONDS = 0.5
STOP_SECONDS = 0.5
LIMITED = "the limit of new stream connections, which all feeds of this user share, allows none at the moment"


def _ignore() -> None:
    """Do nothing."""


class StreamManager:
    """Keeps every wanted stream flowing, from `start` until `stop`. Methods may be called from any thread."""

    def __init__(
        self,
        exchange: Exchange,
        interval: str,
        *,
        block_name: str,
        sink: EventSink,
        changed: Callable[[], None],
        clock: Clock,
        egress: Egress,
        spin_seconds: float = 0.0,
        random: Random | None = None,
        connects: WeightBudget | None = None,
    ) -> None:
        """`changed` is called when there are repair requests, or a connection was opened or lost."""
        self.rules = exchange.stream_rules(interval)
        self._sink = sink
        self._stream_thread = sink.stream_thread(spin_seconds)
        self._changed = changed
        self._now = clock.monotonic_seconds
        block_log = BlockLog(logger, block_name)
        self._log = RepeatedLog(block_log)
        self._paths = Paths(exchange.market, self.rules.urls)
        self._dialer = Dialer(self.rules, self._now, egress=egress, paths=self._paths, random=random, connects=connects)
        self._stalls = Stalls(self.rules, block_log, self._now)
        self._lanes = Lanes(exchange, interval, self.rules.streams_max)
        self._wanted: tuple[str, ...] = ()
        self._covered: frozenset[str] = frozenset()
        self._repair_requests: deque[tuple[str, str, int]] = deque()
        self._counters = StreamCounters()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, args=(block_log,), name="candleshm-streams", daemon=True)

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on a connection that is open."""
        return self._covered

    @property
    def status(self) -> StreamStatus:
        """What the streams do now, and did so far."""
        return self._counters.status(
            self._stream_thread.counts,
            self._paths,
            connections=self._lanes.connections,
            streams=len(self._covered),
            stalled=self._stalls.down,
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def follow(self, symbols: Iterable[str]) -> None:
        """Stream exactly these symbols."""
        self._wanted = tuple(symbols)
        self._stream_thread.rouse()

    def rest(self, symbols: frozenset[str]) -> None:
        """Note that the streams of these symbols may send nothing: their market does not trade."""
        self._lanes.resting = symbols

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
        self._is_stopping = True
        self._stream_thread.stop(STOP_SECONDS)
        self._stream_thread.rouse()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    # In the thread.

    def _run(self, log: BlockLog) -> None:
        try:
            while not self._is_stopping:
                self._look()
                self._take(self._stream_thread.wait(LOOK_SECONDS))
        except Exception:
            log.exception("streams stopped because of an internal error; the collector continues by REST")
        finally:
            self._dialer.close()
            self._stream_thread.stop(STOP_SECONDS)
            self._covered = frozenset()
            self._changed()
            # Who made this is no longer referred to: both end with their last user, and their descriptors too.
            self._changed = _ignore

    def _look(self) -> None:
        """Open, rotate, subscribe and resubscribe what is due."""
        now = self._now()
        if self._lanes.align(self._wanted):
            self._stalls.want(self._wanted)
        for lane in self._lanes:
            opening = lane.opening
            if opening is not None and opening.failure is not None:
                self._unopened(lane, opening, opening.fault, getattr(opening.failure, "status", None))
            if lane.rotate(self.rules, now):
                if self._dialer.may_open(now):
                    self._open(lane, now)
                else:
                    lane.reason = LIMITED
            for connection in (lane.current, lane.standby):
                if connection is not None:
                    connection.subscriptions.want(lane.names.keys())
                    line = connection.look(self._paths, may_be_silent=self._lanes.resting.issuperset(lane.group))
                    if line is not None:
                        self._log.write(logging.INFO, "path", now, "%s", line)
        lanes = tuple(self._lanes)
        if self._stalls.needs_look(lanes):
            self._stalls.look(lanes, self._sink.last_event_seconds())
        self._cover()

    def _open(self, lane: Lane, now: float) -> None:
        """Begin to open a connection for a lane, beside the one that it has."""
        if lane.current is not None:
            text = "opening a standby for a stream connection of %d symbols, because %s"
            self._log.write(logging.INFO, "rotated", now, text, len(lane.group), lane.current.rotation)
        lane.opening = self._dialer.dial(lane.names, self._stream_thread)

    def _take(self, news: StreamNews) -> None:
        """Act on what happened in the stream thread."""
        if news.failure is not None:
            raise RuntimeError(news.failure)
        now = self._now()
        for number in news.opened:
            self._opened(number)
        for number, text in news.replies:
            connection = self._lanes.connection(number)
            wrong = None if connection is None else connection.subscriptions.acknowledged(text, now)
            if wrong is not None:
                self._log.write(logging.WARNING, "refused", now, "the server refused a stream message: %s", wrong)
        for number in news.shutting_down:
            connection = self._lanes.connection(number)
            if connection is not None:
                connection.rotation = connection.rotation or "the server is shutting down"
        if news.fault is not None:
            self._log.write(logging.WARNING, "faults", now, "a stream frame was skipped: %s", news.fault)
        for number, reason, status, misbehaved in news.ended:
            self._ended(number, printable(reason), status, misbehaved=misbehaved)
        self._repair_requests.extend(news.repair_requests)
        if news.repair_requests or news.refused:
            self._changed()

    def _opened(self, number: int) -> None:
        for lane in self._lanes:
            opening = lane.opening
            if opening is not None and opening.number == number:
                opening.worked()
                self._counters.opened += 1
                connection = Connection(
                    number, opening.path, opening.names, self.rules, thread=self._stream_thread, now=self._now
                )
                lane.opened(connection, self._dialer.life_seconds())
                return
        # Nobody waits for it any more.
        self._stream_thread.close(number)

    def _unopened(self, lane: Lane, opening: Dialing, reason: str, status: int | None = None) -> None:
        """Note that an attempt failed, and when the next one is due."""
        self._dialer.refused(opening, status)
        lane.opening = None
        lane.attempts += 1
        now, pause_seconds = self._now(), self._dialer.retry_seconds(lane.attempts, status)
        lane.retry_seconds, lane.reason = now + pause_seconds, printable(opening.blamed(reason, status))
        if not self._is_stopping:
            self._log.write(logging.WARNING, "unopened", now, "%s; reconnecting in %.1f s", lane.reason, pause_seconds)

    def _ended(self, number: int, reason: str, status: int | None, *, misbehaved: bool) -> None:
        """Have a connection that is gone reconnected."""
        now = self._now()
        for lane in self._lanes:
            if lane.opening is not None and lane.opening.number == number:
                self._unopened(lane, lane.opening, reason, status)
                return
            connection = lane.connection(number)
            if connection is None:
                continue
            connection.ended(reason, misbehaved=misbehaved)
            if lane.lost(connection, now):
                self._counters.lost += 1
                if not self._is_stopping and lane.group:
                    text = "a stream connection of %d symbols ended: %s"
                    self._log.write(logging.WARNING, "ended", now, text, len(lane.group), connection.reason)
            lane.retry_seconds = now + self._dialer.retry_seconds(lane.attempts)

    def _cover(self) -> None:
        """Note which symbols are covered, and report a change."""
        covered = self._lanes.covered
        if covered != self._covered:
            self._covered = covered
            self._changed()
