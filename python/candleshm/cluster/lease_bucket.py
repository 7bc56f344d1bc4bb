"""The key-value bucket of JetStream in which the leases of a cluster stand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.js.api import KeyValueConfig, StorageType

from candleshm.cluster.leases import Entry

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext
    from nats.js.kv import KeyValue

__all__ = ["LeaseBucket"]

ANSWER_SECONDS = 0.8
# What a server says that, or whose account, has no memory for streams.
NO_MEMORY = 10028


class LeaseBucket:
    """The bucket, made where it does not exist; in memory, where the servers give some to streams.

    A node whose disk is full cannot write a stream in files, and not even once there is space again: only a restart
    helps it. What is lost with the memory of a node, the members know: see `leases`.
    """

    def __init__(self, bucket: str, *, replicas: int) -> None:
        self._bucket = bucket
        self._replicas = replicas
        self._client: Client | None = None
        self._opened: KeyValue | None = None

    def use(self, client: Client) -> None:
        """Go on by another connection."""
        if client is not self._client:
            self._client, self._opened = client, None

    async def read(self, key: str) -> Entry | None:
        """Return the newest entry, None where there is none. Raises ConnectionError and TimeoutError."""
        try:
            found = await (await self._open()).get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise self._failed(error) from error
        return Entry(found.revision or 0, found.value or b"")

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        """Write in place of that revision, 0 for none, and return the new one; None where another was there.

        Raises ConnectionError and TimeoutError.
        """
        try:
            return await (await self._open()).update(key, value, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return None
        except nats.errors.Error as error:
            raise self._failed(error) from error

    async def _open(self) -> KeyValue:
        if self._client is None:
            raise ConnectionError("no server is connected")
        if self._opened is None:
            stream = self._client.jetstream(timeout=ANSWER_SECONDS)
            try:
                self._opened = await stream.key_value(self._bucket)
            except nats.js.errors.NotFoundError:
                self._opened = await self._create(stream)
        return self._opened

    async def _create(self, stream: JetStreamContext) -> KeyValue:
        config = KeyValueConfig(bucket=self._bucket, history=1, storage=StorageType.MEMORY, replicas=self._replicas)
        try:
            return await stream.create_key_value(config)
        except nats.js.errors.APIError as error:
            if error.err_code != NO_MEMORY:
                raise
        return await stream.create_key_value(replace(config, storage=StorageType.FILE))

    def _failed(self, error: nats.errors.Error) -> ConnectionError:
        # A bucket that was deleted is made anew by the next attempt.
        self._opened = None
        if isinstance(error, nats.js.errors.ServiceUnavailableError | nats.errors.NoRespondersError):
            return ConnectionError("the servers have no JetStream at the moment, which keeps the leases")
        return ConnectionError(str(error) or type(error).__name__)
