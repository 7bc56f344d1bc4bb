"""A collector as a member of a cluster: it leads shards of a feed, or follows those who lead them and stands by."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from candleshm._core import shard_of
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.disagreements import Disagreements
from candleshm.cluster.gathering import Gathering
from candleshm.cluster.presence import LEFT, MIRROR, Exit, Presence
from candleshm.cluster.replica import Replica
from candleshm.cluster.served import OwnFeed
from candleshm.cluster.shard_leases import ShardLeases
from candleshm.cluster.subjects import Subjects
from candleshm.collector.selection import Selection
from candleshm.collector.status import CollectorStatus
from candleshm.config import CollectorConfig
from candleshm.ratelimit.pools import pool_of
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import SystemClock

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Member"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
# Without any lease for so long, as without servers, a member collects everything that its own host needs.
ALONE_SECONDS = 10.0
STOP_SECONDS = 5.0
# How long the thread rests after a fault of its own.
FAULT_SECONDS = 1.0

HOST = socket.gethostname()
SOURCE = f"{HOST}/{os.getpid()}"
VERSION = version("candleshm")

Status = Callable[[], CollectorStatus | None]


class Stance(NamedTuple):
    """What a member does: which shards it leads under which epoch, and whether it is cut off from the cluster."""

    epochs: Mapping[int, int]
    is_alone: bool = False
    """Whether it has been cut off for so long that it collects everything for its own host."""
    is_held: bool = True
    """Whether those leases surely hold. While they may not, it tells nothing of these shards; others may take them."""

    def collected(self, shards: int) -> frozenset[int]:
        """Return the shards that it collects itself, of so many."""
        return frozenset(range(shards)) if self.is_alone else frozenset(self.epochs)

    @property
    def role(self) -> str:
        """The word for it."""
        if self.is_alone or (self.epochs and not self.is_held):
            return "alone"
        return "leader" if self.epochs else "standby"


class MemberFigures(NamedTuple):
    """What the metrics show of a member."""

    led: int
    shards: int
    unled: int
    epoch: int
    is_alone: bool
    is_complete: bool
    differing: int
    lag: float
    """In seconds; not a number while nothing comes from others."""
    members: int
    mirrors: int


class Member:
    """The membership of one collector, as `Collector` takes it. One thread of it decides; see `_look`."""

    def __init__(self, connection: ClusterConnection, config: CollectorConfig, *, feed: str, shards: int = 1) -> None:
        """`feed` is the name in the cluster, which is divided into so many `shards`."""
        self.selection = Selection(everything=False)
        self._connection = connection
        self._config = config
        self._shards = shards
        self._subjects = Subjects(connection.settings.prefix, connection.settings.name, feed)
        self._log = BlockLog(logger, config.block_name)
        self._now = SystemClock().monotonic_seconds
        self._name = f"{HOST}-{os.getpid()}-{secrets.token_hex(3)}"
        self._own = OwnFeed(config, self.selection, shards=shards, where=SOURCE)
        self._leases = ShardLeases(connection, self._subjects, self._name, shards=shards, now=self._now, own=self._own)
        self._gathering = Gathering(connection, self._subjects)
        self._stance = Stance({})
        # Why it can take nothing from those who lead, if it cannot.
        self._otherwise = ""
        self._stopping = threading.Event()
        self._disagreements = Disagreements(
            self._subjects.feed, self._leases, self._own, block_name=config.block_name, shards=shards
        )

    @contextmanager
    def serving(self, writer: Writer, status: Status) -> Iterator[None]:
        """Take part with the rows of `writer` while the context is open; `status` is the collector's."""
        replica = Replica(
            self._connection,
            self._subjects,
            writer,
            shards=self._shards,
            source=SOURCE,
            held_until_ns=self._leases.held_until_ns,
            missing=self.selection.carry,
        )
        self._gathering.open()
        thread = threading.Thread(target=self._work, args=(replica, status), name="candleshm-member", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(STOP_SECONDS)
            replica.close()
            # Who starts anew after all have ended may serve something else.
            present = (each for each in self._gathering.present if each.role != MIRROR)
            self._leases.release(forgets=all(each.member == self._name for each in present))
            self._gathering.close(self._presence(replica, None, role=LEFT))

    @property
    def figures(self) -> MemberFigures:
        """What the metrics show. From any thread."""
        said, stance, present = self._gathering.said, self._stance, self._gathering.present
        led = {shard for presence in present for shard in presence.epochs} | stance.epochs.keys()
        mirrors = sum(presence.role == MIRROR for presence in present)
        return MemberFigures(
            led=len(stance.epochs),
            shards=self._shards,
            unled=self._shards - len(led),
            epoch=max(stance.epochs.values(), default=0),
            is_alone=stance.is_alone,
            is_complete=said is not None and said.is_complete,
            differing=0 if said is None else said.differing,
            lag=math.nan if said is None or said.lag_ms is None else said.lag_ms / 1000,
            members=len(present) - mirrors,
            mirrors=mirrors,
        )

    def _work(self, replica: Replica, status: Status) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look(replica, status())
            except Exception:
                self._log.exception("the cluster's member goes on after an internal error")
                self._stopping.wait(FAULT_SECONDS)

    def _look(self, replica: Replica, status: CollectorStatus | None) -> None:
        """Hear who is there, tend the leases, collect and tell what is led, follow the rest, and say so."""
        gathering = self._gathering
        gathering.look(self._now())
        self._otherwise = self._disagreements.compare_shards(gathering.present)
        if replica.failure is not None:
            # Of no use to others, and others of none to it: it still serves its own host.
            if self._leases.epochs:
                self._leases.release()
            self._stand(Stance({}, is_alone=True), replica)
            self.selection.is_complete = True
            return
        is_loaded = status is not None and status.is_loaded
        is_new = self._own.look(lambda: replica.symbol_names, self._now())
        self._leases.tend(gathering.present, gathering.roll, is_complete=is_loaded)
        epochs = self._leases.epochs
        is_held = not epochs or any(map(self._leases.may_publish, epochs))
        self._stand(Stance(epochs, is_alone=self._is_alone(), is_held=is_held), replica)
        self._disagreements.compare_served()
        if is_new:
            self._disagreements.compare_symbols(self._now(), is_alone=self._stance.is_alone)
        self.selection.is_complete = replica.look()
        now = self._now()
        if gathering.is_due(now):
            gathering.say(self._presence(replica, status, role=self._stance.role), now)

    def _is_alone(self) -> bool:
        """Return whether no lease could be had for so long that this host has to help itself, or what leaders say is
        of no use to it.

        Once it is alone it stays so until every shard is known to have a leader: nothing is left to nobody.
        """
        if self._otherwise and not self._leases.epochs:
            return True
        if not self._stance.is_alone:
            return self._leases.silent_seconds >= ALONE_SECONDS
        living = {presence.member for presence in self._gathering.present}
        led = (self._leases.holder(shard) for shard in range(self._shards))
        return self._leases.silent_seconds > 0.0 or not all(holder in living for holder in led)

    def _stand(self, stance: Stance, replica: Replica) -> None:
        """Let collector, block and messages follow what this member leads now."""
        before, self._stance = self._stance, stance
        if stance == before and self._gathering.said is not None:
            return
        shards, collected = self._shards, stance.collected(self._shards)
        for shard in before.epochs.keys() - stance.epochs.keys():
            replica.leave(shard)
        replica.collect(collected)
        if collected != before.collected(shards):
            self.selection.choose(lambda symbol: shard_of(symbol, shards) in collected, any_at_all=bool(collected))
        for shard, epoch in stance.epochs.items():
            if before.epochs.get(shard) != epoch:
                replica.lead(shard, epoch)
        if stance.role == "alone":
            replica.show_source(0)
        elif before.role == "alone" and stance.epochs:
            replica.show_source(max(stance.epochs.values()))
        is_news = stance.epochs != before.epochs or stance.is_alone != before.is_alone or self._gathering.said is None
        if is_news and not (before.is_alone and stance.is_alone):
            self._log_stance(stance)

    def _log_stance(self, stance: Stance) -> None:
        feed = self._subjects.feed
        if stance.is_alone and self._otherwise:
            return  # Whoever divides the feed otherwise is named already.
        if stance.is_alone:
            text = "cluster feed %s: no lease for %.0f s (%s); this host collects everything for itself"
            self._log.warning(text, feed, self._leases.silent_seconds, self._leases.failure)
        elif stance.epochs:
            led = ", ".join(f"{shard} (epoch {epoch})" for shard, epoch in sorted(stance.epochs.items()))
            self._log.info("cluster feed %s: leads shard %s of %d", feed, led, self._shards)
        else:
            self._log.info("cluster feed %s: stands by", feed)

    @property
    def _why(self) -> str:
        """Why it is alone, or may not lead; '' where nothing is in its way."""
        if self._otherwise:
            return f"{self._otherwise}; give all the same number"
        if self._stance.is_alone:
            return f"no lease for {self._leases.silent_seconds:.0f} s ({self._leases.failure})"
        return self._leases.objection or ""

    def _presence(self, replica: Replica, status: CollectorStatus | None, *, role: str) -> Presence:
        config = self._config
        exits: tuple[Exit, ...] = ()
        if status is not None and self.selection.collects_any:
            way, to, family = pool_of(config)
            exits = (
                Exit(
                    way=f"{HOST} {way}",
                    to=f"{to} {family}",
                    weight_used=status.weight_used,
                    weight_limit=status.weight_limit,
                ),
            )
        return Presence(
            member=self._name,
            host=HOST,
            pid=os.getpid(),
            role=role,
            feed=self._subjects.feed,
            block=config.block_name,
            version=VERSION,
            length=config.length,
            symbols=replica.symbols,
            shards=self._shards,
            epochs=dict(self._stance.epochs),
            newest_epochs=self._leases.newest_epochs,
            lag_ms=replica.lag_ms,
            differing=replica.differing,
            is_complete=status is not None and status.is_loaded,
            may_lead=self._leases.objection is None,
            why=self._why,
            exits=exits,
        )
