"""Bigger candles out of daily files of 1m: what a backtest loads is what a strategy reads live, to the bit."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm._core import Writer, Zone
from candleshm.columns import OPEN_TIME_MS, QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME
from candleshm.errors import ConfigError, DayIncomplete, DayNotFound
from candleshm.history.day import Day, days_between
from candleshm.sim import Truth
from tests.support.days import UTC_ZONE, candles_of, day_of, rows_of, store_in, without, written

QUOTES = [QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME]
KOLKATA = Zone("Asia/Kolkata")
TRUTH = Truth(3, symbols=4)


def stored(directory: Path, first: str, last: str, zone: object = UTC_ZONE) -> list[Day]:
    """Write the true minutes of these days."""
    store = store_in(directory, zone=zone)
    days = list(days_between(day_of(first, zone), day_of(last, zone)))
    rows = [TRUTH.floats("SPOT", "BTCUSDT", "1m", day.start_ms, day.end_ms) for day in days]
    written(store, *(candles_of(day, rows=each) for day, each in zip(days, rows, strict=True)))
    return days


def load(directory: Path, first: str, last: str, interval: str, timezone: str = "UTC") -> np.ndarray:
    return history.load("SPOT", "BTCUSDT", first, last, interval=interval, timezone=timezone, base_dir=directory)


@pytest.mark.parametrize("interval", ["3m", "5m", "30m", "1h", "4h", "12h", "1d"])
def test_derived_candles_are_the_exchanges_own(tmp_path: Path, interval: str) -> None:
    days = stored(tmp_path, "2026-03-02", "2026-03-04")
    rows = load(tmp_path, "2026-03-02", "2026-03-04", interval)
    true = TRUTH.floats("SPOT", "BTCUSDT", interval, days[0].start_ms, days[-1].end_ms)
    np.testing.assert_array_equal(np.delete(rows, QUOTES, 1), np.delete(true, QUOTES, 1))
    np.testing.assert_array_max_ulp(rows[:, QUOTES], true[:, QUOTES], maxulp=2)


@pytest.mark.parametrize("interval", ["5m", "1h", "1d", "1d@Asia/Shanghai"])
def test_live_and_backtest_agree_to_the_bit(tmp_path: Path, block_name: str, interval: str) -> None:
    days = stored(tmp_path, "2026-03-01", "2026-03-05")
    minutes = load(tmp_path, "2026-03-01", "2026-03-05", "1m")
    derived_name = f"{block_name}-derived"
    writer = Writer.open(
        block_name,
        market="SPOT",
        interval="1m",
        length=len(minutes),
        symbols=["BTCUSDT"],
        derive=[(derived_name, interval, len(minutes))],
    )
    with closing(writer):
        writer.load_rows("BTCUSDT", minutes, sent_ms=days[-1].end_ms + 1)
        with candleshm.attach(derived_name) as feed:
            live = feed["BTCUSDT"].candles(closed_only=True)
    backtest = load(tmp_path, "2026-03-02", "2026-03-03", interval)
    within = (live[:, OPEN_TIME_MS] >= days[1].start_ms) & (live[:, OPEN_TIME_MS] < days[2].end_ms)
    assert len(backtest) >= 2
    np.testing.assert_array_equal(live[within].view(np.uint64), np.ascontiguousarray(backtest).view(np.uint64))


def test_a_candle_that_ends_after_the_last_day_needs_the_next_one(tmp_path: Path) -> None:
    # Days of Kolkata begin at half past, hours do not.
    stored(tmp_path, "2026-03-02", "2026-03-03", KOLKATA)
    with pytest.raises(DayNotFound, match="2026-03-04"):
        load(tmp_path, "2026-03-02", "2026-03-03", "1h", "Asia/Kolkata")
    (day,) = stored(tmp_path, "2026-03-04", "2026-03-04", KOLKATA)
    rows = load(tmp_path, "2026-03-02", "2026-03-03", "1h", "Asia/Kolkata")
    assert len(rows) == 48
    assert rows[-1, OPEN_TIME_MS] == day.start_ms - 30 * 60_000
    assert len(load(tmp_path, "2026-03-02", "2026-03-04", "1d@Asia/Kolkata", "Asia/Kolkata")) == 3


def test_weeks_and_months(tmp_path: Path) -> None:
    days = stored(tmp_path, "2026-02-01", "2026-03-01")
    for interval, end in (("1M", "2026-02-28"), ("1w", "2026-02-22")):
        rows = load(tmp_path, "2026-02-01", end, interval)
        true = TRUTH.floats("SPOT", "BTCUSDT", interval, days[0].start_ms, day_of(end, UTC_ZONE).end_ms)
        true = true[true[:, OPEN_TIME_MS] >= days[0].start_ms]
        assert len(true) > 0
        np.testing.assert_array_equal(np.delete(rows, QUOTES, 1), np.delete(true, QUOTES, 1))


def test_holes_count_as_known_and_missing_minutes_do_not(tmp_path: Path) -> None:
    day, store = day_of("2026-03-02", UTC_ZONE), store_in(tmp_path, zone=UTC_ZONE)
    whole = candles_of(day)
    written(store, without(whole, 30, 90, as_hole=True))
    rows = load(tmp_path, "2026-03-02", "2026-03-02", "1h")
    assert len(rows) == 24
    assert rows[0, 8] == whole.rows[:30, 8].sum()
    assert rows[1, 8] == whole.rows[90:120, 8].sum()
    written(store, without(whole, 30, 60, as_hole=False))
    with pytest.raises(DayIncomplete, match="2026-03-02"):
        load(tmp_path, "2026-03-02", "2026-03-02", "1h")


def test_files_of_the_interval_itself_count_for_more_where_they_are_all_there(tmp_path: Path) -> None:
    days = stored(tmp_path, "2026-03-02", "2026-03-03")
    hours = store_in(tmp_path, "1h", zone=UTC_ZONE)
    written(hours, candles_of(days[0], interval="1h"))
    own = rows_of(days[0], "1h")
    np.testing.assert_array_equal(load(tmp_path, "2026-03-02", "2026-03-02", "1h"), own)
    derived = load(tmp_path, "2026-03-02", "2026-03-03", "1h")
    assert derived.shape == (48, 12)
    assert not np.array_equal(derived[:24], own)
    with pytest.raises(DayNotFound, match="2026-03-04"):
        load(tmp_path, "2026-03-03", "2026-03-04", "1h")


@pytest.mark.parametrize("interval", ["3d", "7m", "1d@Nowhere/Town", "5m@UTC"])
def test_what_cannot_be_derived_is_named(tmp_path: Path, interval: str) -> None:
    stored(tmp_path, "2026-03-02", "2026-03-02")
    with pytest.raises(ConfigError, match=interval.split("@")[-1]):
        load(tmp_path, "2026-03-02", "2026-03-02", interval)
