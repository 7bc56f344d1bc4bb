"""What the scheduler needs of streams, without the library they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from candleshm.exchanges.base import StreamRules
from candleshm.stream.status import StreamStatus

if TYPE_CHECKING:
    from candleshm._core import Pushed

__all__ = ["Follow", "StreamSource"]


class StreamSource(Protocol):
    """Where pushed candles come from. Methods may be called from any thread."""

    rules: StreamRules

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on a connection that is open."""

    @property
    def status(self) -> StreamStatus:
        """What came of it so far."""

    def start(self) -> None:
        """Begin."""

    def follow(self, symbols: Iterable[str]) -> None:
        """Stream exactly these symbols."""

    def suspect(self, symbol: str) -> None:
        """Note that an answer by REST knew something that the stream of `symbol` should have said."""

    def repair_requests(self) -> list[tuple[str, str, int]]:
        """Return what the writer asked for since the last time: (symbol, why, open time)."""

    def stop(self) -> None:
        """End within moments."""


# (merges a batch; when each stream was last heard; to be called when something changed) -> the source, not yet started.
Follow: TypeAlias = Callable[
    [Callable[[Sequence[bytes]], "Pushed | None"], Callable[[], Mapping[str, float]], Callable[[], None]], StreamSource
]
