"""`candleshm.replay`: a block that lives through stored days again, and what is left when it ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm.columns import CLOSE, HIGH, LOW, OPEN_TIME_MS, VOLUME
from candleshm.errors import BlockInUse, BlockNotFound, ConfigError, DayDamaged, DayIncomplete
from candleshm.row_state import RowState
from tests.support.days import MINUTE, candles_of, day_of, store_in, without, written
from tests.support.histories import ENDED, FULL, HOLES, LISTED, MISSING, SYMBOLS, History, random_rows, stored_history

SHM = Path("/dev/shm")
DAY_MS = 86_400_000
DAYS = ("2026-03-07", "2026-03-08")
START_MS = day_of(DAYS[0]).start_ms


@pytest.fixture(scope="module")
def candle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("candles")


@pytest.fixture(scope="module")
def history(candle_dir: Path) -> History:
    """Two days of 5m of five symbols, in `candle_dir`."""
    return stored_history(candle_dir, "5m", *DAYS, "UTC", np.random.default_rng(3))


def test_a_run_without_readers_ends_in_the_rows_of_the_files(
    candle_dir: Path, history: History, block_name: str
) -> None:
    given: dict[str, Any] = {"derive": ["1h"], "name": block_name, "absent": "accept"}
    with candleshm.replay(candle_dir, "spot", None, "5m", *DAYS, **given) as replay:
        assert (replay.name, replay.start_ms, replay.end_ms) == (block_name, START_MS, START_MS + 2 * DAY_MS)
        assert sorted(replay.symbols) == sorted(SYMBOLS)
        assert (replay.left_out, replay.now_ms, replay.is_over) == ((), START_MS, False)
        assert replay.feed.health.state == "replay"

        replay.run()

        assert (replay.now_ms, replay.is_over) == (replay.end_ms, True)
        for symbol in SYMBOLS:
            rows, states = replay.feed[symbol].snapshot(holes="nan")
            held = rows[np.isin(states, (RowState.CLOSED, RowState.VERIFIED))]
            np.testing.assert_array_equal(held, history.rows[symbol])
            assert (states == RowState.HOLE).any() == (symbol == HOLES)
            assert (states == RowState.MISSING).any() == (symbol == MISSING)
        assert replay.missing == sum(end - start for start, end in history.missing[MISSING]) // (5 * MINUTE)
        hours = replay.derived["1h"][FULL].candles(closed_only=True)
        np.testing.assert_array_equal(hours, candleshm.derive(history.rows[FULL], "1h"))
    assert list(SHM.glob(f"*{block_name}*")) == []
    with pytest.raises(BlockNotFound):
        candleshm.attach(block_name)


def test_rows_from_before_the_start_are_there_from_the_beginning(candle_dir: Path, history: History) -> None:
    start = "2026-03-08T00:00"
    with candleshm.replay(candle_dir, "SPOT", [FULL], "5m", start, DAYS[1], warm=100, derive=["1h"]) as replay:
        rows = history.rows[FULL]
        before = rows[rows[:, OPEN_TIME_MS] < replay.start_ms]
        np.testing.assert_array_equal(replay.feed[FULL].candles(closed_only=True), before[-100:])
        hours = replay.derived["1h"][FULL].candles(closed_only=True)
        np.testing.assert_array_equal(hours, candleshm.derive(before[-100:], "1h"))


def test_a_symbol_is_listed_and_another_one_ends(candle_dir: Path, history: History) -> None:
    with candleshm.replay(candle_dir, "SPOT", [FULL, LISTED, ENDED], "5m", *DAYS) as replay:
        feed = replay.feed
        while replay.step():
            assert (LISTED in feed) == (replay.now_ms >= history.listed_ms[LISTED])
            if replay.now_ms >= history.ended_ms[ENDED] + 10 * MINUTE:
                # Closes and panels go on without it.
                assert ENDED not in feed.panel("close", n=3).symbols
        with candleshm.attach(replay.name, max_age=60.0) as strict, pytest.raises(candleshm.StaleData, match=ENDED):
            strict[ENDED].candles(1)


def test_symbols_that_do_not_trade_in_the_range_are_left_out(candle_dir: Path, history: History) -> None:
    moment = min(history.listed_ms[LISTED], START_MS + DAY_MS)
    with candleshm.replay(candle_dir, "SPOT", [FULL, LISTED], "5m", START_MS, moment) as replay:
        assert (replay.symbols, replay.left_out) == ((FULL,), (LISTED,))
        assert LISTED not in replay.feed
    with pytest.raises(ConfigError, match=f"none of {LISTED} trades"):
        candleshm.replay(candle_dir, "SPOT", LISTED, "5m", START_MS, moment)


def test_ages_follow_the_replayed_clock(candle_dir: Path, history: History) -> None:
    with candleshm.replay(candle_dir, "SPOT", [FULL], "5m", *DAYS) as replay:
        with candleshm.attach(replay.name, max_age=1.0) as feed:
            assert replay.step()
            assert feed[FULL].age == 0
            assert len(feed[FULL].candles(1, closed_only=True)) == 1
        assert replay.feed.health.replayed_at is not None
        assert replay.feed.health.replayed_at.timestamp() * 1000 == replay.now_ms


def test_four_steps_inside_a_candle_show_low_or_high_first_as_its_direction_implies(tmp_path: Path) -> None:
    candles = candles_of(day_of(DAYS[0]))
    rows = candles.rows.copy()
    rows[:, 1:5] = [100, 104, 97, 103]  # rises
    rows[1::2, 1:5] = [103, 104, 97, 100]  # falls
    written(store_in(tmp_path), candles_of(candles.day, rows=rows))
    inside = "open,high,low,close"
    end_ms = START_MS + 2 * MINUTE
    shown = []
    with candleshm.replay(tmp_path, "SPOT", "BTCUSDT", "1m", START_MS, end_ms, inside=inside, derive=["3m"]) as replay:
        while replay.step():
            live = replay.feed["BTCUSDT"].live
            shown.append((replay.now_ms - START_MS, *live[[HIGH, LOW, CLOSE]].tolist(), live[VOLUME] > 0))
            if replay.feed["BTCUSDT"].states()[-1] == RowState.LIVE:
                three = replay.derived["3m"]["BTCUSDT"].live
                assert three[CLOSE] == live[CLOSE]
    assert shown == [
        (0, 100, 100, 100, False),
        (15_000, 100, 97, 97, False),
        (30_000, 104, 97, 104, False),
        (45_000, 104, 97, 103, False),
        (60_000, 103, 103, 103, False),
        (75_000, 104, 103, 104, False),
        (90_000, 104, 97, 97, False),
        (105_000, 104, 97, 100, False),
        (120_000, 104, 97, 100, True),
    ]


def test_seconds_inside_a_candle_are_derived_as_in_a_live_block(tmp_path: Path) -> None:
    day = day_of(DAYS[0])
    grid = candles_of(day, interval="1s").grid
    opens = grid.first_ms + 1000 * np.arange(grid.count, dtype=np.float64)
    seconds = random_rows(opens, 1000, np.random.default_rng(4))
    minutes = candleshm.derive(seconds, "1m", source="1s")
    written(store_in(tmp_path, "1s"), candles_of(day, interval="1s", rows=seconds))
    written(store_in(tmp_path), candles_of(day, rows=minutes))
    start_ms, end_ms = START_MS + 3 * MINUTE, START_MS + 7 * MINUTE
    with candleshm.replay(tmp_path, "SPOT", "BTCUSDT", "1m", start_ms, end_ms, warm=3, inside="1s") as replay:
        moments = 0
        while replay.step():
            moments += 1
            rows, states = replay.feed["BTCUSDT"].snapshot()
            is_live = states == RowState.LIVE
            ends = minutes[:, OPEN_TIME_MS] + MINUTE
            np.testing.assert_array_equal(rows[~is_live], minutes[ends <= replay.now_ms])
            open_ms = replay.now_ms // MINUTE * MINUTE
            so_far = seconds[(opens >= open_ms) & (opens + 1000 <= replay.now_ms)]
            assert is_live.sum() == (len(so_far) > 0)
            if len(so_far):
                expected = candleshm.derive(so_far, "1m", source="1s", start_ms=open_ms, end_ms=open_ms + MINUTE)
                np.testing.assert_array_equal(rows[is_live][:, [1, 2, 3, 4, 5, 8]], expected[:, [1, 2, 3, 4, 5, 8]])
        assert moments == 4 * 60


def close_all(replay: candleshm.Replay) -> None:
    """Wait for one close after the other, as a strategy does."""
    with replay, contextlib.suppress(candleshm.ReplayEnded):
        for _ in replay.feed.closes():
            pass


def test_a_day_that_cannot_be_used_ends_the_run_there(tmp_path: Path, block_name: str) -> None:
    store = store_in(tmp_path)
    written(store, *(candles_of(day_of(text)) for text in (*DAYS, "2026-03-09", "2026-03-10")))
    written(store, without(candles_of(day_of("2026-03-10")), 700, 710, as_hole=False))
    path = store.path("BTCUSDT", day_of("2026-03-09"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    span = (tmp_path, "SPOT", "BTCUSDT", "1m", DAYS[0], "2026-03-10")
    with pytest.raises(DayDamaged, match="2026-03-09"), candleshm.replay(*span, name=block_name) as replay:
        replay.run()
    assert START_MS < replay.now_ms <= START_MS + 2 * DAY_MS
    path.write_bytes(whole)
    with (
        pytest.raises(DayIncomplete, match="2026-03-10") as refused,
        candleshm.replay(*span, name=block_name) as replay,
    ):
        replay.run()
    assert refused.value.missing == ((START_MS + 3 * DAY_MS + 700 * MINUTE, START_MS + 3 * DAY_MS + 710 * MINUTE),)
    # A loop over closes ends with it, too, although it only learns that there is no later moment.
    replay = candleshm.replay(*span, name=block_name)
    with pytest.raises(DayIncomplete):
        close_all(replay)
    assert replay.now_ms <= START_MS + 3 * DAY_MS
    assert list(SHM.glob(f"*{block_name}*")) == []


def test_a_name_that_is_taken_is_refused_and_stays(candle_dir: Path, history: History, block_name: str) -> None:
    with candleshm.replay(candle_dir, "SPOT", [FULL], "5m", *DAYS, name=block_name) as replay:
        with pytest.raises(BlockInUse):
            candleshm.replay(candle_dir, "SPOT", [FULL], "5m", *DAYS, name=block_name)
        assert replay.step()
        assert replay.feed[FULL].last_open_time_ms == START_MS


def test_closing_twice_is_closing_once(candle_dir: Path, history: History, block_name: str) -> None:
    replay = candleshm.replay(candle_dir, "SPOT", [FULL], "5m", *DAYS, name=block_name)
    assert block_name in repr(replay)
    replay.close()
    replay.close()
    assert list(SHM.glob(f"*{block_name}*")) == []
