"""The egress of streams: a TCP connection to a host, directly or through the proxy that its requests take."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from candleshm.network.addresses import Address, Addresses
from candleshm.network.proxies import CREDENTIALS_STATUS, NO_TLS_TO_PROXY, SOCKS, Proxy, ProxyError, proxy_of

__all__ = ["Egress", "Via"]

HEAD_END, HEAD_BYTES_MAX = b"\r\n\r\n", 1 << 16
STATUS_LINE = re.compile(rb"HTTP/1\.[01] +([0-9]{3})[ \r\n]")


@dataclass(frozen=True, slots=True)
class Via:
    """How a connection was made: to which address of the host, or of the proxy when there is one."""

    addresses: Addresses
    host: str
    port: int
    address: Address
    proxy: Proxy | None = None

    def worked(self) -> None:
        """Note that the server responded: its address is tried first from now on."""
        self.addresses.worked(self.host, self.port, self.address)

    def failed(self) -> None:
        """Note that nothing came: all other addresses are tried before this one."""
        self.addresses.failed(self.host, self.port, self.address)


class Egress:
    """Opens connections for streams. Methods may be called from any thread."""

    def __init__(
        self, addresses: Addresses, *, proxies: Mapping[str, str] | None = None, trust_env: bool = False
    ) -> None:
        self._addresses = addresses
        self._proxies = dict(proxies or {})
        self._trust_env = trust_env

    def connect(self, url: str, timeout_seconds: float) -> tuple[socket.socket, Via]:
        """Return a connected TCP socket, which blocks, to the host of a `ws` or `wss` URL, and how it was connected.

        `timeout_seconds` is for everything: names, attempts and the proxy's response. TLS is not begun. Raises
        ProxyError when a proxy does not forward, TimeoutError, other OSErrors as `Addresses.connect`, and ValueError
        for an invalid host name. No text has the credentials of a proxy.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        proxy = proxy_of(url, self._proxies, trust_env=self._trust_env)
        if proxy is None:
            connection, address = self._addresses.connect(host, port, timeout_seconds)
            return connection, Via(self._addresses, host, port, address)
        if proxy.scheme == "https":
            raise ProxyError(f"proxy {proxy} begins with https://, and {NO_TLS_TO_PROXY}")
        try:
            connection, address = self._by_proxy(proxy, host, port, timeout_seconds)
        except ProxyError:
            raise
        except TimeoutError as error:
            raise TimeoutError(str(error) if str(proxy) in str(error) else f"proxy {proxy}: {error}") from None
        except OSError as error:
            raise ProxyError(f"proxy {proxy}: {error}") from None
        return connection, Via(self._addresses, proxy.host, proxy.port, address, proxy)

    def _by_proxy(self, proxy: Proxy, host: str, port: int, timeout_seconds: float) -> tuple[socket.socket, Address]:
        if proxy.scheme in SOCKS:
            from candleshm.network.socks import connect_by_socks

            return connect_by_socks(self._addresses, proxy, host, port, timeout_seconds)
        deadline_seconds = time.monotonic() + timeout_seconds
        request = _connect_request(proxy, host, port)
        connection, address = self._addresses.connect(proxy.host, proxy.port, timeout_seconds)
        via = Via(self._addresses, proxy.host, proxy.port, address)
        try:
            connection.settimeout(max(deadline_seconds - time.monotonic(), 0.001))
            connection.sendall(request)
            status = _status(connection, deadline_seconds)
        except TimeoutError:
            connection.close()
            via.failed()
            raise TimeoutError(f"proxy {proxy} did not respond within {timeout_seconds:g} s") from None
        except BaseException:
            connection.close()
            via.failed()
            raise
        if not 200 <= status < 300:
            connection.close()
            via.worked()
            hint = "; correct its user name and password" if status == CREDENTIALS_STATUS else ""
            raise ProxyError(f"proxy {proxy} refuses a connection to {host}:{port}: HTTP {status}{hint}", status)
        connection.setblocking(True)
        return connection, address


def _connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    """Return the request for a tunnel. Raises ValueError for an invalid host name, ProxyError for such credentials."""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if proxy.user:
        from urllib3.util import make_headers

        try:
            credentials = make_headers(proxy_basic_auth=f"{proxy.user}:{proxy.password}")
        except UnicodeError:
            raise ProxyError(f"proxy {proxy}: user name or password has a character that is not Latin-1") from None
        lines += [f"{field}: {value}" for field, value in credentials.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _status(connection: socket.socket, deadline_seconds: float) -> int:
    """Read the response of an HTTP proxy and return its status; what follows the status of a refusal is not read.

    Raises ConnectionError when it is none, TimeoutError when it is not complete in time.
    """
    received = b""
    while HEAD_END not in received:
        found = STATUS_LINE.match(received)
        if found is not None and not 200 <= int(found[1]) < 300:
            return int(found[1])
        if found is None and (b"\n" in received or not received.startswith(b"HTTP/1."[: len(received)])):
            raise ConnectionError("its response is not HTTP; is this the port of another service?")
        if len(received) > HEAD_BYTES_MAX:
            raise ConnectionError(f"its response has more than {HEAD_BYTES_MAX} bytes of headers")
        left_seconds = deadline_seconds - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        connection.settimeout(left_seconds)
        part = connection.recv(4096)
        if not part:
            raise ConnectionError("it closed the connection instead of a response")
        received += part
    found = STATUS_LINE.match(received)
    if found is None:
        raise ConnectionError("its response is not HTTP; is this the port of another service?")
    if 200 <= int(found[1]) < 300 and not received.endswith(HEAD_END):
        raise ConnectionError("it sent data of its own after its response")
    return int(found[1])
