"""The network that cluster tests run on: hosts reach each other, and each fault does what it says, one way or both."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.cluster_hosts import NETNS, Host, Network, needs_root, network
from tests.support.nats_servers import nats_cluster

pytestmark = needs_root


@contextmanager
def echo(host: Host) -> Iterator[socket.socket]:
    """Send back each datagram that reaches this host."""

    def serve() -> None:
        with listener:
            while True:
                data, peer = listener.recvfrom(100)
                listener.sendto(data, peer)
                if data == b"end":
                    return

    with host.inside():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((host.address, 5000))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener
    with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"end", (host.address, 5000))
    thread.join()


def returned(sender: Host, receiver: Host, count: int = 1, patience_seconds: float = 0.3) -> int:
    """Return how many of so many datagrams came back."""
    with sender.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patience_seconds)
        for number in range(count):
            client.sendto(str(number).encode(), (receiver.address, 5000))
        seen = 0
        while seen < count:
            try:
                client.recv(100)
            except TimeoutError:
                break
            seen += 1
        return seen


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def test_hosts_reach_each_other_until_a_cable_is_cut(net: Network) -> None:
    first, second, third = (net.host() for _ in range(3))
    with echo(second):
        assert returned(first, second, patience_seconds=30) == 1
        first.cut(second)
        assert returned(first, second) == 0
        assert returned(third, second, patience_seconds=30) == 1
        assert returned(net.middle, second, patience_seconds=30) == 1
        first.mend()
        assert returned(first, second, patience_seconds=30) == 1
        second.cut()
        assert returned(third, second) == 0
        assert returned(second, second, patience_seconds=30) == 1
        second.mend()


def test_a_cable_can_be_cut_in_one_direction(net: Network) -> None:
    first, second = net.host(), net.host()
    with echo(second), first.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.bind((first.address, 6000))
        first.cut(second, direction="in")
        client.sendto(b"there", (second.address, 5000))
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(100)
        first.mend()
        second.cut(first, direction="in")
        assert returned(first, second) == 0
        second.mend()
        assert returned(first, second, patience_seconds=30) == 1


def test_a_cable_loses_some_and_not_all(net: Network) -> None:
    first, second = net.host(), net.host()
    with echo(second):
        assert returned(first, second, patience_seconds=30) == 1  # who has the address is known from here on
        first.lose(30, "out")
        seen = returned(first, second, 200)
        assert 0 < seen < 200
        first.mend()
        assert returned(first, second, 20, patience_seconds=30) == 20


def test_a_slow_cable_takes_its_time_and_loses_nothing(net: Network) -> None:
    first, second = net.host(), net.host(delay_seconds=0.1)
    with echo(second):
        began = time.monotonic()
        assert returned(first, second, 20, patience_seconds=30) == 20
        # There, and back; the question of who has the address went the same way first.
        assert time.monotonic() - began >= 0.2


def test_commands_run_on_their_host_and_nothing_is_left_behind() -> None:
    with network() as net:
        host = net.host()
        shown = subprocess.run(host.command(["ip", "-brief", "address"]), capture_output=True, text=True, check=True)
        assert host.address in shown.stdout
        told = subprocess.run(host.command(["hostname"]), capture_output=True, text=True, check=True)
        assert told.stdout == f"{host.name}\n" == "h1\n"
        names = [host.namespace, net.middle.namespace]
        assert all((NETNS / name).exists() for name in names)
    assert not any((NETNS / name).exists() for name in names)


def test_servers_on_three_hosts_are_one_cluster(net: Network) -> None:
    hosts = [net.host() for _ in range(3)]
    with nats_cluster(hosts) as servers:
        assert {server.monitor("varz")["cluster"]["name"] for server in servers} == {"test"}
        assert {server.place.address for server in servers} == {host.address for host in hosts}
