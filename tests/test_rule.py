"""A rule is checked as a whole before anything starts, and the error says which setting and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from candleshm.compat.rule import CandleRule, check_rule
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Market

DEFAULTS: dict[str, Any] = {
    "SERVER_WEIGHT": 0.75,
    "SYMBOLS": "all",
    "SYMBOLS_FILTER": [],
    "SYMBOL_CONTAINS": "",
    "SYMBOL_ENDSWITH": "",
    "BAR": "1m",
    "TIMEZONE": "America/New_York",
    "CANDLE_DIR": "./CANDLELITE_DATA/BINANCE",
    "DOWNLOAD_TIME": "00:10:00",
    "LENGTH": 2880,
    "UPDATE_INTERVAL_SECONDS": 3,
    "CACHE_DELAY_SECONDS": 3600,
    "CACHE_DIR": "./BINANCE_CACHE",
    "LOCAL_CANDLE_DAYS": 2,
    "KEY": None,
    "SECRET": None,
    "LOG_DIRPATH": "./BINANCE_CANDLE_SERVER_LOG_DATA",
    "LOG_FILE_LEVEL": "INFO",
    "LOG_CONSOLE_LEVEL": "DEBUG",
}


def rule(**settings: Any) -> type[CandleRule]:
    """Return a subclass with these attributes."""
    return type("MyRule", (CandleRule,), settings)


def test_names_and_defaults_are_the_known_ones() -> None:
    assert {name: getattr(CandleRule, name) for name in dir(CandleRule) if name.isupper()} == DEFAULTS
    check_rule(CandleRule, "SPOT")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_WEIGHT", 1),
        ("SERVER_WEIGHT", 0.01),
        ("SYMBOLS", "ALL"),
        ("SYMBOLS", ["BTCUSDT"]),
        ("SYMBOLS", ("BTCUSDT", "ETHUSDT")),
        ("SYMBOLS_FILTER", ["BTCUSDT"]),
        ("SYMBOL_CONTAINS", "USD"),
        ("SYMBOL_ENDSWITH", "USDT"),
        ("BAR", "1s"),
        ("BAR", "1M"),
        ("TIMEZONE", "Asia/Shanghai"),
        ("TIMEZONE", "UTC"),
        ("CANDLE_DIR", Path("candles")),
        ("DOWNLOAD_TIME", "23:59:59"),
        ("DOWNLOAD_TIME", None),
        ("LENGTH", 2),
        ("LENGTH", 100_000),
        ("UPDATE_INTERVAL_SECONDS", 0.25),
        ("CACHE_DELAY_SECONDS", None),
        ("CACHE_DELAY_SECONDS", 0.5),
        ("LOCAL_CANDLE_DAYS", 0),
        ("LOCAL_CANDLE_DAYS", None),
        ("KEY", "k"),
        ("SECRET", "s"),
        ("LOG_FILE_LEVEL", "warning"),
        ("LOG_CONSOLE_LEVEL", "CRITICAL"),
    ],
)
def test_what_is_allowed_passes(name: str, value: Any) -> None:
    check_rule(rule(**{name: value}), "SPOT")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("SERVER_WEIGHT", 0, "above 0, at most 1"),
        ("SERVER_WEIGHT", 1.01, "above 0, at most 1"),
        ("SERVER_WEIGHT", "0.5", "above 0, at most 1"),
        ("SERVER_WEIGHT", True, "above 0, at most 1"),
        ("SERVER_WEIGHT", float("nan"), "above 0, at most 1"),
        ("SYMBOLS", "BTCUSDT", "'all', or a list"),
        ("SYMBOLS", [], "at least one"),
        ("SYMBOLS", ["BTCUSDT", 5], "at least one"),
        ("SYMBOLS", [""], "at least one"),
        ("SYMBOLS", None, "'all', or a list"),
        ("SYMBOLS_FILTER", "BTCUSDT", "a list"),
        ("SYMBOLS_FILTER", [None], "a list"),
        ("SYMBOLS_FILTER", None, "a list"),
        ("SYMBOL_CONTAINS", None, "a text"),
        ("SYMBOL_CONTAINS", ["USD"], "a text"),
        ("SYMBOL_ENDSWITH", 5, "a text"),
        ("BAR", "2m", "1m 3m 5m"),
        ("BAR", "1min", "1m 3m 5m"),
        ("BAR", 60, "1m 3m 5m"),
        ("TIMEZONE", "America/NewYork", "did you mean America/New_York?"),
        ("TIMEZONE", "", "IANA"),
        ("TIMEZONE", "../etc/localtime", "IANA"),
        ("TIMEZONE", 8, "IANA"),
        ("TIMEZONE", None, "IANA"),
        ("CANDLE_DIR", "", "a path"),
        ("CANDLE_DIR", None, "a path"),
        ("DOWNLOAD_TIME", "24:00:00", "HH:MM:SS"),
        ("DOWNLOAD_TIME", "0:10:00", "HH:MM:SS"),
        ("DOWNLOAD_TIME", "00:10", "HH:MM:SS"),
        ("DOWNLOAD_TIME", "auto", "HH:MM:SS"),
        ("DOWNLOAD_TIME", 600, "HH:MM:SS"),
        ("LENGTH", 1, "2 to 100000"),
        ("LENGTH", 100_001, "2 to 100000"),
        ("LENGTH", 1440.0, "2 to 100000"),
        ("LENGTH", True, "2 to 100000"),
        ("UPDATE_INTERVAL_SECONDS", 0, "above 0"),
        ("UPDATE_INTERVAL_SECONDS", float("inf"), "above 0"),
        ("UPDATE_INTERVAL_SECONDS", "3", "above 0"),
        ("CACHE_DELAY_SECONDS", 0, "above 0, or None"),
        ("CACHE_DELAY_SECONDS", -1, "above 0, or None"),
        ("CACHE_DIR", b"cache", "a path"),
        ("LOCAL_CANDLE_DAYS", -1, "0 to 10000, or None"),
        ("LOCAL_CANDLE_DAYS", 1.5, "0 to 10000, or None"),
        ("LOG_DIRPATH", "", "a path"),
        ("LOG_DIRPATH", "a\0b", "a path"),
        ("LOG_FILE_LEVEL", "LOUD", "DEBUG | INFO"),
        ("LOG_CONSOLE_LEVEL", 10, "DEBUG | INFO"),
    ],
)
def test_a_wrong_value_names_setting_value_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rule(rule(**{name: value}), "SPOT")

    assert f"MyRule.{name} cannot be `{value}`" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize("name", ["KEY", "SECRET"])
def test_secrets_are_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        check_rule(rule(**{name: b"hush"}), "SPOT")

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SYMBOL_FILTER", "SYMBOLS_FILTER"),
        ("LENGHT", "LENGTH"),
        ("SYMBOLS_CONTAINS", "SYMBOL_CONTAINS"),
        ("UPDATE_INTERVAL", "UPDATE_INTERVAL_SECONDS"),
    ],
)
def test_an_unknown_name_in_capitals_gets_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"MyRule.{name} is not a setting") as caught:
        check_rule(rule(**{name: 1}), "SPOT")

    assert f"nearest is {nearest} " in str(caught.value)


def test_an_unknown_name_is_found_in_a_mixin_too() -> None:
    mixin = type("Shared", (), {"LENGHT": 5})

    with pytest.raises(ConfigError, match="LENGHT"):
        check_rule(type("MyRule", (mixin, CandleRule), {}), "SPOT")


def test_other_attributes_are_the_users_own() -> None:
    check_rule(rule(note="mine", Threshold=3, _PRIVATE=1, describe=lambda self: "mine"), "SPOT")


def test_an_instance_is_checked_with_what_was_set_on_it() -> None:
    settings = rule(LENGTH=100)()
    check_rule(settings, "SPOT")
    vars(settings)["LENGTH"] = 0

    with pytest.raises(ConfigError, match=r"MyRule\.LENGTH"):
        check_rule(settings, "SPOT")


@pytest.mark.parametrize("wrong", [None, dict, {"LENGTH": 100}, type("MyRule", (), {"LENGTH": 100})])
def test_a_rule_is_a_subclass_of_candle_rule(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="a subclass of CandleRule"):
        check_rule(wrong, "SPOT")


@pytest.mark.parametrize("market", ["UM", "CM"])
def test_seconds_are_spot_only(market: Market) -> None:
    with pytest.raises(ConfigError, match=r"MyRule\.BAR cannot be `1s`; allowed: 1m"):
        check_rule(rule(BAR="1s"), market)
