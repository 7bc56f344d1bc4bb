"""The stream side as a whole: which connection gets which events, when, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from candleshm.sim.faults import FaultBook
from candleshm.sim.stats import Pushed, StreamConnection
from candleshm.sim.stream.channels import Channel, Push
from candleshm.sim.stream.faults import StreamFault, met_by_event, met_by_handshake
from candleshm.sim.stream.names import Endpoint, Series, find_series
from candleshm.sim.stream.recording import RecordedFrame, Recording
from candleshm.sim.stream.rules import StreamRules
from candleshm.sim.stream.sockets import StreamSocket
from candleshm.sim.world.series import ContinuousSeries
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market, Price

_CONNECTIONS_MAX = 10_000
_PUSHED_MAX = 50_000
# A test's clock may jump: no timer waits longer than this before it reads the clock again.
_LOOK_SECONDS = 0.02
_BACKWARDS_MS = 100
# Many series that begin together are prepared one by one, so that requests and pongs come in between.
_TURN_SECONDS = 0.02
_FAMILY: dict[Market, int] = {"SPOT": 0, "UM": 1, "CM": 2}

_Key = tuple[Market, str, Price, str, int]


class _Line:
    """A channel and its subscribers; several names can mean one series, and one connection can use them all."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.listeners: dict[tuple[StreamSocket, str], None] = {}


class Streams:
    """The stream side. `accept` and everything it leads to runs on the server's thread, the rest on any."""

    def __init__(
        self, truth: Truth, faults: FaultBook[StreamFault], now_ms: Callable[[], int], rules: Callable[[], StreamRules]
    ) -> None:
        self._truth = truth
        self._faults = faults
        self._now_ms = now_ms
        self._rules = rules
        self._lock = threading.Lock()
        self._connections: deque[StreamConnection] = deque(maxlen=_CONNECTIONS_MAX)
        self._pushed: deque[Pushed] = deque(maxlen=_PUSHED_MAX)
        self._numbers = itertools.count(1)
        self._attempts: deque[int] = deque()
        self._sockets: set[StreamSocket] = set()
        self._lines: dict[_Key, _Line] = {}
        self._keys: dict[tuple[StreamSocket, str], _Key] = {}
        self._queue: list[tuple[int, int, _Line]] = []
        self._entries = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._looked_ms = 0

    def connections(self) -> list[StreamConnection]:
        """Return the newest 10 000 connections, oldest first, as they are now."""
        with self._lock:
            return [replace(record) for record in self._connections]

    def pushed(self) -> list[Pushed]:
        """Return the newest 50 000 events, oldest first."""
        with self._lock:
            return list(self._pushed)

    def accept(self, target: str, head: bytes, transport: asyncio.Transport) -> StreamSocket | tuple[int, str]:
        """Take a client in, or return the HTTP status and text that refuse it."""
        endpoint = Endpoint.parse(target)
        if endpoint is None:
            return 404, "no stream endpoint"
        rules, now_ms = self._rules(), self._now_ms()
        record = StreamConnection(next(self._numbers), now_ms, endpoint.market, target)
        with self._lock:
            self._connections.append(record)
        self._attempts.append(now_ms)
        while self._attempts[0] <= now_ms - rules.connects_window_ms:
            self._attempts.popleft()
        faults = met_by_handshake(self._faults, endpoint.market, target, now_ms)
        refusal = next((fault for fault in faults if fault.kind == "refuse"), None)
        status, text = 0, ""
        if len(self._attempts) > rules.connects_max:
            status, text = 429, "too many connections"
        elif len(endpoint.names) > rules.streams_max:
            status, text = 400, "too many streams"
        elif refusal is not None:
            status, text = refusal.status, "refused"
        if status:
            record.status, record.closed_ms = status, now_ms
            return status, text
        socket = StreamSocket(endpoint, rules, record, self, transport)
        is_retired = endpoint.is_old and not rules.old_path
        socket.faults.gets_no_events = is_retired or any(fault.kind == "deaf" for fault in faults)
        self._sockets.add(socket)
        socket.greet(head, sum(fault.delay_ms for fault in faults if fault.kind == "slow"))
        return socket

    def subscribe(self, client: StreamSocket, name: str) -> None:
        """Send the events of a stream from now on; an unknown name gets no events."""
        rules = self._rules()
        series = find_series(self._truth, client.endpoint.families, name, um_prices=rules.um_prices)
        if series is None or client.faults.gets_no_events:
            return
        line = self._lines.get(series.key)
        if line is None:
            line = self._lines[series.key] = _Line(Channel(self._truth, series, rules, self._now_ms()))
            self._enqueue(line)
        line.listeners[client, name] = None
        self._keys[client, name] = series.key
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._push_due)

    def unsubscribe(self, client: StreamSocket, name: str) -> None:
        """Send them no more."""
        key = self._keys.pop((client, name), None)
        if key is not None:
            line = self._lines[key]
            del line.listeners[client, name]
            if not line.listeners:
                del self._lines[key]
            if not self._lines and self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._queue.clear()

    def gone(self, client: StreamSocket) -> None:
        """Forget a client."""
        client.record.closed_ms = self._now_ms()
        self._sockets.discard(client)
        for name in client.names:
            self.unsubscribe(client, name)

    def _enqueue(self, line: _Line) -> None:
        heapq.heappush(self._queue, (line.channel.next_ms, next(self._entries), line))

    def play(self, recording: Recording, speed: float) -> None:
        """Send recorded frames at ``speed`` times their recorded speed to the subscribers of their streams."""
        loop = asyncio.get_running_loop()
        first_seconds = recording.frames[0].received_seconds
        for delay_seconds, frames in itertools.groupby(
            recording.frames, lambda frame: max(0.0, (frame.received_seconds - first_seconds) / speed)
        ):
            loop.call_later(delay_seconds, self._send_recorded, tuple(frames))

    def _send_recorded(self, frames: tuple[RecordedFrame, ...]) -> None:
        for client in list(self._sockets):
            for frame in frames:
                if client.open and frame.stream in client.names:
                    client.send_event(frame.stream, frame.data)
            client.flush()

    def _restart(self, now_ms: int) -> None:
        """Start over after the clock was set back."""
        self._queue.clear()
        for line in self._lines.values():
            line.channel.start(now_ms)
            self._enqueue(line)

    def _push_due(self) -> None:
        """Push what is due and set the timer for what comes next."""
        now_ms = self._now_ms()
        if now_ms < self._looked_ms - _BACKWARDS_MS:
            self._restart(now_ms)
        self._looked_ms = now_ms
        written: set[StreamSocket] = set()
        loop = asyncio.get_running_loop()
        stop_at = loop.time() + _TURN_SECONDS
        while self._queue and self._queue[0][0] <= now_ms and loop.time() < stop_at:
            line = heapq.heappop(self._queue)[2]
            if not line.listeners:
                continue
            for push in line.channel.due(now_ms):
                self._push(line, push, written)
            self._enqueue(line)
        for socket in written:
            socket.flush()
        wait_seconds = (self._queue[0][0] - self._now_ms()) / 1000
        delay_seconds = min(max(wait_seconds, 0.0), _LOOK_SECONDS)
        self._timer = loop.call_later(delay_seconds, self._push_due)

    def _push(self, line: _Line, push: Push, written: set[StreamSocket]) -> None:
        series = line.channel.series
        data = self._data(series, push.at_ms, push.candle)
        for client, name in list(line.listeners):
            if not client.open:
                continue
            fault = None
            if name in client.faults.muted:
                kind: str | None = "mute"
            else:
                instrument = series.instrument
                if not client.faults.closes_soon:
                    fault = met_by_event(
                        self._faults,
                        instrument,
                        series.grid.interval,
                        client.record.target,
                        push.at_ms,
                        closed=push.closed,
                    )
                kind = None if fault is None else fault.kind
                written.add(client)
                if fault is None:
                    client.send_event(name, data)
                else:
                    self._send_faulty(client, name, data, fault, series, push)
                if name in client.faults.held and (fault is None or fault.kind != "reorder"):
                    client.send_event(name, client.faults.held.pop(name))
            with self._lock:
                self._pushed.append(Pushed(push.at_ms, client.record.number, name, push.open_ms, push.closed, kind))

    def _data(self, series: Series, at_ms: int, candle: str, family: int | None = None) -> str:
        rules, instrument = self._rules(), series.instrument
        extra = ""
        if rules.stamp:
            extra = f'"ns":{time.clock_gettime_ns(time.CLOCK_BOOTTIME)},'
        if family is None and rules.family:
            family = _FAMILY[instrument.market]
        if family:
            extra += f'"st":{family},'
        return event(instrument, at_ms, extra, candle)

    def _send_faulty(
        self, client: StreamSocket, name: str, data: str, fault: StreamFault, series: Series, push: Push
    ) -> None:
        match fault.kind:
            case "mute":
                client.faults.muted.add(name)
            case "duplicate":
                client.send_event(name, data)
                client.send_event(name, data)
            case "delay":
                client.later(fault.delay_ms, name, data)
            case "reorder":
                earlier = client.faults.held.get(name)
                client.faults.held[name] = data
                if earlier is not None:
                    client.send_event(name, earlier)
            case "wrong":
                client.send_event(name, self._data(series, push.at_ms, falsified(push.candle)))
            case "foreign":
                family = 1 if series.instrument.market == "CM" else 2
                client.send_event(name, self._data(series, push.at_ms, falsified(push.candle), family))
                client.send_event(name, data)
            case "fragment":
                client.send_fragments(name, data)
            case "garbage":
                client.send_text('{"stream":"' + name)
                client.send_event(name, data)
            case "oversize":
                client.send_text("x" * fault.size_bytes)
                client.send_event(name, data)
            case "misnamed":
                other = next((other for other in client.names if other != name), name)
                client.send_event(other, self._data(series, push.at_ms, falsified(push.candle)))
                client.send_event(name, data)
            case "flood":
                client.send_flood(fault.of, fault.frames)
                client.send_event(name, data)
            case "stall":
                client.freeze()
            case "reset":
                client.break_off(name, data)
            case "close":
                client.close(fault.code, "")
            case "shutdown":
                client.send_shutdown(push.at_ms)
                client.send_event(name, data)
                client.close_later(fault.delay_ms)


def event(instrument: Instrument, at_ms: int, extra: str, candle: str) -> str:
    """Return an event of an instrument's candle; ``extra`` are fields that go first."""
    pair = f'"ps":"{instrument.pair}"'
    if instrument.kind != "trade":
        return f'{{"e":"{instrument.kind}Price_kline","E":{at_ms},{extra}{pair},"k":{candle}}}'
    if isinstance(instrument, ContinuousSeries):
        kind = f'"ct":"{instrument.contract_type}"'
        return f'{{"e":"continuous_kline","E":{at_ms},{extra}{pair},{kind},"k":{candle}}}'
    return f'{{"e":"kline","E":{at_ms},{extra}"s":"{instrument.symbol}","k":{candle}}}'


def falsified(candle: str) -> str:
    """Return a candle whose close and volume are one digit off; its ids and trades stay, so they prove nothing.

    What has no volume, as mark price and index, has none afterwards either.
    """
    values = json.loads(candle)
    for name in ("c",) if values["q"] == "0" else ("c", "v"):
        digits = len(values[name].partition(".")[2])
        values[name] = str(Decimal(values[name]) + Decimal(1).scaleb(-digits))
    values["h"] = max(values["h"], values["c"], key=Decimal)
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)
