"""Events of kline streams from a block: what changed, each candle once as final, in the exchange's wording."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from candleshm.system.clock import SystemClock
from tests.support.collecting import DEADLINE_SECONDS, MINUTE, collecting, truth_of, until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

LENGTH = 16
SPOT = (2, 5, 7, 8)


def open_ms(bar: int) -> int:
    return START_MS + bar * MINUTE_MS


def opened(name: str, symbols: list[str], derive: list[tuple[str, str, int]] | None = None) -> _core.Writer:
    return _core.Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=symbols, derive=derive)


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = opened(block_name, ["BTCUSDT", "ETHUSDT"], [(f"{block_name}-3m", "3m", LENGTH)])
    yield writer
    writer.close()


@pytest.fixture
def feed(writer: _core.Writer) -> Iterator[Feed]:
    with candleshm.attach(writer.name) as feed:
        yield feed


@pytest.fixture
def events(feed: Feed) -> _core.KlineEvents:
    return _core.KlineEvents(feed)


def poll(writer: _core.Writer, *bars: int, symbol: str = "BTCUSDT", value: float = 100.0, second: float = 30) -> None:
    """Let the exchange have had these candles as its newest, so many seconds into the last one."""
    rows = [kline(open_ms(bar), value + bar) for bar in bars]
    sent_ms = open_ms(bars[-1]) + int(second * 1000)
    ingest(writer, symbol, *rows, sent_ms=sent_ms, settle_ms=1000, limit=len(rows))


def told(events: _core.KlineEvents) -> list[tuple[str, int, bool]]:
    """Return symbol, bar and whether it is final of every event."""
    found = []
    for symbol, event in events.take():
        data = json.loads(event)
        assert data["s"] == data["k"]["s"] == symbol
        found.append((symbol, (data["k"]["t"] - START_MS) // MINUTE_MS, data["k"]["x"]))
    return found


def test_an_event_is_worded_as_the_exchanges(writer: _core.Writer, events: _core.KlineEvents) -> None:
    writer.set_exchange_clock(SystemClock().monotonic_seconds(), 1_700_000_000_000, 1_700_000_000_000, 0.0)
    events.watch("BTCUSDT", SPOT)
    poll(writer, 0, 1)
    ((symbol, event),) = events.take()
    assert symbol == "BTCUSDT"
    moment = json.loads(event)["E"]
    assert -1 <= moment - 1_700_000_000_000 < DEADLINE_SECONDS * 1000
    number = '"101.00000000"'
    assert event.decode() == (
        f'{{"e":"kline","E":{moment},"s":"BTCUSDT","k":{{"t":1700000100000,"T":1700000159999,"s":"BTCUSDT","i":"1m",'
        f'"f":-1,"L":-1,"o":{number},"c":{number},"h":{number},"l":{number},"v":{number},"n":101,"x":false,'
        f'"q":{number},"V":{number},"Q":{number},"B":"0"}}}}'
    )


def test_without_the_exchanges_clock_an_event_has_the_time_of_its_receipt(
    writer: _core.Writer, events: _core.KlineEvents
) -> None:
    events.watch("BTCUSDT", None)
    before_ms = time.time_ns() // 1_000_000
    poll(writer, 0, 1)
    ((_, event),) = events.take()
    assert before_ms - 1000 <= json.loads(event)["E"] <= time.time_ns() // 1_000_000 + 1000


def test_every_candle_is_told_as_final_once_and_in_order(writer: _core.Writer, events: _core.KlineEvents) -> None:
    events.watch("BTCUSDT", SPOT)
    assert told(events) == []
    poll(writer, *range(10))
    assert told(events) == [("BTCUSDT", 9, False)]
    poll(writer, *range(10))
    assert told(events) == []
    poll(writer, 8, 9, value=100.5)
    assert told(events) == [("BTCUSDT", 9, False)]
    poll(writer, 9, 10)
    assert told(events) == [("BTCUSDT", 9, True), ("BTCUSDT", 10, False)]
    # Nobody looked for a while.
    poll(writer, 10, 11, 12, 13)
    assert told(events) == [("BTCUSDT", 10, True), ("BTCUSDT", 11, True), ("BTCUSDT", 12, True), ("BTCUSDT", 13, False)]
    # A correction of what was told as final.
    poll(writer, 11, 12, 13, value=100.5)
    assert told(events) == [("BTCUSDT", 13, False)]
    events.unwatch("BTCUSDT")
    poll(writer, 13, 14)
    assert told(events) == []
    assert len(events) == 0
    events.watch("BTCUSDT", SPOT)
    assert told(events) == [("BTCUSDT", 14, False)]


def test_later_candles_wait_for_one_that_is_missing(writer: _core.Writer, events: _core.KlineEvents) -> None:
    events.watch("BTCUSDT", SPOT)
    poll(writer, *range(10))
    events.take()
    poll(writer, 12, 13)
    assert told(events) == [("BTCUSDT", 13, False)]
    poll(writer, 13, 14)
    assert told(events) == [("BTCUSDT", 14, False)]
    poll(writer, 9, 10, 11, 12, 13, 14)
    assert told(events) == [("BTCUSDT", bar, True) for bar in range(9, 14)]
    # The exchange has no candle 15, and confirms it.
    poll(writer, 13, 14, 16)
    assert told(events) == [("BTCUSDT", 14, True), ("BTCUSDT", 16, False)]
    for second in (31, 40):
        poll(writer, 13, 14, 16, 17, second=second)
    assert told(events) == [("BTCUSDT", 16, True), ("BTCUSDT", 17, False)]


def test_an_outage_longer_than_the_window_leaves_what_the_window_has(
    writer: _core.Writer, events: _core.KlineEvents
) -> None:
    events.watch("BTCUSDT", SPOT)
    poll(writer, *range(10))
    events.take()
    poll(writer, *range(50))
    assert told(events) == [*(("BTCUSDT", bar, True) for bar in range(49 - LENGTH, 49)), ("BTCUSDT", 49, False)]


def test_older_candles_come_first(writer: _core.Writer, events: _core.KlineEvents) -> None:
    for symbol in ("ETHUSDT", "BTCUSDT"):
        events.watch(symbol, SPOT)
        poll(writer, 8, 9, symbol=symbol)
    events.take()
    for symbol in ("ETHUSDT", "BTCUSDT"):
        poll(writer, 9, 10, symbol=symbol)
    found = told(events)
    assert [bar for _, bar, _ in found] == [9, 9, 10, 10]
    assert {symbol for symbol, _, final in found if final} == {"BTCUSDT", "ETHUSDT"}


def test_a_symbol_that_is_not_there(writer: _core.Writer, events: _core.KlineEvents, feed: Feed) -> None:
    with pytest.raises(candleshm.UnknownSymbol):
        events.watch("DOGEUSDT", SPOT)
    with pytest.raises(candleshm.ConfigError, match="four numbers"):
        events.watch("BTCUSDT", (19, 0, 0, 0))
    events.unwatch("DOGEUSDT")
    events.watch("BTCUSDT", SPOT)
    feed.close()
    with pytest.raises(candleshm.BlockNotFound):
        events.take()
    with pytest.raises(candleshm.BlockNotFound):
        _core.KlineEvents(feed)


def test_another_block_under_the_name_repeats_nothing(block_name: str) -> None:
    writer = opened(block_name, ["BTCUSDT", "ETHUSDT"])
    with candleshm.attach(block_name) as feed:
        events = _core.KlineEvents(feed)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            events.watch(symbol, SPOT)
            poll(writer, *range(10), symbol=symbol)
        events.take()
        writer.enlarge(["BTCUSDT", "ETHUSDT", "SOLUSDT"])
        poll(writer, 9, 10)
        until(lambda: len(feed) == 3)
        assert told(events) == [("BTCUSDT", 9, True), ("BTCUSDT", 10, False)]
        writer.close()
        # A new collector, without one of the symbols and without a row.
        writer = opened(block_name, ["BTCUSDT"])
        writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
        poll(writer, *range(8, 12))
        found: list[tuple[str, int, bool]] = []

        def has_followed() -> bool:
            found.extend(told(events))
            return bool(found)

        until(has_followed)
        assert found == [("BTCUSDT", 10, True), ("BTCUSDT", 11, False)]
        writer.close()


def test_a_derived_block_has_events_of_its_own(writer: _core.Writer, block_name: str) -> None:
    with candleshm.attach(f"{block_name}-3m") as derived:
        events = _core.KlineEvents(derived)
        events.watch("BTCUSDT", SPOT)
        poll(writer, *range(8))
        (first, *_), last = events.take(), None
        poll(writer, *range(6, 12))
        for symbol, event in [first, *events.take()]:
            data = json.loads(event)["k"]
            assert (symbol, data["i"]) == ("BTCUSDT", "3m")
            last = data if data["x"] else last
        assert last is not None
        assert last["T"] - last["t"] == 3 * MINUTE - 1


def test_a_sleep_ends_when_the_block_changes(writer: _core.Writer, events: _core.KlineEvents) -> None:
    events.watch("BTCUSDT", SPOT)
    found: list[tuple[str, int, bool]] = []

    def look() -> None:
        while not found:
            news = events.announced()
            found.extend(told(events))
            if not found:
                news.sleep()

    thread = threading.Thread(target=look)
    thread.start()
    poll(writer, 0, 1)
    thread.join(DEADLINE_SECONDS)
    assert found == [("BTCUSDT", 1, False)]


def test_frames_are_those_of_a_server() -> None:
    assert _core.frame_text(b"{}", None) == b"\x81\x02{}"
    assert _core.frame_text(b"{}", 'a"b@kline_1m') == b'\x81\x24{"stream":"a\\"b@kline_1m","data":{}}'
    assert _core.frame_text(b"x" * 300, None)[:4] == b"\x81\x7e\x01\x2c"
    name = "币安人生usdt@kline_1m"
    assert json.loads(_core.frame_text(b"{}", name)[2:]) == {"stream": name, "data": {}}


def test_a_collector_by_streams_tells_every_second_once(block_name: str) -> None:
    with (
        SimulatedExchange(symbols=4) as exchange,
        collecting(exchange, block_name, interval="1s", length=60, live="ws", ws_url=exchange.ws_url) as (_, feed),
    ):
        events = _core.KlineEvents(feed)
        for symbol in feed.symbols:
            events.watch(symbol, SPOT)
        finals: dict[str, list[int]] = {symbol: [] for symbol in feed.symbols}
        texts: dict[tuple[str, int], dict[str, Any]] = {}

        def enough() -> bool:
            for symbol, event in events.take():
                candle = json.loads(event)["k"]
                if candle["x"]:
                    finals[symbol].append(candle["t"])
                    texts[symbol, candle["t"]] = candle
            return all(len(times) >= 5 for times in finals.values())

        until(enough)
        for symbol, times in finals.items():
            assert times == list(range(times[0], times[0] + 1000 * len(times), 1000))
            truth = truth_of(exchange, feed, symbol, np.array(times))
            for row in truth:
                candle = texts[symbol, int(row[0])]
                assert [float(candle[key]) for key in "ohlcvqVQ"] == row[[1, 2, 3, 4, 5, 7, 9, 10]].tolist()
