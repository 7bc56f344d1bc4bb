"""The gateway as one ASGI application: the routes of its parts, and a refusal for every other path."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

__all__ = ["make_app"]

SERVED = (
    "klines, uiKlines, continuousKlines, exchangeInfo, time and ping below /api/v3, /fapi/v1 and /dapi/v1; "
    "streams at /ws and /stream; /blocks"
)
# As the exchange numbers them: an unknown path has no code of its own there.
UNKNOWN = -1000


def make_app(routes: Sequence[BaseRoute], lifetime: AsyncExitStack) -> Starlette:
    """Return the application; `lifetime` is what its parts opened, closed in the event loop after the last response."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with lifetime:
            yield

    app = Starlette(routes=list(routes), lifespan=lifespan, exception_handlers={HTTPException: _refusal})
    # A slash too many is another path for the exchange as well.
    app.router.redirect_slashes = False
    return app


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404:
        text = f"this gateway does not serve that path; it serves {SERVED}"
    body = json.dumps({"code": UNKNOWN, "msg": text}, separators=(",", ":"))
    return Response(body, error.status_code, headers=error.headers, media_type="application/json")
