"""Files of months and years: days come back as they were written, and those of older versions beside them."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from candleshm import history
from candleshm._core import Zone
from candleshm.errors import DayDamaged, DayNotFound, StoreInUse
from candleshm.history.candles import DayCandles, is_same
from candleshm.history.day import Day, days_between
from candleshm.history.repacking import days_to_repack, repack, stores_in
from candleshm.history.store import ParquetStore
from tests.support.commanding import run
from tests.support.days import UTC_ZONE, candles_of, day_of, rows_of, store_in, without, written, written_as_before

PERIODS = {"15m": "2026-11.parquet", "1h": "2026-11.parquet", "12h": "2026-11.parquet", "1d": "2026.parquet"}


def days_of(interval: str, count: int = 3, zone: Any = UTC_ZONE, **facts: Any) -> list[DayCandles]:
    first = day_of("2026-11-03", zone)
    return [
        candles_of(Day(first.date + timedelta(days=number), zone), interval=interval, **facts)
        for number in range(count)
    ]


@pytest.mark.parametrize("interval", PERIODS)
@pytest.mark.parametrize("zone", [UTC_ZONE, Zone("Asia/Kolkata"), Zone("America/New_York")], ids=lambda zone: zone.name)
def test_days_of_a_month_or_a_year_lie_in_one_file(tmp_path: Path, interval: str, zone: Any) -> None:
    store = store_in(tmp_path, interval, zone=zone)
    # The clocks of New York change on the 1st.
    first, last = day_of("2026-10-30", zone), day_of("2026-11-02", zone)
    days = [candles_of(day, interval=interval, symbol="BTCUSDT") for day in days_between(first, last)]
    days = [day for day in days if day.grid.count]
    written(store, *days)
    names = [path.name for path in history.paths("SPOT", interval=interval, timezone=zone.name, base_dir=tmp_path)]
    assert names == (["2026.parquet"] if interval == "1d" else ["2026-10.parquet", "2026-11.parquet"])
    assert all(is_same(ParquetStore(tmp_path, "SPOT", interval, zone).read("BTCUSDT", day.day), day) for day in days)
    loaded = history.load(
        "SPOT", "BTCUSDT", first.date, last.date, interval=interval, timezone=zone.name, base_dir=tmp_path
    )
    assert loaded.tobytes() == np.concatenate([day.rows for day in days]).tobytes()
    assert loaded.flags.writeable
    assert history.days("SPOT", "BTCUSDT", interval=interval, timezone=zone.name, base_dir=tmp_path) == [
        day.day.date for day in days
    ]


@pytest.mark.parametrize("interval", ["1s", "1m", "5m"])
def test_short_candles_keep_a_file_for_each_day(tmp_path: Path, interval: str) -> None:
    store = store_in(tmp_path, interval)
    written(store, candles_of(day_of("2026-11-03"), interval=interval))
    assert store.path("BTCUSDT", day_of("2026-11-03")).name == "2026-11-03.parquet"


@pytest.mark.parametrize("interval", PERIODS)
def test_what_is_known_about_each_day_survives(tmp_path: Path, interval: str) -> None:
    days = days_of(interval, 6)
    length_ms, count = days[0].grid.length_ms, days[0].grid.count
    first_ms = [day.grid.first_ms for day in days]
    empty = np.empty((0, 12))
    whole = [(start, start + count * length_ms) for start in first_ms]
    facts: list[dict[str, Any]] = [
        {"rows": empty, "outside": (whole[0],)},
        {"source": "archive", "fetched_ms": 5},
        {"rows": empty, "holes": (whole[2],)},
        {"rows": empty, "holes": (whole[3],)},  # a hole over midnight
        {"verified": (whole[4],)},
        {"rows": empty},  # all of it is missing
    ]
    known = [candles_of(day.day, interval=interval, **of_day) for day, of_day in zip(days, facts, strict=True)]
    store = store_in(tmp_path, interval)
    with store.writing():
        store.write(*known)
    back = [ParquetStore(tmp_path, "SPOT", interval, UTC_ZONE).read("BTCUSDT", day.day) for day in days]
    assert all(map(is_same, back, known))
    assert [day.is_complete for day in back] == [True] * 5 + [False]


@pytest.mark.parametrize("interval", PERIODS)
def test_a_month_or_year_grows_and_its_days_are_replaced_one_by_one(tmp_path: Path, interval: str) -> None:
    store, days = store_in(tmp_path, interval), days_of(interval, 4)
    for count in range(1, 5):
        written(store, days[count - 1])
        assert store.days("BTCUSDT") == [day.day for day in days[:count]]
        assert not store.has("BTCUSDT", days[-1].day.next())
        with pytest.raises(DayNotFound):
            store.read("BTCUSDT", days[-1].day.next())
    other = candles_of(days[1].day, interval=interval, seed=2)
    written(store, other)
    assert all(map(is_same, map(store.read, ["BTCUSDT"] * 4, store.days("BTCUSDT")), [days[0], other, *days[2:]]))
    [path] = store.path("BTCUSDT", days[0].day).parent.iterdir()
    assert path.name == PERIODS[interval]


@pytest.mark.parametrize("interval", ["1h", "1d"])
def test_a_damaged_file_has_all_days_damaged_and_is_kept_aside(
    tmp_path: Path, interval: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, days = store_in(tmp_path, interval), days_of(interval)
    written(store, *days)
    path = store.path("BTCUSDT", days[0].day)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    verdicts = {report.verdict for report in history.verify("SPOT", interval=interval, base_dir=tmp_path)}
    assert verdicts == {"damaged"}
    with pytest.raises(DayDamaged):
        history.load("SPOT", "BTCUSDT", days[0].day.date, days[0].day.date, interval=interval, base_dir=tmp_path)
    written(store, days[1])
    assert store.days("BTCUSDT") == [days[1].day]
    assert "its other days have to be downloaded again" in caplog.text
    assert path.with_name(path.name + ".damaged").read_bytes() == bytes(data)


@pytest.mark.parametrize("interval", PERIODS)
def test_days_in_files_of_their_own_are_read_beside_the_others(tmp_path: Path, interval: str) -> None:
    store, days = store_in(tmp_path, interval), days_of(interval, 5)
    written_as_before(store, *days[:3])
    written(store, *days[3:])
    here: dict[str, Any] = {"interval": interval, "base_dir": tmp_path}
    dates = [day.day.date for day in days]
    assert history.days("SPOT", "BTCUSDT", **here) == dates
    truth = np.concatenate([day.rows for day in days])
    assert history.load("SPOT", "BTCUSDT", dates[0], dates[-1], **here).tobytes() == truth.tobytes()
    assert history.load("SPOT", "BTCUSDT", dates[0], **here).tobytes() == truth.tobytes()
    assert [report.verdict for report in history.verify("SPOT", **here)] == ["complete"] * 5
    assert history.scan("SPOT", **here).collect()["close"].to_list() == truth[:, 4].tolist()
    assert history.scan("SPOT", start=dates[1], end=dates[3], **here).collect().height == len(truth) // 5 * 3
    # A day that is written again is not there twice.
    again = candles_of(days[1].day, interval=interval, seed=2)
    written(store, again)
    assert is_same(store.read("BTCUSDT", again.day), again)
    assert not store.own_file("BTCUSDT", again.day).exists()
    every = f"read_parquet('{tmp_path}/**/*.parquet', hive_partitioning=true)"
    assert duckdb.execute(f"select count(*) from {every}").fetchall() == [(len(truth),)]
    assert pl.scan_parquet(tmp_path / "**/*.parquet", hive_partitioning=True).collect().height == len(truth)


def old_tree(directory: Path) -> list[tuple[ParquetStore, DayCandles]]:
    """Fill a directory as older versions did, and return every day of it."""
    found = []
    for interval, zone, symbol in (
        ("1h", UTC_ZONE, "BTCUSDT"),
        ("1d", UTC_ZONE, "BTCUSDT"),
        ("1d", Zone("Asia/Shanghai"), "ETHUSDT"),
        ("1m", UTC_ZONE, "BTCUSDT"),
    ):
        store = store_in(directory, interval, zone=zone)
        first = day_of("2025-12-20", zone)
        count = 3 if interval == "1m" else 30
        days = [
            candles_of(Day(first.date + timedelta(days=number), zone), interval=interval, symbol=symbol)
            for number in range(count)
        ]
        if interval == "1h":
            days[5] = without(days[5], 3, 5, as_hole=True)
        written_as_before(store, *days)
        found += [(store, day) for day in days]
    return found


def test_repacking_moves_every_day_and_changes_none(tmp_path: Path) -> None:
    days = old_tree(tmp_path)
    result = run("history", "repack", "--candle-dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "90 of 90 days" in result.stderr
    assert "moved into 6 files of a month or a year" in result.stderr
    names = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    assert names == sorted(
        [*(f"2025-12-{day}.parquet" for day in (20, 21, 22)), "2025-12.parquet", "2026-01.parquet"]
        + ["2025.parquet", "2026.parquet"] * 2
    )
    assert all(is_same(store.read(day.symbol, day.day), day) for store, day in days)
    assert "0 of 0 days" in run("history", "repack", "--candle-dir", str(tmp_path)).stderr


def test_repacking_leaves_what_is_damaged_and_says_so(tmp_path: Path) -> None:
    days = old_tree(tmp_path)
    store, day = days[0]
    store.own_file(day.symbol, day.day).write_bytes(b"PAR1 and nothing else")
    result = run("history", "repack", "--candle-dir", str(tmp_path))
    assert result.returncode == 1
    assert "1 damaged file left alone" in result.stderr
    assert store.own_file(day.symbol, day.day).exists()
    assert all(is_same(store.read(day.symbol, day.day), day) for store, day in days[1:])


def test_of_two_files_with_a_day_the_better_one_stays(tmp_path: Path) -> None:
    store, days = store_in(tmp_path, "1h"), days_of("1h", 3)
    parts = [without(day, 0, 4, as_hole=False) for day in days]
    newer = candles_of(days[1].day, interval="1h", seed=2)
    written(store, parts[0], newer, days[2])
    written_as_before(store, days[0], days[1], parts[2])
    assert [done.days for done in repack(stores_in(tmp_path), threading.Event())] == [3]
    assert all(map(is_same, map(store.read, ["BTCUSDT"] * 3, store.days("BTCUSDT")), [days[0], newer, days[2]]))
    assert days_to_repack(stores_in(tmp_path)) == 0


def test_a_tree_that_another_process_writes_is_not_repacked(tmp_path: Path) -> None:
    days = old_tree(tmp_path)
    with days[0][0].writing(), pytest.raises(StoreInUse):
        list(repack(stores_in(tmp_path), threading.Event()))


def test_repacking_that_is_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Kill -9 again and again, until a run comes to its end; every day is readable and true after each."""
    days = old_tree(tmp_path)
    code = (
        "import sys, threading; from candleshm.history.repacking import repack, stores_in\n"
        "import candleshm.history.day_file, pyarrow.parquet\n"
        "print('begins', flush=True)\n"
        "for done in repack(stores_in(sys.argv[1]), threading.Event()): pass"
    )
    chance, kills, code_of_end = random.Random(3), 0, None
    while code_of_end != 0:
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        # Longer and longer, so that it ends.
        time.sleep(chance.random() * 0.02 * (kills + 1))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        code_of_end = process.wait()
        kills += code_of_end != 0
        for store, day in days:
            assert is_same(ParquetStore(tmp_path, "SPOT", store.interval, store.zone).read(day.symbol, day.day), day)
    assert kills > 0
    assert days_to_repack(stores_in(tmp_path)) == 0


def test_writers_of_one_file_never_lose_each_others_days(tmp_path: Path) -> None:
    """Two processes write days of one month at the same time; the lock of the tree puts them in order."""
    code = """
import sys
from candleshm.errors import StoreInUse
from tests.support.days import candles_of, day_of, store_in
store = store_in(sys.argv[1], "1h")
for number in range(int(sys.argv[2]), 29, 2):
    while True:
        try:
            with store.writing():
                store.write(candles_of(day_of(f"2026-11-{number:02}"), interval="1h"))
            break
        except StoreInUse:
            pass
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), number]) for number in ("1", "2")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert history.days("SPOT", "BTCUSDT", interval="1h", base_dir=tmp_path) == [
        date(2026, 11, day) for day in range(1, 29)
    ]
    rows = history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-28", interval="1h", base_dir=tmp_path)
    assert (
        rows.tobytes() == np.concatenate([rows_of(day_of(f"2026-11-{day:02}"), "1h") for day in range(1, 29)]).tobytes()
    )


def test_what_is_stored_instead_is_named_without_reading_it(tmp_path: Path) -> None:
    written(store_in(tmp_path, "1h"), *days_of("1h"))
    written(store_in(tmp_path, "1d"), *days_of("1d"))
    with pytest.raises(DayNotFound, match=r"interval=1d timezone=UTC \(1 year\), interval=1h timezone=UTC \(1 month\)"):
        history.load("SPOT", "BTCUSDT", "2026-11-03", "2026-11-04", base_dir=tmp_path)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    reader, days = store_in(tmp_path, "1d"), days_of("1d")
    written(store_in(tmp_path, "1d"), days[0])
    assert reader.days("BTCUSDT") == [days[0].day]
    written(store_in(tmp_path, "1d"), days[1])
    assert reader.days("BTCUSDT") == [day.day for day in days[:2]]
    shutil.rmtree(tmp_path / "market=SPOT")
    assert reader.days("BTCUSDT") == []
