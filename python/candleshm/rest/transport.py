"""HTTP: a URL in, a response out. It decides nothing, retries nothing and follows no redirect.

There is no `urllib3.Retry` here: a retry inside the transport would spend weight that the budget does not see, and hold
a worker while it sleeps. The scheduler requests again, with `Backoff`, once the budget has room.

A refusal counts from its status line on. Whatever is wrong with the rest, be it truncated, slow, endless or badly
compressed: the response has that status, the headers that came, and as much of the body as came.
"""

from __future__ import annotations

import io
import re
import socket
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter

from candleshm.errors import BadResponse, ExchangeUnavailable
from candleshm.exchanges.base import Response, date_ms_of
from candleshm.network.addresses import Address, Addresses
from candleshm.network.proxies import CREDENTIALS_STATUS, Proxy, ProxyError, proxy_of
from candleshm.system.clock import Clock
from candleshm.system.log_text import without_credentials

__all__ = ["HttpTransport", "Transport"]

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
BODY_BYTES_MAX = 32 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
# Statuses after which nothing may be sent for a while. They must be booked before the rest of the response is here, so
# the rest gets this long, and the bytes that the text of an error can need.
STOPS = (403, 407, 418, 429)
STOP_SECONDS = 0.5
REFUSAL_BYTES_MAX = 64 * 1024
# A refusal may come with status 200, too.
REFUSAL_START = b'{"code"'
# The text of http.client when a proxy refuses the connection to a host.
TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")


class Transport(Protocol):
    """What fetches a URL. Tests pass one of their own."""

    def fetch(self, url: str) -> Response:
        """Return the response to GET `url`, whatever its status.

        Raises ExchangeUnavailable when there is none, BadResponse when the body of a 200 is truncated, too large or
        undecodable.
        """


class HttpTransport:
    """requests with one session (and so one kept-alive connection per host) for each thread that calls."""

    def __init__(
        self,
        clock: Clock,
        *,
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        whole_seconds: float | None = None,
    ) -> None:
        """`whole_seconds` is the limit for a complete response, the read timeout unless given."""
        self._clock = clock
        self._whole_seconds = whole_seconds
        self._proxies = dict(proxies or {})
        self._trust_env = trust_env
        self._local = threading.local()
        self._addresses = Addresses()

    def fetch(self, url: str) -> Response:
        """Return the response to GET `url`; all of it, headers too, has to arrive in time."""
        sent_seconds = self._clock.monotonic_seconds()
        proxy: str = ""
        whole_seconds = READ_SECONDS if self._whole_seconds is None else self._whole_seconds
        try:
            response = self._session(whole_seconds).get(
                url,
                # Given here, and not to the session: there the environment would overrule them.
                proxies=dict(self._proxies),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                stream=True,
                allow_redirects=False,
            )
            with response:
                body = _read(response, whole_seconds)
                headers = {name.lower(): value for name, value in response.headers.items()}
                status = response.status_code
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = _reason(error)
            refused = TUNNEL_REFUSED.search(reason)
            if refused is None:
                by_proxy = f" by proxy {found}" if (found := self._proxy(url)) else ""
                raise ExchangeUnavailable(f"no response from {_host(url)}{by_proxy}: {reason}") from None
            body, headers, status = b"", {}, int(refused[1])
            proxy = self._proxy(url)
        if status == CREDENTIALS_STATUS:
            # Only a proxy sends it, also where there is no tunnel.
            proxy = self._proxy(url)
        return Response(
            url=url,
            status=status,
            headers=headers,
            body=body,
            sent_seconds=sent_seconds,
            received_seconds=self._clock.monotonic_seconds(),
            date_ms=date_ms_of(headers.get("date")),
            proxy=proxy,
        )

    def _proxy(self, url: str) -> str:
        """Return host and port of the proxy that `url` takes, an empty text without one."""
        try:
            return str(proxy_of(url, self._proxies, trust_env=self._trust_env) or "")
        except ProxyError:
            return ""

    def _session(self, whole_seconds: float) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = self._trust_env
            session.headers.update({"Accept-Encoding": "gzip", "User-Agent": "candleshm"})
            # No request needs a cookie, and a server that sets a new one each time would make requests grow.
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            adapter = _Adapter(whole_seconds, self._addresses, pool_connections=1, pool_maxsize=1, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        return session


class _UntilDeadline(io.RawIOBase):
    """What a socket receives until a deadline, after which reading times out."""

    def __init__(self, file: io.BufferedReader, connection: socket.socket, deadline_seconds: float) -> None:
        self._file = file
        self._connection = connection
        self._deadline_seconds = deadline_seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_seconds = self._deadline_seconds - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(min(left_seconds, READ_SECONDS))
        return self._file.raw.readinto(buffer)

    def end_in(self, seconds: float) -> None:
        """Bring the deadline forward."""
        self._deadline_seconds = min(self._deadline_seconds, time.monotonic() + seconds)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(HTTPResponse):
    """A response that has to arrive completely within `whole_seconds`.

    A socket's own timeout counts from byte to byte: a server that sends one every few seconds, even of the headers,
    would hold a thread for hours.
    """

    whole_seconds: float

    def __init__(self, sock: socket.socket, *arguments: Any, **keywords: Any) -> None:
        super().__init__(sock, *arguments, **keywords)
        self._source = _UntilDeadline(self.fp, sock, time.monotonic() + self.whole_seconds)
        self.fp = io.BufferedReader(self._source)

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status in STOPS:
            self._source.end_in(STOP_SECONDS)
        return version, status, reason

    def begin(self) -> None:
        """Read status and headers. Those of a response that stops everything count as far as they came."""
        try:
            super().begin()
        except (OSError, HTTPException):
            if self.headers is not None or self.status not in STOPS:
                raise
            self.headers = self.msg = HTTPMessage()
            self.length, self.chunked, self.will_close = 0, False, True
            self._close_conn()
        if self.status in STOPS:
            # Lengths that contradict each other would make urllib3 refuse the response, and with it the stop.
            del self.headers["Content-Length"]


class _Remembering(urllib3.connection.HTTPConnection):
    """A connection to the address of its host, or of its proxy, that responded the last time.

    An address that accepts and then sends nothing, even in the TLS handshake, costs one attempt: the next one goes to
    another address.
    """

    addresses: Addresses
    socks: Proxy | None = None
    _address: Address | None = None

    def _new_conn(self) -> socket.socket:
        timeout_seconds = self.timeout if isinstance(self.timeout, int | float) else CONNECT_SECONDS
        options = self.socket_options or ()
        try:
            if self.socks is None:
                connection, address = self.addresses.connect(self.host, self.port, timeout_seconds, options)
            else:
                from candleshm.network.socks import connect_by_socks

                connection, address = connect_by_socks(
                    self.addresses, self.socks, self.host, self.port, timeout_seconds, options
                )
            self._address = address
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, f"{type(error).__name__}: {error}") from error
        connection.settimeout(timeout_seconds)
        return connection

    def connect(self) -> None:
        try:
            super().connect()
        except Exception:
            self.blame()
            raise

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        try:
            response = super().getresponse()
        except Exception:
            self.blame()
            raise
        if self._address is not None:
            self.addresses.worked(*self._first_host, self._address)
        return response

    def blame(self) -> None:
        """Let the next connection go to another address."""
        if self._address is not None:
            self.addresses.failed(*self._first_host, self._address)

    @property
    def _first_host(self) -> tuple[str, int]:
        """Host and port of the TCP connection."""
        return (self.host, self.port) if self.socks is None else (self.socks.host, self.socks.port)


class _RememberingTls(_Remembering, urllib3.connection.HTTPSConnection):
    """The same, encrypted."""


class _Adapter(HTTPAdapter):
    """Connections that remember addresses and whose responses have a deadline, with a proxy and without."""

    def __init__(self, whole_seconds: float, addresses: Addresses, **keywords: Any) -> None:
        response = type("_Response", (_Response,), {"whole_seconds": whole_seconds})
        self._settings = {"response_class": response, "addresses": addresses}
        super().__init__(**keywords)

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords)
        self.poolmanager.pool_classes_by_scheme = self._pools()

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> Any:
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        if proxy.lower().startswith("socks"):
            # The connections of urllib3 to a SOCKS proxy try its addresses one after the other.
            manager: Any = urllib3.PoolManager(num_pools=1, maxsize=1, **keywords)
            manager.pool_classes_by_scheme = self._pools(Proxy.of(proxy))
            self.proxy_manager[proxy] = manager
        else:
            manager = super().proxy_manager_for(proxy, **keywords)
            manager.pool_classes_by_scheme = self._pools()
        return manager

    def _pools(self, socks: Proxy | None = None) -> dict[str, type]:
        settings = {**self._settings, "socks": socks}
        return {
            scheme: type("_Pool", (pool,), {"ConnectionCls": type("_Connection", (connection,), settings)})
            for scheme, pool, connection in (
                ("http", urllib3.HTTPConnectionPool, _Remembering),
                ("https", urllib3.HTTPSConnectionPool, _RememberingTls),
            )
        }


def _read(response: requests.Response, whole_seconds: float) -> bytes:
    """Read the body as it arrives, so that too large a one ends early; the body of a refusal as far as it comes."""
    raw: urllib3.HTTPResponse = response.raw
    status = response.status_code
    is_packed = response.headers.get("Content-Encoding", "").strip().lower() == "gzip"
    parts: list[bytes] = []
    size_bytes = 0
    wrong: ExchangeUnavailable | BadResponse | None = None
    try:
        while part := raw.read1(CHUNK_BYTES, decode_content=False):
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > (BODY_BYTES_MAX if status == 200 else REFUSAL_BYTES_MAX):
                wrong = BadResponse(f"body is larger than {BODY_BYTES_MAX} bytes", status=status)
                break
    except urllib3.exceptions.ReadTimeoutError:
        if isinstance(raw.connection, _Remembering):
            raw.connection.blame()
        host = _host(response.url)
        wrong = ExchangeUnavailable(f"no complete response from {host} in {whole_seconds:g} s, only {size_bytes} bytes")
    except urllib3.exceptions.ProtocolError:
        host = _host(response.url)
        wrong = BadResponse(f"body of {host} ended after {size_bytes} bytes, before its announced end", status=status)
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        if status == 200:
            raise
    body = b"".join(parts)
    if status != 200:
        return _gunzip_start(body) if is_packed else body
    try:
        if wrong is None:
            return _gunzip(body) if is_packed else body
    except BadResponse as error:
        wrong = error
    start = _gunzip_start(body) if is_packed else body
    if start.lstrip().startswith(REFUSAL_START):
        return start[:REFUSAL_BYTES_MAX]
    raise wrong


def _gunzip_start(body: bytes) -> bytes:
    """Unpack as much as possible of the text of a refusal; a body that is not compressed stays as it is."""
    decompressor, plain = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
    with suppress(zlib.error):
        # In small pieces, so that the text before the damage is kept.
        for start in range(0, min(len(body), REFUSAL_BYTES_MAX), 64):
            plain += decompressor.decompress(body[start : start + 64], REFUSAL_BYTES_MAX)
            if len(plain) > REFUSAL_BYTES_MAX:
                break
    return plain or (b"" if body.startswith(b"\x1f\x8b") else body)


def _gunzip(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(body, BODY_BYTES_MAX)
    except zlib.error as error:
        raise BadResponse(f"gzip body cannot be unpacked: {error}") from None
    if not decompressor.eof:
        raise BadResponse(f"gzip body of {len(body)} bytes is truncated or unpacks to more than {BODY_BYTES_MAX} bytes")
    return plain


def _host(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]


def _reason(error: BaseException) -> str:
    """Return the text of the innermost cause, without names and passwords in URLs."""
    cause: object = error
    while isinstance(cause, BaseException):
        inner = next((part for part in (getattr(cause, "reason", None), *cause.args) if _is_error(part)), None)
        if inner is None and isinstance(cause, urllib3.exceptions.HTTPError):
            inner = cause.__cause__  # the error of the system; the text of urllib3 names a class of this module
        if inner is None:
            break
        cause = inner
    return f"{type(cause).__name__}: {without_credentials(str(cause))}"


def _is_error(part: object) -> bool:
    return isinstance(part, BaseException)
