"""The connections of one feed: opened, watched, replaced before they end. A thread of its own with one event loop.

It decides which connections there are; what their events mean is the writer's business, and what to ask by REST while
streams are silent is the scheduler's, which sees the same silence.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from candleshm.errors import ExchangeUnavailable
from candleshm.exchanges.base import Exchange
from candleshm.network.addresses import Addresses
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.connection import Connection
from candleshm.stream.connects import Connects
from candleshm.stream.outage import Outage
from candleshm.stream.repeats import Repeats
from candleshm.stream.shards import Shards
from candleshm.stream.status import StreamStatus
from candleshm.stream.watchdog import Watchdog, silence_seconds
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock
from candleshm.system.log_text import printable

if TYPE_CHECKING:
    from candleshm._core import Pushed

__all__ = ["StreamManager"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
STOP_SECONDS = 0.5
ROUNDS_MAX = 100
# A connection is replaced this long before the server would end it, give or take a part, so that not all go at once.
LIFE_PART, LIFE_SPREAD = 0.96, 0.02
# A new connection takes over once it was there for so many periods of its streams, and pushed something.
TAKEOVER_PERIODS = 2
# Refused because of too many attempts: going on would make it worse.
REFUSED_SECONDS = 60.0
REFUSING = (403, 418, 429)
# This part of a connection's streams mute: the connection is what is wrong. One of them mute after it was subscribed
# again: another connection is tried once, and then the stream is left alone, or one halted symbol would cost all the
# others their connection again and again. Each replacement makes the pause before the next one longer, until most of
# the streams for which it was made have been heard.
MUTE_PART = 0.9
SUBSCRIBED_AGAIN = 1
REPLACE_SECONDS, REPLACE_SECONDS_MAX = 15.0, 960.0
# A new connection that brings nothing for so long will not.
BARREN_SECONDS = 10.0
# A subscription that is not acknowledged for so long counts as one that stays silent.
ACKNOWLEDGED_SECONDS = 10.0
# A connection that served for so long, and did nothing wrong, is opened again at once when it ends.
SERVED_SECONDS = 10.0


@dataclass(eq=False, slots=True)
class _Seat:
    """The place of one group of symbols: the connection that carries it, and the one about to take over."""

    group: Mapping[str, None]
    names: dict[str, str] = field(default_factory=dict)
    """The symbols of the group by the names of their streams."""
    current: Connection | None = None
    successor: Connection | None = None
    opening: asyncio.Task[None] | None = None
    attempts: int = 0
    retry_seconds: float = 0.0
    life_seconds: float = 0.0
    replaced_seconds: float = -math.inf
    replacements: int = 0
    causes: frozenset[str] = frozenset()
    """The silent symbols for which the connection was replaced last, until most of them were heard."""
    reason: str = "no connection yet"
    """Why there is no connection, while there is none."""


class StreamManager:
    """Keeps every wanted stream flowing, from `start` until `stop`. Methods may be called from any thread."""

    def __init__(
        self,
        exchange: Exchange,
        interval: str,
        *,
        block_name: str,
        ingest: Callable[[Sequence[bytes]], Pushed | None],
        heard_seconds: Callable[[], Mapping[str, float]],
        changed: Callable[[], None],
        clock: Clock,
        context: ssl.SSLContext | None = None,
        random: Random | None = None,
        connects: WeightBudget | None = None,
    ) -> None:
        """`ingest` merges a batch; `changed` is called when there are notices or a connection came or went."""
        self.rules = exchange.stream_rules(interval)
        self.silence_seconds = silence_seconds(self.rules)
        self._log = BlockLog(logger, block_name)
        self._exchange = exchange
        self._interval = interval
        self._ingest = ingest
        self._heard_seconds = heard_seconds
        self._changed = changed
        self._now = clock.monotonic_seconds
        self._addresses = Addresses()
        self._context = context or ssl.create_default_context()
        self._random = random or Random()
        self._backoff = Backoff(first_seconds=0.1, limit_seconds=30.0)
        self._connects = Connects(self.rules, connects)
        self._shards = Shards(self.rules.streams_max)
        self._watchdog = Watchdog(self.rules)
        self._seats: list[_Seat] = []
        self._wanted: tuple[str, ...] = ()
        self._suspects: dict[str, float] = {}
        self._repair_requests: deque[tuple[str, str, int]] = deque()
        self._covered: frozenset[str] = frozenset()
        self._mute: frozenset[str] = frozenset()
        self._connections = self._lost = self._batches = self._events = self._stale = self._verified = 0
        self._conflicts = self._refused = self._faults = 0
        self._repeats = Repeats()
        self._outage = Outage()
        self._wanted_seconds: dict[str, float] = {}
        self._stopping = False
        self._connected: set[Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on a connection that is open."""
        return self._covered

    @property
    def status(self) -> StreamStatus:
        """What came of it so far."""
        open_now = sum(seat.current is not None and seat.current.is_open for seat in self._seats)
        return StreamStatus(
            connections=open_now,
            streams=len(self._covered),
            mute=tuple(sorted(self._mute)),
            opened=self._connections,
            lost=self._lost,
            batches=self._batches,
            events=self._events,
            stale=self._stale,
            verified=self._verified,
            conflicts=self._conflicts,
            refused=self._refused,
            faults=self._faults,
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="candleshm-stream", daemon=True)
        self._thread.start()

    def follow(self, symbols: Iterable[str]) -> None:
        """Stream exactly these symbols."""
        self._wanted = tuple(symbols)
        self._rouse()

    def suspect(self, symbol: str) -> None:
        """Note that an answer by REST knew something that the stream of `symbol` should have said."""
        self._suspects.setdefault(symbol, self._now())

    def repair_requests(self) -> list[tuple[str, str, int]]:
        """Return what the writer asked for since the last time: (symbol, why, open time)."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._repair_requests.popleft())
        return taken

    def stop(self) -> None:
        """Close the connections and end the thread within moments."""
        self._stopping = True
        self._rouse()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def _rouse(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(wake.set)

    # The thread.

    def _run(self) -> None:
        try:
            # The embedding program may have made other event loops the default ones.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._keep())
        except Exception:
            self._log.exception("streams stopped because of an internal error; the collector continues by REST")
        finally:
            self._covered = frozenset()
            self._changed()

    async def _keep(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not self._stopping:
            self._tick(self._now())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            self._wake.clear()
        await self._end()

    async def _end(self) -> None:
        """Say goodbye on every connection, and leave no socket behind."""
        self._connects.close(self._now())
        for seat in self._seats:
            if seat.opening is not None:
                seat.opening.cancel()
                with suppress(asyncio.CancelledError):
                    await seat.opening
        for connection in list(self._connected):
            connection.close()
            connection.abort("the collector stops")
        # Transports close their sockets in the next rounds of the loop.
        for _ in range(ROUNDS_MAX):
            await asyncio.sleep(0)
            if not self._connected:
                return

    def _tick(self, now: float) -> None:
        if self._shards.align(self._wanted):
            self._wanted_seconds = {symbol: self._wanted_seconds.get(symbol, now) for symbol in self._wanted}
            self._seats += [_Seat(group) for group in self._shards.groups[len(self._seats) :]]
            for seat in self._seats:
                seat.names = {self._exchange.stream_name(symbol, self._interval): symbol for symbol in seat.group}
        heard_seconds = self._heard_seconds()
        # The scheduler may add to them meanwhile.
        for symbol, since in list(self._suspects.items()):
            if heard_seconds.get(symbol, math.inf) > since:
                self._suspects.pop(symbol, None)
        silent = [symbol for seat in self._seats for symbol in self._silent(seat, heard_seconds, now)]
        failed = dict.fromkeys(silent, "subscribed, but no data arrives") | self._unconnected(heard_seconds, now)
        for line in self._outage.look(failed, heard_seconds, self._wanted_seconds, self._honest(), now):
            self._log.log(logging.WARNING if line.is_warning else logging.INFO, "%s", line.text)
        due = self._watchdog.due(silent, now, self._outage.since)
        for seat in self._seats:
            self._replace(seat, now)
            for connection in (seat.current, seat.successor):
                if connection is not None:
                    connection.want(seat.names.keys())
                    connection.look()
            self._heal(seat, [symbol for symbol in silent if symbol in seat.group], due, now)
        self._mute = frozenset(self._outage.since)
        self._judge()

    def _replace(self, seat: _Seat, now: float) -> None:
        """Bring the connection of a seat in line with what it is for."""
        current, successor = seat.current, seat.successor
        if current is not None and not seat.group:
            current.close()
            return
        if current is not None and now - current.opened_seconds > seat.life_seconds:
            current.retires = current.retires or "it has reached its maximum age"
        settled = TAKEOVER_PERIODS * self.rules.push_seconds
        if successor is not None and (
            current is None or (successor.events and now - successor.opened_seconds > settled and self._is_told(seat))
        ):
            seat.current, seat.successor = successor, None
            if current is not None:
                current.close()
            return
        if successor is not None and not successor.events and now - successor.opened_seconds > settled + BARREN_SECONDS:
            if current is not None and seat.causes:
                current.retires = ""  # Another one is no better.
            successor.abort("it delivered no data")
            return
        is_wanted = seat.group and (current is None or current.retires) and now >= seat.retry_seconds
        if is_wanted and successor is None and seat.opening is None and self._connects.take(now):
            if current is not None:
                self._say(logging.INFO, "replaced", "a new stream connection takes over: %s", current.retires)
            seat.opening = asyncio.create_task(self._open(seat))

    def _is_told(self, seat: _Seat) -> bool:
        """Say whether the successor carries every stream of the seat."""
        successor = seat.successor
        return successor is not None and seat.names.keys() <= successor.subscribed_seconds.keys()

    async def _open(self, seat: _Seat) -> None:
        try:
            connection = await Connection.open(
                seat.names,
                self.rules,
                addresses=self._addresses,
                context=self._context,
                now=self._now,
                take=self._take,
                ended=self._ended,
            )
        except ExchangeUnavailable as error:
            seat.attempts += 1
            delay_seconds = self._backoff.delay_seconds(seat.attempts, self._random)
            if error.status in REFUSING:
                delay_seconds = max(delay_seconds, REFUSED_SECONDS)
                self._connects.stop(REFUSED_SECONDS, self._now())
            seat.retry_seconds = self._now() + delay_seconds
            seat.reason = printable(str(error))
            self._say(logging.WARNING, "unopened", "%s; reconnecting in %.1f s", seat.reason, delay_seconds)
        else:
            self._connections += 1
            self._connected.add(connection)
            spread = LIFE_SPREAD * (2 * self._random.random() - 1)
            seat.life_seconds = self.rules.life_seconds * (LIFE_PART + spread)
            if seat.current is None:
                seat.current = connection
            else:
                seat.successor = connection
            if not connection.is_open:
                self._ended(connection)  # It went in between.
        finally:
            seat.opening = None
            self._rouse()

    def _ended(self, connection: Connection) -> None:
        """Let the seat of an ended connection be filled again."""
        self._connected.discard(connection)
        for seat in self._seats:
            if seat.current is connection:
                seat.current = None
                self._lost += 1
                # One that served for a while is opened again at once; one that did not only ever later.
                now = self._now()
                served = now - connection.opened_seconds > SERVED_SECONDS and connection.events > 0
                seat.attempts = 0 if served and not connection.misbehaved else seat.attempts + 1
                delay_seconds = self._backoff.delay_seconds(seat.attempts, self._random) if seat.attempts else 0.0
                seat.retry_seconds = now + delay_seconds
                seat.reason = connection.reason
                if not self._stopping and seat.group:
                    text = "a stream connection of %d symbols ended: %s"
                    self._say(logging.WARNING, "ended", text, len(seat.group), connection.reason)
            elif seat.successor is connection:
                seat.successor = None
                seat.attempts += 1
                seat.retry_seconds = self._now() + self._backoff.delay_seconds(seat.attempts, self._random)
        self._judge()
        if self._wake is not None:
            self._wake.set()

    def _silent(self, seat: _Seat, heard_seconds: Mapping[str, float], now: float) -> list[str]:
        current = seat.current
        if current is None or not current.is_open:
            return []
        names = seat.names
        subscribed = {
            names[name]: current.subscribed_seconds.get(name, seconds + ACKNOWLEDGED_SECONDS)
            for name, seconds in (current.told_seconds | current.subscribed_seconds).items()
            if name in names
        }
        return self._watchdog.silent(subscribed, heard_seconds, self._suspects, now)

    def _unconnected(self, heard_seconds: Mapping[str, float], now: float) -> dict[str, str]:
        """Return the symbols that have been without a connection for longer than a stream may be silent, and why."""
        limit = now - self.silence_seconds
        return {
            symbol: seat.reason
            for seat in self._seats
            if seat.current is None or not seat.current.is_open
            for symbol in seat.group
            if max(heard_seconds.get(symbol, -math.inf), self._wanted_seconds.get(symbol, now)) < limit
        }

    def _honest(self) -> set[str]:
        """Return the symbols whose silence says nothing: only changes are pushed, and others of the connection flow."""
        if not self.rules.on_change:
            return set()
        return {
            seat.names[name]
            for seat in self._seats
            if seat.current is not None and seat.current.is_open and seat.current.events
            for name in seat.current.subscribed_seconds
            if name in seat.names and seat.names[name] not in self._suspects
        }

    def _say(self, level: int, kind: str, text: str, *arguments: object) -> None:
        """Log a line unless its kind was said often already."""
        count = self._repeats.count(kind, self._now())
        if count == 1:
            self._log.log(level, text, *arguments)
        elif count:
            self._log.log(level, text + "; %d times so far", *arguments, count)

    def _heal(self, seat: _Seat, silent: list[str], due: Mapping[str, int], now: float) -> None:
        """Subscribe silent streams again, and replace the connection when that is not what is wrong."""
        current = seat.current
        if current is None or not current.is_open:
            return
        heard = [symbol for symbol in seat.causes if symbol not in self._outage.since]
        if 2 * len(heard) >= len(seat.causes):
            seat.causes, seat.replacements = frozenset(), 0
        attempts = {symbol: due[symbol] for symbol in silent if symbol in due}
        if not attempts:
            return
        is_all = len(silent) >= MUTE_PART * len(current.subscribed_seconds)
        is_last = SUBSCRIBED_AGAIN + 1 in attempts.values()
        if (is_all or is_last) and not current.retires and now >= seat.replaced_seconds:
            current.retires = f"{len(silent)} of {len(current.subscribed_seconds)} streams are silent"
            pause_seconds = min(REPLACE_SECONDS_MAX, REPLACE_SECONDS * 2.0 ** min(seat.replacements, 16))
            seat.replaced_seconds, seat.replacements = now + pause_seconds, seat.replacements + 1
            seat.causes = frozenset(silent)
        elif not is_all:
            current.forget(name for name, symbol in seat.names.items() if symbol in attempts)

    def _judge(self) -> None:
        """Tell the scheduler when what is covered changed."""
        covered = frozenset(
            seat.names[name]
            for seat in self._seats
            if seat.current is not None and seat.current.is_open
            for name in seat.current.subscribed_seconds
            if name in seat.names
        )
        if covered != self._covered:
            self._covered = covered
            self._changed()

    def _take(self, connection: Connection, frames: list[bytes]) -> None:
        """Hand a batch of frames to the writer."""
        pushed = self._ingest(frames)
        if pushed is None:
            return
        connection.events += pushed.events
        self._batches += 1
        self._events += pushed.events
        self._stale += pushed.stale
        self._verified += pushed.verified
        self._conflicts += pushed.conflicts
        self._refused += pushed.refused
        for place in pushed.answers:
            wrong = connection.answered(frames[place])
            if wrong is not None:
                self._say(logging.WARNING, "refused", "a stream message was refused: %s", wrong)
        if pushed.shuts_down:
            connection.retires = connection.retires or "the server shuts down"
            if self._wake is not None:
                self._wake.set()
        if pushed.faults:
            self._faults += len(pushed.faults)
            self._say(logging.WARNING, "faults", "a stream frame cannot be used: %s", pushed.faults[0][1])
        self._repair_requests.extend(pushed.repair_requests)
        if pushed.repair_requests or pushed.refused:
            self._changed()
