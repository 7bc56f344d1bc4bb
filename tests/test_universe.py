"""Which symbols a feed wants: filters, listings that come later, symbols by hand, lists that cannot be believed."""

from __future__ import annotations

from typing import Any

import pytest

from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import ExchangeInfo
from candleshm.universe import Universe, implausibility

STATUSES = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING", "ETHBTC": "TRADING", "OLDUSDT": "BREAK"}


def info(statuses: dict[str, str]) -> ExchangeInfo:
    return ExchangeInfo(
        statuses,
        6000,
        60.0,
        quotes={name: name[3:] for name in statuses},
        contracts={"BTCUSDT": "PERPETUAL", "ETHUSDT": "TRADIFI_PERPETUAL", "ETHBTC": "PERPETUAL"},
        volumes={"BTCUSDT": 5.0, "ETHBTC": 9.0, "ETHUSDT": 7.0},
    )


def universe(**settings: Any) -> Universe:
    return Universe(CollectorConfig(**({"market": "SPOT"} | settings)))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, ["BTCUSDT", "ETHUSDT", "ETHBTC"]),
        ({"symbols_filter": ["ETHUSDT"]}, ["BTCUSDT", "ETHBTC"]),
        ({"symbol_contains": "ETH"}, ["ETHUSDT", "ETHBTC"]),
        ({"symbol_endswith": "USDT"}, ["BTCUSDT", "ETHUSDT"]),
        ({"symbols_filter": ["ETHBTC"], "symbol_contains": "TH", "symbol_endswith": "T"}, ["ETHUSDT"]),
        ({"quote": "usdt"}, ["BTCUSDT", "ETHUSDT"]),
        ({"quote": ["BTC", "EUR"]}, ["ETHBTC"]),
        ({"market": "UM", "contract": "PERPETUAL"}, ["BTCUSDT", "ETHBTC"]),
        ({"market": "UM", "contract": ["perpetual", "TRADIFI_PERPETUAL"], "quote": "USDT"}, ["BTCUSDT", "ETHUSDT"]),
        ({"top": 2}, ["ETHBTC", "ETHUSDT"]),
        ({"top": 1, "quote": "USDT"}, ["ETHUSDT"]),
        ({"top": 1, "symbols": ["BTCUSDT", "OLDUSDT"]}, ["BTCUSDT"]),
        # A list may name what does not trade, in its own order; the filters hold for it as well.
        ({"symbols": ["OLDUSDT", "ETHBTC", "NOPE"]}, ["OLDUSDT", "ETHBTC"]),
        ({"symbols": ["OLDUSDT", "ETHBTC"], "symbol_endswith": "USDT"}, ["OLDUSDT"]),
        ({"symbols": ["OLDUSDT", "ETHBTC"], "symbols_filter": ["OLDUSDT"]}, ["ETHBTC"]),
    ],
)
def test_filters_mean_what_they_always_meant(settings: dict[str, Any], wanted: list[str]) -> None:
    assert universe(**settings).wanted(info(STATUSES)) == wanted
    assert universe(**settings).at_start(info(STATUSES)) == wanted


PAIRS = {"BTCUSD_PERP": "BTCUSD", "BTCUSD_270326": "BTCUSD"}


@pytest.mark.parametrize(
    ("price", "symbol", "message"),
    [
        ("trade", "BTCUSD", "symbols cannot be `BTCUSD`, which is a pair; its symbols: BTCUSD_PERP BTCUSD_270326"),
        ("mark", "BTCUSD", "symbols cannot be `BTCUSD`, which is a pair; its symbols: BTCUSD_PERP BTCUSD_270326"),
        (
            "index",
            "BTCUSD_PERP",
            "symbols cannot be `BTCUSD_PERP` with price `index`: an index is of a pair, here `BTCUSD`",
        ),
    ],
)
def test_a_pair_is_no_symbol_and_a_symbol_no_pair(price: Any, symbol: str, message: str) -> None:
    statuses = dict.fromkeys(["BTCUSD"] if price == "index" else PAIRS, "TRADING")
    listed = ExchangeInfo(statuses, 2400, 60.0, pairs=PAIRS)
    with pytest.raises(ConfigError) as caught:
        universe(market="CM", price=price, symbols=[next(iter(statuses)), symbol]).at_start(listed)
    assert str(caught.value) == message


def test_of_a_former_collector_only_what_this_one_could_have_carried_stays() -> None:
    listed = info(STATUSES)
    assert universe().keeps("GONEUSDT", listed)
    assert not universe(symbol_endswith="USDT").keeps("ETHBTC", listed)
    assert universe(symbols=["GONEUSDT"]).keeps("GONEUSDT", listed)
    assert not universe(symbols=["GONEUSDT"]).keeps("BTCUSDT", listed)
    assert universe(quote="USDT").keeps("GONEUSDT", listed)
    assert not universe(quote="USDT").keeps("ETHBTC", listed)
    # One that lost its rank meanwhile keeps its rows.
    assert universe(top=1).keeps("BTCUSDT", listed)


@pytest.mark.parametrize("settings", [{"symbol_endswith": "EUR"}, {"symbols": ["NOPE"]}])
def test_nothing_left_is_a_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="symbols"):
        universe(**settings).at_start(info(STATUSES))


def test_a_quote_that_nothing_has_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"quote is `USD`, and there are: BTC USDT$"):
        universe(quote="USD").at_start(info(STATUSES))


def test_a_symbol_by_hand_counts_for_more_than_a_filter_and_a_removal_for_most() -> None:
    wanted = universe(symbol_endswith="BTC")
    wanted.add(["OLDUSDT", "SOONUSDT"])
    assert wanted.wanted(info(STATUSES)) == ["ETHBTC", "OLDUSDT"]
    assert wanted.unlisted(info(STATUSES)) == ["SOONUSDT"]

    wanted.remove(["ETHBTC", "SOONUSDT"])
    assert wanted.wanted(info(STATUSES)) == ["OLDUSDT"]
    assert not wanted.unlisted(info(STATUSES))
    assert wanted.is_removed("ETHBTC", info(STATUSES))

    wanted.add(["ETHBTC"])
    assert wanted.wanted(info(STATUSES)) == ["ETHBTC", "OLDUSDT"]


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, 16),
        ({"symbols": ["BTCUSDT"]}, 0),
        ({"symbols": ["BTCUSDT", "SOONUSDT"]}, 1),
        ({"spare_symbols": 3}, 3),
        ({"symbols": ["BTCUSDT"], "spare_symbols": 5}, 5),
    ],
)
def test_places_are_kept_for_what_may_come(settings: dict[str, Any], places: int) -> None:
    assert universe(**settings).spare_places(info(STATUSES)) == places


def test_a_tenth_more_places_for_a_large_market() -> None:
    assert universe().spare_places(info({f"S{number}USDT": "TRADING" for number in range(400)})) == 40


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        ({}, "lists 0 symbols instead of 4"),
        ({"BTCUSDT": "TRADING"}, "lists 1 symbols instead of 4"),
        (dict.fromkeys(STATUSES, "BREAK") | {"BTCUSDT": "TRADING"}, "trades 1 symbols instead of 3"),
        ({"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}, None),
        (STATUSES | {"NEWUSDT": "TRADING"}, None),
        (STATUSES | dict.fromkeys(map(str, range(1001)), "BREAK"), "lists 1005 symbols instead of 4"),
    ],
)
def test_a_list_that_lost_most_of_its_symbols_or_gained_thousands_is_suspect(
    statuses: dict[str, str], text: str | None
) -> None:
    reason = implausibility(info(STATUSES), info(statuses))

    assert (reason is None) == (text is None)
    assert text is None or text in (reason or "")
