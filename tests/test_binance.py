"""Binance's addresses, weights, limits and answers, from its documentation and from recordings (data/binance)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from candleshm.errors import BadResponse, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import Market, Price, Response
from candleshm.exchanges.binance import Binance

DATA = Path(__file__).parent / "data" / "binance"
NOW_MS = 1_669_829_600_000


def answer(status: int = 200, body: str = "{}", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response("http://user:secret@host/api/v3/x?symbol=A", status, named, body.encode(), 1.0, 1.1, None)


def recorded(name: str) -> Response:
    """Return a recorded exchange as the transport would hand it over."""
    exchange = json.loads((DATA / f"{name}.json").read_text())
    headers = {key.lower(): value for key, value in exchange["headers"].items()}
    return Response(exchange["url"], exchange["status_code"], headers, exchange["body"].encode(), 1.0, 1.1, None)


@pytest.mark.parametrize(
    ("market", "host", "path"),
    [
        ("SPOT", "https://api.binance.com", "/api/v3"),
        ("UM", "https://fapi.binance.com", "/fapi/v1"),
        ("CM", "https://dapi.binance.com", "/dapi/v1"),
    ],
)
def test_addresses(market: Market, host: str, path: str) -> None:
    assert Binance(market).time_url == f"{host}{path}/time"
    assert Binance(market, base_url="http://h:1/").info_url == f"http://h:1{path}/exchangeInfo"
    assert Binance(market, proxy_host="http://h").time_url == f"http://h/{path.split('/')[1]}{path}/time"


def test_klines_address_names_every_bound_and_encodes_the_symbol() -> None:
    um, cm = Binance("UM", base_url="http://h"), Binance("CM", base_url="http://h")

    assert um.klines_url(um.newest("BTCUSDT", "1m", 5)) == "http://h/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=5"
    assert um.klines_url(um.until("币USDT", "1M", 5, 999)).endswith(
        "symbol=%E5%B8%81USDT&interval=1M&limit=5&endTime=999"
    )
    both = cm.klines_url(cm.until("BTCUSD_PERP", "1m", 5, 200 * 86_400_000 + 8))
    assert both.endswith("&startTime=9&endTime=17280000008")


@pytest.mark.parametrize(
    ("price", "name", "of"),
    [
        ("mark", "markPriceKlines", "symbol"),
        ("index", "indexPriceKlines", "pair"),
        ("premium", "premiumIndexKlines", "symbol"),
    ],
)
@pytest.mark.parametrize(("market", "path"), [("UM", "/fapi/v1"), ("CM", "/dapi/v1")])
def test_each_price_has_its_own_address_and_the_weight_of_trades(
    market: Market, path: str, price: Price, name: str, of: str
) -> None:
    exchange = Binance(market, price=price, base_url="http://h")
    request = exchange.newest("BTCUSDT", "1m", 499)

    assert exchange.klines_url(request) == f"http://h{path}/{name}?{of}=BTCUSDT&interval=1m&limit=499"
    assert request.weight == Binance(market).newest("BTCUSDT", "1m", 499).weight == 2


def test_a_page_of_the_premium_is_the_same_whichever_end_the_exchange_counts_from() -> None:
    request = Binance("CM", price="premium").until("BTCUSD_PERP", "1m", 499, NOW_MS)

    assert request.start_ms == NOW_MS - 499 * 60_000 + 1
    assert Binance("UM", price="premium").until("BTCUSDT", "1m", 499, NOW_MS).start_ms is None


def test_streams_of_other_prices_have_names_of_their_own() -> None:
    assert Binance("CM", price="mark").stream_name("BTCUSD_PERP", "1m") == "btcusd_perp@markPriceKline_1m"
    assert Binance("CM", price="index").stream_name("BTCUSD", "5m") == "btcusd@indexPriceKline_5m"


def test_an_index_is_listed_and_ranked_by_pairs() -> None:
    symbols = [
        {"symbol": "BTCUSD_PERP", "pair": "BTCUSD", "contractStatus": "TRADING", "quoteAsset": "USD"},
        {"symbol": "BTCUSD_270326", "pair": "BTCUSD", "contractStatus": "PENDING_TRADING", "quoteAsset": "USD"},
        {"symbol": "ETHUSD_250328", "pair": "ETHUSD", "contractStatus": "DELIVERED", "quoteAsset": "USD"},
        {"symbol": "ETHUSD_PERP", "pair": "ETHUSD", "contractStatus": "TRADING", "quoteAsset": "USD"},
        {"symbol": "OLDUSD_PERP", "pair": "OLDUSD", "contractStatus": "CLOSE", "quoteAsset": "USD"},
    ]
    exchange = Binance("CM", price="index")
    info = exchange.info(answer(body=json.dumps({"symbols": symbols})))

    assert info.statuses == {"BTCUSD": "TRADING", "ETHUSD": "TRADING", "OLDUSD": "CLOSE"}
    assert (info.quotes["ETHUSD"], info.pairs["BTCUSD_270326"], info.contracts) == ("USD", "BTCUSD", {})
    tickers = [
        {"symbol": "BTCUSD_PERP", "baseVolume": "2", "weightedAvgPrice": "10"},
        {"symbol": "BTCUSD_270326", "baseVolume": "1", "weightedAvgPrice": "10"},
    ]
    assert exchange.volumes(answer(body=json.dumps(tickers))) == {"BTCUSD": 30.0}


@pytest.mark.parametrize(
    ("market", "limit", "weight"),
    [
        ("SPOT", 1, 2),
        ("SPOT", 1000, 2),
        ("UM", 99, 1),
        ("UM", 100, 2),
        ("UM", 499, 2),
        ("UM", 500, 5),
        ("UM", 1000, 5),
        ("UM", 1001, 10),
        ("CM", 1500, 10),
    ],
)
def test_weights(market: Market, limit: int, weight: int) -> None:
    assert Binance(market).newest("A", "1m", limit).weight == weight


@pytest.mark.parametrize(("market", "most"), [("SPOT", 1000), ("UM", 1500), ("CM", 1500)])
def test_no_request_is_above_the_maximum_that_the_exchange_refuses(market: Market, most: int) -> None:
    assert Binance(market).newest("A", "1m", 100_000).limit == most
    assert Binance(market).until("A", "1m", 100_000, NOW_MS).limit == most


def test_a_page_and_a_tail_buy_most_rows_for_their_weight() -> None:
    for market in ("SPOT", "UM", "CM"):
        exchange = Binance(market)
        rows_per_weight = {limit: limit / exchange.newest("A", "1m", limit).weight for limit in range(1, 1501)}
        most = max(limit for limit in rows_per_weight if exchange.newest("A", "1m", limit).limit == limit)
        assert rows_per_weight[exchange.page_limit] == max(rows_per_weight[limit] for limit in range(1, most + 1))
        assert exchange.newest("A", "1m", exchange.tail_limit).weight == exchange.newest("A", "1m", 1).weight
    assert [Binance(market).page_limit for market in ("SPOT", "UM", "CM")] == [1000, 499, 499]


def test_seconds_are_offered_on_spot_only() -> None:
    assert Binance("SPOT").intervals[0] == "1s"
    assert "1s" not in Binance("UM").intervals
    assert len(Binance("CM").intervals) == 15


@pytest.mark.parametrize(
    ("market", "name", "symbol", "limit"),
    [
        ("SPOT", "spot_exchange_info", "ETHBTC", 1200),
        ("UM", "um_exchange_info", "BTCUSDT", 2400),
        ("CM", "cm_exchange_info", "BTCUSD_PERP", 6000),
    ],
)
def test_recorded_exchange_info(market: Market, name: str, symbol: str, limit: int) -> None:
    info = Binance(market).info(recorded(name))

    assert info.is_trading(symbol)
    assert (info.weight_limit, info.window_seconds) == (limit, 60.0)
    assert not info.is_trading("UNKNOWN")
    assert set(info.statuses.values()) > {"TRADING"}


def test_unknown_statuses_and_missing_limits_are_taken_as_they_are() -> None:
    body = '{"symbols":[{"symbol":"A","contractStatus":"TRADING_HALT"},{"symbol":"B"}],"rateLimits":[]}'

    info = Binance("CM").info(answer(body=body))

    assert dict(info.statuses) == {"A": "TRADING_HALT", "B": ""}
    assert info.weight_limit is None


def test_of_several_weight_limits_the_tightest_counts() -> None:
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "SECOND", "intervalNum": 10, "limit": 300},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "FORTNIGHT", "intervalNum": 1, "limit": 1},
    ]

    info = Binance("SPOT").info(answer(body=json.dumps({"symbols": [], "rateLimits": limits})))

    assert (info.weight_limit, info.window_seconds) == (300, 10.0)


@pytest.mark.parametrize(
    "body",
    ["[]", "{}", '{"symbols":5}', '{"symbols":[5]}', '{"symbols":[{}]}', "{", '{"symbols":[],"rateLimits":[{}]}'],
)
def test_what_is_no_exchange_info_is_a_bad_response(body: str) -> None:
    with pytest.raises(BadResponse):
        Binance("SPOT").info(answer(body=body))


def test_recorded_server_time_and_used_weight() -> None:
    spot, um = recorded("spot_time"), recorded("um_time")

    assert Binance("SPOT").server_time_ms(spot) == 1616592268319
    assert Binance("UM").server_time_ms(um) == 1627941475955
    # Spot sends two headers, in lower case; futures one, in upper case.
    assert Binance("SPOT").used_weight(spot, 60.0) == 1
    assert Binance("UM").used_weight(um, 60.0) == 2


@pytest.mark.parametrize("body", ["{}", "[]", '{"serverTime":"1"}', "nonsense"])
def test_what_is_no_time_is_a_bad_response(body: str) -> None:
    with pytest.raises(BadResponse):
        Binance("SPOT").server_time_ms(answer(body=body))


def test_used_weight_of_another_window_is_not_taken() -> None:
    counted = answer(x_mbx_used_weight="9", x_mbx_used_weight_1d="7", x_mbx_used_weight_10s="5")

    assert Binance("SPOT").used_weight(counted, 60.0) is None
    assert Binance("SPOT").used_weight(counted, 10.0) == 5
    assert Binance("SPOT").used_weight(answer(x_mbx_used_weight_1m="many"), 60.0) is None


def error_of(given: Response) -> ExchangeError:
    error = Binance("SPOT").error_of(given, NOW_MS)
    assert error is not None
    return error


@pytest.mark.parametrize("body", ["[]", " \n[[1]]", "{}"])
def test_json_with_status_200_is_a_response(body: str) -> None:
    assert Binance("SPOT").error_of(answer(body=body), NOW_MS) is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, -1000, ExchangeUnavailable),
        (400, -1001, ExchangeUnavailable),
        (400, -1006, ExchangeUnavailable),
        (504, -1007, ExchangeUnavailable),
        (503, -1008, ExchangeUnavailable),
        (400, -1016, ExchangeUnavailable),
        (400, -1003, RateLimited),
        (400, -1034, RateLimited),
        (400, -1100, ExchangeError),
        (400, -1120, ExchangeError),
        (400, -1121, ExchangeError),
        (400, -1127, ExchangeError),
        (400, -1130, ExchangeError),
        (429, -1003, RateLimited),
        (418, -1003, Banned),
        (403, -1, Banned),
        (500, 0, ExchangeUnavailable),
        (408, 0, ExchangeUnavailable),
        (451, 0, ExchangeError),
    ],
)
def test_errors_are_sorted_by_code(status: int, code: int, kind: type[ExchangeError]) -> None:
    error = error_of(answer(status, json.dumps({"code": code, "msg": "text that may change"})))

    assert type(error) is kind
    assert error.status == status
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, BadResponse),
        (302, BadResponse),
        (400, BadResponse),
        (404, BadResponse),
        (403, Banned),
        (429, RateLimited),
        (451, ExchangeError),
        (502, ExchangeUnavailable),
    ],
)
def test_a_page_in_place_of_json_is_named_by_status_and_content_type(status: int, kind: type[ExchangeError]) -> None:
    error = error_of(answer(status, "<html><body>Attention</body></html>", content_type="text/html"))

    assert type(error) is kind
    assert f"HTTP {status}" in str(error)
    assert "text/html" in str(error)


def test_recorded_refusals() -> None:
    interval = error_of(recorded("spot_bad_interval"))

    assert (type(interval), interval.status, interval.code) == (ExchangeError, 400, -1120)
    # In 2018 the code of an unknown symbol came with the text of a bad interval: the code counts.
    symbol = error_of(recorded("spot_bad_symbol_2018"))
    assert Binance("SPOT").is_unknown_symbol(symbol)
    assert not Binance("SPOT").is_unknown_symbol(interval)


def test_how_long_to_stay_away() -> None:
    def wait(status: int, message: str = "", **headers: str) -> float:
        error = error_of(answer(status, json.dumps({"code": -1003, "msg": message}), **headers))
        assert isinstance(error, RateLimited)
        return error.retry_after

    # Quoted from a real ban of 2022-11-30.
    banned = (
        "Way too much request weight used; IP banned until 1669829694169. Please use the websocket for live updates."
    )
    assert wait(429, retry_after="7") == 7.0
    assert wait(429) == 60.0
    assert wait(429, retry_after="0") == 60.0
    assert wait(429, retry_after="soon") == 60.0
    assert wait(418, banned, retry_after="300") == 300.0
    assert wait(418, banned) == pytest.approx(94.169)
    assert wait(418, "IP banned until 1000000000000") == 120.0
    assert wait(403) == 120.0
    assert wait(418, retry_after="9" * 30) == 7 * 86400


def test_a_ban_says_until_when() -> None:
    error = error_of(answer(418, '{"code":-1003,"msg":"banned"}', retry_after="300"))

    assert isinstance(error, Banned)
    assert error.until_ms == NOW_MS + 300_000
    assert "2022-11-30 17:38:20 UTC" in str(error)


def test_neither_the_query_nor_a_password_is_repeated() -> None:
    text = str(error_of(answer(500, "{}")))

    assert "http://host/api/v3/x" in text
    assert "secret" not in text
    assert "symbol" not in text


@pytest.mark.parametrize(
    "server",
    ["0", "-1", "true", "1e13", "1700000000", "1700000000000000", "9" * 400, '"1700000000000"', "null", "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_an_absurd_server_time_is_a_bad_response(server: str) -> None:
    with pytest.raises(BadResponse):
        Binance("SPOT").server_time_ms(answer(body=f'{{"serverTime":{server}}}'))


def test_a_server_time_far_from_the_date_of_its_own_response_is_not_believed() -> None:
    given = answer(body=f'{{"serverTime":{NOW_MS}}}')

    assert Binance("SPOT").server_time_ms(replace(given, date_ms=NOW_MS - 120_000)) == NOW_MS
    with pytest.raises(BadResponse, match=r"serverTime is \+86400 s from the Date"):
        Binance("SPOT").server_time_ms(replace(given, date_ms=NOW_MS - 86_400_000))


@pytest.mark.parametrize("limit", ["0", "-5", "true", '"6000"', "6000.5", "1e999", "9" * 400, "null"])
@pytest.mark.parametrize("field", ["limit", "intervalNum"])
def test_a_weight_limit_that_cannot_be_one_is_left_out_and_the_symbols_stand(field: str, limit: str) -> None:
    rule = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
    text = json.dumps(rule | {field: "?"}).replace('"?"', limit)
    body = f'{{"symbols":[{{"symbol":"A","status":"TRADING"}}],"rateLimits":[{text}]}}'

    if limit == "null":
        body = body.replace(f"[{text}]", "null")
    info = Binance("SPOT").info(answer(body=body))

    assert (dict(info.statuses), info.weight_limit) == ({"A": "TRADING"}, None)


def test_names_that_no_symbol_can_have_are_left_out_and_one_given_twice_counts_once() -> None:
    names = ["A", "A", "", "x" * 65, "币" * 22, "a\0b", "a\nb", "\ud800", 5, None, True, "币安"]
    body = json.dumps({"symbols": [{"symbol": name, "status": "TRADING"} for name in names]})

    assert list(Binance("SPOT").info(answer(body=body)).statuses) == ["A", "币安"]


@pytest.mark.parametrize("value", ["-1", "1.5", "", "many", "١٢", "9" * 10, "9" * 5000])
def test_a_used_weight_that_cannot_be_one_is_not_taken(value: str) -> None:
    assert Binance("SPOT").used_weight(answer(x_mbx_used_weight_1m=value), 60.0) is None
    assert (
        Binance("SPOT").used_weight(replace(answer(), headers={f"x-mbx-used-weight-{'1' * 5000}m": "5"}), 60.0) is None
    )


def test_a_refusal_counts_as_one_whatever_its_status() -> None:
    limited = error_of(answer(200, '{"code":-1003,"msg":"Too many requests."}'))
    assert (type(limited), limited.status, limited.code) == (RateLimited, 200, -1003)
    assert type(error_of(answer(200, '{"code":-1000,"msg":"unknown"}'))) is ExchangeUnavailable


@pytest.mark.parametrize("body", ['{"code":1e999,"msg":"x"}', '{"code":' + "[" * 100_000, '{"code":"x"}', '{"code":'])
def test_a_refusal_that_cannot_be_read_goes_by_its_status(body: str) -> None:
    assert type(error_of(answer(500, body))) is ExchangeUnavailable
    assert type(error_of(answer(400, body))) is BadResponse


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("-5", 60.0),
        ("1.5", 60.0),
        ("1e3", 60.0),
        ("9" * 5000, 60.0),
        ("Wed, 30 Nov 2022 17:33:20 GMT", 60.0),  # a moment that has just come
        ("Wed, 30 Nov 2022 17:33:50 GMT", 30.0),
        ("Wed, 30 Nov 2099 17:33:50 GMT", 7 * 86400.0),
        (f"Wed, 30 Nov {'9' * 30} 17:33:50 GMT", 60.0),
        ("yesterday", 60.0),
    ],
    ids=lambda value: str(value)[:32],
)
def test_retry_after_is_seconds_or_a_date_and_what_is_neither_does_not_count(value: str, seconds: float) -> None:
    error = error_of(answer(429, '{"code":-1003,"msg":""}', retry_after=value))

    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


def test_foreign_text_stands_in_an_error_short_and_without_control_characters() -> None:
    message = "\x1b[2J\nCRITICAL forged line " + "x" * 100_000

    text = str(error_of(answer(400, json.dumps({"code": -1100, "msg": message}))))

    assert text.isprintable()
    assert len(text) < 400
    assert str(error_of(answer(502, "<html>", content_type="\x1b[31m" + "y" * 60_000))).isprintable()
