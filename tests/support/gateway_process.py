"""A gateway as a process, and what is asked of it: the words that several test files share."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from tests.support.commanding import DEADLINE_SECONDS, first_line, started

__all__ = ["Served", "gateway", "parts_of"]


@dataclass(frozen=True)
class Served:
    """A gateway that runs."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def get(self, target: str, **keywords: Any) -> requests.Response:
        """Request what stands behind the URL."""
        return requests.get(self.url + target, timeout=DEADLINE_SECONDS, **keywords)

    def connected(self) -> socket.socket:
        """Return a connection to it."""
        return socket.create_connection(self.address, timeout=DEADLINE_SECONDS)

    def answer(self, sent: bytes) -> bytes:
        """Send bytes on a connection of their own, and return all until the other end closes."""
        with self.connected() as client:
            client.sendall(sent)
            return rest_of(client)

    def ends(self) -> str:
        """Wait for its end in order, and return what it logged."""
        _, logged = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert self.process.returncode == 0, logged
        assert "Traceback" not in logged
        return logged


@contextmanager
def gateway(*arguments: str, **keywords: Any) -> Iterator[Served]:
    """Run a gateway at a free port."""
    with started("gateway", "--listen", "0", *arguments, **keywords) as process:
        line = first_line(process)
        assert line.startswith("gateway: http://127.0.0.1:"), line
        yield Served(line.removeprefix("gateway: ").strip(), process)


def rest_of(client: socket.socket) -> bytes:
    """Return all until the other end closes, or resets."""
    got = b""
    try:
        while more := client.recv(65536):
            got += more
    except ConnectionResetError:
        pass
    return got


def parts_of(response: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body of one response."""
    head, _, body = response.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(line.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, body
