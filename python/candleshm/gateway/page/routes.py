"""The routes of the page: `/`, its files, and the websocket that keeps it current."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from candleshm.gateway.page.files import PageFiles
from candleshm.gateway.page.viewer import VIOLATION, Viewer
from candleshm.gateway.page.watch import Watch
from candleshm.gateway.streams.protocol import EXTENSION, StreamProtocol
from candleshm.gateway.token import Token

__all__ = ["page_routes"]

VIEWERS_MAX = 64
TRY_AGAIN = 1013
# The page sends short texts, and few.
TEXT_MAX = 1000
TEXTS_PER_SECOND = 20


class Drawn(msgspec.Struct):
    """What a page asks for: the candles of one series."""

    block: str
    symbol: str


def page_routes(watch: Watch, token: Token | None) -> list[BaseRoute]:
    """Return the page's routes, for a server with `StreamProtocol`; `watch` has to be started.

    Requests for the session come here once they were admitted; a browser that showed the `token` gets a cookie.
    """
    files = PageFiles()
    viewers: set[Viewer] = set()

    async def index(request: Request) -> Response:
        return files.respond(request, "index.html")

    async def file(request: Request) -> Response:
        return files.respond(request, request.path_params["name"])

    async def session(request: Request) -> Response:
        headers = {"Cache-Control": "no-store"}
        if token is not None and token.fits(request.headers.get("authorization", "").encode("latin-1")):
            headers["Set-Cookie"] = token.cookie
        return Response(status_code=204, headers=headers)

    async def live(socket: WebSocket) -> None:
        connection: StreamProtocol = socket.scope["extensions"][EXTENSION]["connection"]
        connection.frames_per_second = TEXTS_PER_SECOND
        await socket.accept()
        if len(viewers) >= VIEWERS_MAX:
            connection.close(TRY_AGAIN, f"{VIEWERS_MAX} pages are open already")
            return
        viewer = Viewer(connection)
        viewers.add(viewer)
        try:
            # In threads: whoever watches may hold the lock for some milliseconds.
            await asyncio.to_thread(watch.join, viewer)
            while (message := await socket.receive())["type"] == "websocket.receive":
                wanted = _wanted(message.get("text"))
                if wanted is None:
                    connection.close(VIOLATION, "a text that is none of the page's")
                else:
                    await asyncio.to_thread(watch.draw, viewer, wanted.block, wanted.symbol)
        finally:
            viewers.discard(viewer)
            await asyncio.shield(asyncio.to_thread(watch.leave, viewer))

    return [
        Route("/", index, methods=["GET"]),
        Route("/page/session", session, methods=["GET"]),
        WebSocketRoute("/page/live", live),
        Route("/page/{name:path}", file, methods=["GET"]),
    ]


def _wanted(text: str | None) -> Drawn | None:
    try:
        return None if text is None or len(text) > TEXT_MAX else msgspec.json.decode(text, type=Drawn)
    except msgspec.DecodeError:
        return None
