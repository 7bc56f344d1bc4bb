"""Who may ask a gateway, and how: tokens, hosts, origins, methods, sizes; and no request that carries a key.

It stands before every route, so it looks at each header once and makes nothing that it does not need.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from candleshm.gateway.refusal import FORBIDDEN, UNKNOWN, Refusal
from candleshm.gateway.token import Token

__all__ = ["Access", "Admission"]

URL_BYTES_MAX = 16_384
HEADER_BYTES_MAX = 16_384
METHODS = frozenset({"GET", "HEAD"})
# Headers that are looked at.
WATCHED = frozenset(
    {
        *(b"authorization", b"content-length", b"host", b"origin", b"sec-fetch-site"),
        *(b"transfer-encoding", b"x-mbx-apikey"),
    }
)
SECRET_PARAMETERS = re.compile(rb"(?:^|[&;?])(?:signature|apikey)(?:=|&|$)", re.IGNORECASE)
# Sites whose pages may make a browser send a request without an origin: its own, and what a user typed.
OWN_SITES = frozenset({b"same-origin", b"none"})

WITH_KEY = Refusal(
    403,
    FORBIDDEN,
    "this request carries an API key or a signature; send it to the exchange, a gateway serves no account",
)
WITHOUT_TOKEN = Refusal(
    401,
    FORBIDDEN,
    "this gateway admits requests with its token only, in the header Authorization: Bearer TOKEN",
    {"www-authenticate": "Bearer"},
)
FOREIGN_HOST = Refusal(
    421,
    UNKNOWN,
    "the Host of this request is a name that other machines can own; use 127.0.0.1, localhost or an address",
)
FOREIGN_ORIGIN = Refusal(
    403, UNKNOWN, "a web page of another origin sent this request; --allow-origin ORIGIN admits its origin"
)
OTHER_METHOD = Refusal(405, UNKNOWN, "a gateway serves GET and HEAD only", {"allow": "GET, HEAD"})
WITH_BODY = Refusal(413, UNKNOWN, "a gateway takes no request bodies; send parameters in the URL")
TWO_LENGTHS = Refusal(400, UNKNOWN, "Content-Length and Transfer-Encoding contradict each other")
LONG_URL = Refusal(414, UNKNOWN, f"the URL is longer than {URL_BYTES_MAX} bytes")
LONG_HEADERS = Refusal(431, UNKNOWN, f"the headers are longer than {HEADER_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class Access:
    """Whom to admit."""

    token: Token | None = None
    origins: frozenset[bytes] = frozenset()
    """Origins whose web pages may read responses."""
    is_loopback: bool = True
    """Whether only this machine can connect."""


class Admission:
    """Passes on what may be asked, and refuses everything else, without a line in the log."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        refusal = None if kind == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        start = "http.response.start" if kind == "http" else "websocket.http.response.start"
        await send({"type": start, "status": refusal.status, "headers": refusal.fields()})
        await send({"type": start.replace("start", "body"), "body": refusal.body})

    def _refusal(self, scope: Scope) -> Refusal | None:
        access, found, size_bytes = self._access, {}, 0
        for name, value in scope["headers"]:
            size_bytes += len(name) + len(value)
            if name in WATCHED:
                found[name] = value
        query = scope["query_string"]
        if b"x-mbx-apikey" in found or (query and _has_secret(query)):
            return WITH_KEY
        if access.token is not None and not access.token.fits(found.get(b"authorization", b"")):
            return WITHOUT_TOKEN
        if access.is_loopback and not _is_own_host(found.get(b"host", b"")):
            return FOREIGN_HOST
        origin = found.get(b"origin")
        if origin not in access.origins and (
            origin is not None or found.get(b"sec-fetch-site", b"none") not in OWN_SITES
        ):
            return FOREIGN_ORIGIN
        if scope["type"] == "http" and scope["method"] not in METHODS:
            return OTHER_METHOD
        if b"transfer-encoding" in found:
            return TWO_LENGTHS if b"content-length" in found else WITH_BODY
        if found.get(b"content-length", b"0").strip(b"0"):
            return WITH_BODY
        if len(scope["raw_path"]) + len(query) > URL_BYTES_MAX:
            return LONG_URL
        return LONG_HEADERS if size_bytes > HEADER_BYTES_MAX else None


def _has_secret(query: bytes) -> bool:
    return SECRET_PARAMETERS.search(unquote_to_bytes(query) if b"%" in query else query) is not None


def _is_own_host(host: bytes) -> bool:
    """Say whether a Host cannot be a name by which a web page of another machine reaches this one.

    Whoever owns a name may let it lead to 127.0.0.1, and then read with a page of that name ("DNS rebinding"). Nobody
    owns an address, or a name without a dot.
    """
    name = host.rsplit(b":", 1)[0] if host[-1:] != b"]" and b":" in host else host
    if b"." not in name and name[:1] != b"[":
        return True
    try:
        ipaddress.ip_address(name.strip(b"[]").decode("ascii"))
    except ValueError:
        return name.lower().endswith(b".localhost")
    return True
