"""A small HTTP server for one page, beside more important work that no client can starve.

One thread serves all connections, of which there are few. Idle and slow ones are closed, the oldest first when a new
client needs a place. The page is made at most once a second, however often it is requested.
"""

from __future__ import annotations

import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate

__all__ = ["ScrapeServer"]

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 32
# Connections that wait in the kernel cost no descriptor; a client that finds no place there retries a second later.
BACKLOG = 512
REQUEST_BYTES_MAX = 16_384
# A whole request must arrive this soon after the connection, and its response must be read this soon after it.
REQUEST_SECONDS, ANSWER_SECONDS, LINGER_SECONDS = 5.0, 10.0, 1.0
PAGE_SECONDS = 1.0
# Descriptors that stay free for the collectors, or a quarter of all where the limit is low.
DESCRIPTORS_KEPT = 64
DESCRIPTORS_PART = 4
FULL_SECONDS = 1.0
COMPLAINT_SECONDS = 60.0
CHUNK_BYTES = 65_536

Probe = Callable[[], str]
"""What a probe asks: an empty text when all is well, else one line that says what is not."""

Page = Callable[[str], tuple[str, bytes]]
"""What makes the page: the request's Accept header in; its content type, and the page, out."""


@dataclass(eq=False, slots=True)
class _Client:
    socket: socket.socket
    deadline_seconds: float
    received: bytearray = field(default_factory=bytearray)
    response: memoryview | None = None
    is_lingering: bool = False


class ScrapeServer:
    """Serves `GET` and `HEAD` of one path from a thread of its own, until it is closed."""

    def __init__(self, host: str, port: int, path: str, page: Page, probes: Mapping[str, Probe] | None = None) -> None:
        """Listen. `probes` are what other paths ask. Raises OSError when it cannot listen there."""
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._path, self._page = path.encode(), page
        self._probes = {probed.encode(): probe for probed, probe in (probes or {}).items()}
        self._pages: dict[str, tuple[float, str, bytes]] = {}
        self._clients: dict[socket.socket, _Client] = {}
        self._full_until_seconds = -FULL_SECONDS
        self._complained_seconds = -COMPLAINT_SECONDS
        self._listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_end, self._end = socket.socketpair()
        self._selector.register(self._end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="candleshm-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._wake_end.close()
        self._thread.join()

    def _serve(self) -> None:
        is_accepting = True
        while True:
            now = time.monotonic()
            if is_accepting != (now >= self._full_until_seconds):
                is_accepting = not is_accepting
                if is_accepting:
                    self._selector.register(self._listener, selectors.EVENT_READ)
                else:
                    self._selector.unregister(self._listener)
            for client in [client for client in self._clients.values() if client.deadline_seconds <= now]:
                self._drop(client)
            deadlines = [client.deadline_seconds for client in self._clients.values()]
            if not is_accepting:
                deadlines.append(self._full_until_seconds)
            # Without a deadline it sleeps until a client connects.
            for key, _ in self._selector.select(max(0.0, min(deadlines) - now) if deadlines else None):
                if key.fileobj is self._end:
                    self._close_all()
                    return
                if key.fileobj is self._listener:
                    self._accept(time.monotonic())
                elif (known := self._clients.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    try:
                        self._go_on(known)
                    except BlockingIOError:
                        pass
                    except OSError:
                        self._drop(known)

    def _accept(self, now: float) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # No descriptor or no memory is free. The collectors need the next one more.
            self._full_until_seconds = now + FULL_SECONDS
            self._complain(f"cannot accept connections: {error}", now)
            return
        if _descriptors_are_short():
            connection.close()
            self._complain("refusing connections because nearly all file descriptors are in use (ulimit -n)", now)
            return
        if len(self._clients) >= CONNECTIONS_MAX:
            # Clients that sent their request stay; of the others the oldest has had the most time.
            self._drop(min(self._clients.values(), key=lambda client: client.response is not None))
        connection.setblocking(False)
        self._clients[connection] = _Client(connection, now + REQUEST_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ)

    def _go_on(self, client: _Client) -> None:
        """Receive or send as much as is possible without waiting. Raises BlockingIOError, OSError."""
        if client.response is not None:
            self._send(client)
            return
        chunk = client.socket.recv(CHUNK_BYTES)
        if not chunk:
            self._drop(client)
            return
        if client.is_lingering:
            return
        client.received += chunk
        head, blank, _ = client.received.partition(b"\r\n\r\n")
        if len(head) > REQUEST_BYTES_MAX:
            client.response = memoryview(_response("431 Request Header Fields Too Large"))
        elif blank:
            client.response = memoryview(self._response_to(bytes(head)))
        else:
            return
        client.received.clear()
        client.deadline_seconds = time.monotonic() + ANSWER_SECONDS
        self._selector.modify(client.socket, selectors.EVENT_WRITE)
        self._send(client)

    def _send(self, client: _Client) -> None:
        assert client.response is not None
        client.response = client.response[client.socket.send(client.response[:CHUNK_BYTES]) :]
        if not client.response:
            # What the client still sends is read; a reset would destroy the response on its way.
            client.socket.shutdown(socket.SHUT_WR)
            client.response, client.is_lingering = None, True
            client.deadline_seconds = time.monotonic() + LINGER_SECONDS
            self._selector.modify(client.socket, selectors.EVENT_READ)

    def _response_to(self, head: bytes) -> bytes:
        request_line, *lines = head.split(b"\r\n")
        words = request_line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request")
        method, target, _ = words
        path = target.partition(b"?")[0]
        if path != self._path and path not in self._probes:
            pages = b" ".join([self._path, *self._probes]).decode()
            known = "the pages are" if self._probes else "the only page is"
            return _response("404 Not Found", text=f"{known} {pages}\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "Allow: GET, HEAD\r\n")
        if path in self._probes:
            return self._answer_to(self._probes[path], has_body=method == b"GET")
        accept = next((line[7:] for line in lines if line[:7].lower() == b"accept:"), b"*/*").decode("latin-1").strip()
        now = time.monotonic()
        try:
            made_seconds, content_type, page = self._pages.get(accept, (-PAGE_SECONDS, "", b""))
            if now - made_seconds >= PAGE_SECONDS:
                content_type, page = self._page(accept)
                self._pages = {key: made for key, made in self._pages.items() if now - made[0] < PAGE_SECONDS}
                self._pages[accept] = (now, content_type, page)
        except Exception as error:
            self._complain(f"cannot make the page: {error!r}", now)
            return _response("500 Internal Server Error")
        return _response("200 OK", f"Content-Type: {content_type}\r\n", page=page, has_body=method == b"GET")

    def _answer_to(self, probe: Probe, *, has_body: bool) -> bytes:
        try:
            fault = probe()
        except Exception as error:
            fault = f"the state cannot be read: {error}"
        status, text = ("503 Service Unavailable", fault) if fault else ("200 OK", "ok")
        return _response(status, text=f"{text}\n", has_body=has_body)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.socket]
        self._selector.unregister(client.socket)
        client.socket.close()

    def _close_all(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        self._end.close()

    def _complain(self, text: str, now: float) -> None:
        if now - self._complained_seconds >= COMPLAINT_SECONDS:
            self._complained_seconds = now
            logger.warning("metrics: %s", text)


def _response(status: str, headers: str = "", *, text: str = "", page: bytes = b"", has_body: bool = True) -> bytes:
    if not page:
        page, headers = (text or f"{status[4:]}\n").encode(), headers + "Content-Type: text/plain; charset=utf-8\r\n"
    fixed = f"Date: {formatdate(usegmt=True)}\r\nContent-Length: {len(page)}\r\nConnection: close\r\n"
    head = f"HTTP/1.1 {status}\r\n{headers}{fixed}\r\n".encode("latin-1")
    return head + page if has_body else head


def _descriptors_are_short() -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return False
    kept = min(DESCRIPTORS_KEPT, limit // DESCRIPTORS_PART)
    with suppress(OSError):
        # The directory itself is open while it is read.
        return len(os.listdir("/proc/self/fd")) - 1 > limit - kept
    return True
