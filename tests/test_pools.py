"""Which requests spend from one pool, and which do not."""

from __future__ import annotations

import pytest

from candleshm.config import CollectorConfig
from candleshm.ratelimit.ledger import ledger_path
from candleshm.ratelimit.pools import pool_of


def pool(**settings: object) -> tuple[str, ...]:
    return pool_of(CollectorConfig(**({"market": "SPOT"} | settings)))  # type: ignore[arg-type]


def test_a_pool_is_a_way_out_and_a_family_of_markets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:1")
    different = [
        pool(),
        pool(market="UM"),
        pool(proxies={"https": "http://a:1"}),
        pool(proxies={"https": "http://b:1"}),
        pool(proxy_host="http://a:1"),
        pool(base_url="http://a:1"),
        pool(base_url="http://b:1"),
        pool(base_url="http://a:1", market="UM"),
        pool(base_url="https://testnet.binance.vision"),
        pool(trust_env=True),
    ]
    assert len(set(different)) == len(different)
    assert len(set(map(ledger_path, different))) == len(different)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"market": "UM"}, {"market": "CM", "interval": "5m", "name": "other"}),
        ({}, {"interval": "1h"}),
        ({}, {"base_url": "https://api.binance.com"}),
        ({}, {"base_url": "https://API3.binance.com/"}),
        ({}, {"base_url": "https://data-api.binance.vision"}),
        # requests does not take a proxy for another scheme than that of the address.
        ({}, {"proxies": {"http": "http://a:1"}}),
        ({}, {"trust_env": True}),
        ({"proxies": {"https": "http://a:1"}}, {"proxies": {"all": "http://A:1"}}),
        ({"proxies": {"https": "http://name:secret@a"}}, {"proxies": {"https": "http://a:80"}}),
        ({"base_url": "http://name:secret@a:1"}, {"base_url": "http://a:1/"}),
    ],
)
def test_different_words_for_the_same_pool(
    one: dict[str, object], other: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert pool(**one) == pool(**other)
    assert "secret" not in "".join(pool(**one))
