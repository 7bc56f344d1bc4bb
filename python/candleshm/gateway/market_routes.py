"""The REST routes of the three markets: `ping` and `time`, `exchangeInfo`, candles, and what goes upstream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from candleshm.exchanges.base import Market, Price
from candleshm.gateway.listing import Listing
from candleshm.gateway.markets import Markets
from candleshm.gateway.public_paths import PUBLIC_PATHS, cost_of
from candleshm.gateway.query import PERPETUAL, KlinesQuery, read_continuous, read_klines, read_prices
from candleshm.gateway.refusals import JSON_TYPE, Refused

__all__ = ["market_routes"]

PREFIXES: Mapping[Market, str] = {"SPOT": "/api/v3", "UM": "/fapi/v1", "CM": "/dapi/v1"}
PRICES: Mapping[str, Price] = {"markPriceKlines": "mark", "indexPriceKlines": "index", "premiumIndexKlines": "premium"}
# How long a request for the list of symbols waits for the first one.
LISTING_SECONDS = 5.0
# How long a request waits for a candle that has ended to be final, and how often it looks. Streams close a candle up to
# two seconds after its end.
CLOSE_SECONDS, LOOK_SECONDS = 4.0, 0.03
NOT_FOUND = b"<html><head><title>404 Not Found</title></head></html>\n"

# Open and close time of each row of a klines body, and the time of a response.
_ROW_TIMES = re.compile(rb'\[([0-9]+),((?:"[^"]*",){5})([0-9]+),')
_SERVER_TIME = re.compile(rb'"serverTime":([0-9]+)')

Headers: TypeAlias = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """A response."""

    body: bytes
    source: bytes = b""
    """Where candles came from, or `upstream`."""
    status: int = 200
    content_type: bytes = JSON_TYPE


Answer: TypeAlias = Callable[[Scope], Awaitable[Reply]]


def market_routes(markets: Markets) -> list[BaseRoute]:
    """Return the routes of all markets."""
    routes: list[BaseRoute] = []
    for market, prefix in PREFIXES.items():
        pages = MarketPages(market, markets)
        routes += [Route(f"{prefix}/{name}", Page(market, markets, answer)) for name, answer in pages.answers.items()]
        routes.append(Route(prefix + "/{name:path}", Page(market, markets, pages.other)))
    return routes


class Page:
    """An ASGI application for one path: GET and HEAD, and refusals in the exchange's form."""

    def __init__(self, market: Market, markets: Markets, answer: Answer) -> None:
        self._markets = markets
        self._market: Market = market
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise Refused(405, -1099, f"Method {scope['method']} is not supported.")
            body, source, status, content_type = await self._answer(scope)
            headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
            if source:
                headers.append((b"x-candleshm-source", source))
        except Refused as refused:
            status, body, headers = refused.status, refused.body, refused.headers
        except asyncio.CancelledError:
            # The server ends, and waits no longer for the exchange.
            ending = Refused(503, -1001, "the gateway is ending; try again in a moment", 1.0)
            status, body, headers = ending.status, ending.body, ending.headers
        headers += self._markets.weight_headers(self._market)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class MarketPages:
    """What one market answers, by the name that follows its prefix."""

    def __init__(self, market: Market, markets: Markets) -> None:
        self._market: Market = market
        self._markets = markets
        self._upstream = markets.upstreams[market]
        self.answers: Mapping[str, Answer] = {
            "ping": self._ping,
            "time": self._time,
            "exchangeInfo": self._info,
            "klines": self._klines,
            **({"uiKlines": self._klines} if market == "SPOT" else {"continuousKlines": self._continuous}),
        }
        if market != "SPOT":
            self.answers = {**self.answers, **{name: self._prices(price) for name, price in PRICES.items()}}

    async def _ping(self, _: Scope) -> Reply:
        return Reply(b"{}")

    async def _time(self, scope: Scope) -> Reply:
        now_ms = await self._now_ms()
        body = b'{"serverTime":%d}' % now_ms
        return Reply(_in_microseconds(body) if _wants_microseconds(scope, self._market) else body)

    async def _info(self, scope: Scope) -> Reply:
        infos, market = self._markets.infos, self._market
        in_microseconds = _wants_microseconds(scope, market)
        listing = await self._listing()
        if listing is None:
            infos.want(market)
            self._upstream.check_stop()
            text = "the list of symbols has not been fetched, as the exchange cannot be reached; try again later"
            raise Refused(503, -1001, text, 5.0)
        infos.want(market)
        if market != "SPOT":
            return Reply(listing.body)
        # On SPOT it is the exchange's clock.
        now_ms = self._markets.now_ms(market)
        query = scope["query_string"]
        # The list of SPOT has many megabytes.
        body = await self._markets.threads.run(
            lambda: listing.select(query, now_ms) if query else listing.body_at(now_ms)
        )
        return Reply(_in_microseconds(body) if in_microseconds else body)

    async def _klines(self, scope: Scope) -> Reply:
        query = read_klines(self._market, scope["query_string"], self._is_listed)
        return await self._candles(scope, query)

    async def _continuous(self, scope: Scope) -> Reply:
        query = read_continuous(self._market, scope["query_string"])
        if query.contract_type not in PERPETUAL:
            await self._listing()  # which contract that is now
            return await self._passed(scope, Refused(503, -1001, self._of_quarter(query)))
        return await self._candles(scope, replace(query, symbol=self._perpetual(query)))

    def _prices(self, price: Price) -> Answer:
        async def answer(scope: Scope) -> Reply:
            return await self._candles(scope, read_prices(self._market, price, scope["query_string"]))

        return answer

    async def _candles(self, scope: Scope, query: KlinesQuery) -> Reply:
        in_microseconds = _wants_microseconds(scope, self._market)
        answers = self._markets.answers
        if self._market != "SPOT":
            await self._listing()  # how many digits a symbol has
        if answers.awaits_close(query) and not await self._closed(query):
            text = f"a candle of {query.symbol} {query.interval} has ended and is not final yet; try again in a moment"
            return await self._passed(scope, Refused(503, -1001, text, 1.0))
        now_ms = self._markets.now_ms(self._market) if query.needs_now else None
        answer = None if query.needs_now and now_ms is None else answers.at_once(query, now_ms)
        if answer is None:
            try:
                await self._listing()
                if answers.is_unknown(query):
                    self._markets.infos.want(self._market, unknown_symbol=True)
                    raise Refused(400, -1121, "Invalid symbol.")
                if query.needs_now:
                    now_ms = await self._now_ms()
                answer = await self._markets.threads.run(lambda: answers.made(query, now_ms))
            except Refused as refused:
                reply = await self._passed(scope, refused)
                return reply._replace(body=_rows_in_microseconds(reply.body)) if in_microseconds else reply
        body = _rows_in_microseconds(answer.body) if in_microseconds else answer.body
        return Reply(body, answer.source.encode())

    async def _closed(self, query: KlinesQuery) -> bool:
        """Wait until the candle that has ended is final; False when that takes long."""
        loop = asyncio.get_running_loop()
        deadline_seconds = loop.time() + CLOSE_SECONDS
        while loop.time() < deadline_seconds:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._markets.answers.awaits_close(query):
                return True
        return False

    async def other(self, scope: Scope) -> Reply:
        """Answer what is not served here: from the exchange, if it is public and may be."""
        name = scope["path_params"]["name"]
        if name in PUBLIC_PATHS[self._market]:
            if _wants_microseconds(scope, self._market):
                raise Refused(400, -1194, "X-MBX-TIME-UNIT is not honoured on this path; send no such header.")
            text = f"{scope['path']} is not answered here; start the gateway with --pass-through to have it passed on"
            return await self._passed(scope, Refused(404, -1000, text))
        if self._market == "SPOT":
            return Reply(NOT_FOUND, status=404, content_type=b"text/html")
        raise Refused(404, -5000, f"Path {scope['path']}, Method {scope['method']} is invalid")

    async def _passed(self, scope: Scope, refused: Refused) -> Reply:
        """Return what the exchange answers, where requests may be passed on; else raise `refused`."""
        if not self._markets.settings.pass_through:
            raise refused
        name = scope["path"].removeprefix(f"{PREFIXES[self._market]}/")
        query = scope["query_string"]
        values = dict(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))
        cost = cost_of(self._market, name, values)
        response = await self._upstream.get_shared(name, query, cost)
        content_type = response.headers.get("content-type", "application/json").encode("latin-1", "replace")
        return Reply(response.body, b"upstream", response.status, content_type)

    async def _listing(self) -> Listing | None:
        """Return the list of symbols; the first requests wait until it was fetched, or could not be."""
        infos, market = self._markets.infos, self._market
        if infos.is_awaited(market):
            await self._upstream.threads.run(lambda: infos.wait(market, LISTING_SECONDS))
        return infos.listing(market)

    async def _now_ms(self) -> int:
        now_ms = self._markets.now_ms(self._market)
        return await self._upstream.threads.run(self._upstream.exchange_ms) if now_ms is None else now_ms

    def _is_listed(self, symbol: str) -> bool:
        markets, market = self._markets, self._market
        return markets.infos.is_listed(market, symbol) or markets.directory.has_symbol(market, symbol)

    def _of_quarter(self, query: KlinesQuery) -> str:
        """Return why contracts of a quarter are not answered, and what to ask for instead."""
        has_block = partial(self._markets.directory.has_symbol, self._market)
        continuous = f"{query.symbol}:{query.contract_type}"
        listing = self._markets.infos.listing(self._market)
        contract = None if listing is None else listing.contracts.get((query.symbol, query.contract_type or ""))
        if contract is not None and has_block(contract):
            return (
                f"the gateway answers no {query.contract_type} contracts, but a block carries {contract}, which is "
                f"that now: ask /klines for it, or start the gateway with --pass-through"
            )
        of = "the contract's own symbol" if contract is None else contract
        if has_block(continuous):
            return (
                f"a block carries {continuous}, but the gateway answers no {query.contract_type} contracts: read it "
                f"with candleshm.attach, serve {of} and ask /klines for it, or start the gateway with --pass-through"
            )
        return (
            f"no block carries contracts of {query.contract_type}: serve {of} and ask /klines for it, or start the "
            f"gateway with --pass-through"
        )

    def _perpetual(self, query: KlinesQuery) -> str:
        """Return the symbol of a perpetual contract; as such are called, where no list tells it."""
        listing = self._markets.infos.listing(self._market)
        if listing is not None and query.contract_type is not None:
            # What is not listed is no symbol either.
            return listing.contracts.get((query.symbol, query.contract_type), f"{query.symbol} {query.contract_type}")
        return query.symbol if self._market == "UM" else f"{query.symbol}_PERP"


def _wants_microseconds(scope: Scope, market: Market) -> bool:
    """Return whether a request to SPOT wants times in microseconds. Raises Refused."""
    if market != "SPOT":
        return False
    for name, value in scope["headers"]:
        if name == b"x-mbx-time-unit":
            unit = value.upper()
            if unit not in (b"MICROSECOND", b"MILLISECOND"):
                raise Refused(400, -1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
            return bool(unit == b"MICROSECOND")
    return False


def _in_microseconds(body: bytes) -> bytes:
    return _SERVER_TIME.sub(rb'"serverTime":\g<1>000', body, count=1)


def _rows_in_microseconds(body: bytes) -> bytes:
    return _ROW_TIMES.sub(rb"[\g<1>000,\g<2>\g<3>999,", body)
