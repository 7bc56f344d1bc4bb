"""Kline streams of a gateway: a real collector, a real gateway, and frames compared with the exchange's own candles."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import candleshm
from candleshm import _core
from candleshm.exchanges.base import Market
from candleshm.sim import Outage, SimulatedExchange
from tests.support.collecting import MINUTE, SYMBOLS, collecting, until
from tests.support.commanding import first_line, started
from tests.support.gateways import gateway
from tests.support.klines import START_MS, body_of, kline
from tests.support.streaming import Client, StreamGateway, assert_closes_are_true, streaming

# Of a client that reads candles of a second.
CLOSES = 3


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=3, symbols=8) as running:
        yield running


@pytest.fixture
def spot(exchange: SimulatedExchange, block_name: str) -> Iterator[StreamGateway]:
    """A gateway of SPOT candles of a second."""
    with (
        collecting(exchange, block_name, interval="1s"),
        streaming([block_name]) as served,
    ):
        yield served


def refusal(url: str) -> tuple[int, int, str]:
    """Connect where it is refused, and return status, code and text."""
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    response = refused.value.response
    assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
    told = json.loads(response.body)
    return response.status_code, told["code"], told["msg"]


def seconds_of(exchange: SimulatedExchange, name: str, *more: str, symbols: str = "BTCUSDT,ETHUSDT") -> list[str]:
    """Return the words that serve candles of a second."""
    words = f"serve --market spot --symbols {symbols} --interval 1s --length 300 --name {name}"
    return [*words.split(), "--base-url", exchange.base_url, *more]


def is_ready(name: str, process: subprocess.Popen[str]) -> bool:
    """Return whether this process serves the block, with everything loaded."""
    assert process.poll() is None
    return any(health.name == name and health.pid == process.pid and health.ready for health in candleshm.blocks())


# What is sent


def test_raw_and_combined_events_are_the_exchanges_candles(exchange: SimulatedExchange, spot: StreamGateway) -> None:
    raw = Client(f"{spot.url}/ws/btcusdt@kline_1s")
    combined = Client(f"{spot.url}/stream?streams=btcusdt@kline_1s/ethusdt%40kline_1s")
    with raw, combined:
        for client in (raw, combined):
            client.until_closes("BTCUSDT", CLOSES)
        combined.until_closes("ETHUSDT", CLOSES)
    assert_closes_are_true(exchange, "SPOT", raw.closes("BTCUSDT"))
    assert_closes_are_true(exchange, "SPOT", combined.closes("BTCUSDT"))
    assert_closes_are_true(exchange, "SPOT", combined.closes("ETHUSDT"))
    assert {tuple(message) for message in raw.messages} == {("e", "E", "s", "k")}
    assert {tuple(message) for message in combined.messages} == {("stream", "data")}
    for message in combined.messages:
        assert message["stream"] == f"{message['data']['s'].lower()}@kline_1s"
    for candle in raw.candles("BTCUSDT"):
        assert list(candle) == list("tTsifLochlvnxqVQB")
        assert (candle["i"], candle["f"], candle["L"], candle["B"]) == ("1s", -1, -1, "0")
        final = exchange.truth.kline("SPOT", "BTCUSDT", "1s", candle["t"])
        assert final is not None
        # What is sent before the end is a part of what the candle becomes.
        assert candle["n"] <= final[8]
        assert candle["n"] == 0 or float(candle["h"]) <= float(final[2])
    assert all(abs(message["E"] - exchange.now_ms()) < 10 * MINUTE for message in raw.messages)


@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_the_gateway_streams_what_the_collector_of_a_market_gets_by_streams(market: Market, block_name: str) -> None:
    """The exchange's minute ends soon after the start."""
    symbol = SYMBOLS[market][0]
    path = {"SPOT": "/ws", "UM": "/market/ws", "CM": "/ws"}[market]
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(seed=5, symbols=8))
        exchange.skew_ms = -15_000 - exchange.now_ms() % MINUTE
        ws_url = exchange.ws_url_of(market)
        stack.enter_context(collecting(exchange, block_name, market=market, live="ws", ws_url=ws_url))
        url = stack.enter_context(gateway([block_name], exchange.base_url)).replace("http", "ws")
        client = stack.enter_context(Client(f"{url}{path}/{symbol.lower()}@kline_1m"))
        client.until(lambda: client.closes(symbol) and len(client.candles(symbol)) > 3)
        # With the digits of the exchange's list of symbols.
        assert_closes_are_true(exchange, market, client.closes(symbol))
        # Of a market that the path does not mean there is no such stream.
        other = "/spot/ws" if market != "SPOT" else "/market/ws"
        assert refusal(f"{url}{other}/{symbol.lower()}@kline_1m")[:2] == (503, -1001)


def test_derived_candles_have_streams_of_their_own(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        collecting(exchange, block_name, interval="1h", derive=["4h", "1d@Asia/Shanghai"]) as (collector, _),
        streaming([block_name, *(name for name, *_ in collector.config.derived)]) as served,
    ):
        served.until_known(*(name for name, *_ in collector.config.derived))
        names = ["btcusdt@kline_4h", "btcusdt@kline_4h@+08:00", "btcusdt@kline_1d@+08:00"]
        with Client(f"{served.url}/stream?streams={'/'.join(names)}") as client:
            client.until(lambda: {message["stream"] for message in client.messages} == set(names))
            for message in client.messages:
                assert message["data"]["k"]["i"] == message["stream"].split("@")[1].removeprefix("kline_")
        days = [message["data"]["k"] for message in client.messages if message["stream"] == names[2]]
        assert {candle["t"] % (24 * 60 * MINUTE) for candle in days} == {16 * 60 * MINUTE}
        assert refusal(f"{served.url}/ws/btcusdt@kline_1w@+08:00")[:2] == (503, -1001)


# Subscriptions


def test_subscriptions_change_while_connected(spot: StreamGateway) -> None:
    with Client(f"{spot.url}/ws") as client:
        assert client.ask("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        names = ["btcusdt@kline_1s", "ethusdt@kline_1s"]
        assert client.ask("SUBSCRIBE", *names, id="both") == {"result": None, "id": "both"}
        assert client.ask("LIST_SUBSCRIPTIONS", id=None) == {"result": names, "id": None}
        client.until(lambda: client.candles("BTCUSDT") and client.candles("ETHUSDT"))

        assert client.ask("UNSUBSCRIBE", "btcusdt@kline_1s", "never@kline_1s", id=2)["result"] is None
        client.messages.clear()
        assert client.ask("GET_PROPERTY", "combined", id=3) == {"result": False, "id": 3}
        client.until_closes("ETHUSDT", 2)
        assert not client.candles("BTCUSDT")

        assert client.ask("SET_PROPERTY", "combined", True, id=4) == {"result": None, "id": 4}
        client.messages.clear()
        assert client.ask("GET_PROPERTY", "combined", id=5) == {"result": True, "id": 5}
        client.until(lambda: client.messages)
        assert client.messages[0]["stream"] == "ethusdt@kline_1s"
    assert spot.hub.streams == 0


def test_a_stream_that_is_subscribed_again_says_no_close_twice(
    exchange: SimulatedExchange, spot: StreamGateway
) -> None:
    with Client(f"{spot.url}/ws/btcusdt@kline_1s") as client, Client(f"{spot.url}/ws/btcusdt@kline_1s") as other:
        for number in range(4):
            client.ask("UNSUBSCRIBE", "btcusdt@kline_1s", id=f"u{number}")
            client.ask("SUBSCRIBE", "btcusdt@kline_1s", "ethusdt@kline_1s", id=f"s{number}")
            other.until_closes("BTCUSDT", 1)
        opened = [candle["t"] for candle in client.closes("BTCUSDT")]
    assert len(opened) > 1
    assert opened == sorted(set(opened))
    assert_closes_are_true(exchange, "SPOT", other.closes("BTCUSDT"))


@pytest.mark.parametrize("name", ["btcusdt@trade", "btcusdt@kline_7m", "BTCUSDT@kline_1s", "!miniTicker@arr"])
def test_other_streams_are_refused(spot: StreamGateway, name: str, caplog: pytest.LogCaptureFixture) -> None:
    status, code, text = refusal(f"{spot.url}/ws/{name}")
    assert (status, code) == (400, -1100)
    assert name in text
    assert refusal(f"{spot.url}/stream?streams=btcusdt@kline_1s/{name}") == (status, code, text)
    with Client(f"{spot.url}/ws") as client:
        reply = client.ask("SUBSCRIBE", "btcusdt@kline_1s", name)
        assert reply == {"error": {"code": 2, "msg": f"Invalid request: {text}"}, "id": 1}
        # Of a message that is refused nothing is done.
        assert client.ask("LIST_SUBSCRIPTIONS", id=2)["result"] == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nosuch@kline_1s", "no block of SPOT or CM has NOSUCH 1s"),
        ("btcusdt@kline_5m", "no block of SPOT or CM has BTCUSDT 5m"),
        ("btcusd_perp@kline_1m", "no block of SPOT or CM has BTCUSD_PERP 1m"),
    ],
)
def test_candles_that_no_block_has_are_refused(spot: StreamGateway, name: str, text: str) -> None:
    assert refusal(f"{spot.url}/ws/{name}") == (503, -1001, text)
    with Client(f"{spot.url}/ws") as client:
        assert client.ask("SUBSCRIBE", name)["error"] == {"code": 2, "msg": f"Invalid request: {text}"}


def test_a_path_without_streams_is_refused(spot: StreamGateway) -> None:
    assert refusal(f"{spot.url}/ws-api/v3")[:2] == (404, -1099)


def test_a_connection_has_at_most_1024_streams(spot: StreamGateway) -> None:
    names = [f"s{number}@kline_1s" for number in range(1025)]
    assert refusal(f"{spot.url}/stream?streams={'/'.join(names)}")[:2] == (400, -1100)
    with Client(f"{spot.url}/ws/btcusdt@kline_1s") as client:
        told = client.ask("SUBSCRIBE", *names[:1024])["error"]
        assert told == {"code": 2, "msg": "Invalid request: more than 1024 streams"}
    # The longest URL that is allowed is read.
    assert refusal(f"{spot.url}/stream?streams={'/'.join(names[:1024])}")[2] == "no block of SPOT or CM has S0 1s"


def test_a_symbol_that_is_listed_meanwhile_can_be_subscribed(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        collecting(exchange, block_name, interval="1s", symbols="all", universe_refresh_seconds=1.0) as (_, feed),
        streaming([block_name]) as served,
        Client(f"{served.url}/ws") as client,
    ):
        assert "error" in client.ask("SUBSCRIBE", "freshusdt@kline_1s")
        listed_ms = exchange.now_ms() // MINUTE * MINUTE - 5 * MINUTE
        exchange.truth.enlist(
            replace(exchange.truth.instrument("SPOT", "BTCUSDT"), symbol="FRESHUSDT", base="FRESH", listed_ms=listed_ms)
        )
        until(lambda: "FRESHUSDT" in feed)
        assert client.ask("SUBSCRIBE", "freshusdt@kline_1s", id=2) == {"result": None, "id": 2}
        client.until(lambda: client.closes("FRESHUSDT"))


def test_names_in_any_script_are_found_in_urls_and_in_messages(exchange: SimulatedExchange, block_name: str) -> None:
    symbol = "币安人生USDT"
    path = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@kline_1m"
    with (
        collecting(exchange, block_name, market="UM", symbols=[symbol]),
        streaming([block_name]) as served,
        Client(f"{served.url}/market/ws/{path}") as named,
        Client(f"{served.url}/market/stream?streams={path}") as combined,
        Client(f"{served.url}/um/ws") as told,
    ):
        assert told.ask("SUBSCRIBE", f"{symbol.lower()}@kline_1m")["result"] is None
        for client in (named, combined, told):
            client.until_candles(symbol)
        assert combined.messages[0]["stream"] == f"{symbol.lower()}@kline_1m"
        assert told.ask("LIST_SUBSCRIPTIONS", id=2)["result"] == [f"{symbol.lower()}@kline_1m"]


# What happens to collectors


def test_every_candle_closes_once_whatever_happens_to_the_collector(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with streaming([block_name], max_age_seconds=60.0) as served, ExitStack() as stack:
        with started(*seconds_of(exchange, block_name)) as first:
            until(lambda: is_ready(block_name, first))
            served.until_known(block_name)
            client = stack.enter_context(Client(f"{served.url}/ws/btcusdt@kline_1s"))
            client.until_closes("BTCUSDT", CLOSES)
            first.kill()
            first.wait()
        with started(*seconds_of(exchange, block_name)) as second:
            until(lambda: is_ready(block_name, second))
            client.until_closes("BTCUSDT", CLOSES)
            second.terminate()
            second.wait()
            # Who is connected waits; who is not comes again.
            until(lambda: block_name not in served.directory.feeds)
            assert refusal(f"{served.url}/ws/ethusdt@kline_1s")[:2] == (503, -1001)
        # Another shape: more symbols, another window.
        with started(*seconds_of(exchange, block_name, symbols="ADAUSDT,BTCUSDT,ETHUSDT,XRPUSDT")) as third:
            until(lambda: is_ready(block_name, third))
            client.until_closes("BTCUSDT", CLOSES)
            ids = itertools.count(2)
            until(lambda: "result" in client.ask("SUBSCRIBE", "adausdt@kline_1s", id=next(ids)))
            client.until(lambda: client.closes("ADAUSDT"))
    assert_closes_are_true(exchange, "SPOT", client.closes("BTCUSDT"))


def test_holes_are_passed_over(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        collecting(exchange, block_name, interval="1s"),
        streaming([block_name], max_age_seconds=60.0) as served,
        Client(f"{served.url}/ws/btcusdt@kline_1s") as client,
    ):
        client.until_closes("BTCUSDT", CLOSES)
        start_ms = exchange.now_ms() // 1000 * 1000 + 2000
        exchange.truth.add_outage(Outage(start_ms=start_ms, end_ms=start_ms + 3000))
        client.until(lambda: client.closes("BTCUSDT")[-1]["t"] > start_ms + 5000)
    # The exchange's own candles of the minute in which it broke down are others now.
    closed_ms = [candle["t"] for candle in client.closes("BTCUSDT") if candle["t"] > start_ms]
    true = exchange.truth.klines("SPOT", "BTCUSDT", "1s", start_ms, closed_ms[-1] + 1)
    assert closed_ms == [row[0] for row in true]
    assert closed_ms[0] == start_ms + 3000


def test_closes_wait_for_a_row_that_is_missing(block_name: str) -> None:
    """A close is not sent before the one before it; what is live goes on."""
    start_ms = START_MS

    def fetched(*places: int, at: int) -> None:
        """Merge the rows of these minutes, as of the beginning of minute `at`."""
        rows = [kline(start_ms + place * MINUTE, 100.0 + place) for place in places]
        sent_ms = start_ms + at * MINUTE + 1
        writer.ingest(
            "BTCUSDT",
            body_of(*rows),
            sent_ms=sent_ms,
            received_ms=sent_ms,
            settle_ms=0,
            limit=len(rows),
            start_ms=start_ms + places[0] * MINUTE,
            end_ms=start_ms + (places[-1] + 1) * MINUTE - 1,
        )

    def minutes() -> list[int]:
        return [(candle["t"] - start_ms) // MINUTE for candle in client.closes("BTCUSDT")]

    opened = _core.Writer.open(block_name, market="SPOT", interval="1m", length=60, symbols=["BTCUSDT"])
    with closing(opened) as writer:
        fetched(0, 1, 2, at=2)
        with (
            streaming([block_name], max_age_seconds=math.inf) as served,
            Client(f"{served.url}/ws/btcusdt@kline_1m") as client,
        ):
            client.until_candles("BTCUSDT")
            fetched(2, 3, at=3)
            client.until(lambda: minutes() == [2])
            # Minutes 4 and 5 are not there.
            fetched(6, 7, at=7)
            fetched(7, 8, at=8)
            client.until(lambda: client.candles("BTCUSDT")[-1]["t"] == start_ms + 8 * MINUTE)
            assert minutes() in ([2], [2, 3])
            fetched(3, 4, 5, at=8)
            client.until(lambda: len(minutes()) > 5)
    assert minutes() == [2, 3, 4, 5, 6, 7]


def test_clients_of_a_block_that_is_stale_are_closed(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming([block_name], max_age_seconds=3.0) as served:
        with started(*seconds_of(exchange, block_name)) as collector:
            until(lambda: is_ready(block_name, collector))
            served.until_known(block_name)
            client = Client(f"{served.url}/ws/btcusdt@kline_1s")
            idle = Client(f"{served.url}/ws")
            client.until(lambda: client.closes("BTCUSDT"))
            collector.kill()
            collector.wait()
        code, reason = client.until_closed()
        assert (code, reason.partition(" by ")[0]) == (1012, "stale")
        assert block_name in reason
        status, code, text = refusal(f"{served.url}/ws/btcusdt@kline_1s")
        assert (status, code) == (503, -1001)
        assert "stale" in text
        # Whoever has no stream of it stays.
        assert "stale" in idle.ask("SUBSCRIBE", "btcusdt@kline_1s")["error"]["msg"]
        with started(*seconds_of(exchange, block_name)) as collector:
            until(lambda: is_ready(block_name, collector))
            served.until_known(block_name)
            with idle, Client(f"{served.url}/ws/btcusdt@kline_1s") as again:
                assert idle.ask("SUBSCRIBE", "btcusdt@kline_1s", id=2)["result"] is None
                for client in (idle, again):
                    client.until_closes("BTCUSDT", 1)
        assert served.hub.counts.closed == {1012: 1}


def test_clients_of_a_block_that_becomes_another_one_are_closed(exchange: SimulatedExchange, block_name: str) -> None:
    with streaming([block_name], max_age_seconds=60.0) as served:
        with started(*seconds_of(exchange, block_name)) as collector:
            until(lambda: is_ready(block_name, collector))
            served.until_known(block_name)
            client = Client(f"{served.url}/ws/btcusdt@kline_1s")
            client.until_closes("BTCUSDT", 1)
            collector.terminate()
            collector.wait()
        with started(*seconds_of(exchange, block_name, "--interval", "1m")):
            assert client.until_closed() == (1012, f"block `{block_name}`: it is no longer SPOT 1s")
    assert {candle["i"] for candle in client.candles("BTCUSDT")} == {"1s"}


def test_the_command_streams_and_ends_in_order(exchange: SimulatedExchange, block_name: str) -> None:
    words = ["gateway", "--listen", "127.0.0.1:0", "--block", block_name, "--base-url", exchange.base_url]
    with collecting(exchange, block_name, interval="1s"), started(*words, stderr=None) as process:
        url = first_line(process).split()[-1].replace("http", "ws")
        client = Client(f"{url}/ws/btcusdt@kline_1s")
        client.until_closes("BTCUSDT", CLOSES)
        process.terminate()
        assert client.until_closed() == (1001, "the gateway stops")
        assert process.wait() == 0
    assert_closes_are_true(exchange, "SPOT", client.closes("BTCUSDT"))
