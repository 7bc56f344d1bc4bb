"""How a stream's socket is connected: directly."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from candleshm.network.addresses import Address, Addresses

__all__ = ["Egress", "Via"]


@dataclass(frozen=True, slots=True)
class Via:
    """The way a socket took."""

    addresses: Addresses
    host: str
    port: int
    address: Address

    def worked(self) -> None:
        """Note that the server responded."""
        self.addresses.worked(self.host, self.port, self.address)

    def failed(self) -> None:
        """Note that the server did not respond."""
        self.addresses.failed(self.host, self.port, self.address)


class Egress:
    """Connects."""

    def __init__(
        self, addresses: Addresses, *, proxies: Mapping[str, str] | None = None, trust_env: bool = False
    ) -> None:
        self._addresses = addresses

    def connect(self, url: str, timeout_seconds: float) -> tuple[socket.socket, Via]:
        """Return a connected socket and its way."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        connection, address = self._addresses.connect(host, port, timeout_seconds)
        return connection, Via(self._addresses, host, port, address)
