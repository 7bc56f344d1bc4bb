"""A feed in three shards, a leader of one of them killed: every host ends with the exchange's rows of all shards."""

from __future__ import annotations

from pathlib import Path

from candleshm._core import shard_of
from tests.support.running_cluster import RunningCluster, running_cluster, until

SHARDS = 3
# Two of each shard.
SYMBOLS = ("BTCUSDT", "ETHUSDT", "LINKUSDT", "AVAXUSDT", "BNBUSDT", "SOLUSDT")


def leaders_of(cluster: RunningCluster) -> dict[str, set[str]]:
    """Return which shards the block of each collector leads, as `cluster status` shows it."""
    present = cluster.status()["present"]
    return {each["block"]: set(each["epochs"]) for each in present if each["role"] != "mirror"}


def is_divided(cluster: RunningCluster) -> bool:
    """Return whether every shard has a leader, one or two at each collector that runs."""
    running = {member.block for member in cluster.collectors if member.process is not None}
    led = leaders_of(cluster)
    return (
        led.keys() >= running
        and all(led[block] for block in running)
        and set().union(*(led[block] for block in running)) == {str(shard) for shard in range(SHARDS)}
    )


def test_a_killed_leader_of_a_shard_loses_no_row_of_any(block_name: str, tmp_path: Path) -> None:
    assert {shard_of(symbol, SHARDS) for symbol in SYMBOLS} == set(range(SHARDS))
    more = ("--shards", str(SHARDS))
    with running_cluster(block_name, tmp_path, symbols=SYMBOLS) as cluster:
        first = cluster.collect(*more)
        second = cluster.collect(*more)
        mirror = cluster.mirror()
        cluster.until_equal()
        until(lambda: is_divided(cluster), cluster.describe)
        # One address: what its exchange counts is not counted twice.
        limits = {member.feed.health.weight_limit for member in (first, second, mirror)}
        assert len(limits) == 1, limits
        first.kill()
        cluster.until_equal(second, mirror)
        until(lambda: is_divided(cluster), cluster.describe)
        assert leaders_of(cluster)[second.block] == {"0", "1", "2"}
        first.start()
        cluster.until_equal()
        until(lambda: is_divided(cluster), cluster.describe)
        cluster.until_equal()
