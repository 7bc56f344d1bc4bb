"""The simulated exchange itself: truth, archive, faults and limits behind one port for HTTP and websockets."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Self

from candleshm.errors import MissingExtra
from candleshm.sim.control import PREFIX, Control
from candleshm.sim.faults import Fault, FaultBook, met_by_request
from candleshm.sim.rest import archive
from candleshm.sim.rest.funding import FUNDING
from candleshm.sim.rest.limits import Verdict, WeightPool
from candleshm.sim.rest.query import Refusal, Request
from candleshm.sim.rest.responses import KLINES, Response, refuse, respond, weigh
from candleshm.sim.rest.spoiled import pad, spoil
from candleshm.sim.server import Delivery, HttpServer, Manner, Upgraded
from candleshm.sim.stats import Pushed, Served, Stats, StreamConnection, summarize
from candleshm.sim.stream.faults import StreamFault
from candleshm.sim.stream.recording import Recording
from candleshm.sim.stream.rules import StreamRules
from candleshm.sim.world.sessions import OffHours
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Market

if TYPE_CHECKING:
    from candleshm.sim.stream.streams import Streams

_SERVED_MAX = 10_000
_MANNERS: Mapping[str, Manner] = {"reset": "reset", "truncate": "cut", "hang": "hang", "trickle": "trickle"}
# fundingRate and fundingInfo of both families count here, beside their weight.
_FUNDING_LIMIT, _FUNDING_WINDOW_MS = 500, 300_000
_FUNDING_LIMITS: Mapping[Market, int] = {"UM": _FUNDING_LIMIT, "CM": _FUNDING_LIMIT}
_TIME_UNIT = re.compile(rb"\r\nx-mbx-time-unit:[ \t]*(\w*)", re.IGNORECASE)
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_POOL_OF: Mapping[Market, str] = {"SPOT": "SPOT", "UM": "FUTURES", "CM": "FUTURES"}


def system_clock_ms() -> int:
    """Return the system's time in epoch ms."""
    return time.time_ns() // 1_000_000


class SimulatedExchange:
    """A Binance-compatible server of REST and kline streams for SPOT, UM and CM on one port, made from ``seed``.

    ``port`` 0 takes a free one. ``symbols`` is the number of trading symbols per market, ``off_hours`` what the klines
    of TradFi contracts are while their market is closed; ``truth`` replaces the default one. ``spot_limit`` and
    ``futures_limit`` are the request weights per minute. The exchange's clock is ``clock_ms()`` plus `skew_ms`, which
    may be set at any time, as may `stream_rules`. Usable as a context manager:

        with SimulatedExchange(seed=1, symbols=5) as exchange:
            requests.get(f"{exchange.base_url}/api/v3/time").json()
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        seed: int = 1,
        symbols: int = 40,
        late_ms: int = 300,
        truth: Truth | None = None,
        spot_limit: int = 6000,
        futures_limit: int = 2400,
        clock_ms: Callable[[], int] = system_clock_ms,
        skew_ms: int = 0,
        off_hours: OffHours = "flat",
        stream_rules: StreamRules | None = None,
    ) -> None:
        self.truth = truth or Truth(seed, symbols=symbols, late_ms=late_ms, as_of_ms=clock_ms(), off_hours=off_hours)
        self.faults: FaultBook[Fault] = FaultBook(seed)
        self.archive = archive.SimulatedArchive(self.truth)
        self.stream_faults: FaultBook[StreamFault] = FaultBook(seed)
        self.stream_rules = stream_rules or StreamRules()
        self.skew_ms = skew_ms
        self._clock_ms = clock_ms
        self._pools = {
            "SPOT": WeightPool(spot_limit),
            "FUTURES": WeightPool(futures_limit),
            "FUNDING": WeightPool(_FUNDING_LIMIT, window_ms=_FUNDING_WINDOW_MS),
        }
        self._limits: dict[Market, int] = {"SPOT": spot_limit, "UM": futures_limit, "CM": futures_limit}
        self._counts: Counter[tuple[str, str | None, int]] = Counter()
        self._served: deque[Served] = deque(maxlen=_SERVED_MAX)
        self._lock = threading.Lock()
        self._control = Control(self)
        self._streams: Streams | None = None
        self._server = HttpServer(host, port, self._handle, self._upgrade)

    def start(self) -> Self:
        """Listen and serve in the background. Raises OSError when the address is in use."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Drop all connections and free the port. Calling it twice is harmless."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Return the URL to put in place of all three hosts: ``{base_url}/api/v3/klines``."""
        return f"http://{self._server.host}:{self._server.port}"

    @property
    def ws_url(self) -> str:
        """Return the URL to put in place of the stream hosts: ``{ws_url}/stream``, UM ``{ws_url}/market/stream``.

        Raises MissingExtra without websockets.
        """
        self._stream_side()
        return f"ws://{self._server.host}:{self._server.port}"

    def ws_url_of(self, market: Market) -> str:
        """Return the URL of one market's stream host, where UM's old path is, and symbols of SPOT and CM are apart.

        Raises MissingExtra without websockets.
        """
        return f"{self.ws_url}/{market.lower()}"

    def now_ms(self) -> int:
        """Return the exchange's time, epoch ms."""
        return self._clock_ms() + self.skew_ms

    def stats(self) -> Stats:
        """Return counts of requests and responses since the start."""
        with self._lock:
            return summarize(self._counts, self._pools)

    def served(self) -> list[Served]:
        """Return the newest 10 000 requests, oldest first."""
        with self._lock:
            return list(self._served)

    def connections(self) -> list[StreamConnection]:
        """Return the newest 10 000 connections to the stream side, oldest first, as they are now."""
        return self._stream_side().connections()

    def pushed(self) -> list[Pushed]:
        """Return the newest 50 000 events, one for every connection that each was meant for, oldest first."""
        return self._stream_side().pushed()

    def play(self, recording: Recording, *, speed: float = 1.0) -> None:
        """Send recorded frames to the connections that have subscribed to their streams, in the background.

        ``speed`` is the multiple of the recorded speed, ``math.inf`` sends all at once. Frames nobody has subscribed
        to are lost. A symbol that the exchange lists itself is pushed besides: ``Truth(instruments=[])`` lists none.
        Raises MissingExtra without websockets, RuntimeError when the exchange does not run.
        """
        if not speed > 0:
            raise ValueError(f"speed is not above 0: `{speed}`")
        self._server.call(self._stream_side().play, recording, speed)

    def _stream_side(self) -> Streams:
        """Return the stream side, which is created when it is first needed. Raises MissingExtra without websockets."""
        with self._lock:
            if self._streams is None:
                try:
                    from candleshm.sim.stream.streams import Streams
                except ImportError as error:
                    raise MissingExtra("websockets", "ws") from error
                self._streams = Streams(self.truth, self.stream_faults, self.now_ms, lambda: self.stream_rules)
            return self._streams

    def _upgrade(self, target: str, head: bytes, transport: asyncio.Transport) -> Upgraded | Delivery:
        try:
            accepted = self._stream_side().accept(target, head, transport)
        except MissingExtra as error:
            accepted = 501, str(error)
        if isinstance(accepted, tuple):
            status, text = accepted
            return _delivery(Response(status, text.encode(), "text/plain"), {})
        return accepted

    def _handle(self, method: str, target: str, head: bytes, body: bytes) -> Delivery:
        unit = _TIME_UNIT.search(head)
        request = Request.parse(method, target, unit[1].decode("latin-1") if unit else None)
        if request.path.startswith(PREFIX):
            return _delivery(self._control.respond(method, request.path, body), {})
        now_ms = self.now_ms()
        weight = weigh(request)
        verdict = Verdict(200, 0, 0)
        used = 0
        limits: Mapping[Market, int] = self._limits
        if request.market is not None:
            with self._lock:
                verdict = self._pools[_POOL_OF[request.market]].admit(weight, now_ms)
                used = verdict.used
                if verdict.status == 200 and request.market != "SPOT" and request.name in FUNDING:
                    verdict = self._pools["FUNDING"].admit(1, now_ms)
                    limits = _FUNDING_LIMITS
        headers = _headers(request.market, used, now_ms)
        file = archive.ArchiveName.parse(request.path)
        market, symbol = (request.market, request.symbol) if file is None else (file.market, file.symbol)
        interval = dict(request.pairs).get("interval")
        delay_ms, fault = met_by_request(self.faults, market, request.path, symbol, now_ms, interval)
        if verdict.status != 200:
            response, headers = _refused_by_limit(request.market, verdict, now_ms, limits, headers)
        elif fault is not None and fault.kind == "status":
            response = Response(fault.status, fault.body.encode(), fault.content_type)
            headers = _replaced(headers, fault.headers)
        elif fault is not None and fault.kind in {"reset", "hang"}:
            response = Response(0, b"")
        else:
            if request.path.startswith(archive.PREFIX):
                response = self.archive.respond(request.path, now_ms)
            else:
                response = respond(self.truth, request, now_ms, self._limits)
            if fault is not None:
                response, headers = _spoiled(response, headers, fault, request)
        broken = verdict.status == 200 and fault is not None and fault.kind in {"reset", "hang", "truncate"}
        status = 0 if broken else response.status
        with self._lock:
            self._counts[request.path, symbol, status] += 1
            self._served.append(Served(now_ms, method, target, status, weight))
        return _delivery(response, {**response.headers, **headers}, delay_ms, fault if verdict.status == 200 else None)


def _headers(market: Market | None, used: int, now_ms: int) -> dict[str, str]:
    if market is None:
        return {}
    date = {"Date": formatdate(now_ms // 1000, usegmt=True)}
    if market == "SPOT":
        return {"Server": "nginx", **date, "x-mbx-used-weight": str(used), "x-mbx-used-weight-1m": str(used)}
    return {"Server": "Bengine", **date, "X-MBX-USED-WEIGHT-1M": str(used)}


def _replaced(headers: Mapping[str, str], newer: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with some of them replaced, whatever the case of their names."""
    names = {name.lower() for name in newer}
    return {name: value for name, value in headers.items() if name.lower() not in names} | dict(newer)


def _spoiled(
    response: Response, headers: dict[str, str], fault: Fault, request: Request
) -> tuple[Response, dict[str, str]]:
    """Return what is left of a right response."""
    if fault.kind == "oversize":
        return replace(response, body=pad(response.body, fault.size_bytes)), headers
    if fault.kind == "headers":
        return replace(response, content_type=fault.content_type), _replaced(headers, fault.headers)
    if fault.kind == "rows" and request.name in KLINES[request.market or "SPOT"] and response.status == 200:
        return replace(response, body=spoil(response.body, fault.rows, dict(request.pairs))), headers
    return response, headers


def _refused_by_limit(
    market: Market | None, verdict: Verdict, now_ms: int, limits: Mapping[Market, int], headers: dict[str, str]
) -> tuple[Response, dict[str, str]]:
    """Return the 429 or 418. Only SPOT promises Retry-After, so UM and CM go without."""
    assert market is not None
    if market == "SPOT":
        headers = {**headers, "Retry-After": str(-(-(verdict.until_ms - now_ms) // 1000))}
        excess, current = "too much request weight used", f"{limits[market]} request weight per 1 MINUTE"
    else:
        window = "5 minutes" if limits is _FUNDING_LIMITS else "minute"
        excess, current = "too many requests", f"{limits[market]} requests per {window}"
    if verdict.status == 418:
        text = f"Way {excess}; IP banned until {verdict.until_ms}. Please use the websocket to avoid bans."
    else:
        text = f"T{excess[1:]}; current limit is {current}. Please use the websocket to avoid polling the API."
    return refuse(Refusal(-1003, text, verdict.status)), headers


def _delivery(
    response: Response, headers: Mapping[str, str], delay_ms: int = 0, fault: Fault | None = None
) -> Delivery:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nConnection: keep-alive\r\n{lines}\r\n"
    )
    manner = "whole" if fault is None else _MANNERS.get(fault.kind, "whole")
    return Delivery(head.encode("latin-1"), response.body, delay_ms, manner, fault.bytes_per_second if fault else 0)


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    seed: int = 1,
    symbols: int = 40,
    on_ready: Callable[[SimulatedExchange], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until ``stop`` is set or the process is interrupted; ``on_ready`` is called once it listens.

    Raises OSError when the address is in use.
    """
    stop = stop or threading.Event()
    with SimulatedExchange(host, port, seed=seed, symbols=symbols) as exchange:
        if on_ready is not None:
            on_ready(exchange)
        stop.wait()
