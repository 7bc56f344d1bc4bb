"""The only HTTP: an address in, an answer out. It decides nothing, retries nothing and follows no redirect.

There is no `urllib3.Retry` here: a retry inside the transport would spend weight that the budget does not see and hold
a worker while it sleeps. The scheduler asks again, with `Backoff`, after the budget agreed.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from typing import Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter

from candleshm.clock import Clock
from candleshm.errors import BadResponse, ExchangeUnavailable
from candleshm.exchanges.base import Answer, date_ms_of
from candleshm.printable import without_credentials

__all__ = ["HttpTransport", "Transport"]

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
BODY_BYTES_MAX = 32 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


class Transport(Protocol):
    """What fetches. Tests hand in a function from address to answer."""

    def fetch(self, url: str) -> Answer:
        """Return the answer to GET `url`, whatever its status.

        Raises ExchangeUnavailable when there is none, BadResponse when its body is cut short, too large or undecodable.
        """


class HttpTransport:
    """requests with one session (and so one kept-alive connection per host) for each thread that calls."""

    def __init__(self, clock: Clock, *, proxies: Mapping[str, str] | None = None, trust_env: bool = False) -> None:
        self._clock = clock
        self._proxies = dict(proxies or {})
        self._trust_env = trust_env
        self._local = threading.local()

    def fetch(self, url: str) -> Answer:
        """Return the answer to GET `url`; the whole of it has to be here within the read timeout."""
        sent_seconds = self._clock.monotonic_seconds()
        try:
            response = self._session().get(
                url, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True, allow_redirects=False
            )
            with response:
                body = self._read(response, sent_seconds + READ_SECONDS)
                headers = {name.lower(): value for name, value in response.headers.items()}
                status = response.status_code
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ExchangeUnavailable(f"no answer from {_host(url)}: {_reason(error)}") from None
        return Answer(
            url=url,
            status=status,
            headers=headers,
            body=body,
            sent_seconds=sent_seconds,
            received_seconds=self._clock.monotonic_seconds(),
            date_ms=date_ms_of(headers.get("date")),
        )

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = self._trust_env
            session.proxies.update(self._proxies)
            session.headers.update({"Accept-Encoding": "gzip", "User-Agent": "candleshm"})
            adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        return session

    def _read(self, response: requests.Response, deadline_seconds: float) -> bytes:
        """Read the body as it arrives, so that one which trickles in ends at the deadline."""
        raw: urllib3.HTTPResponse = response.raw
        parts: list[bytes] = []
        size_bytes = 0
        try:
            while part := raw.read1(CHUNK_BYTES, decode_content=False):
                parts.append(part)
                size_bytes += len(part)
                if size_bytes > BODY_BYTES_MAX:
                    raise BadResponse(f"body is larger than {BODY_BYTES_MAX} bytes", status=response.status_code)
                if self._clock.monotonic_seconds() > deadline_seconds:
                    raise ExchangeUnavailable(
                        f"no whole answer from {_host(response.url)} in {READ_SECONDS:g} s, only {size_bytes} bytes"
                    )
        except urllib3.exceptions.ProtocolError:
            raise BadResponse(
                f"body of {_host(response.url)} ended after {size_bytes} bytes, before its announced end",
                status=response.status_code,
            ) from None
        body = b"".join(parts)
        return _gunzip(body) if response.headers.get("Content-Encoding", "").lower() == "gzip" else body


def _gunzip(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(body, BODY_BYTES_MAX)
    except zlib.error as error:
        raise BadResponse(f"gzip body cannot be unpacked: {error}") from None
    if not decompressor.eof:
        raise BadResponse(f"gzip body of {len(body)} bytes is cut short or unpacks to more than {BODY_BYTES_MAX} bytes")
    return plain


def _host(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]


def _reason(error: BaseException) -> str:
    """Return the cause's own words without the layers around it, and without names and passwords in addresses."""
    cause: object = error
    while isinstance(cause, BaseException):
        inner = next((part for part in (getattr(cause, "reason", None), *cause.args) if _is_error(part)), None)
        if inner is None:
            break
        cause = inner
    return f"{type(cause).__name__}: {without_credentials(str(cause))}"


def _is_error(part: object) -> bool:
    return isinstance(part, BaseException)
