"""What a connection reads, past the client of NATS where that would only pass it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from candleshm.cluster.message import TakeAhead
from candleshm.cluster.server_frames import Frame, ServerFrames

__all__ = ["ServerProtocol"]


class ServerProtocol(asyncio.BufferedProtocol):
    """Stands before the protocol of the client's streams: hands on messages that are wanted, passes on what else comes.

    Belongs to the loop.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        is_wanted: Callable[[int], bool],
        take_ahead: TakeAhead,
        receive: Callable[[Frame], None],
        first: bytes = b"",
    ) -> None:
        """Take the place of the transport's protocol. `first` was received before, and not taken in by anybody."""
        before = transport.get_protocol()
        assert isinstance(before, asyncio.Protocol)
        self._before = before
        self._frames = ServerFrames(
            is_wanted=is_wanted, take_ahead=take_ahead, receive=receive, rest=before.data_received
        )
        transport.set_protocol(self)
        self._frames.feed(first)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was received."""
        self._frames.take(nbytes)

    def eof_received(self) -> bool | None:
        """Pass on that the server sends nothing more."""
        return self._before.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection is lost."""
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that enough waits to be sent."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that more may be sent."""
        self._before.resume_writing()
