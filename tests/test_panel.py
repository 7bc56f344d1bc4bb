"""Panels, newest values, as-of alignment, frames and asyncio, on blocks written by a real writer in this process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import candleshm
from candleshm import _core, history
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.reader import frames
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

LENGTH = 16
SYMBOLS = ["BTCUSDT", "ETHUSDT", "NEWUSDT"]


def open_ms(bar: int) -> int:
    return START_MS + bar * MINUTE_MS


def value(symbol: str, bar: int) -> float:
    return 1000.0 * (SYMBOLS.index(symbol) + 1) + bar


def load(writer: _core.Writer, symbol: str, start: int, end: int, *, leave_out: tuple[int, ...] = ()) -> None:
    """Give a symbol closed rows of [start, end) and a live row of `end`."""
    rows = [kline(open_ms(bar), value(symbol, bar)) for bar in range(start, end + 1) if bar not in leave_out]
    ingest(writer, symbol, *rows, sent_ms=open_ms(end) + 30_000, limit=len(rows))


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    load(writer, "BTCUSDT", 0, 20)
    load(writer, "ETHUSDT", 0, 20)
    yield writer
    writer.close()


@pytest.fixture
def feed(writer: _core.Writer) -> Iterator[candleshm.Feed]:
    with candleshm.attach(writer.name) as feed:
        yield feed


def test_panel_is_aligned_and_ends_where_every_symbol_is_final(writer: _core.Writer, feed: candleshm.Feed) -> None:
    panel = feed.panel("close", n=4)
    assert panel.symbols == ("BTCUSDT", "ETHUSDT")  # NEWUSDT has no candle yet
    assert panel.open_time_ms.tolist() == [open_ms(bar) for bar in (16, 17, 18, 19)]
    assert panel.open_time_ms.dtype == np.int64
    assert panel.array.tolist() == [[1000 + bar, 2000 + bar] for bar in (16, 17, 18, 19)]
    # BTCUSDT runs ahead by two candles: no ragged edge.
    load(writer, "BTCUSDT", 18, 22)
    assert feed.panel("close", n=2).open_time_ms.tolist() == [open_ms(18), open_ms(19)]
    live = feed.panel("close", n=3, live=True)
    assert live.open_time_ms.tolist() == [open_ms(20), open_ms(21), open_ms(22)]
    np.testing.assert_array_equal(live.array, [[1020, 2020], [1021, np.nan], [1022, np.nan]])
    load(writer, "ETHUSDT", 18, 22)
    assert feed.panel("close", n=1).open_time_ms.tolist() == [open_ms(21)]


def test_panel_of_several_fields_has_a_third_axis(feed: candleshm.Feed) -> None:
    panel = feed.panel(fields=["close_time_ms", "close"], n=3, symbols=["ETHUSDT", "BTCUSDT"])
    assert panel.array.shape == (3, 2, 2)
    assert panel.symbols == ("ETHUSDT", "BTCUSDT")
    np.testing.assert_array_equal(panel.array[:, 0, 1], [2017, 2018, 2019])
    np.testing.assert_array_equal(panel.array[:, 1, 0], panel.open_time_ms + MINUTE_MS - 1)


def test_panel_holes_are_nan_and_a_missing_row_ends_it(writer: _core.Writer, feed: candleshm.Feed) -> None:
    load(writer, "NEWUSDT", 10, 20, leave_out=(15,))
    load(writer, "ETHUSDT", 20, 23, leave_out=(21,))
    load(writer, "BTCUSDT", 20, 23)
    load(writer, "NEWUSDT", 20, 23)
    panel = feed.panel("close")
    # ETHUSDT lacks bar 21 and has 22: the panel ends at 22 all the same, for there every symbol is final.
    assert panel.open_time_ms[-1] == open_ms(22)
    assert len(panel.open_time_ms) == LENGTH
    columns = dict(zip(panel.symbols, panel.array.T, strict=True))
    bars = ((panel.open_time_ms - START_MS) // MINUTE_MS).tolist()
    for symbol, gone in (("BTCUSDT", set()), ("ETHUSDT", {21}), ("NEWUSDT", {*range(10), 15})):
        expected = [np.nan if bar in gone else value(symbol, bar) for bar in bars]
        np.testing.assert_array_equal(columns[symbol], expected)
    # A candle that is not fetched yet is not final: the newest common close is the one before it.
    load(writer, "BTCUSDT", 23, 25, leave_out=(24,))
    for symbol in ("ETHUSDT", "NEWUSDT"):
        load(writer, symbol, 23, 25)
    assert feed.panel("close", n=1).open_time_ms.tolist() == [open_ms(23)]


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((), {}), (("close",), {"fields": ["open"]}), (("price",), {}), (("close", 0), {}), ((), {"fields": ["x"]})],
)
def test_panel_refuses_what_means_nothing(
    feed: candleshm.Feed, arguments: tuple[object], keywords: dict[str, object]
) -> None:
    with pytest.raises(candleshm.ConfigError):
        feed.panel(*arguments, **keywords)  # type: ignore[arg-type]


def test_panel_and_last_refuse_stale_and_unknown(writer: _core.Writer, feed: candleshm.Feed) -> None:
    with pytest.raises(candleshm.UnknownSymbol):
        feed.panel("close", symbols=["DOGEUSDT"])
    with candleshm.attach(writer.name, max_age=60) as strict:
        assert strict.panel("close", n=1).array.shape == (1, 2)
        with pytest.raises(candleshm.StaleData, match="NEWUSDT"):
            strict.panel("close", symbols=["BTCUSDT", "NEWUSDT"])
        with pytest.raises(candleshm.StaleData, match="NEWUSDT"):
            strict.last("close", symbols=["NEWUSDT"])
        writer.set_trading("ETHUSDT", False)
        assert strict.panel("close", n=1).symbols == ("BTCUSDT",)
        with pytest.raises(candleshm.StaleData, match="no longer trades"):
            strict.panel("close", symbols=["ETHUSDT"])
    assert feed.panel("close", n=1, symbols=["ETHUSDT"]).array.shape == (1, 1)


def test_panel_of_3d_candles_on_different_grids_is_refused(block_name: str) -> None:
    day_ms = 86_400_000
    writer = _core.Writer.open(block_name, market="SPOT", interval="3d", length=8, symbols=["A", "B", "C"])
    try:
        for symbol, shift in (("A", 0), ("B", 1), ("C", 3)):
            rows = [kline((19_000 * 3 + shift + 3 * bar) * day_ms, bar, 3 * day_ms) for bar in range(4)]
            ingest(writer, symbol, *rows, sent_ms=(19_000 * 3 + 30) * day_ms)
        with candleshm.attach(block_name) as feed:
            with pytest.raises(ValueError, match="A and B open on different days"):
                feed.panel("close")
            assert feed.panel("close", symbols=["A", "C"]).array.shape[1] == 2
    finally:
        writer.close()


def test_closes_of_3d_candles_on_different_grids_are_refused(block_name: str) -> None:
    day_ms = 86_400_000
    writer = _core.Writer.open(block_name, market="SPOT", interval="3d", length=8, symbols=["A", "B", "C"])
    try:
        for symbol, shift in (("A", 0), ("B", 1), ("C", 3)):
            rows = [kline((19_000 * 3 + shift + 3 * bar) * day_ms, bar, 3 * day_ms) for bar in range(4)]
            ingest(writer, symbol, *rows, sent_ms=(19_000 * 3 + 30) * day_ms)
        with candleshm.attach(block_name) as feed:
            asked: list[Callable[[], object]] = [
                lambda: feed.wait_closed(timeout=0),
                lambda: feed.wait_closed(timeout=0, symbols=["A", "B"], quorum=0.5),
                feed.closes,
                lambda: asyncio.run(feed.wait_closed_async(timeout=0)),
            ]
            for ask in asked:
                with pytest.raises(ValueError, match="A and B open on different days; request symbols whose candles"):
                    ask()
            # The grid of the symbols asked for, not that of the first symbol.
            second_ms = (19_000 * 3 + 1 + 6) * day_ms
            assert feed.wait_closed(second_ms + 5, symbols=["B"], timeout=0).open_time_ms == second_ms
            closes = feed.closes(symbols=["B"])
            closes._target_ms = second_ms
            assert next(closes).open_time_ms == second_ms
            assert next(closes).open_time_ms == second_ms + 3 * day_ms
            assert feed.wait_closed(second_ms, symbols=["A", "C"], timeout=0).open_time_ms == second_ms - day_ms
    finally:
        writer.close()


def test_a_plain_loop_over_closes_leaves_none_out(writer: _core.Writer, feed: candleshm.Feed) -> None:
    closes, got = feed.closes(), []
    assert closes.lag == 0
    close_all(writer, 20)
    for closed in closes:
        assert (closed.symbols, closed.missing) == (("BTCUSDT", "ETHUSDT"), ())
        got.append((closed.open_time_ms - START_MS) // MINUTE_MS)
        if got == [20]:
            # The work takes longer than two candles.
            close_all(writer, 21)
            close_all(writer, 22)
            assert closes.lag == 2
        if got[-1] == 22:
            break
    assert got == [20, 21, 22]
    # The same iterator goes on for coroutines.
    close_all(writer, 23)

    async def following() -> int:
        async for closed in closes:
            return closed.open_time_ms
        raise AssertionError

    assert asyncio.run(following()) == open_ms(23)


def test_a_loop_that_falls_behind_the_window_is_told_what_it_missed(writer: _core.Writer, feed: candleshm.Feed) -> None:
    closes = feed.closes()
    for bar in range(20, 20 + LENGTH):
        close_all(writer, bar)
    assert closes.lag == LENGTH
    assert next(closes).open_time_ms == open_ms(20)
    for bar in range(20 + LENGTH, 20 + LENGTH + 4):
        close_all(writer, bar)
    with pytest.raises(candleshm.ClosesMissed, match="3 closes from 2023") as caught:
        next(closes)
    assert (caught.value.start_ms, caught.value.end_ms, caught.value.count) == (open_ms(21), open_ms(24), 3)
    assert next(closes).open_time_ms == open_ms(24)  # the oldest whose rows are there
    assert feed["BTCUSDT"].candles(closed_only=True)[0, OPEN_TIME_MS] == open_ms(24)
    for bar in range(20 + LENGTH + 4, 20 + LENGTH + 9):
        close_all(writer, bar)

    async def missed() -> None:
        with pytest.raises(candleshm.ClosesMissed):
            await anext(closes)

    asyncio.run(missed())


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), True, np.True_])
def test_a_timeout_that_is_none_is_refused(feed: candleshm.Feed, timeout: float) -> None:
    for wait in (feed.wait_closed, feed["BTCUSDT"].wait):
        with pytest.raises(candleshm.ConfigError):
            wait(timeout=timeout)
    for wait_async in (feed.wait_closed_async, lambda timeout: feed.wait_async("BTCUSDT", timeout=timeout)):
        with pytest.raises(candleshm.ConfigError):
            asyncio.run(wait_async(timeout=timeout))


@pytest.mark.parametrize("truth", [True, False, np.True_])
def test_truth_values_are_no_numbers(writer: _core.Writer, feed: candleshm.Feed, truth: Any) -> None:
    btc = feed["BTCUSDT"]
    asked: list[Callable[[], object]] = [
        lambda: candleshm.attach(writer.name, max_age=truth),
        lambda: feed.panel("close", n=truth),
        lambda: btc.candles(truth),
        lambda: btc.states(truth),
        lambda: btc.view(truth),
        lambda: btc.read(truth),
        lambda: btc.to_pandas(truth),
        lambda: btc.wait(truth, timeout=0),
        lambda: feed.wait_closed(truth, timeout=0),
        lambda: feed.wait_closed(quorum=truth, timeout=0),
    ]
    for ask in asked:
        with pytest.raises(candleshm.ConfigError, match=f"`{truth}` is not a number"):
            ask()


@pytest.mark.parametrize(
    ("unit", "scale"), [("seconds", 0.001), ("microseconds or nanoseconds", 1e3), ("microseconds or nanoseconds", 1e6)]
)
def test_moments_in_another_unit_are_refused(feed: candleshm.Feed, unit: str, scale: float) -> None:
    moment = int(open_ms(18) * scale)
    moments = np.array([moment, moment + 1])
    asked: list[Callable[[], object]] = [
        lambda: feed.asof("close", moments),
        lambda: feed["BTCUSDT"].asof(moments),
        lambda: feed.wait_closed(moment, timeout=0),
        lambda: feed["BTCUSDT"].wait(moment, timeout=0),
        lambda: asyncio.run(feed.wait_closed_async(moment, timeout=0)),
        lambda: asyncio.run(feed.wait_async("BTCUSDT", moment, timeout=0)),
        lambda: history.load("SPOT", "BTCUSDT", moment, moment),
    ]
    for ask in asked:
        with pytest.raises(candleshm.ConfigError, match=f"`{moment}` looks like {unit}"):
            ask()


def test_arguments_of_another_type_are_refused(feed: candleshm.Feed) -> None:
    btc, moments = feed["BTCUSDT"], np.array([open_ms(18)])
    asked: list[Callable[[], object]] = [
        lambda: feed.panel("close", n=2.0),  # type: ignore[arg-type]
        lambda: feed.panel("close", symbols="BTCUSDT"),
        lambda: feed.panel(fields="close"),
        lambda: feed.last("close", symbols="BTCUSDT"),
        lambda: feed.wait_closed(symbols="BTCUSDT", timeout=0),
        lambda: feed.wait_closed(symbols=[], timeout=0),
        lambda: feed.wait_closed(quorum=float("nan"), timeout=0),
        lambda: feed.closes(symbols="BTCUSDT"),
        lambda: feed.closes(quorum=float("nan")),
        lambda: feed.closes(quorum=0),
        lambda: feed.asof("close", ["2026-11-28"]),
        lambda: feed.asof("close", moments.astype(float)),
        lambda: feed.wait_closed(pd.Timestamp(open_ms(18), unit="ms"), timeout=0),
        lambda: btc.wait(float(open_ms(18)), timeout=0),  # type: ignore[arg-type]
        lambda: btc.candles(2.0),  # type: ignore[arg-type]
        lambda: btc.candles(2, holes="Drop"),  # type: ignore[arg-type]
        lambda: btc.candles(2, closed_only="no"),  # type: ignore[arg-type]
        lambda: candleshm.attach(feed.name, max_age="60"),  # type: ignore[arg-type]
        lambda: candleshm.attach(feed.name, max_age=float("nan")),
        lambda: candleshm.unlink("a/b"),
        lambda: history.load("SPOT", ["BTCUSDT"], "2026-11-01", "2026-11-02"),  # type: ignore[arg-type]
        lambda: history.load("SPOT", "BTCUSDT", "2026-11-02", "2026-11-01"),
        lambda: history.load("SPOT", "BTCUSDT", True, True),
    ]
    for number, ask in enumerate(asked):
        try:
            ask()
        except (TypeError, ValueError):
            continue
        raise AssertionError(f"number {number} was taken")


def test_times_have_the_unit_of_pandas_itself(feed: candleshm.Feed) -> None:
    own = pd.DataFrame({"time": pd.date_range("2023-11-14", periods=3, freq="h", tz="UTC"), "own": [1, 2, 3]})
    for frame in (
        feed["BTCUSDT"].to_pandas(),
        feed.panel("close").to_pandas(),
        feed.panel(fields=["open", "close"]).to_pandas()["BTCUSDT"],
    ):
        joined = pd.merge_asof(frame, own, left_index=True, right_on="time", direction="nearest")
        assert len(joined) == len(frame)
        assert frame.index.dtype == own["time"].dtype
        if "close_time" in frame:
            assert frame["close_time"].dtype == own["time"].dtype
            assert len(pd.merge_asof(frame, own, left_on="close_time", right_on="time")) == len(frame)
        assert frame.index[-1] == pd.Timestamp(frame.index[-1].isoformat())


def test_last_is_the_newest_value_of_every_symbol(feed: candleshm.Feed) -> None:
    np.testing.assert_array_equal(feed.last("close"), [1020, 2020, np.nan])
    np.testing.assert_array_equal(feed.last("open_time_ms", symbols=["ETHUSDT"]), [open_ms(20)])
    with pytest.raises(candleshm.ConfigError, match="`price`"):
        feed.last("price")


def test_panel_and_last_fill_what_they_are_given(feed: candleshm.Feed) -> None:
    out = np.empty((4, 2), order="F")
    panel = feed.panel("close", n=4, out=out)
    assert panel.array is out
    np.testing.assert_array_equal(out, feed.panel("close", n=4).array)
    several = np.empty((4, 2, 3), order="F")
    fields = ["open", "close", "volume"]
    assert feed.panel(fields=fields, n=4, out=several).array is several
    np.testing.assert_array_equal(several, feed.panel(fields=fields, n=4).array)
    values = np.empty(3)
    assert feed.last("close", out=values) is values
    np.testing.assert_array_equal(values, [1020, 2020, np.nan])
    read_only = np.empty((4, 2), order="F")
    read_only.flags.writeable = False
    for wrong in (np.empty((4, 2)), np.empty((5, 2), order="F"), np.empty((2, 4), order="F"), np.empty(8), read_only):
        with pytest.raises(candleshm.ConfigError, match="out"):
            feed.panel("close", n=4, out=wrong)
    with pytest.raises(candleshm.ConfigError, match="3 values"):
        feed.last("close", out=np.empty(2))


def test_asof_gives_what_was_known_and_nothing_later(block_name: str, feed: candleshm.Feed) -> None:
    five = _core.Writer.open(block_name + "-5m", market="SPOT", interval="5m", length=8, symbols=["BTCUSDT"])
    try:
        step_ms = 5 * MINUTE_MS
        first_ms = START_MS - START_MS % step_ms
        rows = [kline(first_ms + bar * step_ms, bar, step_ms) for bar in range(4)]
        ingest(five, "BTCUSDT", *rows, sent_ms=first_ms + 3 * step_ms + 1)
        with candleshm.attach(five.name) as fives:
            minutes = feed.panel("close", symbols=["BTCUSDT"])
            moments = minutes.open_time_ms + MINUTE_MS  # when each minute closed
            known = fives["BTCUSDT"].asof(moments)
            assert known.shape == (len(moments), 12)
            for moment_ms, row in zip(moments.tolist(), known, strict=True):
                ended = [bar for bar in range(3) if first_ms + (bar + 1) * step_ms <= moment_ms]
                if ended:
                    assert row[CLOSE] == ended[-1]
                    assert row[OPEN_TIME_MS] + step_ms <= moment_ms
                else:
                    assert np.isnan(row).all()
            np.testing.assert_array_equal(fives.asof("close", moments), known[:, [CLOSE]])
            # The live candle is never known, however late the moment.
            assert fives.asof("close", np.array([first_ms + 90 * step_ms]))[0, 0] == 2
    finally:
        five.close()


def test_asof_looks_through_a_hole_to_the_row_before(writer: _core.Writer, feed: candleshm.Feed) -> None:
    load(writer, "BTCUSDT", 20, 23, leave_out=(21,))
    moments = np.array([open_ms(bar) + MINUTE_MS for bar in (20, 21, 22)])
    assert feed.asof("close", moments, symbols=["BTCUSDT"])[:, 0].tolist() == [1020, 1020, 1022]


def test_frames_hold_the_same_candles(feed: candleshm.Feed) -> None:
    btc = feed["BTCUSDT"]
    rows = btc.candles(5)
    frame = btc.to_pandas(5)
    assert frame.index.name == "open_time"
    assert str(frame.index.tz) == "UTC"
    assert (frame.index.as_unit("ms").astype("int64") == rows[:, 0]).all()
    assert list(frame.columns) == ["close_time" if name == "close_time_ms" else name for name in frames.SHOWN]
    np.testing.assert_array_equal(frame["close"], rows[:, CLOSE])
    assert frame["close_time"].iloc[-1] == pd.Timestamp(int(rows[-1, 6]), unit="ms", tz="UTC")
    polars = btc.to_polars(5)
    assert polars.schema["open_time"] == pl.Datetime("ms", "UTC")
    assert polars["close"].to_list() == rows[:, CLOSE].tolist()
    table = btc.to_arrow(5)
    assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")
    assert table["close"].to_pylist() == rows[:, CLOSE].tolist()
    assert table["close_time"].cast(pa.int64()).to_pylist() == rows[:, 6].tolist()
    assert len(btc.to_pandas(5, closed_only=True)) == 5


def test_view_becomes_arrow_without_a_copy(feed: candleshm.Feed) -> None:
    view = feed["BTCUSDT"].view(5)
    array = frames.lend_arrow(view.close)
    assert array.to_pylist() == view.close.tolist()
    assert array.buffers()[1].address == view.close.ctypes.data


def test_panel_frames(feed: candleshm.Feed) -> None:
    panel = feed.panel("close", n=3)
    assert panel.to_pandas().loc[pd.Timestamp(open_ms(19), unit="ms", tz="UTC"), "ETHUSDT"] == 2019
    assert panel.to_polars()["ETHUSDT"].to_list() == [2017, 2018, 2019]
    assert panel.to_arrow()["BTCUSDT"].to_pylist() == [1017, 1018, 1019]
    several = feed.panel(fields=["open", "close"], n=3)
    assert several.to_pandas()["ETHUSDT", "close"].tolist() == [2017, 2018, 2019]
    assert several.to_polars().columns == [
        "open_time",
        "BTCUSDT.open",
        "BTCUSDT.close",
        "ETHUSDT.open",
        "ETHUSDT.close",
    ]
    assert several.to_arrow()["ETHUSDT.close"].to_pylist() == [2017, 2018, 2019]


def test_absent_library_names_the_extra(feed: candleshm.Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"'\.\[polars\]'") as caught:
        feed["BTCUSDT"].to_polars()
    assert isinstance(caught.value, candleshm.CandleShmError)


def close_all(writer: _core.Writer, bar: int) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        load(writer, symbol, bar, bar + 1)


def test_closes_come_one_by_one_and_none_is_left_out(writer: _core.Writer, feed: candleshm.Feed) -> None:
    async def follow() -> list[int]:
        got = []
        async for closed in feed.closes():
            assert closed.symbols == ("BTCUSDT", "ETHUSDT")
            got.append((closed.open_time_ms - START_MS) // MINUTE_MS)
            if len(got) == 1:
                # While the consumer works two more candles close.
                close_all(writer, 21)
                close_all(writer, 22)
            if len(got) == 3:
                return got
        raise AssertionError

    async def main() -> list[int]:
        following = asyncio.create_task(follow())
        while threading.active_count() < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        close_all(writer, 20)
        async with asyncio.timeout(30):
            return await following

    assert asyncio.run(main()) == [20, 21, 22]


def test_awaitable_waits_for_closes_and_for_rows_take_a_thread_each_and_time_out(
    writer: _core.Writer, feed: candleshm.Feed
) -> None:
    async def main() -> None:
        # Those of feeds of other tests may still be there, and end at any moment.
        before = set(threading.enumerate())
        closed = asyncio.create_task(feed.wait_closed_async(open_ms(20), timeout=30))
        opened = asyncio.create_task(feed.wait_async("BTCUSDT", timeout=30))
        with pytest.raises(candleshm.WaitTimeout) as caught:
            await feed.wait_closed_async(open_ms(20), timeout=0.05)
        assert caught.value.missing == ("BTCUSDT", "ETHUSDT")
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["candleshm-wait"] * 2
        close_all(writer, 20)
        assert (await closed).open_time_ms == open_ms(20)
        assert await opened == open_ms(21)
        with pytest.raises(candleshm.UnknownSymbol):
            await feed.wait_closed_async(open_ms(20), symbols=["DOGEUSDT"], timeout=30)
        cancelled = asyncio.create_task(feed.wait_async("BTCUSDT"))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(main())


def test_waits_go_on_after_a_fork(writer: _core.Writer, feed: candleshm.Feed) -> None:
    assert asyncio.run(feed.wait_closed_async(open_ms(19), timeout=30)).open_time_ms == open_ms(19)
    child = os.fork()
    if child == 0:
        # Leave at once, whatever happens: this process is a copy of the test runner.
        try:
            again = asyncio.run(feed.wait_closed_async(open_ms(18), timeout=30))
            os._exit(0 if again.open_time_ms == open_ms(18) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
