"""The life of one collector: check, connect, take the block, run, end in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from candleshm._core import Feed, Writer
from candleshm.backoff import Backoff
from candleshm.cache import BlockCache, CacheKeeper, Origin
from candleshm.clock import Clock, ExchangeTime, SystemClock
from candleshm.config import CollectorConfig
from candleshm.errors import (
    CandleShmError,
    ConfigError,
    ExchangeUnavailable,
    MissingExtra,
    RateLimited,
    SegmentError,
)
from candleshm.exchanges.base import Exchange, ExchangeInfo
from candleshm.exchanges.binance import MARKETS, Binance
from candleshm.frames import library
from candleshm.inquiry import Inquiry
from candleshm.names import SYMBOL_NAMES, is_symbol_name
from candleshm.planner import Cadence
from candleshm.pools import open_budget
from candleshm.ratelimit import WeightBudget
from candleshm.scheduler import CollectorStatus, Scheduler
from candleshm.stream.following import Follow, StreamSource
from candleshm.stream.watchdog import silence_seconds
from candleshm.transport import HttpTransport, Transport
from candleshm.universe import Universe

if TYPE_CHECKING:
    from candleshm._core import Pushed

__all__ = ["Collector"]

logger = logging.getLogger("candleshm")

# The first measurement contains the handshake of a new connection; the others are a round trip apart.
MEASUREMENTS = 3
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
        self._clock = clock or SystemClock()
        self._exchange: Exchange = exchange or Binance(
            config.market, base_url=config.base_url, proxy_host=config.proxy_host, ws_url=config.ws_url
        )
        if config.interval not in self._exchange.intervals:
            raise ConfigError(
                f"interval cannot be `{config.interval}`; {config.market} has: {' '.join(self._exchange.intervals)}"
            )
        self._transport = transport or HttpTransport(self._clock, proxies=config.proxies, trust_env=config.trust_env)
        self._budget = budget
        self._universe = Universe(config)
        self._follow = self._find_streams()
        self._cache = None if config.cache_dir is None else BlockCache(config.cache_dir, _origin(config))
        self._gate = threading.Lock()
        self._stopping = threading.Event()
        self._opened = threading.Event()  # the block exists, or the start failed
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Connect, take the block and go on in the background; return once readers can attach.

        Called twice it does nothing the second time. Raises ExchangeUnavailable when the exchange cannot be reached for
        `start_seconds`, RateLimited or Banned, ConfigError (symbols), SegmentInUse: with nothing left behind.
        """
        self._begin()
        while not self._opened.wait(PROGRESS_SECONDS):
            if self._stopping.is_set():
                return
        self.raise_failure()

    def wait_loaded(
        self, timeout_seconds: float | None = None, progress: Callable[[CollectorStatus], object] | None = None
    ) -> bool:
        """Wait until every symbol is loaded or has failed three times; say whether that is so.

        `progress` is called about twice a second, in this thread. Returns False at the timeout and after `stop`.
        """
        deadline_seconds = None if timeout_seconds is None else self._clock.monotonic_seconds() + timeout_seconds
        while (scheduler := self._scheduler) is not None and not self._ended.is_set():
            left_seconds = PROGRESS_SECONDS
            if deadline_seconds is not None:
                left_seconds = min(left_seconds, deadline_seconds - self._clock.monotonic_seconds())
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
        """Return the exchange time that has surely been reached, None before the exchange has answered."""
        return self._scheduler.exchange_ms() if self._scheduler is not None else None

    def add_symbols(self, symbols: Iterable[str]) -> None:
        """Carry these symbols as well, soon; the filters do not count. One that is not listed comes when it is.

        When the block has no place left a larger one takes its place, and readers follow by themselves. Raises
        ConfigError for what cannot be a symbol.
        """
        self._universe.add(_checked(symbols))
        self._follow_universe()

    def remove_symbols(self, symbols: Iterable[str]) -> None:
        """Ask for these symbols no more. Their rows stay in the block, marked as not trading. Raises ConfigError."""
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
            budget = self._budget or open_budget(self.config, self._clock.monotonic_seconds())
            try:
                connected = self._connect(budget)
                if connected is not None:
                    self._serve(budget, *connected)
            finally:
                budget.leave(self._clock.monotonic_seconds())
        except CandleShmError as error:
            self._failure = error
        except BaseException as error:
            logger.exception("the collector of %s ends by a fault of its own", self.config.segment_name)
            self._failure = error
        finally:
            self._ended.set()
            self._opened.set()

    def _connect(self, budget: WeightBudget) -> tuple[ExchangeTime, ExchangeInfo] | None:
        """Measure the exchange's clock and read exchangeInfo; None when stopped meanwhile."""
        started_seconds = self._clock.monotonic_seconds()
        deadline_seconds = started_seconds + self.config.start_seconds
        inquiry = Inquiry(self._exchange, self._transport, self._clock, budget, self._stopping)
        backoff, random, attempt = Backoff(first_seconds=0.5, limit_seconds=5.0), Random(), 0
        while not self._stopping.is_set():
            try:
                exchange_time = self._measure(inquiry)
                for _ in range(MEASUREMENTS - 1):
                    exchange_time = exchange_time.refined(self._measure(inquiry))
                exchange = self._exchange
                info = exchange.info(inquiry.ask(exchange.info_url, exchange.info_weight, self.config.start_seconds))
            except (ExchangeUnavailable, RateLimited) as error:
                attempt += 1
                delay_seconds = backoff.delay_seconds(attempt, random)
                if isinstance(error, RateLimited):
                    delay_seconds = error.retry_after
                if self._clock.monotonic_seconds() + delay_seconds > deadline_seconds:
                    raise
                logger.warning("%s; asked again in %.1f s", error, delay_seconds)
                self._stopping.wait(delay_seconds)
            else:
                return exchange_time, info
        return None

    def _measure(self, inquiry: Inquiry) -> ExchangeTime:
        answer = inquiry.ask(self._exchange.time_url, self._exchange.time_weight, self.config.start_seconds)
        server_ms = self._exchange.server_time_ms(answer)
        return ExchangeTime.measured(answer.sent_seconds, answer.received_seconds, server_ms)

    def _serve(self, budget: WeightBudget, exchange_time: ExchangeTime, info: ExchangeInfo) -> None:
        config = self.config
        if info.weight_limit is not None:
            budget.set_limit(info.weight_limit, info.window_seconds, self._clock.monotonic_seconds())
        symbols = list(dict.fromkeys([*self._universe.at_start(info), *self._left_behind()]))
        with self._gate:
            if self._stopping.is_set():
                return
            writer = Writer.open(
                config.segment_name,
                market=config.market,
                interval=config.interval,
                length=config.length,
                symbols=symbols,
                spare_symbols=self._universe.spare_places(info),
            )
        try:
            self._fill(writer, exchange_time)
            with self._gate:
                if self._stopping.is_set():
                    writer.close()
                    return
                self._scheduler = self._make_scheduler(writer, budget, exchange_time, info)
        except BaseException:
            writer.close()
            raise
        logger.info(
            "%s: block %s, %d %s symbols, %d candles each",
            config.segment_name,
            "taken over" if writer.taken_over else "created",
            len(writer.symbols),
            config.market,
            config.length,
        )
        self._opened.set()
        keeper = self._keeper(self._scheduler)
        try:
            try:
                self._scheduler.run()
            finally:
                if keeper is not None:
                    keeper.end()
        finally:
            writer.close()
            logger.info("%s: stopped, block removed", config.segment_name)

    def _fill(self, writer: Writer, exchange_time: ExchangeTime) -> None:
        """Put the rows into the block that an earlier run left behind, as far as they are not in it."""
        if self._cache is not None:
            now_ms = exchange_time.earliest_ms(self._clock.monotonic_seconds())
            loaded = self._cache.load(writer, now_ms, self._stopping)
            if loaded:
                logger.info("%s: %d rows from cache %s", self.config.segment_name, loaded, self._cache.path)

    def _keeper(self, scheduler: Scheduler) -> CacheKeeper | None:
        """Begin to write the cache every now and then; None where none is to be written."""
        delay_seconds = self.config.cache_delay_seconds
        if self._cache is None or delay_seconds is None:
            return None
        keeper = CacheKeeper(self._cache, delay_seconds, scheduler.exchange_ms)
        keeper.start()
        return keeper

    def _left_behind(self) -> list[str]:
        """Return the symbols of a block that a killed collector left, as far as this feed would have carried them.

        Some may have been delisted since; without them the block, and the rows in it, could not be taken over.
        """
        config = self.config
        with suppress(SegmentError), closing(Feed(config.segment_name)) as feed:
            if (feed.market, feed.interval, feed.length) == (config.market, config.interval, config.length):
                return [symbol for symbol in feed.symbols if self._universe.keeps(symbol)]
        return []

    def _find_streams(self) -> Follow | None:
        """Return what makes the source of pushed candles; None where everything is asked for. Raises MissingExtra."""
        config = self.config
        if config.live == "rest" or config.stream_hindrance is not None:
            return None
        try:
            library("websockets", "ws")
        except MissingExtra:
            if config.live == "ws":
                raise
            return None
        from candleshm.stream.keeper import StreamKeeper

        def follow(
            ingest: Callable[[Sequence[bytes]], Pushed | None],
            heard_seconds: Callable[[], Mapping[str, float]],
            changed: Callable[[], None],
        ) -> StreamSource:
            return StreamKeeper(
                self._exchange,
                config.interval,
                ingest=ingest,
                heard_seconds=heard_seconds,
                changed=changed,
                clock=self._clock,
            )

        return follow

    def _make_scheduler(
        self, writer: Writer, budget: WeightBudget, exchange_time: ExchangeTime, info: ExchangeInfo
    ) -> Scheduler:
        config = self.config
        return Scheduler(
            writer=writer,
            exchange=self._exchange,
            transport=self._transport,
            clock=self._clock,
            exchange_time=exchange_time,
            budget=budget,
            cadence=Cadence(
                interval=config.interval,
                length=config.length,
                update_interval_seconds=config.update_interval_seconds,
                settle_ms=config.settle_ms,
                tail_limit=self._exchange.tail_limit,
                silence_seconds=silence_seconds(self._exchange.stream_rules(config.interval)),
                late_ms=CLOSE_LATE_MS,
            ),
            universe=self._universe,
            info=info,
            refresh_seconds=config.universe_refresh_seconds,
            workers=config.workers,
            follow=self._follow,
        )


def _origin(config: CollectorConfig) -> Origin:
    # A resender and a proxy answer for the exchange; names and passwords in addresses stay out of files.
    parts = urlsplit(config.base_url or MARKETS[config.market].host)
    exchange = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    return Origin(config.segment_name, config.market, config.interval, exchange)


def _checked(symbols: Iterable[str]) -> list[str]:
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    for name in names:
        if not is_symbol_name(name):
            raise ConfigError(f"symbol cannot be `{name}`; allowed: {SYMBOL_NAMES}")
    return names
