"""What readers are shown of a cluster: who is alone, how long nothing came, and what the leaders of a host spend."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing

import pytest

pytest.importorskip("nats")

import candleshm
from candleshm._core import Shadow, Writer, shard_of
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.member import Member, Stance
from candleshm.cluster.replica import Replica
from candleshm.cluster.shard_position import ShardPosition
from candleshm.config import CollectorConfig
from candleshm.reader.figures import lag_text, role_of
from tests.support.nats_servers import nats_server
from tests.support.telling import reaching

SYMBOLS = ["BTCUSDT", "ETHUSDT", "LINKUSDT", "AVAXUSDT", "BNBUSDT", "SOLUSDT"]


def open_block(name: str) -> Writer:
    return Writer.open(name, market="SPOT", interval="1m", length=120, symbols=SYMBOLS)


def test_a_member_is_alone_once_and_its_block_says_so(block_name: str, caplog: pytest.LogCaptureFixture) -> None:
    config = CollectorConfig(market="SPOT", symbols=SYMBOLS, name=block_name)
    with ExitStack() as stack:
        server = stack.enter_context(nats_server())
        connection = stack.enter_context(ClusterConnection(reaching(server), "test"))
        writer = stack.enter_context(closing(open_block(block_name)))
        feed = stack.enter_context(candleshm.attach(block_name))
        member = Member(connection, config, feed=block_name)
        replica = Replica(
            connection,
            member._subjects,
            writer,
            shards=1,
            source=f"{socket.gethostname()}/{os.getpid()}",
            held_until_ns=lambda shard: 0,
            missing=lambda symbols: None,
        )
        stack.callback(replica.close)
        shown = []
        for stance in (
            Stance({0: 1}),
            # Its lease may be over: others may lead already.
            Stance({0: 1}, is_held=False),
            Stance({0: 1}),
            Stance({0: 1}, is_held=False),
            Stance({0: 1}, is_alone=True),
            # The servers are there again, and the lease is not.
            Stance({}, is_alone=True),
            Stance({0: 3}, is_alone=True),
            Stance({0: 3}),
        ):
            member._stand(stance, replica)
            shown.append((role_of(feed.health), feed.health.epoch))
    assert shown == [
        ("leader", 1),
        ("alone", None),
        ("leader", 1),
        ("alone", None),
        ("alone", None),
        ("alone", None),
        ("alone", None),
        ("leader", 3),
    ]
    assert caplog.text.count("this host collects everything for itself") == 1


def test_leaders_of_one_host_spend_one_weight(block_name: str) -> None:
    """Two collectors of a host lead a shard each; that of another host has an address of its own."""
    shards = 3
    assert {shard_of(symbol, shards) for symbol in SYMBOLS} == set(range(shards))
    with ExitStack() as stack:
        copy = stack.enter_context(closing(open_block(f"{block_name}-copy")))
        copy.follow(shards, [])
        for shard, (source, used) in enumerate([("h1/1", 275), ("h1/2", 260), ("h2/1", 40)]):
            name = f"{block_name}-{shard}"
            leader = stack.enter_context(closing(open_block(name)))
            leader.set_health(ready=True, weight_used=used, weight_limit=6000, banned_until_ms=None)
            shadow = Shadow(name, shards, source)
            shadow.lead(shard, 1)
            for _, message in [*shadow.collect(), *shadow.heartbeat()]:
                assert copy.apply(message, 0).refused is None
        health = stack.enter_context(candleshm.attach(f"{block_name}-copy")).health
    assert (health.weight_used, health.weight_limit) == (315, 12000)


def test_the_lag_of_a_silent_leader_grows() -> None:
    position = ShardPosition()
    assert position.lag_seconds(10**9) is None
    position.lag_ns, position.received_ns = 3_000_000, 10**9
    assert position.lag_seconds(3 * 10**9) == 0.003
    assert position.lag_seconds(61 * 10**9) == 60.003
    assert [lag_text(seconds) for seconds in (0.003, 1.5, 31.0)] == ["3 ms", "1.5 s", "nothing for 31.0 s"]
