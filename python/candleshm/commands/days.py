"""The commands `download`, `import-csv` and `history repack`: files of candles fetched, converted and moved."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from candleshm.commands.log import log_to_stderr
from candleshm.commands.progress import ProgressLine
from candleshm.commands.signals import on_stop_signal
from candleshm.commands.streams import say
from candleshm.commands.table import aligned
from candleshm.config import CANDLE_DIR, CollectorConfig
from candleshm.errors import ConfigError, HistoryError
from candleshm.history.archive import ARCHIVE_URL, checked_archive_url
from candleshm.history.csv_tree import strange_paths
from candleshm.history.fetching import Format, archive_of, fetch_days, store_of
from candleshm.history.importing import import_files
from candleshm.history.repacking import days_to_repack, stores_in
from candleshm.history.repacking import repack as repack_days
from candleshm.history.tally import DownloadProgress
from candleshm.reader.frames import library
from candleshm.rest.client import MarketAccess
from candleshm.system.log_text import counted
from candleshm.universe import Kind

__all__ = ["download", "import_csv", "repack"]

logger = logging.getLogger(__name__)

OUTCOMES = ("imported", "incomplete", "there", "damaged")


def download(
    feeds: Sequence[CollectorConfig],
    start: str,
    end: str | None,
    *,
    kind: Kind,
    form: Format,
    replace: bool,
    source: Literal["exchange", "archive"],
    archive_url: str | None,
    verify: bool,
    quiet: bool,
) -> None:
    """Download days of each feed until all are stored or a signal stops it, and print a sum; with `quiet` no days.

    Raises as `fetch_days`, ConfigError (`archive_url`), and HistoryError when days could not be fetched, or differ from
    the archive that was to `verify` them.
    """
    asks_archive = source == "archive" or verify
    if archive_url is not None and not asks_archive:
        raise ConfigError(f"archive_url needs source `archive` or verify, and was given without: `{archive_url}`")
    address = checked_archive_url(archive_url or ARCHIVE_URL)
    if form == "parquet":
        library("pyarrow", "parquet")
    stopping = threading.Event()
    on_stop_signal(stopping.set)
    # A line for each day is enough; there may be hundreds of files in it.
    log_to_stderr(logging.WARNING if quiet else logging.INFO, without="day_written")
    failed, files, conflicts, left_out, where = 0, 0, 0, 0, ""
    for config in feeds:
        store = store_of(config, config.candle_dir or CANDLE_DIR, form)
        access = MarketAccess(config)
        archive = archive_of(config, address, access.clock, stopping) if asks_archive else None
        with access.client() as client, ProgressLine("downloading") as line:
            done = fetch_days(
                config,
                store,
                client,
                start,
                end,
                kind=kind,
                replace=replace,
                archive=archive,
                verify=verify,
                stopping=stopping,
                progress=partial(_show, line),
            )
        if done is not None:
            say(_sum(done, str(store.tree)), sys.stderr)
        if done is None or done.is_stopped:
            say("stopped; the same command continues from here\n", sys.stderr)
            return
        left_out += done.left_out
        if done.failed or done.conflicts or done.left_out:
            where = str(store.tree)
        failed, files, conflicts = failed + done.failed, files + done.files, conflicts + done.conflicts
        if verify:
            logger.info("verified: the archive agrees on %d candles and differs on %d", done.verified, conflicts)
    if failed:
        raise HistoryError(
            where, f"{failed} of {counted(files, 'daily file')} not downloaded; the same command retries them"
        )
    if left_out:
        raise HistoryError(
            where,
            f"{counted(left_out, 'symbol')} left out (see above); --type all includes what no longer trades",
        )
    if verify and conflicts:
        raise HistoryError(
            where,
            f"{counted(conflicts, 'candle')} not as in the archive; the exchange's are kept, not verified",
        )


def import_csv(source_dir: Path, base_dir: str, *, replace: bool) -> None:
    """Import a CSV tree and print the outcomes as a table.

    Raises ConfigError where there is no such directory, HistoryError when files are damaged.
    """
    library("pyarrow", "parquet")
    if not source_dir.is_dir():
        what = "it is no directory" if source_dir.exists() else "there is no such directory"
        raise ConfigError(f"the directory to import cannot be `{source_dir}`: {what}")
    counts: Counter[tuple[str, str, str, str]] = Counter()
    damaged = []
    with ProgressLine("importing") as line:
        for file in import_files(source_dir, base_dir, replace=replace):
            counts[file.market, file.interval, file.timezone, file.outcome] += 1
            if file.outcome == "damaged":
                damaged.append(f"{file.path}: {file.reason}\n")
            line.show(None, f"{counts.total()} files, {len(damaged)} damaged")
    strange = [f"{path}: its path does not name market, interval, zone and day\n" for path in strange_paths(source_dir)]
    if not counts and not strange:
        raise HistoryError(str(source_dir), "holds no files such as SPOT-UTC-1m/2026-11/2026-11-23/BTCUSDT.csv")
    trees = sorted({key[:3] for key in counts})
    rows = [(*tree, *(str(counts[*tree, outcome]) for outcome in OUTCOMES)) for tree in trees]
    heads = ("MARKET", "INTERVAL", "TIMEZONE", *(outcome.upper() for outcome in OUTCOMES))
    sys.stdout.write(aligned(heads, rows, left=("MARKET", "INTERVAL", "TIMEZONE")))
    sys.stdout.writelines([*damaged, *strange])
    if damaged:
        raise HistoryError(str(source_dir), f"{len(damaged)} of {counted(counts.total(), 'file')} damaged and left out")
    if strange:
        raise HistoryError(str(source_dir), f"{counted(len(strange), 'file')} left out because of their paths")


def repack(base_dir: str, *, quiet: bool) -> None:
    """Move days that have files of their own into those of months and years, and print a sum.

    Raises StoreInUse, StoreUnavailable, MissingExtra, and HistoryError when files are damaged.
    """
    library("pyarrow", "parquet")
    if not Path(base_dir).is_dir():
        raise ConfigError(f"candle_dir cannot be `{base_dir}`: there is no such directory")
    stopping = threading.Event()
    on_stop_signal(stopping.set)
    log_to_stderr(logging.WARNING if quiet else logging.INFO)
    stores = stores_in(base_dir)
    total, moved, files, damaged = days_to_repack(stores), 0, 0, 0
    with ProgressLine("repacking") as line:
        for done in repack_days(stores, stopping):
            moved, files, damaged = moved + done.days, files + (done.days > 0), damaged + len(done.damaged)
            for error in done.damaged:
                logger.error("%s; it is left as it is", error)
            line.show((moved + damaged) / max(total, 1), f"{moved:,} of {total:,} days, {files:,} files")
    made = f"{counted(files, 'file')} of a month or a year"
    say(f"{moved:,} of {counted(total, 'day')} of {base_dir} moved into {made}\n", sys.stderr)
    if stopping.is_set():
        say("stopped; the same command continues from here\n", sys.stderr)
    if damaged:
        raise HistoryError(
            base_dir,
            f"{counted(damaged, 'damaged file')} left alone; `candleshm download` replaces the days in it",
        )


def _sum(done: DownloadProgress, where: str) -> str:
    """Return what came of the files of one feed, in a line."""
    outcomes = (
        f"{done.written:,} new, {done.skipped:,} done before, {done.remarked:,} with remarks, {done.failed:,} failed"
    )
    costs = f"{counted(done.requests, 'request')}, {counted(done.rows, 'candle')}, {done.elapsed_seconds:.0f} s"
    return f"{done.files_done:,} of {counted(done.files, 'daily file')} of {where}: {outcomes}; {costs}\n"


def _show(line: ProgressLine, progress: DownloadProgress) -> None:
    """Show the share that is done, with symbols, days, weight and the time left."""
    days = progress.files // max(1, progress.symbols)
    words = [
        counted(progress.symbols, "symbol"),
        f"{progress.files_done // max(1, progress.symbols)} of {counted(days, 'day')}",
        f"weight {progress.weight_used / max(1, progress.weight_limit):.0%}",
    ]
    if progress.failed:
        words.append(f"{progress.failed} failed")
    if progress.blocked_seconds > 0:
        words.append(f"the exchange refuses requests for {math.ceil(progress.blocked_seconds)} s")
    elif progress.eta_seconds:
        words.append(f"{math.ceil(progress.eta_seconds)} s left")
    line.show(progress.files_done / max(1, progress.files), ", ".join(words))
