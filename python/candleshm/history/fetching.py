"""From what a user asks for to a download: which symbols, which days, into which files."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Literal

from candleshm.config import CollectorConfig
from candleshm.connection import Connection
from candleshm.errors import ConfigError
from candleshm.history.csv_tree import CsvStore
from candleshm.history.day import Day, DayLike, days_between, zone_of
from candleshm.history.download import Downloader, is_final
from candleshm.history.store import DayStore, ParquetStore
from candleshm.history.tally import DownloadProgress
from candleshm.universe import TRADING, symbols_of

__all__ = ["FORMATS", "Format", "Kind", "fetch_days", "store_of"]

logger = logging.getLogger("candleshm")

Kind = Literal["trading_on", "trading_off", "trading_all"]
Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")


def store_of(config: CollectorConfig, base_dir: str | os.PathLike[str], form: Format = "parquet") -> DayStore:
    """Return the files of a feed's market, interval and zone. Raises ConfigError."""
    kinds: dict[Format, Callable[..., DayStore]] = {"parquet": ParquetStore, "csv": CsvStore}
    if form not in kinds:
        raise ConfigError(f"format cannot be `{form}`; allowed: {' | '.join(FORMATS)}")
    return kinds[form](base_dir, config.market, config.interval, zone_of(config.timezone))


def fetch_days(
    config: CollectorConfig,
    store: DayStore,
    connection: Connection,
    start: DayLike | None,
    end: DayLike | None = None,
    *,
    kind: Kind = "trading_on",
    replace: bool = False,
    stopping: threading.Event | None = None,
    progress: Callable[[DownloadProgress], object] | None = None,
) -> DownloadProgress | None:
    """Fetch the days from `start` to `end`, both included, that are not in `store` and whole; newest first.

    Without `end` it is the newest day that is over, by the exchange's clock; without `start` only that one. A day that
    is not over is left out, with a line that says so. None when stopped before the exchange answered.

    Raises ConfigError (nothing to fetch), StoreInUse, StoreUnavailable, ExchangeUnavailable, RateLimited, MissingExtra.
    """
    if kind not in TRADING:
        raise ConfigError(f"type cannot be `{kind}`; allowed: {' | '.join(TRADING)}")
    stopping = stopping or threading.Event()
    first, last = (None if bound is None else Day.parse(bound, store.zone) for bound in (start, end))
    if first is not None and last is not None and last.date < first.date:
        raise ConfigError(f"end cannot be `{end}`; allowed: a day from start on, which is `{start}`")
    # Before the exchange is asked for anything: who has to wait for another download learns it at once.
    with store.writing():
        connected = connection.connect(stopping)
        if connected is None:
            return None
        exchange_time, info = connected
        now_ms = exchange_time.earliest_ms(connection.clock.monotonic_seconds())
        newest = newest_final(store, now_ms, config.settle_ms)
        last = last or newest
        days = [day for day in days_between(first or last, last) if day.date <= newest.date]
        if last.date > newest.date:
            logger.warning("%s is not over yet, so it is left out; the newest whole day is %s", last, newest)
        if not days:
            raise ConfigError(f"start cannot be `{start}`; allowed: a day that is over, up to {newest}")
        symbols = symbols_of(config, info, kind)
        if not symbols:
            raise ConfigError(f"symbols: {config.market} has none ({kind}) that is asked for and passes the filters")
        return Downloader(
            store,
            connection,
            exchange_time,
            info,
            settle_ms=config.settle_ms,
            workers=config.workers,
            stopping=stopping,
            progress=progress,
        ).run(symbols, days, replace=replace)


def newest_final(store: DayStore, now_ms: int, settle_ms: int) -> Day:
    """Return the newest day of which every candle is final at `now_ms`, exchange time."""
    day = Day.of(now_ms, store.zone)
    while not (is_final(day, store.interval, now_ms, settle_ms) and day.end_ms > day.start_ms):
        day = day.previous()
    return day
