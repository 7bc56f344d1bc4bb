"""The routes of blocks themselves: which there are, and candles with their states and gaps, as JSON or Arrow."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from candleshm.columns import NAMES, WHOLE
from candleshm.errors import BlockError, BlockNotFound, MissingExtra, StaleData, UnknownSymbol
from candleshm.gateway.refusals import JSON_TYPE, Refused
from candleshm.names import is_block_name
from candleshm.reader.feed import Feed, attach
from candleshm.reader.frames import library, to_arrow
from candleshm.row_state import RowState

__all__ = ["block_routes"]

ROWS, ROWS_MAX = 500, 10_000
ARROW_TYPE = "application/vnd.apache.arrow.stream"
# Whole windows become text in threads of their own, one at a time: the others wait, and not the rest of the gateway.
AT_A_TIME = 1
WAITING_MAX = 32
BAD_PARAMETER, BAD_SYMBOL, NOT_FOUND, TRY_AGAIN = -1100, -1121, -1099, -1001


def block_routes(names: Sequence[str], listing: Callable[[], str]) -> list[BaseRoute]:
    """Return the routes. `names` are the blocks that may be read, all when empty; `listing` returns them as JSON."""
    pages = BlockPages(names, listing)
    return [
        Route("/blocks", _Page(pages.blocks)),
        Route("/blocks/{name}/candles", _Page(pages.candles)),
    ]


class _Page:
    """An ASGI application that makes its page in a thread."""

    def __init__(self, make: Callable[[Scope], tuple[bytes, bytes]]) -> None:
        self._make = make
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            kind, body = await self._made(scope)
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        except Refused as refused:
            status, body, headers = refused.status, refused.body, refused.headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _made(self, scope: Scope) -> tuple[bytes, bytes]:
        if self._waiting >= WAITING_MAX:
            raise Refused(503, -1003, "too many requests for whole windows are in flight; try again in a second", 1.0)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._make, scope)
        finally:
            self._waiting -= 1


class BlockPages:
    """What is told about blocks. Each request attaches by name, as any reader does."""

    def __init__(self, names: Sequence[str], listing: Callable[[], str]) -> None:
        self._names = frozenset(names)
        self._listing = listing

    def blocks(self, _: Scope) -> tuple[bytes, bytes]:
        """Return the list of blocks, those alone that are served where some are named."""
        listing = self._listing().encode()
        if self._names:
            rows = [row for row in msgspec.json.decode(listing) if row["name"] in self._names]
            listing = msgspec.json.format(msgspec.json.encode(rows)) + b"\n"
        return JSON_TYPE, listing

    def candles(self, scope: Scope) -> tuple[bytes, bytes]:
        """Return the newest rows of a series. Raises Refused."""
        name = scope["path_params"]["name"]
        symbol, n = _parameters(scope["query_string"])
        accept = next((value for header, value in scope["headers"] if header == b"accept"), b"").decode("latin-1")
        if not is_block_name(name) or (self._names and name not in self._names):
            raise _no_block(name)
        try:
            with attach(name) as feed:
                return _arrow(feed, symbol, n) if ARROW_TYPE in accept.lower() else _json(feed, symbol, n)
        except BlockNotFound:
            raise _no_block(name) from None
        except UnknownSymbol:
            raise Refused(400, BAD_SYMBOL, f"block `{name}` has no symbol `{symbol}`") from None
        except MissingExtra as error:
            raise Refused(406, BAD_PARAMETER, f"{ARROW_TYPE} cannot be served: {error}") from None
        except StaleData as error:
            raise Refused(503, TRY_AGAIN, str(error)) from None
        except BlockError as error:
            raise Refused(503, TRY_AGAIN, str(error)) from None


def _parameters(query: bytes) -> tuple[str, int]:
    """Return symbol and number of rows. Raises Refused."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=8)
    except ValueError:
        raise Refused(400, BAD_PARAMETER, "the query is not %-encoded UTF-8, or has too many parameters") from None
    given = dict(pairs)
    unknown = sorted(given.keys() - {"symbol", "n"})
    if unknown or len(given) < len(pairs):
        raise Refused(400, BAD_PARAMETER, f"allowed: symbol and n, each once; given: {', '.join(dict(pairs))}")
    if not given.get("symbol"):
        raise Refused(400, BAD_PARAMETER, "symbol is missing; give one such as symbol=BTCUSDT")
    text = given.get("n", str(ROWS))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= ROWS_MAX):
        raise Refused(400, BAD_PARAMETER, f"n cannot be `{text[:20]}`; allowed: 1 to {ROWS_MAX}")
    return given["symbol"], int(text)


def _json(feed: Feed, symbol: str, n: int) -> tuple[bytes, bytes]:
    series = feed[symbol]
    rows, states = series.snapshot(n)
    columns: list[list[Any]] = [
        (rows[:, number].astype("int64") if number in WHOLE else rows[:, number]).tolist()
        for number in range(len(NAMES))
    ]
    columns.append([RowState(state).word for state in states.tolist()])
    page = _facts(feed, symbol) | {
        "columns": [*NAMES, "state"],
        "rows": list(zip(*columns, strict=True)),
    }
    return JSON_TYPE, msgspec.json.encode(page)


def _arrow(feed: Feed, symbol: str, n: int) -> tuple[bytes, bytes]:
    pa = library("pyarrow", "arrow")
    ipc = library("pyarrow.ipc", "arrow")
    rows, states = feed[symbol].snapshot(n)
    table = to_arrow(rows).append_column("state", pa.array([RowState(state).word for state in states.tolist()]))
    table = table.replace_schema_metadata({"candleshm": msgspec.json.encode(_facts(feed, symbol))})
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return ARROW_TYPE.encode(), sink.getvalue().to_pybytes()


def _facts(feed: Feed, symbol: str) -> dict[str, object]:
    """Return what there is beside rows; the age is in seconds, null while nothing is loaded."""
    series = feed[symbol]
    age_seconds = series.age
    return {
        "block": feed.name,
        "market": feed.market,
        "interval": feed.interval,
        "symbol": symbol,
        "age": round(age_seconds, 3) if math.isfinite(age_seconds) else None,
        "gaps": [{"start_ms": gap.start_ms, "end_ms": gap.end_ms, "kind": gap.kind} for gap in series.gaps()],
    }


def _no_block(name: str) -> Refused:
    return Refused(404, NOT_FOUND, f"there is no block `{name[:200]}`; /blocks lists those there are")
