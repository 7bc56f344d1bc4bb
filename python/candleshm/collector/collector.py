"""The life of one collector: check, connect, take the block, run, end in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from candleshm._core import Feed, Writer
from candleshm.collector.cache import CacheWriter
from candleshm.collector.filling import Filling
from candleshm.collector.left_blocks import remove_left_blocks
from candleshm.collector.older_series import FetchedBlock, fetched_blocks
from candleshm.collector.recording import Place, Recording
from candleshm.collector.report_writer import ReportWriter
from candleshm.collector.scheduler import Scheduler
from candleshm.collector.selection import Membership
from candleshm.collector.series_plan import PollPolicy
from candleshm.collector.shared_memory import SharedMemory
from candleshm.collector.status import CollectorStatus
from candleshm.config import SYMBOL_FIELDS, CollectorConfig
from candleshm.errors import (
    BlockError,
    CandleShmError,
    ConfigError,
    ExchangeError,
)
from candleshm.exchanges.base import Exchange, ExchangeInfo, ScheduledSession
from candleshm.exchanges.continuous import is_continuous
from candleshm.history.daily_writer import DailyWriter
from candleshm.history.day import Day
from candleshm.history.fetching import fetch_days
from candleshm.history.store import DayStore
from candleshm.names import SYMBOL_NAMES, is_symbol_name
from candleshm.network.addresses import Addresses
from candleshm.network.egress import Egress
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.pools import exchange_of, open_connects
from candleshm.rest.client import Client, MarketAccess
from candleshm.rest.transport import Transport
from candleshm.stream.manager import StreamManager
from candleshm.stream.source import EventSink, MakeStreams, StreamSource
from candleshm.stream.watchdog import stall_seconds
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime
from candleshm.system.log_text import counted, without_credentials
from candleshm.universe import Universe

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

    The work is done by daemon threads; every method may be called from any thread. Raises ConfigError for an interval
    that the market does not have. `exchange`, `transport`, `clock` and `budget` replace parts of it in tests, and a
    `membership` makes it one of several that share a feed: it collects what that selects.
    """

    def __init__(
        self,
        config: CollectorConfig,
        *,
        exchange: Exchange | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        budget: WeightBudget | None = None,
        membership: Membership | None = None,
    ) -> None:
        """Check the configuration as far as that needs no network. Raises ConfigError.

        With a `membership` the collector is one of several that share the feed, and collects what that selects.
        Without a `budget` it is the one that all processes of the user share for this pool, opened at the start.
        """
        self.config = config
        self._log = BlockLog(logger, config.block_name)
        self._market = MarketAccess(config, exchange=exchange, transport=transport, clock=clock, budget=budget)
        self._check_interval(() if config.symbols == "all" else config.symbols)
        self._universe = Universe(config)
        self._membership = membership
        self._make_streams = self._find_streams()
        self._stopping = threading.Event()
        self._filling = Filling(config, self._market.clock, self._stopping)
        self._gate = threading.Lock()
        self._opened = threading.Event()  # the block exists, or the start failed
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler | None = None
        self._cache_writer: CacheWriter | None = None
        self._daily_writer: DailyWriter | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Connect, take the block and go on in the background; return once readers can attach.

        A second call does nothing. Raises ExchangeUnavailable when the exchange cannot be reached for `start_seconds`,
        BadResponse when its responses cannot be used for as long, RateLimited or Banned, ConfigError (symbols),
        BlockInUse; then nothing is left behind.
        """
        self._begin()
        while not self._opened.wait(PROGRESS_SECONDS):
            if self._stopping.is_set():
                return
        self.raise_failure()

    def wait_loaded(
        self, timeout_seconds: float | None = None, progress: Callable[[CollectorStatus], object] | None = None
    ) -> bool:
        """Wait until every symbol is loaded or given up for now (`CollectorStatus.given_up`), its older rows in derived
        blocks included, and return True then.

        Returns False at the timeout and after `stop`.

        Args:
            timeout_seconds: None waits as long as it takes.
            progress: Called with the status about twice a second, in this thread.

        Raises:
            CandleShmError: What ended the collector.
        """
        deadline_seconds = None if timeout_seconds is None else self._market.clock.monotonic_seconds() + timeout_seconds
        while (scheduler := self._scheduler) is not None and not self._ended.is_set():
            left_seconds = PROGRESS_SECONDS
            if deadline_seconds is not None:
                left_seconds = min(left_seconds, deadline_seconds - self._market.clock.monotonic_seconds())
            loaded = scheduler.wait_filled(max(0.0, left_seconds))
            if progress is not None:
                progress(scheduler.status)
            if loaded or left_seconds <= 0:
                return loaded
        self.raise_failure()
        return False

    def run(
        self, until: threading.Event | None = None, progress: Callable[[CollectorStatus], object] | None = None
    ) -> None:
        """Serve until `until` is set, `stop` is called or the loop fails; then end in order. Raises as `start` does.

        `progress` is called with the status about twice a second until all symbols are loaded.
        """
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
        """Return the state of the collector, None before it has a block."""
        if self._scheduler is None:
            return None
        cache, daily = self._cache_writer, self._daily_writer
        return replace(
            self._scheduler.status,
            caches_failing=0 if cache is None else cache.failing,
            days_due=0 if daily is None else daily.days_due,
        )

    def exchange_ms(self) -> int | None:
        """Return the exchange time that has surely been reached, None before its first response."""
        return self._scheduler.exchange_ms() if self._scheduler is not None else None

    def wake(self) -> None:
        """Let the loop look at the clock again: for a `clock` that is moved by hand."""
        if self._scheduler is not None:
            self._scheduler.wake()

    def is_idle_at(self, local_seconds: float) -> bool:
        """Return whether everything is done that was due at `local_seconds` of the collector's `clock`."""
        return self._scheduler is not None and self._scheduler.is_idle_at(local_seconds)

    def add_symbols(self, symbols: Iterable[str]) -> None:
        """Collect these symbols as well, soon; the filters do not apply to them. One that the exchange does not list is
        added once it does.

        When the block has no place left, a larger one supersedes it, and readers follow by themselves. Raises
        ConfigError for what cannot be a symbol.
        """
        names = _checked(symbols)
        # The whole configuration knows what a symbol may be beside the others.
        replace(self.config, symbols=names)
        self._check_interval(names)
        self._universe.add(names)
        self._follow_universe()

    def remove_symbols(self, symbols: Iterable[str]) -> None:
        """Stop requesting these symbols. Their rows stay in the block, marked as not trading. Raises ConfigError."""
        self._universe.remove(_checked(symbols))
        self._follow_universe()

    def follow(self, config: CollectorConfig) -> None:
        """Collect the symbols that another configuration names and lets pass, as `add_symbols` and `remove_symbols` do.

        Nothing else of it is taken.
        """
        self.config = replace(self.config, **{name: getattr(config, name) for name in SYMBOL_FIELDS})
        self._universe.follow(self.config)
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
        self._filling.open_store()
        symbols = list(dict.fromkeys([*self._universe.at_start(info), *self._left_behind(info)]))
        spare_symbols = self._universe.spare_places(info)
        memory = SharedMemory.of(config, len(symbols) + spare_symbols)
        with self._gate:
            if self._stopping.is_set():
                return
            memory.check()
            writer = Writer.open(
                config.block_name,
                market=config.market,
                price=config.price,
                interval=config.interval,
                length=config.length,
                symbols=symbols,
                spare_symbols=spare_symbols,
                derive=config.derived,
                fetched={block.name: block.interval for block in self._fetched()},
                exchange=exchange_of(config),
            )
        try:
            recording = Recording(writer, Place.of(config), exchange_time)
            schedule = self._schedule(connection, info, symbols)
            now_ms = exchange_time.earliest_ms(self._market.clock.monotonic_seconds())
            self._filling.fill(writer, connection, now_ms)
            with self._gate:
                if self._stopping.is_set():
                    writer.close()
                    return
                self._scheduler = self._make_scheduler(
                    writer, connection.budget, exchange_time, info, schedule, recording
                )
        except BaseException:
            writer.close()
            raise
        self._log.info(
            "block %s, %s of %s, %d candles each; %s",
            _come_by(writer),
            counted(len(writer.symbols), "symbol"),
            config.market,
            config.length,
            memory,
        )
        if self._make_streams is None:
            reason = config.stream_hindrance or "live is rest"
            self._log.info(
                "no streams: %s; candles by REST requests every %g s", reason, config.update_interval_seconds
            )
        else:
            url = self._market.exchange.stream_rules(config.interval).urls[0]
            text = "candles by streams of %s (live is %s); by REST requests until they flow, and if one stalls"
            self._log.info(text, without_credentials(url), config.live)
        for block in config.derived:
            self._log.info("%s candles derived into block %s, %d each", block.interval, block.name, block.length)
        derived = tuple(block.name for block in config.derived)
        for left in remove_left_blocks(config.block_name, derived):
            self._log.info("block %s was derived before and is not now; it was removed", left)
        self._opened.set()
        report_writer = ReportWriter(config.block_name, self.status, derived=derived)
        report_writer.start()
        cache_writer = self._cache_writer = self._make_cache_writer(self._scheduler)
        if self._filling.store is not None and config.download_time:
            self._daily_writer = self._make_daily_writer(self._filling.store, config.download_time, writer, connection)
            self._daily_writer.start()
        try:
            try:
                with nullcontext() if self._membership is None else self._membership.serving(writer, self.status):
                    self._scheduler.run()
            finally:
                if cache_writer is not None:
                    cache_writer.end()
        finally:
            if self._daily_writer is not None:
                self._daily_writer.stop(at_once=True)
                self._daily_writer.join(LEAVE_SECONDS)
            report_writer.end()
            writer.close()
            self._log.info("stopped, block removed")

    def _make_cache_writer(self, scheduler: Scheduler) -> CacheWriter | None:
        """Start writing the cache regularly; return None where none is to be written."""
        delay_seconds = self.config.cache_delay_seconds
        if not self._filling.caches or delay_seconds is None:
            return None
        writer = CacheWriter(self._filling.caches, delay_seconds, scheduler.exchange_ms)
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
            wanted = config.of_symbols(trading())
            done = fetch_days(
                wanted,
                store,
                connection,
                day.date,
                day.date,
                replace=replace_files,
                archive=self._filling.archive,
                stopping=self._stopping,
            )
            return done is not None and not done.is_stopped and done.failed == 0

        def now_ms() -> int | None:
            scheduler = self._scheduler
            # Rows that are still being loaded would be requested twice.
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

    def _left_behind(self, info: ExchangeInfo) -> list[str]:
        """Return the symbols of a block that a killed collector left, as far as this feed would carry them.

        Some may have been delisted since; without them the block, and the rows in it, could not be taken over.
        """
        config = self.config
        with suppress(BlockError), closing(Feed(config.block_name)) as feed:
            here = (config.market, config.price, config.interval)
            if (feed.market, feed.price, feed.interval) == here and feed.exchange in {"", exchange_of(config)}:
                return [symbol for symbol in feed.symbols if self._universe.keeps(symbol, info)]
        return []

    def _check_interval(self, symbols: Sequence[str]) -> None:
        """Raise ConfigError where the market does not have the interval of these symbols; none stand for all."""
        exchange, config = self._market.exchange, self.config
        is_only_continuous = bool(symbols) and all(map(is_continuous, symbols))
        if config.interval in (exchange.continuous_intervals if is_only_continuous else exchange.intervals):
            return
        alone = ""
        if config.interval in exchange.continuous_intervals:
            alone = f", and `{config.interval}` of continuous contracts only, such as BTCUSDT:PERPETUAL"
        known = " ".join(exchange.intervals)
        raise ConfigError(f"interval cannot be `{config.interval}`; {config.market} has: {known}{alone}")

    def _find_streams(self) -> MakeStreams | None:
        """Return what makes the source of stream events; None where REST serves everything."""
        config, market = self.config, self._market
        if config.live == "rest" or config.stream_hindrance is not None:
            return None

        def make_streams(sink: EventSink, changed: Callable[[], None]) -> StreamSource:
            return StreamManager(
                market.exchange,
                config.interval,
                block_name=config.block_name,
                sink=sink,
                changed=changed,
                clock=market.clock,
                spin_seconds=config.spin_microseconds / 1e6,
                egress=Egress(Addresses(), proxies=config.proxies, trust_env=config.trust_env),
                connects=open_connects(config, market.exchange.stream_rules(config.interval), market.clock),
            )

        return make_streams

    def _schedule(
        self, connection: Client, info: ExchangeInfo, symbols: Sequence[str]
    ) -> dict[str, tuple[ScheduledSession, ...]]:
        """Request the hours of markets where a symbol has some; without them its candles are awaited at any time."""
        exchange = self._market.exchange
        if not exchange.schedule_url or not any(info.listed_as(symbol) in info.hours for symbol in symbols):
            return {}
        try:
            return exchange.schedule(
                connection.request(exchange.schedule_url, exchange.schedule_weight, self._stopping)
            )
        except ExchangeError as error:
            self._log.warning("the hours of markets are not known yet: %s", error)
            return {}

    def _fetched(self) -> list[FetchedBlock]:
        """Return the derived blocks whose older rows are requested."""
        return fetched_blocks(self.config.derived, self._market.exchange.intervals)

    def _make_scheduler(
        self,
        writer: Writer,
        budget: WeightBudget,
        exchange_time: ExchangeTime,
        info: ExchangeInfo,
        schedule: dict[str, tuple[ScheduledSession, ...]],
        recording: Recording,
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
            schedule=schedule,
            selection=None if self._membership is None else self._membership.selection,
            fetched=self._fetched(),
            recording=recording,
        )


def _come_by(writer: Writer) -> str:
    """Return how the collector came by its block."""
    if writer.taken_over:
        return "taken over"
    return f"created, with {writer.carried_rows} rows of the one before" if writer.carried_rows else "created"


def _checked(symbols: Iterable[str]) -> list[str]:
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    for name in names:
        if not is_symbol_name(name):
            raise ConfigError(f"symbol cannot be `{name}`; allowed: {SYMBOL_NAMES}")
    return names
