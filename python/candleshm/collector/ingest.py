"""The one way of responses and stream events into a block: in order with a stop, and with a clock that was set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from candleshm._core import NotMerged, StreamThread
from candleshm.exchanges.base import KlineRequest, Response
from candleshm.system.clock import DRIFT, ExchangeTime

if TYPE_CHECKING:
    from candleshm._core import Ingested, Older, Writer

__all__ = ["Ingest"]


class Ingest:
    """Merges responses for the workers, and lets streams merge their events. Safe from any thread.

    Bodies and events are parsed by as many threads as hand them in, and none waits for the others meanwhile. Only the
    merge is done by one thread after the other: the writer's own lock holds the others back, and it also decides what a
    stop or a restarted time ends. No thread ever waits for the GIL while it holds that lock.
    """

    def __init__(self, writer: Writer, *, exchange_time: ExchangeTime, settle_ms: int) -> None:
        """Rows are final `settle_ms` after their end."""
        self._writer = writer
        self._settle_ms = settle_ms
        self.exchange_time = exchange_time

    @property
    def exchange_time(self) -> ExchangeTime:
        """The newest measurement, by which events are judged; the loop assigns it."""
        return self._exchange_time

    @exchange_time.setter
    def exchange_time(self, measured: ExchangeTime) -> None:
        self._exchange_time = measured
        self._writer.set_exchange_clock(measured.measured_seconds, measured.lower_ms, measured.upper_ms, DRIFT)

    def response(
        self,
        symbol: str,
        response: Response,
        request: KlineRequest,
        *,
        sent_ms: int,
        received_ms: int,
        patience_ms: int,
    ) -> Ingested | None:
        """Merge a response about klines and publish what it changes.

        Args:
            symbol: The series that was requested.
            response: Its body, and the local time at which the request left.
            request: What was requested.
            sent_ms: Exchange time that had surely been reached when the request left.
            received_ms: Exchange time that had surely not been passed when the response was there.
            patience_ms: How long after its end the newest row becomes final without a later row as proof.

        Returns:
            What it changed; None once stopped, and for a request that left before the time was restarted.

        Raises:
            BadResponse: The body is malformed; nothing of it is published.
            UnknownSymbol: The block does not carry the symbol.
        """
        try:
            return self._writer.ingest(
                symbol,
                response.body,
                sent_ms=sent_ms,
                received_ms=received_ms,
                settle_ms=self._settle_ms,
                limit=request.limit,
                start_ms=request.start_ms,
                end_ms=request.end_ms,
                from_end=True,
                patience_ms=patience_ms,
                sent_seconds=response.sent_seconds,
            )
        except NotMerged:
            return None

    def older(
        self,
        derived: str,
        symbol: str,
        response: Response,
        request: KlineRequest,
        *,
        sent_ms: int,
        received_ms: int,
        patience_ms: int,
    ) -> tuple[Ingested, Older] | None:
        """As `response`, about older rows of a series of the derived block of that name.

        Returns what it changed, and what is to be requested next.
        """
        try:
            return self._writer.ingest_older(
                derived,
                symbol,
                response.body,
                sent_ms=sent_ms,
                received_ms=received_ms,
                settle_ms=self._settle_ms,
                limit=request.limit,
                start_ms=request.start_ms,
                end_ms=request.end_ms,
                patience_ms=patience_ms,
                sent_seconds=response.sent_seconds,
            )
        except NotMerged:
            return None

    def stream_thread(self, spin_seconds: float) -> StreamThread:
        """Start a thread that merges what stream connections bring, until `stop`. Raises OSError."""
        return StreamThread(self._writer, spin_seconds=spin_seconds)

    def last_event_seconds(self) -> Mapping[str, float]:
        """Return for each symbol when its stream brought the newest event, local seconds; -inf for never."""
        return self._writer.last_event_seconds()

    def restart_time(self, now_seconds: float) -> None:
        """Let everything merged from now on count as newer than what is there: the exchange's clock was set.

        Args:
            now_seconds: Local time at which that was noticed. Responses to requests that left before it are dropped:
                they would count as later, or as earlier, than all that comes.
        """
        self._writer.restart_time(now_seconds)

    def stop(self) -> None:
        """Let nothing be merged any more once this returns."""
        self._writer.stop_merging()
