"""Collectors whose first path to the streams is refused, or acknowledges and sends nothing: they find another one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from candleshm.collector.collector import Collector
from candleshm.exchanges import binance
from candleshm.sim import SimulatedExchange, StreamFault, StreamRules
from candleshm.sim.world.universe import Market
from tests.support.collecting import SYMBOLS, assert_true, collecting, status_of, until
from tests.test_stream import settings_of, stream_of


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=8, stream_rules=StreamRules(old_path=True)) as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes seconds."""
    monkeypatch.setattr("candleshm.stream.paths.SILENT_SECONDS", 1.5)
    monkeypatch.setattr("candleshm.stream.paths.FLOWING_SECONDS", 3.0)
    monkeypatch.setattr("candleshm.stream.lane.BARREN_SECONDS", 4.0)
    monkeypatch.setattr("candleshm.stream.lane.REPLACE_SECONDS", 1.0)
    monkeypatch.setattr("candleshm.stream.watchdog.RESUBSCRIBE_SECONDS", 0.2)


def comes_by(collector: Collector, path: str) -> None:
    """Wait until streams come by this path, and bring data."""
    until(lambda: stream_of(collector).path.endswith(path))
    events = stream_of(collector).events
    until(lambda: stream_of(collector).events > events + 20)
    until(lambda: status_of(collector).live == "ws")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log that say by which path streams come."""
    texts = [record.getMessage() for record in caplog.records]
    return [text[text.index("streams of ") :] for text in texts if " come by " in text]


# Market, the faults, the path that is left over, and what the log says of the others.
CASES: dict[str, tuple[Market, list[StreamFault], str, str]] = {
    "CM, the first is mute": (
        "CM",
        [StreamFault(kind="deaf", path="/cm/stream")],
        "/cm/market/stream",
        "/cm/stream acknowledged and sent no data",
    ),
    "CM, the first is gone": (
        "CM",
        [StreamFault(kind="refuse", status=404, path="/cm/stream")],
        "/cm/market/stream",
        "/cm/stream was refused with HTTP 404",
    ),
    "UM, the old path is left": (
        "UM",
        [StreamFault(kind="deaf", path="/um/market")],
        "/um/stream",
        "/um/market/stream acknowledged and sent no data",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_path_without_data_is_left_and_the_log_says_so_once(
    exchange: SimulatedExchange, block_name: str, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    market, faults, path, cause = CASES[case]
    caplog.set_level(logging.INFO)
    exchange.stream_faults.add(*faults)
    settings = settings_of(exchange, market=market, interval="1m", symbols=SYMBOLS[market])
    with collecting(exchange, block_name, **settings) as (collector, feed):
        comes_by(collector, path)
        assert stream_of(collector).path_moves == 1
        assert_true(exchange, feed)
    url = f"{exchange.ws_url_of(market).removesuffix(f'/{market.lower()}')}{path}"
    assert lines(caplog) == [f"streams of {market} come by {url}, because {cause}"]


def test_of_three_paths_on_two_hosts_the_last_is_found(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `ws_url`, where the third is at another host: here at another name of the same exchange."""
    caplog.set_level(logging.INFO)
    at = exchange.ws_url_of("CM").removesuffix("/cm")
    other = at.replace("127.0.0.1", "localhost")
    urls = (f"{at}/cm/stream", f"{at}/cm/market/stream", f"{other}/um/market/stream")
    monkeypatch.setitem(binance.MARKETS, "CM", replace(binance.MARKETS["CM"], host=exchange.base_url, stream_urls=urls))
    exchange.stream_faults.add(
        StreamFault(kind="deaf", path="/cm/stream"), StreamFault(kind="refuse", status=403, path="/cm/market")
    )
    # The pause after a status that may be a ban.
    monkeypatch.setattr("candleshm.stream.dialer.REFUSED_SECONDS", 1.0)
    settings = settings_of(exchange, market="CM", interval="1m", symbols=SYMBOLS["CM"])
    settings |= {"base_url": None, "ws_url": None}
    with collecting(exchange, block_name, **settings) as (collector, feed):
        comes_by(collector, "/um/market/stream")
        assert stream_of(collector).path_moves == 2
        assert_true(exchange, feed)
    assert lines(caplog) == [
        f"streams of CM come by {urls[2]}, because {urls[0]} acknowledged and sent no data "
        f"and {urls[1]} was refused with HTTP 403"
    ]


def test_a_path_that_ends_under_the_connections_that_it_has_is_left(
    exchange: SimulatedExchange, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_of(exchange, market="CM", interval="1m", symbols=SYMBOLS["CM"])
    with collecting(exchange, block_name, **settings) as (collector, feed):
        comes_by(collector, "/cm/stream")
        assert lines(caplog) == []
        exchange.stream_faults.add(StreamFault(kind="lose", path="/cm/stream"))
        comes_by(collector, "/cm/market/stream")
        assert stream_of(collector).path_moves == 1
        assert_true(exchange, feed)
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_halted_symbol_moves_no_path(exchange: SimulatedExchange, block_name: str, count: int) -> None:
    """Neither beside others, nor alone on its connection."""
    symbols = SYMBOLS["CM"][:count]
    settings = settings_of(exchange, market="CM", interval="1m", symbols=symbols)
    with collecting(exchange, block_name, **settings) as (collector, feed):
        comes_by(collector, "/cm/stream")
        opened = stream_of(collector).opened
        exchange.stream_faults.add(StreamFault(kind="lose", symbol=symbols[0]))
        # Another connection is tried for it, and sits there for longer than a path may be mute.
        until(lambda: stream_of(collector).opened > opened)
        until(lambda: stream_of(collector).stalled == (symbols[0],))
        connection = exchange.connections()[-1]
        until(lambda: connection.closed_ms or exchange.now_ms() - connection.opened_ms > 6000)
        assert stream_of(collector).path_moves == 0
        assert_true(exchange, feed)
