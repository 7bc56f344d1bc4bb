"""The only HTTP: what comes back from servers that behave and from those that do not."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from candleshm.errors import BadResponse, ExchangeUnavailable
from candleshm.rest import transport
from candleshm.rest.transport import HttpTransport
from candleshm.system.clock import SystemClock


class Server:
    """A socket that answers every request with the same bytes, and remembers what it was asked."""

    def __init__(self, reply: Callable[[socket.socket], None]) -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in [self._listener, *self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
                while b"\r\n\r\n" in received:
                    request, _, received = received.partition(b"\r\n\r\n")
                    self.requests.append(request)
                    self._reply(connection)


def whole(body: bytes, *headers: str, status: str = "200 OK") -> Callable[[socket.socket], None]:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
    return lambda connection: connection.sendall(head + body)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    servers: list[Server] = []

    def start(reply: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Callable[[socket.socket], None]], Server]


@pytest.fixture
def fetch() -> HttpTransport:
    return HttpTransport(SystemClock())


def test_a_response_has_body_lower_case_headers_times_and_date(serve: Serve, fetch: HttpTransport) -> None:
    server = serve(whole(b"[1]", "X-MBX-Used-Weight-1M: 7", "Date: Thu, 01 Jan 2026 00:00:10 GMT"))
    before = SystemClock().monotonic_seconds()

    answer = fetch.fetch(f"{server.url}/api/v3/klines?symbol=%E5%B8%81&limit=5")

    assert (answer.status, answer.body) == (200, b"[1]")
    assert answer.headers["x-mbx-used-weight-1m"] == "7"
    assert answer.date_ms == 1_767_225_610_000
    assert before <= answer.sent_seconds <= answer.received_seconds <= SystemClock().monotonic_seconds()
    assert server.requests[0].startswith(b"GET /api/v3/klines?symbol=%E5%B8%81&limit=5 HTTP/1.1")


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Thu, 99 Jan 2026 00:00:10 GMT",
        f"Thu, 01 Jan {'9' * 30} 00:00:10 GMT",
    ],
)
def test_a_date_that_is_none_does_no_harm(serve: Serve, fetch: HttpTransport, date: str) -> None:
    assert fetch.fetch(serve(whole(b"[]", f"Date: {date}")).url).date_ms is None


def test_connections_are_kept_per_thread(serve: Serve, fetch: HttpTransport) -> None:
    server = serve(whole(b"[]"))
    for _ in range(5):
        fetch.fetch(server.url)
    assert server.connections == 1

    other = threading.Thread(target=fetch.fetch, args=(server.url,))
    other.start()
    other.join()
    assert server.connections == 2


def test_gzip_is_unpacked(serve: Serve, fetch: HttpTransport) -> None:
    body = b"[" + b"1," * 100_000 + b"1]"
    server = serve(whole(gzip.compress(body), "Content-Encoding: gzip"))

    assert fetch.fetch(server.url).body == body
    assert b"Accept-Encoding: gzip" in server.requests[0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_redirects_are_responses_and_never_followed(serve: Serve, fetch: HttpTransport, status: str) -> None:
    elsewhere = serve(whole(b"[]"))
    server = serve(whole(b"", f"Location: {elsewhere.url}/other", status=status))

    assert fetch.fetch(server.url).status == int(status[:3])
    assert elsewhere.connections == 0


def test_errors_of_the_exchange_are_responses(serve: Serve, fetch: HttpTransport) -> None:
    assert fetch.fetch(serve(whole(b'{"code":-1121,"msg":"x"}', status="400 Bad Request")).url).status == 400


def test_a_body_cut_short_is_a_bad_response(serve: Serve, fetch: HttpTransport) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[[1,2")
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(BadResponse, match="ended after 5 bytes"):
        fetch.fetch(serve(cut).url)


@pytest.mark.parametrize(
    "lengths", ["Content-Length: 5\r\nContent-Length: 7", "Content-Length: 5, 7", "Content-Length: x"]
)
def test_a_stop_counts_however_its_length_is_stated(serve: Serve, fetch: HttpTransport, lengths: str) -> None:
    answer = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\n{lengths}\r\n\r\nabcde".encode()

    def reply(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    stopped = fetch.fetch(serve(reply).url)

    assert stopped.status == 429
    assert stopped.headers["retry-after"] == "30"


def test_a_chunked_body_cut_short_is_a_bad_response(serve: Serve, fetch: HttpTransport) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[[1,2\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(BadResponse, match="ended after"):
        fetch.fetch(serve(cut).url)


@pytest.mark.parametrize(
    "body", [gzip.compress(b"[1,2,3]" * 100, mtime=0)[:-20], b"no gzip at all"], ids=["cut", "plain"]
)
def test_gzip_that_cannot_be_unpacked_is_a_bad_response(serve: Serve, fetch: HttpTransport, body: bytes) -> None:
    with pytest.raises(BadResponse, match="gzip"):
        fetch.fetch(serve(whole(body, "Content-Encoding: gzip")).url)


@pytest.mark.parametrize("packed", [True, False])
def test_a_body_beyond_every_reason_is_refused(
    serve: Serve,
    fetch: HttpTransport,
    monkeypatch: pytest.MonkeyPatch,
    packed: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(transport, "BODY_BYTES_MAX", 100_000)
    body = b"0" * 1_000_000
    reply = whole(gzip.compress(body), "Content-Encoding: gzip") if packed else whole(body)

    with pytest.raises(BadResponse, match="100000 bytes"):
        fetch.fetch(serve(reply).url)


def test_no_response_names_the_host_and_why(fetch: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    with pytest.raises(ExchangeUnavailable, match=rf"127\.0\.0\.1:{port}: .*refused"):
        fetch.fetch(f"http://127.0.0.1:{port}/api/v3/time")


def test_a_connection_dropped_without_a_response(serve: Serve, fetch: HttpTransport) -> None:
    with pytest.raises(ExchangeUnavailable, match="no response from"):
        fetch.fetch(serve(lambda connection: connection.shutdown(socket.SHUT_RDWR)).url)


def test_a_server_that_says_nothing(serve: Serve, fetch: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.05)

    with pytest.raises(ExchangeUnavailable, match="timed out"):
        fetch.fetch(serve(lambda connection: None).url)


def test_a_body_that_trickles_in_ends_at_the_deadline(fetch: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.2)
    ended = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not ended.wait(0.01):
            connection.sendall(b"1")

    server = Server(trickle)
    try:
        with pytest.raises(ExchangeUnavailable, match="no complete response"):
            fetch.fetch(server.url)
    finally:
        ended.set()
        server.close()


def test_a_large_body_may_take_longer_than_its_bytes_from_one_another(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.2)

    def slow(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            time.sleep(0.03)
            connection.sendall(b"1")

    patient = HttpTransport(SystemClock(), whole_seconds=60.0)
    assert patient.fetch(serve(slow).url).body == b"1" * 20
    with pytest.raises(ExchangeUnavailable, match="no complete response"):  # but not for ever from one byte to the next
        patient.fetch(serve(lambda link: link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1")).url)
    with pytest.raises(ExchangeUnavailable, match=r"no complete response from .* in 0.2 s"):
        HttpTransport(SystemClock()).fetch(serve(slow).url)


def test_after_a_failure_the_next_request_gets_a_connection_of_its_own(serve: Serve, fetch: HttpTransport) -> None:
    replies = iter([lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[")])

    def first_cut_then_whole(connection: socket.socket) -> None:
        next(replies, whole(b"[2]"))(connection)
        if server.connections == 1:
            connection.shutdown(socket.SHUT_RDWR)

    server = serve(first_cut_then_whole)
    with pytest.raises(BadResponse):
        fetch.fetch(server.url)

    assert fetch.fetch(server.url).body == b"[2]"


def test_requests_go_through_the_proxy_that_was_given(serve: Serve) -> None:
    proxy = serve(whole(b'["by proxy"]'))
    through = HttpTransport(SystemClock(), proxies={"http": proxy.url})

    assert through.fetch("http://exchange.invalid/api/v3/time").body == b'["by proxy"]'
    assert proxy.requests[0].startswith(b"GET http://exchange.invalid/api/v3/time")


def test_the_environment_counts_only_when_asked_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(whole(b'["proxy"]')), serve(whole(b'["direct"]'))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert HttpTransport(SystemClock()).fetch(server.url).body == b'["direct"]'
    assert HttpTransport(SystemClock(), trust_env=True).fetch(server.url).body == b'["proxy"]'


def test_passwords_of_addresses_never_reach_an_error(fetch: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    through = HttpTransport(SystemClock(), proxies={"http": f"http://user:secret@127.0.0.1:{port}"})

    for client, url in ((fetch, f"http://user:secret@127.0.0.1:{port}/x"), (through, "http://exchange.invalid/x")):
        with pytest.raises(ExchangeUnavailable) as caught:
            client.fetch(url)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "ftp://host/x"])
def test_an_address_that_is_none_is_a_clear_error(fetch: HttpTransport, url: str) -> None:
    with pytest.raises(ExchangeUnavailable):
        fetch.fetch(url)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_a_head_or_a_chunk_that_trickles_in_ends_at_the_deadline(
    fetch: HttpTransport, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.3)
    ended = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(head)
        # Each byte comes well within the timeout of a single read, and no line ever ends.
        while not ended.wait(0.01):
            connection.sendall(b"0")

    server = Server(trickle)
    try:
        with pytest.raises(ExchangeUnavailable):
            fetch.fetch(server.url)
    finally:
        ended.set()
        server.close()


def test_a_head_beyond_every_reason_is_no_response(serve: Serve, fetch: HttpTransport) -> None:
    for lines in (["X-Long: " + "x" * 1_000_000], [f"X-{number}: 1" for number in range(10_000)]):
        with pytest.raises(ExchangeUnavailable):
            fetch.fetch(serve(whole(b"[]", *lines)).url)


def test_http_1_0_is_a_response_and_its_connection_is_not_used_again(serve: Serve, fetch: HttpTransport) -> None:
    def once(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[1]")
        connection.shutdown(socket.SHUT_RDWR)

    server = serve(once)
    assert [fetch.fetch(server.url).body for _ in range(2)] == [b"[1]", b"[1]"]
    assert server.connections == 2


def test_cookies_are_not_kept(serve: Serve, fetch: HttpTransport) -> None:
    server = serve(whole(b"[]", "Set-Cookie: front=1; Path=/"))
    for _ in range(2):
        fetch.fetch(server.url)

    assert b"cookie" not in server.requests[1].lower()


def test_bytes_after_a_response_are_not_the_next_response(serve: Serve, fetch: HttpTransport) -> None:
    double = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]" * 2
    replies = iter([lambda connection: connection.sendall(double)])
    server = serve(lambda connection: next(replies, whole(b"[2]"))(connection))

    assert fetch.fetch(server.url).body == b"[1]"
    assert fetch.fetch(server.url).body == b"[2]"


def test_a_hundred_continues_do_not_hold_a_thread(fetch: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.3)
    ended = threading.Event()

    def go_on(connection: socket.socket) -> None:
        while not ended.wait(0.01):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    server = Server(go_on)
    try:
        with pytest.raises(ExchangeUnavailable):
            fetch.fetch(server.url)
    finally:
        ended.set()
        server.close()


def test_a_refused_connection_is_told_in_the_words_of_the_system() -> None:
    with pytest.raises(ExchangeUnavailable) as caught:
        HttpTransport(SystemClock()).fetch("http://127.0.0.1:1/x")
    assert str(caught.value) == "no response from 127.0.0.1:1: ConnectionRefusedError: [Errno 111] Connection refused"
