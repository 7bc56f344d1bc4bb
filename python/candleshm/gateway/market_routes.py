"""The REST routes of the three markets: `ping` and `time`, `exchangeInfo`, candles, and what goes upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeAlias

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from candleshm.exchanges.base import Market
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.refusals import JSON_TYPE, Refused
from candleshm.gateway.settings import GatewaySettings
from candleshm.gateway.upstream import MarketUpstream

__all__ = ["market_routes"]

PREFIXES: Mapping[Market, str] = {"SPOT": "/api/v3", "UM": "/fapi/v1", "CM": "/dapi/v1"}

Headers: TypeAlias = list[tuple[bytes, bytes]]
# A request's body of the response, and the headers that are its own.
Answer: TypeAlias = Callable[[Scope], Awaitable[tuple[bytes, Headers]]]


def market_routes(directory: BlockDirectory, settings: GatewaySettings, lifetime: AsyncExitStack) -> list[BaseRoute]:
    """Return the routes of all markets; what they open is closed with `lifetime`. Raises ConfigError."""
    routes: list[BaseRoute] = []
    for market, prefix in PREFIXES.items():
        upstream = MarketUpstream(settings.upstream(market))
        lifetime.callback(upstream.close)
        pages = MarketPages(market, directory, upstream)
        for name, answer in pages.answers.items():
            routes.append(Route(f"{prefix}/{name}", JsonPage(answer)))
    return routes


class JsonPage:
    """An ASGI application for one path: GET and HEAD, a JSON body, and refusals in the exchange's form."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise Refused(405, -1099, f"Method {scope['method']} is not supported.")
            body, own = await self._answer(scope)
            headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body)), *own]
        except Refused as refused:
            status, body, headers = refused.status, refused.body, refused.headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class MarketPages:
    """What one market answers, by the name that follows its prefix."""

    def __init__(self, market: Market, directory: BlockDirectory, upstream: MarketUpstream) -> None:
        self._market = market
        self._directory = directory
        self._upstream = upstream
        self.answers: Mapping[str, Answer] = {"ping": self._ping, "time": self._time}

    async def _ping(self, _: Scope) -> tuple[bytes, Headers]:
        return b"{}", []

    async def _time(self, _: Scope) -> tuple[bytes, Headers]:
        now_ms = self.now_ms()
        if now_ms is None:
            now_ms = await self._upstream.in_thread(self._upstream.exchange_ms)
        return b'{"serverTime":%d}' % now_ms, []

    def now_ms(self) -> int | None:
        """Return the exchange's time as a collector or a measurement has it, None when nobody knows."""
        return self._upstream.measured_ms
