"""The gateway as one ASGI application: the routes of its parts, what stands before them, a refusal for other paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from candleshm.gateway.access import Access
from candleshm.gateway.admission import Admission
from candleshm.gateway.connections import Connections
from candleshm.gateway.counting import Counting
from candleshm.gateway.counts import Counts
from candleshm.gateway.refusals import Refused

__all__ = ["make_app"]

NOT_SERVED = Refused(
    404,
    -1099,
    "this gateway does not serve that path; it serves klines, uiKlines, continuousKlines, exchangeInfo, time and ping "
    "below /api/v3, /fapi/v1 and /dapi/v1, kline streams at /ws and /stream, /blocks, /health/live, /health/ready, "
    "/metrics and a page at /",
)
FAULT = Refused(500, -1000, "the gateway has a fault; its log says which")
# What web pages of a named origin may read beside the body.
EXPOSED = ("Retry-After", "X-MBX-USED-WEIGHT-1M", "X-Candleshm-Source")


def make_app(
    routes: Sequence[BaseRoute], lifetime: AsyncExitStack, access: Access, counts: Counts, connections: Connections
) -> ASGIApp:
    """Return the application; `lifetime` is what its parts opened, closed in the event loop after the last response."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with lifetime:
            yield

    inner = Starlette(
        routes=list(routes), lifespan=lifespan, exception_handlers={HTTPException: _refuse, Exception: _confess}
    )
    # A slash too many is another path for the exchange as well.
    inner.router.redirect_slashes = False
    app: ASGIApp = Admission(inner, access)
    if access.origins:
        app = CORSMiddleware(
            app,
            allow_origins=[origin.decode() for origin in access.origins],
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization"],
            expose_headers=EXPOSED,
        )
    return Counting(app, counts, connections)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _response(NOT_SERVED if error.status_code == 404 else Refused(error.status_code, -1000, error.detail))


async def _confess(_: Request, __: Exception) -> Response:
    return _response(FAULT)


def _response(refused: Refused) -> Response:
    return Response(refused.body, refused.status, {name.decode(): value.decode() for name, value in refused.headers})
