"""Cables between the hosts of a cluster are cut, one way or both, lose packets or are slow; afterwards all is true.

Three hosts have a node and one member each: two collectors, one mirror. See `cluster_hosts` for what a host is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cluster_hosts import Direction, Host, needs_root, network
from tests.support.running_cluster import Member, RunningCluster, running_cluster

pytestmark = [needs_root, pytest.mark.long]
CUT_SECONDS = 8.0


@contextmanager
def on_hosts(
    name: str, folder: Path, delay_seconds: float = 0.0
) -> Iterator[tuple[RunningCluster, list[Host], list[Host]]]:
    """Give a cluster of three nodes on hosts of their own, and the hosts of nodes and of members, in order.

    A delay is that of each packet from a member, and of each to it.
    """
    with network() as net:
        nodes = [net.host() for _ in range(3)]
        hosts = [net.host(delay_seconds=delay_seconds) for _ in range(3)]
        with running_cluster(name, folder, places=nodes, exchange_place=net.middle) as running:
            for host in hosts[:2]:
                running.collect("--cluster-replicas", "3", place=host)
            running.mirror(place=hosts[2])
            running.until_equal()
            yield running, nodes, hosts


def host_of(member: Member, running: RunningCluster, hosts: list[Host]) -> Host:
    """Return the host of a member."""
    return hosts[running.members.index(member)]


@pytest.mark.parametrize("direction", ["both", "out", "in"])
@pytest.mark.parametrize("who", ["leader", "mirror"])
def test_a_member_is_cut_off_from_all_nodes(block_name: str, tmp_path: Path, who: str, direction: Direction) -> None:
    with on_hosts(block_name, tmp_path) as (running, nodes, hosts):
        member = running.leader() if who == "leader" else running.mirrors[0]
        host = host_of(member, running, hosts)
        host.cut(*nodes, direction=direction)
        others = [other for other in running.members if other is not member]
        # The others have a leader, be it another one; who is cut off and has the exchange collects for its own host.
        running.until_equal(*others)
        time.sleep(CUT_SECONDS)
        if who == "leader":
            running.until_equal(member)
        running.assert_no_lies()
        host.mend()
        running.until_equal()


@pytest.mark.parametrize("direction", ["both", "out"])
def test_a_node_is_cut_off_from_the_other_nodes(block_name: str, tmp_path: Path, direction: Direction) -> None:
    with on_hosts(block_name, tmp_path) as (running, nodes, _):
        nodes[0].cut(*nodes[1:], direction=direction)
        time.sleep(CUT_SECONDS)
        running.assert_no_lies()
        nodes[0].mend()
        running.until_equal()


def test_every_node_is_cut_off_from_every_other(block_name: str, tmp_path: Path) -> None:
    with on_hosts(block_name, tmp_path) as (running, nodes, _):
        for node in nodes:
            node.cut(*(other for other in nodes if other is not node))
        time.sleep(CUT_SECONDS)
        running.assert_no_lies()
        for node in nodes:
            node.mend()
        running.until_equal()


def test_rows_are_whole_and_current_while_one_packet_in_twenty_is_lost(block_name: str, tmp_path: Path) -> None:
    with on_hosts(block_name, tmp_path) as (running, nodes, _):
        for node in nodes:
            node.lose(5)
        running.until_equal(seconds=10)


def test_rows_are_whole_and_current_while_each_packet_takes_200_ms(block_name: str, tmp_path: Path) -> None:
    with on_hosts(block_name, tmp_path, delay_seconds=0.2) as (running, _, _):
        running.until_equal(seconds=10)
        running.leader().kill()
        running.until_equal(*(member for member in running.members if member.process is not None))
