"""Daily files and a block's final rows after them: no seam, no row twice, no gap without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm._core import INTERVAL_MS, Writer, Zone
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayNotFound, GapError
from candleshm.history.day import Day, days_between
from candleshm.reader.derivation import derive
from candleshm.sim import Truth
from tests.support.days import MINUTE, UTC_ZONE, candles_of, day_of, store_in, written
from tests.support.klines import ingest, kline

TRUTH = Truth(3, symbols=4)
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
FIRST, YESTERDAY, TODAY = "2026-03-02", "2026-03-04", "2026-03-05"
# The block's newest final row opens at 09:13 of today.
END_MS = day_of(TODAY).start_ms + (9 * 60 + 14) * MINUTE
SHANGHAI = Zone("Asia/Shanghai")


def true_rows(start_ms: int, end_ms: int, symbol: str = "BTCUSDT", interval: str = "1m") -> np.ndarray:
    return TRUTH.floats("SPOT", symbol, interval, start_ms, end_ms)


def stored(directory: Path, first: str, last: str, zone: Zone = UTC_ZONE, interval: str = "1m") -> list[Day]:
    days = list(days_between(day_of(first, zone), day_of(last, zone)))
    for symbol in SYMBOLS:
        written(
            store_in(directory, interval, zone=zone),
            *(
                candles_of(
                    day, symbol=symbol, interval=interval, rows=true_rows(day.start_ms, day.end_ms, symbol, interval)
                )
                for day in days
            ),
        )
    return days


@pytest.fixture
def blocks(block_name: str) -> Iterator[Any]:
    """Make feeds of blocks that end at END_MS, and have a live row after it."""
    writers: list[Writer] = []

    def make(length: int, *, interval: str = "1m", derive: Any = None, skip: range = range(0)) -> candleshm.Feed:
        writer = Writer.open(
            block_name, market="SPOT", interval=interval, length=length, symbols=SYMBOLS, derive=derive
        )
        writers.append(writer)
        step_ms = INTERVAL_MS[interval]
        end_ms = END_MS // step_ms * step_ms
        for symbol in SYMBOLS:
            rows = true_rows(end_ms - (length - 1) * step_ms, end_ms, symbol, interval)
            writer.load_rows(symbol, np.delete(rows, list(skip), axis=0), sent_ms=end_ms)
            ingest(writer, symbol, kline(end_ms, 7.0, step_ms), sent_ms=end_ms + 30_000, limit=1)
        return candleshm.attach(block_name)

    yield make
    for writer in writers:
        writer.close()


def load(directory: Path, feed: candleshm.Feed, first: str = FIRST, **options: Any) -> np.ndarray:
    return history.load("SPOT", "BTCUSDT", first, base_dir=directory, join=feed, **options)


@pytest.mark.parametrize("length", [600, 2000, 2995, 20_000])
def test_files_end_where_the_window_of_the_block_begins(tmp_path: Path, blocks: Any, length: int) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    feed = blocks(length)
    rows = load(tmp_path, feed)
    np.testing.assert_array_equal(rows, true_rows(day_of(FIRST).start_ms, END_MS))
    np.testing.assert_array_equal(rows[-1], feed["BTCUSDT"].candles(1, closed_only=True)[-1])
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(load(tmp_path, feed, YESTERDAY), true_rows(day_of(YESTERDAY).start_ms, END_MS))


def test_no_file_is_needed_for_days_that_the_window_holds(tmp_path: Path, blocks: Any) -> None:
    feed = blocks(2000)
    for first, start_ms in ((YESTERDAY, day_of(YESTERDAY).start_ms), (TODAY, day_of(TODAY).start_ms)):
        np.testing.assert_array_equal(load(tmp_path, feed, first), true_rows(start_ms, END_MS))
    assert load(tmp_path, feed, "2026-03-06").shape == (0, 12)


def test_days_that_are_to_be_downloaded_are_named(tmp_path: Path, blocks: Any) -> None:
    stored(tmp_path, FIRST, FIRST)
    with pytest.raises(DayNotFound, match=r"2026-03-03 .*1 more days, up to 2026-03-04.*candleshm download") as caught:
        load(tmp_path, blocks(600))
    assert caught.value.days == ("2026-03-03", YESTERDAY)


def test_a_window_that_begins_today_leaves_a_gap_that_no_download_fills(tmp_path: Path, blocks: Any) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    feed = blocks(500)
    with pytest.raises(GapError, match=r"2026-03-05 00:00:00 to 2026-03-05 00:55:00 UTC.* LENGTH 555 does"):
        load(tmp_path, feed)
    with pytest.raises(GapError):
        history.panel("SPOT", None, "close", FIRST, base_dir=tmp_path, join=feed, absent="nan")


def test_the_length_that_the_error_names_is_enough(tmp_path: Path, blocks: Any) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    np.testing.assert_array_equal(load(tmp_path, blocks(555)), true_rows(day_of(FIRST).start_ms, END_MS))


def test_rows_that_the_block_still_misses_come_from_files_or_are_named(tmp_path: Path, blocks: Any) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    feed = blocks(2000, skip=range(10, 20))  # of yesterday
    np.testing.assert_array_equal(load(tmp_path, feed), true_rows(day_of(FIRST).start_ms, END_MS))
    with pytest.raises(DayNotFound):
        history.load("SPOT", "BTCUSDT", YESTERDAY, base_dir=tmp_path / "empty", join=feed)


def test_rows_of_today_that_the_block_still_misses_are_waited_for(tmp_path: Path, blocks: Any) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    with pytest.raises(GapError, match="is still fetching them; try again later"):
        load(tmp_path, blocks(2000, skip=range(1900, 1910)))


@pytest.mark.parametrize("interval", ["5m", "1h", "1d", "1d@Asia/Shanghai", "1w"])
def test_larger_candles_run_across_the_seam(tmp_path: Path, blocks: Any, interval: str) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    rows = load(tmp_path, blocks(1777), interval=interval)  # the window begins inside a candle
    start_ms = day_of(FIRST).start_ms
    expected = derive(true_rows(start_ms, END_MS), interval, start_ms=start_ms, end_ms=END_MS)
    np.testing.assert_array_equal(rows, expected)
    assert len(rows) or interval == "1w"


@pytest.mark.parametrize("zone", [SHANGHAI, Zone("America/New_York")])
def test_files_may_have_the_days_of_a_zone(tmp_path: Path, blocks: Any, zone: Zone) -> None:
    first = stored(tmp_path, FIRST, YESTERDAY, zone)[0]
    rows = load(tmp_path, blocks(2000), timezone=zone.name)
    np.testing.assert_array_equal(rows, true_rows(first.start_ms, END_MS))


def test_a_block_of_the_interval_itself_follows_files_of_it_or_of_1m(tmp_path: Path, blocks: Any) -> None:
    for number, interval in enumerate(("1m", "1h")):
        directory = tmp_path / str(number)
        stored(directory, FIRST, YESTERDAY, interval=interval)
    feed = blocks(20, interval="1h")
    end_ms = day_of(TODAY).start_ms + 9 * 60 * MINUTE
    expected = true_rows(day_of(FIRST).start_ms, end_ms, interval="1h")
    np.testing.assert_array_equal(load(tmp_path / "1", feed, interval="1h"), expected)
    found = load(tmp_path / "0", feed, interval="1h")
    np.testing.assert_array_equal(found[:, :7], expected[:, :7])
    assert len(found) == len(expected)


def test_a_derived_block_follows_the_files_of_1m(tmp_path: Path, blocks: Any, block_name: str) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    blocks(3500, derive=[(f"{block_name}-h", "1d@Asia/Shanghai", 3500)])
    with candleshm.attach(f"{block_name}-h") as days:
        found = load(tmp_path, days, interval="1d@Asia/Shanghai")
    start_ms = day_of(FIRST).start_ms
    expected = derive(true_rows(start_ms, END_MS), "1d@Asia/Shanghai", start_ms=start_ms, end_ms=END_MS)
    np.testing.assert_array_equal(found, expected)
    assert len(found) == 2


@pytest.mark.parametrize("absent", ["raise", "nan"])
@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_a_panel_goes_on_in_the_block(tmp_path: Path, blocks: Any, interval: str, absent: Any) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    feed = blocks(1777)
    found = history.panel("SPOT", None, "close", FIRST, base_dir=tmp_path, interval=interval, join=feed, absent=absent)
    assert found.symbols == tuple(SYMBOLS)
    start_ms, step_ms = day_of(FIRST).start_ms, INTERVAL_MS[interval]
    assert found.open_time_ms.tolist() == list(range(start_ms, END_MS // step_ms * step_ms, step_ms))
    assert found.end_ms == END_MS // step_ms * step_ms
    for place, symbol in enumerate(SYMBOLS):
        rows = history.load("SPOT", symbol, FIRST, base_dir=tmp_path, interval=interval, join=feed)
        np.testing.assert_array_equal(found.array[:, place], rows[:, CLOSE])


def test_days_without_a_file_are_nan_in_a_panel_that_asks_for_it(tmp_path: Path, blocks: Any) -> None:
    days = stored(tmp_path, FIRST, YESTERDAY)
    store_in(tmp_path).path("ETHUSDT", days[1]).unlink()
    feed = blocks(600)
    wanted: dict[str, Any] = {"base_dir": tmp_path, "join": feed, "symbols": SYMBOLS}
    with pytest.raises(DayNotFound, match="2026-03-03"):
        history.panel("SPOT", field="close", start=FIRST, **wanted)
    for interval, step in (("1m", 1), ("1h", 60)):
        found = history.panel("SPOT", field="close", start=FIRST, absent="nan", interval=interval, **wanted)
        assert not np.isnan(found.array[:, 0]).any()
        is_absent = (found.open_time_ms >= days[1].start_ms) & (found.open_time_ms < days[1].end_ms)
        assert np.isnan(found.array[is_absent, 1]).all()
        assert not np.isnan(found.array[~is_absent, 1]).any()
        assert is_absent.sum() == 1440 // step


def test_what_cannot_be_joined_is_named(tmp_path: Path, blocks: Any) -> None:
    feed = blocks(600)
    for options, words in (
        ({"end": YESTERDAY}, "end cannot be `2026-03-04` with join"),
        ({"interval": "1s"}, "has candles of 1m; candles of 1s come from a block of 1s, or are derived from one of 1m"),
        ({"interval": "3d"}, "interval cannot be `3d`"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(tmp_path, feed, **options)
    with pytest.raises(ConfigError, match="has candles of SPOT, not of UM"):
        history.load("UM", "BTCUSDT", FIRST, base_dir=tmp_path, join=feed)
    with pytest.raises(ConfigError, match=r"join cannot be `name`; allowed: a feed"):
        load(tmp_path, "name")  # type: ignore[arg-type]
    with pytest.raises(candleshm.UnknownSymbol):
        history.load("SPOT", "NOPEUSDT", FIRST, base_dir=tmp_path, join=feed)


def test_a_series_without_a_final_candle_cannot_be_joined(tmp_path: Path, block_name: str) -> None:
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=9, symbols=SYMBOLS)
    with candleshm.attach(block_name) as feed, pytest.raises(ConfigError, match="no final candle of BTCUSDT yet"):
        load(tmp_path, feed)
    writer.close()


def test_without_an_end_the_newest_stored_day_is_the_last(tmp_path: Path) -> None:
    stored(tmp_path, FIRST, YESTERDAY)
    start_ms, end_ms = day_of(FIRST).start_ms, day_of(YESTERDAY).end_ms
    np.testing.assert_array_equal(
        history.load("SPOT", "BTCUSDT", FIRST, base_dir=tmp_path), true_rows(start_ms, end_ms)
    )
    for interval in ("1h", "1d@Asia/Shanghai"):
        rows = history.load("SPOT", "BTCUSDT", FIRST, base_dir=tmp_path, interval=interval)
        expected = derive(true_rows(start_ms, end_ms), interval, start_ms=start_ms, end_ms=end_ms)
        np.testing.assert_array_equal(rows, expected)
        assert rows[-1, OPEN_TIME_MS] < end_ms
    for symbol, first in (("BTCUSDT", TODAY), ("NOPEUSDT", FIRST)):
        with pytest.raises(DayNotFound):
            history.load("SPOT", symbol, first, base_dir=tmp_path)
    with pytest.raises(ConfigError, match="end is missing; give the last day, or join=feed"):
        history.panel("SPOT", "BTCUSDT", "close", FIRST, base_dir=tmp_path)


def test_a_day_before_the_listing_says_since_when_there_are_candles(tmp_path: Path) -> None:
    day = day_of(YESTERDAY)
    listed_ms = day.start_ms + 480 * MINUTE
    rows = true_rows(listed_ms, day.end_ms)
    written(store_in(tmp_path), candles_of(day, rows=rows, outside=((day.start_ms, listed_ms),)))
    with pytest.raises(DayNotFound, match=r"BTCUSDT was not listed yet: .* is that of 2026-03-04 08:00:00"):
        history.load("SPOT", "BTCUSDT", FIRST, base_dir=tmp_path)
    with pytest.raises(DayNotFound, match="nothing of `btcusdt` is stored, but BTCUSDT; did you mean BTCUSDT"):
        history.load("SPOT", "btcusdt", YESTERDAY, base_dir=tmp_path)


@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_a_symbol_that_was_listed_today_is_in_panels_and_says_so_in_load(
    tmp_path: Path, block_name: str, interval: str
) -> None:
    listed_ms = END_MS - 100 * MINUTE
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=500, symbols=["BTCUSDT"])
    rows = [kline(listed_ms + number * MINUTE, 1.0 + number) for number in range(101)]
    # Fewer than were requested: there are no older ones. A second response confirms it.
    for sent_ms in (END_MS + 10_000, END_MS + 30_000):
        ingest(writer, "BTCUSDT", *rows, sent_ms=sent_ms, limit=1000)
    wanted: dict[str, Any] = {"base_dir": tmp_path, "interval": interval}
    with candleshm.attach(block_name) as feed:
        with pytest.raises(GapError, match="If the symbol was listed then, its `candles"):
            load(tmp_path, feed, interval=interval)
        panel = history.panel("SPOT", None, "close", FIRST, join=feed, absent="nan", **wanted)
    known = panel.array[~np.isnan(panel.array)]
    minutes = [1.0 + number for number in range(100)]
    assert known.tolist() == (minutes if interval == "1m" else [minutes[85]])
    writer.close()


def test_scan_says_that_it_derives_nothing(tmp_path: Path) -> None:
    stored(tmp_path, FIRST, FIRST)
    with pytest.raises(DayNotFound, match=r"interval=1m timezone=UTC .*; load and panel derive 5m from those of 1m"):
        history.scan("SPOT", SYMBOLS, start=FIRST, interval="5m", base_dir=tmp_path)
    with pytest.raises(DayNotFound, match="candleshm download"):
        history.scan("SPOT", SYMBOLS, start=TODAY, interval="5m", base_dir=tmp_path)
