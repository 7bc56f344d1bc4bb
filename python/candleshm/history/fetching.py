"""From a user's request to a download: which symbols, which days, into which files."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Literal

from candleshm._core import Zone
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import ExchangeInfo
from candleshm.history.archive import WHOLE_SECONDS, Archive, Mirror, checked_archive_url
from candleshm.history.archive_days import ArchiveDays
from candleshm.history.csv_tree import CsvStore
from candleshm.history.day import Day, DayLike, days_between
from candleshm.history.downloader import Downloader, is_final
from candleshm.history.store import DayStore, ParquetStore
from candleshm.history.tally import DownloadProgress, Tally
from candleshm.history.verification import Verification
from candleshm.rest.client import Client
from candleshm.rest.transport import HttpTransport, Transport
from candleshm.system.clock import Clock
from candleshm.universe import KINDS, Kind, Universe, check_names, nearest, symbols_of

__all__ = ["FORMATS", "Format", "archive_of", "fetch_days", "store_of", "wanted_symbols"]

logger = logging.getLogger(__name__)

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")


def store_of(config: CollectorConfig, base_dir: str | os.PathLike[str], form: Format = "parquet") -> DayStore:
    """Return the files of a feed's market, price, interval and zone. Raises ConfigError."""
    kinds: dict[Format, Callable[..., DayStore]] = {"parquet": ParquetStore, "csv": CsvStore}
    if form not in kinds:
        raise ConfigError(f"format cannot be `{form}`; allowed: {' | '.join(FORMATS)}")
    return kinds[form](base_dir, config.market, config.interval, Zone(config.timezone), price=config.price)


def archive_of(config: CollectorConfig, url: str, clock: Clock, stopping: threading.Event | None = None) -> Archive:
    """Return the archive at `url`, reached as the feed's exchange is. Raises ConfigError."""
    url = checked_archive_url(url)
    transport: Transport = Mirror(clock)
    if not url.startswith("file:"):
        transport = HttpTransport(
            clock, proxies=config.proxies, trust_env=config.trust_env, whole_seconds=WHOLE_SECONDS
        )
    return Archive(transport, clock, base_url=url, stopping=stopping)


def fetch_days(
    config: CollectorConfig,
    store: DayStore,
    client: Client,
    start: DayLike | None,
    end: DayLike | None = None,
    *,
    kind: Kind = "trading",
    replace: bool = False,
    archive: Archive | None = None,
    verify: bool = False,
    stopping: threading.Event | None = None,
    progress: Callable[[DownloadProgress], object] | None = None,
) -> DownloadProgress | None:
    """Fetch the days from `start` to `end`, both included, without a complete file in `store`; newest first.

    Without `end` it is the newest day that is over, by the exchange's clock; without `start` only that one. A day that
    is not over is left out and logged. None when stopped before the exchange responded.

    With `archive` the days come from there as far as it has them, the rest from the exchange. With `verify` they
    all come from the exchange, and what is stored is then compared with the archive.

    Raises ConfigError (nothing to fetch, nowhere to keep what is verified), StoreInUse, StoreUnavailable,
    ExchangeUnavailable, RateLimited, MissingExtra.
    """
    if kind not in KINDS:
        raise ConfigError(f"type cannot be `{kind}`; allowed: {' | '.join(KINDS)}")
    if verify and archive is None:
        raise ConfigError("verify cannot be used without an archive to compare with")
    if verify and not isinstance(store, ParquetStore):
        raise ConfigError("verify cannot be used with format `csv`: CSV files cannot mark a candle as verified")
    stopping = stopping or threading.Event()
    first, last = (None if bound is None else Day.parse(bound, store.zone) for bound in (start, end))
    if first is not None and last is not None and last.date < first.date:
        raise ConfigError(f"end cannot be `{end}`; allowed: a day from start on, which is `{start}`")
    # Before the first request: another download that writes there is reported at once.
    with store.writing():
        connected = client.connect(stopping)
        if connected is None:
            return None
        exchange_time, info = connected
        now_ms = exchange_time.earliest_ms(client.clock.monotonic_seconds())
        newest = newest_final(store, now_ms, config.settle_ms)
        last = last or newest
        days = list(days_between(first or last, min(last, newest, key=lambda day: day.date)))
        if last.date > newest.date:
            logger.warning("%s is not over yet and is left out; the newest complete day is %s", last, newest)
        if not days:
            raise ConfigError(f"start cannot be `{start}`; allowed: a day that is over, up to {newest}")
        check_names(config, info)
        symbols, left_out = wanted_symbols(config, info, kind, has_archive=archive is not None)
        if not symbols:
            named = "all" if config.symbols == "all" else ", ".join(config.symbols)
            named_first = None if config.symbols == "all" else config.symbols[0]
            if named_first and not info.lists(named_first) and (hint := nearest(named_first, info, config.market)):
                raise ConfigError(
                    f"symbols cannot be `{named}`: {config.market} lists none of them{hint} (source `archive` has "
                    f"those that are no longer listed)"
                )
            raise ConfigError(
                f"symbols cannot be `{named}`: {config.market} lists none of type `{kind}` that passes the filters; "
                f"type `all` has those that no longer trade, source `archive` those that are no longer listed"
            )
        archived = None
        if archive is not None:
            archived = ArchiveDays(archive, config.market, config.price, config.interval, days, now_ms)
        report = progress or (lambda _: None)
        done = Downloader(
            store,
            client,
            exchange_time,
            info,
            Tally("downloaded", len(symbols), days, client.clock, report, client.budget),
            stopping,
            settle_ms=config.settle_ms,
            threads=config.workers,
            archive=None if verify else archived,
            only_exchange=verify,
        ).run(symbols, days, replace=replace)
        done.left_out = left_out
        if verify and archived is not None and not done.is_stopped:
            tally = Tally("verified", len(symbols), days, client.clock, report)
            verified = Verification(store, archived, client.clock, tally, stopping).run(symbols, days)
            done.verified, done.conflicts, done.is_stopped = verified.verified, verified.conflicts, verified.is_stopped
        return done


def wanted_symbols(
    config: CollectorConfig, info: ExchangeInfo, kind: Kind, *, has_archive: bool
) -> tuple[list[str], int]:
    """Return the symbols to fetch, and how many of those that were named are left out; each of them is logged.

    Symbols that the exchange no longer lists are requested all the same: the archive keeps delivered contracts. Without
    an archive they are left out when no listed symbol is wanted.
    """
    listed = symbols_of(config, info, kind)
    if config.symbols == "all":
        return listed, 0
    universe = Universe(config)
    unlisted = universe.unlisted(info)
    is_requested = has_archive or bool(listed)
    fate = "requested all the same" if is_requested else "left out"
    for name in unlisted:
        logger.warning("%s: %s does not list it, %s%s", name, config.market, fate, nearest(name, info, config.market))
    others = [name for name in universe.wanted(info) if name not in listed]
    for name in others:
        logger.warning(
            "%s: left out, its status is %s; type `all` includes it", name, info.statuses[info.listed_as(name)]
        )
    return [*listed, *(unlisted if is_requested else ())], len(others)


def newest_final(store: DayStore, now_ms: int, settle_ms: int) -> Day:
    """Return the newest day of which every candle is final at `now_ms`, exchange time."""
    day = Day.of(now_ms, store.zone)
    while not (is_final(day, store.interval, now_ms, settle_ms) and day.end_ms > day.start_ms):
        day = day.previous()
    return day
