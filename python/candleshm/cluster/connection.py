"""The connection to the servers of a cluster: one thread with an event loop, and a new connection whenever one is lost.

A lost connection is never resumed. Nothing that was to be sent before is sent by the next one: what has to be said of
rows by then, their digests tell.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from candleshm.cluster.failure_text import reason_of
from candleshm.cluster.message import Receive
from candleshm.cluster.settings import ClusterSettings
from candleshm.errors import ClusterError, ClusterRefused, ClusterUnavailable, MissingExtra
from candleshm.network.backoff import Backoff

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription as ClientSubscription

    from candleshm._core import Outlet
    from candleshm.cluster.server_session import SessionClient

__all__ = ["ClusterConnection", "Subscription"]

logger = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
RUN_SECONDS = 3.0
FAULTS_SECONDS = 1.0
LOOK_SECONDS = 0.5
COMPLAINTS_MAX = 100
CLOSED = "the connection is closed"
PAUSES = Backoff(first_seconds=0.1, limit_seconds=2.0)
T = TypeVar("T")
_SENT: Future[bool] = Future()
_SENT.set_result(True)


class Subscription:
    """A subject that is subscribed to, over all connections until `close`."""

    def __init__(self, connection: ClusterConnection, subject: str, receive: Receive, queue: str) -> None:
        self._connection = connection
        self.subject = subject
        self.queue = queue
        self.receive = receive
        self.current: ClientSubscription | None = None
        """That of the connection of now."""

    def close(self) -> None:
        """End it; a message that is on its way may still come."""
        self._connection.forget(self)


class ClusterConnection:
    """A connection to one of the servers, made anew by itself for as long as it is open.

    `open` .. `close`, or `with ClusterConnection(settings, "me") as connection`. Every method may be called from any
    thread but those that call back: `Receive` and what `on_change` was given run in the connection's own thread, must
    not wait, and may call `publish_soon` only.
    """

    def __init__(self, settings: ClusterSettings, name: str) -> None:
        """`name` is what the servers' operators see.

        Raises MissingExtra where the client of NATS is not installed, ClusterRefused for files that cannot be used.
        """
        try:
            from candleshm.cluster.server_session import CLIENT_ERRORS, ServerSession, published
        except ImportError as error:
            raise MissingExtra("nats", "cluster") from error
        self.settings = settings
        self._errors = CLIENT_ERRORS
        self._published = published
        self._session = ServerSession(settings, name)
        self._servers = ",".join(settings.urls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="candleshm-cluster", daemon=True)
        self._subscriptions: list[Subscription] = []
        self._listeners: list[Callable[[bool], None]] = []
        self._client: SessionClient | None = None
        self._closing = asyncio.Event()
        self._random = Random()
        self._keeping: asyncio.Task[None] | None = None
        self._complaints: set[str] = set()
        self._tolerated: set[str] = set()

    def open(self, seconds: float = OPEN_SECONDS, *, patiently: bool = False) -> None:
        """Connect, with further attempts for so long; `patiently` goes on trying behind the back of the caller.

        Raises ClusterRefused when a server refuses this program or is not the one to be trusted, ClusterUnavailable
        when none responds and the caller is not patient.
        """
        self._thread.start()
        try:
            self._wait_for(self._open(seconds, patiently=patiently))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection and its thread. May be called repeatedly."""
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()
        elif not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as this end knows."""
        client = self._client
        return client is not None and client.is_connected

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener` called with True after each new connection, its subscriptions included, and with False after
        each loss."""
        self._listeners.append(listener)

    def subscribe(self, subject: str, receive: Receive, queue: str = "") -> Subscription:
        """Have `receive` called for each message of a subject from now on. One member of a `queue` gets each message.

        What is published after this returns is received, if this end is connected.
        """
        subscription = Subscription(self, subject, receive, queue)

        async def subscribe() -> None:
            self._subscriptions.append(subscription)
            if (client := self._client) is not None:
                await self._subscribe(subscription)
                with suppress(*self._errors):
                    await client.flush()

        self._wait_for(subscribe())
        return subscription

    def tolerate(self, subject: str) -> None:
        """Log no complaint about a subject of lower case: whether it may be used is what is to be found out."""
        self._tolerated.add(subject.lower())

    def forget(self, subscription: Subscription) -> None:
        """End a subscription."""

        async def forget() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            if subscription.current is not None:
                await self._session.unsubscribe(subscription.current)

        with suppress(RuntimeError):  # The connection is closed.
            self._wait_for(forget())

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> Future[bool]:
        """Send messages, given as subject and bytes, in order; the result is whether they were handed to the system.

        Nothing is sent without a connection. Who waits for the result before sending more keeps the memory bounded.
        """
        # A leader publishes some hundred times a second: past the loop, else by one call there, without a task.
        data = self._published(messages)
        client = self._client
        if client is not None and client.send_past_loop(data):
            return _SENT
        sent: Future[bool] = Future()
        try:
            if not self._thread.is_alive():
                raise RuntimeError
            self._loop.call_soon_threadsafe(self._hand_on, data, sent)
        except RuntimeError:
            raise ClusterUnavailable(self._servers, CLOSED) from None
        return sent

    @property
    def outlet(self) -> Outlet | None:
        """Where commands of the servers' protocol are sent past the loop; None where only `publish` can send.

        Whoever used it calls `settle` afterwards.
        """
        client = self._client
        return None if client is None else client.outlet

    def settle(self) -> None:
        """Send what the system did not take of what went by the `outlet`."""
        client = self._client
        if client is not None:
            with suppress(RuntimeError):  # The connection is closed.
                client.settle()

    def publish_soon(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send one message from within a callback, without waiting."""
        self._loop.create_task(self._publish([(subject, data)], reply))

    def request(self, subject: str, data: bytes, reply: str) -> bool:
        """Send one message whose answers go to the subject `reply`; return whether it was handed to the system."""
        return bool(self._wait_for(self._publish([(subject, data)], reply)))

    def run(self, action: Callable[[Client], Awaitable[T]], seconds: float = RUN_SECONDS) -> T:
        """Run a coroutine with the client of NATS in the connection's thread, and return its result.

        Raises ClusterUnavailable without a connection, after `seconds`, and for what the client raises, which is then
        the cause (`__cause__`).
        """

        async def run() -> T:
            client = self._client
            if client is None or not client.is_connected:
                raise ClusterUnavailable(self._servers, "no server is connected")
            try:
                async with asyncio.timeout(seconds):
                    return await action(client)
            except self._errors as error:
                raise ClusterUnavailable(self._servers, reason_of(error, self.settings)) from error

        result: T = self._wait_for(run())
        return result

    @staticmethod
    def new_inbox() -> str:
        """Return a new subject for answers; whoever may use inboxes at all may use it, and what follows it."""
        return f"_INBOX.{secrets.token_hex(11)}"

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            if not self._thread.is_alive():
                raise RuntimeError
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise ClusterUnavailable(self._servers, CLOSED) from None

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._submit(coroutine)
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except CancelledError:
                raise ClusterUnavailable(self._servers, CLOSED) from None
            except TimeoutError:
                # A loop that ended meanwhile took the coroutine with it.
                if future.done() or not self._thread.is_alive():
                    raise ClusterUnavailable(self._servers, CLOSED) from None

    async def _subscribe(self, subscription: Subscription) -> None:
        subscription.current = await self._session.subscribe(
            subscription.subject, subscription.queue, subscription.receive
        )

    def _hand_on(self, data: bytes, sent: Future[bool]) -> None:
        """Hand commands to the system, in the loop's thread; `sent` gets its result once it has taken most of them."""
        client = self._client
        if client is None or not client.is_connected:
            sent.set_result(False)
            return
        client.send(data)
        if client.is_behind:
            self._loop.create_task(self._drain(client, sent))
        else:
            sent.set_result(True)

    async def _drain(self, client: SessionClient, sent: Future[bool]) -> None:
        is_sent = False
        try:
            with suppress(*self._errors):
                await client.drain_sent()
                is_sent = True
        finally:
            sent.set_result(is_sent)

    async def _publish(self, messages: Sequence[tuple[str, bytes]], reply: str) -> bool:
        client = self._client
        if client is None:
            return False
        try:
            for subject, data in messages:
                if not client.is_connected:
                    return False
                await client.publish(subject, data, reply)
        except self._errors:
            return False
        return True

    def _live(self) -> None:
        """Be the thread of the connection."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._closing.wait())
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _open(self, seconds: float, *, patiently: bool) -> None:
        deadline_seconds = time.monotonic() + seconds
        attempt = 0
        lost: asyncio.Event | None = None
        while lost is None:
            attempt += 1
            try:
                lost = await self._connect()
            except ClusterUnavailable as error:
                pause_seconds = PAUSES.delay_seconds(attempt, self._random)
                if time.monotonic() + pause_seconds >= deadline_seconds:
                    if not patiently:
                        raise
                    logger.warning("%s; it is tried again", error)
                    break
                await asyncio.sleep(pause_seconds)
        self._keeping = self._loop.create_task(self._keep(lost))

    async def _connect(self) -> asyncio.Event:
        """Connect to the first server that takes us, and return what is set at the loss of it.

        Raises ClusterRefused for the first server that refuses us, ClusterUnavailable when none responds.
        """
        urls = list(self.settings.urls)
        self._random.shuffle(urls)
        reasons: list[str] = []
        for url in urls:
            try:
                client = await self._session.connect(url)
                for subscription in self._subscriptions:
                    await self._subscribe(subscription)
            except ClusterError as error:
                await self._session.end()
                if isinstance(error, ClusterRefused):
                    raise
                reasons.append(f"{error.servers}: {error.reason}" if len(urls) > 1 else error.reason)
            else:
                self._client = client
                self._tell(is_connected=True)
                return client.lost
        raise ClusterUnavailable(self._servers, "; ".join(reasons))

    async def _keep(self, lost: asyncio.Event | None) -> None:
        """Replace each connection that is lost, and log what servers complain about. None: there never was one."""
        if lost is None:
            lost = await self._connect_again()
            logger.info("connected to the cluster's servers")
        while True:
            while not lost.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), FAULTS_SECONDS)
                self._log_faults()
            self._client = None
            await self._session.end()
            self._tell(is_connected=False)
            logger.warning("the connection to the cluster's servers is lost; connecting again to %s", self._servers)
            lost = await self._connect_again()
            logger.info("connected to the cluster's servers again")

    async def _connect_again(self) -> asyncio.Event:
        attempt, logged = 0, ""
        while True:
            attempt += 1
            await asyncio.sleep(PAUSES.delay_seconds(attempt, self._random))
            try:
                return await self._connect()
            except ClusterRefused as error:
                if error.reason != logged:
                    logger.error("%s; it is tried again", error)
                    logged = error.reason
            except ClusterUnavailable:
                pass

    def _log_faults(self) -> None:
        """Log each complaint of a server once."""
        for fault in self._session.faults:
            if any(subject in fault.lower() for subject in self._tolerated):
                continue
            if fault not in self._complaints and len(self._complaints) < COMPLAINTS_MAX:
                self._complaints.add(fault)
                logger.warning("the cluster's server complains: %s", fault)
        self._session.faults.clear()

    def _tell(self, *, is_connected: bool) -> None:
        for listener in self._listeners:
            listener(is_connected)

    async def _end(self) -> None:
        """End what goes on in the loop, the connection last."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._client = None
        await self._session.end()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
