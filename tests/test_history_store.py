"""Daily files: what is written comes back bit for bit, what is not as it was written is never taken for it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm import history
from candleshm._core import Zone
from candleshm.columns import NAMES
from candleshm.errors import (
    ConfigError,
    DayDamaged,
    DayIncomplete,
    DayNotFound,
    MissingExtra,
    StoreInUse,
    StoreUnavailable,
)
from candleshm.history import day_file, lock, parquet
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day, Grid, days_between
from candleshm.history.lock import LOCK_NAME
from candleshm.system import atomic_file as durable
from tests.support.days import MINUTE, NEW_YORK, UTC_ZONE, candles_of, day_of, rows_of, store_in, without, written

HOUR = 60 * MINUTE


@pytest.mark.parametrize(
    ("zone", "day", "minutes"),
    [
        ("America/New_York", "2026-03-08", 1380),
        ("America/New_York", "2026-11-01", 1500),
        ("America/New_York", "2026-11-02", 1440),
        ("Australia/Lord_Howe", "2026-04-05", 1470),  # half an hour
        ("America/Havana", "2025-11-02", 1500),  # midnight comes twice
        ("Africa/Cairo", "2026-04-24", 1380),  # midnight is jumped over
        ("Asia/Kolkata", "2026-11-01", 1440),
        ("UTC", "2026-11-01", 1440),
    ],
)
def test_a_day_has_the_minutes_that_the_clocks_show(zone: str, day: str, minutes: int) -> None:
    grid = Grid.of(Day.parse(day, Zone(zone)), "1m")
    assert grid.count == minutes
    shown = [datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)) for ms in (grid.first_ms, grid.end_ms - 1)]
    assert [moment.date().isoformat() for moment in shown] == [day, day]


@given(
    st.sampled_from(["America/New_York", "Africa/Cairo", "America/Havana", "Asia/Kolkata", "Pacific/Apia", "UTC"]),
    st.integers(1_300_000_000_000, 1_900_000_000_000),
    st.sampled_from(["1s", "1m", "15m", "1h", "8h", "1d"]),
)
def test_every_candle_belongs_to_exactly_one_day(zone_name: str, moment_ms: int, interval: str) -> None:
    zone = Zone(zone_name)
    day = Day.of(moment_ms, zone)
    assert day.start_ms <= moment_ms < day.end_ms
    nearby = [Day(day.date + timedelta(days=step), zone) for step in range(-2, 4)]
    grids = [Grid.of(day, interval) for day in days_between(nearby[0], nearby[-1])]
    assert all(a.end_ms == b.first_ms for a, b in pairwise(grids) if a.count and b.count)


def test_a_date_that_a_zone_left_out_has_no_day() -> None:
    zone = Zone("Pacific/Apia")
    found = days_between(Day.parse("2011-12-29", zone), Day.parse("2011-12-31", zone))
    assert [str(day) for day in found] == ["2011-12-29", "2011-12-31"]


def test_days_as_users_say_them() -> None:
    moment = datetime(2026, 11, 24, 3, tzinfo=UTC)  # still the 23rd in New York
    as_said: list[Any] = [
        "2026-11-23",
        date(2026, 11, 23),
        datetime(2026, 11, 23, 5),  # noqa: DTZ001
        moment,
        moment.timestamp() * 1000,
    ]
    assert {str(Day.parse(value, NEW_YORK)) for value in as_said} == {"2026-11-23"}
    for wrong in ("yesterday", "2026-13-01", float("nan"), None, True, 1e20):
        with pytest.raises(ConfigError, match=r"day cannot be|epoch milliseconds"):
            Day.parse(wrong, NEW_YORK)  # type: ignore[arg-type]


def test_load_gives_whole_days_both_ends_included_bit_for_bit(tmp_path: Path) -> None:
    here: dict[str, Any] = {"timezone": NEW_YORK.name, "base_dir": tmp_path}
    days = [day_of(text, NEW_YORK) for text in ("2026-10-31", "2026-11-01", "2026-11-02")]
    written(store_in(tmp_path, zone=NEW_YORK), *map(candles_of, days))
    rows = history.load("spot", "BTCUSDT", "2026-10-31", date(2026, 11, 2), **here)
    assert rows.tobytes() == np.concatenate([rows_of(day) for day in days]).tobytes()
    assert rows.shape == (1440 + 1500 + 1440, 12)
    assert rows.flags.writeable
    assert history.days("SPOT", "BTCUSDT", **here) == [day.date for day in days]
    assert history.load("SPOT", "BTCUSDT", days[1].date, days[1].date, **here).shape == (1500, 12)


def test_days_are_those_of_utc_below_candles_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    day = day_of("2026-11-01")
    written(store_in(Path("candles")), candles_of(day))
    assert history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-01").tobytes() == rows_of(day).tobytes()
    [path] = history.paths("SPOT")
    assert str(path) == "candles/market=SPOT/interval=1m/timezone=UTC/symbol=BTCUSDT/2026-11-01.parquet"
    assert [report.verdict for report in history.verify("SPOT")] == ["complete"]
    assert history.days("SPOT", "BTCUSDT") == [date(2026, 11, 1)]
    assert history.scan("SPOT").collect().height == 1440


@given(st.lists(st.floats(min_value=0, allow_nan=False, allow_infinity=False), min_size=11, max_size=11))
def test_any_value_survives(values: list[float]) -> None:
    day = day_of("2026-11-03", UTC_ZONE)
    rows = rows_of(day, "1d")
    rows[0, [1, 2, 3, 4, 5, 7, 8, 9, 10]] = values[:9]
    candles = candles_of(day, interval="1d", rows=rows)
    assert day_file.decode(day_file.encode([candles], "year"))[day.date].rows.tobytes() == rows.tobytes()


def test_what_is_known_about_a_day_survives(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    whole = candles_of(day)
    first = whole.grid.first_ms
    facts: dict[str, Any] = {
        "holes": ((first + 700 * MINUTE, first + 780 * MINUTE),),
        "outside": ((first, first + 60 * MINUTE),),
        "verified": ((first + 60 * MINUTE, first + 700 * MINUTE),),
    }
    rows = np.delete(whole.rows, [*range(60), *range(700, 780)], axis=0)
    written(store, candles_of(day, rows=rows, source="archive", fetched_ms=123, **facts))
    back = store.read("BTCUSDT", day)
    assert (back.holes, back.outside, back.verified) == tuple(facts.values())
    assert (back.source, back.fetched_ms, back.missing, back.is_complete) == ("archive", 123, (), True)
    path = store.path("BTCUSDT", day)
    [about] = queried(f"select decode(value) from parquet_kv_metadata('{path}') where decode(key) = 'candleshm'")
    assert json.loads(about[0])["holes"] == [[first + 700 * MINUTE, first + 780 * MINUTE]]


def test_open_times_off_the_grid_are_kept_and_keyed_by_their_floor(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    rows = rows_of(day)
    rows[100:140, 0] += 14_789
    rows[-1, 0] += 59_999
    written(store, candles_of(day, rows=rows))
    assert store.read("BTCUSDT", day).is_complete
    assert history.load("SPOT", "BTCUSDT", day.date, day.date, base_dir=tmp_path).tobytes() == rows.tobytes()


def test_a_day_with_a_confirmed_hole_is_complete_and_says_so(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2023-03-24")
    written(store, without(candles_of(day), 760, 840, as_hole=True))
    [report] = history.verify("SPOT", base_dir=tmp_path)
    assert (report.verdict, report.rows, report.slots, report.missing) == ("complete", 1360, 1440, ())
    assert report.holes == ((day.start_ms + 760 * MINUTE, day.start_ms + 840 * MINUTE),)
    assert len(history.load("SPOT", "BTCUSDT", day.date, day.date, base_dir=tmp_path)) == 1360


def test_a_day_without_any_candle_can_be_complete(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2018-02-09")
    written(store, candles_of(day, rows=np.empty((0, 12)), holes=((day.start_ms, day.end_ms),)))
    assert history.load("SPOT", "BTCUSDT", "2018-02-09", "2018-02-09", base_dir=tmp_path).shape == (0, 12)


def test_an_incomplete_day_is_refused_with_its_ranges(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-01")
    written(store, without(candles_of(day), 10, 20, as_hole=False))
    missing = ((day.start_ms + 10 * MINUTE, day.start_ms + 20 * MINUTE),)
    with pytest.raises(DayIncomplete, match="no candles from 2026-11-01 00:10:00 to 2026-11-01 00:20:00") as refused:
        history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-01", base_dir=tmp_path)
    assert refused.value.missing == missing
    [report] = history.verify("SPOT", "BTCUSDT", base_dir=tmp_path)
    assert (report.verdict, report.missing, report.is_complete) == ("incomplete", missing, False)


def test_days_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    written(store_in(tmp_path), candles_of(day_of("2026-11-02")))
    with pytest.raises(DayNotFound, match="2 more days, up to 2026-11-04") as absent:
        history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-04", base_dir=tmp_path)
    assert absent.value.days == ("2026-11-01", "2026-11-03", "2026-11-04")
    assert isinstance(absent.value, FileNotFoundError)
    assert "; stored are: interval=1m timezone=UTC (1 day); `candleshm download`" in str(absent.value)
    # The first mistake after a download into another zone.
    with pytest.raises(DayNotFound, match=r"timezone=UTC \(1 day\)"):
        history.load("SPOT", "BTCUSDT", "2026-11-02", "2026-11-02", timezone="America/New_York", base_dir=tmp_path)
    with pytest.raises(DayNotFound, match=r"of `ETHUSDT` is stored, but BTCUSDT; `candleshm download` .* lists it"):
        history.load("SPOT", "ETHUSDT", "2026-11-02", "2026-11-02", base_dir=tmp_path)
    verdicts = [
        report.verdict for report in history.verify("SPOT", "BTCUSDT", "2026-11-01", "2026-11-02", base_dir=tmp_path)
    ]
    assert verdicts == ["absent", "complete"]
    assert history.verify("SPOT", base_dir=tmp_path / "nowhere") == []
    with pytest.raises(DayNotFound):
        history.scan("SPOT", base_dir=tmp_path / "nowhere")


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for arguments, words in (
        (("FUTURES", "BTCUSDT", "2026-11-01", "2026-11-01"), "market cannot be `FUTURES`; allowed: SPOT | UM | CM"),
        (("SPOT", "BTCUSDT", "2026-11-02", "2026-11-01"), "end cannot be `2026-11-01`"),
    ):
        with pytest.raises(ConfigError, match=words.replace("|", r"\|")):
            history.load(*arguments, base_dir=tmp_path)
    with pytest.raises(ConfigError, match="interval cannot be `1w`; daily files have: 1s 1m"):
        history.days("SPOT", "BTCUSDT", interval="1w", base_dir=tmp_path)
    with pytest.raises(ConfigError, match="timezone cannot be `New York`"):
        history.days("SPOT", "BTCUSDT", timezone="New York", base_dir=tmp_path)


def test_rows_that_are_not_of_the_day_cannot_be_written() -> None:
    day = day_of("2026-11-03")
    rows = rows_of(day)
    for wrong in (rows[::-1], np.concatenate([rows, rows[-1:] + MINUTE]), rows[[0, 0, 1]]):
        with pytest.raises(ValueError, match="not ascending, or not of that day"):
            candles_of(day, rows=wrong)
    with pytest.raises(ValueError, match="holds candles"):
        candles_of(day, holes=((day.start_ms, day.start_ms + MINUTE),))


def test_the_package_alone_is_enough_to_import() -> None:
    code = "import candleshm, sys; candleshm.history.load; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_pyarrow_the_text_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[parquet\]'"):
        written(store_in(tmp_path), candles_of(day_of("2026-11-03")))


def queried(query: str, frame: pl.LazyFrame | None = None) -> list[Any]:
    """Ask duckdb, which finds `frame` by its name."""
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def test_pandas_polars_and_duckdb_read_the_tree_as_it_lies(tmp_path: Path) -> None:
    days = [day_of("2026-10-31", NEW_YORK), day_of("2026-11-01", NEW_YORK)]
    store = store_in(tmp_path, zone=NEW_YORK)
    written(store, *(candles_of(day, symbol=name) for day in days for name in ("BTCUSDT", "币安人生USDT")))
    written(store_in(tmp_path), candles_of(day_of("2026-10-31"), seed=2))
    truth = np.concatenate([rows_of(day) for day in days])

    [path] = history.paths("SPOT", "BTCUSDT", "2026-11-01", "2026-11-01", timezone=NEW_YORK.name, base_dir=tmp_path)
    one = pd.read_parquet(path, partitioning=None)
    assert list(one.columns) == list(NAMES)
    assert one.to_numpy(float).tobytes() == rows_of(days[1]).tobytes()

    everything = pd.read_parquet(tmp_path)
    mine = everything[(everything.symbol == "BTCUSDT") & (everything.timezone == "America/New_York")]
    assert mine[list(NAMES)].to_numpy(float).tobytes() == truth.tobytes()
    assert set(everything.symbol) == {"BTCUSDT", "币安人生USDT"}

    lazy = pl.scan_parquet(f"{tmp_path}/**/*.parquet", hive_partitioning=True)
    found = lazy.filter(symbol="BTCUSDT", timezone="America/New_York").sort("open_time_ms").collect()
    assert found.select(NAMES).to_numpy().astype(float).tobytes() == truth.tobytes()

    rows = queried(
        f"""select {", ".join(NAMES)} from read_parquet('{tmp_path}/**/*.parquet', hive_partitioning = true)
        where market = 'SPOT' and timezone = 'America/New_York' and symbol = 'BTCUSDT' order by open_time_ms"""
    )
    assert [type(value) for value in rows[0]].count(int) == 2
    assert np.array(rows, float).tobytes() == truth.tobytes()


def test_scan_is_a_polars_frame_that_duckdb_queries_by_its_name(tmp_path: Path) -> None:
    days = [day_of(text, NEW_YORK) for text in ("2026-10-30", "2026-10-31", "2026-11-01")]
    written(
        store_in(tmp_path, zone=NEW_YORK),
        *(candles_of(day, symbol=name) for day in days for name in ("BTCUSDT", "ETHUSDT")),
    )
    frame = history.scan("SPOT", ["ETHUSDT"], start="2026-10-31", timezone=NEW_YORK.name, base_dir=tmp_path)
    assert frame.collect_schema().names() == ["symbol", *NAMES]
    rows = frame.drop("symbol").collect().to_numpy().astype(float)
    assert rows.tobytes() == np.concatenate([rows_of(day) for day in days[1:]]).tobytes()
    counted = queried("select symbol, count(*), max(open_time_ms) from frame group by all", frame=frame)
    assert counted == [("ETHUSDT", 1440 + 1500, days[-1].end_ms - MINUTE)]


def test_no_flipped_bit_changes_a_value_unnoticed(tmp_path: Path) -> None:
    store, day = store_in(tmp_path, "1h"), day_of("2026-11-01")
    whole = without(candles_of(day, interval="1h"), 3, 5, as_hole=True)
    written(store, whole)
    path = store.path("BTCUSDT", day)
    data = path.read_bytes()
    random = np.random.default_rng(3)
    found = 0
    for position in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            back = store.read("BTCUSDT", day)
        except DayDamaged as damage:
            found += str(path) in str(damage)
        else:
            assert_same(back, whole)
    # The rest are bits without a meaning: the name of the writing library, offsets that nobody uses.
    assert found > len(range(0, len(data), 5)) * 0.8


def test_a_file_cut_short_or_swapped_is_damaged(tmp_path: Path) -> None:
    store, day, other = store_in(tmp_path), day_of("2026-11-03"), day_of("2026-11-04")
    written(store, candles_of(day), candles_of(other), candles_of(day, symbol="ETHUSDT"))
    path = store.path("BTCUSDT", day)
    data = path.read_bytes()
    for size in (0, 1, 4, 100, len(data) // 2, len(data) - 8, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DayDamaged, match="damaged: not a readable Parquet file"):
            store.read("BTCUSDT", day)
    for swapped in (store.path("BTCUSDT", other), store.path("ETHUSDT", day)):
        path.write_bytes(swapped.read_bytes())
        with pytest.raises(DayDamaged, match="its path names another one"):
            store.read("BTCUSDT", day)
    [report, _] = history.verify("SPOT", "BTCUSDT", base_dir=tmp_path)
    assert (report.verdict, report.day, report.path) == ("damaged", day.date, path)
    assert "its path names another one" in report.reason


def test_a_file_of_another_kind_is_damaged(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    pd.DataFrame({"open_time_ms": [1]}).to_parquet(store.path("BTCUSDT", day))
    with pytest.raises(DayDamaged, match="its columns are not those of a daily file"):
        store.read("BTCUSDT", day)


def test_whatever_happens_to_a_file_is_a_damaged_day(tmp_path: Path) -> None:
    """Random changes of several bytes, in a process of its own: a decoder that crashed would take the tests along."""
    code = """
import sys, numpy as np
from pathlib import Path
from candleshm.history import day_file
data, random, refused = Path(sys.argv[1]).read_bytes(), np.random.default_rng(5), 0
for _ in range(1500):
    spoiled = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(data))) if random.integers(2) else len(data) - int(random.integers(1, 3000))
        spoiled[at : at + int(random.integers(0, 9))] = random.bytes(int(random.integers(1, 9)))
    try:
        day_file.decode(bytes(spoiled))
    except ValueError:
        refused += 1
print(refused)
"""
    store, day = store_in(tmp_path, "1h"), day_of("2026-11-03")
    written(store, candles_of(day, interval="1h"))
    path = str(store.path("BTCUSDT", day))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1200


def signed(table: Any, about: object) -> bytes:
    """Return a file whose checksum fits, whatever it says."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    rows = np.column_stack([column.to_numpy() for column in table.columns]).astype(float)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({parquet.ABOUT: text, parquet.CHECKSUM: parquet._checksum(text, rows)})
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "about",
    [
        *(b"", b"\xff", b"{", b"[1]", b"null", b"1", b'"x"', b"[" * 100_000, b"{}"),
        {"format": 1},
        {"format": 2},
        {"source": 3},
        {"source": []},
        {"market": None},
        {"day": None},
        {"day": "0000-00-00"},
        {"timezone": "../../etc"},
        {"timezone": None},
        {"interval": "2m"},
        {"interval": []},
        {"fetched_ms": "x"},
        {"fetched_ms": 1e999},
        {"holes": 5},
        {"holes": [[1]]},
        {"holes": [[10**400, 1]]},
        {"outside": [["a", "b"]]},
        {"verified": {"a": 1}},
        {"symbol": 1},
    ],
    ids=lambda about: str(about)[:20],
)
def test_a_file_that_says_what_cannot_be_is_damaged(tmp_path: Path, about: Any) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    path = store.path("BTCUSDT", day)
    table, good = pq.read_table(path, partitioning=None), day_file._about([candles_of(day)], "day")
    path.write_bytes(signed(table, good))
    store.read("BTCUSDT", day)
    is_whole = isinstance(about, bytes) or about == {"format": 1}
    path.write_bytes(signed(table, about if is_whole else good | about))
    with pytest.raises(DayDamaged):
        store.read("BTCUSDT", day)


def test_a_file_that_would_unpack_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    path = store.path("BTCUSDT", day)
    schema = pq.read_schema(path)
    table = pa.table([pa.array(np.zeros(3_000_000)).cast(field.type) for field in schema], schema=schema)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1_000_000
    before_bytes = pa.default_memory_pool().max_memory()
    with pytest.raises(DayDamaged, match="too long for one"):
        store.read("BTCUSDT", day)
    assert pa.default_memory_pool().max_memory() - before_bytes < 10_000_000


def test_what_is_no_plain_file_is_never_waited_for(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    path = store.path("BTCUSDT", day)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DayDamaged, match="not a regular file"):
        store.read("BTCUSDT", day)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(DayDamaged, match="larger than the limit of"):
        store.read("BTCUSDT", day)
    written(store, candles_of(day))
    assert store.read("BTCUSDT", day).is_complete


def assert_same(a: DayCandles, b: DayCandles) -> None:
    assert a.rows.tobytes() == b.rows.tobytes()
    assert (a.holes, a.outside, a.missing, a.verified) == (b.holes, b.outside, b.missing, b.verified)
    assert (a.market, a.symbol, a.interval, a.day) == (b.market, b.symbol, b.interval, b.day)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    path = store.path("BTCUSDT", day)
    # The device that is always full, where the temporary file goes.
    monkeypatch.setattr(durable, "open_plain", lambda path, flags, mode: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(StoreUnavailable, match="No space left on device") as refused:
        written(store, candles_of(day, seed=2))
    assert (refused.value.errno, refused.value.path) == (errno.ENOSPC, str(path))
    assert_same(store.read("BTCUSDT", day), candles_of(day))
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_may_not_grow_leaves_the_old_file(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match="File too large"):
            written(store, candles_of(day, seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(store.read("BTCUSDT", day), candles_of(day))
    assert list(store.path("BTCUSDT", day).parent.iterdir()) == [store.path("BTCUSDT", day)]


UNPRIVILEGED = """
import os, sys
from candleshm.errors import StoreUnavailable
from candleshm.history import day_file
from tests.support.days import candles_of, day_of, store_in
store, day = store_in(sys.argv[1]), day_of("2026-11-03")
day_file.encode([candles_of(day)], "day")  # imports what the unprivileged may not read
if os.getuid() == 0:
    os.seteuid(65534)
for symbol in ("BTCUSDT", "ETHUSDT"):
    try:
        store.write(candles_of(day, symbol=symbol, seed=2))
    except StoreUnavailable as error:
        print(error.errno, error.path.endswith(f"symbol={symbol}/2026-11-03.parquet"))
"""


def test_a_read_only_directory_is_a_clear_error() -> None:
    # Not in pytest's own directory: nobody but its owner may enter that.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        store, day = store_in(Path(directory)), day_of("2026-11-03")
        written(store, candles_of(day))
        folders = [store.path("BTCUSDT", day).parent, store.tree]
        for folder in folders:
            folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, directory], capture_output=True, text=True, check=True, timeout=60
        )
        for folder in folders:
            folder.chmod(0o755)
        assert done.stdout == f"{errno.EACCES} True\n" * 2
        assert_same(store.read("BTCUSDT", day), candles_of(day))


def test_a_file_in_the_place_of_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreUnavailable, match=r"Not a directory|File exists"):
        written(store_in(tmp_path / "taken"), candles_of(day_of("2026-11-03")))


def test_two_writers_of_a_tree_exclude_each_other(tmp_path: Path) -> None:
    store, other_market = store_in(tmp_path), store_in(tmp_path, market="UM")
    with store.writing():
        with pytest.raises(StoreInUse, match="another download is writing there"), store_in(tmp_path).writing():
            pass
        with other_market.writing():
            pass
    with store_in(tmp_path).writing():
        pass


HOLDER = """
import sys, time
from tests.support.days import store_in
with store_in(sys.argv[1]).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_writers_with_other_runtime_directories_exclude_each_other(tmp_path: Path) -> None:
    """A login session and its cron job, root and a user, two containers: only the tree is common to them."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": tempfile.mkdtemp()},
        cwd=Path(__file__).parent.parent,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse), store_in(tmp_path).writing():
            pass
        holder.kill()
        holder.wait()
        with store_in(tmp_path).writing():  # the kernel let go of it
            pass


def test_a_lock_is_for_those_who_may_write_the_tree(tmp_path: Path) -> None:
    for mode, expected in ((0o755, 0o600), (0o775, 0o660), (0o777, 0o666)):
        store = store_in(tmp_path / oct(mode))
        store.tree.mkdir(parents=True)
        store.tree.chmod(mode)
        with store.writing():
            assert stat.S_IMODE((store.tree / LOCK_NAME).stat().st_mode) == expected


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.tree.mkdir(parents=True)
    (store.tree / LOCK_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(StoreUnavailable, match="cannot be locked"), store.writing():
        pass
    assert not (tmp_path / "victim").exists()


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    removals = [True]

    def flock(descriptor: int, flags: int) -> None:
        if removals:
            removals.pop()
            (store.tree / LOCK_NAME).unlink()
        fcntl.flock(descriptor, flags)

    monkeypatch.setattr(lock, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB))
    with store.writing(), pytest.raises(StoreInUse), store_in(tmp_path).writing():
        pass


def test_without_locks_on_the_file_system_writers_of_this_host_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on some network file systems, which cannot be mounted here."""

    def flock(descriptor: int, flags: int) -> None:
        if str(tmp_path) in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOLCK, "No locks available")
        fcntl.flock(descriptor, flags)

    monkeypatch.setattr(lock, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB))
    with store_in(tmp_path).writing(), pytest.raises(StoreInUse), store_in(tmp_path).writing():
        pass
    assert "has no locks" in caplog.text


def test_a_tree_that_may_only_be_read_is_read_and_locks_are_no_files_of_it(tmp_path: Path) -> None:
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    assert (store.tree / LOCK_NAME).exists()
    # What a writer that was killed leaves lies there, too.
    (store.path("BTCUSDT", day).parent / ".2026-11-04.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    for directory in (store.tree, store.path("BTCUSDT", day).parent):
        directory.chmod(0o555)
    assert store.symbols() == ["BTCUSDT"]
    assert [other.date for other in store.days("BTCUSDT")] == [day.date]
    assert len(history.load("SPOT", "BTCUSDT", day.date, day.date, base_dir=tmp_path)) == 1440
    assert len(pd.read_parquet(tmp_path)) == 1440
    assert pl.scan_parquet(tmp_path / "**/*.parquet").collect().height == 1440
    read = duckdb.sql(f"from read_parquet('{tmp_path}/**/*.parquet')")
    assert read is not None
    assert len(read.fetchall()) == 1440
    for directory in (store.tree, store.path("BTCUSDT", day).parent):
        directory.chmod(0o755)


def test_two_writers_without_a_common_lock_leave_whole_files(tmp_path: Path) -> None:
    """Even where neither sees the other, each has a temporary file of its own."""
    code = """
import sys
from tests.support.days import candles_of, day_of, store_in
store, day = store_in(sys.argv[1]), day_of("2026-11-03")
for number in range(150):
    store.write(candles_of(day, seed=int(sys.argv[2])))
"""
    store, day = store_in(tmp_path), day_of("2026-11-03")
    written(store, candles_of(day))
    root = Path(__file__).parent.parent
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed)], cwd=root) for seed in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        assert store.read("BTCUSDT", day).is_complete
    assert [writer.wait() for writer in writers] == [0, 0]
    assert list(store.path("BTCUSDT", day).parent.iterdir()) == [store.path("BTCUSDT", day)]


# kill -9. The script forks a writer for every round and kills it; the rounds are then judged here.

KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from candleshm.system import atomic_file as durable
from tests.support.days import candles_of, day_of, store_in

directory, day = Path(sys.argv[1]), day_of("2026-11-03")
old, new = candles_of(day, seed=1), candles_of(day, seed=2)
store_in(directory).write(old)


class Traced:
    '''The functions of `os` that touch files: counts their calls, and kills the process at one of them.'''

    def __init__(self, kill_at, log):
        self.kill_at, self.calls, self.log = kill_at, 0, log

    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in ("open", "write", "fsync", "close", "replace", "unlink"):
            return function

        def traced(*arguments):
            if self.calls == self.kill_at:
                if name == "write":
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls += 1
            self.log.append(name)
            return function(*arguments)

        return traced


def judged(work, wait):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    wait(child)
    status = os.waitpid(child, 0)[1]
    rows = store_in(directory).read("BTCUSDT", day).rows.tobytes()
    found = "old" if rows == old.rows.tobytes() else "new" if rows == new.rows.tobytes() else "other"
    left = len(list(directory.rglob(".*.tmp")))
    with store_in(directory).writing():  # the dead writer's lock is free
        store_in(directory).write(old)
    return [os.WIFSIGNALED(status), found, left, len(list(directory.rglob(".*.tmp")))]


def step(kill_at):
    def work():
        store = store_in(directory)
        with store.writing():
            durable.os = Traced(kill_at, [])
            store.write(new)

    return judged(work, lambda child: None)


def round_of(delay):
    def work():
        store = store_in(directory)
        with store.writing():
            while True:
                store.write(new)
                store.write(old)

    def wait(child):
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)

    return judged(work, wait)


log = []
durable.os = Traced(-1, log)
store_in(directory).write(old)
durable.os = os
steps = [step(kill_at) for kill_at in range(len(log) + 1)]
rounds = [round_of(random.Random(seed).uniform(0.0, 0.06)) for seed in range(60)]
print(json.dumps({"log": log, "steps": steps, "rounds": rounds}))
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=110
    )
    outcome = json.loads(done.stdout)
    # The bytes are on the disk before the name moves, and the name before it counts as done.
    assert outcome["log"] == ["open", "write", "fsync", "replace", "close", "open", "fsync", "close"]
    for number, (killed, found, left, left_later) in enumerate(outcome["steps"]):
        assert killed == (number < len(outcome["log"]))
        assert found == ("old" if number <= 3 else "new"), number
        assert left == (1 if 1 <= number <= 3 else 0), number
        assert left_later == 0
    found = [found for _, found, _, _ in outcome["rounds"]]
    assert set(found) == {"old", "new"}
    assert all(killed and left_later == 0 for killed, _, _, left_later in outcome["rounds"])
    assert any(left for _, _, left, _ in outcome["rounds"])
