"""What goes wrong on purpose: declarative faults, and the book that decides which one a request meets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from candleshm.sim.rest.spoiled import Spoiling
from candleshm.sim.world.tape import hash_key
from candleshm.sim.world.universe import Market

FaultKind = Literal["latency", "status", "reset", "truncate", "hang", "trickle", "rows", "oversize", "headers"]
SIZE_BYTES_MAX = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong for the requests it matches.

    ``kind`` is what the client sees: ``latency`` (the right response ``delay_ms`` late), ``status`` (``status``,
    ``body``, ``content_type`` and ``headers`` instead of the response), ``reset`` (TCP RST), ``truncate`` (the right
    headers, half of the body, end of connection), ``hang`` (accepted, no response), ``trickle`` (the right response
    at ``bytes_per_second``, after right headers), ``rows`` (klines with their rows spoiled in the way of ``rows``),
    ``oversize`` (the right response, blanks added up to ``size_bytes``), ``headers`` (the right body with this
    ``content_type`` and these ``headers``).

    ``market``, ``symbol``, ``interval`` and ``path`` (the end of it, as ``/klines``) limit which requests it meets;
    None means all.
    ``count`` is how many requests it meets before it is used up, ``rate`` the share of matching requests it meets,
    drawn from a fixed sequence; ``until_ms`` ends it by the exchange's clock.
    """

    kind: FaultKind
    market: Market | None = None
    symbol: str | None = None
    interval: str | None = None
    path: str | None = None
    count: int | None = None
    rate: float = 1.0
    until_ms: int | None = None
    delay_ms: int = 0
    status: int = 500
    body: str = '{"code":-1000,"msg":"An unknown error occurred while processing the request."}'
    content_type: str = "application/json;charset=UTF-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    bytes_per_second: int = 100
    rows: Spoiling = "empty"
    size_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate is not between 0 and 1: `{self.rate}`")
        if self.bytes_per_second < 1:
            raise ValueError(f"bytes_per_second is below 1: `{self.bytes_per_second}`")
        if not 0 <= self.size_bytes <= SIZE_BYTES_MAX:
            raise ValueError(f"size_bytes is not between 0 and {SIZE_BYTES_MAX}: `{self.size_bytes}`")

    def concerns(self, market: Market | None, path: str, symbol: str | None, interval: str | None = None) -> bool:
        """Return whether a request is of the kind that this fault meets."""
        return (
            self.market in {None, market}
            and self.symbol in {None, symbol}
            and self.interval in {None, interval}
            and (self.path is None or path.endswith(self.path))
        )


def html(status: int, **limits: object) -> Fault:
    """Return a response of the layer in front of the exchange: an HTML page of any status, 200 included."""
    page = f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>"
    return Fault(kind="status", status=status, body=page, content_type="text/html", **limits)  # type: ignore[arg-type]


def refused(status: int, code: int, message: str, **limits: object) -> Fault:
    """Return a response of the exchange itself: an error code and its text."""
    body = f'{{"code":{code},"msg":"{message}"}}'
    return Fault(kind="status", status=status, body=body, **limits)  # type: ignore[arg-type]


def cutover(*, numbered: bool = False, status: int = 400, **limits: object) -> Fault:
    """Return what UM and CM send while they are moved: code -1109, or ``numbered``, a number as a key and no code."""
    if not numbered:
        return refused(status, -1109, "Invalid account.", **limits)
    body = '{"239999":"System is being upgraded, please try again later."}'
    return Fault(kind="status", status=status, body=body, **limits)  # type: ignore[arg-type]


def rate_limited(retry_after_seconds: int | None = None, **limits: object) -> Fault:
    """Return a 429, with or without a Retry-After header."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return refused(429, -1003, "Too much request weight used.", headers=headers, **limits)


def banned(until_ms: int, **limits: object) -> Fault:
    """Return a 418 that lasts, by the exchange's clock, until the time in its text."""
    return refused(418, -1003, f"Way too many requests; IP banned until {until_ms}.", until_ms=until_ms, **limits)


class Countable(Protocol):
    """What every fault has: how many it meets before it is used up, the share that it meets, and its end."""

    @property
    def count(self) -> int | None: ...
    @property
    def rate(self) -> float: ...
    @property
    def until_ms(self) -> int | None: ...


F = TypeVar("F", bound=Countable)


class FaultBook(Generic[F]):
    """The faults in force, of requests or of streams. Methods may be called from any thread."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._faults: list[F] = []
        self._met: list[int] = []
        self._drawn = 0

    def add(self, *faults: F) -> None:
        """Put faults in force, after those that already are."""
        with self._lock:
            self._faults += faults
            self._met += [0] * len(faults)

    def clear(self) -> None:
        """End all faults. Streams that are stalled stay so."""
        with self._lock:
            self._faults.clear()
            self._met.clear()

    def in_force(self) -> list[tuple[F, int]]:
        """Return every fault with the number of requests, handshakes or events it has met."""
        with self._lock:
            return list(zip(self._faults, self._met, strict=True))

    def meet(self, concerns: Callable[[F], bool], now_ms: int, *, passes: Callable[[F], bool]) -> list[F]:
        """Return the faults that something meets, in order, up to the first one that does not let it pass."""
        met: list[F] = []
        if not self._faults:
            return met
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not (concerns(fault) and self._is_met(index, now_ms)):
                    continue
                met.append(fault)
                if not passes(fault):
                    break
        return met

    def _is_met(self, index: int, now_ms: int) -> bool:
        """Draw from a fixed sequence whether the fault is met this time, and count it."""
        fault = self._faults[index]
        if self._met[index] == fault.count or (fault.until_ms is not None and now_ms >= fault.until_ms):
            return False
        self._drawn += 1
        if fault.rate < 1.0 and hash_key(f"{self._seed}/{self._drawn}") >= fault.rate * 2**64:
            return False
        self._met[index] += 1
        return True


def met_by_request(
    book: FaultBook[Fault],
    market: Market | None,
    path: str,
    symbol: str | None,
    now_ms: int,
    interval: str | None = None,
) -> tuple[int, Fault | None]:
    """Return what a request meets: the sum of latencies in ms, and the first fault of another kind."""
    met = book.meet(
        lambda fault: fault.concerns(market, path, symbol, interval),
        now_ms,
        passes=lambda fault: fault.kind == "latency",
    )
    delay_ms = sum(fault.delay_ms for fault in met if fault.kind == "latency")
    return delay_ms, met[-1] if met and met[-1].kind != "latency" else None
