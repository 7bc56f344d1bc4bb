"""Reading: every call of Feed, Series and View, on blocks written by a real writer in this process."""

from __future__ import annotations

import copy
import math
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.system.clock import SystemClock
from tests.support.collecting import until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

LENGTH = 16


def open_ms(bar: int) -> int:
    return START_MS + bar * MINUTE_MS


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(
        block_name, market="SPOT", interval="1m", length=LENGTH, symbols=["BTCUSDT", "ETHUSDT"], spare_symbols=1
    )
    yield writer
    writer.close()


@pytest.fixture
def loaded(writer: _core.Writer) -> _core.Writer:
    """BTCUSDT has bars 0..19 closed and 20 live; ETHUSDT is empty."""
    rows = [kline(open_ms(bar), 100 + bar) for bar in range(21)]
    ingest(writer, "BTCUSDT", *rows, sent_ms=open_ms(20) + 30_000)
    return writer


@pytest.fixture
def feed(loaded: _core.Writer) -> Iterator[candleshm.Feed]:
    with candleshm.attach(loaded.name) as feed:
        yield feed


@pytest.fixture
def btc(feed: candleshm.Feed) -> candleshm.Series:
    return feed["BTCUSDT"]


def bars(rows: np.ndarray) -> list[int]:
    """Return which bars the rows are of."""
    return [int((ms - START_MS) // MINUTE_MS) for ms in rows[:, OPEN_TIME_MS]]


def test_feed_says_what_it_carries(feed: candleshm.Feed) -> None:
    assert feed.symbols == ("BTCUSDT", "ETHUSDT")
    assert list(feed) == ["BTCUSDT", "ETHUSDT"]
    assert (len(feed), feed.market, feed.interval, feed.length) == (2, "SPOT", "1m", LENGTH)
    assert "BTCUSDT" in feed
    assert "btcusdt" not in feed
    assert feed["BTCUSDT"] is feed["BTCUSDT"]


def test_unknown_symbol_names_symbol_and_block(feed: candleshm.Feed) -> None:
    with pytest.raises(candleshm.UnknownSymbol, match=r"`DOGEUSDT`") as caught:
        feed["DOGEUSDT"]
    assert isinstance(caught.value, KeyError)


def test_candles_end_with_the_live_row(btc: candleshm.Series) -> None:
    rows = btc.candles()
    assert rows.shape == (LENGTH, 12)
    assert rows.dtype == np.float64
    assert bars(rows) == list(range(5, 21))
    assert bars(btc.candles(3)) == [18, 19, 20]
    assert bars(btc.candles(3, closed_only=True)) == [17, 18, 19]
    assert bars(btc.candles(10_000)) == list(range(5, 21))
    assert rows[-1, CLOSE] == btc.last_close == btc.live[CLOSE] == 120
    rows[:] = 0  # private and writable
    assert btc.last_close == 120


def test_states_belong_to_the_same_rows(btc: candleshm.Series) -> None:
    assert btc.states(3).tolist() == [2, 2, 1]
    assert btc.states(3, closed_only=True).tolist() == [2, 2, 2]
    assert btc.states().dtype == np.uint8


@pytest.mark.parametrize("holes", ["drop", "nan"])
@pytest.mark.parametrize("closed_only", [False, True])
@pytest.mark.parametrize("n", [None, 1, 5, 10_000])
def test_snapshot_is_candles_and_states(
    loaded: _core.Writer, btc: candleshm.Series, n: int | None, *, closed_only: bool, holes: Any
) -> None:
    outage(loaded)
    rows, states = btc.snapshot(n, closed_only=closed_only, holes=holes)
    np.testing.assert_array_equal(rows, btc.candles(n, closed_only=closed_only, holes=holes))
    np.testing.assert_array_equal(states, btc.states(n, closed_only=closed_only, holes=holes))
    assert rows.dtype == np.float64
    assert states.dtype == np.uint8
    assert rows.shape == (len(states), 12)
    # The series goes on; what was read stays.
    before = rows.copy()
    ingest(loaded, "BTCUSDT", kline(open_ms(24), 999), sent_ms=open_ms(24) + 2)
    np.testing.assert_array_equal(rows, before)


def test_snapshot_refuses_what_candles_refuses(
    loaded: _core.Writer, feed: candleshm.Feed, btc: candleshm.Series
) -> None:
    rows, states = feed["ETHUSDT"].snapshot()
    assert (rows.shape, states.shape) == ((0, 12), (0,))
    outage(loaded)
    with pytest.raises(candleshm.GapError, match="missing"):
        btc.snapshot(5, holes="raise")
    with pytest.raises(candleshm.ConfigError, match="positive integer: `0`"):
        btc.snapshot(0)
    loaded.set_trading("BTCUSDT", False)
    with candleshm.attach(loaded.name, max_age=3600) as strict, pytest.raises(candleshm.StaleData):
        strict["BTCUSDT"].snapshot()


@pytest.mark.parametrize("order", ["C", "F"])
def test_out_is_filled_in_either_order(btc: candleshm.Series, order: str) -> None:
    out = np.empty((8, 12), order=order)  # type: ignore[call-overload]
    assert btc.candles(8, out=out) is out
    np.testing.assert_array_equal(out, btc.candles(8))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((7, 12)),
        np.empty((8, 11)),
        np.empty((8, 12), dtype=np.float32),
        np.empty((16, 12))[::2],
        np.empty(96),
        [[0.0] * 12] * 8,
    ],
    ids=["rows", "columns", "dtype", "strides", "dimensions", "list"],
)
def test_out_of_another_shape_is_refused(btc: candleshm.Series, out: np.ndarray) -> None:
    with pytest.raises(candleshm.ConfigError, match=r"float64 array of shape \(8, 12\)"):
        btc.candles(8, out=out)


def test_out_that_is_read_only_is_refused(btc: candleshm.Series) -> None:
    out = np.empty((8, 12))
    out.flags.writeable = False
    with pytest.raises(candleshm.ConfigError):
        btc.candles(8, out=out)


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_row_is_refused(btc: candleshm.Series, n: int) -> None:
    with pytest.raises(candleshm.ConfigError, match=f"`{n}`"):
        btc.candles(n)


def test_empty_series_is_empty_everywhere(feed: candleshm.Feed) -> None:
    eth = feed["ETHUSDT"]
    assert eth.candles().shape == (0, 12)
    assert eth.states().shape == (0,)
    assert math.isnan(eth.last_close)
    assert np.isnan(eth.live).all()
    assert eth.last_open_time_ms is None
    assert eth.age == math.inf
    assert eth.gaps() == []
    assert len(eth.view()) == 0


def outage(writer: _core.Writer) -> None:
    """Bars 21 and 22 are missing, 23 is there, 24 live."""
    ingest(writer, "BTCUSDT", kline(open_ms(20), 120), sent_ms=open_ms(21))
    ingest(writer, "BTCUSDT", kline(open_ms(23), 123), kline(open_ms(24), 124), sent_ms=open_ms(24) + 1, limit=2)


def test_gap_is_dropped_blanked_or_refused(loaded: _core.Writer, btc: candleshm.Series) -> None:
    outage(loaded)
    assert bars(btc.candles(5)) == [20, 23, 24]
    assert btc.states(5).tolist() == [2, 2, 1]
    kept = btc.candles(5, holes="nan")
    assert bars(kept) == [20, 21, 22, 23, 24]
    assert np.isnan(kept[1:3, 1:]).all()
    assert btc.states(5, holes="nan").tolist() == [2, 5, 5, 2, 1]
    out = np.empty((5, 12))
    assert bars(btc.candles(5, out=out)) == [20, 23, 24]
    with pytest.raises(candleshm.GapError, match="missing") as caught:
        btc.candles(5, holes="raise")
    assert (caught.value.start_ms, caught.value.end_ms) == (open_ms(21), open_ms(23))
    assert bars(btc.candles(2, holes="raise")) == [23, 24]
    with pytest.raises(candleshm.ConfigError, match="`skip`"):
        btc.candles(5, holes="skip")  # type: ignore[arg-type]


def test_gap_confirmed_twice_is_a_hole_and_one_filled_is_none(loaded: _core.Writer, btc: candleshm.Series) -> None:
    outage(loaded)
    (gap,) = btc.gaps()
    assert (gap.start_ms, gap.end_ms, gap.kind) == (open_ms(21), open_ms(23), "missing")
    page = [kline(open_ms(bar), 100 + bar) for bar in (19, 20, 23)]
    for second in (1, 3):
        ingest(loaded, "BTCUSDT", *page, sent_ms=open_ms(24) + second * 1000, settle_ms=1000, limit=3)
    assert [gap.kind for gap in btc.gaps()] == ["hole"]
    assert btc.states(5, holes="nan").tolist() == [2, 4, 4, 2, 1]
    assert not btc.view(4).complete
    assert np.isnan(btc.view(4).close).tolist() == [False, True, True, False]
    # The exchange finds the rows after all.
    ingest(loaded, "BTCUSDT", *[kline(open_ms(bar), 100 + bar) for bar in (21, 22, 23)], sent_ms=open_ms(24) + 5000)
    assert btc.gaps() == []
    assert btc.view(4).complete
    assert btc.view(4).close.tolist() == [120, 121, 122, 123]


def test_view_lies_in_the_block_and_is_read_only(btc: candleshm.Series) -> None:
    view = btc.view(5)
    assert (len(view), view.array.shape, view.complete, view.valid()) == (5, (5, 12), True, True)
    for column, name in enumerate(candleshm.columns.NAMES):
        array = getattr(view, name)
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, view.array[:, column])
        assert np.shares_memory(array, view.array)
    np.testing.assert_array_equal(view.array, btc.candles(5, closed_only=True))
    with pytest.raises(ValueError, match="read-only"):
        view.close[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.close.flags.writeable = True


def test_view_survives_appends_until_its_slots_come_round(loaded: _core.Writer, btc: candleshm.Series) -> None:
    view = btc.view(5)  # bars 15..19
    capacity = 80  # LENGTH + 64, a multiple of eight
    for bar in range(21, 15 + capacity + 2):
        rows = [kline(open_ms(bar - 1), 99 + bar), kline(open_ms(bar), 100 + bar)]
        ingest(loaded, "BTCUSDT", *rows, sent_ms=open_ms(bar) + 1)
        # The head enters the slot of bar 15 when bar 95 closes.
        assert view.valid() == (bar <= 15 + capacity), bar


def test_reading_over_a_revision_raises_at_the_end_of_the_block(loaded: _core.Writer, btc: candleshm.Series) -> None:
    def revise(value: float, second: int) -> None:
        sent_ms = open_ms(20) + second * 1000
        ingest(loaded, "BTCUSDT", kline(open_ms(16), value), sent_ms=sent_ms, end_ms=open_ms(16))

    def read_over_revision() -> None:
        with btc.read(5) as view:
            assert view.close[1] == 116
            revise(999, 40)

    def fail_over_revision() -> None:
        with btc.read(5):
            revise(998, 50)
            raise KeyError("mine")

    with pytest.raises(candleshm.OverwrittenView, match="BTCUSDT"):
        read_over_revision()
    with pytest.raises(KeyError, match="mine"):  # an error of the caller's own is not replaced
        fail_over_revision()
    with btc.read(5) as view:
        assert view.close[1] == 998


def test_view_notices_a_revised_row_and_no_other(loaded: _core.Writer, btc: candleshm.Series) -> None:
    inside, outside = btc.view(5), btc.view(1)
    ingest(loaded, "BTCUSDT", kline(open_ms(16), 999), sent_ms=open_ms(20) + 40_000, end_ms=open_ms(16))
    assert not inside.valid()
    assert outside.valid()
    assert btc.revision == 1
    assert btc.candles(5, closed_only=True)[1, CLOSE] == 999


def test_closing_candle_enters_the_view_at_once(loaded: _core.Writer, btc: candleshm.Series) -> None:
    assert btc.view(1).close[0] == 119
    # Bar 20 is final, bar 21 has not been seen yet.
    ingest(loaded, "BTCUSDT", kline(open_ms(20), 120.5), sent_ms=open_ms(21))
    assert btc.view(1).close[0] == 120.5
    assert bars(btc.candles(2)) == [19, 20]
    assert btc.states(2).tolist() == [2, 2]
    assert btc.last_close == 120.5
    assert btc.last_open_time_ms == open_ms(20)


def test_ended_row_stays_live_until_it_settled(loaded: _core.Writer, btc: candleshm.Series) -> None:
    rows = [kline(open_ms(20), 120.25), kline(open_ms(21), 121)]
    ingest(loaded, "BTCUSDT", *rows, sent_ms=open_ms(21) + 500, settle_ms=1000)
    assert btc.states(3).tolist() == [2, 1, 1]
    assert bars(btc.candles(2, closed_only=True)) == [18, 19]
    assert btc.view(1).close[0] == 119
    rows[0] = kline(open_ms(20), 120.75)  # the exchange had not counted its last trade yet
    ingest(loaded, "BTCUSDT", *rows, sent_ms=open_ms(21) + 1000, settle_ms=1000)
    assert btc.states(3).tolist() == [2, 2, 1]
    assert btc.view(1).close[0] == 120.75
    assert btc.revision == 0


def test_age_grows_and_stale_data_is_refused(loaded: _core.Writer, btc: candleshm.Series) -> None:
    with candleshm.attach(loaded.name, max_age=0.05) as strict:
        series = strict["BTCUSDT"]
        deadline = time.monotonic() + 10
        while series.age <= 0.06 and time.monotonic() < deadline:
            time.sleep(0.005)
        calls: list[Callable[[], object]] = [
            lambda: series.live,
            lambda: series.last_close,
            series.candles,
            series.view,
            series.read,
            lambda: series.candles(1, out=np.empty((1, 12))),
        ]
        for call in calls:
            with pytest.raises(candleshm.StaleData) as caught:
                call()
            assert (caught.value.symbol, caught.value.limit) == ("BTCUSDT", 0.05)
            assert caught.value.age > 0.05
        assert series.age > 0.05
        assert series.states(1).tolist() == [1]
        assert series.gaps() == []
        assert strict.health.state == "ready"
        with pytest.raises(candleshm.StaleData):
            strict["ETHUSDT"].candles()  # no response ever came
        ingest(loaded, "BTCUSDT", kline(open_ms(20), 121), sent_ms=open_ms(20) + 50_000)
        assert series.last_close == 121
    assert btc.last_close == 121  # no limit, no error


def test_delisted_symbol_is_refused_only_with_a_limit(loaded: _core.Writer, btc: candleshm.Series) -> None:
    loaded.set_trading("BTCUSDT", False)
    with candleshm.attach(loaded.name, max_age=60) as strict:
        with pytest.raises(candleshm.StaleData, match="no longer trades") as caught:
            strict["BTCUSDT"].candles()
        assert caught.value.delisted
        with pytest.raises(candleshm.StaleData):
            strict["BTCUSDT"].wait(timeout=5)
    assert btc.last_close == 120


@pytest.mark.parametrize("max_age", [0, -1.0, math.nan])
def test_max_age_that_is_no_duration_is_refused(loaded: _core.Writer, max_age: float) -> None:
    with pytest.raises(candleshm.ConfigError, match="max_age"):
        candleshm.attach(loaded.name, max_age=max_age)


def test_wait_returns_when_a_newer_candle_opens(loaded: _core.Writer, btc: candleshm.Series) -> None:
    assert btc.wait(open_ms(19)) == open_ms(20)  # there already
    with pytest.raises(candleshm.WaitTimeout, match="BTCUSDT") as caught:
        btc.wait(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    opened: list[int] = []
    waiter = threading.Thread(target=lambda: opened.append(btc.wait(timeout=30)))
    waiter.start()
    while waiter.is_alive() and not opened:
        # A newer live row wakes the waiter only if it is of a newer candle.
        ingest(loaded, "BTCUSDT", kline(open_ms(20), 120 + time.monotonic() % 1), sent_ms=open_ms(20) + 50_000)
        rows = [kline(open_ms(20), 120), kline(open_ms(21), 121)]
        ingest(loaded, "BTCUSDT", *rows, sent_ms=open_ms(21) + 1)
        waiter.join(0.2)
        if not opened:  # it began to wait only after bar 21 had opened
            ingest(loaded, "BTCUSDT", kline(open_ms(22), 122), sent_ms=open_ms(22) + 1)
            waiter.join(10)
    assert opened in ([open_ms(21)], [open_ms(22)])


def test_wait_closed_counts_symbols_and_names_the_missing(loaded: _core.Writer, feed: candleshm.Feed) -> None:
    rows = [kline(open_ms(bar), 200 + bar) for bar in range(21)]
    ingest(loaded, "ETHUSDT", *rows, sent_ms=open_ms(20) + 30_000)
    closed = feed.wait_closed(open_ms(19), timeout=10)
    assert (closed.open_time_ms, closed.symbols, closed.missing) == (open_ms(19), ("BTCUSDT", "ETHUSDT"), ())
    assert loaded.universe_ms == open_ms(19)
    with pytest.raises(candleshm.WaitTimeout) as caught:
        feed.wait_closed(timeout=0.05)  # the next close, of bar 20
    assert caught.value.missing == ("BTCUSDT", "ETHUSDT")
    ingest(loaded, "BTCUSDT", kline(open_ms(20), 120), sent_ms=open_ms(21))
    assert loaded.universe_ms == open_ms(19)
    with pytest.raises(candleshm.WaitTimeout) as caught:
        feed.wait_closed(open_ms(20), timeout=0.05)
    assert caught.value.missing == ("ETHUSDT",)
    half = feed.wait_closed(open_ms(20), quorum=0.5, timeout=10)
    assert (half.symbols, half.missing) == (("BTCUSDT",), ("ETHUSDT",))
    assert feed.wait_closed(open_ms(20), symbols=["BTCUSDT"], timeout=10).missing == ()
    loaded.set_trading("ETHUSDT", False)
    assert feed.wait_closed(open_ms(20), timeout=10).symbols == ("BTCUSDT",)
    assert loaded.universe_ms == open_ms(20)


def test_wait_closed_wakes_when_the_last_symbol_closes(loaded: _core.Writer, feed: candleshm.Feed) -> None:
    got: list[candleshm.Closed] = []
    waiter = threading.Thread(target=lambda: got.append(feed.wait_closed(open_ms(20), timeout=30)))
    waiter.start()
    ingest(loaded, "BTCUSDT", kline(open_ms(20), 120), sent_ms=open_ms(21))
    waiter.join(30)
    assert got[0].open_time_ms == open_ms(20)


@pytest.mark.parametrize(("keywords", "text"), [({"quorum": 0.0}, "quorum"), ({"timeout": -1.0}, "timeout")])
def test_wait_closed_refuses_what_means_nothing(feed: candleshm.Feed, keywords: dict[str, float], text: str) -> None:
    with pytest.raises(candleshm.ConfigError, match=text):
        feed.wait_closed(**keywords)  # type: ignore[arg-type]


def test_added_symbol_is_seen_by_an_attached_feed(loaded: _core.Writer, feed: candleshm.Feed) -> None:
    loaded.add_symbol("SOLUSDT")
    assert feed.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert feed["SOLUSDT"].candles().shape == (0, 12)
    with pytest.raises(candleshm.ConfigError, match="`3`"):
        loaded.add_symbol("ADAUSDT")


def test_arrays_outlive_feed_and_block(loaded: _core.Writer) -> None:
    feed = candleshm.attach(loaded.name)
    view = feed["BTCUSDT"].view(3)
    array = view.close
    feed.close()
    loaded.close()
    del view
    assert array.tolist() == [117, 118, 119]
    with pytest.raises(candleshm.BlockNotFound, match="closed"):
        feed["BTCUSDT"]


def test_series_of_a_closed_feed_says_so(feed: candleshm.Feed, btc: candleshm.Series) -> None:
    feed.close()
    with pytest.raises(candleshm.BlockNotFound, match="closed"):
        btc.candles()


def test_feed_follows_a_block_of_another_shape(
    loaded: _core.Writer, feed: candleshm.Feed, btc: candleshm.Series
) -> None:
    view = btc.view(3)
    loaded.close(unlink=False)
    assert feed.health.state == "closed"
    longer = _core.Writer.open(loaded.name, market="SPOT", interval="1m", length=32, symbols=["BTCUSDT"])
    try:
        assert not longer.taken_over
        ingest(longer, "BTCUSDT", kline(open_ms(30), 130), sent_ms=open_ms(30) + 1)
        deadline = time.monotonic() + 10
        while feed.length != 32 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert feed.length == 32
        assert btc.last_close == 130
        assert "ETHUSDT" not in feed
        assert view.close.tolist() == [117, 118, 119]
    finally:
        longer.close()


def test_health_and_blocks(loaded: _core.Writer, feed: candleshm.Feed) -> None:
    loaded.set_health(ready=True, weight_used=12, weight_limit=4500, banned_until_ms=START_MS)
    loaded.heartbeat()
    health = feed.health
    assert (health.name, health.market, health.interval, health.length) == (loaded.name, "SPOT", "1m", LENGTH)
    assert (health.symbols, health.state, health.ready) == (2, "ready", True)
    assert (health.weight_used, health.weight_limit, health.missing, health.holes) == (12, 4500, 0, 0)
    assert health.banned_until is not None
    assert health.banned_until.timestamp() * 1000 == START_MS
    assert 0 <= health.heartbeat_age < 60
    assert loaded.name in [block.name for block in candleshm.blocks()]


def read_elsewhere(feed: candleshm.Feed, btc: candleshm.Series) -> tuple[Any, ...]:
    """Read what came to another process; return it, and a panel and gaps by value."""
    return (
        (feed.name, feed.max_age, btc.symbol, os.getpid()),
        btc.candles(3)[:, CLOSE].tolist(),
        feed["BTCUSDT"].last_close,
        feed.panel("close", n=3),
        btc.gaps(),
        feed.wait_closed(open_ms(18), symbols=["BTCUSDT"], timeout=10),
        feed.health,
    )


@pytest.mark.parametrize("max_age", [None, 3600.5])
def test_feeds_and_series_attach_again_in_another_process(loaded: _core.Writer, max_age: float | None) -> None:
    outage(loaded)
    with (
        candleshm.attach(loaded.name, max_age=max_age) as feed,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        facts, closes, last_close, panel, gaps, closed, health = pool.submit(
            read_elsewhere, feed, feed["BTCUSDT"]
        ).result(60)
        assert facts[:3] == (loaded.name, max_age, "BTCUSDT")
        assert facts[3] != os.getpid()
        assert closes == feed["BTCUSDT"].candles(3)[:, CLOSE].tolist()
        assert last_close == 124
        own = feed.panel("close", n=3)
        np.testing.assert_array_equal(panel.array, own.array)
        np.testing.assert_array_equal(panel.open_time_ms, own.open_time_ms)
        assert (panel.symbols, panel.fields) == (own.symbols, own.fields)
        assert gaps == feed["BTCUSDT"].gaps()
        assert len(gaps) == 1
        assert (closed.open_time_ms, closed.symbols, closed.missing) == (open_ms(18), ("BTCUSDT",), ())
        assert (health.name, health.symbols) == (loaded.name, 2)


def test_copies_of_feeds_and_series_are_attached_for_themselves(feed: candleshm.Feed) -> None:
    for again in (copy.copy(feed), copy.deepcopy(feed), pickle.loads(pickle.dumps(feed))):
        assert type(again) is candleshm.Feed
        again.close()
    assert feed["BTCUSDT"].last_close == 120
    for series in (
        copy.copy(feed["BTCUSDT"]),
        copy.deepcopy(feed["BTCUSDT"]),
        pickle.loads(pickle.dumps(feed["BTCUSDT"])),
    ):
        assert (series.symbol, series.last_close) == ("BTCUSDT", 120)
    pickled = pickle.dumps(feed["BTCUSDT"])
    feed.close()
    assert pickle.loads(pickled).last_close == 120
    with pytest.raises(candleshm.BlockNotFound, match="this feed was closed"):
        pickle.dumps(feed)


def test_a_view_says_why_it_is_not_copied(btc: candleshm.Series) -> None:
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"a View of BTCUSDT cannot be pickled or copied: .*closed_only=True"):
            take(btc.view(3))
    # Its arrays are pickled by value.
    assert pickle.loads(pickle.dumps(btc.view(3).close)).tolist() == [117, 118, 119]


def test_gaps_and_closes_are_made_and_pickled_by_value() -> None:
    gap = candleshm.Gap(1, 2, "hole")
    assert pickle.loads(pickle.dumps(gap)) == copy.deepcopy(gap) == gap
    with pytest.raises(candleshm.ConfigError, match="`gone`"):
        candleshm.Gap(1, 2, "gone")  # type: ignore[arg-type]
    closed = pickle.loads(pickle.dumps(candleshm.Closed(5, ("A",), ("B",))))
    assert (closed.open_time_ms, closed.symbols, closed.missing) == (5, ("A",), ("B",))


def read_in_child(feed: candleshm.Feed, rows: list[float]) -> None:
    assert feed["BTCUSDT"].candles(3)[:, CLOSE].tolist() == rows


def test_attached_feed_works_after_fork(feed: candleshm.Feed) -> None:
    child = get_context("fork").Process(target=read_in_child, args=(feed, [118, 119, 120]))
    child.start()
    child.join(30)
    assert child.exitcode == 0


def test_threads_read_in_parallel(loaded: _core.Writer, btc: candleshm.Series) -> None:
    wrong: list[object] = []

    def read() -> None:
        for _ in range(2000):
            if bars(btc.candles(8))[-1] != 20 or btc.view(4).close.tolist() != [116, 117, 118, 119]:
                wrong.append(btc.candles(8))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shared_memory_of_the_standard_library_opens_the_block(loaded: _core.Writer) -> None:
    memory = shared_memory.SharedMemory(loaded.name)
    # Before Python 3.13 its tracker would remove the block when this process ends.
    resource_tracker.unregister(memory._name, "shared_memory")  # type: ignore[attr-defined]
    assert memory.buf is not None
    assert bytes(memory.buf[:8]) == b"CANDLSHM"
    memory.close()


def test_block_is_private_to_the_user(loaded: _core.Writer) -> None:
    assert (Path("/dev/shm") / loaded.name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", "a b", "ä", "x" * 201])
def test_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(candleshm.ConfigError, match="name"):
        candleshm.attach(name)


def test_missing_block_names_the_way_out(block_name: str) -> None:
    with pytest.raises(FileNotFoundError, match="candleshm ls") as caught:
        candleshm.attach(block_name)
    assert isinstance(caught.value, candleshm.BlockNotFound)
    assert caught.value.name == block_name


def test_foreign_memory_is_refused_and_left_alone(block_name: str) -> None:
    path = Path("/dev/shm") / block_name
    for content in (b"", b"short", b"\0" * 8192):
        path.write_bytes(content)
        with pytest.raises(candleshm.BlockCorrupt):
            candleshm.attach(block_name)
        with pytest.raises(candleshm.BlockCorrupt):
            candleshm.unlink(block_name)
        with pytest.raises(candleshm.BlockCorrupt):
            _core.Writer.open(block_name, market="SPOT", interval="1m", length=16, symbols=["BTCUSDT"])
        assert path.read_bytes() == content
        assert block_name not in [block.name for block in candleshm.blocks()]


def test_block_of_another_format_names_both(loaded: _core.Writer) -> None:
    path = Path("/dev/shm") / loaded.name
    with path.open("r+b") as file:
        file.seek(8)
        file.write((2).to_bytes(4, "little"))
    with pytest.raises(candleshm.BlockIncompatible, match=r"2\.\d+ .* 1\.\d+"):
        candleshm.attach(loaded.name)


def test_block_too_large_for_the_machine_is_a_clear_error(block_name: str) -> None:
    symbols = [f"S{number}" for number in range(16_000)]
    with pytest.raises(candleshm.BlockUnavailable, match=r"/dev/shm has no room for its \d+ MiB") as caught:
        _core.Writer.open(block_name, market="SPOT", interval="1m", length=100_000, symbols=symbols)
    assert isinstance(caught.value, OSError)
    assert not (Path("/dev/shm") / block_name).exists()


@pytest.mark.parametrize(
    "error",
    [
        candleshm.BlockNotFound("n", "why"),
        candleshm.BlockInUse("n", 7),
        candleshm.BlockIncompatible("n", "1", "2"),
        candleshm.BlockUnavailable("n", "why", 28),
        candleshm.StaleData("BTCUSDT", 3.0, 1.0),
        candleshm.GapError("BTCUSDT", START_MS, START_MS + MINUTE_MS, "hole"),
        candleshm.UnknownSymbol("X", "n"),
        candleshm.WaitTimeout("late", ("X",)),
        candleshm.OverwrittenView("BTCUSDT"),
        candleshm.ClosesMissed("n", START_MS, START_MS + MINUTE_MS, 1),
        candleshm.BlockCorrupt("n", "why"),
        candleshm.MissingExtra("polars", "polars"),
        candleshm.ConfigError("n cannot be `0`"),
        candleshm.DayNotFound("path", ("2026-11-23",)),
        candleshm.DayDamaged("path", "why"),
        candleshm.DayIncomplete("path", ((START_MS, START_MS + MINUTE_MS),)),
        candleshm.StoreInUse("path"),
        candleshm.StoreUnavailable("path", "why", 28),
        candleshm.ExchangeError("no", status=400, code=-1100),
        candleshm.RateLimited("slow", retry_after=7.5, code=-1003),
        candleshm.Banned("stop", retry_after=60.0, until_ms=START_MS),
        candleshm.BadResponse("half", offset=3, status=200),
        candleshm.ExchangeUnavailable("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_process_borders(error: candleshm.CandleShmError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_exchanges_clock_is_the_middle_of_what_was_measured(block_name: str) -> None:
    writer = _core.Writer.open(
        block_name, market="SPOT", interval="1m", length=5, symbols=["BTCUSDT"], derive=[(f"{block_name}-5m", "5m", 10)]
    )
    with candleshm.attach(block_name) as feed, candleshm.attach(f"{block_name}-5m") as derived:
        assert feed.exchange_ms() is None
        # Measured at this machine's boot: what the clock shows now is as long after it as the machine runs.
        writer.set_exchange_clock(0.0, START_MS - 50, START_MS + 150, 0.0)
        for blocks in (feed, derived):
            before_ms, shown_ms = SystemClock().monotonic_seconds() * 1000, blocks.exchange_ms()
            after_ms = SystemClock().monotonic_seconds() * 1000
            assert shown_ms is not None
            assert before_ms - 1 <= shown_ms - (START_MS + 50) <= after_ms + 1
        writer.enlarge(["BTCUSDT", "ETHUSDT"])
        until(lambda: "ETHUSDT" in feed and "ETHUSDT" in derived)
        assert feed.exchange_ms() is not None
        assert derived.exchange_ms() is not None
    writer.close()
