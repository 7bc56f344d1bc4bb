"""Stream hosts over raw sockets, for what no websocket server does: what they send is up to the test."""

from __future__ import annotations

import re
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1

from tests.support.proxy_servers import take

__all__ = ["raw_host", "upgrade"]

# RFC 6455, section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextmanager
def raw_host(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Give the `ws` URL of a host that lets `serve` have each connection, in a thread of its own."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def upgrade(connection: socket.socket) -> None:
    """Take a request for an upgrade, and upgrade."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += take(connection, 1)
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
    assert key is not None
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + b64encode(sha1(key[1] + GUID).digest()) + b"\r\n\r\n"
    )
