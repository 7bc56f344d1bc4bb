"""The routes of the page: `/`, its files, and the websocket that keeps it current."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from candleshm.gateway.page.files import PageFiles
from candleshm.gateway.page.viewer import Viewer
from candleshm.gateway.page.watch import Watch

__all__ = ["page_routes"]

VIEWERS_MAX = 64
# The page sends short texts; a client that sends more is none.
TEXT_MAX = 1000
# A page that takes no message for so long is dropped.
SEND_SECONDS = 5.0
TRY_AGAIN, VIOLATION = 1013, 1008


class Drawn(msgspec.Struct):
    """What a page asks for: the candles of one series."""

    block: str
    symbol: str


def page_routes(watch: Watch) -> list[BaseRoute]:
    """Return the page's routes; `watch` has to be started."""
    files = PageFiles()
    viewers: set[Viewer] = set()

    async def index(request: Request) -> Response:
        return files.respond(request, "index.html")

    async def file(request: Request) -> Response:
        return files.respond(request, request.path_params["name"])

    async def live(socket: WebSocket) -> None:
        if not _is_of_this_page(socket):
            await socket.close(VIOLATION)
            return
        await socket.accept()
        if len(viewers) >= VIEWERS_MAX:
            await socket.close(TRY_AGAIN, f"{VIEWERS_MAX} pages are open already")
            return
        viewer = Viewer()
        viewers.add(viewer)
        try:
            await asyncio.to_thread(watch.join, viewer)
            await _serve(socket, viewer, watch)
        finally:
            viewers.discard(viewer)
            # Not in the event loop: the thread that watches may hold the lock for some milliseconds.
            await asyncio.shield(asyncio.to_thread(watch.leave, viewer))

    return [
        Route("/", index, methods=["GET"]),
        WebSocketRoute("/page/live", live),
        Route("/page/{name:path}", file, methods=["GET"]),
    ]


async def _serve(socket: WebSocket, viewer: Viewer, watch: Watch) -> None:
    """Send and receive until either ends."""
    sending = asyncio.ensure_future(_send(socket, viewer))
    receiving = asyncio.ensure_future(_receive(socket, viewer, watch))
    try:
        done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except WebSocketDisconnect:
        pass
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    while True:
        for text in await viewer.take():
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await socket.send_text(text)
            except TimeoutError:
                viewer.is_slow = True
                break
        if viewer.is_slow:
            await socket.close(VIOLATION, "the page does not keep up")
            return


async def _receive(socket: WebSocket, viewer: Viewer, watch: Watch) -> None:
    while True:
        text = await socket.receive_text()
        try:
            if len(text) > TEXT_MAX:
                raise msgspec.DecodeError("too long")
            wanted = msgspec.json.decode(text, type=Drawn)
        except msgspec.DecodeError:
            await socket.close(VIOLATION, "a text that is none of the page's")
            return
        await asyncio.to_thread(watch.draw, viewer, wanted.block, wanted.symbol)


def _is_of_this_page(socket: WebSocket) -> bool:
    """Return whether the client is this gateway's page, or no browser: pages of other sites may not read along."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
