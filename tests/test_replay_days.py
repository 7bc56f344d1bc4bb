"""What a replay takes from daily files: which moments, which days it needs, when symbols were listed and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import cli
from candleshm._core import Zone
from candleshm.errors import ConfigError, DayNotFound
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.day import Day
from candleshm.replaying.day_rows import DayRows
from candleshm.replaying.lives import lives_of
from candleshm.replaying.span import Span
from candleshm.row_state import RowState
from tests.support.days import MINUTE, NEW_YORK, candles_of, day_of, rows_of, store_in, without, written

DAY_MS = 86_400_000
FIRST_MS = day_of("2026-03-07").start_ms


class Taken:
    """Takes rows as the core does, and keeps them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Candles]] = {}
        self.states: dict[str, list[Any]] = {}

    def give(self, symbol: str, rows: Candles, states: Any) -> None:
        assert rows.shape == (len(states), 12)
        self.rows.setdefault(symbol, []).append(rows)
        self.states.setdefault(symbol, []).append(states)

    def give_inside(self, symbol: str, rows: Candles) -> None:
        self.give(symbol, rows, np.full(len(rows), RowState.CLOSED))

    def all_rows(self, symbol: str) -> Candles:
        return np.concatenate(self.rows[symbol])


def listed(text: str, slot: int, **changes: Any) -> DayCandles:
    """Return a day whose first candle is that of a slot, as a download finds it."""
    candles = candles_of(day_of(text), **changes)
    start_ms = candles.grid.first_ms
    return candles_of(candles.day, rows=candles.rows[slot:], outside=((start_ms, start_ms + slot * MINUTE),), **changes)


def ended(text: str, slot: int, **changes: Any) -> DayCandles:
    """Return a day whose last candle is the one before a slot."""
    candles = candles_of(day_of(text), **changes)
    end_ms = candles.grid.first_ms + slot * MINUTE
    return candles_of(candles.day, rows=candles.rows[:slot], outside=((end_ms, candles.grid.end_ms),), **changes)


def test_days_are_whole_and_moments_are_exact() -> None:
    assert Span.of("2026-03-07", "2026-03-08", "1m", "UTC") == Span.of(
        date(2026, 3, 7), FIRST_MS + 2 * DAY_MS, "1m", "UTC"
    )
    hour = Span.of("2026-03-07T10:00", datetime(2026, 3, 7, 11, tzinfo=UTC), "1m", "UTC")
    assert (hour.start_ms, hour.end_ms) == (FIRST_MS + 600 * MINUTE, FIRST_MS + 660 * MINUTE)
    # The clocks of New York change on the 8th: the day has 23 hours.
    short = Span.of("2026-03-08", "2026-03-08", "1m", "America/New_York")
    assert short.end_ms - short.start_ms == 23 * 60 * MINUTE
    assert Span.of("2026-03-08T00:00", "2026-03-08T04:00", "1h", "America/New_York").start_ms == short.start_ms
    # Of 1d the candle that opens inside the day counts.
    days = Span.of("2026-03-07", "2026-03-07", "1d", "America/New_York")
    assert (days.start_ms, days.end_ms) == (FIRST_MS + DAY_MS, FIRST_MS + 2 * DAY_MS)
    assert [str(day) for day in days.days()] == ["2026-03-07"]
    assert [str(day) for day in hour.days(601)] == ["2026-03-06", "2026-03-07"]


@pytest.mark.parametrize("of", [int, float, str, np.int64, np.float64, lambda ms: np.full(3, ms)[1]])
def test_epoch_ms_are_a_moment_whatever_number_they_are(of: Callable[[int], Any]) -> None:
    span = Span.of(of(FIRST_MS + 5 * MINUTE), of(FIRST_MS + 9 * MINUTE), "1m", "UTC")
    assert (span.start_ms, span.end_ms) == (FIRST_MS + 5 * MINUTE, FIRST_MS + 9 * MINUTE)
    assert Day.parse(of(FIRST_MS + 5 * MINUTE), Zone("UTC")) == day_of("2026-03-07")
    with pytest.raises(ConfigError, match="milliseconds"):
        Span.of(of(FIRST_MS // 1000), of(FIRST_MS // 1000 + 540), "1m", "UTC")


def test_digits_without_dashes_are_a_date() -> None:
    assert Span.of("20260307", "20260308", "1m", "UTC") == Span.of("2026-03-07", "2026-03-08", "1m", "UTC")


@pytest.mark.parametrize(
    ("zone", "first", "again"),
    [
        ("Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        ("America/New_York", "2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00"),
        ("Australia/Lord_Howe", "2026-04-05T01:45+11:00", "2026-04-05T01:45+10:30"),
        # Neither comes twice: a time after the change, and one that the clocks jump over.
        ("Europe/Berlin", "2026-10-25T03:00+01:00", "2026-10-25T03:00+01:00"),
        ("Europe/Berlin", "2026-03-29T03:30+02:00", "2026-03-29T03:30+02:00"),
        ("Europe/Berlin", "2026-03-29T02:30+01:00", "2026-03-29T02:30+01:00"),
    ],
)
def test_of_a_time_that_comes_twice_fold_says_which(zone: str, first: str, again: str) -> None:
    local = datetime.fromisoformat(first).replace(tzinfo=None)
    for fold, expected in ((0, first), (1, again)):
        span = Span.of(local.replace(fold=fold), datetime.fromisoformat(expected) + timedelta(hours=3), "1m", zone)
        assert span.start_ms == datetime.fromisoformat(expected).timestamp() * 1000


@pytest.mark.parametrize(
    ("start", "end", "interval", "words"),
    [
        ("2026-03-08", "2026-03-07", "1m", "end cannot be `2026-03-07`"),
        ("2026-03-07T10:00:30", "2026-03-08", "1m", "cannot begin or end at `2026-03-07T10:00:30`"),
        ("yesterday", "2026-03-08", "1m", "day cannot be `yesterday`"),
        ("2026-03-07", "2026-03-07", "1w", "interval cannot be `1w`"),
        (1772841600, "2026-03-08", "1m", "1772841600"),
        ("2026-03-07T10:00", "2026-03-07T10:00", "1m", "no candle that opens then counts; allowed: one after start"),
        ("2026-03-07", "2026-03-07T00:00", "1m", "it is a moment, and no candle that opens then counts"),
        (
            "9999-12-31",
            "9999-12-31",
            "1m",
            "day cannot be `9999-12-31`; allowed: YYYY-MM-DD, a date, a datetime or epoch "
            "milliseconds, from 1970 to 9998",
        ),
        (np.datetime64("2026-03-07"), "2026-03-08", "1m", "day cannot be `2026-03-07`"),
    ],
)
def test_what_is_no_range_is_refused(start: Any, end: Any, interval: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Span.of(start, end, interval, "UTC")
    assert words in str(refused.value)


def test_the_rows_holes_and_states_of_the_files_are_given_once_and_in_order(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first = candles_of(day_of("2026-03-07"), verified=((FIRST_MS, FIRST_MS + 3 * MINUTE),))
    second = without(candles_of(day_of("2026-03-08")), 100, 160, as_hole=True)
    third = without(candles_of(day_of("2026-03-09")), 5, 7, as_hole=False)
    written(store, first, second, third)
    span = Span.of("2026-03-07T00:01", "2026-03-09T12:00", "1m", "UTC")
    lives = lives_of(store, ["BTCUSDT"], span.days())
    days = DayRows(store, lives, span.days(), (span.start_ms, span.end_ms), "accept")
    taken = Taken()
    given = [days.give(taken) for _ in range(4)]

    assert given == [FIRST_MS + DAY_MS, FIRST_MS + 2 * DAY_MS, span.end_ms, span.end_ms]
    states = np.concatenate(taken.states["BTCUSDT"])
    rows = taken.all_rows("BTCUSDT")
    assert len(rows) == 1439 + 1440 + 718
    assert (states[:2] == RowState.VERIFIED).all()
    assert (states == RowState.HOLE).sum() == 60
    assert np.isnan(rows[states == RowState.HOLE][:, 4]).all()
    held = rows[states != RowState.HOLE]
    expected = np.concatenate([first.rows[1:], second.rows, third.rows[third.rows[:, 0] < span.end_ms]])
    np.testing.assert_array_equal(held, expected)
    assert days.missing == 2


def test_a_symbol_that_was_listed_or_ended_needs_no_other_days(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    written(store, *(candles_of(day_of(f"2026-03-0{number}")) for number in (7, 8, 9)))
    written(store, listed("2026-03-08", 300, symbol="NEWUSDT"), candles_of(day_of("2026-03-09"), symbol="NEWUSDT"))
    written(store, ended("2026-03-07", 200, symbol="OLDUSDT"), ended("2026-03-08", 0, symbol="OLDUSDT"))
    days = Span.of("2026-03-07", "2026-03-09", "1m", "UTC").days()

    lives = lives_of(store, ["BTCUSDT", "NEWUSDT", "OLDUSDT"], days)

    assert (lives["BTCUSDT"].listed_ms, lives["BTCUSDT"].ended_ms) == (None, None)
    assert (lives["NEWUSDT"].listed_ms, lives["NEWUSDT"].ended_ms) == (FIRST_MS + DAY_MS + 300 * MINUTE, None)
    assert (lives["OLDUSDT"].listed_ms, lives["OLDUSDT"].ended_ms) == (None, FIRST_MS + 200 * MINUTE)
    assert not lives["NEWUSDT"].trades_in(FIRST_MS, FIRST_MS + DAY_MS)
    assert not lives["OLDUSDT"].trades_in(FIRST_MS + DAY_MS, FIRST_MS + 2 * DAY_MS)
    taken = Taken()
    rows = DayRows(store, lives, days, (FIRST_MS, FIRST_MS + 3 * DAY_MS))
    for _ in days:
        rows.give(taken)
    assert [len(taken.all_rows(symbol)) for symbol in lives] == [3 * 1440, 1140 + 1440, 200]


def test_a_symbol_whose_stored_days_hold_no_candle_is_left_out(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for text in ("2026-03-07", "2026-03-08"):
        written(store, candles_of(day_of(text)))
        written(store, ended(text, 0, symbol="GONEUSDT"))
    with candleshm.replay(tmp_path, "SPOT", None, "1m", "2026-03-07", "2026-03-08") as replay:
        assert (replay.symbols, replay.left_out) == (("BTCUSDT",), ("GONEUSDT",))
    with pytest.raises(ConfigError, match="none of GONEUSDT trades"):
        candleshm.replay(tmp_path, "SPOT", "GONEUSDT", "1m", "2026-03-08", "2026-03-08")


def test_a_pause_of_trading_inside_a_life_is_a_hole(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    written(store, ended("2026-03-07", 1000), candles_of(day_of("2026-03-08")))
    days = Span.of("2026-03-07", "2026-03-08", "1m", "UTC").days()
    taken = Taken()
    rows = DayRows(store, lives_of(store, ["BTCUSDT"], days), days, (FIRST_MS, FIRST_MS + 2 * DAY_MS))
    for _ in days:
        rows.give(taken)
    assert (np.concatenate(taken.states["BTCUSDT"]) == RowState.HOLE).sum() == 440
    assert rows.missing == 0


def test_days_that_are_not_stored_are_named_with_the_command_that_brings_them(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    written(store, *(candles_of(day_of(f"2026-03-{number}")) for number in ("07", "09", "10")))
    written(store, candles_of(day_of("2026-03-08"), symbol="ETHUSDT"))
    days = Span.of("2026-03-07", "2026-03-11", "1m", "UTC").days()

    with pytest.raises(DayNotFound) as refused:
        lives_of(store, ["BTCUSDT", "ETHUSDT"], days)

    assert refused.value.days == ("2026-03-07", "2026-03-08", "2026-03-09", "2026-03-10", "2026-03-11")
    command = str(refused.value).split("`")[1]
    assert command == (
        f"candleshm download --market spot --symbols BTCUSDT,ETHUSDT --interval 1m --start 2026-03-07 --end 2026-03-11 "
        f"--type all --candle-dir {tmp_path}"
    )
    cli.make_parser().parse_args(command.split()[1:])
    # Only days between stored ones have to be there if others count as days without trading.
    with pytest.raises(DayNotFound) as refused:
        lives_of(store, ["BTCUSDT", "ETHUSDT"], days, "accept")
    assert refused.value.days == ("2026-03-08",)
    lives = lives_of(store, ["ETHUSDT"], days, "accept")
    assert (lives["ETHUSDT"].listed_ms, lives["ETHUSDT"].ended_ms) == (FIRST_MS + DAY_MS, FIRST_MS + 2 * DAY_MS)


def test_a_symbol_of_which_nothing_is_stored(tmp_path: Path) -> None:
    written(store_in(tmp_path), candles_of(day_of("2026-03-07")))
    days = Span.of("2026-03-07", "2026-03-07", "1m", "UTC").days()
    with pytest.raises(DayNotFound, match="did you mean BTCUSDT"):
        lives_of(store_in(tmp_path), ["BTCUSTD"], days)
    with pytest.raises(DayNotFound, match="replay interval 1m with derive 5m"):
        lives_of(store_in(tmp_path, "5m"), ["BTCUSDT"], days)


def test_the_days_of_a_zone_with_changed_clocks_follow_each_other_without_a_seam(tmp_path: Path) -> None:
    store = store_in(tmp_path, zone=NEW_YORK)
    span = Span.of("2026-03-07", "2026-03-09", "1m", "America/New_York")
    written(store, *(candles_of(day) for day in span.days()))
    rows = DayRows(store, lives_of(store, ["BTCUSDT"], span.days()), span.days(), (span.start_ms, span.end_ms))
    taken = Taken()
    while rows.give(taken) < span.end_ms:
        pass
    open_ms = taken.all_rows("BTCUSDT")[:, 0]
    assert len(open_ms) == 71 * 60
    assert (np.diff(open_ms) == MINUTE).all()


def test_files_of_months_are_given_in_larger_parts(tmp_path: Path) -> None:
    store = store_in(tmp_path, "1h")
    span = Span.of("2026-01-01", "2026-04-30", "1h", "UTC")
    with store.writing():
        store.write(*(candles_of(day, interval="1h") for day in span.days()))
    rows = DayRows(store, lives_of(store, ["BTCUSDT"], span.days()), span.days(), (span.start_ms, span.end_ms))
    taken = Taken()
    assert rows.give(taken) == span.start_ms + 60 * DAY_MS
    assert rows.give(taken) == span.end_ms
    np.testing.assert_array_equal(
        taken.all_rows("BTCUSDT"), np.concatenate([rows_of(day, "1h") for day in span.days()])
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speed": 0}, "speed cannot be `0`"),
        ({"speed": "fast"}, "speed cannot be `fast`"),
        ({"inside": "10s"}, "inside cannot be `10s`"),
        ({"warm": -1}, "warm cannot be `-1`"),
        ({"warm": 300, "length": 300}, "warm cannot be `300` with length `300`"),
        ({"consumers": 0}, "consumers cannot be `0`"),
        ({"derive": ["7m"]}, "derive cannot be `7m`"),
        ({"name": "a/b"}, "name cannot be `a/b`"),
        ({"symbols": []}, "at least one is needed"),
        ({"absent": "nan"}, "absent cannot be `nan`"),
        ({"market": "moon"}, "market cannot be `moon`"),
        ({"candle_dir": ""}, "candle_dir is empty"),
        ({"candle_dir": "/nowhere/candles"}, "candle_dir cannot be `/nowhere/candles`: there is no such directory"),
        ({"candle_dir": __file__}, "it is no directory"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    written(store_in(tmp_path), candles_of(day_of("2026-03-07")))
    given: dict[str, Any] = {
        "candle_dir": tmp_path,
        "market": "SPOT",
        "symbols": ["BTCUSDT"],
        "interval": "1m",
        "start": "2026-03-07",
        "end": "2026-03-07",
    }
    with pytest.raises(ConfigError) as refused:
        candleshm.replay(**(given | changes))
    assert words in str(refused.value)
