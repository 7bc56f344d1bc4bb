"""Every request counted: its path, status, source and seconds, and that it is no longer in flight."""

from __future__ import annotations

import asyncio
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candleshm.gateway.connections import Connections
from candleshm.gateway.counts import Counts
from candleshm.gateway.refusals import Refused

__all__ = ["SOURCE", "Counting"]

SOURCE = b"x-candleshm-source"
# Where rows come from, as the header says it; a label has no other values.
SOURCES = {word.encode(): word for word in ("block", "derived", "files", "upstream")}
ENDING = Refused(503, -1001, "the gateway ends; try again in a moment", 1.0)
# What matches no route, and what is refused before one is looked for.
NO_ROUTE = "other"


class Counting:
    """The outermost part of the application: cheap, because it is on the path of every request."""

    def __init__(self, app: ASGIApp, counts: Counts, connections: Connections) -> None:
        self._app = app
        self._counts = counts
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, source = 0, ""

        async def noting(message: Message) -> None:
            nonlocal status, source
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    if name == SOURCE:
                        source = SOURCES.get(value, "")
            await send(message)

        began_seconds = perf_counter()
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            # The server ends, and this request would have taken longer.
            if not status:
                await noting({"type": "http.response.start", "status": ENDING.status, "headers": ENDING.headers})
                await noting({"type": "http.response.body", "body": ENDING.body})
        finally:
            self._connections.ended()
            route = scope.get("route")
            path = NO_ROUTE if route is None else getattr(route, "path", NO_ROUTE)
            self._counts.response(path, status, source, perf_counter() - began_seconds)
