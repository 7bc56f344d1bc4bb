"""Calls that people look for in the library, and what those say that it does not have: on blocks of a real writer."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import candleshm.weight
from candleshm import _core
from tests.support.klines import MINUTE_MS, ingest, kline
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms


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


def test_a_text_where_a_list_of_symbols_is_meant_is_named(feed: candleshm.Feed) -> None:
    moments = np.array([0])
    text: Any = "BTCUSDT"
    asked: list[Callable[[], object]] = [
        lambda: feed.panel("close", symbols=text),
        lambda: feed.last("close", symbols=text),
        lambda: feed.asof("close", moments, symbols=text),
        lambda: feed.wait_closed(symbols=text, timeout=0),
        lambda: feed.closes(symbols=text),
    ]
    for ask in asked:
        with pytest.raises(candleshm.ConfigError, match=r"symbols cannot be the text `BTCUSDT`; .* \['BTCUSDT'\]"):
            ask()


@pytest.mark.parametrize("key", [("BTCUSDT", "close"), ["BTCUSDT", "ETHUSDT"], 0])
def test_a_feed_says_what_to_call_for_anything_but_one_symbol(feed: candleshm.Feed, key: Any) -> None:
    with pytest.raises(TypeError, match=r"feed\['BTCUSDT'\].* `" + re.escape(str(key)) + r"`.* feed\.panel\("):
        feed[key]
    assert key not in feed


def test_numpy_makes_no_object_arrays_of_what_is_no_array(feed: candleshm.Feed) -> None:
    view = feed["BTCUSDT"].view(3)
    for thing, way in ((feed, r"feed\.panel\("), (feed["BTCUSDT"], r"candles\(n\)"), (view, r"view\.array")):
        for make in (np.asarray, np.array, np.mean, lambda thing: np.asarray(thing, dtype=float)):
            with pytest.raises(TypeError, match=way):
                make(thing)


def test_a_strategy_that_starts_first_waits_for_the_block_and_then_for_its_data(block_name: str) -> None:
    with pytest.raises(candleshm.BlockNotFound):
        candleshm.attach(block_name, timeout=0.2)
    writers: list[_core.Writer] = []

    def serve() -> None:
        writers.append(_core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS[:2]))

    later = threading.Timer(0.2, serve)
    later.start()
    try:
        with candleshm.attach(block_name, max_age=60.0, timeout=60.0) as feed:
            later.join()
            writer = writers[0]
            load(writer, "BTCUSDT", 0, 20)
            writer.heartbeat()
            with pytest.raises(candleshm.WaitTimeout, match="it is loading; 1 of 2 symbols have no data yet") as caught:
                feed.wait_ready(timeout=0)
            assert caught.value.missing == ("ETHUSDT",)
            with pytest.raises(candleshm.StaleData, match=r"ETHUSDT has not been loaded yet, .*wait_ready"):
                feed["ETHUSDT"].candles()

            def finish() -> None:
                load(writer, "ETHUSDT", 0, 20)
                writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
                writer.heartbeat()

            later = threading.Timer(0.2, finish)
            later.start()
            assert feed.wait_ready(timeout=60.0).ready
            assert feed["ETHUSDT"].last_close == 2020
            later.join()
        with pytest.raises(candleshm.BlockNotFound, match="this feed was closed"):
            feed.wait_ready(timeout=0)
    finally:
        later.join()
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("timeout", [-1, float("nan"), True])
def test_a_wait_refuses_what_is_no_duration(feed: candleshm.Feed, timeout: Any) -> None:
    with pytest.raises(candleshm.ConfigError):
        candleshm.attach(feed.name, timeout=timeout)
    with pytest.raises(candleshm.ConfigError):
        feed.wait_ready(timeout)


def test_a_symbol_that_was_delisted_before_it_was_loaded_says_so(writer: _core.Writer) -> None:
    writer.set_trading("NEWUSDT", False)
    no_data = pytest.raises(candleshm.StaleData, match="NEWUSDT no longer trades, and was not confirmed")
    with candleshm.attach(writer.name, max_age=60.0) as strict, no_data:
        strict["NEWUSDT"].wait(timeout=0)


def test_a_feed_is_a_mapping_from_symbols_to_series(writer: _core.Writer, feed: candleshm.Feed) -> None:
    assert isinstance(feed, Mapping)
    assert list(feed.keys()) == SYMBOLS
    assert [series.symbol for series in feed.values()] == SYMBOLS
    assert dict(feed.items()) == {symbol: feed[symbol] for symbol in SYMBOLS}
    assert feed.get("BTCUSDT") is feed["BTCUSDT"]
    assert feed.get("DOGEUSDT") is None
    with candleshm.attach(writer.name) as other:
        assert other != feed
        assert len({feed, other, feed}) == 2
    with pytest.raises(TypeError):
        feed["BTCUSDT"] = feed["ETHUSDT"]  # type: ignore[index]


def test_notebooks_complete_the_symbols_of_a_feed(feed: candleshm.Feed) -> None:
    assert feed._ipython_key_completions_() == SYMBOLS


NOON_MS = open_ms(17)
NOON = datetime.fromtimestamp(NOON_MS / 1000, tz=UTC)
INDEX = pd.DatetimeIndex([NOON, NOON + timedelta(minutes=1, microseconds=999)])
MOMENTS: list[Any] = [
    np.array([NOON_MS, NOON_MS + MINUTE_MS]),
    np.array([NOON_MS, 0, NOON_MS + MINUTE_MS, 0])[::2],
    np.array([NOON_MS, NOON_MS + MINUTE_MS], np.uint64),
    [NOON_MS, NOON_MS + MINUTE_MS],
    (NOON, NOON.astimezone(timezone(timedelta(hours=8))) + timedelta(minutes=1)),
    np.array([NOON_MS, NOON_MS + MINUTE_MS]).astype("datetime64[ms]"),
    INDEX,
    INDEX.tz_convert("Asia/Shanghai"),
    INDEX.tz_localize(None),
    INDEX.as_unit("us"),
    pd.Series(INDEX.tz_convert("America/New_York")),
    list(INDEX),
    pl.Series(list(INDEX)),
]


@pytest.mark.parametrize("moments", MOMENTS, ids=lambda moments: type(moments).__name__)
def test_moments_may_be_numbers_datetimes_or_columns_of_frames(feed: candleshm.Feed, moments: Any) -> None:
    assert feed.asof("close", moments, symbols=["BTCUSDT", "ETHUSDT"]).tolist() == [[1016, 2016], [1017, 2017]]
    assert feed["BTCUSDT"].asof(moments)[:, candleshm.CLOSE].tolist() == [1016, 1017]


def test_one_moment_is_one_row_and_none_is_none(feed: candleshm.Feed) -> None:
    for moment in (NOON_MS, NOON, INDEX[0], np.datetime64(NOON_MS, "ms")):
        assert feed.asof("close", moment, symbols=["BTCUSDT"]).tolist() == [[1016]]
        assert feed["BTCUSDT"].asof(moment).shape == (1, 12)
    assert feed.asof("close", [], symbols=["BTCUSDT"]).shape == (0, 1)
    assert feed["BTCUSDT"].asof(pd.DatetimeIndex([])).shape == (0, 12)


@pytest.mark.parametrize(
    ("moments", "text"),
    [
        (np.array([1.0]), r"float64; .*int64.*rows\[:, 0\]"),
        (["2026-11-28"], "<U10"),
        ([True], "bool"),
        ([NOON.replace(tzinfo=None)], "a datetime without a time zone, `2"),
        ([NOON.date()], "date `"),
        (pd.DatetimeIndex([NOON, None]), "NaT"),
        (np.array([[NOON_MS]]), r"shape `\(1, 1\)`"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_moment_is_named_with_its_type(feed: candleshm.Feed, moments: Any, text: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: feed.asof("close", moments),
        lambda: feed["BTCUSDT"].asof(moments),
    ]
    for ask in asked:
        with pytest.raises(candleshm.ConfigError, match="moments_ms cannot .*" + text):
            ask()


def test_everything_that_is_printed_is_short_and_true(writer: _core.Writer, feed: candleshm.Feed) -> None:
    name = writer.name
    assert repr(feed).startswith(f"<Feed SPOT 1m of {name}: 3 symbols, data ")
    assert repr(feed).endswith(" s old at most, loading>")
    writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
    writer.heartbeat()
    assert repr(feed).endswith(" s old at most, ready>")
    assert repr(feed["BTCUSDT"]) == f"<Series SPOT BTCUSDT 1m of {name}>"
    last = f"{NOON + timedelta(minutes=2):%Y-%m-%d %H:%M:%S}"
    assert repr(feed.panel("close", n=3)) == f"<Panel close (3, 2) {NOON:%Y-%m-%d %H:%M:%S} to {last} UTC>"
    assert repr(feed.panel(fields=["open", "close"], n=3)).startswith("<Panel open, close (3, 2, 2) ")
    closed = feed.wait_closed(open_ms(19), timeout=0)
    assert repr(closed) == f"<Closed {NOON + timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}: 2 symbols>"
    assert repr(candleshm.Closed(0, ("A", "B"), ("C",))) == "<Closed 1970-01-01T00:00:00Z: 2 symbols, 1 missing>"
    btc = feed["BTCUSDT"]
    feed.close()
    assert repr(feed) == f"<Feed {name}: closed>"
    assert repr(btc) == f"<Series BTCUSDT of {name}: closed>"


def test_an_empty_feed_prints_that_it_has_no_data(block_name: str) -> None:
    writer = _core.Writer.open(block_name, market="UM", interval="1h", length=LENGTH, symbols=["BTCUSDT"])
    try:
        with candleshm.attach(block_name) as feed:
            assert repr(feed) == f"<Feed UM 1h of {block_name}: 1 symbol, no data yet, loading>"
            assert repr(feed.panel("close")) == "<Panel close (0, 0)>"
            for shown in (feed, feed["BTCUSDT"], feed.panel("close"), feed.health):
                assert "<table>" in shown._repr_html_()
            assert "no candle yet" in feed._repr_html_()
    finally:
        writer.close()


def test_a_ticket_prints_whether_its_weight_is_in_flight() -> None:
    with candleshm.weight.acquire("UM", 2) as ticket:
        assert repr(ticket) == "<Ticket for a request to UM: in flight>"
    assert repr(ticket) == "<Ticket for a request to UM: ended>"


def test_notebooks_show_tables(writer: _core.Writer, feed: candleshm.Feed) -> None:
    noon = f"<td>{NOON:%Y-%m-%d %H:%M:%S}</td>"
    assert "<td>BTCUSDT</td>" in feed._repr_html_()
    assert "<td>1020.0</td>" in feed._repr_html_()
    assert noon in feed["BTCUSDT"]._repr_html_()
    assert feed["BTCUSDT"]._repr_html_().count("<td>live</td>") == 1
    panel = feed.panel(fields=["open", "high", "low", "close", "volume"])
    assert panel._repr_html_().count("<tr>") == 6
    assert "2 more columns" in panel._repr_html_()
    assert noon in panel._repr_html_()
    assert f"<td>{writer.name}</td>" in feed.health._repr_html_()
    gap = candleshm.Gap(NOON_MS, NOON_MS + MINUTE_MS, "hole")
    assert noon in gap._repr_html_()
    assert str(2**62) in candleshm.Gap(0, 2**62, "hole")._repr_html_()


def test_tables_escape_what_the_exchange_sent_and_show_errors_instead_of_old_prices(block_name: str) -> None:
    symbol = "<img>"
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=[symbol])
    try:
        ingest(writer, symbol, kline(open_ms(0), 123456), kline(open_ms(1), 123456), sent_ms=open_ms(1) + 1)
        writer.set_trading(symbol, False)
        with candleshm.attach(block_name, max_age=3600.0) as feed:
            series = feed[symbol]
            for text in (feed._repr_html_(), series._repr_html_()):
                assert symbol not in text
                assert "123456" not in text
            assert "&lt;img&gt; no longer trades" in series._repr_html_()
            assert "<td>stale</td>" in feed._repr_html_()
        assert "this feed was closed" in feed._repr_html_()
        assert "this feed was closed" in series._repr_html_()
    finally:
        writer.close()


def test_a_panel_has_a_shape_and_is_an_array(feed: candleshm.Feed) -> None:
    panel = feed.panel("close", n=3)
    assert panel.shape == (3, 2)
    assert np.shares_memory(np.asarray(panel), panel.array)
    assert np.mean(panel) == panel.array.mean()
    assert not np.shares_memory(np.array(panel), panel.array)
    assert np.asarray(panel, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        panel.__array__(np.float32, copy=False)
    assert feed.panel(fields=["open", "close"], n=3).shape == (3, 2, 2)
    fields: Any = ["open", "close"]
    with pytest.raises(candleshm.ConfigError, match=r"field cannot be .*fields=\["):
        feed.panel(fields)


def test_asof_of_a_panel_is_that_of_the_feed(writer: _core.Writer, feed: candleshm.Feed) -> None:
    load(writer, "BTCUSDT", 20, 24, leave_out=(21, 22))
    load(writer, "ETHUSDT", 20, 24)
    step_ms = MINUTE_MS // 4
    moments = np.arange(open_ms(10), open_ms(30), step_ms)
    symbols = SYMBOLS[:2]
    panel = feed.panel("close", symbols=symbols)
    assert panel.end_ms == open_ms(24)
    known = feed.asof("close", moments, symbols=symbols)
    # The feed has the row before the panel's first one, too.
    first_ms = panel.open_time_ms[0] + MINUTE_MS
    later = moments >= first_ms
    np.testing.assert_array_equal(panel.asof(moments)[later], known[later])
    assert np.isnan(panel.asof(moments)[~later]).all()
    both = feed.panel(fields=["open", "close"], symbols=symbols).asof(moments)
    assert both.shape == (len(moments), 2, 2)
    np.testing.assert_array_equal(both[:, :, 1], panel.asof(moments))
    assert panel.asof([]).shape == (0, 2)
    assert feed.panel("close", symbols=["NEWUSDT"]).asof(moments).shape == (len(moments), 1)
    with pytest.raises(candleshm.ConfigError, match="looks like seconds"):
        panel.asof(open_ms(20) // 1000)


@pytest.mark.parametrize(("interval", "step_ms"), [("3d", 3 * 86_400_000), ("1w", 7 * 86_400_000)])
def test_a_panel_ends_where_its_last_candle_does(block_name: str, interval: Any, step_ms: int) -> None:
    first_ms = 1_767_571_200_000  # a Monday
    writer = _core.Writer.open(block_name, market="SPOT", interval=interval, length=8, symbols=["BTCUSDT"])
    try:
        rows = [kline(first_ms + bar * step_ms, bar + 1, step_ms) for bar in range(4)]
        ingest(writer, "BTCUSDT", *rows, sent_ms=first_ms + 3 * step_ms + 1)
        with candleshm.attach(block_name) as feed:
            panel = feed.panel("close")
            assert panel.end_ms == first_ms + 3 * step_ms
            moments = [panel.end_ms - 1, panel.end_ms]
            assert panel.asof(moments).tolist() == feed.asof("close", moments).tolist() == [[2], [3]]
    finally:
        writer.close()


@pytest.mark.parametrize("moment", [NOON_MS, np.int64(NOON_MS), NOON, INDEX[0], np.datetime64(NOON_MS, "ms")])
def test_waits_take_a_moment_as_people_have_it(feed: candleshm.Feed, moment: Any) -> None:
    assert feed.wait_closed(moment, timeout=0).open_time_ms == NOON_MS
    assert asyncio.run(feed.wait_closed_async(moment, timeout=5)).open_time_ms == NOON_MS
    assert feed["BTCUSDT"].wait(moment, timeout=0) == open_ms(20)
    assert asyncio.run(feed.wait_async("BTCUSDT", moment, timeout=5)) == open_ms(20)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON.replace(tzinfo=None), "a datetime without a time zone, `2"),
        (float(NOON_MS), "float64"),
        ("2026-11-28", "<U10"),
        ([NOON_MS], "one moment is needed, not list"),
        (NOON.date(), "date `"),
        (True, "not a number|cannot be bool"),
        (NOON_MS // 1000, "looks like seconds"),
    ],
)
def test_waits_name_what_is_no_moment(feed: candleshm.Feed, moment: Any, text: str) -> None:
    waits: list[Callable[[], object]] = [
        lambda: feed.wait_closed(moment, timeout=0),
        lambda: feed["BTCUSDT"].wait(moment, timeout=0),
        lambda: asyncio.run(feed.wait_closed_async(moment, timeout=0)),
        lambda: asyncio.run(feed.wait_async("BTCUSDT", moment, timeout=0)),
    ]
    for wait in waits:
        with pytest.raises(candleshm.ConfigError, match=text):
            wait()


def test_a_wait_that_is_over_names_the_candle_by_its_time(feed: candleshm.Feed) -> None:
    moment = NOON + timedelta(days=1)
    with pytest.raises(
        candleshm.WaitTimeout, match=f"0 of 2 symbols have the candle of {moment:%Y-%m-%dT%H:%M:%SZ} final"
    ):
        feed.wait_closed(moment, timeout=0)
