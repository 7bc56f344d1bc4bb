"""Real NATS servers as processes of a test: one node or three, with TLS and users, paused, killed and restarted."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trustme

from tests.support.confined import mounted

__all__ = ["NatsServer", "Place", "Security", "nats_cluster", "nats_server", "tls_of"]

PROGRAM = Path(sys.executable).with_name("nats-server")
"""Installed by `make setup`, from tests/nats-server.txt."""
DEADLINE_SECONDS = 120.0


class Place(Protocol):
    """Where a server runs: this machine as it is, or a host of `cluster_hosts`."""

    address: str

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words that run a command there."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """Open sockets of the calling thread there."""
        ...


class Here:
    """This machine, by loopback."""

    address = "127.0.0.1"

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words as they are."""
        return list(words)

    def inside(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


HERE = Here()


@dataclass(frozen=True)
class Security:
    """What a server demands of its clients, as text of its configuration."""

    tls: str = ""
    authorization: str = ""
    identities: str = ""
    """Further lines, as for operators and accounts."""


def tls_of(authority: trustme.CA, folder: Path, *hosts: str, verifies: bool = False) -> str:
    """Return the server's side of TLS with a certificate for `hosts`; `verifies`: clients need one of the authority."""
    certificate, key, trusted = folder / "server.pem", folder / "server.key", folder / "authority.pem"
    issued = authority.issue_cert(*(hosts or (HERE.address, "localhost")))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(trusted)
    words = f'cert_file: "{certificate}", key_file: "{key}"'
    return f'{{ {words}, ca_file: "{trusted}", verify: true }}' if verifies else f"{{ {words} }}"


@dataclass
class NatsServer:
    """One node: a process of `nats-server` with JetStream, whose files and ports stay the same over restarts."""

    folder: Path
    name: str = "n1"
    place: Place = HERE
    security: Security = Security()
    has_jetstream: bool = True
    memory: str = "512MiB"
    """What its streams in memory may have together."""
    disk_bytes: int = 0
    """A disk of its own of that size, in memory, which can be filled; it is gone with the process."""
    port: int = 0
    monitor_port: int = 0
    route_port: int = 0
    routes: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        with self.place.inside():
            self.port, self.monitor_port, self.route_port = (
                given or free_port(self.place.address) for given in (self.port, self.monitor_port, self.route_port)
            )
        self.store.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Return the URL for clients, without credentials; TLS shows in its scheme."""
        return f"{'tls' if self.security.tls else 'nats'}://{self.place.address}:{self.port}"

    @property
    def store(self) -> Path:
        """Return the directory of JetStream's files."""
        return self.folder / self.name / "store"

    @property
    def log(self) -> str:
        """Return what the server has logged, over all its lives."""
        path = self.folder / self.name / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Return the process of a server that runs."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process; it may still be a moment until it takes connections, see `wait`."""
        assert self.process is None, f"{self.name} runs already"
        path = self.folder / self.name / "nats.conf"
        path.write_text(self._configuration())
        words = [str(PROGRAM), "--config", str(path)]
        if self.disk_bytes:
            words = mounted(str(self.store), f"size={self.disk_bytes}", words)
        words = self.place.command(words)
        with (self.folder / self.name / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Wait until clients are served, and JetStream has a leader among the nodes."""
        wait_until(self._serves, lambda: f"{self.name} does not serve: {self.log[-2000:]}")

    def kill(self) -> None:
        """Kill -9; its files stay."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): its connections stay open and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it if it runs, start it again, and wait until it serves."""
        self.kill()
        self.start()
        self.wait()

    def fill_disk(self) -> None:
        """Leave no space on the disk of its own."""
        with suppress(OSError), (self._disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        (self._disk / "filler").unlink()

    @property
    def _disk(self) -> Path:
        """Return the store as the process sees it."""
        return Path(f"/proc/{self.pid}/root{self.store}")

    def monitor(self, page: str) -> dict[str, Any]:
        """Return a page of the monitoring port: `varz`, `jsz`, `connz`. Raises OSError when it cannot be had."""
        with self.place.inside():
            url = f"http://{self.place.address}:{self.monitor_port}/{page}"
            with urllib.request.urlopen(url, timeout=2.0) as response:
                result: dict[str, Any] = json.load(response)
                return result

    def cpu_seconds(self) -> float:
        """Return the processor time that the running process has used."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log[-2000:]}"
        with suppress(OSError, ValueError):
            if not self.has_jetstream:
                return bool(self.monitor("varz"))
            return self.monitor("healthz?js-server-only=true").get("status") == "ok" and (
                not self.routes or bool(self.monitor("jsz").get("meta_cluster", {}).get("leader"))
            )
        return False

    def _configuration(self) -> str:
        lines = [
            f'server_name: "{self.name}"',
            f'listen: "{self.place.address}:{self.port}"',
            f'http: "{self.place.address}:{self.monitor_port}"',
            # A client that does not read is noticed as soon as one that is gone.
            'ping_interval: "2s", ping_max: 2, write_deadline: "2s"',
        ]
        if self.has_jetstream:
            memory, files = f"max_memory_store: {self.memory}", "max_file_store: 512MiB"
            lines.append(f'jetstream: {{ store_dir: "{self.store}", {memory}, {files}, sync_interval: always }}')
        if self.security.tls:
            lines.append(f"tls: {self.security.tls}")
        if self.security.authorization:
            lines.append(f"authorization: {self.security.authorization}")
        if self.security.identities:
            lines.append(self.security.identities)
        if self.routes:
            routes = ", ".join(f'"{route}"' for route in self.routes)
            listen = f"{self.place.address}:{self.route_port}"
            lines.append(f'cluster: {{ name: "test", listen: "{listen}", routes: [{routes}] }}')
        return "\n".join(lines) + "\n"


@contextmanager
def nats_server(place: Place = HERE, **settings: Any) -> Iterator[NatsServer]:
    """Run one node that serves, killed at the end."""
    with _folder() as folder:
        server = NatsServer(folder, place=place, **settings)
        try:
            server.start()
            server.wait()
            yield server
        finally:
            server.kill()


@contextmanager
def nats_cluster(places: Sequence[Place] = (HERE,) * 3, **settings: Any) -> Iterator[list[NatsServer]]:
    """Run a node in each place, together a cluster that serves; all are killed at the end."""
    with _folder() as folder, ExitStack() as stack:
        servers = [
            NatsServer(folder, name=f"n{number}", place=place, **settings) for number, place in enumerate(places, 1)
        ]
        for server in servers:
            server.routes = tuple(f"nats://{other.place.address}:{other.route_port}" for other in servers)
            stack.callback(server.kill)
            server.start()
        for server in servers:
            server.wait()
        yield servers


def wait_until(question: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Ask until the answer is true; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not question():
        assert time.monotonic() < deadline_seconds, complaint()
        time.sleep(0.02)


def free_port(address: str) -> int:
    """Return a port that nobody listens on at this moment.

    It is below those that the system gives to outgoing connections, of which one might have it a moment later, also
    while a server is restarted.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first_ephemeral)
        with suppress(OSError), socket.create_server((address, port)):
            return port


@contextmanager
def _folder() -> Iterator[Path]:
    # A killed server may be writing still when its directory goes.
    with tempfile.TemporaryDirectory(prefix="candleshm-nats-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
