"""One connection of the client of NATS: made to one server, ended for good. Belongs to the event loop."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE

from candleshm._core import Outlet
from candleshm.cluster.failure_text import is_refusal, reason_of
from candleshm.cluster.message import Message, Receive
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.shared_socket import SharedSocket
from candleshm.errors import ClusterRefused, ClusterUnavailable

__all__ = ["CLIENT_ERRORS", "ServerSession", "SessionClient", "published"]

logger = logging.getLogger(__name__)

CLIENT_ERRORS = (OSError, nats.errors.Error)
"""What the client raises, JetStream's errors and timeouts included."""
CONNECT_SECONDS = 3.0
# A server that is silent for so long is taken for lost; it is asked that often.
PING_SECONDS, PINGS_MAX = 1, 2
FLUSH_SECONDS = 1
FAULTS_MAX = 100
# Who sends waits while so many bytes are on their way to the system; so many are read in one go.
SENDING_BYTES_MAX = READ_BYTES = 1 << 20
UNHEARD = b"NATS/1.0 503"
# A message without headers, of which no answer is expected: its subject, the number of the subscription, its length.
PLAIN = re.compile(rb"MSG (\S+) (\d{1,9}) (\d{1,9})\r\n")


class SessionClient(Client):
    """The client, which says at once that it is lost, and sends nothing secret to a server without TLS."""

    def __init__(self, *, needs_tls: bool) -> None:
        super().__init__()
        self.lost = asyncio.Event()
        self._needs_tls = needs_tls
        self._shared: SharedSocket | None = None
        self.receivers: dict[int, Receive] = {}
        """Who is called for each message of a subscription, by its number, without a task between."""

    def send_past_loop(self, commands: bytes) -> bool:
        """Send whole commands from any thread; return False where the loop has to, and nothing was sent."""
        return self._shared is not None and self.is_connected and self._shared.send(commands)

    @property
    def outlet(self) -> Outlet | None:
        """Where whole commands are sent past the loop; None where the loop has to."""
        return self._shared.outlet if self._shared is not None and self.is_connected else None

    def settle(self) -> None:
        """Have the loop send what the system did not take of what went past it. May be called from any thread."""
        if self._shared is not None:
            self._shared.settle()

    def send(self, commands: bytes) -> None:
        """Send whole commands in the loop's thread, while there is a connection."""
        if self._transport is not None:
            self._transport.write(commands)

    @property
    def is_behind(self) -> bool:
        """Whether the system has yet to take more than is good."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.transport.get_write_buffer_size() > SENDING_BYTES_MAX

    async def drain_sent(self) -> None:
        """Wait until the system has taken most of what was sent. Raises OSError when the connection is lost."""
        transport: Any = self._transport
        if transport is not None:
            await transport.drain()

    def widen(self) -> None:
        """Let whole chunks of rows pass at once, and messages past the loop, once there is a connection."""
        transport: Any = self._transport
        reader, writer = transport._io_reader, transport._io_writer
        reader._limit = READ_BYTES
        transport.read = lambda _size: reader.read(READ_BYTES)
        writer.transport.set_write_buffer_limits(high=SENDING_BYTES_MAX)
        shared = self._shared = SharedSocket(writer)
        transport.write, transport.writelines = shared.write, shared.writelines
        protocol = writer.transport.get_protocol()
        pass_on = protocol.data_received

        def data_received(data: bytes) -> None:
            # Unless the client has begun with a command that is not whole yet.
            is_between = not reader._buffer and not self._ps.buf and self._ps.state == AWAITING_CONTROL_LINE
            if rest := self._without_plain(data) if is_between else data:
                pass_on(rest)

        protocol.data_received = data_received

    def _without_plain(self, data: bytes) -> bytes:
        """Hand over whole messages that `data` begins with, and return the rest, which is for the client.

        The client would wake up a task for them, and copy them several times.
        """
        at = 0
        while found := PLAIN.match(data, at):
            receive = self.receivers.get(int(found[2]))
            begin, end = found.end(), found.end() + int(found[3])
            if receive is None or len(data) < end + 2:
                break
            _hand_over(receive, Message(found[1].decode(), data[begin:end]))
            at = end + 2
        return data[at:]

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self.receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        is_unheard = not data and bool(headers) and bytes(headers).startswith(UNHEARD)
        _hand_over(receive, Message(subject.decode(), bytes(data), reply.decode(), is_unheard))

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001
        # The client would first wait until the rest is sent, to a server that may be stopped.
        self.lost.set()
        if self._shared is not None:
            self._shared.close()
        self._pending.clear()
        self._pending_data_size = 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        # It would also wait for the end of a transport whose TLS failed, and that one never says so.
        self._transport = None
        await super()._close(status, do_cbs)

    def _connect_command(self) -> bytes:
        # The client would go on in plain text, and this command has the password.
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


class ServerSession:
    """A connection to one server. `connect`, then subscriptions, then `end`.

    Raises ClusterRefused when the files of the settings cannot be used.
    """

    def __init__(self, settings: ClusterSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._tls = _tls_of(settings)
        self._client: SessionClient | None = None
        self.faults: list[str] = []
        """What the server complained about since it was looked at last, such as rights that are missing."""

    async def connect(self, url: str) -> SessionClient:
        """Connect to the server at `url`. Raises ClusterRefused, ClusterUnavailable; then `end` is due all the same."""
        settings = self._settings
        client = self._client = SessionClient(needs_tls=settings.has_tls)
        newest: list[Exception] = []

        async def note(error: Exception) -> None:
            newest.append(error)
            is_loss = isinstance(error, OSError | nats.errors.StaleConnectionError)
            if client.is_connected and not is_loss and len(self.faults) < FAULTS_MAX:
                self.faults.append(reason_of(error, settings))

        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.connect(
                    [url],
                    name=self._name,
                    error_cb=note,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=PINGS_MAX,
                    tls=self._tls,
                    user=settings.user,
                    password=settings.password,
                    token=settings.token,
                    user_credentials=None if settings.credentials is None else str(settings.credentials),
                )
        except (ValueError, *CLIENT_ERRORS) as error:
            cause = newest[-1] if isinstance(error, nats.errors.NoServersError) and newest else error
            where = url.partition("://")[2]
            if isinstance(cause, nats.errors.SecureConnWantedError):
                raise ClusterRefused(where, "it has no TLS, and nothing was sent; give its URL as nats://") from None
            reason = reason_of(cause, settings)
            kind = ClusterRefused if is_refusal(cause) else ClusterUnavailable
            raise kind(where, reason) from None
        client.widen()
        return client

    async def subscribe(self, subject: str, queue: str, receive: Receive) -> Subscription | None:
        """Subscribe; None where the connection is lost already."""
        client = self._client
        if client is None:
            return None

        async def take(msg: Msg) -> None:
            _hand_over(receive, _message_of(msg))

        with suppress(*CLIENT_ERRORS):
            # What waits here is bounded by who receives.
            found = await client.subscribe(subject, queue, cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
            client.receivers[found._id] = receive
            return found
        return None

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, also one of a connection that is lost."""
        # Each connection numbers its own.
        if self._client is not None and subscription._conn is self._client:
            self._client.receivers.pop(subscription._id, None)
        with suppress(*CLIENT_ERRORS):
            await subscription.unsubscribe()

    async def end(self) -> None:
        """End the connection; what was sent goes out before, if the server takes it at once."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected:
            with suppress(*CLIENT_ERRORS):
                await client.flush(FLUSH_SECONDS)
        with suppress(*CLIENT_ERRORS):
            await client.close()


def published(messages: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the commands that publish messages, given as subject and bytes."""
    parts = ((f"PUB {subject} {len(data)}\r\n".encode(), data, b"\r\n") for subject, data in messages)
    return b"".join(chain.from_iterable(parts))


def _hand_over(receive: Receive, message: Message) -> None:
    """Call who receives a message; what goes wrong there does not end the client, which would read no more."""
    try:
        receive(message)
    except Exception:
        logger.exception("%s: a message was not taken because of an internal error", message.subject)


def _message_of(msg: Msg) -> Message:
    is_unheard = not msg.data and bool(msg.headers) and (msg.headers or {}).get("Status") == "503"
    return Message(msg.subject, msg.data, msg.reply, is_unheard)


def _tls_of(settings: ClusterSettings) -> ssl.SSLContext | None:
    """Return whom to trust; None where the client's own way will do, with the authorities of this machine."""
    if settings.authority is None:
        return None
    try:
        return ssl.create_default_context(cafile=settings.authority)
    except ssl.SSLError:
        raise ClusterRefused(
            ",".join(settings.urls), f"cluster_ca cannot be `{settings.authority}`: it has no certificate in PEM"
        ) from None
