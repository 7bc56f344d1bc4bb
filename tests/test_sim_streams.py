"""The simulated exchange's stream side, over real sockets with the `websockets` client: events, rules and faults."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.uri import parse_uri

from candleshm.sim import (
    Market,
    Recording,
    Restatement,
    SimulatedExchange,
    StreamConnection,
    StreamFault,
    StreamRules,
    Truth,
)
from candleshm.sim.world.text import encode_events

DATA = Path(__file__).parent / "data" / "streams"
MINUTE = 60_000
# The exchange's time at which tests begin, and the end of the minute, to which `to_close` moves on.
END = 1_773_232_500_000
NOW = END - 20_000
PATIENCE_SECONDS = 20.0
EVERY = ("SPOT", "UM", "CM")


def rules(period_ms: int = 50, **changes: Any) -> StreamRules:
    """Return rules under which a test sees much in a short time."""
    periods: dict[Market, int] = {"SPOT": period_ms, "UM": period_ms, "CM": period_ms}
    settings: dict[str, Any] = {"period_ms": periods, "unchanged": dict.fromkeys(EVERY, True), "close_late_ms": 500}
    return StreamRules(**(settings | changes))


class Clock:
    """Real time, moved to where a test wants it."""

    def __init__(self, start_ms: int) -> None:
        self.shift_ms = start_ms - time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.shift_ms


@contextmanager
def exchange_at(start_ms: int = NOW, **options: Any) -> Iterator[SimulatedExchange]:
    settings: dict[str, Any] = {"seed": 7, "symbols": 8, "stream_rules": rules()} | options
    with SimulatedExchange(clock_ms=Clock(start_ms), **settings) as exchange:
        yield exchange


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with exchange_at() as running:
        yield running


@contextmanager
def open_stream(url: str, **options: Any) -> Iterator[ClientConnection]:
    # Without a bound on what waits to be read, closing need not wait for it either.
    settings: dict[str, Any] = {"compression": None, "open_timeout": PATIENCE_SECONDS, "max_queue": None} | options
    with connect(url, **settings) as client:
        yield client


def to_close(exchange: SimulatedExchange) -> None:
    """Put the exchange's clock to just before the minute's end."""
    exchange.skew_ms += END - 200 - exchange.now_ms()


def refusal(url: str) -> int:
    """Return the HTTP status that a handshake gets instead of a connection."""
    with pytest.raises(InvalidStatus) as refused, open_stream(url):
        pass
    return refused.value.response.status_code


def receive(client: ClientConnection) -> Any:
    return json.loads(client.recv(PATIENCE_SECONDS))


def event(client: ClientConnection) -> dict[str, Any]:
    """Return the next kline event, out of its wrapper if it has one."""
    while True:
        message = receive(client)
        data: dict[str, Any] = message.get("data", message)
        if data.get("e") == "kline":
            return data


def events_until(client: ClientConnection, enough: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return events up to the one that is enough."""
    events = [event(client)]
    while not enough(events[-1]):
        events.append(event(client))
    return events


def ask(client: ClientConnection, text: str) -> Any:
    """Send a control message and return its answer, passing over events."""
    client.send(text)
    while True:
        message = receive(client)
        if "e" not in message and "stream" not in message:
            return message


def row(candle: dict[str, Any]) -> list[Any]:
    """Return an event's candle as REST's row."""
    return [candle[name] for name in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")]


def silent(client: ClientConnection, seconds: float = 0.4) -> bool:
    """Say whether no event comes while others would."""
    try:
        client.recv(seconds)
    except TimeoutError:
        return True
    return False


def ended(exchange: SimulatedExchange, number: int = 1) -> StreamConnection:
    """Return a connection's record once the exchange knows of its end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        records = exchange.connections()[number - 1 :]
        if records and records[0].closed_ms is not None:
            return records[0]
        time.sleep(0.01)
    raise AssertionError(f"not there or still open: {records}")


def drained(client: ClientConnection) -> tuple[int, str]:
    """Read until the server closes, and return how: code and reason."""
    try:
        while True:
            client.recv(PATIENCE_SECONDS)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


def subscribing(*names: str, method: str = "SUBSCRIBE", number: object = 1) -> str:
    return json.dumps({"method": method, "params": names, "id": number})


# Events


@pytest.mark.parametrize(
    ("market", "path", "name", "symbol"),
    [
        ("SPOT", "/stream?streams=", "btcusdt@kline_1m", "BTCUSDT"),
        ("SPOT", "/ws/", "sushibtc@kline_5m", "SUSHIBTC"),
        ("UM", "/market/stream?streams=", "ethusdt@kline_1h", "ETHUSDT"),
        ("UM", "/market/ws/", "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@kline_1m", "币安人生USDT"),
        ("CM", "/stream?streams=", "btcusd_perp@kline_15m", "BTCUSD_PERP"),
    ],
)
def test_an_event_holds_what_is_true_at_its_time(market: Market, path: str, name: str, symbol: str) -> None:
    truth = Truth(seed=7, symbols=30, late_ms=0, as_of_ms=NOW)
    interval = name.rpartition("_")[2]
    with (
        exchange_at(truth=truth) as exchange,
        open_stream(exchange.ws_url + path + name) as client,
    ):
        raw = receive(client)
        if "stream" in path:
            assert set(raw) == {"stream", "data"}
            assert raw["stream"] == name
        events = [event(client) for _ in range(5)]
    for told in events:
        assert list(told) == ["e", "E", "s", "k"]
        assert set(told["k"]) == set("tTsifLochlvnxqVQB")
        assert (told["s"], told["k"]["s"], told["k"]["i"], told["k"]["x"]) == (symbol, symbol, interval, False)
        assert row(told["k"]) == truth.live(market, symbol, interval, told["E"])


def test_rest_follows_the_stream_late_ms_behind() -> None:
    truth = Truth(seed=7, symbols=2, late_ms=700, as_of_ms=NOW)
    with (
        exchange_at(truth=truth) as exchange,
        open_stream(f"{exchange.ws_url}/market/ws/btcusdt@kline_1m") as client,
    ):
        events = [event(client) for _ in range(20)]
    for told in events:
        assert row(told["k"]) == truth.live("UM", "BTCUSDT", "1m", told["E"] + 700)
    assert any(row(told["k"]) != truth.live("UM", "BTCUSDT", "1m", told["E"]) for told in events)


@pytest.mark.parametrize("market", EVERY)
def test_closes_come_late_and_unequal_with_final_rows_and_unbroken_ids(market: Market) -> None:
    with exchange_at() as exchange:
        symbols = [item.symbol for item in exchange.truth.instruments(market) if item.status == "TRADING"]
        names = [f"{symbol.lower()}@kline_1m" for symbol in symbols if symbol.isascii()]
        closes: dict[str, dict[str, Any]] = {}
        latest: dict[str, dict[str, Any]] = {}
        turned: set[str] = set()
        with open_stream(f"{exchange.ws_url_of(market)}{'/market' if market == 'UM' else ''}/stream") as client:
            client.send(subscribing(*names))
            while len(turned) < len(names):
                told = event(client)
                symbol, candle = told["s"], told["k"]
                assert candle["n"] == (candle["L"] - candle["f"] + 1 if candle["f"] >= 0 else 0)
                before = latest.get(symbol)
                if before is not None and before["t"] == candle["t"]:
                    assert candle["n"] >= before["n"], "values of a candle only grow"
                    assert not before["x"], "nothing of a candle comes after its close"
                elif before is not None:
                    assert before["x"], "the next candle waits for the close"
                    if before["n"] and candle["n"]:
                        assert candle["f"] == before["L"] + 1
                    turned.add(symbol)
                if candle["x"]:
                    closes[symbol] = told
                latest[symbol] = candle
                if len(latest) == len(names) and exchange.skew_ms == 0:
                    to_close(exchange)
        for symbol, told in closes.items():
            assert row(told["k"]) == exchange.truth.kline(market, symbol, "1m", told["k"]["t"])
            assert 1 <= told["E"] - told["k"]["T"] <= 501
        assert len({told["E"] for told in closes.values()}) > len(closes) // 2


def test_the_lateness_of_closes_follows_the_seed() -> None:
    names = "/".join(f"{base}usdt@kline_1s" for base in ("btc", "eth", "bnb", "sol"))
    with ExitStack() as stack:
        exchanges = [stack.enter_context(exchange_at(seed=seed)) for seed in (1, 1, 2)]
        clients = [stack.enter_context(open_stream(f"{one.ws_url}/stream?streams={names}")) for one in exchanges]
        target_ms = max(one.now_ms() for one in exchanges) // 1000 * 1000
        late: list[dict[str, int]] = [{}, {}, {}]
        for client, moments in zip(clients, late, strict=True):
            while len(moments) < 4:
                told = event(client)
                if told["k"]["t"] == target_ms and told["k"]["x"]:
                    moments[told["s"]] = told["E"] - told["k"]["T"]
    assert late[0] == late[1] != late[2]
    assert len(set(late[0].values())) > 1


def test_event_rates_are_the_exchanges_own() -> None:
    with exchange_at(stream_rules=StreamRules()) as exchange:
        paths = ("/ws/btcusdt@kline_1m", "/ws/sushibtc@kline_1s", "/market/ws/btcusdt@kline_1m")
        with ExitStack() as stack:
            clients = [stack.enter_context(open_stream(exchange.ws_url + path)) for path in paths]
            spot, second, um = ([event(client) for _ in range(3)] for client in clients)
    assert [after["E"] - before["E"] for before, after in pairwise(spot)] == [2000] * 2
    assert [told["k"]["x"] for told in second] == [True] * 3
    assert [after["k"]["t"] - before["k"]["t"] for before, after in pairwise(second)] == [1000] * 2
    assert all((after["E"] - before["E"]) % 250 == 0 for before, after in pairwise(um))
    assert all(after["k"]["n"] > before["k"]["n"] for before, after in pairwise(um))


@pytest.mark.parametrize(("market", "path"), [("SPOT", "/ws"), ("UM", "/market/ws")])
def test_a_candle_without_a_trade_is_pushed_flat(market: Market, path: str) -> None:
    truth = Truth(seed=7, symbols=1, as_of_ms=NOW)
    truth.enlist(replace(truth.instrument(market, "BTCUSDT"), quiet=1.0))
    changed_only = rules(50, unchanged=dict.fromkeys(EVERY, False))
    with (
        exchange_at(truth=truth, stream_rules=changed_only) as exchange,
        open_stream(f"{exchange.ws_url}{path}/btcusdt@kline_1m") as client,
    ):
        told = [event(client)]
        to_close(exchange)
        told += events_until(client, lambda told: bool(told["k"]["t"] == END))
    assert [one["k"]["x"] for one in told] == [False, True, False]
    for one in told:
        candle = one["k"]
        assert (candle["n"], candle["f"], candle["L"]) == (0, -1, -1)
        assert candle["o"] == candle["h"] == candle["l"] == candle["c"]
    assert row(told[1]["k"]) == truth.kline(market, "BTCUSDT", "1m", told[1]["k"]["t"])


@pytest.mark.parametrize("interval", ["1s", "1m", "3m", "1h", "4h", "1d", "3d", "1w", "1M"])
@pytest.mark.parametrize("symbol", ["BTCUSDT", "SUSHIBTC"])
def test_growth_ends_in_the_final_candle_and_ids_go_on(interval: str, symbol: str) -> None:
    truth = Truth(seed=7, symbols=30, as_of_ms=NOW)
    grid, instrument = truth.grid("SPOT", symbol, interval), truth.instrument("SPOT", symbol)
    open_ms = grid.floor(NOW - 40 * 86_400_000)
    end_ms = grid.shift(open_ms, 1)
    growth = truth.growth("SPOT", symbol, grid, (end_ms - 1) // MINUTE * MINUTE)
    after = truth.growth("SPOT", symbol, grid, end_ms // MINUTE * MINUTE)
    assert growth is not None
    assert after is not None
    moment = (end_ms - 1) % MINUTE // 125
    last = slice(moment, moment + 1)
    text = encode_events(instrument, interval, growth.candles[:, last], growth.close_ms[last], growth.first_ids[last])[
        0
    ]
    candle = json.loads(text)
    assert row(candle) == truth.kline("SPOT", symbol, interval, open_ms)
    next_first = after.first_ids[end_ms % MINUTE // 125]
    assert next_first == growth.first_ids[moment] + candle["n"]
    trades = growth.candles[8 - 1]
    assert interval == "1s" or np.all(np.diff(trades) >= 0)


def test_spot_days_may_begin_at_eight_hours_east(exchange: SimulatedExchange) -> None:
    with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1d@+08:00") as client:
        candle = event(client)["k"]
    assert candle["t"] % 86_400_000 == 16 * 3_600_000
    answer = requests.get(
        f"{exchange.base_url}/api/v3/klines",
        params={"symbol": "BTCUSDT", "interval": "1d", "timeZone": "8", "limit": "1"},
        timeout=10,
    )
    assert answer.json()[0][0] == candle["t"]


def test_the_world_changes_under_a_stream(exchange: SimulatedExchange) -> None:
    quarter = NOW // 900_000 * 900_000
    with open_stream(f"{exchange.ws_url}/stream?streams=btcusdt@kline_15m/ethusdt@kline_1m") as client:
        trades = next(told["k"]["n"] for told in iter(lambda: event(client), None) if told["s"] == "BTCUSDT")
        exchange.truth.restate(Restatement(market="SPOT", symbol="BTCUSDT", minute_ms=quarter, lots=3))
        exchange.truth.delist("SPOT", "ETHUSDT", quarter)
        restated = exchange.truth.live("SPOT", "BTCUSDT", "15m", exchange.now_ms())
        assert restated is not None
        events_until(client, lambda told: told["s"] == "BTCUSDT" and told["k"]["n"] > trades)
        told = [event(client) for _ in range(8)]
    assert {one["s"] for one in told} == {"BTCUSDT"}


def test_a_clock_put_back_or_forth_does_not_stop_the_streams(exchange: SimulatedExchange) -> None:
    with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
        event(client)
        for skew_ms in (-43_000, 7_200_000, 0):
            exchange.skew_ms = skew_ms
            minute_ms = exchange.now_ms() // MINUTE * MINUTE
            while not minute_ms <= event(client)["k"]["t"] <= minute_ms + MINUTE:
                pass


def test_what_was_missed_is_replaced_by_what_is_true_now(exchange: SimulatedExchange) -> None:
    with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
        before_ms = event(client)["E"]
        exchange.skew_ms += 12_000
        while event(client)["E"] < before_ms + 12_000:
            pass
    skipped = [moment for moment in sent(exchange) if before_ms + 5_000 < moment < before_ms + 11_000]
    assert skipped == []


# Addresses and names


@pytest.mark.parametrize(
    ("host", "path", "pushed"),
    [
        (None, "/ws/btcusdt@kline_1m", True),
        (None, "/stream?streams=btcusd_perp@kline_1m", True),
        (None, "/market/ws/btcusdt@kline_1m", True),
        (None, "/market/stream?streams=btcusd_perp@kline_1m", True),
        ("SPOT", "/ws/btcusdt@kline_1s", True),
        ("SPOT", "/ws/btcusd_perp@kline_1m", False),
        ("UM", "/market/ws/btcusdt@kline_1m", True),
        ("UM", "/ws/btcusdt@kline_1m", False),
        ("UM", "/stream?streams=btcusdt@kline_1m", False),
        ("UM", "/public/stream?streams=btcusdt@kline_1m", False),
        ("UM", "/market/ws/btcusdt@kline_1s", False),
        ("CM", "/ws/btcusd_perp@kline_1m", True),
        ("CM", "/ws/btcusdt@kline_1m", True),
        ("CM", "/market/stream?streams=btcusd_perp@kline_1m", True),
        ("CM", "/market/ws/btcusdt@kline_1m", True),
        ("UM", "/market/stream?streams=btcusd_perp@kline_1m", True),
        ("UM", "/private/ws/btcusdt@kline_1m", False),
        (None, "/ws/BTCUSDT@kline_1m", False),
        (None, "/ws/nobodyusdt@kline_1m", False),
        (None, "/ws/btcusdt@kline_7m", False),
        (None, "/ws/btcusdt@trade", False),
    ],
)
def test_which_names_are_pushed_where(host: Market | None, path: str, pushed: bool) -> None:  # noqa: FBT001
    with exchange_at() as exchange:
        url = exchange.ws_url if host is None else exchange.ws_url_of(host)
        with open_stream(url + path) as client:
            if pushed:
                event(client)
            else:
                assert silent(client)
            record = exchange.connections()[0]
            assert (record.status, len(record.streams)) == (101, 1), "every name is taken"


@pytest.mark.parametrize(
    "path", ["/", "/streams", "/stream/x", "/spot/market/ws", "/cm/public/stream", "/um/nowhere/ws"]
)
def test_other_paths_are_not_found(exchange: SimulatedExchange, path: str) -> None:
    assert refusal(exchange.ws_url + path) == 404


# The paths to the candles of each market, with the name of one of its streams.
PATHS: list[tuple[Market, str, str]] = [
    ("SPOT", "/spot/stream", "btcusdt@kline_1m"),
    ("UM", "/um/market/stream", "btcusdt@kline_1m"),
    ("UM", "/um/stream", "btcusdt@kline_1m"),
    ("CM", "/cm/stream", "btcusd_perp@kline_1m"),
    ("CM", "/cm/market/stream", "btcusd_perp@kline_1m"),
    ("CM", "/um/market/stream", "btcusd_perp@kline_1m"),
]


@pytest.mark.parametrize(("market", "path", "name"), PATHS)
def test_a_market_has_its_candles_by_each_of_its_paths(market: Market, path: str, name: str) -> None:
    truth = Truth(seed=7, symbols=8, late_ms=0, as_of_ms=NOW)
    symbol = name.split("@")[0].upper()
    with (
        exchange_at(truth=truth, stream_rules=rules(old_path=True)) as exchange,
        open_stream(f"{exchange.ws_url}{path}?streams={name}") as client,
    ):
        told = event(client)
        assert told["s"] == symbol
        assert row(told["k"]) == truth.live(market, symbol, "1m", told["E"])


FAILURES = [{"kind": "deaf"}, *({"kind": "refuse", "status": status} for status in (200, 403, 404, 429, 451))]


@pytest.mark.parametrize("path", dict.fromkeys(path for _, path, _ in PATHS))
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure['kind']} {failure.get('status', '')}")
def test_each_path_can_fail_alone(path: str, failure: dict[str, Any]) -> None:
    with exchange_at(stream_rules=rules(old_path=True)) as exchange:
        exchange.stream_faults.add(StreamFault(path=path, **failure))
        for _, other, name in PATHS:
            if other == path and failure["kind"] == "refuse":
                assert refusal(f"{exchange.ws_url}{other}?streams={name}") == failure["status"]
                continue
            with open_stream(f"{exchange.ws_url}{other}") as client:
                assert ask(client, subscribing(name)) == {"result": None, "id": 1}
                if other == path:
                    assert silent(client)
                else:
                    event(client)


def test_a_path_can_end_under_the_connections_that_it_has(exchange: SimulatedExchange) -> None:
    with (
        open_stream(f"{exchange.ws_url}/cm/stream?streams=btcusd_perp@kline_1m") as old,
        open_stream(f"{exchange.ws_url}/cm/market/stream?streams=btcusd_perp@kline_1m") as new,
    ):
        event(old)
        exchange.stream_faults.add(StreamFault(kind="lose", path="/cm/stream"))
        while not any(one.fault == "lose" for one in exchange.pushed()):
            event(new)
        first, _ = (record.events for record in exchange.connections())
        for _ in range(10):
            event(new)
        assert exchange.connections()[0].events == first
        exchange.stream_faults.clear()
        while exchange.connections()[0].events == first:
            event(old)


def test_long_addresses_are_taken(exchange: SimulatedExchange) -> None:
    names = "/".join(f"nobody{number:04d}usdt@kline_1m" for number in range(500))
    with open_stream(f"{exchange.ws_url}/stream?streams={names}/btcusdt@kline_1m") as client:
        assert event(client)["s"] == "BTCUSDT"


# Control messages


def test_subscriptions_come_and_go(exchange: SimulatedExchange) -> None:
    with open_stream(f"{exchange.ws_url}/ws") as client:
        assert ask(client, subscribing("btcusdt@kline_1m", "nobody@kline_1m")) == {"result": None, "id": 1}
        assert event(client)["s"] == "BTCUSDT"
        listed = ask(client, '{"method":"LIST_SUBSCRIPTIONS","id":"three"}')
        assert listed == {"result": ["btcusdt@kline_1m", "nobody@kline_1m"], "id": "three"}
        assert ask(client, subscribing("btcusdt@kline_1m", method="UNSUBSCRIBE", number=None))["id"] is None
        assert silent(client)


def test_properties_switch_the_wrapper(exchange: SimulatedExchange) -> None:
    with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
        assert ask(client, '{"method":"GET_PROPERTY","params":["combined"],"id":1}') == {"result": False, "id": 1}
        assert "k" in receive(client)
        assert ask(client, '{"method":"SET_PROPERTY","params":["combined",true],"id":2}') == {"result": None, "id": 2}
        assert receive(client)["stream"] == "btcusdt@kline_1m"
        assert ask(client, '{"method":"GET_PROPERTY","params":["combined"],"id":3}') == {"result": True, "id": 3}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"method":"GET_PROPERTY","params":["other"],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1),
        ('{"method":"SET_PROPERTY","params":[true],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":"btcusdt@kline_1m","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2),
        ('{"method":"DANCE","id":1}', 2),
        ('{"id":1}', 2),
        ("[]", 2),
        (json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": "x" * 37}), 2),
        (json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 2**63}), 2),
        (json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1.5}), 2),
        ("{", 3),
    ],
)
def test_wrong_messages_get_an_error_and_nothing_ends(exchange: SimulatedExchange, text: str, code: int) -> None:
    with open_stream(f"{exchange.ws_url}/ws") as client:
        error = ask(client, text)
        assert error["code"] == code
        assert error["msg"]
        assert ask(client, subscribing("btcusdt@kline_1m", number=-9)) == {"result": None, "id": -9}


# Rules


def test_more_messages_than_allowed_end_the_connection() -> None:
    with exchange_at() as exchange:
        with open_stream(f"{exchange.ws_url_of('CM')}/ws") as patient:
            for number in range(10):
                assert ask(patient, json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))["id"] == number
        with open_stream(f"{exchange.ws_url_of('SPOT')}/ws") as hasty:
            for number in range(6):
                hasty.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            assert drained(hasty) == (1008, "Too many requests")
        assert ended(exchange, 2).messages == 6


def test_pings_get_pongs_and_are_counted() -> None:
    waits = rules(ping_ms=dict.fromkeys(EVERY, 250), pong_ms=dict.fromkeys(EVERY, 1000))
    with exchange_at(stream_rules=waits) as exchange:
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
            while exchange.connections()[0].pongs < 6:
                event(client)
        record = ended(exchange)
    assert record.messages == record.pongs
    assert record.code == 1000


class Deaf:
    """A client that reads and never answers: no pong, no close. The protocol is the library's, the socket its own."""

    def __init__(self, url: str) -> None:
        self.protocol = ClientProtocol(parse_uri(url))
        host, port = url.removeprefix("ws://").split("/")[0].split(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        self.protocol.send_request(self.protocol.connect())
        self.socket.sendall(b"".join(self.protocol.data_to_send()))

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the end of the connection. Raises ConnectionResetError."""
        with self.socket:
            while data := self.socket.recv(65_536):
                self.protocol.receive_data(data)
                yield from (frame for frame in self.protocol.events_received() if isinstance(frame, Frame))


def test_without_a_pong_the_connection_ends() -> None:
    waits = rules(ping_ms=dict.fromkeys(EVERY, 100), pong_ms=dict.fromkeys(EVERY, 250))
    with exchange_at(stream_rules=waits) as exchange:
        frames = list(Deaf(f"{exchange.ws_url}/ws").frames())
        record = ended(exchange)
    kinds = [frame.opcode for frame in frames]
    assert kinds.count(Opcode.PING) >= 2
    assert kinds[-1] is Opcode.CLOSE
    assert (record.code, record.reason, record.pongs) == (1008, "Pong timeout", 0)


def test_a_connection_lives_as_long_as_the_rules_say() -> None:
    with exchange_at(stream_rules=rules(life_ms=1000)) as exchange:
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
            event(client)
            assert drained(client) == (1001, "")
        record = ended(exchange)
        assert record.closed_ms is not None
        assert record.closed_ms - record.opened_ms >= 1000
        assert record.events > 0


def test_names_and_connections_are_limited() -> None:
    with exchange_at(stream_rules=rules(streams_max=3, connects_max=2)) as exchange:
        with open_stream(f"{exchange.ws_url}/ws") as client:
            assert ask(client, subscribing("a@kline_1m", "b@kline_1m", "c@kline_1m"))["result"] is None
            assert ask(client, subscribing("d@kline_1m"))["code"] == 2
            assert len(ask(client, '{"method":"LIST_SUBSCRIPTIONS","id":1}')["result"]) == 3
        assert refusal(f"{exchange.ws_url}/stream?streams=a/b/c/d") == 400
        assert refusal(f"{exchange.ws_url}/ws") == 429
        exchange.skew_ms = 300_001
        with open_stream(f"{exchange.ws_url}/ws"):
            pass
        assert [record.status for record in exchange.connections()] == [101, 400, 429, 101]


def test_a_client_that_does_not_read_is_cut() -> None:
    with exchange_at(stream_rules=rules(5, backlog_bytes=10_000)) as exchange:
        names = "/".join(f"btcusdt@kline_{interval}" for interval in ("1m", "3m", "5m", "15m", "30m", "1h", "2h"))
        client = Deaf(f"{exchange.ws_url}/stream?streams={names}")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        exchange.stream_faults.add(StreamFault(kind="oversize", count=3, size_bytes=8 * 1024 * 1024))
        assert ended(exchange).reason == "reads too slowly"
        client.socket.close()


def test_extra_fields_are_added_to_order() -> None:
    with exchange_at(stream_rules=rules(stamp=True, family=True)) as exchange:
        for path, family in (("/ws/btcusdt", None), ("/market/ws/btcusdt", 1), ("/ws/btcusd_perp", 2)):
            with open_stream(f"{exchange.ws_url}{path}@kline_1m") as client:
                before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                told = event(client)
                after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            assert told.get("st") == family
            assert before - 10**9 < told["ns"] <= after


@pytest.mark.parametrize("offered", [True, False])
def test_compression_is_offered_by_the_rules(offered: bool) -> None:  # noqa: FBT001
    with (
        exchange_at(stream_rules=rules(deflate=offered)) as exchange,
        open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m", compression="deflate") as client,
    ):
        assert bool(client.protocol.extensions) is offered
        assert [event(client)["s"] for _ in range(5)] == ["BTCUSDT"] * 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"period_ms": {"SPOT": 7, "UM": 250, "CM": 250}},
        {"period_ms": {"SPOT": 2000}},
        {"ping_ms": {"UM": 1}},
        {"close_late_ms": -1},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StreamRules(**wrong)


# Faults


def faulty(fault: StreamFault, path: str = "/ws/btcusdt@kline_1m", **options: Any) -> Any:
    """Return an exchange with a fault in force and a client on one of its streams, as a context."""

    @contextmanager
    def running() -> Iterator[tuple[SimulatedExchange, ClientConnection]]:
        with exchange_at(**options) as exchange:
            exchange.stream_faults.add(fault)
            with open_stream(exchange.ws_url + path) as client:
                yield exchange, client

    return running()


def sent(exchange: SimulatedExchange) -> list[int]:
    """Return the moments of all events, whatever became of them."""
    return [pushed.at_ms for pushed in exchange.pushed()]


def test_lost_events_are_not_sent() -> None:
    with faulty(StreamFault(kind="lose", rate=0.5)) as (exchange, client):
        got = [event(client)["E"] for _ in range(20)]
        pushed = exchange.pushed()
    lost = [one.at_ms for one in pushed if one.fault == "lose"]
    assert len(lost) > 5
    assert not set(lost) & set(got)
    assert got == [one.at_ms for one in pushed if one.fault is None][:20]


def test_a_close_can_be_missing() -> None:
    with faulty(StreamFault(kind="unclosed", symbol="BTCUSDT", count=1)) as (exchange, client):
        event(client)
        to_close(exchange)
        told = events_until(client, lambda told: bool(told["k"]["t"] == END))
        assert not any(one["k"]["x"] for one in told)
        assert [(one.closed, one.fault) for one in exchange.pushed() if one.fault] == [(True, "unclosed")]


def test_events_are_doubled() -> None:
    with faulty(StreamFault(kind="duplicate", count=3)) as (_, client):
        got = [event(client) for _ in range(8)]
    assert [got[0], got[2], got[4]] == [got[1], got[3], got[5]]
    assert got[6] != got[7]


def test_events_change_places() -> None:
    with faulty(StreamFault(kind="reorder", count=1)) as (_, client):
        got = [event(client)["E"] for _ in range(4)]
    assert [got[1], got[0], *got[2:]] == sorted(got)
    assert got[1] < got[0]


def test_events_are_late() -> None:
    with faulty(StreamFault(kind="delay", delay_ms=300, count=1)) as (exchange, client):
        got = [event(client)["E"] for _ in range(20)]
    late = next(one.at_ms for one in exchange.pushed() if one.fault == "delay")
    assert got.index(late) >= 1
    assert [at for at in got if at != late] == sorted(at for at in got if at != late)


def test_a_wrong_close_has_right_ids() -> None:
    with faulty(StreamFault(kind="wrong", closed=True, count=1)) as (exchange, client):
        event(client)
        to_close(exchange)
        candle = events_until(client, lambda told: bool(told["k"]["x"]))[-1]["k"]
        final = exchange.truth.kline("SPOT", "BTCUSDT", "1m", candle["t"])
    assert final is not None
    assert [place for place, (a, b) in enumerate(zip(row(candle), final, strict=True)) if a != b and place != 2] == [
        4,
        5,
    ]
    assert candle["n"] == candle["L"] - candle["f"] + 1 == final[8]
    assert float(candle["l"]) <= float(candle["c"]) <= float(candle["h"])


def test_events_of_the_other_family_mix_in() -> None:
    with faulty(
        StreamFault(kind="foreign", count=1), "/market/ws/btcusdt@kline_1m", stream_rules=rules(family=True)
    ) as (_, client):
        foreign, own = event(client), event(client)
    assert (foreign["st"], own["st"]) == (2, 1)
    assert foreign["s"] == own["s"]
    assert foreign["k"]["v"] != own["k"]["v"]


def test_some_streams_stop() -> None:
    names = "/".join(f"{base}usdt@kline_1m" for base in ("btc", "eth", "bnb", "sol"))
    with faulty(StreamFault(kind="mute", count=2), f"/stream?streams={names}") as (
        exchange,
        client,
    ):
        events = [event(client)["s"] for _ in range(24)]
        muted = {one.stream for one in exchange.pushed() if one.fault == "mute"}
        exchange.stream_faults.clear()
        after = {event(client)["s"] for _ in range(12)}
    assert len(muted) == len(set(events)) == 2
    assert after == set(events), "what is muted stays so"


def test_handshakes_are_refused_slow_or_in_vain(exchange: SimulatedExchange) -> None:
    exchange.stream_faults.add(
        StreamFault(kind="refuse", status=503, count=1),
        StreamFault(kind="slow", delay_ms=300, path="/market"),
        StreamFault(kind="deaf", market="SPOT", count=1),
    )
    assert refusal(f"{exchange.ws_url}/market/ws") == 503
    started = time.monotonic()
    with open_stream(f"{exchange.ws_url}/market/ws/btcusdt@kline_1m") as client:
        assert time.monotonic() - started >= 0.29
        event(client)
    with open_stream(f"{exchange.ws_url}/ws") as client:
        assert ask(client, subscribing("btcusdt@kline_1m")) == {"result": None, "id": 1}
        assert silent(client)
    with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
        event(client)


def test_garbage_and_too_much_come_before_good_events() -> None:
    faults = StreamFault(kind="garbage", count=1), StreamFault(kind="oversize", count=1, size_bytes=300_000)
    with exchange_at() as exchange:
        exchange.stream_faults.add(*faults)
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m", max_size=None) as client:
            garbage = client.recv(PATIENCE_SECONDS)
            with pytest.raises(json.JSONDecodeError):
                json.loads(garbage)
            event(client)
            assert len(client.recv(PATIENCE_SECONDS)) == 300_000
            event(client)
        exchange.stream_faults.add(faults[1])
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m", max_size=100_000) as client:
            with pytest.raises(ConnectionClosedError) as closed:
                event(client)
            assert closed.value.sent is not None
            assert closed.value.sent.code == 1009


def test_an_event_comes_in_fragments(exchange: SimulatedExchange) -> None:
    exchange.stream_faults.add(StreamFault(kind="fragment", count=1))
    frames = Deaf(f"{exchange.ws_url}/ws/btcusdt@kline_1m").frames()
    parts = [next(frames) for _ in range(3)]
    frames.close()  # type: ignore[attr-defined]
    assert [(part.opcode, part.fin) for part in parts] == [
        (Opcode.TEXT, False),
        (Opcode.CONT, False),
        (Opcode.CONT, True),
    ]
    assert json.loads(b"".join(part.data for part in parts))["s"] == "BTCUSDT"


def test_a_stalled_connection_is_open_and_moves_nothing() -> None:
    with exchange_at(stream_rules=rules(ping_ms=dict.fromkeys(EVERY, 100), life_ms=500)) as exchange:
        exchange.stream_faults.add(StreamFault(kind="stall", count=1))
        with open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m", close_timeout=0.1) as client:
            assert silent(client, 0.8)
            assert not client.ping().wait(0.3)
            record = exchange.connections()[0]
            assert (record.closed_ms, record.events) == (None, 0)


def test_a_reset_cuts_a_frame(exchange: SimulatedExchange) -> None:
    exchange.stream_faults.add(StreamFault(kind="reset", count=1))
    client = Deaf(f"{exchange.ws_url}/ws/btcusdt@kline_1m")
    with pytest.raises(ConnectionResetError):
        list(client.frames())
    assert client.protocol.close_rcvd is None
    record = ended(exchange)
    assert (record.code, record.reason, record.events) == (1006, "reset", 0)


def test_the_server_closes_with_any_code() -> None:
    with faulty(StreamFault(kind="close", code=1011, count=1)) as (_, client):
        assert drained(client) == (1011, "")


@pytest.mark.parametrize("combined", [True, False])
def test_a_shutdown_is_announced(combined: bool) -> None:  # noqa: FBT001
    path = "/stream?streams=btcusdt@kline_1m" if combined else "/ws/btcusdt@kline_1m"
    with faulty(StreamFault(kind="shutdown", delay_ms=300), path) as (exchange, client):
        message = receive(client)
        if combined:
            assert message["stream"] == "!serverShutdown"
            message = message["data"]
        assert message["e"] == "serverShutdown"
        assert abs(message["E"] - exchange.now_ms()) < 60_000
        event(client)
        assert drained(client) == (1001, "")
        assert [one.fault for one in exchange.pushed()].count("shutdown") == 1


def test_limits_of_a_fault_are_kept() -> None:
    names = "btcusdt@kline_1m/btcusdt@kline_5m/ethusdt@kline_1m/btcusd_perp@kline_1m"
    lose = StreamFault(kind="lose", market="SPOT", symbol="BTCUSDT", interval="1m", until_ms=END - 10_000)
    with faulty(lose, f"/stream?streams={names}") as (exchange, client):
        events_until(client, lambda told: bool(told["k"]["i"] == "5m"))
        exchange.skew_ms += END - 10_100 - exchange.now_ms()
        events_until(client, lambda told: bool(told["E"] > END - 9_800))
        pushed = exchange.pushed()
    assert {one.stream for one in pushed if one.fault} == {"btcusdt@kline_1m"}
    assert all(one.at_ms < END - 10_000 for one in pushed if one.fault)
    assert any(one.stream == "btcusdt@kline_1m" and not one.fault for one in pushed)


@pytest.mark.parametrize("wrong", [{"kind": "lose", "rate": 2.0}, {"kind": "refuse", "symbol": "BTCUSDT"}])
def test_faults_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rate|handshake"):
        StreamFault(**wrong)


# Control from outside, recordings, and without the library


def test_streams_are_controlled_over_http(exchange: SimulatedExchange) -> None:
    url = f"{exchange.base_url}/sim/"
    fault = {"kind": "lose", "symbol": "ETHUSDT"}
    assert requests.post(f"{url}stream-faults", json=[fault], timeout=10).status_code == 200
    changed = {"period_ms": {"SPOT": 100, "UM": 100, "CM": 100}, "unchanged": dict.fromkeys(EVERY, True)}
    assert requests.post(f"{url}stream-rules", json=changed, timeout=10).status_code == 200
    assert requests.get(f"{url}stream-rules", timeout=10).json()["period_ms"]["SPOT"] == 100
    with open_stream(f"{exchange.ws_url}/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m") as client:
        assert {event(client)["s"] for _ in range(6)} == {"BTCUSDT"}
        [connection] = requests.get(f"{url}connections", timeout=10).json()
        assert (connection["market"], connection["status"], len(connection["streams"])) == ("SPOT", 101, 2)
    [met] = requests.get(f"{url}stream-faults", timeout=10).json()
    assert met["fault"]["kind"] == "lose"
    assert met["met"] >= 5
    assert requests.delete(f"{url}stream-faults", timeout=10).status_code == 200
    assert exchange.stream_faults.in_force() == []
    for name, body in (("stream-faults", {"kind": "dance"}), ("stream-rules", {"period_ms": {"SPOT": 3}})):
        assert requests.post(url + name, json=body, timeout=10).status_code == 400


@pytest.mark.parametrize(("name", "klines", "closes"), [("spot", 2, 0), ("um", 67, 4), ("cm", 33, 0), ("tr", 8, 4)])
def test_recorded_frames_are_played_as_they_were(name: str, klines: int, closes: int) -> None:
    path = DATA / f"{name}.frames"
    lines = [line.partition(": ")[2] for line in path.read_text(encoding="utf-8").splitlines()]
    recording = Recording.read(path)
    streams = {frame.stream for frame in recording.frames}
    with exchange_at(truth=Truth(instruments=[])) as exchange, open_stream(f"{exchange.ws_url}/stream") as client:
        assert ask(client, subscribing(*streams))["result"] is None
        exchange.play(recording, speed=math.inf)
        got = [client.recv(PATIENCE_SECONDS) for _ in lines]
    assert got == lines
    told = [json.loads(text)["data"] for text in lines]
    candles = [one["k"] for one in told if one.get("e") == "kline"]
    assert (len(candles), sum(candle["x"] for candle in candles)) == (klines, closes)


def test_a_recording_keeps_its_timing_and_its_subscribers(exchange: SimulatedExchange) -> None:
    recording = Recording.read(DATA / "um.frames")
    first, *_, last = recording.frames
    seconds = last.received_seconds - first.received_seconds
    with open_stream(f"{exchange.ws_url}/ws/{last.stream}") as client:
        started = time.monotonic()
        exchange.play(recording, speed=seconds / 0.5)
        while receive(client) != json.loads(last.data):
            pass
    assert time.monotonic() - started >= 0.49
    with pytest.raises(ValueError, match="speed"):
        exchange.play(recording, speed=0)


def test_a_file_without_frames_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "empty.frames"
    path.write_text('wss://host/stream <-> 1.0\n1.0: {"e":"kline"}\n')
    with pytest.raises(ValueError, match=r"empty\.frames"):
        Recording.read(path)


def test_without_the_library_there_is_rest_and_a_clear_word() -> None:
    code = """
import sys
sys.modules["websockets"] = None
import requests
from candleshm.errors import MissingExtra
from candleshm.sim import SimulatedExchange
with SimulatedExchange(symbols=1) as exchange:
    assert requests.get(exchange.base_url + "/api/v3/ping", timeout=10).status_code == 200
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    answer = requests.get(exchange.base_url + "/ws", headers=headers, timeout=10)
    assert answer.status_code == 501 and "pip install '.[ws]'" in answer.text, answer.text
    assert requests.get(exchange.base_url + "/sim/connections", timeout=10).status_code == 501
    try:
        exchange.ws_url
    except MissingExtra as error:
        assert error.extra == "ws"
    else:
        raise AssertionError("no MissingExtra")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_command_names_the_address() -> None:
    command = [sys.executable, "-m", "candleshm", "sim", "--symbols", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url, _, line = (process.stdout.readline().strip() for _ in range(3))
            url = base_url.replace("http", "ws")
            assert line.startswith(f"streams: {url} ")
            with open_stream(f"{url}/ws/btcusdt@kline_1s") as client:
                assert event(client)["k"]["x"]
        finally:
            process.terminate()


def test_the_command_closes_markets_as_told() -> None:
    command = [sys.executable, "-m", "candleshm", "sim", "--symbols", "1", "--off-hours", "absent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            noon_ms = 1_773_230_400_000 - 4 * 86_400_000  # a Saturday
            query = f"symbol=XAUUSDT&interval=1h&startTime={noon_ms}&endTime={noon_ms + 3_600_000}"
            assert requests.get(f"{base_url}/fapi/v1/klines?{query}", timeout=20).json() == []
        finally:
            process.terminate()


def test_an_exchange_that_stops_ends_its_streams_and_can_start_again() -> None:
    exchange = SimulatedExchange(seed=7, symbols=1, stream_rules=rules())
    for number in (1, 2):
        with exchange, open_stream(f"{exchange.ws_url}/ws/btcusdt@kline_1m") as client:
            event(client)
            exchange.stop()
            assert drained(client) == (1006, "")
        assert ended(exchange, number).events > 0
    assert "candleshm-sim" not in {thread.name for thread in threading.enumerate()}
