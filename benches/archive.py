"""The bulk archive: 100 symbols x 30 days of 1m from zips on this machine's disk into daily files.

    python benches/archive.py                       both kinds of files, and where the time goes
    python benches/archive.py --symbols 20 --days 7
    python benches/archive.py --json FILE

The zips are made before, from the simulated exchange's candles; they are read from a directory (`file://`), so that no
second program needs a core. Everything that was written is read back and compared with the truth, outside the time.
`pandas.read_csv` reads the same zips beside it, and writes nothing. The predecessor has no way to read the archive.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from candleshm import history
from candleshm._core import Zone, parse_archive_csv
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import DAY_MS
from candleshm.exchanges.binance import Binance
from candleshm.history import parquet
from candleshm.history.archive import Archive, Mirror
from candleshm.history.archive_file import ArchiveFile
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day
from candleshm.history.fetching import fetch_days, store_of
from candleshm.ratelimit.budget import WeightBudget
from candleshm.rest.client import Client
from candleshm.rest.transport import HttpTransport
from candleshm.sim import SimulatedExchange
from candleshm.sim.rest.archive import ArchiveName, SimulatedArchive
from candleshm.system.atomic_file import replace_file
from candleshm.system.clock import SystemClock

# A whole month whose file is there, whenever this runs.
FIRST = date(2026, 9, 1)
NOW_MS = 1_792_000_000_000  # 2026-10-14
STEPS_FILES = 300
VOICES = 4  # symbols whose candles are made; the others carry copies under their own names


@dataclass(frozen=True)
class Archived:
    """Zips in a directory."""

    directory: Path
    names: Sequence[str]
    files: Sequence[ArchiveFile]
    zip_bytes: int


def running() -> int:
    """Return the exchange's time: it has to go on, or nobody would believe it."""
    return NOW_MS + time.monotonic_ns() // 1_000_000 % DAY_MS


def make(exchange: SimulatedExchange, directory: Path, names: Sequence[str], days: int, *, monthly: bool) -> Archived:
    """Write the archive's files of these symbols."""
    made = SimulatedArchive(exchange.truth)
    dates = [FIRST] if monthly else [FIRST + timedelta(days=number) for number in range(days)]
    lines = {
        (name, first): made._lines(ArchiveName("SPOT", "monthly" if monthly else "daily", name, "1m", first, False), ())
        for name in names[:VOICES]
        for first in dates
    }
    files = [ArchiveFile("SPOT", name, "1m", first, is_month=monthly) for name in names for first in dates]

    def write(file: ArchiveFile, text: str) -> int:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file.name.removesuffix(".zip") + ".csv", text)
        path = directory / file.path[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed.getvalue())
        path.with_name(f"{path.name}.CHECKSUM").write_text(
            f"{hashlib.sha256(packed.getvalue()).hexdigest()}  {file.name}\n"
        )
        return len(packed.getvalue())

    texts = {key: "\n".join([*text, ""]) for key, text in lines.items()}
    with ThreadPoolExecutor(2) as pool:
        sizes = pool.map(lambda file: write(file, texts[names[names.index(file.symbol) % VOICES], file.first]), files)
        return Archived(directory, names, files, sum(sizes))


def download(exchange: SimulatedExchange, archived: Archived, candle_dir: Path, days: int) -> tuple[float, float]:
    """Return wall and CPU seconds of a whole download."""
    config = CollectorConfig(
        market="SPOT", symbols=list(archived.names), interval="1m", timezone="UTC", base_url=exchange.base_url
    )
    clock = SystemClock()
    binance = Binance("SPOT", base_url=exchange.base_url)
    client = Client(binance, HttpTransport(clock), clock, WeightBudget(6000, 0.75), 30.0)
    archive = Archive(Mirror(clock), clock, base_url=archived.directory.as_uri())
    from_seconds, from_cpu = time.perf_counter(), time.process_time()
    done = fetch_days(
        config,
        store_of(config, candle_dir),
        client,
        FIRST,
        FIRST + timedelta(days=days - 1),
        archive=archive,
    )
    seconds, cpu = time.perf_counter() - from_seconds, time.process_time() - from_cpu
    assert done is not None
    assert done.fetched == len(archived.names) * days
    assert exchange.stats().count("/klines") == 0, "the exchange was asked for candles"
    return seconds, cpu


def check(exchange: SimulatedExchange, archived: Archived, candle_dir: Path, days: int) -> None:
    """Compare what was written with the truth."""
    zone = Zone("UTC")
    last = FIRST + timedelta(days=days - 1)
    start_ms, end_ms = Day(FIRST, zone).start_ms, Day(last, zone).end_ms
    truth = [exchange.truth.floats("SPOT", name, "1m", start_ms, end_ms) for name in archived.names[:VOICES]]
    for number, name in enumerate(archived.names):
        rows = history.load("SPOT", name, FIRST, last, timezone="UTC", base_dir=candle_dir)
        assert rows.tobytes() == truth[number % VOICES].tobytes(), name


def steps(archived: Archived, candle_dir: Path) -> dict[str, float]:
    """Return microseconds for a day of 1m on one thread, by what is done."""
    spent: dict[str, list[float]] = {}
    files = archived.files[:STEPS_FILES]
    zone = Zone("UTC")

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        from_seconds = time.perf_counter()
        yield
        spent.setdefault(what, []).append((time.perf_counter() - from_seconds) * 1e6 / days)

    candle_dir.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = archived.directory / file.path[1:]
        days = (file.end_ms - file.start_ms) / DAY_MS
        with timed("read zip and CHECKSUM"):
            zipped, checksum = path.read_bytes(), path.with_name(f"{path.name}.CHECKSUM").read_bytes()
        with timed("SHA-256"):
            file.check(zipped, checksum)
        with timed("unzip"):
            text = file._unpacked(zipped)
        with timed("CSV to rows (Rust)"):
            rows, _ = parse_archive_csv(text)
        rows, days = np.ascontiguousarray(rows[:1440]), 1
        facts = {"market": "SPOT", "symbol": file.symbol, "interval": "1m", "day": Day(file.first, zone)}
        with timed("a day of it, checked"):
            candles = DayCandles(**facts, rows=rows, source="archive", fetched_ms=0)
        with timed("to Parquet"):
            data = parquet.encode(candles)
        with timed("to disk, flushed twice"):
            replace_file(candle_dir / "day.parquet", data)
    return {what: sum(values) / len(values) for what, values in spent.items()}


def with_pandas(archived: Archived) -> float:
    """Return seconds that pandas takes to read the zips, on one thread."""
    from_seconds = time.perf_counter()
    for file in archived.files:
        pd.read_csv(archived.directory / file.path[1:], header=None)
    return time.perf_counter() - from_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--days", type=int, default=30, choices=range(1, 31), metavar="1..30")
    parser.add_argument("--dir", type=Path, default=None, help="where zips and daily files go, on the disk to measure")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, object] = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    root = Path(tempfile.mkdtemp(prefix="candleshm-archive-", dir=arguments.dir))
    try:
        with SimulatedExchange(symbols=arguments.symbols, clock_ms=running) as exchange:
            names = [item.symbol for item in exchange.truth.instruments("SPOT") if item.status == "TRADING"]
            names = names[: arguments.symbols]
            for kind in ("daily", "monthly"):
                if kind == "monthly" and arguments.days < 30:
                    continue
                print(f"{kind}: making zips ...", flush=True)
                archived = make(exchange, root / kind, names, arguments.days, monthly=kind == "monthly")
                rows = len(names) * arguments.days * 1440
                before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                seconds, cpu = download(exchange, archived, root / f"{kind}-candles", arguments.days)
                peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                check(exchange, archived, root / f"{kind}-candles", arguments.days)
                pandas_seconds = with_pandas(archived)
                by_step = steps(archived, root / f"{kind}-steps")
                print(
                    f"{kind}: {len(names)} symbols x {arguments.days} days, {len(archived.files)} zips of "
                    f"{archived.zip_bytes / 1e6:.0f} MB, {rows:,} rows\n"
                    f"  into daily files: {seconds:.1f} s ({cpu:.1f} s of CPU), {rows / seconds:,.0f} rows/s; "
                    f"peak memory {peak_mib:.0f} MiB, before {before_mib:.0f} MiB\n"
                    f"  pandas.read_csv, nothing checked, nothing written, one thread: {pandas_seconds:.1f} s, "
                    f"{rows / pandas_seconds:,.0f} rows/s"
                )
                for what, microseconds in by_step.items():
                    print(f"  {microseconds:8.0f} us a day on one thread: {what}")
                report[kind] = {
                    "symbols": len(names),
                    "days": arguments.days,
                    "zip_mb": archived.zip_bytes / 1e6,
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                    "peak_mib": [before_mib, peak_mib],
                    "rows_per_second": rows / seconds,
                    "pandas_read_seconds": pandas_seconds,
                    "us_per_day": by_step,
                }
    finally:
        shutil.rmtree(root)
    report["load_after"] = os.getloadavg()[0]
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
