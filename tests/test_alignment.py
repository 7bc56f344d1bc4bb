"""Several feeds on one grid: ends that differ, missing rows, intervals that differ, pairs beside symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE
from candleshm.errors import ConfigError, UnknownSymbol
from tests.support.klines import MINUTE_MS, ingest, kline

LENGTH = 20
START_MS = 1_700_000_100_000
"""Where candles of five minutes open."""


def open_ms(minute: int) -> int:
    return START_MS + minute * MINUTE_MS


def load(
    writer: _core.Writer, symbol: str, start: int, end: int, *, base: float = 0.0, leave_out: tuple[int, ...] = ()
) -> None:
    """Give a symbol closed rows from minute `start` to before `end`, and a live one; the close is `base` + minute."""
    minutes = 5 if writer.name.endswith("-5m") else 1
    rows = [
        [open_ms(at), *[f"{base + at:.8f}"] * 4, "0", open_ms(at + minutes) - 1, "0", 60, "0", "0", "0"]
        for at in range(start, end + 1, minutes)
        if at not in leave_out
    ]
    ingest(writer, symbol, *rows, sent_ms=open_ms(end) + 30_000)


@pytest.fixture
def opened(block_name: str) -> Iterator[Callable[..., tuple[_core.Writer, candleshm.Feed]]]:
    """Give a function that makes a block and attaches to it."""
    with ExitStack() as stack:

        def make(suffix: str, market: Any, price: Any, symbols: list[str]) -> tuple[_core.Writer, candleshm.Feed]:
            interval = suffix.rpartition("-")[2]
            name = f"{block_name}-{suffix}"
            writer = _core.Writer.open(
                name, market=market, price=price, interval=interval, length=LENGTH, symbols=symbols
            )
            stack.callback(writer.close)
            return writer, stack.enter_context(candleshm.attach(name))

        yield make


def test_the_basis_of_mark_against_index_in_three_lines(opened: Any) -> None:
    mark_writer, mark_feed = opened("mark-1m", "CM", "mark", ["BTCUSD_PERP", "ETHUSD_PERP"])
    index_writer, index_feed = opened("index-1m", "CM", "index", ["ETHUSD", "BTCUSD"])
    for place, coin in enumerate(("BTC", "ETH")):
        load(mark_writer, f"{coin}USD_PERP", 0, 12, base=1010.0 + 100 * place)
        load(index_writer, f"{coin}USD", 0, 12, base=1000.0)

    mark, index = candleshm.align([mark_feed, index_feed], "close", 10)
    basis = mark.array - index.array

    assert (mark.symbols, index.symbols) == (("BTCUSD_PERP", "ETHUSD_PERP"), ("BTCUSD", "ETHUSD"))
    assert basis.tolist() == [[10.0, 110.0]] * 10
    assert mark.open_time_ms.tolist() == [open_ms(minute) for minute in range(2, 12)]
    # The symbols lead, wherever the index stands.
    index, mark = candleshm.align([index_feed, mark_feed], "close", 10)
    assert (mark.symbols, index.symbols) == (("BTCUSD_PERP", "ETHUSD_PERP"), ("BTCUSD", "ETHUSD"))
    assert (mark.array - index.array == basis).all()


def test_axes_are_feed_row_symbol_and_field(opened: Any) -> None:
    feeds = []
    for price, base in (("trade", 100.0), ("mark", 200.0), ("premium", -900.0)):
        writer, feed = opened(f"{price}-1m", "UM", price, ["A", "B"])
        load(writer, "A", 0, 6, base=base)
        load(writer, "B", 0, 6, base=base + 50)
        feeds.append(feed)

    aligned = candleshm.align(feeds, ["close", "open_time_ms"], 4)

    assert aligned.shape == aligned.array.shape == (3, 4, 2, 2)
    assert len(aligned) == 3
    assert aligned.blocks == tuple(feed.name for feed in feeds)
    assert aligned.array[:, -1, :, 0].tolist() == [[105.0, 155.0], [205.0, 255.0], [-895.0, -845.0]]
    assert (aligned.array[..., 1] == aligned.open_time_ms[:, None]).all()
    for panel, values, feed in zip(aligned, aligned.array, feeds, strict=True):
        own = feed.panel(fields=["close", "open_time_ms"], n=4)
        assert (panel.array == values).all()
        assert (panel.array == own.array).all()
        assert panel.end_ms == own.end_ms
        assert panel.array.flags.f_contiguous
    assert candleshm.align(feeds, "close", 4).shape == (3, 4, 2)


def test_the_last_row_is_one_that_all_have_final_and_older_ends_may_be_ragged(opened: Any) -> None:
    ahead_writer, ahead = opened("trade-1m", "UM", "trade", ["A"])
    behind_writer, behind = opened("mark-1m", "UM", "mark", ["A"])
    load(ahead_writer, "A", 0, 15)
    load(behind_writer, "A", 6, 12)

    for feeds in ([ahead, behind], [behind, ahead]):
        aligned = candleshm.align(feeds, "close", 8)
        by_block = dict(zip(aligned.blocks, aligned.array[:, :, 0].tolist(), strict=True))
        assert aligned.open_time_ms.tolist() == [open_ms(minute) for minute in range(4, 12)]
        assert by_block[ahead.name] == [4, 5, 6, 7, 8, 9, 10, 11]
        np.testing.assert_equal(by_block[behind.name], [np.nan, np.nan, 6, 7, 8, 9, 10, 11])


def test_a_missing_row_is_nan_in_its_own_feed_only(opened: Any) -> None:
    whole_writer, whole = opened("trade-1m", "UM", "trade", ["A"])
    torn_writer, torn = opened("mark-1m", "UM", "mark", ["A"])
    load(whole_writer, "A", 0, 10)
    load(torn_writer, "A", 0, 10, leave_out=(5, 6))

    array = candleshm.align([whole, torn], "close", 6).array[..., 0]

    np.testing.assert_equal(array[0], [4, 5, 6, 7, 8, 9])
    np.testing.assert_equal(array[1], [4, np.nan, np.nan, 7, 8, 9])


def test_another_interval_has_its_newest_candle_that_had_closed(opened: Any) -> None:
    minutes_writer, minutes = opened("trade-1m", "UM", "trade", ["A"])
    fives_writer, fives = opened("mark-5m", "UM", "mark", ["A"])
    load(minutes_writer, "A", 0, 17)
    load(fives_writer, "A", 0, 15, base=1000.0)

    array = candleshm.align([minutes, fives], "close", 9).array[..., 0]
    np.testing.assert_equal(array[0], [8, 9, 10, 11, 12, 13, 14, 15, 16])
    # The one that opened at minute 5 closes with minute 9, the one of minute 10 with minute 14.
    np.testing.assert_equal(array[1], [1000, 1005, 1005, 1005, 1005, 1005, 1010, 1010, 1010])

    aligned = candleshm.align([fives, minutes], "close", 2)
    assert aligned.open_time_ms.tolist() == [open_ms(5), open_ms(10)]
    np.testing.assert_equal(aligned.array[..., 0], [[1005, 1010], [9, 14]])


def test_a_feed_that_is_behind_holds_back_rows_of_another_interval(opened: Any) -> None:
    minutes_writer, minutes = opened("trade-1m", "UM", "trade", ["A"])
    fives_writer, fives = opened("mark-5m", "UM", "mark", ["A"])
    load(minutes_writer, "A", 0, 18)
    load(fives_writer, "A", 0, 10, base=1000.0)  # final up to minute 9: the next one ends with minute 14

    aligned = candleshm.align([minutes, fives], "close", 3)
    assert aligned.open_time_ms.tolist() == [open_ms(11), open_ms(12), open_ms(13)]
    assert aligned.array[1, :, 0].tolist() == [1005, 1005, 1005]

    load(fives_writer, "A", 10, 15, base=1000.0)
    assert candleshm.align([minutes, fives], "close", 3).open_time_ms[-1] == open_ms(17)


def test_a_symbol_may_have_another_name_in_each_feed(opened: Any) -> None:
    um_writer, um = opened("um-1m", "UM", "trade", ["BTCUSDT"])
    cm_writer, cm = opened("cm-1m", "CM", "trade", ["BTCUSD_PERP"])
    load(um_writer, "BTCUSDT", 0, 5, base=10.0)
    load(cm_writer, "BTCUSD_PERP", 0, 5)

    aligned = candleshm.align([um, cm], "close", 3, symbols=[["BTCUSDT", "BTCUSD_PERP"]])
    assert (aligned.array[0] - aligned.array[1]).tolist() == [[10.0]] * 3
    assert [panel.symbols for panel in aligned] == [("BTCUSDT",), ("BTCUSD_PERP",)]
    with pytest.raises(ConfigError, match="no symbol in common"):
        candleshm.align([um, cm])
    with pytest.raises(UnknownSymbol, match="BTCUSDT"):
        candleshm.align([um, cm], symbols=["BTCUSDT"])
    with pytest.raises(ConfigError, match="a name for each of the 2 feeds"):
        candleshm.align([um, cm], symbols=[["BTCUSDT"]])


def test_without_a_count_there_are_as_many_rows_as_the_first_block_has(opened: Any) -> None:
    first_writer, first = opened("trade-1m", "UM", "trade", ["A"])
    second_writer, second = opened("mark-1m", "UM", "mark", ["A"])
    _, empty = opened("index-1m", "UM", "index", ["A"])
    load(first_writer, "A", 0, 40)
    load(second_writer, "A", 0, 40)

    assert candleshm.align([first, second]).shape == (2, LENGTH, 1)
    assert candleshm.align([first, empty], symbols=["A"]).shape == (2, 0, 1)
    assert np.isfinite(candleshm.align([first, second]).array).all()


def test_blocks_whose_3d_candles_open_on_different_days_are_refused(opened: Any) -> None:
    span_ms = 3 * 86_400_000
    feeds = {}
    for name, market, days in (("first", "SPOT", 0), ("other", "UM", 1), ("same", "CM", 3)):
        writer, feeds[name] = opened(f"{name}-3d", market, "trade", ["A"])
        start_ms = 19_000 * span_ms + days * 86_400_000
        ingest(writer, "A", *(kline(start_ms + bar * span_ms, bar, span_ms) for bar in range(4)), sent_ms=2 * start_ms)

    with pytest.raises(ConfigError, match=f"block `{feeds['other'].name}` open on other days than those of `"):
        candleshm.align([feeds["first"], feeds["other"]])
    assert np.isfinite(candleshm.align([feeds["first"], feeds["same"]], n=2).array).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feeds": []}, "feeds must be a list of feeds"),
        ({"feeds": ["candleshm-um-1m"]}, "feeds must be a list of feeds"),
        ({"n": 0}, "n must be a positive integer: `0`"),
        ({"n": True}, "n must be a positive integer: `True`"),
        ({"n": 2.5}, "n must be a positive integer: `2.5`"),
        ({"fields": "last"}, "last"),
        ({"symbols": "BTCUSDT"}, "symbols cannot be the text `BTCUSDT`"),
    ],
)
def test_what_cannot_be_used_is_named(opened: Any, arguments: dict[str, Any], message: str) -> None:
    writer, feed = opened("trade-1m", "UM", "trade", ["A"])
    load(writer, "A", 0, 5)
    with pytest.raises(ConfigError, match=message):
        candleshm.align(**({"feeds": [feed]} | arguments))
    assert candleshm.align([feed]).array[0, -1, 0] == feed["A"].candles(1, closed_only=True)[0, CLOSE]
