"""A mirror: the block of a feed on a host that never meets the exchange, kept as the feed's leaders tell it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version

from candleshm._core import Writer
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.feed_shapes import FeedShapes
from candleshm.cluster.follower import Follower
from candleshm.cluster.follower_status import FollowerStatus
from candleshm.cluster.mirror_answers import MirrorAnswers
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.presence import LEFT, Presence, encoded
from candleshm.cluster.subjects import Subjects
from candleshm.collector.block_names import BlockNames
from candleshm.collector.shared_memory import SharedMemory
from candleshm.config import CollectorConfig
from candleshm.errors import BlockUnavailable, CandleShmError, ClusterUnavailable
from candleshm.system.block_log import BlockLog

__all__ = ["Mirror"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
SILENT_SECONDS = 5.0
PRESENT_SECONDS = 1.0
# Free places for symbols that the feed gets later: a tenth of those it has.
SPARE_MIN, SPARE_PART = 16, 10

HOST = socket.gethostname()


class Mirror:
    """Keeps one mirror: `start` .. `stop`. It waits for a leader of the feed, without a block until one tells.

    Every method may be called from any thread.
    """

    def __init__(self, config: MirrorConfig, connection: ClusterConnection) -> None:
        self.config = config
        settings = connection.settings
        self.subjects = Subjects(settings.prefix, settings.name, config.name)
        self._connection = connection
        self._log = BlockLog(logger, config.block_name)
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="candleshm-mirror", daemon=True)
        self._writer: Writer | None = None
        self._follower: Follower | None = None
        self._answers: MirrorAnswers | None = None
        self._settings: CollectorConfig | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether the block can be attached to."""
        return self._opened.is_set()

    def stop(self) -> None:
        """End and remove the block. May be called repeatedly."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def has_ended(self) -> bool:
        """Whether it ended, by `stop` or by a failure."""
        return self._ended.is_set()

    def raise_failure(self) -> None:
        """Raise what ended it, if anything did."""
        if self._failure is not None:
            raise self._failure

    @property
    def block_names(self) -> tuple[str, ...]:
        """The names of the block and of those derived from it; empty before it has one."""
        return () if self._settings is None else self._settings.block_names

    @property
    def status(self) -> FollowerStatus | None:
        """Where it stands; None before it has a block."""
        return None if self._follower is None else self._follower.status

    @property
    def answered(self) -> int:
        """How many requests of others for rows it has answered."""
        return 0 if self._answers is None else self._answers.answered

    def _live(self) -> None:
        """Be the thread of the mirror."""
        try:
            shapes = self._await_leader()
            if shapes is not None:
                self._serve(shapes)
        except ClusterUnavailable as error:
            if not self._stopping.is_set():
                self._failure = error
        except CandleShmError as error:
            self._failure = error
        except BaseException as error:
            self._log.exception("the mirror ends because of an internal error")
            self._failure = error
        finally:
            self._ended.set()

    def _await_leader(self) -> FeedShapes | None:
        """Wait until leaders have told what the feed is; None when the mirror is stopped meanwhile."""
        shapes = FeedShapes(self._connection, self.subjects)
        silent_seconds = time.monotonic() + SILENT_SECONDS
        try:
            while not shapes.wait(BEAT_SECONDS):
                if self._stopping.is_set():
                    return None
                if not self._connection.is_connected:
                    # Who cannot hear knows nothing of collectors; the connection says what it lacks.
                    silent_seconds = max(silent_seconds, time.monotonic() + SILENT_SECONDS)
                if time.monotonic() >= silent_seconds:
                    silent_seconds = float("inf")
                    text = "no collector of cluster %s tells of feed %s yet; the mirror waits for one"
                    self._log.warning(text, self._connection.settings.name, self.config.name)
        finally:
            shapes.close()
        return shapes

    def _serve(self, shapes: FeedShapes) -> None:
        """Keep the block until the end."""
        writer = self._writer = self._open(shapes)
        assert self._settings is not None
        follower = self._follower = Follower(
            self._connection,
            self.subjects,
            writer,
            shards=shapes.shards,
            missing=self._add,
            reshard=lambda shards: writer.follow(shards, ()),
        )
        answers = self._answers = MirrorAnswers(
            self._connection,
            self.subjects,
            follower,
            block_name=writer.name,
            length=self._settings.length,
            source=f"{HOST}/{os.getpid()}",
        )
        try:
            names = BlockNames(writer, time.monotonic())
            follower.start()
            answers.start()
            self._opened.set()
            present_seconds = 0.0
            while not self._stopping.wait(BEAT_SECONDS) and follower.failure is None:
                now_seconds = time.monotonic()
                writer.heartbeat()
                names.look(now_seconds)
                answers.look()
                if now_seconds >= present_seconds:
                    present_seconds = now_seconds + PRESENT_SECONDS
                    self._tell_presence("mirror")
            if follower.failure is not None:
                raise follower.failure
        finally:
            self._tell_presence(LEFT)
            answers.stop()
            follower.stop()
            writer.close()
        self._log.info("stopped, block removed")

    def _tell_presence(self, role: str) -> None:
        """Tell the cluster that this mirror is there, or that it leaves."""
        writer, follower = self._writer, self._follower
        if writer is None or follower is None or not self._connection.is_connected:
            return
        status, pid = follower.status, os.getpid()
        member = f"{HOST}/{pid}/{writer.name}"
        presence = Presence(
            member=member,
            host=HOST,
            pid=pid,
            role=role,
            feed=self.config.name,
            block=writer.name,
            version=version("candleshm"),
            length=0 if self._settings is None else self._settings.length,
            symbols=len(writer.symbols),
            shards=len(status.shards),
            newest_epochs={shard: each.epoch for shard, each in status.shards.items()},
            lag_ms=None if status.lag_seconds is None else status.lag_seconds * 1000,
            is_complete=status.is_equal,
        )
        self._connection.publish([(self.subjects.present(member), encoded(presence))])

    def _open(self, shapes: FeedShapes) -> Writer:
        shape, symbols = shapes.newest, shapes.symbols
        config = self._settings = self.config.as_collector(
            market=shape.market, price=shape.price, interval=shape.interval, length=shape.length
        )
        spare_symbols = max(shape.symbol_capacity - len(symbols), 0)
        memory = SharedMemory.of(config, len(symbols) + spare_symbols)
        memory.check()
        writer = Writer.open(
            config.block_name,
            market=shape.market,
            price=shape.price,
            interval=shape.interval,
            length=config.length,
            symbols=symbols,
            spare_symbols=spare_symbols,
            derive=config.derived,
            exchange=shape.exchange,
        )
        writer.follow(shapes.shards, ())
        self._log.info(
            "mirror of feed %s, %d %s symbols, %d candles each; %s",
            self.config.name,
            len(writer.symbols),
            shape.market,
            config.length,
            memory,
        )
        return writer

    def _add(self, symbols: Sequence[str]) -> None:
        """Add symbols that the leader has, in a larger block when this one is full."""
        writer = self._writer
        assert writer is not None
        new = [symbol for symbol in dict.fromkeys(symbols) if symbol not in set(writer.symbols)]
        places = writer.symbol_capacity - len(writer.symbols)
        if len(new) > places:
            try:
                writer.enlarge([*writer.symbols, *new], max(SPARE_MIN, len(writer.symbols) // SPARE_PART))
            except BlockUnavailable as error:
                self._log.error("left out, because the block is full: %s; %s", " ".join(new[places:]), error)
                new = new[:places]
            else:
                self._log.info("symbols added: %s", " ".join(new))
                return
        for symbol in new:
            writer.add_symbol(symbol)
        if new:
            self._log.info("symbols added: %s", " ".join(new))
