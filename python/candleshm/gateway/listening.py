"""The socket at which a gateway listens."""

from __future__ import annotations

import os
import socket

__all__ = ["listen", "url_of"]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; 0 is any free port. Raises OSError, which names host and port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family)
        # Accepted sockets inherit it; asyncio itself sets it only where a socket names its protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(error.errno, reason, f"{host}:{port}") from None


def url_of(listener: socket.socket) -> str:
    """Return the URL at which clients of this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
