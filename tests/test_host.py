"""Several feeds in one process: together they spend no more than one pool allows, and they start and end together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest

import candleshm
from candleshm.collector.status import CollectorStatus
from candleshm.collector.supervisor import Supervisor
from candleshm.config import CollectorConfig
from candleshm.errors import BlockNotFound, ConfigError
from candleshm.sim import SimulatedExchange, rate_limited
from tests.support.collecting import DEADLINE_SECONDS, assert_complete_and_true, config_of, until


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def test_feeds_of_two_markets_are_served_side_by_side(exchange: SimulatedExchange, block_name: str) -> None:
    feeds = [
        config_of(exchange, f"{block_name}-spot"),
        config_of(exchange, f"{block_name}-um", market="UM", interval="5m"),
    ]
    with Supervisor(feeds) as host:
        heard: list[Mapping[str, CollectorStatus | None]] = []
        assert host.wait_loaded(DEADLINE_SECONDS, heard.append)
        assert list(host.statuses()) == [config.block_name for config in feeds]
        assert all(status is not None and status.ready for status in host.statuses().values())
        assert heard
        for config in feeds:
            with candleshm.attach(config.block_name) as feed:
                assert_complete_and_true(exchange, feed)
    for config in feeds:
        with pytest.raises(BlockNotFound):
            candleshm.attach(config.block_name)


def test_feeds_of_one_pool_keep_its_budget_together(block_name: str) -> None:
    with SimulatedExchange(symbols=30, spot_limit=450) as exchange:
        feeds = [
            config_of(exchange, f"{block_name}-{interval}", symbols="all", interval=interval, length=2880)
            for interval in ("1m", "5m")
        ]
        with Supervisor(feeds) as host:
            assert not host.wait_loaded(3.0)
            statuses = host.statuses()
        peak = exchange.stats().pools["SPOT"].peak_60s
    assert exchange.stats().count(status=429) == 0
    assert 40 <= peak <= 450 * 0.75
    assert all(status is not None and status.rows > 0 for status in statuses.values())


def test_a_429_of_one_feed_stops_its_pool_and_no_other(exchange: SimulatedExchange, block_name: str) -> None:
    feeds = [
        config_of(exchange, f"{block_name}-1s", interval="1s", workers=1),
        config_of(exchange, f"{block_name}-1m", workers=1),
        config_of(exchange, f"{block_name}-um", market="UM", workers=1),
    ]
    with Supervisor(feeds) as host:
        assert host.wait_loaded(DEADLINE_SECONDS)
        exchange.faults.add(rate_limited(3, path="/api/v3/klines", count=1))
        until(lambda: exchange.stats().count(status=429))
        refused_ms = next(one.received_ms for one in exchange.served() if one.status == 429)
        until(lambda: any("/api/v3" in one.target and one.received_ms > refused_ms + 2500 for one in exchange.served()))
        with candleshm.attach(feeds[0].block_name) as feed:
            feed.wait_closed(timeout=DEADLINE_SECONDS)
            until(lambda: feed.health.missing == 0)
            assert_complete_and_true(exchange, feed)
        later = [one for one in exchange.served() if refused_ms < one.received_ms < refused_ms + 2900]
        # What the other feed had on its way counts for no more than its one worker.
        assert len([one for one in later if "/api/v3/klines" in one.target]) <= 1
        assert len([one for one in later if "/fapi/v1/klines" in one.target]) >= 3
        assert exchange.stats().count(status=429) == 1


def test_run_ends_when_told_and_when_a_feed_cannot_start(exchange: SimulatedExchange, block_name: str) -> None:
    good, end = config_of(exchange, f"{block_name}-good"), threading.Event()
    host = Supervisor([good])
    running = threading.Thread(target=host.run, args=(end,))
    running.start()
    until(lambda: host.statuses()[good.block_name])
    end.set()
    running.join(DEADLINE_SECONDS)
    assert not running.is_alive()

    bad = config_of(exchange, f"{block_name}-bad", symbols=["NOPE"])
    with pytest.raises(ConfigError, match="lists none of"):
        Supervisor([good, bad]).run(threading.Event())
    with pytest.raises(BlockNotFound):
        candleshm.attach(good.block_name)


def test_feeds_need_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match="two blocks have the name `candleshm-spot-1m`"):
        Supervisor([CollectorConfig(market="SPOT"), CollectorConfig(market="SPOT", symbols=["BTCUSDT"])])
    with pytest.raises(ConfigError, match="feeds cannot be empty"):
        Supervisor([])
