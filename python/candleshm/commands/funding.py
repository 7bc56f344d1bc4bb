"""The command `download --funding`: funding rates from the exchange into files."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence

from candleshm.commands.log import log_to_stderr
from candleshm.commands.progress import ProgressLine
from candleshm.commands.signals import on_stop_signal
from candleshm.commands.streams import say
from candleshm.config import CANDLE_DIR, CollectorConfig
from candleshm.errors import ConfigError, ExchangeError, HistoryError
from candleshm.history.day import DayLike
from candleshm.history.fetching import wanted_symbols
from candleshm.history.funding_files import FundingFiles
from candleshm.history.funding_rates import LISTED_MS, days_span, fetch_funding, funding_requests
from candleshm.reader.frames import library
from candleshm.system.log_text import counted
from candleshm.universe import Kind

__all__ = ["download_funding"]

logger = logging.getLogger(__name__)


def download_funding(
    feeds: Sequence[CollectorConfig], start: DayLike, end: DayLike | None, *, kind: Kind, replace: bool, quiet: bool
) -> None:
    """Download the funding rates of each feed's perpetual contracts, and print a sum.

    Raises ConfigError, StoreInUse, StoreUnavailable, MissingExtra, ExchangeError when the exchange does not respond at
    all, and HistoryError when symbols failed.
    """
    library("pyarrow", "parquet")
    stopping = threading.Event()
    on_stop_signal(stopping.set)
    log_to_stderr(logging.WARNING if quiet else logging.INFO)
    failed, where = 0, ""
    for config in feeds:
        files = FundingFiles(config.candle_dir or CANDLE_DIR, config.market)
        start_ms, end_ms = days_span(start, end)
        where, count, done = str(files.tree), 0, 0
        with files.writing(), funding_requests(config, stopping) as requests, ProgressLine("downloading") as line:
            connected = requests.client.connect(stopping)
            if connected is not None:
                time, info = connected
                now_ms = time.earliest_ms(requests.client.clock.monotonic_seconds())
                span = start_ms, min(end_ms, now_ms - LISTED_MS)
                if span[1] <= start_ms:
                    raise ConfigError(f"start cannot be `{start}`; allowed: a day that has begun")
                listed, left_out = wanted_symbols(config, info, kind, has_archive=False)
                symbols = [symbol for symbol in listed if "PERPETUAL" in info.contracts.get(symbol, "PERPETUAL")]
                if not symbols:
                    named = config.symbols if isinstance(config.symbols, str) else " ".join(config.symbols)
                    raise ConfigError(
                        f"symbols cannot be `{named}`: {config.market} lists no perpetual contract of that name"
                    )
                failed += left_out
                for symbol in symbols:
                    line.show(done / len(symbols), f"{done} of {len(symbols)} symbols, {count:,} funding rates")
                    try:
                        new = fetch_funding(files, requests, symbol, span, replace=replace)
                    except ExchangeError as error:
                        logger.error("%s: funding rates could not be fetched: %s", symbol, error)
                        failed += 1
                        new = 0
                    if new is None:
                        break
                    count, done = count + new, done + 1
        sent = counted(requests.sent, "request")
        say(f"{counted(done, 'symbol')} of {where}: {counted(count, 'new funding rate')}, {sent}\n", sys.stderr)
        if stopping.is_set():
            say("stopped; the same command continues from here\n", sys.stderr)
            return
    if failed:
        raise HistoryError(where, f"the funding rates of {counted(failed, 'symbol')} were not downloaded (see above)")
