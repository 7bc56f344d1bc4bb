"""Proxies on loopback, over real sockets: HTTP CONNECT and SOCKS, with credentials and without."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

USER, PASSWORD = "me@home", "se:cret/%"
# As they stand in a URL.
QUOTED = "me%40home:se%3Acret%2F%25"


class ProxyServer:
    """Connects everybody to one place, whatever host is asked for, and remembers who asked for what."""

    scheme = "http"

    def __init__(self, place: tuple[str, int] | None, *, credentials: bool = False, address: str = "127.0.0.1") -> None:
        self._place = place
        self._credentials = credentials
        self._listener = socket.create_server((address, 0), backlog=50)
        self._open: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.targets: list[str] = []
        """Host and port of each connection that was asked for, `GET URL` of each request that was to be forwarded."""
        self.identities: list[str] = []
        """`user:password` of each, as the proxy understood them."""
        self.watch: Callable[[bytes], object] = bytes
        """Gets everything that is passed on, in either direction."""
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, *, credentials: bool = False, host: str = "127.0.0.1", scheme: str | None = None) -> str:
        """Return the URL of this proxy, with credentials if asked for."""
        return f"{scheme or self.scheme}://{f'{QUOTED}@' if credentials else ''}{host}:{self.port}"

    def close(self) -> None:
        """End everything."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError), connection:
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += take(connection, 1)
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        given = {name.lower(): value for name, value in fields.items()}.get(b"proxy-authorization", b"")
        self.targets.append(target if method == "CONNECT" else f"{method} {target}")
        if given:
            self.identities.append(base64.b64decode(given.removeprefix(b"Basic ")).decode("latin-1"))
        if self._credentials and self.identities[-1:] != [f"{USER}:{PASSWORD}"]:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif method != "CONNECT":
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n["forwarded"]')
        elif self._place is None:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        else:
            self._forward(connection, b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

    def _forward(self, connection: socket.socket, accepted: bytes) -> None:
        assert self._place is not None
        with socket.create_connection(self._place) as server:
            self._open.append(server)
            connection.sendall(accepted)
            threading.Thread(target=pump, args=(server, connection, self.watch), daemon=True).start()
            pump(connection, server, self.watch)


class SocksServer(ProxyServer):
    """The same by SOCKS 5 and 4."""

    scheme = "socks5h"

    def _serve(self, connection: socket.socket) -> None:
        if take(connection, 1) == b"\x04":
            self._serve_4(connection)
            return
        methods = take(connection, take(connection, 1)[0])
        wanted = 2 if self._credentials else 0
        if wanted not in methods:
            connection.sendall(b"\x05\xff")
            return
        connection.sendall(bytes([5, wanted]))
        if wanted:
            take(connection, 1)
            user = take(connection, take(connection, 1)[0]).decode()
            password = take(connection, take(connection, 1)[0]).decode()
            self.identities.append(f"{user}:{password}")
            is_right = (user, password) == (USER, PASSWORD)
            connection.sendall(b"\x01\x00" if is_right else b"\x01\x01")
            if not is_right:
                return
        kind = take(connection, 4)[3]
        if kind == 3:
            host = take(connection, take(connection, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, take(connection, size))
        (port,) = struct.unpack(">H", take(connection, 2))
        self.targets.append(f"{host}:{port}")
        if self._place is None:
            connection.sendall(b"\x05\x05\x00\x01" + bytes(6))
        else:
            self._forward(connection, b"\x05\x00\x00\x01" + bytes(6))

    def _serve_4(self, connection: socket.socket) -> None:
        _, port, packed = struct.unpack(">BH4s", take(connection, 7))
        self.identities.append(text_of(connection))
        is_name = packed[:3] == bytes(3)
        host = text_of(connection) if is_name else socket.inet_ntoa(packed)
        self.targets.append(f"{host}:{port}")
        if self._place is None:
            connection.sendall(b"\x00\x5b" + bytes(6))
        else:
            self._forward(connection, b"\x00\x5a" + bytes(6))


def take(connection: socket.socket, count: int) -> bytes:
    """Receive so many bytes. Raises EOFError."""
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def text_of(connection: socket.socket) -> str:
    """Receive a text that ends with a zero."""
    received = b""
    while not received.endswith(b"\0"):
        received += take(connection, 1)
    return received[:-1].decode()


def pump(source: socket.socket, sink: socket.socket, watch: Callable[[bytes], object]) -> None:
    """Copy one direction until it ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            watch(data)
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
