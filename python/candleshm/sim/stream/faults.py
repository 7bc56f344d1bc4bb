"""What goes wrong on purpose on the stream side: declarative faults, met by handshakes and by events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from candleshm.sim.faults import FaultBook
from candleshm.sim.world.universe import Instrument, Market, Price

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
    marked by ``"st"`` alone), ``mute`` (this stream of this connection sends nothing from here on), ``fragment`` (in
    three frames), ``garbage`` (before it a text that is no JSON), ``oversize`` (before it a text of ``size_bytes``),
    ``misnamed`` (before it the same candle, falsified, under the name of another stream of the connection), ``flood``
    (before it ``frames`` frames ``of`` a kind: pings, pongs, refusals, or parts of a text that never ends).

    Met by an event, and the end of its connection: ``stall`` (open, and nothing moves any more), ``reset`` (half of
    the frame, then TCP RST), ``close`` (a close frame with ``code``), ``shutdown`` (``serverShutdown``, and the end
    ``delay_ms`` later).

    ``market``, ``symbol``, ``price``, ``interval`` and ``path`` (the beginning of the connection's) limit what it
    meets; None means all. ``closed`` limits it to events with or without ``x:true``. ``count`` is how many it meets
    before it is used up, ``rate`` the share it meets, drawn from a fixed sequence; ``until_ms`` ends it by the
    exchange's clock.
    """

    kind: HandshakeFaultKind | EventFaultKind
    market: Market | None = None
    symbol: str | None = None
    price: Price | None = None
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
        if self.kind in _HANDSHAKE_KINDS and (self.symbol or self.price or self.interval or self.closed is not None):
            raise ValueError(f"a handshake has no symbol, price, interval or x, so they cannot limit: `{self.kind}`")

    @property
    def of_handshake(self) -> bool:
        """Return whether handshakes meet it, not events."""
        return self.kind in _HANDSHAKE_KINDS


@dataclass
class LastingFaults:
    """What faults have left in one connection, and what it therefore does differently from now on."""

    gets_no_events: bool = False
    muted: set[str] = field(default_factory=set)
    """Names of streams that send nothing any more."""
    held: dict[str, str] = field(default_factory=dict)
    """For each name the event that is sent after the next one."""
    closes_soon: bool = False
    """A close is on its way; until then the connection meets no further fault."""


def met_by_handshake(book: FaultBook[StreamFault], market: Market, path: str, now_ms: int) -> list[StreamFault]:
    """Return every fault that a handshake meets."""
    return book.meet(
        lambda fault: (
            fault.of_handshake
            and fault.market in {None, market}
            and (fault.path is None or path.startswith(fault.path))
        ),
        now_ms,
        passes=lambda _: True,
    )


def met_by_event(
    book: FaultBook[StreamFault], instrument: Instrument, interval: str, path: str, now_ms: int, *, closed: bool
) -> StreamFault | None:
    """Return the first fault that an event meets on a connection to ``path``."""
    met = book.meet(
        lambda fault: (
            not fault.of_handshake
            and fault.market in {None, instrument.market}
            and fault.symbol in {None, instrument.symbol}
            and fault.price in {None, instrument.kind}
            and fault.interval in {None, interval}
            and (fault.path is None or path.startswith(fault.path))
            and fault.closed in {None, closed}
            and (fault.kind != "unclosed" or closed)
        ),
        now_ms,
        passes=lambda _: False,
    )
    return met[0] if met else None
