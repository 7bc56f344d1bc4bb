"""Calls that people look for in the library, and what those say that it does not have: on blocks of a real writer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import _core
from tests.test_panel import LENGTH, SYMBOLS, load


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
