"""What goes wrong on purpose on the stream side: declarative faults, met by handshakes and by events."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from candleshm.sim.faults import drawn
from candleshm.sim.universe import Market

HandshakeFaultKind = Literal["refuse", "slow", "deaf"]
EventFaultKind = Literal[
    "lose",
    "unclosed",
    "duplicate",
    "delay",
    "reorder",
    "wrong",
    "foreign",
    "mute",
    "fragment",
    "garbage",
    "oversize",
    "misnamed",
    "flood",
    "stall",
    "reset",
    "close",
    "shutdown",
]
_HANDSHAKE_KINDS = {"refuse", "slow", "deaf"}


@dataclass(frozen=True, kw_only=True)
class StreamFault:
    """One thing that goes wrong for the handshakes or the events it meets.

    Met by a handshake: ``refuse`` (an HTTP ``status`` instead of 101), ``slow`` (accepted ``delay_ms`` late), ``deaf``
    (accepted, subscriptions acknowledged, no event ever).

    Met by an event: ``lose`` (not sent), ``unclosed`` (not sent if it has ``x:true``), ``duplicate`` (sent twice),
    ``delay`` (sent ``delay_ms`` late, later ones overtake it), ``reorder`` (sent after the stream's next event),
    ``wrong`` (one more trade and another close than REST has), ``foreign`` (before it an event of the other family,
    told by ``"st"`` alone), ``mute`` (this stream of this connection says nothing from here on), ``fragment`` (in
    three frames), ``garbage`` (before it a text that is no JSON), ``oversize`` (before it a text of ``size_bytes``),
    ``misnamed`` (before it the same candle, falsified, under the name of another stream of the connection), ``flood``
    (before it ``frames`` frames ``of`` a kind: pings, pongs, refusals, or parts of a text that never ends).

    Met by an event, and the end of its connection: ``stall`` (open, and nothing moves any more), ``reset`` (half of
    the frame, then TCP RST), ``close`` (a close frame with ``code``), ``shutdown`` (``serverShutdown``, and the end
    ``delay_ms`` later).

    ``market``, ``symbol``, ``interval`` and, for handshakes, ``path`` (the beginning of it) limit what it meets; None
    means all. ``closed`` limits it to events with or without ``x:true``. ``count`` is how many it meets before it is
    used up, ``rate`` the share it meets, drawn from a fixed sequence; ``until_ms`` ends it by the exchange's clock.
    """

    kind: HandshakeFaultKind | EventFaultKind
    market: Market | None = None
    symbol: str | None = None
    interval: str | None = None
    path: str | None = None
    closed: bool | None = None
    count: int | None = None
    rate: float = 1.0
    until_ms: int | None = None
    delay_ms: int = 0
    status: int = 503
    code: int = 1001
    size_bytes: int = 4 * 1024 * 1024
    frames: int = 5000
    of: Literal["pings", "pongs", "refusals", "parts"] = "pings"

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate is not between 0 and 1: `{self.rate}`")
        if self.kind in _HANDSHAKE_KINDS and (self.symbol or self.interval or self.closed is not None):
            raise ValueError(f"a handshake has no symbol, interval or x, so they cannot limit: `{self.kind}`")

    @property
    def of_handshake(self) -> bool:
        """Say whether handshakes meet it, not events."""
        return self.kind in _HANDSHAKE_KINDS


class StreamFaultBook:
    """The stream faults in force. Methods may be called from any thread."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._faults: list[StreamFault] = []
        self._met: list[int] = []
        self._drawn = 0

    def add(self, *faults: StreamFault) -> None:
        """Put faults in force, behind those that already are."""
        with self._lock:
            self._faults += faults
            self._met += [0] * len(faults)

    def clear(self) -> None:
        """End all faults. What is muted, stalled or deaf stays so."""
        with self._lock:
            self._faults.clear()
            self._met.clear()

    def in_force(self) -> list[tuple[StreamFault, int]]:
        """Return every fault with the number of handshakes or events it has met."""
        with self._lock:
            return list(zip(self._faults, self._met, strict=True))

    def meet_handshake(self, market: Market, path: str, now_ms: int) -> list[StreamFault]:
        """Return every fault that a handshake meets."""
        with self._lock:
            return [
                fault
                for index, fault in enumerate(self._faults)
                if fault.of_handshake
                and fault.market in {None, market}
                and (fault.path is None or path.startswith(fault.path))
                and self._hit(index, now_ms)
            ]

    def meet_event(self, market: Market, symbol: str, interval: str, closed: bool, now_ms: int) -> StreamFault | None:  # noqa: FBT001
        """Return the first fault that an event meets."""
        if not self._faults:
            return None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if (
                    not fault.of_handshake
                    and fault.market in {None, market}
                    and fault.symbol in {None, symbol}
                    and fault.interval in {None, interval}
                    and fault.closed in {None, closed}
                    and (fault.kind != "unclosed" or closed)
                    and self._hit(index, now_ms)
                ):
                    return fault
        return None

    def _hit(self, index: int, now_ms: int) -> bool:
        """Draw whether the fault is met this time, and count it."""
        fault = self._faults[index]
        if self._met[index] == fault.count or (fault.until_ms is not None and now_ms >= fault.until_ms):
            return False
        self._drawn += 1
        if not drawn(self._seed, self._drawn, fault.rate):
            return False
        self._met[index] += 1
        return True
