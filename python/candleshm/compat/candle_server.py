"""CandleServer: a collector and a reader of its block in one process, under the names its users know.

It decides nothing of its own: `Collector` does the work and `attach` reads. This module translates.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, Literal, Self

import numpy as np

from candleshm._core import INTERVAL_MS, MARKETS, Zone
from candleshm.columns import OPEN_TIME_MS
from candleshm.compat.candle_map import CandleMap, Candles
from candleshm.compat.log_files import RuleLog
from candleshm.compat.market_requests import MarketRequests
from candleshm.compat.rule import CandleRule, check_rule, config_of
from candleshm.compat.server_run import ServerRun
from candleshm.compat.trading_types import TradingType, kind_of
from candleshm.errors import BlockNotFound, ConfigError, ExchangeError
from candleshm.exchanges.base import Market
from candleshm.history.daily_writer import DailyWriter
from candleshm.history.day import Day, DayLike
from candleshm.history.fetching import store_of
from candleshm.history.tally import DownloadProgress
from candleshm.reader.feed import Feed
from candleshm.reader.frames import library
from candleshm.reader.health import Health
from candleshm.system.clock import SystemClock

__all__ = ["CandleMap", "CandleRule", "CandleServer"]

logger = logging.getLogger(__name__)

_NO_PROXIES: Mapping[str, str] = MappingProxyType({})


class CandleServer:
    """Keeps `candle_map` filled and fresh, and serves it to other processes as a block in shared memory.

    Args:
        instType: SPOT, UM or CM, in any case.
        rule: The settings, a subclass of CandleRule.
        proxies: Proxies as the library requests takes them.
        proxy_host: URL of a relay, which gets `/api`, `/fapi` or `/dapi` in front of the exchange's path.
        name: Name of the block. By default it is `candleshm-{market}-{BAR}`, with `-2`, `-3`, ... behind it where
            another program serves a block of that name without everything that the rule wants.
        base_url: Replaces the exchange's REST host.
        ws_url: Replaces the exchange's stream host.
        live: Source of live candles: requests ('rest'), streams ('ws'), or streams where they are
            possible ('auto'): not with a `proxy_host`, and not with a `base_url` but no `ws_url`.
        settle_seconds: A response makes a candle final only if it was requested at least this long after its end.

    Raises:
        ConfigError: before anything is started or written.

    Methods may be called from any thread.

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
        self._config = config_of(
            rule,
            market,
            name=name,
            base_url=base_url,
            ws_url=ws_url,
            live=live,
            proxy_host=proxy_host,
            proxies=proxies or {},
            settle_seconds=settle_seconds,
            start_seconds=self._start_seconds,
        )
        self._zone = Zone(rule.TIMEZONE)
        self._log = RuleLog(
            rule.LOG_DIRPATH,
            self._zone,
            file_level=rule.LOG_FILE_LEVEL,
            console_level=rule.LOG_CONSOLE_LEVEL,
        )
        self._clock = SystemClock()
        self._market = MarketRequests(self._config, self._clock)
        self._daily: DailyWriter | None = None
        # Re-entrant: a signal handler that closes may interrupt this very thread.
        self._gate = threading.RLock()
        self._run: ServerRun | None = None  # the newest one
        self._is_running = False
        self._last_health: Health | None = None

    def run_candle_map(self) -> None:
        """Start, wait until every symbol is loaded or given up for now, and go on in the background.

        A symbol is given up when three requests in a row fail, or when responses do not complete its candles. The log
        names it, and the collector retries it later. Where another program serves a block with all that the rule
        wants, this server reads it, and collects itself once that program has ended. A second call while the server
        runs waits in the same way and starts nothing. A call of `close_run_candle_map` ends the wait early. A server
        that still runs at the end of the process is closed then.

        Raises:
            ExchangeUnavailable: The exchange could not be reached for 30 s.
            RateLimited, Banned: The exchange refuses requests for now.
            ConfigError: The exchange knows none of the listed symbols.
            BlockInUse: Another program serves the block of the given `name`, without all that the rule wants.

        After an error nothing is left behind.
        """
        with self._gate:
            if self._is_running and self._run is not None and self._run.has_ended:
                self.close_run_candle_map()  # it failed; begin anew
            is_first = not self._is_running
            if is_first or self._run is None:
                self._run = ServerRun(
                    self._config, self._market, self._clock, self.candle_map, self._zone, self._log.to_files
                )
                self._is_running = True
                self._log.open()
                atexit.register(self.close_run_candle_map)
            run = self._run
        if not is_first:
            logger.info("run_candle_map is running already")
            run.wait_loaded()
            return
        try:
            run.start()
        except BaseException:
            with self._gate:
                if self._run is run:
                    self.close_run_candle_map()
            raise

    def close_run_candle_map(self) -> None:
        """Stop in under a second, keep the last state in `candle_map`, remove the block. Harmless when nothing runs."""
        with self._gate:
            run = self._run
            if run is None or not self._is_running:
                logger.info("run_candle_map is not running")
                return
            self._is_running = False
            atexit.unregister(self.close_run_candle_map)
            run.stop()
            if run.feed is not None:
                self._last_health = run.feed.health
                self.candle_map._keep(self._clock.monotonic_seconds())
            self._log.close()

    def get_candle_security(self, symbol: str, security_seconds: float = 60 * 3) -> Candles:
        """Return the candles of `symbol` as `candle_map` does, or an empty array when they are not fresh.

        They are fresh when the newest one opened less than `security_seconds` ago by the exchange's clock; with a BAR
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

    def get_symbols_filtered(self, type: TradingType = "trading_on") -> dict[str, Any]:
        """Request the exchange's symbols; return those that the rule's SYMBOLS and filters leave.

        The result is `{'code': 200, 'data': [symbol, ...], 'msg': ''}`. When the request fails, `code` is the
        exchange's error code, else the HTTP status, else -1; `data` is empty and `msg` gives the reason. A list in
        SYMBOLS keeps its order. Raises ConfigError for another `type`.
        """
        kind = kind_of(type)
        try:
            symbols = self._market.symbols(kind)
        except ExchangeError as error:
            status = error.status if error.status != 200 else None
            return {"code": error.code or status or -1, "data": [], "msg": str(error)}
        return {"code": 200, "data": symbols, "msg": ""}

    def download_candles_by_date(
        self,
        start: DayLike,
        end: DayLike | None = None,
        type: TradingType = "trading_on",
        replace: bool = False,  # noqa: FBT001
        *,
        source: str = "exchange",
        verify: bool = False,
    ) -> DownloadProgress | None:
        """Fetch the days from `start` to `end`, both included, into CANDLE_DIR; return what came of them.

        Days are those of TIMEZONE, as 'YYYY-MM-DD', date, datetime or epoch ms; without `end` up to yesterday. The
        newest day comes first; a complete file is not fetched again unless `replace`. `type` chooses among the symbols
        that the rule leaves: those that trade, do not trade, or all. The result is None when no request was sent.

        With `source` 'archive', or the URL of a mirror, days come from the exchange's archive as far as it has them,
        without weight. With `verify` all days come from the exchange and are compared with the archive; see
        docs/history.md.

        Raises ConfigError (`type`, `start`, `end`, `source`, nothing to fetch), StoreInUse, StoreUnavailable,
        MissingExtra, ExchangeUnavailable, RateLimited.
        """
        kind = kind_of(type)
        self._log.open(to_files=True)
        try:
            return self._market.fetch_days(
                store_of(self._config, self.rule.CANDLE_DIR),
                start,
                end,
                kind=kind,
                replace=replace,
                source=source,
                verify=verify,
            )
        finally:
            self._log.close()

    def download_daily(
        self,
        start: DayLike | None = None,
        replace: bool = False,  # noqa: FBT001
        type: TradingType = "trading_on",
    ) -> None:
        """Write every day into CANDLE_DIR, in the background: those from `start` on, then yesterday at DOWNLOAD_TIME.

        Without `start` it begins with yesterday. A complete day is not written again; `replace` fetches the days from
        `start` on again. A second call while it runs does nothing. It ends with `close_download_daily`, or with the
        program, which waits for the day that is being written and logs the days that it leaves; Ctrl-C ends it at once.

        Raises ConfigError (`start`, `type`, DOWNLOAD_TIME is None), MissingExtra.
        """
        kind = kind_of(type)
        if self.rule.DOWNLOAD_TIME is None:
            raise ConfigError("DOWNLOAD_TIME is None; download_daily needs one such as 00:10:00")
        # What pyarrow imports with its first array, it cannot import once the program has come to its end.
        library("pyarrow", "parquet").array(np.zeros(1))
        library("pyarrow.parquet", "parquet")
        store = store_of(self._config, self.rule.CANDLE_DIR)
        first = None if start is None else Day.parse(start, self._zone)
        with self._gate:
            if self._daily is not None and self._daily.is_running:
                logger.info("download_daily is running already")
                return
            self._log.open(to_files=True)
            self._daily = DailyWriter(
                store,
                clock=self._clock,
                time_of_day=self.rule.DOWNLOAD_TIME,
                settle_ms=self._config.settle_ms,
                now_ms=self._measured_ms,
                symbols=lambda: self._market.symbols(kind),
                fetch=lambda day, anew: self._market.fetch_day(store, day, kind, replace=anew),
                block=self._block_name,
                first=first,
                replace=replace,
                at_end=self._log.close,
                outlasts_main=True,
            )
            self._daily.start()

    def close_download_daily(self) -> None:
        """End `download_daily` after the current day, without waiting for it. Harmless when it does not run."""
        with self._gate:
            if self._daily is None or not self._daily.is_running:
                logger.info("download_daily is not running")
            else:
                self._daily.stop()

    def status(self) -> Health:
        """Return the state of the block and its collector; after the end, their last state.

        Raises BlockNotFound before `run_candle_map` made the block.
        """
        feed, last = self._feed, self._last_health
        if feed is not None:
            return feed.health
        if last is not None:
            return last
        raise BlockNotFound(self._config.block_name, "not served yet; call run_candle_map()")

    def __repr__(self) -> str:
        feed, word = self._feed, "not started" if self._last_health is None else "closed"
        if feed is not None:
            # Another thread may close the server meanwhile.
            with suppress(BlockNotFound):
                word = feed.health.condition
        return f"<CandleServer {self.instType} {self._config.interval} of {self._config.block_name}: {word}>"

    def __enter__(self) -> Self:
        self.run_candle_map()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_run_candle_map()

    @property
    def _feed(self) -> Feed | None:
        """The block that is served or read; None before the start and after the end."""
        run = self._run
        return run.feed if run is not None and self._is_running else None

    def _block_name(self) -> str | None:
        feed = self._feed
        return None if feed is None else feed.name

    def _exchange_ms(self) -> int:
        """Return the exchange's time, as it was measured last: the local clock may be wrong."""
        measured_ms = None if self._run is None else self._run.exchange_ms()
        return self._clock.epoch_ms() if measured_ms is None else measured_ms

    def _measured_ms(self) -> int:
        """Return the exchange's time as it was measured by a run, or measure it. Raises ExchangeError."""
        measured_ms = None if self._run is None else self._run.exchange_ms()
        return self._market.exchange_ms() if measured_ms is None else measured_ms
