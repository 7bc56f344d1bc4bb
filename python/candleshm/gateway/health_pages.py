"""The routes of probes: whether this process lives, and whether every block is ready, as containers ask it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from candleshm.errors import BlockError
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.refusals import JSON_TYPE
from candleshm.reader.feed import Feed
from candleshm.reader.health import health_of
from candleshm.reader.notes import note

__all__ = ["health_routes"]


def health_routes(directory: BlockDirectory, names: Sequence[str], max_age_seconds: float | None) -> list[BaseRoute]:
    """Return the routes. `names` are the blocks that have to be there, none when empty: then one of any name has to."""
    readiness = Readiness(directory, names, max_age_seconds)
    return [Route("/health/live", _live), Route("/health/ready", readiness.ready)]


async def _live(_: Request) -> Response:
    return _answer(200, {"live": True})


class Readiness:
    """Judges the blocks as `attach(name, max_age=...).health.ready` does."""

    def __init__(self, directory: BlockDirectory, names: Sequence[str], max_age_seconds: float | None) -> None:
        self._directory = directory
        self._names = names
        self._max_age_seconds = max_age_seconds

    async def ready(self, _: Request) -> Response:
        """Return 200 when every block is ready, else 503; the body names each, and why it is not."""
        feeds = self._directory.used
        blocks = [self._block(feed) for feed in feeds.values()]
        absent = [name for name in self._names if name not in feeds]
        is_ready = bool(blocks) and not absent and all(block["ready"] for block in blocks)
        body: dict[str, object] = {"ready": is_ready, "blocks": blocks, "absent": absent}
        if not blocks:
            body["note"] = "no block to answer from; a collector makes one"
        return _answer(200 if is_ready else 503, body)

    def _block(self, feed: Feed) -> dict[str, object]:
        try:
            health = health_of(feed, self._max_age_seconds)
        except BlockError as error:
            return {"name": feed.name, "ready": False, "condition": "gone", "note": str(error)}
        oldest_seconds = health.oldest_age
        return {
            "name": health.name,
            "ready": health.ready,
            "condition": health.condition,
            "symbols": health.symbols,
            "stale": health.stale,
            "oldest_age": round(oldest_seconds, 3) if math.isfinite(oldest_seconds) else None,
            "missing": health.missing,
            "note": note(health),
        }


def _answer(status: int, content: object) -> Response:
    return Response(
        msgspec.json.encode(content), status, {"Cache-Control": "no-store", "Content-Type": JSON_TYPE.decode()}
    )
