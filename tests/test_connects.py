"""New stream connections: the exchange counts them by address, so all feeds and processes share one budget."""

from __future__ import annotations

import math

import pytest

from candleshm.config import CollectorConfig
from candleshm.exchanges.binance import Binance
from candleshm.ratelimit.pools import connects_of, open_connects
from candleshm.stream.connects import Connects
from candleshm.system.clock import SystemClock

RULES = Binance("SPOT").stream_rules("1m")


def feeds(count: int) -> list[Connects]:
    """Return feeds of one host, each with a file of its own as another process would have."""
    config = CollectorConfig(market="SPOT", ws_url="ws://127.0.0.1:1")
    return [Connects(RULES, open_connects(config, RULES, SystemClock())) for _ in range(count)]


def test_eight_feeds_that_flap_stay_within_what_an_address_may() -> None:
    now, eight = SystemClock().monotonic_seconds(), feeds(8)
    taken: list[list[float]] = [[] for _ in eight]
    for step in range(3000):
        moment = now + step / 5
        for place, feed in enumerate(eight):
            if feed.take(moment):
                taken[place].append(moment)
    moments = sorted(moment for times in taken for moment in times)
    for moment in moments:
        assert sum(moment - 300 < other <= moment for other in moments) <= 300
    assert len(moments) > 400
    # None is starved by the others.
    assert min(map(len, taken)) > 40


def test_a_refused_connection_stops_those_of_all_feeds() -> None:
    now = SystemClock().monotonic_seconds()
    one, other = feeds(2)
    assert other.take(now)
    one.stop(60.0, now)
    assert not other.take(now + 1)
    assert other.take(now + 62)


def test_without_a_budget_a_feed_has_its_part() -> None:
    alone = Connects(RULES)
    assert sum(alone.take(0.0) for _ in range(100)) == 60
    assert not alone.take(math.nextafter(300.0, 0.0))
    assert alone.take(300.0)


def test_hosts_of_the_exchange_s_own_share_what_others_have_for_themselves() -> None:
    def pool(**settings: object) -> tuple[str, ...]:
        return connects_of(CollectorConfig(**({"market": "SPOT"} | settings)))  # type: ignore[arg-type]

    assert pool() == pool(ws_url="wss://stream.binance.com:443")
    assert len({pool(), pool(market="UM"), pool(ws_url="ws://a:1"), pool(ws_url="ws://b:1")}) == 4
    assert pool(market="UM") == pool(market="CM")


def test_each_proxy_has_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(**settings: object) -> tuple[str, ...]:
        return connects_of(CollectorConfig(**({"market": "SPOT"} | settings)))  # type: ignore[arg-type]

    monkeypatch.setenv("https_proxy", "http://environment:1")
    proxies = [{}, {"https": "http://a:1"}, {"https": "http://b:1"}]
    assert len({*(pool(proxies=each) for each in proxies), pool(trust_env=True)}) == 4
    assert pool(proxies={"https": "http://me:secret@a:1"}) == pool(proxies={"all": "http://a:1"})
