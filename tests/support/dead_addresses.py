"""Hosts with several addresses, some of which lead nowhere: real sockets on loopback addresses, behind one name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pytest

Kind = Literal["swallows", "refuses", "says nothing"]

HOST = "exchange.test"
DEAD, ALIVE = "127.0.0.9", "127.0.0.1"


@contextmanager
def dead(kind: Kind, port: int, address: str = DEAD) -> Iterator[None]:
    """Make an address that swallows what knocks, refuses it, or accepts it and never says a word."""
    with ExitStack() as stack:
        if kind != "refuses":
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            # With its queue full, Linux drops what knocks; with room in it, the kernel accepts and nobody reads.
            listener.listen(0 if kind == "swallows" else 100)
        if kind == "swallows":
            for _ in range(4):
                knocker = stack.enter_context(socket.socket())
                knocker.setblocking(False)
                knocker.connect_ex((address, port))
        yield


def resolve(patch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let `HOST` have these addresses, in this order."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **keywords: Any) -> Any:
        if host != HOST:
            return real(host, port, *arguments, **keywords)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in addresses]

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
