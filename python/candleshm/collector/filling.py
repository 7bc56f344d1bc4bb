"""The rows that a block begins with: what earlier runs left in caches and daily files, and what the archive has."""

from __future__ import annotations

import logging
import threading
from urllib.parse import urlsplit

import msgspec

from candleshm._core import Writer
from candleshm.collector.cache import BlockCache, Origin
from candleshm.collector.derived_files import load_derived_days
from candleshm.config import CollectorConfig, DerivedBlock
from candleshm.errors import CandleShmError, ConfigError, MissingExtra
from candleshm.exchanges.base import INTERVAL_MS
from candleshm.exchanges.binance import MARKETS
from candleshm.history.block import load_days
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.fetching import archive_of, fetch_days, store_of
from candleshm.history.store import DayStore
from candleshm.reader.frames import library
from candleshm.rest.client import Client
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock

__all__ = ["Filling"]

logger = logging.getLogger(__name__)


class Filling:
    """The sources of rows for one block. `stopping` ends what is being loaded."""

    def __init__(self, config: CollectorConfig, clock: Clock, stopping: threading.Event) -> None:
        """Raises ConfigError for an archive without a directory for its days."""
        self._config = config
        self._log = BlockLog(logger, config.block_name)
        self._stopping = stopping
        self._cache: BlockCache | None = None
        self._derived_caches: dict[DerivedBlock, BlockCache] = {}
        if config.cache_dir is not None:
            origin = _origin(config)
            self._cache = BlockCache(config.cache_dir, origin)
            for block in config.derived:
                self._derived_caches[block] = BlockCache(
                    config.cache_dir, msgspec.structs.replace(origin, name=block.name, interval=block.interval)
                )
        self.archive = None
        """The exchange's archive, where days may be fetched from it."""
        if config.archive_url is not None:
            if config.candle_dir is None:
                raise ConfigError("archive_url is given without candle_dir, where the days from it are to be stored")
            self.archive = archive_of(config, config.archive_url, clock, stopping)
        self.store: DayStore | None = None
        """The daily files, where the feed has any; known after `open_store`."""

    @property
    def caches(self) -> list[BlockCache]:
        """The caches of the block and of those that are derived from it; empty when there are none."""
        return [] if self._cache is None else [self._cache, *self._derived_caches.values()]

    def open_store(self) -> None:
        """Find the daily files of the feed; a line in the log explains why there are none."""
        config = self._config
        if config.candle_dir is None:
            return
        if config.interval not in DAILY_INTERVALS:
            self._log.info("candles of %s have no daily files", config.interval)
            return
        try:
            library("pyarrow", "parquet")
        except MissingExtra as error:
            self._log.warning("no daily files are read or written: %s", error)
            return
        self.store = store_of(config, config.candle_dir)

    def fill(self, writer: Writer, connection: Client, now_ms: int) -> None:
        """Load rows into the block that are not in it: from caches, then from daily files, after fetching those that
        are missing from the archive, if there is one.

        `now_ms` is exchange time that has surely been reached.
        """
        # Rows derived from more than the block will hold come first: the block's own would only be derived beside them.
        for block, cache in self._derived_caches.items():
            rows = cache.load_derived(writer, now_ms - _window_ms(block), self._stopping)
            if rows:
                cache.log.info("%d rows loaded from cache %s", rows, cache.path)
        if self.store is not None:
            self._load_derived_days(self.store, writer, now_ms)
        if self._cache is not None:
            rows = self._cache.load(writer, now_ms, self._stopping)
            if rows:
                self._log.info("%d rows loaded from cache %s", rows, self._cache.path)
        if self.store is not None:
            days = self._local_days(self.store, writer.window_start_ms(writer.symbols[0], now_ms), now_ms)
            if self.archive is not None and days:
                self._fetch_archived(self.store, writer, connection, days)
            rows = load_days(writer, self.store, writer.symbols, days, self._stopping)
            if rows:
                self._log.info("%d rows loaded from daily files", rows)

    def _load_derived_days(self, store: DayStore, writer: Writer, now_ms: int) -> None:
        for block in self._config.derived:
            days = self._local_days(store, now_ms - _window_ms(block), now_ms)[::-1]
            rows = load_derived_days(writer, self._config, block, days, now_ms, self._stopping) if days else 0
            if rows:
                BlockLog(logger, block.name).info("%d rows loaded from daily files", rows)

    def _local_days(self, store: DayStore, window_ms: int, now_ms: int) -> list[Day]:
        """Return the days to have in files, newest first, as far as a window reaches that begins at `window_ms`."""
        day = Day.of(now_ms, store.zone)
        days: list[Day] = []
        while len(days) < (self._config.local_candle_days or 0) and day.start_ms > window_ms:
            day = day.previous()
            days.append(day)
        return days

    def _fetch_archived(self, store: DayStore, writer: Writer, connection: Client, days: list[Day]) -> None:
        """Fetch the days that have no file; rows that the archive lacks are requested by REST later."""
        wanted = self._config.of_symbols(writer.symbols)
        first, last = days[-1].date, days[0].date
        try:
            fetch_days(wanted, store, connection, first, last, archive=self.archive, stopping=self._stopping)
        except CandleShmError as error:
            self._log.warning("no days were fetched from the archive: %s", error)


def _window_ms(block: DerivedBlock) -> int:
    # One more than readers are shown, and the live one.
    return (block.length + 2) * INTERVAL_MS[block.interval.split("@")[0]]


def _origin(config: CollectorConfig) -> Origin:
    # A relay or a proxy only forwards to the exchange; names and passwords in addresses stay out of files.
    parts = urlsplit(config.base_url or MARKETS[config.market].host)
    exchange = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    return Origin(config.block_name, config.market, config.interval, exchange, config.price)
