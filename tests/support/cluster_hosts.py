"""Hosts as network namespaces on one switch: each has an address, and its cable can be cut, can lose and can delay.

A host is a network namespace. Its processes share everything else with the machine, also `/dev/shm`, so blocks of two
hosts need two names. Sockets are in the namespace of the thread that opens them: what runs in the test process goes
there with `Host.inside`. All namespaces belong to a test run, and none of them reaches the machine's own network.
It needs root, iproute2 and nftables.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.support.apt import installed
from tests.support.slow_cable import SlowCable

__all__ = ["Direction", "Host", "Network", "needs_root", "network"]

Direction = Literal["out", "in", "both"]
SUBNET = "10.77.0"
NETNS = Path("/run/netns")
PROGRAMS = {"ip": "iproute2", "nft": "nftables"}
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


class Host:
    """A namespace with one address, beside the others on the switch."""

    def __init__(self, namespace: str, address: str, switch: Host | None = None) -> None:
        self.namespace = namespace
        self.address = address
        self.name = namespace.rpartition("-")[2]
        """What its processes are told that the host is called."""
        self._switch = switch

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words that run a command on this host; the process is the command's own."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self.namespace, *named, *words]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Open sockets of the calling thread on this host; threads that it starts meanwhile stay there."""
        with open("/proc/thread-self/ns/net", "rb") as before, open(NETNS / self.namespace, "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def cut(self, *others: Host, direction: Direction = "both") -> None:
        """Drop all that this host sends (`out`) to `others` and gets from them (`in`); without `others`, of everybody.

        It happens at the switch: nobody is told, and connections stay open.
        """
        self._drop([f"ip {{end}} {other.address}" for other in others] or [""], direction)

    def lose(self, percent: int, direction: Direction = "both") -> None:
        """Drop so many packets of a hundred, at random."""
        self._drop([f"numgen random mod 100 < {percent}"], direction)

    def mend(self) -> None:
        """Undo all that `cut` and `lose` did to this host."""
        self._rule("flush", "table", "netdev", self._cable)

    def _drop(self, conditions: Sequence[str], direction: Direction) -> None:
        for chain, end in (("out", "daddr"), ("in", "saddr")):
            if direction in (chain, "both"):
                for condition in conditions:
                    self._rule("add", "rule", "netdev", self._cable, chain, *condition.format(end=end).split(), "drop")

    def _rule(self, *words: str) -> None:
        assert self._switch is not None, "the switch has no cable"
        run(*self._switch.command(["nft", *words]))

    @property
    def _cable(self) -> str:
        return f"cable{self.address.rpartition('.')[2]}"


class Network:
    """A switch, which is a host as well, and what is plugged into it."""

    def __init__(self, label: str, stack: ExitStack) -> None:
        self._label = label
        self._stack = stack
        self._addresses = itertools.count(2)
        self.middle = Host(f"{label}-switch", f"{SUBNET}.1")
        """The switch itself: a place for the exchange, and for whatever is to reach everybody."""
        self._namespace(self.middle)
        run(*self.middle.command(["ip", "link", "add", "name", "switch", "type", "bridge"]))
        # Without a wait for other bridges, of which there are none.
        run(*self.middle.command(["ip", "link", "set", "switch", "type", "bridge", "forward_delay", "0"]))
        self._address(self.middle, "switch")

    def host(self, *, delay_seconds: float = 0.0) -> Host:
        """Plug a host in. With a delay, each packet to it or from it takes that long, by a pump of this process."""
        number = next(self._addresses)
        host = Host(f"{self._label}-h{number - 1}", f"{SUBNET}.{number}", self.middle)
        self._namespace(host)
        port = f"cable{number}"
        if delay_seconds:
            cable = SlowCable(_tap(host, "eth0"), _tap(self.middle, port), delay_seconds)
            self._stack.callback(cable.close)
        else:
            words = f"ip link add name {port} type veth peer name eth0 netns {host.namespace}"
            run(*self.middle.command(words.split()))
        run(*self.middle.command(f"ip link set {port} master switch up".split()))
        run(*self.middle.command(f"nft add table netdev {port}".split()))
        for chain, hook in (("out", "ingress"), ("in", "egress")):
            rule = f"nft add chain netdev {port} {chain} {{ type filter hook {hook} device {port} priority 0 ; }}"
            run(*self.middle.command(rule.split()))
        self._address(host, "eth0")
        return host

    def _namespace(self, host: Host) -> None:
        run("ip", "netns", "add", host.namespace)
        self._stack.callback(run, "ip", "netns", "delete", host.namespace)
        run(*host.command(["ip", "link", "set", "lo", "up"]))

    def _address(self, host: Host, device: str) -> None:
        run(*host.command(f"ip address add {host.address}/24 dev {device}".split()))
        run(*host.command(f"ip link set {device} up".split()))


@contextmanager
def network() -> Iterator[Network]:
    """Build a network of this test's own; every namespace is gone afterwards."""
    installed(PROGRAMS)
    with ExitStack() as stack:
        yield Network(f"clu-proof-{os.getpid()}-{next(_numbers)}", stack)


def run(*words: str) -> str:
    """Run a command of the system; return what it prints. Raises AssertionError with what it complains about."""
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(words)}: {result.stderr}"
    return result.stdout


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"thread {threading.current_thread().name} cannot change its network")


def _tap(host: Host, device: str) -> int:
    """Return the descriptor of a new network device of `host`, whose packets are read and written there."""
    with host.inside():
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
    return end
