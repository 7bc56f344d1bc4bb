"""The server of a gateway: uvicorn in one process, which ends in order and soon."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

__all__ = ["GatewayServer", "listen", "url_of"]

BACKLOG = 1024
# A connection that polls once a minute stays open.
KEEP_ALIVE_SECONDS = 120
# A response in flight gets so long once the gateway is to end.
DRAIN_SECONDS = 1


class GatewayServer(uvicorn.Server):
    """Serves an application on a socket until `stop`; `started` is called once it does."""

    def __init__(self, app: ASGIApp, started: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="websockets-sansio",
                interface="asgi3",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                ws_per_message_deflate=False,
                backlog=BACKLOG,
            )
        )
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell_started()

    def stop(self) -> None:
        """End: accept nothing more, let the responses in flight leave, close. May be called from any thread."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command, whose exit code is 0 after one."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; 0 is any free port. Raises OSError, which names host and port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(error.errno, reason, f"{host}:{port}") from None


def url_of(listener: socket.socket) -> str:
    """Return the URL at which clients of this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
