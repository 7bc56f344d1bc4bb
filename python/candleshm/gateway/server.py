"""The server of a gateway: uvicorn in one process, which ends in order and soon."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from candleshm.gateway.connection import HEAD_BYTES_MAX, Connection
from candleshm.gateway.connections import Connections

__all__ = ["GatewayServer", "listen", "url_of"]

BACKLOG = 1024
# A connection that polls once a minute stays open.
KEEP_ALIVE_SECONDS = 120
# How many ticks of uvicorn, of 0.1 s, pass between two looks for slow clients.
SWEEP_TICKS = 10
# A response in flight gets so long once the gateway is to end.
DRAIN_SECONDS = 1


class GatewayServer(uvicorn.Server):
    """Serves an application on a socket until `stop`; `started` is called once it does."""

    def __init__(self, app: ASGIApp, connections: Connections, started: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=cast(Any, partial(Connection, connections)),
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
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                backlog=BACKLOG,
            )
        )
        self._connections = connections
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell_started()

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            self._connections.sweep()
        return await super().on_tick(counter)

    def connection_count(self) -> int:
        """Return how many connections are open, websockets included."""
        return len(self.server_state.connections)

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
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # Accepted sockets inherit it. asyncio sets it only where the protocol was named, and 40 ms would pass without it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(error.errno, reason, f"{host}:{port}") from None


def url_of(listener: socket.socket) -> str:
    """Return the URL at which clients of this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
