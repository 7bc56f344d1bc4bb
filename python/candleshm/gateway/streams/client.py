"""One websocket client: what it has subscribed to, what it asks for, and how much it may leave unread."""

from __future__ import annotations

import logging
from typing import Protocol

from candleshm._core import frame_text
from candleshm.errors import CandleShmError
from candleshm.gateway.refusals import Refused
from candleshm.gateway.streams.control import STREAMS_MAX, Command, ControlError
from candleshm.gateway.streams.hub import SERVICE_RESTART, Hub
from candleshm.gateway.streams.names import Endpoint, NotKlines
from candleshm.gateway.streams.source import Stream

__all__ = ["Connection", "StreamClient"]

logger = logging.getLogger(__name__)

POLICY_VIOLATION = 1008
UNSENT_BYTES_MAX = 4 * 1024 * 1024
"""What may wait for one client. The kernel holds some megabytes besides."""
ALL_UNSENT_BYTES_MAX = 512 * 1024 * 1024
"""What may wait for all clients together: the more there are, the less for each."""


class Connection(Protocol):
    """The connection of a client."""

    @property
    def unsent_bytes(self) -> int:
        """What was written and did not leave yet."""

    def write(self, frames: bytes) -> None:
        """Write whole frames at once."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and end it soon."""


class StreamClient:
    """A client from its handshake to its end. Everything runs in the event loop."""

    def __init__(self, connection: Connection, endpoint: Endpoint, hub: Hub, who: str) -> None:
        """`who` names the client in logs."""
        self._connection = connection
        self._endpoint = endpoint
        self._hub = hub
        self._who = who
        self._streams: dict[str, Stream] = {}
        self._is_combined = endpoint.is_combined

    def obey(self, text: str) -> None:
        """Do what a control message asks for, and reply."""
        try:
            command = Command.of(text)
            try:
                reply = command.reply(self._result_of(command))
            except (NotKlines, Refused) as error:
                message = error.message if isinstance(error, Refused) else str(error)
                raise ControlError(2, f"Invalid request: {message}", command.request_id) from None
        except ControlError as error:
            reply = error.reply
        self.write(frame_text(reply, None))

    def subscribe(self, streams: list[Stream]) -> None:
        """Get the events of these streams as well."""
        self._place(self._streams | {stream.name: stream for stream in streams})

    def write(self, frames: bytes) -> None:
        """Send whole frames; a client that does not read what it gets is closed, and the others do not wait for it."""
        unsent_bytes = self._connection.unsent_bytes
        if unsent_bytes > min(UNSENT_BYTES_MAX, ALL_UNSENT_BYTES_MAX // self._hub.counts.clients):
            self.close(POLICY_VIOLATION, f"too slow: {unsent_bytes} bytes were not read")
        else:
            self._connection.write(frames)

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
        logger.info("stream client %s is disconnected: %d, %s", self._who, code, reason)
        self.leave()
        self._connection.close(code, reason)

    def leave(self) -> None:
        """Get no more events."""
        self._streams = {}
        self._hub.leave(self)

    def _result_of(self, command: Command) -> object:
        """Obey, and return what the reply tells. Raises ControlError, NotKlines, Refused."""
        match command.method:
            case "LIST_SUBSCRIPTIONS":
                return list(self._streams)
            case "GET_PROPERTY":
                return self._is_combined
            case "SET_PROPERTY":
                self._is_combined = bool(command.is_combined)
                self._place(self._streams)
            case "SUBSCRIBE":
                if len({*self._streams, *command.names}) > STREAMS_MAX:
                    raise ControlError(2, f"Invalid request: more than {STREAMS_MAX} streams", command.request_id)
                self.subscribe(self._hub.find(self._endpoint.markets, command.names))
            case "UNSUBSCRIBE":
                gone = set(command.names)
                self._place({name: stream for name, stream in self._streams.items() if name not in gone})
        return None

    def _place(self, streams: dict[str, Stream]) -> None:
        self._streams = streams
        try:
            self._hub.place(self, streams.values(), is_combined=self._is_combined)
        except CandleShmError as error:
            # It had its streams a moment ago; its library connects again.
            self.close(SERVICE_RESTART, str(error))
