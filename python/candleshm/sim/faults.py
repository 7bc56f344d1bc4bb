"""What goes wrong on purpose: declarative faults, and the book that decides which one a request meets."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from candleshm.sim.spoiled import Spoiling
from candleshm.sim.tape import hash_key
from candleshm.sim.universe import Market

FaultKind = Literal["latency", "status", "reset", "truncate", "hang", "trickle", "rows", "oversize", "headers"]
SIZE_BYTES_MAX = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong for the requests it matches.

    ``kind`` is what the client sees: ``latency`` (the right answer ``delay_ms`` late), ``status`` (``status``,
    ``body``, ``content_type`` and ``headers`` instead of the answer), ``reset`` (TCP RST), ``truncate`` (the right
    headers, half of the body, end of connection), ``hang`` (accepted, never answered), ``trickle`` (the right answer
    at ``bytes_per_second``, after right headers), ``rows`` (klines with their rows spoiled as ``rows`` says),
    ``oversize`` (the right answer, blanks added up to ``size_bytes``), ``headers`` (the right body with this
    ``content_type`` and these ``headers``).

    ``market``, ``symbol`` and ``path`` (the end of it, as ``/klines``) limit which requests it meets; None means all.
    ``count`` is how many requests it meets before it is used up, ``rate`` the share of matching requests it meets,
    drawn from a fixed sequence; ``until_ms`` ends it by the exchange's clock.
    """

    kind: FaultKind
    market: Market | None = None
    symbol: str | None = None
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

    def concerns(self, market: Market | None, path: str, symbol: str | None, now_ms: int) -> bool:
        """Say whether a request is of the kind that this fault meets."""
        return (
            self.market in {None, market}
            and self.symbol in {None, symbol}
            and (self.path is None or path.endswith(self.path))
            and (self.until_ms is None or now_ms < self.until_ms)
        )


def html(status: int, **limits: object) -> Fault:
    """Return an answer of the layer in front of the exchange: an HTML page of any status, 200 included."""
    page = f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>"
    return Fault(kind="status", status=status, body=page, content_type="text/html", **limits)  # type: ignore[arg-type]


def refused(status: int, code: int, message: str, **limits: object) -> Fault:
    """Return an answer of the exchange itself: an error code and its text."""
    body = f'{{"code":{code},"msg":"{message}"}}'
    return Fault(kind="status", status=status, body=body, **limits)  # type: ignore[arg-type]


def rate_limited(retry_after_seconds: int | None = None, **limits: object) -> Fault:
    """Return a 429, with or without the header that says how long to wait."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return refused(429, -1003, "Too much request weight used.", headers=headers, **limits)


def banned(until_ms: int, **limits: object) -> Fault:
    """Return a 418 that lasts, by the exchange's clock, as long as its text says."""
    return refused(418, -1003, f"Way too many requests; IP banned until {until_ms}.", until_ms=until_ms, **limits)


def drawn(seed: int, number: int, rate: float) -> bool:
    """Return whether the ``number``-th draw of a fixed sequence meets a fault of ``rate``."""
    return rate >= 1.0 or hash_key(f"{seed}/{number}") < rate * 2**64


class FaultBook:
    """The faults in force. Methods may be called from any thread."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._met: list[int] = []
        self._drawn = 0

    def add(self, *faults: Fault) -> None:
        """Put faults in force, behind those that already are."""
        with self._lock:
            self._faults += faults
            self._met += [0] * len(faults)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()
            self._met.clear()

    def in_force(self) -> list[tuple[Fault, int]]:
        """Return every fault with the number of requests it has met."""
        with self._lock:
            return list(zip(self._faults, self._met, strict=True))

    def meet(self, market: Market | None, path: str, symbol: str | None, now_ms: int) -> tuple[int, Fault | None]:
        """Return what a request meets: the sum of latencies in ms, and the first fault of another kind."""
        delay_ms = 0
        if not self._faults:
            return delay_ms, None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not fault.concerns(market, path, symbol, now_ms) or self._met[index] == fault.count:
                    continue
                self._drawn += 1
                if not drawn(self._seed, self._drawn, fault.rate):
                    continue
                self._met[index] += 1
                if fault.kind != "latency":
                    return delay_ms, fault
                delay_ms += fault.delay_ms
        return delay_ms, None
