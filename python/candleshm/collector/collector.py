"""The life of one collector: check, connect, take the block, run, end in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from candleshm._core import Feed, Writer
from candleshm.collector.cache import BlockCache, CacheWriter, Origin
from candleshm.collector.scheduler import Scheduler
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.status import CollectorStatus
from candleshm.config import CollectorConfig
from candleshm.errors import (
    BlockError,
    CandleShmError,
    ConfigError,
    MissingExtra,
)
from candleshm.exchanges.base import INTERVAL_MS, Exchange, ExchangeInfo
from candleshm.exchanges.binance import MARKETS
from candleshm.history.block import load_days
from candleshm.history.daily_writer import DailyWriter
from candleshm.history.day import DAILY_INTERVALS, Day
from candleshm.history.fetching import archive_of, fetch_days, store_of
from candleshm.history.store import DayStore
from candleshm.names import SYMBOL_NAMES, is_symbol_name
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.pools import open_connects
from candleshm.reader.frames import library
from candleshm.rest.client import Client, MarketAccess
from candleshm.rest.transport import Transport
from candleshm.stream.source import FrameSink, MakeStreams, StreamSource
from candleshm.stream.watchdog import stall_seconds
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime
from candleshm.universe import Universe

if TYPE_CHECKING:
    pass

__all__ = ["Collector"]

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
# `stop` waits for the loop, which ends within moments and removes the block. Before there is a block it may be stuck in
# a request of the start; then it is left behind, and ends without taking a block.
STOP_SECONDS = 10.0
LEAVE_SECONDS = 0.2
# Events that close a candle were seen to come up to 2005 ms after its end.
CLOSE_LATE_MS = 2500


class Collector:
    """Serves one feed: `start` .. `stop`, or `with Collector(config) as collector`, or the blocking `run`.

    >>> config = CollectorConfig(market="SPOT", symbols=["BTCUSDT"])
    >>> with Collector(config) as collector:  # doctest: +SKIP
    ...     collector.wait_loaded()

    The work is done by daemon threads; every method may be called from any thread.
    """

    def __init__(
        self,
        config: CollectorConfig,
        *,
        exchange: Exchange | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        budget: WeightBudget | None = None,
    ) -> None:
        """Check the configuration as far as that needs no network. Raises ConfigError, MissingExtra (live is 'ws').

        Without a `budget` it is the one that all processes of the user share for this pool, opened at the start.
        """
        self.config = config
        self._log = BlockLog(logger, config.block_name)
        self._market = MarketAccess(config, exchange=exchange, transport=transport, clock=clock, budget=budget)
        intervals = self._market.exchange.intervals
        if config.interval not in intervals:
            raise ConfigError(f"interval cannot be `{config.interval}`; {config.market} has: {' '.join(intervals)}")
        self._store: DayStore | None = None
        self._universe = Universe(config)
        self._make_streams = self._find_streams()
        self._cache: BlockCache | None = None
        self._derived_caches: dict[str, BlockCache] = {}
        if config.cache_dir is not None:
            origin = _origin(config)
            self._cache = BlockCache(config.cache_dir, origin)
            for name, interval in config.derived:
                self._derived_caches[interval] = BlockCache(
                    config.cache_dir, Origin(name, origin.market, interval, origin.exchange)
                )
        self._stopping = threading.Event()
        self._archive = None
        if config.archive_url is not None:
            if config.candle_dir is None:
                raise ConfigError("archive_url is given without candle_dir, where the days from it are to lie")
            self._archive = archive_of(config, config.archive_url, self._market.clock, self._stopping)
        self._gate = threading.Lock()
        self._opened = threading.Event()  # the block exists, or the start failed
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Connect, take the block and go on in the background; return once readers can attach.

        Called twice it does nothing the second time. Raises ExchangeUnavailable when the exchange cannot be reached for
        `start_seconds`, BadResponse when its responses cannot be used for as long, RateLimited or Banned, ConfigError
        (symbols), BlockInUse: with nothing left behind.
        """
        self._begin()
        while not self._opened.wait(PROGRESS_SECONDS):
            if self._stopping.is_set():
                return
        self.raise_failure()

    def wait_loaded(
        self, timeout_seconds: float | None = None, progress: Callable[[CollectorStatus], object] | None = None
    ) -> bool:
        """Wait until every symbol is loaded or given up for now (`CollectorStatus.given_up`); say whether that is so.

        `progress` is called about twice a second, in this thread. Returns False at the timeout and after `stop`.
        """
        deadline_seconds = None if timeout_seconds is None else self._market.clock.monotonic_seconds() + timeout_seconds
        while (scheduler := self._scheduler) is not None and not self._ended.is_set():
            left_seconds = PROGRESS_SECONDS
            if deadline_seconds is not None:
                left_seconds = min(left_seconds, deadline_seconds - self._market.clock.monotonic_seconds())
            loaded = scheduler.wait_loaded(max(0.0, left_seconds))
            if progress is not None:
                progress(scheduler.status)
            if loaded or left_seconds <= 0:
                return loaded
        self.raise_failure()
        return False

    def run(
        self, until: threading.Event | None = None, progress: Callable[[CollectorStatus], object] | None = None
    ) -> None:
        """Serve until `until` is set, `stop` is called or the loop fails; then end in order. Raises as `start` does."""
        until = until or self._stopping
        try:
            self._begin()
            while not (until.wait(PROGRESS_SECONDS) or self._ended.is_set()):
                if progress is not None and self.wait_loaded(0.0, progress):
                    progress = None
        finally:
            self.stop()
        self.raise_failure()

    @property
    def has_ended(self) -> bool:
        """Whether the collector ended, by `stop` or by a failure."""
        return self._ended.is_set()

    def raise_failure(self) -> None:
        """Raise what made the start fail or ended the loop, if anything did."""
        if self._failure is not None:
            raise self._failure

    def status(self) -> CollectorStatus | None:
        """Return where the collector stands, None before it has a block."""
        return self._scheduler.status if self._scheduler is not None else None

    def exchange_ms(self) -> int | None:
        """Return the exchange time that has surely been reached, None before the exchange has responded."""
        return self._scheduler.exchange_ms() if self._scheduler is not None else None

    def wake(self) -> None:
        """Let the loop look at the clock again: for a `clock` that is moved by hand."""
        if self._scheduler is not None:
            self._scheduler.wake()

    def is_idle_at(self, local_seconds: float) -> bool:
        """Return whether everything is done that was due at `local_seconds` of the collector's `clock`."""
        return self._scheduler is not None and self._scheduler.is_idle_at(local_seconds)

    def add_symbols(self, symbols: Iterable[str]) -> None:
        """Carry these symbols as well, soon; the filters do not count. One that is not listed comes when it is.

        When the block has no place left a larger one takes its place, and readers follow by themselves. Raises
        ConfigError for what cannot be a symbol.
        """
        self._universe.add(_checked(symbols))
        self._follow_universe()

    def remove_symbols(self, symbols: Iterable[str]) -> None:
        """Request these symbols no more. Their rows stay in the block, marked as not trading. Raises ConfigError."""
        self._universe.remove(_checked(symbols))
        self._follow_universe()

    def stop(self) -> None:
        """End in under a second and remove the block; a start that still blocks gives up. May be called repeatedly."""
        self._stopping.set()
        with self._gate:
            scheduler, thread = self._scheduler, self._thread
        if scheduler is not None:
            scheduler.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LEAVE_SECONDS if scheduler is None else STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin(self) -> None:
        with self._gate:
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._live, name="candleshm-loop", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    self._stopping.set()
                    raise CandleShmError(f"no thread can be started that serves: {error}") from None
                self._thread = thread

    def _follow_universe(self) -> None:
        with self._gate:
            scheduler = self._scheduler
        if scheduler is not None:
            scheduler.follow_universe()

    def _live(self) -> None:
        """Be the loop thread, from the first request to the end of the block."""
        try:
            with self._market.client() as connection:
                connected = connection.connect(self._stopping, self._log)
                if connected is not None:
                    self._serve(connection, *connected)
        except CandleShmError as error:
            self._failure = error
        except BaseException as error:
            self._log.exception("the collector ends because of an internal error")
            self._failure = error
        finally:
            self._ended.set()
            self._opened.set()

    def _serve(self, connection: Client, exchange_time: ExchangeTime, info: ExchangeInfo) -> None:
        config = self.config
        if info.weight_limit is not None:
            now_seconds = self._market.clock.monotonic_seconds()
            connection.budget.set_limit(info.weight_limit, info.window_seconds, now_seconds)
        self._store = _daily_files(config)
        symbols = list(dict.fromkeys([*self._universe.at_start(info), *self._left_behind()]))
        with self._gate:
            if self._stopping.is_set():
                return
            writer = Writer.open(
                config.block_name,
                market=config.market,
                interval=config.interval,
                length=config.length,
                symbols=symbols,
                spare_symbols=self._universe.spare_places(info),
                derive=config.derived,
            )
        try:
            self._fill(writer, connection, exchange_time)
            with self._gate:
                if self._stopping.is_set():
                    writer.close()
                    return
                self._scheduler = self._make_scheduler(writer, connection.budget, exchange_time, info)
        except BaseException:
            writer.close()
            raise
        self._log.info(
            "block %s, %d %s symbols, %d candles each",
            _come_by(writer),
            len(writer.symbols),
            config.market,
            config.length,
        )
        for name, interval in config.derived:
            self._log.info("%s candles derived into block %s", interval, name)
        self._opened.set()
        cache_writer = self._make_cache_writer(self._scheduler)
        daily_writer: DailyWriter | None = None
        if self._store is not None and config.download_time:
            daily_writer = self._make_daily_writer(self._store, config.download_time, writer, connection)
            daily_writer.start()
        try:
            try:
                self._scheduler.run()
            finally:
                if cache_writer is not None:
                    cache_writer.end()
        finally:
            if daily_writer is not None:
                daily_writer.stop(at_once=True)
                daily_writer.join(LEAVE_SECONDS)
            writer.close()
            self._log.info("stopped, block removed")

    def _fill(self, writer: Writer, connection: Client, exchange_time: ExchangeTime) -> None:
        """Put the rows into the block that earlier runs left behind, as far as they are not in it: from the cache, then
        from daily files, where that is asked for out of the archive.
        """
        now_ms = exchange_time.earliest_ms(self._market.clock.monotonic_seconds())
        # Rows that are derived of more than the block will hold come first: its own would only be derived beside them.
        for interval, cache in self._derived_caches.items():
            window_ms = self.config.length * INTERVAL_MS[interval.split("@")[0]]
            rows = cache.load_derived(writer, now_ms - window_ms, self._stopping)
            if rows:
                cache.log.info("%d rows loaded from cache %s", rows, cache.path)
        if self._cache is not None:
            rows = self._cache.load(writer, now_ms, self._stopping)
            if rows:
                self._log.info("%d rows loaded from cache %s", rows, self._cache.path)
        if self._store is not None:
            days = self._local_days(self._store, writer, now_ms)
            if self._archive is not None and days:
                self._take_archived(self._store, writer, connection, days)
            rows = load_days(writer, self._store, writer.symbols, days, self._stopping)
            if rows:
                self._log.info("%d rows loaded from daily files", rows)

    def _local_days(self, store: DayStore, writer: Writer, now_ms: int) -> list[Day]:
        """Return the days to have in files, newest first, as far as the window reaches."""
        window_ms = writer.window_start_ms(writer.symbols[0], now_ms)
        day = Day.of(now_ms, store.zone)
        days: list[Day] = []
        while len(days) < (self.config.local_candle_days or 0) and day.start_ms > window_ms:
            day = day.previous()
            days.append(day)
        return days

    def _take_archived(self, store: DayStore, writer: Writer, connection: Client, days: list[Day]) -> None:
        """Fetch the days that have no file; without them their rows are requested from the exchange."""
        asked = replace(self.config, symbols=writer.symbols, symbols_filter=(), symbol_contains="", symbol_endswith="")
        first, last = days[-1].date, days[0].date
        try:
            fetch_days(asked, store, connection, first, last, archive=self._archive, stopping=self._stopping)
        except CandleShmError as error:
            self._log.warning("nothing from the archive: %s", error)

    def _make_cache_writer(self, scheduler: Scheduler) -> CacheWriter | None:
        """Begin to write the cache every now and then; None where none is to be written."""
        delay_seconds = self.config.cache_delay_seconds
        if self._cache is None or delay_seconds is None:
            return None
        writer = CacheWriter([self._cache, *self._derived_caches.values()], delay_seconds, scheduler.exchange_ms)
        writer.start()
        return writer

    def _make_daily_writer(self, store: DayStore, time_of_day: str, writer: Writer, connection: Client) -> DailyWriter:
        config = self.config

        def trading() -> list[str]:
            scheduler = self._scheduler
            if scheduler is None:
                return []
            ended = set(scheduler.status.not_trading)
            return [symbol for symbol in writer.symbols if symbol not in ended]

        def fetch(day: Day, replace_files: bool) -> bool:  # noqa: FBT001
            asked = replace(config, symbols=trading(), symbols_filter=(), symbol_contains="", symbol_endswith="")
            done = fetch_days(
                asked,
                store,
                connection,
                day.date,
                day.date,
                replace=replace_files,
                archive=self._archive,
                stopping=self._stopping,
            )
            return done is not None and not done.is_stopped and done.failed == 0

        def now_ms() -> int | None:
            scheduler = self._scheduler
            # What is still being loaded would be asked for twice.
            return scheduler.exchange_ms() if scheduler is not None and scheduler.wait_loaded(0.0) else None

        return DailyWriter(
            store,
            clock=self._market.clock,
            time_of_day=time_of_day,
            settle_ms=config.settle_ms,
            now_ms=now_ms,
            symbols=trading,
            fetch=fetch,
            block=lambda: config.block_name,
            days_back=max(1, config.local_candle_days or 0),
        )

    def _left_behind(self) -> list[str]:
        """Return the symbols of a block that a killed collector left, as far as this feed would have carried them.

        Some may have been delisted since; without them the block, and the rows in it, could not be taken over.
        """
        config = self.config
        with suppress(BlockError), closing(Feed(config.block_name)) as feed:
            if (feed.market, feed.interval) == (config.market, config.interval):
                return [symbol for symbol in feed.symbols if self._universe.keeps(symbol)]
        return []

    def _find_streams(self) -> MakeStreams | None:
        """Return what makes the source of pushed candles; None where everything is requested. Raises MissingExtra."""
        config = self.config
        if config.live == "rest" or config.stream_hindrance is not None:
            return None
        try:
            library("websockets", "ws")
        except MissingExtra:
            if config.live == "ws":
                raise
            return None
        from candleshm.stream.manager import StreamManager

        def make_streams(sink: FrameSink, changed: Callable[[], None]) -> StreamSource:
            return StreamManager(
                self._market.exchange,
                config.interval,
                block_name=config.block_name,
                sink=sink,
                changed=changed,
                clock=self._market.clock,
                connects=open_connects(config, self._market.exchange.stream_rules(config.interval), self._market.clock),
            )

        return make_streams

    def _make_scheduler(
        self, writer: Writer, budget: WeightBudget, exchange_time: ExchangeTime, info: ExchangeInfo
    ) -> Scheduler:
        config = self.config
        return Scheduler(
            writer=writer,
            exchange=self._market.exchange,
            transport=self._market.transport,
            clock=self._market.clock,
            exchange_time=exchange_time,
            budget=budget,
            policy=PollPolicy(
                interval=config.interval,
                length=config.length,
                update_interval_seconds=config.update_interval_seconds,
                settle_ms=config.settle_ms,
                tail_limit=self._market.exchange.tail_limit,
                stall_seconds=stall_seconds(self._market.exchange.stream_rules(config.interval)),
                late_ms=CLOSE_LATE_MS,
            ),
            universe=self._universe,
            info=info,
            refresh_seconds=config.universe_refresh_seconds,
            workers=config.workers,
            make_streams=self._make_streams,
        )


def _come_by(writer: Writer) -> str:
    """Say how a block came to its collector."""
    if writer.taken_over:
        return "taken over"
    return f"created, with {writer.carried_rows} rows of the one before" if writer.carried_rows else "created"


def _origin(config: CollectorConfig) -> Origin:
    # A relay and a proxy respond for the exchange; names and passwords in addresses stay out of files.
    parts = urlsplit(config.base_url or MARKETS[config.market].host)
    exchange = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    return Origin(config.block_name, config.market, config.interval, exchange)


def _daily_files(config: CollectorConfig) -> DayStore | None:
    """Return where a feed keeps its days; None, with a line that says why, where it cannot."""
    if config.candle_dir is None:
        return None
    if config.interval not in DAILY_INTERVALS:
        BlockLog(logger, config.block_name).info("candles of %s have no daily files", config.interval)
        return None
    try:
        library("pyarrow", "parquet")
    except MissingExtra as error:
        BlockLog(logger, config.block_name).warning("no daily files are read or kept: %s", error)
        return None
    return store_of(config, config.candle_dir)


def _checked(symbols: Iterable[str]) -> list[str]:
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    for name in names:
        if not is_symbol_name(name):
            raise ConfigError(f"symbol cannot be `{name}`; allowed: {SYMBOL_NAMES}")
    return names
