"""The routes of the kline streams: handshakes that are refused, and the life of the clients that are not."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send

from candleshm.gateway.refusals import Refused
from candleshm.gateway.streams.client import StreamClient
from candleshm.gateway.streams.control import STREAMS_MAX
from candleshm.gateway.streams.hub import Hub
from candleshm.gateway.streams.names import Endpoint, NotKlines
from candleshm.gateway.streams.protocol import EXTENSION, StreamProtocol
from candleshm.gateway.streams.source import Stream

__all__ = ["stream_routes"]

CLIENTS_MAX = 2000
NOT_FOUND, BAD_PARAMETER, TOO_MANY = -1099, -1100, -1034


def stream_routes(hub: Hub, clients_max: int = CLIENTS_MAX) -> Sequence[BaseRoute]:
    """Return the routes, for a server with `StreamProtocol` and `SERVER_SETTINGS`. No more than `clients_max` clients
    are taken at a time. The hub is the caller's, who closes it.
    """
    return [WebSocketRoute("/{path:path}", StreamEndpoint(hub, clients_max))]


class StreamEndpoint:
    """The ASGI application of every websocket."""

    def __init__(self, hub: Hub, clients_max: int) -> None:
        self._hub = hub
        self._clients_max = clients_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client to its end."""
        connection: StreamProtocol = scope["extensions"][EXTENSION]["connection"]
        await receive()
        try:
            endpoint, streams = self._found(scope)
        except Refused as refused:
            self._hub.counts.refused += 1
            await send({"type": "websocket.http.response.start", "status": refused.status, "headers": refused.headers})
            await send({"type": "websocket.http.response.body", "body": refused.body})
            return
        connection.frames_per_second = endpoint.messages_per_second
        address = scope.get("client") or ("", 0)
        client = StreamClient(connection, endpoint, self._hub, f"{address[0]}:{address[1]}")
        self._hub.counts.clients += 1
        try:
            await send({"type": "websocket.accept"})
            client.subscribe(streams)
            while (message := await receive())["type"] == "websocket.receive":
                if (text := message.get("text")) is None:
                    client.close(1003, "binary frames mean nothing here")
                else:
                    client.obey(text)
            if connection.close_sent:
                self._hub.counts.closed[message["code"]] += 1
        finally:
            self._hub.counts.clients -= 1
            client.leave()

    def _found(self, scope: Scope) -> tuple[Endpoint, list[Stream]]:
        """Return what a URL means. Raises Refused."""
        if self._hub.counts.clients >= self._clients_max:
            raise Refused(503, TOO_MANY, f"this gateway has {self._clients_max} stream clients, and takes no more", 5.0)
        try:
            endpoint = Endpoint.of(scope["path"], scope["query_string"].decode("latin-1"))
        except NotKlines as error:
            raise Refused(404, NOT_FOUND, str(error)) from None
        if len(set(endpoint.names)) > STREAMS_MAX:
            raise Refused(400, BAD_PARAMETER, f"more than {STREAMS_MAX} streams in one connection")
        try:
            return endpoint, self._hub.find(endpoint.markets, endpoint.names)
        except NotKlines as error:
            raise Refused(400, BAD_PARAMETER, str(error)) from None
