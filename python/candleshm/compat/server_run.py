"""One run of a server, from `run_candle_map` to `close_run_candle_map`: it collects, or reads another program's block.

A block has one collector. A second server of the same symbols reads the first one's block, costs no request weight, and
collects itself as soon as the first one has ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from candleshm._core import Zone
from candleshm.collector.collector import Collector
from candleshm.collector.filling import Filling
from candleshm.compat.block_choice import BlockChoice, lack_of
from candleshm.compat.candle_map import CandleMap
from candleshm.compat.known_lines import LoadLines
from candleshm.compat.market_requests import MarketRequests
from candleshm.config import CollectorConfig
from candleshm.errors import BlockError, BlockInUse, CandleShmError
from candleshm.history.daily_writer import DailyWriter
from candleshm.reader.feed import Feed, attach
from candleshm.system.clock import Clock

__all__ = ["ServerRun"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
# Pause after a block could not be taken over.
AGAIN_SECONDS = 5.0
MEASURE_SECONDS = 600.0
# How long a program that ended may take to start again before its block's name is taken.
RESTART_SECONDS = 10.0
STOP_SECONDS = 1.0


class ServerRun:
    """Fills a `candle_map` until `stop`. Methods may be called from any thread."""

    def __init__(
        self,
        config: CollectorConfig,
        market: MarketRequests,
        clock: Clock,
        candle_map: CandleMap,
        zone: Zone,
        at_block: Callable[[], object],
    ) -> None:
        """`at_block` is called once there is a block."""
        self._config = config
        self._market = market
        self._clock = clock
        self._candle_map = candle_map
        self._zone = zone
        self._at_block = at_block
        self._stopping = threading.Event()
        self._choice = BlockChoice(config, market, clock, self._stopping)
        # Re-entrant: a signal handler that stops may interrupt this very thread.
        self._gate = threading.RLock()
        self._loaded = threading.Event()
        self._collector: Collector | None = None
        self._wanted: list[str] = []  # of the block that is read
        self._failure: BaseException | None = None
        self._daily: DailyWriter | None = None
        self._watch: threading.Thread | None = None
        self.feed: Feed | None = None
        """The block, once there is one."""

    @property
    def has_ended(self) -> bool:
        """Whether its own collector failed."""
        return self._collector is not None and self._collector.has_ended

    def start(self) -> None:
        """Find a block, and return once every symbol is loaded or given up for now, or after `stop`.

        Raises as `Collector.start`, and BlockInUse when the given name has a block of another program that lacks
        something.
        """
        try:
            self._enter()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._loaded.set()
        with self._gate:
            if self._collector is None and not self._stopping.is_set():
                self._watch = threading.Thread(target=self._stand_by, name="candleshm-standby", daemon=True)
                self._watch.start()

    def wait_loaded(self) -> None:
        """Wait until `start` has returned in another thread. Raises what it raised."""
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End in under a second. May be called repeatedly."""
        with self._gate:
            self._stopping.set()
            collector, daily, watch = self._collector, self._daily, self._watch
        if collector is not None:
            collector.stop()
        if daily is not None:
            daily.stop(at_once=True)
        if watch is not None and watch is not threading.current_thread():
            watch.join(STOP_SECONDS)

    def exchange_ms(self) -> int | None:
        """Return the exchange's time as it was measured last, None before that."""
        measured_ms = None if self._collector is None else self._collector.exchange_ms()
        return self._market.known_ms() if measured_ms is None else measured_ms

    def _enter(self, *, is_handover: bool = False) -> None:
        """Read or collect a block, and wait until it is loaded. In a handover the map changes only then."""
        while not self._stopping.is_set():
            name, feed = self._choice.choose()
            if feed is not None:
                if self._read(feed, is_handover=is_handover):
                    return
            else:
                try:
                    self._collect(name, is_handover=is_handover)
                except BlockInUse:
                    self._stopping.wait(LOOK_SECONDS)  # another program was quicker
                else:
                    return

    def _collect(self, name: str, *, is_handover: bool) -> None:
        with self._gate:
            if self._stopping.is_set():
                return
            collector = self._collector = Collector(replace(self._config, name=name))
        try:
            collector.start()
        except BaseException:
            self._collector = None
            raise
        feed = self._attached(name)
        if feed is None:
            return
        if not is_handover:
            self._serve(feed)
        lines = LoadLines(feed, self._zone, feed.symbols)
        if collector.wait_loaded(progress=lines):
            lines.complete(self.exchange_ms() or self._clock.epoch_ms())
            self._serve(feed)

    def _read(self, feed: Feed, *, is_handover: bool) -> bool:
        """Read another program's block; return False when that program ended before every symbol was loaded."""
        with self._gate:
            if self._stopping.is_set():
                return True
            self.feed, self._wanted = feed, self._choice.symbols()
            self._at_block()
        health = feed.health
        logger.info(
            "block %s of process %d has everything; candle_map reads it, without requests", feed.name, health.pid
        )
        if not is_handover:
            self._serve(feed)
        lines = LoadLines(feed, self._zone, self._wanted)
        while not (health := feed.health).loaded:
            lines.look()
            if health.state in {"closed", "dead"}:
                return False
            if self._stopping.wait(LOOK_SECONDS):
                return True
        lines.look()
        lines.complete(self.exchange_ms() or self._clock.epoch_ms())
        self._serve(feed)
        self._begin_daily_files(feed.name)
        return True

    def _stand_by(self) -> None:
        """Go on reading while the other program serves; then read another block, or collect."""
        measured_seconds = self._clock.monotonic_seconds()
        left_seconds: float | None = None
        while self._collector is None and not self._stopping.wait(LOOK_SECONDS):
            now_seconds = self._clock.monotonic_seconds()
            reason = self._reason_to_leave()
            try:
                if reason is not None and left_seconds is None:
                    left_seconds = now_seconds
                    logger.warning("%s; unless it starts again, this server goes on by itself", reason)
                    self._candle_map._keep(now_seconds)
                    self._end_daily_files()
                elif left_seconds is not None:
                    is_back = reason is None or self._choice.is_served(self._name)
                    if is_back or now_seconds > left_seconds + RESTART_SECONDS:
                        self._enter(is_handover=True)
                        left_seconds = None
                elif now_seconds > measured_seconds + MEASURE_SECONDS:
                    measured_seconds = now_seconds
                    self._market.exchange_ms()
            except CandleShmError as error:
                logger.warning("%s; next attempt in %.0f s", error, AGAIN_SECONDS)
                self._stopping.wait(AGAIN_SECONDS)

    @property
    def _name(self) -> str:
        return self._config.block_name if self.feed is None else self.feed.name

    def _reason_to_leave(self) -> str | None:
        feed = self.feed
        assert feed is not None
        try:
            if feed.health.state in {"closed", "dead"}:
                return f"the program that served block {feed.name} has ended"
            lack = lack_of(feed, self._config, self._wanted)
        except BlockError as error:
            return str(error)
        return None if lack is None else f"block {feed.name} {lack} any more"

    def _attached(self, name: str) -> Feed | None:
        with self._gate:
            if not self._stopping.is_set():
                self.feed = attach(name)
                self._at_block()
                return self.feed
        return None

    def _serve(self, feed: Feed) -> None:
        with self._gate:
            if not self._stopping.is_set():
                has = self._market.serves if self._collector is None else lambda _: True
                self._candle_map._serve(feed, self._config.length, has)

    def _begin_daily_files(self, name: str) -> None:
        """Write this rule's daily files as its own collector would: the other program's may lie elsewhere."""
        config = self._config
        filling = Filling(config, self._clock, self._stopping)
        filling.open_store()
        if (store := filling.store) is None or not config.download_time:
            return
        with self._gate:
            if self._stopping.is_set():
                return
            self._daily = DailyWriter(
                store,
                clock=self._clock,
                time_of_day=config.download_time,
                settle_ms=config.settle_ms,
                now_ms=self._market.exchange_ms,
                symbols=lambda: self._market.symbols("trading"),
                fetch=lambda day, anew: self._market.fetch_day(store, day, "trading", replace=anew),
                block=lambda: name,
                days_back=max(1, config.local_candle_days or 0),
            )
            self._daily.start()

    def _end_daily_files(self) -> None:
        with self._gate:
            daily, self._daily = self._daily, None
        if daily is not None:
            daily.stop(at_once=True)
            daily.join()
