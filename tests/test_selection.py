"""A collector that collects a changing part of its symbols, as one of several that share a feed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.selection import Selection
from candleshm.sim import SimulatedExchange
from tests.support.collecting import (
    DEADLINE_SECONDS,
    assert_complete_and_true,
    close_seconds,
    config_of,
    klines,
    status_of,
    until,
)

if TYPE_CHECKING:
    from candleshm._core import Writer

FIRST, *OTHERS = ["BTCUSDT", "ETHUSDT", "SUSHIBTC"]
# Listed, and not configured.
FOREIGN = "BNBUSDT"


class Sharing:
    """A membership that takes part in nothing: the test says what is selected."""

    def __init__(self) -> None:
        self.selection = Selection(everything=False)
        self.writers: list[Writer] = []

    @contextmanager
    def serving(self, writer: Writer, _status: object) -> Iterator[None]:
        """Keep the writer for the test."""
        self.writers.append(writer)
        yield
        self.writers.pop()


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture(params=["rest", "ws"])
def sharing(request: pytest.FixtureRequest, exchange: SimulatedExchange, block_name: str) -> Iterator[Sharing]:
    sharing = Sharing()
    config = config_of(
        exchange, block_name, interval="1s", live=request.param, ws_url=exchange.ws_url, update_interval_seconds=0.3
    )
    with Collector(config, membership=sharing) as collector:
        sharing.collector = collector  # type: ignore[attr-defined]
        yield sharing
    assert not sharing.writers


def collector_of(sharing: Sharing) -> Collector:
    collector = sharing.collector  # type: ignore[attr-defined]
    assert isinstance(collector, Collector)
    return collector


def test_nothing_is_requested_while_nothing_is_selected(sharing: Sharing, exchange: SimulatedExchange) -> None:
    at_start = len(exchange.served())
    beat = candleshm.attach(collector_of(sharing).config.block_name)
    with beat as feed:
        time.sleep(3.0)
        assert feed.health.heartbeat_age < 2.0
        assert not feed.health.ready
    assert len(exchange.served()) == at_start
    assert not klines(exchange)
    assert not status_of(collector_of(sharing)).is_loaded


def test_symbols_move_between_hosts(sharing: Sharing, exchange: SimulatedExchange) -> None:
    collector, selection = collector_of(sharing), sharing.selection
    selection.choose(lambda symbol: symbol == FIRST)
    with candleshm.attach(collector.config.block_name) as feed:
        until(lambda: not feed[FIRST].gaps() and status_of(collector).loaded == 1)
        assert {parameters["symbol"] for _, parameters in klines(exchange)} == {FIRST}
        # The others have not come from elsewhere yet.
        assert not status_of(collector).is_loaded
        selection.choose(lambda _: True)
        selection.is_complete = True
        assert collector.wait_loaded(DEADLINE_SECONDS)
        close_seconds(feed, 2)
        assert_complete_and_true(exchange, feed)
        selection.choose(lambda symbol: symbol in OTHERS)
        until(lambda: status_of(collector).symbols == len(OTHERS))
        close_seconds(feed, 1, OTHERS)
        newest_ms, before = feed[FIRST].last_open_time_ms, len(klines(exchange))
        close_seconds(feed, 3, OTHERS)
        assert FIRST not in {parameters["symbol"] for _, parameters in klines(exchange)[before:]}
        assert (feed[FIRST].last_open_time_ms or 0) <= (newest_ms or 0) + 1000
        # It is collected again, with the rows that are there, and without a hole.
        selection.choose(lambda _: True)
        until(lambda: (feed[FIRST].last_open_time_ms or 0) > (newest_ms or 0) + 3000 and not feed[FIRST].gaps())
        close_seconds(feed, 1)
        assert_complete_and_true(exchange, feed)


def test_a_symbol_that_another_host_has_gets_a_place(sharing: Sharing) -> None:
    collector = collector_of(sharing)
    sharing.selection.carry(["NEWUSDT"])
    until(lambda: sharing.writers and "NEWUSDT" in sharing.writers[0].symbols)
    with candleshm.attach(collector.config.block_name) as feed:
        until(lambda: "NEWUSDT" in feed.symbols)
        # Neither requested nor called delisted by a host that does not collect it.
        assert status_of(collector).not_trading == ()


def test_a_symbol_that_only_other_hosts_serve_is_not_ended(sharing: Sharing, exchange: SimulatedExchange) -> None:
    collector, selection = collector_of(sharing), sharing.selection
    selection.carry([FOREIGN])
    assert FOREIGN not in collector.config.symbols
    with candleshm.attach(collector.config.block_name) as feed:
        until(lambda: FOREIGN in feed)
        selection.choose(lambda _symbol: True)
        until(lambda: status_of(collector).is_loaded or status_of(collector).loaded == len(collector.config.symbols))
        close_seconds(feed, 2, [FIRST, *OTHERS])
        assert not status_of(collector).not_trading
        judged = [(selection.lacks(symbol), selection.serves(symbol)) for symbol in (FOREIGN, FIRST)]
        assert judged == [(True, False), (False, True)]
    assert FOREIGN not in {parameters["symbol"] for _, parameters in klines(exchange)}
