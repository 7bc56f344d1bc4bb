"""SOCKS: how a connection to a proxy becomes one to the host behind it. The protocol is PySocks'."""

from __future__ import annotations

import socket
import time
from typing import Any

import socks

from candleshm.network.addresses import Address, Addresses, Options
from candleshm.network.proxies import Proxy, ProxyError

__all__ = ["connect_by_socks"]


class _Connected(socket.socket):
    """A connected socket, for a library that would connect it by itself; what it receives has a deadline."""

    deadline_seconds = 0.0

    def connect(self, address: Any) -> None:
        """Leave it as it is."""

    def recv_into(self, *arguments: Any) -> int:
        left_seconds = self.deadline_seconds - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("timed out")
        super().settimeout(left_seconds)
        return super().recv_into(*arguments)


class _Negotiated(socks.socksocket, _Connected):  # type: ignore[misc]
    """A connected socket on which the library speaks SOCKS."""


def connect_by_socks(
    addresses: Addresses, proxy: Proxy, host: str, port: int, timeout_seconds: float, options: Options = ()
) -> tuple[socket.socket, Address]:
    """Return a socket that leads to `host` through a SOCKS proxy, and the address of the proxy.

    The proxy looks the name up for `socks5h` and `socks4a`. `timeout_seconds` is for everything. Raises ProxyError,
    TimeoutError, OSError.
    """
    deadline_seconds = time.monotonic() + timeout_seconds
    is_version_4, is_remote = proxy.scheme.startswith("socks4"), proxy.scheme in {"socks4a", "socks5h"}
    target = host.strip("[]")
    if not is_remote:
        try:
            found = addresses.look_up(host, port, timeout_seconds)
        except socket.gaierror as error:
            raise OSError(f"the name {host} was not resolved: {error}") from None
        usable = [address for address in found if not is_version_4 or address.family == socket.AF_INET]
        if not usable:
            raise OSError(f"{host} has no IPv4 address, which a SOCKS4 proxy needs")
        target = str(usable[0].place[0])
    connection, address = addresses.connect(proxy.host, proxy.port, deadline_seconds - time.monotonic(), options)
    kind = (connection.family, connection.type, connection.proto)
    negotiated: Any = _Negotiated(*kind, fileno=connection.detach())
    with negotiated:
        negotiated.deadline_seconds = deadline_seconds
        negotiated.settimeout(max(deadline_seconds - time.monotonic(), 0.001))
        version = socks.SOCKS4 if is_version_4 else socks.SOCKS5
        negotiated.set_proxy(version, proxy.host, proxy.port, is_remote, proxy.user, proxy.password)
        try:
            negotiated.connect((target, port), catch_errors=True)
        except (socks.SOCKS5Error, socks.SOCKS4Error, socks.SOCKS5AuthError) as error:
            addresses.worked(proxy.host, proxy.port, address)
            raise ProxyError(f"proxy {proxy} refuses a connection to {host}:{port}: {error}") from None
        except TimeoutError:
            addresses.failed(proxy.host, proxy.port, address)
            raise TimeoutError(f"proxy {proxy} did not respond within {timeout_seconds:g} s") from None
        except OSError as error:
            addresses.failed(proxy.host, proxy.port, address)
            raise ProxyError(f"proxy {proxy}: {error}") from None
        plain = socket.socket(*kind, fileno=negotiated.detach())
    plain.setblocking(True)
    return plain, address
