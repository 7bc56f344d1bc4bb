"""Who may ask a gateway, and how: tokens, hosts, origins, methods, sizes; and no request that carries a key.

It stands before every route, so it looks at each header once and makes nothing that it does not need.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from candleshm.gateway.access import Access
from candleshm.gateway.refusals import Refused
from candleshm.gateway.token import Token

__all__ = ["Admission"]

URL_BYTES_MAX = 16_384
HEADER_BYTES_MAX = 16_384
METHODS = frozenset({"GET", "HEAD"})
# What a page is told, and whether its browser has been shown the token: by the token, or by the cookie made of it.
PAGE_DATA = frozenset({"/page/live", "/page/session"})
# Headers that are looked at.
WATCHED = frozenset(
    {
        *(b"authorization", b"content-length", b"cookie", b"host", b"origin", b"sec-fetch-site"),
        *(b"transfer-encoding", b"x-mbx-apikey"),
    }
)
SECRET_PARAMETERS = re.compile(rb"(?:^|[&;?])(?:signature|apikey)(?:=|&|$)", re.IGNORECASE)
# Sites whose pages may make a browser send a request without an origin: its own, and what a user typed.
OWN_SITES = frozenset({b"same-origin", b"none"})

# The exchange's codes: no code of its own, nothing there, a key that is not accepted.
UNKNOWN, NOT_FOUND, FORBIDDEN = -1000, -1099, -2015
WITH_KEY = Refused(
    403,
    FORBIDDEN,
    "this request carries an API key or a signature; send it to the exchange itself, a gateway serves no accounts",
)
WITHOUT_TOKEN = Refused(
    401, FORBIDDEN, "this gateway admits only requests with its token, in the header Authorization: Bearer TOKEN"
)
FOREIGN_HOST = Refused(
    421,
    UNKNOWN,
    "the Host of this request is a name that belongs to somebody else; use 127.0.0.1, localhost or an address; "
    "--allow-host HOST serves that name as well",
)
FOREIGN_ORIGIN = Refused(
    403, UNKNOWN, "a web page of another origin sent this request; --allow-origin ORIGIN admits its origin"
)
OTHER_METHOD = Refused(405, NOT_FOUND, "a gateway serves GET and HEAD only")
WITH_BODY = Refused(413, UNKNOWN, "a gateway takes no request bodies; send parameters in the URL")
TWO_LENGTHS = Refused(400, UNKNOWN, "Content-Length and Transfer-Encoding contradict each other")
LONG_URL = Refused(414, UNKNOWN, f"the URL is longer than {URL_BYTES_MAX} bytes")
LONG_HEADERS = Refused(431, UNKNOWN, f"the headers are longer than {HEADER_BYTES_MAX} bytes")
# What else such a response says; what follows a body that nobody reads could be taken for a request.
MORE_HEADERS = {
    400: (b"connection", b"close"),
    401: (b"www-authenticate", b"Bearer"),
    405: (b"allow", b"GET, HEAD"),
    413: (b"connection", b"close"),
}


class Admission:
    """Passes on what may be asked, and refuses everything else, without a line in the log."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        refused = None if kind == "lifespan" else self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send)
            return
        headers = refused.headers
        if refused.status in MORE_HEADERS:
            headers.append(MORE_HEADERS[refused.status])
        start = "http.response" if kind == "http" else "websocket.http.response"
        await send({"type": f"{start}.start", "status": refused.status, "headers": headers})
        await send({"type": f"{start}.body", "body": refused.body})

    def _refusal(self, scope: Scope) -> Refused | None:
        access, size_bytes = self._access, 0
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            size_bytes += len(name) + len(value)
            if name in WATCHED:
                found[name] = value
        query = scope["query_string"]
        if found.get(b"x-mbx-apikey") or (query and _has_secret(query)):
            return WITH_KEY
        if access.token is not None and not _is_admitted(access.token, scope["path"], found):
            return WITHOUT_TOKEN
        host = found.get(b"host", b"")
        if access.is_loopback and not _is_own_host(host) and host.lower().partition(b":")[0] not in access.hosts:
            return FOREIGN_HOST
        origin = found.get(b"origin")
        if origin is None:
            is_foreign = found.get(b"sec-fetch-site", b"none") not in OWN_SITES
        else:
            is_foreign = origin not in access.origins and origin.partition(b"://")[2] != found.get(b"host")
        if is_foreign:
            return FOREIGN_ORIGIN
        if scope["type"] == "http" and scope["method"] not in METHODS:
            return OTHER_METHOD
        if b"transfer-encoding" in found:
            return TWO_LENGTHS if b"content-length" in found else WITH_BODY
        if found.get(b"content-length", b"0").strip(b"0"):
            return WITH_BODY
        # Streams are named in URLs, many at once; their number has a bound of its own.
        if scope["type"] == "http" and len(scope["raw_path"]) + len(query) > URL_BYTES_MAX:
            return LONG_URL
        return LONG_HEADERS if size_bytes > HEADER_BYTES_MAX else None


def _is_admitted(token: Token, path: str, found: Mapping[bytes, bytes]) -> bool:
    """Say whether a request shows the token, or needs none: the page's own files hold no data."""
    if token.fits(found.get(b"authorization", b"")):
        return True
    if path in PAGE_DATA:
        return token.fits_cookies(found.get(b"cookie", b""))
    return path == "/" or path.startswith("/page/")


def _has_secret(query: bytes) -> bool:
    return SECRET_PARAMETERS.search(unquote_to_bytes(query) if b"%" in query else query) is not None


@lru_cache(maxsize=64)
def _is_own_host(host: bytes) -> bool:
    """Say whether a Host cannot be a name by which a web page of another machine reaches this one.

    Whoever owns a name may let it lead to 127.0.0.1, and then read with a page of that name ("DNS rebinding"). Nobody
    owns an address, or a name without a dot.
    """
    name = host.decode("latin-1").lower()
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    if "." not in name and not name.startswith("["):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.endswith(".localhost")
    return True
