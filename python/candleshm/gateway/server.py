"""The server of a gateway: uvicorn in one process, which ends in order and soon."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from candleshm.gateway.connection import Connection
from candleshm.gateway.connections import Connections
from candleshm.gateway.streams.protocol import SERVER_SETTINGS, StreamProtocol

__all__ = ["GatewayServer"]

# A connection that polls once a minute stays open.
KEEP_ALIVE_SECONDS = 120
# How many ticks of uvicorn, of 0.1 s, pass between two looks for slow clients.
SWEEP_TICKS = 10
# A response in flight gets so long once the gateway is to end, and uvicorn this many seconds until it gives up.
DRAIN_SECONDS, GIVE_UP_SECONDS = 1.0, 2


CUT_SECONDS = 0.1


class GatewayServer(uvicorn.Server):
    """Serves an application on a socket until `stop`; `started` is called once it does."""

    def __init__(self, app: ASGIApp, connections: Connections, started: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=cast(Any, partial(Connection, connections)),
                ws=StreamProtocol,
                interface="asgi3",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GIVE_UP_SECONDS,
                **cast(Any, SERVER_SETTINGS),
                backlog=connections.accepted_max,
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._cut)
        await super().shutdown(sockets)

    def connection_count(self) -> int:
        """Return how many connections are open, websockets included."""
        return len(self.server_state.connections)

    def stop(self) -> None:
        """End: accept nothing more, let the responses in flight leave, close. May be called from any thread."""
        self.should_exit = True

    def _cut(self) -> None:
        """End what has not ended by itself: requests that wait for the exchange, clients that do not read."""
        for task in tuple(self.server_state.tasks):
            task.cancel()
        for connection in tuple(self.server_state.connections):
            # After the tasks, which still tell their clients.
            asyncio.get_running_loop().call_later(CUT_SECONDS, connection.transport.abort)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command, whose exit code is 0 after one."""
        yield
