"""Processes of a cluster are killed and stopped, one by one and together; afterwards every host has the true rows.

Each test ends with what `RunningCluster` demands at any time: no reader, on any host and at any moment, was shown a
final row that the exchange does not have, and no close woke a reader twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.nats_servers import HERE, NatsServer
from tests.support.running_cluster import LENGTH, Member, RunningCluster, running_cluster, until

PAUSE_SECONDS = 10.0


@pytest.fixture
def cluster(block_name: str, tmp_path: Path) -> Iterator[RunningCluster]:
    """Give two collectors and a mirror on one node, all of them current."""
    with running_cluster(block_name, tmp_path, derived=["1m"]) as running:
        started(running)
        yield running


@pytest.fixture
def three_nodes(block_name: str, tmp_path: Path) -> Iterator[RunningCluster]:
    """Give the same on three nodes."""
    with running_cluster(block_name, tmp_path, places=(HERE,) * 3) as running:
        started(running, "--cluster-replicas", "3")
        yield running


def started(running: RunningCluster, *more: str) -> None:
    """Start what every test has."""
    derived = ["--derive", "1m"] if running.judge.derived else []
    running.collect(*derived, *more)
    running.collect(*derived, *more)
    running.mirror(*derived)
    running.until_equal()


def standby(cluster: RunningCluster) -> Member:
    """Return the collector that does not lead."""
    leader = cluster.leader()
    (other,) = (member for member in cluster.collectors if member is not leader)
    return other


def test_a_killed_leader_is_replaced_by_its_standby(cluster: RunningCluster) -> None:
    first, second = cluster.leader(), standby(cluster)
    epoch = cluster.mirrors[0].feed.health.epoch or 0
    first.kill()
    cluster.until_equal(second, *cluster.mirrors)
    assert cluster.leader() is second
    assert (cluster.mirrors[0].feed.health.epoch or 0) > epoch > 0
    first.start()
    cluster.until_equal()
    assert cluster.leader() is second


def test_a_leader_that_was_stopped_changes_nothing_when_it_goes_on(cluster: RunningCluster) -> None:
    first, second = cluster.leader(), standby(cluster)
    first.pause()
    cluster.until_equal(second, *cluster.mirrors)
    time.sleep(PAUSE_SECONDS)
    first.resume()
    cluster.until_equal()
    assert cluster.leader() is second


@pytest.mark.long
@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.parametrize("who", ["standby", "mirror"])
def test_a_follower_that_was_away_comes_back_complete(cluster: RunningCluster, who: str, how: str) -> None:
    member = standby(cluster) if who == "standby" else cluster.mirrors[0]
    leader = cluster.leader()
    if how == "kill":
        member.kill()
        time.sleep(PAUSE_SECONDS / 2)
        member.start()
    else:
        member.pause()
        time.sleep(PAUSE_SECONDS)
        member.resume()
    cluster.until_equal()
    assert cluster.leader() is leader


@pytest.mark.long
def test_all_members_are_killed_and_come_back(cluster: RunningCluster) -> None:
    for member in cluster.members:
        member.kill()
    time.sleep(3)
    for member in reversed(cluster.members):
        member.start()
    cluster.until_equal()


def killed(servers: list[NatsServer]) -> None:
    for server in servers:
        server.kill()
    time.sleep(PAUSE_SECONDS / 2)
    for server in servers:
        server.start()


def paused(servers: list[NatsServer]) -> None:
    for server in servers:
        server.pause()
    time.sleep(PAUSE_SECONDS)
    for server in servers:
        server.resume()


@pytest.mark.long
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1, 2)], ids=["first", "second", "third", "all"])
@pytest.mark.parametrize("fault", [killed, paused])
def test_nodes_fail(
    three_nodes: RunningCluster, which: tuple[int, ...], fault: Callable[[list[NatsServer]], None]
) -> None:
    fault([three_nodes.servers[index] for index in which])
    three_nodes.until_equal()


def test_a_leader_collects_for_its_own_host_while_no_node_is_there(cluster: RunningCluster) -> None:
    leader = cluster.leader()
    cluster.servers[0].kill()
    cluster.until_equal(leader, seconds=5)
    mirror = cluster.mirrors[0].feed[cluster.symbols[0]]
    rows = len(mirror.candles())
    until(lambda: mirror.age > 5, cluster.describe)
    assert len(mirror.candles()) == rows == LENGTH
    cluster.servers[0].start()
    cluster.until_equal()


@pytest.mark.long
def test_a_node_that_lost_everything_is_filled_anew(cluster: RunningCluster) -> None:
    server = cluster.servers[0]
    server.kill()
    for path in sorted(server.store.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    server.start()
    cluster.until_equal()
