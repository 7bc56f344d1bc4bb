"""Files of months and years beside files of days: bytes on the disk, and the time to write, load, grow and repack.

    python benches/periods.py            1h for a year and 1d for five, three symbols of the simulated exchange
    python benches/periods.py --symbols 10

Times to load and grow are the CPU's, the best of three, with the files in the page cache; those to write and repack are
the clock's, with their fsyncs. Every load is compared with what was written.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from candleshm import history
from candleshm._core import Zone
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day, Grid, days_between
from candleshm.history.day_file import encode
from candleshm.history.repacking import repack, stores_in
from candleshm.history.store import ParquetStore
from candleshm.sim import SimulatedExchange
from candleshm.system.atomic_file import Directories, replace_file

UTC = Zone("UTC")
SYMBOLS = (
    "BTCUSDT",
    "ETHUSDT",
    "BNBUSDT",
    "XRPUSDT",
    "SOLUSDT",
    "ADAUSDT",
    "DOGEUSDT",
    "LTCUSDT",
    "LINKUSDT",
    "TRXUSDT",
)
SPANS = {"1h": (date(2025, 1, 1), date(2025, 12, 31)), "1d": (date(2021, 1, 1), date(2025, 12, 31))}


def best_of(count: int, work: Callable[[], object]) -> float:
    """Return the shortest time of the CPU that `work` takes, in seconds: the files are in the page cache."""
    times = []
    for _ in range(count):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def days_of(exchange: SimulatedExchange, symbol: str, interval: str) -> list[DayCandles]:
    first, last = (Day(day, UTC) for day in SPANS[interval])
    rows = exchange.truth.floats("SPOT", symbol, interval, first.start_ms, last.end_ms)
    found = []
    for day in days_between(first, last):
        grid = Grid.of(day, interval)
        part = slice(*np.searchsorted(rows[:, 0], (grid.first_ms, grid.end_ms)))
        facts = {"symbol": symbol, "interval": interval, "day": day, "rows": rows[part], "source": "exchange"}
        found.append(DayCandles(market="SPOT", fetched_ms=last.end_ms, **facts))  # type: ignore[arg-type]
    return found


def write_own(store: ParquetStore, days: list[DayCandles]) -> None:
    """Write each day into a file of its own, as before."""
    directories = Directories()
    for candles in days:
        path = store.own_file(candles.symbol, candles.day)
        directories.prepare(path.parent)
        replace_file(path, encode([candles], "day"))


def size(directory: Path) -> tuple[int, int, int]:
    """Return files, their bytes, and the bytes of the blocks that they take."""
    stats = [path.stat() for path in directory.rglob("*.parquet")]
    return len(stats), sum(stat.st_size for stat in stats), sum(stat.st_blocks * 512 for stat in stats)


def measure(interval: str, of_symbols: dict[str, list[DayCandles]], directory: Path) -> None:
    own, packed = directory / "own", directory / "packed"
    first, last = SPANS[interval]
    truth = {symbol: np.concatenate([day.rows for day in days]) for symbol, days in of_symbols.items()}

    def load(base_dir: Path) -> None:
        for symbol, rows in truth.items():
            found = history.load("SPOT", symbol, first, last, interval=interval, base_dir=base_dir)
            assert found.tobytes() == rows.tobytes()

    def load_week(base_dir: Path) -> None:
        for symbol in truth:
            history.load("SPOT", symbol, date(2025, 12, 25), last, interval=interval, base_dir=base_dir)

    stores = {base_dir: ParquetStore(base_dir, "SPOT", interval, UTC) for base_dir in (own, packed)}
    begin = time.perf_counter()
    for days in of_symbols.values():
        write_own(stores[own], days)
    own_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    for days in of_symbols.values():
        with stores[packed].writing():
            stores[packed].write(*days)
    packed_seconds = time.perf_counter() - begin
    count = sum(map(len, truth.values()))
    print(f"{interval}: {len(truth)} symbols, {sum(map(len, of_symbols.values())):,} days, {count:,} candles")
    for name, base_dir, seconds in (("a file a day", own, own_seconds), ("months or years", packed, packed_seconds)):
        files, file_bytes, block_bytes = size(base_dir)
        print(
            f"  {name:<16}{files:>6} files {file_bytes / 1e3:>9,.0f} KB, on the disk {block_bytes / 1e3:>9,.0f} KB,"
            f" {file_bytes / count:>6.1f} bytes a candle; written in {seconds:6.2f} s;"
            f" load all {best_of(3, lambda at=base_dir: load(at)) * 1e3:8.1f} ms,"  # type: ignore[misc]
            f" a week {best_of(3, lambda at=base_dir: load_week(at)) * 1e3:6.1f} ms"  # type: ignore[misc]
        )
    days = next(iter(of_symbols.values()))
    newest = [day for day in days if day.day.date >= date(2025, 12, 2)]
    with stores[packed].writing():
        grow_seconds = best_of(3, lambda: [stores[packed].write(day) for day in newest]) / len(newest)
    begin = time.perf_counter()
    moved = sum(done.days for done in repack(stores_in(own), threading.Event()))
    print(
        f"  one more day into the newest file {grow_seconds * 1e3:.1f} ms; repacked {moved:,} days in "
        f"{time.perf_counter() - begin:.1f} s"
    )
    load(own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=3, help=f"1 to {len(SYMBOLS)} (default: 3)")
    symbols = SYMBOLS[: parser.parse_args().symbols]
    with SimulatedExchange(symbols=40) as exchange, tempfile.TemporaryDirectory() as directory:
        for interval in SPANS:
            of_symbols = {symbol: days_of(exchange, symbol, interval) for symbol in symbols}
            measure(interval, of_symbols, Path(directory, interval))


if __name__ == "__main__":
    main()
