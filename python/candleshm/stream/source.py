"""What the collector needs of streams, and streams of the collector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from candleshm.exchanges.base import StreamRules
from candleshm.stream.status import StreamStatus

if TYPE_CHECKING:
    from candleshm._core import StreamThread

__all__ = ["EventSink", "MakeStreams", "StreamSource"]


class EventSink(Protocol):
    """Where events go. Methods may be called from any thread."""

    def stream_thread(self, spin_seconds: float) -> StreamThread:
        """Start a thread that merges what stream connections bring. Raises OSError."""

    def last_event_seconds(self) -> Mapping[str, float]:
        """Return for each symbol when its stream sent the newest event, local seconds; -inf for never."""


class StreamSource(Protocol):
    """Where events come from. Methods may be called from any thread."""

    rules: StreamRules

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on a connection that is open."""

    @property
    def status(self) -> StreamStatus:
        """What the streams do now, and did so far."""

    def start(self) -> None:
        """Begin."""

    def follow(self, symbols: Iterable[str]) -> None:
        """Stream exactly these symbols."""

    def rest(self, symbols: frozenset[str]) -> None:
        """Note that the streams of these symbols may send nothing: their market does not trade."""

    def suspect(self, symbol: str) -> None:
        """Note that REST had a newer row which the stream of `symbol` should have sent."""

    def repair_requests(self) -> list[tuple[str, str, int]]:
        """Return the repair requests since the last call: (symbol, reason, open time)."""

    def stop(self) -> None:
        """End within moments."""


# (where events go; called when something changed) -> the source, not yet started.
MakeStreams: TypeAlias = Callable[[EventSink, Callable[[], None]], StreamSource]
