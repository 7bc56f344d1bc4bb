"""CandleServer: a collector and a reader of its block in one process, under the names its users know.

It decides nothing of its own: `Collector` does the work and `attach` reads. What is here is translation.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from candleshm._core import INTERVAL_MS, MARKETS, Zone
from candleshm.collector.collector import Collector
from candleshm.collector.scheduler import CollectorStatus
from candleshm.columns import OPEN_TIME_MS
from candleshm.compat.rule import CandleRule, check_rule
from candleshm.config import CollectorConfig
from candleshm.errors import BlockNotFound, ConfigError, ExchangeError
from candleshm.exchanges.base import ExchangeInfo, Market
from candleshm.history.archive import ARCHIVE_URL
from candleshm.history.daily_writer import DailyWriter
from candleshm.history.day import Day, DayLike
from candleshm.history.fetching import Kind, archive_of, fetch_days, store_of
from candleshm.history.store import DayStore
from candleshm.history.tally import DownloadProgress, shown_date
from candleshm.reader.feed import Feed, attach
from candleshm.reader.frames import library
from candleshm.reader.health import Health
from candleshm.rest.client import Client, MarketAccess
from candleshm.system.clock import ExchangeTime, SystemClock
from candleshm.system.server_log import ServerLog
from candleshm.universe import TRADING, symbols_of

__all__ = ["CandleMap", "CandleRule", "CandleServer"]

logger = logging.getLogger("candleshm")

_Candles: TypeAlias = npt.NDArray[np.float64]

# A list of symbols weighs 20 on SPOT; who asks in a loop gets the same one for this long.
SYMBOLS_SECONDS = 60.0
MEASURED_SECONDS = 600.0
_NO_PROXIES: Mapping[str, str] = MappingProxyType({})


class CandleMap(Mapping[str, _Candles]):
    """Symbol -> its candles: a private, writable, C-ordered copy, float64 (n, 12), oldest first, the live row last.

    Slots without a row are left out. A symbol is in the map once it has a candle, and stays when it stops trading.
    Read-only as a mapping. Before the server runs it is empty; after its end it keeps the last state.
    """

    def __init__(self) -> None:
        self._feed: Feed | None = None
        self._kept: dict[str, _Candles] = {}
        self._confirmed_seconds: dict[str, float] = {}

    def __getitem__(self, symbol: str) -> _Candles:
        feed = self._feed
        if feed is None:
            return self._kept[symbol].copy()
        rows = feed[symbol].candles(out=np.empty((feed.length, 12)))
        if len(rows) == 0:
            raise KeyError(symbol)
        return rows

    def __iter__(self) -> Iterator[str]:
        feed = self._feed
        if feed is None:
            return iter(tuple(self._kept))
        return iter([symbol for symbol in feed.symbols if symbol in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, symbol: object) -> bool:
        feed = self._feed
        if feed is None:
            return symbol in self._kept
        return isinstance(symbol, str) and symbol in feed and feed[symbol].last_open_time_ms is not None

    def __repr__(self) -> str:
        return repr(dict(self))

    def _serve(self, feed: Feed) -> None:
        self._feed = feed

    def _keep(self, now_seconds: float) -> None:
        """Copy the last state out of the block: another collector may open one under the same name."""
        feed = self._feed
        if feed is not None:
            self._kept = dict(self)
            self._confirmed_seconds = {symbol: now_seconds - feed[symbol].age for symbol in self._kept}
            self._feed = None

    def _age_seconds(self, symbol: str, now_seconds: float) -> float:
        feed = self._feed
        return feed[symbol].age if feed is not None else now_seconds - self._confirmed_seconds[symbol]


class CandleServer:
    """Keeps `candle_map` filled and fresh, and serves it to other processes as a block in shared memory.

    `instType` is SPOT, UM or CM in any case. `proxies` is what requests takes; `proxy_host` is a resender, which gets
    `/api`, `/fapi` or `/dapi` before the path; `base_url` replaces the REST host itself and `ws_url` the stream host.
    `name` is the block's name, `candleshm-{market}-{BAR}` unless given. `live` says where live candles come from:
    requests ('rest'), streams ('ws', needs the extra ws) or, with 'auto', streams where they can be had: not through
    proxies, and not beside a `base_url` of which the `ws_url` is not given. `settle_seconds` is how long after a
    candle's end an answer has to be asked for to be final.

    Raises ConfigError before anything is started or written. Methods may be called from any thread.

    >>> class MyRule(CandleRule):
    ...     SYMBOLS = ["BTCUSDT"]
    >>> with CandleServer("SPOT", MyRule) as server:  # doctest: +SKIP
    ...     print(server.candle_map["BTCUSDT"][-1])
    """

    # How long the exchange may be unreachable at the start.
    _start_seconds: ClassVar[float] = 30.0

    def __init__(
        self,
        instType: str,
        rule: type[CandleRule] | CandleRule = CandleRule,
        proxies: Mapping[str, str] | None = _NO_PROXIES,
        proxy_host: str | None = None,
        *,
        name: str | None = None,
        base_url: str | None = None,
        ws_url: str | None = None,
        live: Literal["rest", "ws", "auto"] = "auto",
        settle_seconds: float = 1.0,
    ) -> None:
        market = next((market for market in MARKETS if market == str(instType).upper()), None)
        if market is None:
            raise ConfigError(f"instType cannot be `{instType}`; allowed: {' | '.join(MARKETS)}")
        check_rule(rule, market)
        self.rule = rule
        self.instType: Market = market
        self.candle_map = CandleMap()
        self._config = CollectorConfig(
            market=market,
            interval=rule.BAR,
            symbols=cast(Any, rule.SYMBOLS),
            symbols_filter=rule.SYMBOLS_FILTER,
            symbol_contains=rule.SYMBOL_CONTAINS,
            symbol_endswith=rule.SYMBOL_ENDSWITH,
            length=rule.LENGTH,
            server_weight=rule.SERVER_WEIGHT,
            update_interval_seconds=rule.UPDATE_INTERVAL_SECONDS,
            name=name,
            base_url=base_url,
            ws_url=ws_url,
            live=live,
            proxy_host=proxy_host,
            proxies=proxies or {},
            settle_seconds=settle_seconds,
            start_seconds=self._start_seconds,
            cache_dir=rule.CACHE_DIR,
            cache_delay_seconds=rule.CACHE_DELAY_SECONDS,
            candle_dir=rule.CANDLE_DIR,
            timezone=rule.TIMEZONE,
            download_time=rule.DOWNLOAD_TIME,
            local_candle_days=rule.LOCAL_CANDLE_DAYS,
        )
        self._zone = Zone(rule.TIMEZONE)
        self._log = ServerLog(
            rule.LOG_DIRPATH,
            self._zone,
            file_level=rule.LOG_FILE_LEVEL,
            console_level=rule.LOG_CONSOLE_LEVEL,
        )
        self._clock = SystemClock()
        self._market = MarketAccess(self._config, clock=self._clock)
        self._keeper: DailyWriter | None = None
        self._logging = 0
        # Re-entrant: a signal handler that closes may interrupt this very thread.
        self._gate = threading.RLock()
        self._collector: Collector | None = None
        self._is_running = False
        self._feed: Feed | None = None
        self._last_health: Health | None = None
        self._info: tuple[ExchangeInfo, float] | None = None
        self._time: ExchangeTime | None = None

    def run_candle_map(self) -> None:
        """Start, wait until every symbol is loaded or given up for now, and go on in the background.

        A symbol is given up when three requests in a row fail, or when answers do not complete its candles. The log
        names it, and it is retried later. Called while it runs, it waits likewise and starts nothing.
        Returns early when `close_run_candle_map` is called meanwhile. What still runs at the end of the process is
        closed then.

        Raises ExchangeUnavailable when the exchange cannot be reached for 30 s, RateLimited or Banned, ConfigError
        (no listed symbol is known), BlockInUse: with nothing left behind.
        """
        with self._gate:
            if self._is_running and self._collector is not None and self._collector.has_ended:
                self.close_run_candle_map()  # it failed; begin anew
            is_first = not self._is_running
            if is_first:
                self._collector, self._is_running = Collector(self._config), True
                self._open_log()
                atexit.register(self.close_run_candle_map)
            collector = self._collector
        assert collector is not None
        if not is_first:
            logger.info("run_candle_map is running already")
            collector.start()
            collector.wait_loaded()
            return
        try:
            collector.start()
            if (feed := self._attach(collector)) is not None:
                downloads = _Downloads(feed, self._zone)
                if collector.wait_loaded(progress=downloads):
                    downloads.complete(self._exchange_ms())
                    logger.info("COMPLETE PREPARE candle_map")
        except BaseException:
            with self._gate:
                if self._collector is collector:
                    self.close_run_candle_map()
            raise

    def close_run_candle_map(self) -> None:
        """Stop in under a second, keep the last state in `candle_map`, remove the block. Harmless when nothing runs."""
        with self._gate:
            if self._collector is None or not self._is_running:
                logger.info("run_candle_map is not running")
                return
            self._is_running = False
            atexit.unregister(self.close_run_candle_map)
            self._collector.stop()
            if self._feed is not None:
                self._last_health = self._feed.health
                self.candle_map._keep(self._clock.monotonic_seconds())
                self._feed = None
            self._close_log()

    def get_candle_security(self, symbol: str, security_seconds: float = 60 * 3) -> _Candles:
        """Return the candles of `symbol` as `candle_map` does, or an empty array when they are not fresh.

        They are fresh when the newest one opened less than `security_seconds` ago by the exchange's clock; with bars
        longer than 1m, when the exchange confirmed them less than `security_seconds` ago. An unknown symbol gives an
        empty array too.
        """
        now_seconds = self._clock.monotonic_seconds()
        try:
            rows = self.candle_map[symbol]
            if INTERVAL_MS[self._config.interval] > INTERVAL_MS["1m"]:
                age_seconds = self.candle_map._age_seconds(symbol, now_seconds)
            else:
                age_seconds = (self._exchange_ms() - rows[-1, OPEN_TIME_MS]) / 1000
        except KeyError:
            return np.array([])
        return rows if age_seconds < security_seconds else np.array([])

    def get_symbols_filtered(
        self, type: Literal["trading_on", "trading_off", "trading_all"] = "trading_on"
    ) -> dict[str, Any]:
        """Ask the exchange for its symbols; return those that the rule's SYMBOLS and filters leave.

        The answer is `{'code': 200, 'data': [symbol, ...], 'msg': ''}`; without an answer of the exchange `code` is
        its error code, else the HTTP status, else -1, `data` is empty and `msg` says why. A list in SYMBOLS keeps its
        order. Raises ConfigError for another `type`.
        """
        if type not in TRADING:
            raise ConfigError(f"type cannot be `{type}`; allowed: {' | '.join(TRADING)}")
        try:
            info = self._exchange_info()
        except ExchangeError as error:
            status = error.status if error.status != 200 else None
            return {"code": error.code or status or -1, "data": [], "msg": str(error)}
        return {"code": 200, "data": symbols_of(self._config, info, type), "msg": ""}

    def download_candles_by_date(
        self,
        start: DayLike,
        end: DayLike | None = None,
        type: Literal["trading_on", "trading_off", "trading_all"] = "trading_on",
        replace: bool = False,  # noqa: FBT001
        *,
        source: str = "exchange",
        verify: bool = False,
    ) -> DownloadProgress | None:
        """Fetch the days from `start` to `end`, both included, into CANDLE_DIR; return what came of them.

        Days are those of TIMEZONE, as 'YYYY-MM-DD', date, datetime or epoch ms; without `end` up to yesterday. Newest
        first; a file that is there and whole is not fetched again unless `replace`. `type` chooses among the symbols
        that the rule leaves: those that trade, do not trade, or all. None when the exchange was never asked.

        With `source` 'archive', or the address of a mirror, what the exchange's archive has comes from there, without
        weight. With `verify` all comes from the exchange and is compared with the archive; see docs/history.md.

        Raises ConfigError (`type`, `start`, `end`, `source`, nothing to fetch), StoreInUse, StoreUnavailable,
        MissingExtra, ExchangeUnavailable, RateLimited.
        """
        archive = None
        if source != "exchange" or verify:
            url = ARCHIVE_URL if source in {"archive", "exchange"} else source
            archive = archive_of(self._config, url, self._clock)
        self._open_log(to_files=True)
        try:
            with self._client() as client:
                return fetch_days(
                    self._config,
                    store_of(self._config, self.rule.CANDLE_DIR),
                    client,
                    start,
                    end,
                    kind=type,
                    replace=replace,
                    archive=archive,
                    verify=verify,
                )
        finally:
            self._close_log()

    def download_daily(
        self,
        start: DayLike | None = None,
        replace: bool = False,  # noqa: FBT001
        type: Literal["trading_on", "trading_off", "trading_all"] = "trading_on",
    ) -> None:
        """Write every day into CANDLE_DIR, in the background: those from `start` on, then yesterday at DOWNLOAD_TIME.

        Without `start` it begins with yesterday. A day that is there and whole is not written again; `replace` fetches
        those from `start` on anew. Called while it runs it does nothing. Ends with `close_download_daily`, or with the
        program, which waits for the day in hand, and says which days it leaves; Ctrl-C ends it at once.

        Raises ConfigError (`start`, `type`, DOWNLOAD_TIME is None), MissingExtra.
        """
        if type not in TRADING:
            raise ConfigError(f"type cannot be `{type}`; allowed: {' | '.join(TRADING)}")
        if self.rule.DOWNLOAD_TIME is None:
            raise ConfigError("DOWNLOAD_TIME is None; download_daily needs one such as 00:10:00")
        # What pyarrow imports with its first array, it cannot import once the program has come to its end.
        library("pyarrow", "parquet").array(np.zeros(1))
        library("pyarrow.parquet", "parquet")
        store = store_of(self._config, self.rule.CANDLE_DIR)
        first = None if start is None else Day.parse(start, self._zone)
        with self._gate:
            if self._keeper is not None and self._keeper.is_running:
                logger.info("download_daily is running already")
                return
            self._open_log(to_files=True)
            self._keeper = DailyWriter(
                store,
                clock=self._clock,
                time_of_day=self.rule.DOWNLOAD_TIME,
                settle_ms=self._config.settle_ms,
                now_ms=self._measured_ms,
                symbols=lambda: self._symbols(type),
                fetch=lambda day, anew: self._fetch_day(store, day, type, replace=anew),
                block=lambda: self._config.block_name if self._is_running else None,
                first=first,
                replace=replace,
                at_end=self._close_log,
                outlasts_main=True,
            )
            self._keeper.start()

    def close_download_daily(self) -> None:
        """End `download_daily` after the day in hand, without waiting for that. Harmless when it does not run."""
        with self._gate:
            if self._keeper is None or not self._keeper.is_running:
                logger.info("download_daily is not running")
            else:
                self._keeper.stop()

    def status(self) -> Health:
        """Return how the block and its collector are; after the end, how they were.

        Raises BlockNotFound before `run_candle_map` made the block.
        """
        feed, last = self._feed, self._last_health
        if feed is not None:
            return feed.health
        if last is not None:
            return last
        raise BlockNotFound(self._config.block_name, "not served yet; call run_candle_map()")

    def __enter__(self) -> Self:
        self.run_candle_map()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_run_candle_map()

    def _attach(self, collector: Collector) -> Feed | None:
        """Attach to the block of a started collector; None when the server was closed meanwhile."""
        with self._gate:
            if self._collector is not collector or not self._is_running:
                return None
            self._feed = attach(self._config.block_name)
            self.candle_map._serve(self._feed)
            self._log.to_files()
            return self._feed

    def _exchange_ms(self) -> int:
        """Return the exchange's time, as the newest collector measured it: the local clock may be wrong."""
        exchange_ms = None if self._collector is None else self._collector.exchange_ms()
        return self._clock.epoch_ms() if exchange_ms is None else exchange_ms

    def _measured_ms(self) -> int:
        """Return the exchange's time: of the collector, or measured here. Raises ExchangeError."""
        exchange_ms = None if self._collector is None else self._collector.exchange_ms()
        if exchange_ms is not None:
            return exchange_ms
        now_seconds = self._clock.monotonic_seconds()
        if self._time is None or now_seconds > self._time.measured_seconds + MEASURED_SECONDS:
            with self._client() as client:
                self._time = client.measure(threading.Event())
        return self._time.earliest_ms(self._clock.monotonic_seconds())

    def _symbols(self, kind: Kind) -> list[str]:
        return symbols_of(self._config, self._exchange_info(), kind)

    def _fetch_day(self, store: DayStore, day: Day, kind: Kind, *, replace: bool) -> bool:
        with self._client() as client:
            done = fetch_days(self._config, store, client, day.date, day.date, kind=kind, replace=replace)
        return done is not None and done.failed == 0

    def _open_log(self, *, to_files: bool = False) -> None:
        """Log as the rule says, until as many `_close_log` have followed."""
        with self._gate:
            self._logging += 1
            if self._logging == 1:
                self._log.open()
            if to_files:
                self._log.to_files()

    def _close_log(self) -> None:
        with self._gate:
            self._logging -= 1
            if self._logging == 0:
                self._log.close()

    def _client(self) -> AbstractContextManager[Client]:
        """Spend from the budget that the collector spends from."""
        return self._market.client()

    def _exchange_info(self) -> ExchangeInfo:
        """Ask for exchangeInfo, unless it is a minute old at most. Raises ExchangeError."""
        now_seconds = self._clock.monotonic_seconds()
        if self._info is not None and now_seconds < self._info[1] + SYMBOLS_SECONDS:
            return self._info[0]
        with self._client() as client:
            info = client.info(threading.Event())
        self._info = (info, now_seconds)
        return info


class _Downloads:
    """Says of each symbol when its candles are there, and at the end of all, in the words users know.

    The date is the day of a symbol's newest candle in the rule's TIMEZONE.
    """

    def __init__(self, feed: Feed, zone: Zone) -> None:
        self._feed = feed
        self._zone = zone
        self._waiting = dict.fromkeys(feed.symbols)
        self._given_up: frozenset[str] = frozenset()
        self._counts = {"SUC": 0, "WARN": 0, "ERROR": 0}

    def __call__(self, status: CollectorStatus) -> None:
        """Report what came since the last call."""
        self._given_up = frozenset(status.given_up)
        for symbol in tuple(self._waiting):
            series = self._feed[symbol]
            gaps = {gap.kind for gap in series.gaps()}
            if series.last_open_time_ms is not None and "missing" not in gaps:
                self._report(symbol, series.last_open_time_ms, has_holes="hole" in gaps)

    def complete(self, now_ms: int) -> None:
        """Report what is left, and the sums."""
        for symbol in tuple(self._waiting):
            last_ms = self._feed[symbol].last_open_time_ms
            if symbol in self._given_up:
                logger.error("%s: could not be loaded; it is retried later", symbol)
                self._counts["ERROR"] += 1
            elif last_ms is None:
                logger.warning("%s: the exchange has no candles of it yet", symbol)
                self._counts["WARN"] += 1
            else:
                self._report(symbol, last_ms, has_holes=False)
        counts = " ".join(f"{name}:{count}" for name, count in self._counts.items())
        total = sum(self._counts.values())
        logger.info("COMPLETE DOWNLOAD %s (ALL:%d SKIP:0 %s)", self._date(now_ms), total, counts)

    def _report(self, symbol: str, last_ms: int, *, has_holes: bool) -> None:
        del self._waiting[symbol]
        logger.info("DOWNLOAD %-10s %-3s %s", symbol, self._feed.interval, self._date(last_ms))
        if has_holes:
            logger.warning("%s: the exchange itself lacks candles; they are left out", symbol)
        self._counts["WARN" if has_holes else "SUC"] += 1

    def _date(self, epoch_ms: int) -> str:
        return shown_date(Day.of(epoch_ms, self._zone).date, self._zone)
