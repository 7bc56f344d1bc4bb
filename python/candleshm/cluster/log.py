"""The log: a stream of JetStream that keeps the last minute of a feed's changes, for who missed some of them.

It is a cache. It may lose messages or vanish at any time (an acknowledgement of JetStream is not durable), and
everything works without it: what cannot be read here, the digests of heartbeats find.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.subjects import Subjects
from candleshm.errors import ClusterUnavailable
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.api import RawStreamMsg
    from nats.js.client import JetStreamContext

__all__ = ["ChangeLog"]

logger = logging.getLogger(__name__)

KEPT_SECONDS = 60.0
# The largest that the servers have room for.
SIZES_BYTES = (256 << 20, 64 << 20, 16 << 20)
READ_SECONDS = 1.0
# After a failure the log is left alone for so long: its absence is no reason to wait at every gap.
PAUSE_SECONDS = 30.0
NAME_IN_USE = 10058


class ChangeLog:
    """The log of one feed, as its leader makes it and followers read it. For one thread at a time."""

    def __init__(self, connection: ClusterConnection, subjects: Subjects, *, block_name: str) -> None:
        self._connection = connection
        self._subjects = subjects
        self._log = BlockLog(logger, block_name)
        self._is_missed = False
        self._silent_until_seconds = 0.0

    def keep(self) -> bool:
        """Have the servers keep what is published, and return whether they do. One warning while they do not."""
        try:
            self._connection.run(self._keep)
        except ClusterUnavailable as error:
            if self._connection.is_connected and not self._is_missed:
                self._is_missed = True
                text = "the cluster's servers keep no log of changes (%s); what a host misses comes by requests"
                self._log.warning(text, error.reason)
            return False
        self._is_missed = False
        return True

    def read(self, shard: int, epoch: int, first: int, last: int) -> list[bytes]:
        """Return the changes number `first` to `last` of an epoch, in order, as far as they can be read in a second."""
        if time.monotonic() < self._silent_until_seconds:
            return []
        found: list[bytes] = []

        async def read(client: Client) -> None:
            await self._read(client.jetstream(timeout=READ_SECONDS), shard, (epoch, first), (epoch, last), found)

        try:
            self._connection.run(read, READ_SECONDS)
        except ClusterUnavailable:
            self._silent_until_seconds = time.monotonic() + PAUSE_SECONDS
        return found

    async def _keep(self, client: Client) -> None:
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig
        from nats.js.errors import APIError

        stream = client.jetstream()
        for number, size_bytes in enumerate(SIZES_BYTES, 1):
            config = StreamConfig(
                name=self._subjects.log,
                subjects=[self._subjects.all_changes],
                storage=StorageType.MEMORY,
                discard=DiscardPolicy.OLD,
                max_age=KEPT_SECONDS,
                max_bytes=size_bytes,
                num_replicas=self._connection.settings.replicas,
                allow_direct=True,
            )
            try:
                await stream.add_stream(config)
                return
            except APIError as error:
                if error.err_code == NAME_IN_USE:
                    return  # Another leader made it, with other settings.
                if number == len(SIZES_BYTES):
                    raise

    async def _read(
        self,
        stream: JetStreamContext,
        shard: int,
        first: tuple[int, int],
        last: tuple[int, int],
        found: list[bytes],
    ) -> None:
        from nats.js.errors import NotFoundError

        subject = self._subjects.changes(shard)

        async def at(number: int) -> RawStreamMsg | None:
            """Return the shard's message of that number of the stream, or the next one."""
            try:
                return await stream.get_msg(self._subjects.log, number, subject, direct=True, next=True)
            except NotFoundError:
                return None

        try:
            newest = await stream.get_msg(self._subjects.log, subject=subject, direct=True)
        except NotFoundError:
            return
        low, high = 1, newest.seq or 1
        while low < high:
            middle = (low + high) // 2
            message = await at(middle)
            if message is None or _place(message) >= first:
                high = middle
            else:
                low = (message.seq or middle) + 1
        while (message := await at(low)) is not None and message.seq:
            place = _place(message)
            if place > last:
                return
            low = message.seq + 1
            head = MessageHead.of(message.data or b"")
            if head is not None and head.kind == "changes" and place >= first:
                found.append(message.data or b"")
                if place == last:
                    return


def _place(message: RawStreamMsg) -> tuple[int, int]:
    """Return epoch and sequence; those of one subject never fall, but for messages of a leader that was paused."""
    head = MessageHead.of(message.data or b"")
    return (0, 0) if head is None else (head.epoch, head.sequence)
