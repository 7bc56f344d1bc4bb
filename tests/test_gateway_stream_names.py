"""What paths, names and control messages mean: no process, no socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm.gateway.streams.control import Command, ControlError
from candleshm.gateway.streams.names import Endpoint, KlineName, NotKlines

SPOT, UM, CM = ("SPOT",), ("UM", "CM"), ("CM", "UM")


@pytest.mark.parametrize(
    ("path", "query", "markets", "is_combined", "names"),
    [
        ("/ws", "", ("SPOT", "CM"), False, ()),
        ("/ws/", "", ("SPOT", "CM"), False, ()),
        ("/ws/btcusdt@kline_1m", "", ("SPOT", "CM"), False, ("btcusdt@kline_1m",)),
        ("/ws/a@kline_1m/b@kline_1m", "", ("SPOT", "CM"), False, ("a@kline_1m", "b@kline_1m")),
        ("/stream", "streams=a@kline_1m/b%40kline_1m", ("SPOT", "CM"), True, ("a@kline_1m", "b@kline_1m")),
        ("/stream", "streams=a@kline_1d@+08:00", ("SPOT", "CM"), True, ("a@kline_1d@+08:00",)),
        ("/stream", "x=1&streams=%E5%B8%81usdt@kline_1m", ("SPOT", "CM"), True, ("币usdt@kline_1m",)),
        ("/market/ws/a@kline_1m", "", UM, False, ("a@kline_1m",)),
        ("/market/stream", "streams=a@kline_1m", UM, True, ("a@kline_1m",)),
        ("/spot/ws", "", SPOT, False, ()),
        ("/um/stream", "", UM, True, ()),
        ("/um/market/ws", "", UM, False, ()),
        ("/cm/ws", "", CM, False, ()),
        ("/cm/market/stream", "", CM, True, ()),
        # A client that joins its paths, and makes its connections differ by a number.
        ("/stream.binance.com:9443/ws/0", "", SPOT, False, ()),
        ("/fstream.binance.com/market/ws/17", "", UM, False, ()),
        ("/dstream.binance.com/ws/3", "", CM, False, ()),
        ("/stream", "streams=a@kline_1m&timeUnit=millisecond", ("SPOT", "CM"), True, ("a@kline_1m",)),
    ],
)
def test_a_path_means_markets_and_streams(path: str, query: str, markets: Any, is_combined: Any, names: Any) -> None:
    endpoint = Endpoint.of(path, query)
    assert (endpoint.markets, endpoint.is_combined, endpoint.names) == (markets, is_combined, names)
    assert endpoint.messages_per_second == (5 if markets[0] == "SPOT" else 10)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/x", "/spot/public/ws", "/privat/ws", "/spot", "/spot/market/ws", "/market", "/ws2", "/market/x/ws"],
)
def test_another_path_has_no_streams(path: str) -> None:
    with pytest.raises(NotKlines, match="kline streams are at /ws and /stream"):
        Endpoint.of(path, "")


@pytest.mark.parametrize("path", ["/public/stream", "/private/stream", "/um/public/stream"])
def test_the_official_sdk_may_connect_to_every_route_of_um(path: str) -> None:
    assert Endpoint.of(path, "") == Endpoint.of("/market/stream", "")


def test_times_are_in_milliseconds_only() -> None:
    with pytest.raises(NotKlines, match="timeUnit"):
        Endpoint.of("/ws", "timeUnit=MICROSECOND")


@pytest.mark.parametrize(
    ("name", "symbol", "interval", "is_utc8"),
    [
        ("btcusdt@kline_1m", "BTCUSDT", "1m", False),
        ("btcusd_perp@kline_1M", "BTCUSD_PERP", "1M", False),
        ("btcusdt_260925@kline_1h", "BTCUSDT_260925", "1h", False),
        ("币安人生usdt@kline_3d", "币安人生USDT", "3d", False),
        ("btcusdt@kline_1d@+08:00", "BTCUSDT", "1d", True),
    ],
)
def test_a_name_means_candles(name: str, symbol: str, interval: str, is_utc8: Any) -> None:
    assert KlineName.of(name) == KlineName(symbol, interval, is_utc8)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("btcusdt@trade", "not a kline stream"),
        ("btcusdt", "not a kline stream"),
        ("!miniTicker@arr", "not a kline stream"),
        ("btcusdt@kline_1m@+09:00", "not a kline stream"),
        ("btcusdt_perpetual@continuousKline_1m", "not a kline stream"),
        ("@kline_1m", "not a kline stream"),
        ("BTCUSDT@kline_1m", "in lower case"),
        ("btcusdt@kline_7m", "unknown interval"),
        ("a b@kline_1m", "not a symbol"),
        ("a\nb@kline_1m", "not a symbol"),
        ("x" * 5000, "not a kline stream"),
    ],
)
def test_what_is_no_kline_stream_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(NotKlines, match=reason) as refused:
        KlineName.of(name)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


@given(st.text())
def test_any_name_means_candles_or_is_refused(name: str) -> None:
    try:
        text = KlineName.of(name).symbol
    except NotKlines as error:
        text = str(error)
    assert text.isprintable()


def told(reply: bytes) -> Any:
    """Return what a reply says."""
    return json.loads(reply)


@pytest.mark.parametrize("request_id", [0, 1, -(2**63), 2**63 - 1, "", "x" * 36, None])
def test_a_reply_has_the_id_of_its_message(request_id: Any) -> None:
    command = Command.of(json.dumps({"method": "SUBSCRIBE", "params": ["a@kline_1m"], "id": request_id}))
    assert command.names == ("a@kline_1m",)
    assert told(command.reply()) == {"result": None, "id": request_id}


def test_a_message_without_an_id_has_none_in_its_reply() -> None:
    assert Command.of('{"method":"LIST_SUBSCRIPTIONS"}').reply(["a"]) == b'{"result":["a"],"id":null}'


ID = "Invalid request: request ID must be an integer, a string of at most 36 characters or null"


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ("", 3, "Invalid JSON: expected value at line 1 column 1"),
        ("[" * 100_000, 3, "Invalid JSON: expected value at line 1 column 1"),
        ('{"id":1,"method":SUBSCRIBE}', 3, "Invalid JSON: expected value at line 1 column 18"),
        ("[]", 2, "Invalid request: expected an object"),
        ("7", 2, "Invalid request: expected an object"),
        ('{"id":1}', 2, "Invalid request: missing field `method`"),
        ('{"id":1,"method":7}', 2, "Invalid request: missing field `method`"),
        (
            '{"id":1,"method":"subscribe"}',
            2,
            "Invalid request: unknown variant `subscribe`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, "
            "`LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`",
        ),
        ('{"id":1,"method":"SUBSCRIBE","params":"a"}', 2, "Invalid request: params must be an array"),
        ('{"id":1,"method":"SUBSCRIBE","params":[1]}', 2, "Invalid request: stream names must be strings"),
        ('{"id":1,"method":"GET_PROPERTY","params":[]}', 2, "Invalid request: property name must be a string"),
        ('{"id":1,"method":"GET_PROPERTY","params":["x"]}', 0, "Unknown property"),
        ('{"id":1,"method":"SET_PROPERTY","params":["combined"]}', 1, "Invalid value type: expected Boolean"),
        ('{"id":1,"method":"SET_PROPERTY","params":["combined",1]}', 1, "Invalid value type: expected Boolean"),
        (f'{{"id":{2**63},"method":"SUBSCRIBE"}}', 2, ID),
        ('{"id":1.0,"method":"SUBSCRIBE"}', 2, ID),
        ('{"id":true,"method":"SUBSCRIBE"}', 2, ID),
        (f'{{"id":"{"x" * 37}","method":"SUBSCRIBE"}}', 2, ID),
        ('{"id":[],"method":"SUBSCRIBE"}', 2, ID),
    ],
)
def test_a_message_that_cannot_be_obeyed_is_refused_in_the_exchanges_words(message: str, code: int, text: str) -> None:
    with pytest.raises(ControlError) as refused:
        Command.of(message)
    has_id = '"id":1,' in message or message == '{"id":1}'
    expected_id = 1 if has_id and code != 3 else None
    assert told(refused.value.reply) == {"error": {"code": code, "msg": text}, "id": expected_id}


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_any_message_is_obeyed_or_refused(message: str) -> None:
    try:
        reply = Command.of(message).reply()
    except ControlError as error:
        reply = error.reply
    assert told(reply)


def test_half_of_a_character_in_an_id_is_replied_to_all_the_same() -> None:
    assert told(Command.of('{"id":"\\ud800","method":"LIST_SUBSCRIPTIONS"}').reply([]))["id"] == "?"
