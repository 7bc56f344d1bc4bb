"""A collector of the simulated exchange, and a publisher that tells of its block: a leader without rivals."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

import candleshm
from candleshm._core import Shadow
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.mirror import Mirror
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.publisher import FOREVER_NS, Publisher
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.subjects import Subjects
from candleshm.reader.feed import Feed
from tests.support.nats_servers import NatsServer

__all__ = ["Leader", "differences_of", "leading", "mirroring", "reaching"]


def reaching(*servers: NatsServer, **keys: object) -> ClusterSettings:
    """Return the settings that reach these servers."""
    found = ClusterSettings.of({"cluster": ",".join(server.url for server in servers), **keys})
    assert found is not None
    return found


@dataclass
class Leader:
    """Who tells of a block."""

    connection: ClusterConnection
    subjects: Subjects
    publisher: Publisher
    source: str
    """Who it says it is."""


@contextmanager
def leading(
    settings: ClusterSettings,
    name: str,
    *,
    feed: str | None = None,
    epoch: int = 1,
    shards: int = 1,
    held_until_ns: Callable[[int], int] = lambda shard: FOREVER_NS,
) -> Iterator[Leader]:
    """Tell of all shards of the block `name`, as the feed of that name or of another."""
    with ExitStack() as stack:
        connection = stack.enter_context(ClusterConnection(settings, "leader"))
        subjects = Subjects(settings.prefix, settings.name, feed or name)
        source = f"{socket.gethostname()}/{os.getpid()}"
        shadow = Shadow(name, shards, source)
        publisher = Publisher(connection, subjects, shadow, block_name=name, held_until_ns=held_until_ns)
        stack.callback(publisher.stop)
        publisher.start()
        for shard in range(shards):
            publisher.lead(shard, epoch)
        yield Leader(connection, subjects, publisher, source)


@contextmanager
def mirroring(settings: ClusterSettings, config: MirrorConfig) -> Iterator[Mirror]:
    """Keep a mirror in this process, over a connection of its own."""
    with ClusterConnection(settings, "mirror") as connection:
        mirror = Mirror(config, connection)
        mirror.start()
        try:
            yield mirror
        finally:
            mirror.stop()
    mirror.raise_failure()


def differences_of(name: str, other: str) -> list[str]:
    """Return in what two blocks differ, for readers of rows that are final: nothing where they are the same."""
    with candleshm.attach(name) as one, candleshm.attach(other) as two:
        found = [f"symbols {set(one.symbols) ^ set(two.symbols)}"] if set(one.symbols) != set(two.symbols) else []
        for symbol in set(one.symbols) & set(two.symbols):
            found += [f"{symbol}: {text}" for text in _differences(one, two, symbol)]
        return found


def _differences(one: Feed, two: Feed, symbol: str) -> list[str]:
    count = min(one.length, two.length)
    (mine, states), (theirs, others) = (feed[symbol].snapshot(count, holes="nan") for feed in (one, two))
    if len(mine) != len(theirs):
        return [f"{len(mine)} rows and {len(theirs)}"]
    # The live row is the last one; it may have changed between the two looks.
    unequal = np.flatnonzero((mine[:-1].view(np.int64) != theirs[:-1].view(np.int64)).any(axis=1))
    found = [f"row {index} of {len(mine)}" for index in unequal]
    found += [f"state of {index} of {len(mine)}" for index in np.flatnonzero(states[:-1] != others[:-1])]
    return found
