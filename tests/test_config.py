"""Settings are checked before anything starts, and the error says what would be right."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError

# requests takes no notice of these, and goes directly.
UNKNOWN_KEYS: tuple[str, ...] = (
    "HTTPS",
    "htps",
    "https:",
    "https://",
    "socks5",
    "ftp",
    "no_proxy",
    "*",
    "",
    "api.binance.com",
)
UNKNOWN_KEYS += ("https://API.binance.com", "https://api.binance.com:443", "https://api.binance.com/", "all://")
UNUSABLE = ("", "http://", "ftp://h:1", "h:0", "h:99999", "http://h x:1", "socks9://h:1", "http://h:port")


def test_defaults_serve_every_symbol_of_a_market_by_the_minute() -> None:
    config = CollectorConfig(market="SPOT")

    assert config.block_name == "candleshm-spot-1m"
    assert (config.symbols, config.length, config.server_weight) == ("all", 2880, 0.75)
    assert config.settle_ms == 1000


def test_market_in_any_case_and_symbols_once_each() -> None:
    config = CollectorConfig(market="um", interval="1M", symbols=["B", "A", "B"])  # type: ignore[arg-type]

    assert config.market == "UM"
    assert config.symbols == ("B", "A")
    assert config.block_name == "candleshm-um-1M"


def test_derived_blocks_have_the_feed_s_length_or_their_own() -> None:
    config = CollectorConfig(market="UM", name="x", length=3000, derive=["1h:400", "1d@Asia/Shanghai:90", "5m"])

    assert config.derived == (("x-1h", "1h", 400), ("x-1d-Asia-Shanghai", "1d@Asia/Shanghai", 90), ("x-5m", "5m", 3000))
    assert config.block_names == ("x", "x-1h", "x-1d-Asia-Shanghai", "x-5m")


def test_another_price_is_part_of_the_names() -> None:
    config = CollectorConfig(market="CM", price="index", derive=["1h"])

    assert config.block_names == ("candleshm-cm-index-1m", "candleshm-cm-index-1h")
    assert CollectorConfig(market="CM", price="index", name="x", derive=["1h"]).block_names == ("x", "x-1h")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"market": "UM", "price": "last"}, "price cannot be `last`; allowed: trade | mark | index | premium"),
        ({"market": "spot", "price": "mark"}, "price cannot be `mark` with market SPOT; allowed there: trade"),
        ({"market": "UM", "price": "index", "contract": "PERPETUAL"}, "contract cannot be given with price `index`"),
        (
            {"market": "UM", "price": "mark", "live": "ws"},
            "no streams of price `mark` for UM; allowed here: rest | auto",
        ),
        ({"market": "CM", "price": "premium", "live": "ws"}, "no streams of price `premium` for CM"),
    ],
)
def test_a_price_that_the_market_does_not_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CollectorConfig(**settings)
    assert message in str(caught.value)
    assert CollectorConfig(market="CM", price="mark", live="ws").stream_hindrance is None


def test_settle_is_never_shortened_by_rounding() -> None:
    assert CollectorConfig(market="SPOT", settle_seconds=0.0001).settle_ms == 1


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("market", "FUTURES", "SPOT | UM | CM"),
        ("market", 3, "SPOT | UM | CM"),
        ("interval", "", "such as 1m"),
        ("symbols", [], "at least one"),
        ("symbols", "BTCUSDT", "'all'"),
        ("symbols", [""], "at least one"),
        ("symbols", ["BTCUSDT", 5], "at least one"),
        ("symbols", None, "'all'"),
        ("length", 1, "2 to 100000"),
        ("length", 100_001, "2 to 100000"),
        ("length", 2880.0, "2 to 100000"),
        ("length", True, "2 to 100000"),
        ("name", "a/b", "A-Z"),
        ("name", "..", "A-Z"),
        ("name", "", "A-Z"),
        ("name", "x" * 201, "1 to 200"),
        ("server_weight", 0, "at most 1"),
        ("server_weight", 1.01, "at most 1"),
        ("server_weight", "0.5", "at most 1"),
        ("update_interval_seconds", 0.0, "above 0"),
        ("update_interval_seconds", float("nan"), "above 0"),
        ("settle_seconds", -1, "0 to 60"),
        ("workers", 0, "1 to 64"),
        ("base_url", "api.binance.com", "http://"),
        ("base_url", "http://", "http://"),
        ("proxy_host", "ftp://host", "http://"),
        ("proxies", {"https": 8080}, "mapping"),
        ("proxies", ["https", "http://h:1"], "mapping"),
        *(("proxies", {key: "http://h:1"}, f"the key `{key}`") for key in UNKNOWN_KEYS),
        *(("proxies", {"https": address}, "for `https`") for address in UNUSABLE),
        ("trust_env", 1, "True | False"),
        ("symbols_filter", "BTCUSDT", "a list of symbols"),
        ("symbols_filter", [""], "a list of symbols"),
        ("symbol_contains", None, "a text"),
        ("symbol_endswith", ["USDT"], "a text"),
        ("spare_symbols", -1, "0 to 10000"),
        ("derive", ["5m:1"], "behind the colon: a whole number, 2 to 100000"),
        ("derive", ["5m:"], "behind the colon: a whole number, 2 to 100000"),
        ("derive", ["5m", "5m:400"], "`5m` twice"),
        ("universe_refresh_seconds", 0, "above 0"),
    ],
)
def test_a_wrong_value_names_its_field_and_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CollectorConfig(**({"market": "SPOT"} | {field: value}))

    assert field in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize("key", ["http", "https", "all", "https://api.binance.com", "all://127.0.0.1", "all://::1"])
@pytest.mark.parametrize("address", ["http://h:1", "https://me:secret@h", "h:8080", "10.0.0.1:1", "HTTP://h:1"])
def test_proxies_that_requests_takes_are_taken(key: str, address: str) -> None:
    assert CollectorConfig(market="SPOT", proxies={key: address}).proxies == {key: address}
    host = key.partition("://")[2].replace("::1", "[::1]") or "api.binance.com"
    scheme = key.partition("://")[0].replace("all", "https")
    assert requests.utils.select_proxy(f"{scheme}://{host}/api", {key: address}) == address


@pytest.mark.parametrize("key", UNKNOWN_KEYS)
def test_keys_that_are_refused_are_those_that_requests_ignores(key: str) -> None:
    assert requests.utils.select_proxy("https://api.binance.com/api/v3/time", {key: "http://h:1"}) is None


def test_a_socks_proxy_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candleshm.network.proxies.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install requests\[socks\]"):
        CollectorConfig(market="SPOT", proxies={"all": "socks5h://h:1"})
    monkeypatch.setattr("candleshm.network.proxies.importlib.util.find_spec", lambda name: object())
    assert CollectorConfig(market="SPOT", proxies={"all": "socks5h://h:1"}).proxies


def test_two_replacements_of_the_host_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="choose one"):
        CollectorConfig(market="SPOT", base_url="http://a", proxy_host="http://b")


def test_passwords_in_addresses_are_shown_nowhere() -> None:
    secret = "user:secret@host"
    config = CollectorConfig(market="SPOT", base_url=f"http://{secret}", proxies={"https": f"http://{secret}:1"})

    assert "secret" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        CollectorConfig(market="SPOT", base_url=f"{secret}:1")
    assert "secret" not in str(caught.value)
