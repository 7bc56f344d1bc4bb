"""One field of many symbols out of daily files, as a live panel gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm._core import Zone
from candleshm.columns import CLOSE, OPEN_TIME_MS, VOLUME
from candleshm.errors import ConfigError, DayDamaged, DayIncomplete, DayNotFound
from candleshm.history.day import days_between
from candleshm.sim import Truth
from tests.support.days import MINUTE, UTC_ZONE, candles_of, day_of, rows_of, store_in, without, written

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
TRUTH = Truth(3, symbols=4)
FIRST, LAST = "2026-03-02", "2026-03-04"
DAY_MS = 86_400_000


def stored(
    directory: Path, symbol: str, first: str = FIRST, last: str = LAST, zone: Zone = UTC_ZONE, interval: str = "1m"
) -> None:
    """Write the true candles of these days."""
    days = list(days_between(day_of(first, zone), day_of(last, zone)))
    rows = [TRUTH.floats("SPOT", symbol, interval, day.start_ms, day.end_ms) for day in days]
    candles = [
        candles_of(day, symbol=symbol, interval=interval, rows=each) for day, each in zip(days, rows, strict=True)
    ]
    written(store_in(directory, interval, zone=zone), *candles)


def panel(directory: Path, symbols: Any = None, field: str = "close", **options: Any) -> candleshm.Panel:
    first, last = options.pop("first", FIRST), options.pop("last", LAST)
    return history.panel("SPOT", symbols, field, first, last, base_dir=directory, **options)


def column_of(directory: Path, symbol: str, open_time_ms: np.ndarray, column: int, **options: Any) -> np.ndarray:
    """Return what `load` gives, one row at a time, in the places of a panel's rows."""
    rows = history.load("SPOT", symbol, FIRST, LAST, base_dir=directory, **options)
    known = dict(zip(rows[:, OPEN_TIME_MS].tolist(), rows[:, column].tolist(), strict=True))
    assert set(known) <= set(open_time_ms.tolist())
    return np.array([known.get(open_ms, np.nan) for open_ms in open_time_ms.tolist()])


@pytest.mark.parametrize("interval", ["1m", "5m", "4h", "1d"])
@pytest.mark.parametrize(("field", "column"), [("close", CLOSE), ("volume", VOLUME)])
def test_a_panel_holds_what_load_gives_for_each_symbol(tmp_path: Path, interval: str, field: str, column: int) -> None:
    for symbol in SYMBOLS:
        stored(tmp_path, symbol)
    found = panel(tmp_path, SYMBOLS[::-1], field, interval=interval)
    start_ms, end_ms = day_of(FIRST).start_ms, day_of(LAST).end_ms
    length_ms = candleshm._core.INTERVAL_MS[interval]
    assert found.open_time_ms.tolist() == list(range(start_ms, end_ms, length_ms))
    assert found.end_ms == end_ms
    assert (found.symbols, found.fields) == (("ETHUSDT", "BTCUSDT"), (field,))
    for place, symbol in enumerate(found.symbols):
        expected = column_of(tmp_path, symbol, found.open_time_ms, column, interval=interval)
        np.testing.assert_array_equal(found.array[:, place], expected)
    assert list(found.to_pandas().columns) == ["ETHUSDT", "BTCUSDT"]
    assert panel(tmp_path, None, field, interval=interval).symbols == ("BTCUSDT", "ETHUSDT")
    assert panel(tmp_path, "BTCUSDT", field, interval=interval).symbols == ("BTCUSDT",)


def test_holes_are_nan_and_candles_off_the_grid_stand_in_their_slot(tmp_path: Path) -> None:
    day = day_of(FIRST)
    rows = rows_of(day)
    rows[50, OPEN_TIME_MS] += 17_000
    store = store_in(tmp_path)
    written(store, candles_of(day, rows=rows), without(candles_of(day, symbol="ETHUSDT"), 10, 12, as_hole=True))
    found = panel(tmp_path, SYMBOLS, last=FIRST)
    assert found.open_time_ms[50] == day.start_ms + 50 * MINUTE
    np.testing.assert_array_equal(found.array[:, 0], rows[:, CLOSE])
    assert np.flatnonzero(np.isnan(found.array[:, 1])).tolist() == [10, 11]
    moments = day.start_ms + MINUTE * np.array([0, 10, 11, 12, 13])
    expected = [np.nan, *rows_of(day)[[9, 9, 9, 12], CLOSE]]
    np.testing.assert_array_equal(found.asof(moments)[:, 1], expected)


def test_candles_of_one_interval_are_joined_to_another_without_a_look_ahead(tmp_path: Path) -> None:
    stored(tmp_path, "BTCUSDT")
    minutes, hours = panel(tmp_path), panel(tmp_path, interval="1h")
    closes_ms = minutes.open_time_ms + MINUTE
    known = hours.asof(closes_ms)
    assert known.shape == minutes.shape
    assert np.isnan(known[:59]).all()
    # At the close of an hour's last minute the hour has closed, too.
    np.testing.assert_array_equal(known[59::60], minutes.array[59::60])
    np.testing.assert_array_equal(known[60:119], np.repeat(minutes.array[59:60], 59, 0))


@pytest.mark.parametrize(
    ("interval", "first", "last", "opens"),
    [
        ("1M", "2026-02-01", "2026-03-01", ["2026-02-01", "2026-03-01"]),
        ("1w", "2026-02-01", "2026-02-16", ["2026-02-02", "2026-02-09", "2026-02-16"]),
    ],
)
def test_weeks_and_months_have_their_own_grid(
    tmp_path: Path, interval: str, first: str, last: str, opens: list[str]
) -> None:
    stored(tmp_path, "BTCUSDT", "2026-02-01", "2026-03-31")
    found = panel(tmp_path, interval=interval, first=first, last=last)
    assert found.open_time_ms.tolist() == [day_of(text).start_ms for text in opens]
    assert not np.isnan(found.array).any()
    assert found.end_ms == day_of("2026-04-01" if interval == "1M" else "2026-02-23").start_ms


def test_days_of_a_zone_where_the_clocks_change(tmp_path: Path) -> None:
    zone = Zone("America/New_York")
    stored(tmp_path, "BTCUSDT", "2026-03-07", "2026-03-09", zone)
    name = "America/New_York"
    found = panel(tmp_path, interval=f"1d@{name}", timezone=name, first="2026-03-07", last="2026-03-09")
    assert np.diff([*found.open_time_ms, found.end_ms]).tolist() == [DAY_MS, DAY_MS - 3_600_000, DAY_MS]
    assert not np.isnan(found.array).any()


def test_days_without_a_file_are_an_error_or_nan(tmp_path: Path) -> None:
    stored(tmp_path, "BTCUSDT")
    stored(tmp_path, "ETHUSDT", first="2026-03-03")  # listed on the second day
    with pytest.raises(DayNotFound, match=FIRST) as caught:
        panel(tmp_path, SYMBOLS)
    assert caught.value.days == (FIRST,)
    for interval in ("1m", "1h"):
        found = panel(tmp_path, SYMBOLS, interval=interval, absent="nan")
        whole = panel(tmp_path, "BTCUSDT", interval=interval)
        np.testing.assert_array_equal(found.array[:, :1], whole.array)
        later = panel(tmp_path, "ETHUSDT", interval=interval, first="2026-03-03")
        days = len(whole.array) // 3
        assert np.isnan(found.array[:days, 1]).all()
        np.testing.assert_array_equal(found.array[days:, 1:], later.array)
    # A gap between days: the candles that lie across it are not made of half of their minutes.
    store_in(tmp_path).path("BTCUSDT", day_of("2026-03-03")).unlink()
    assert np.isnan(panel(tmp_path, "BTCUSDT", interval="1h", absent="nan").array[:, 0]).tolist() == [
        *[False] * 24,
        *[True] * 24,
        *[False] * 24,
    ]
    assert np.isnan(panel(tmp_path, "BTCUSDT", interval="1w", absent="nan").array).all()


def test_a_candle_that_ends_after_the_last_day_is_in_the_panel_and_the_next_one_is_not(tmp_path: Path) -> None:
    # Days of Kolkata begin at half past, hours do not.
    zone, name = Zone("Asia/Kolkata"), "Asia/Kolkata"
    stored(tmp_path, "BTCUSDT", zone=zone)
    whole = panel(tmp_path, interval="1h", timezone=name, last="2026-03-03")
    lenient = panel(tmp_path, interval="1h", timezone=name, last="2026-03-03", absent="nan")
    assert len(whole.array) == 48
    assert whole.end_ms == day_of("2026-03-03", zone).end_ms + 30 * MINUTE
    np.testing.assert_array_equal(lenient.array, whole.array)
    # Without the next day the last candle is not known.
    last = panel(tmp_path, interval="1h", timezone=name, absent="nan")
    assert np.flatnonzero(np.isnan(last.array)).tolist() == [71]


def test_files_of_the_interval_itself_are_read_where_there_are_as_many(tmp_path: Path) -> None:
    stored(tmp_path, "BTCUSDT", last=FIRST)
    own = rows_of(day_of(FIRST), "1h")
    written(store_in(tmp_path, "1h"), candles_of(day_of(FIRST), interval="1h", rows=own))
    for absent in ("raise", "nan"):
        found = panel(tmp_path, "BTCUSDT", interval="1h", last=FIRST, absent=absent)
        np.testing.assert_array_equal(found.array[:, 0], own[:, CLOSE])
    stored(tmp_path, "BTCUSDT", last="2026-03-03")
    derived = panel(tmp_path, "BTCUSDT", interval="1h", last="2026-03-03")
    np.testing.assert_array_equal(panel(tmp_path, "BTCUSDT", interval="1h", absent="nan").array[:48], derived.array)


@pytest.mark.parametrize("absent", ["raise", "nan"])
def test_what_cannot_be_trusted_is_an_error_in_any_case(tmp_path: Path, absent: str) -> None:
    day = day_of(FIRST)
    store = store_in(tmp_path)
    written(store, without(candles_of(day), 30, 60, as_hole=False))
    with pytest.raises(DayIncomplete):
        panel(tmp_path, "BTCUSDT", last=FIRST, absent=absent)
    store.path("BTCUSDT", day).write_bytes(b"PAR1")
    with pytest.raises(DayDamaged):
        panel(tmp_path, "BTCUSDT", last=FIRST, absent=absent)
    for symbols in (["DOGEUSDT"], []):
        with pytest.raises(DayNotFound):
            panel(tmp_path, symbols, absent=absent)
    with pytest.raises(DayNotFound):
        panel(tmp_path, None, first="2026-03-03", absent=absent)


def test_arguments_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    stored(tmp_path, "BTCUSDT")
    symbols: Any = SYMBOLS
    with pytest.raises(ConfigError, match=r"symbol cannot be `\['BTCUSDT', 'ETHUSDT'\]`.*`panel` reads many"):
        history.load("SPOT", symbols, FIRST, LAST, base_dir=tmp_path)
    for options, text in (
        ({"field": "price"}, "field cannot be `price`"),
        ({"absent": "drop"}, "absent cannot be `drop`"),
        ({"interval": "3d"}, "interval cannot be `3d`"),
        ({"first": LAST, "last": FIRST}, "end cannot be"),
    ):
        with pytest.raises(ConfigError, match=text):
            panel(tmp_path, "BTCUSDT", **options)
