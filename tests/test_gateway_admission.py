"""Whom a gateway admits, and what it refuses before any route: keys, hosts, origins, methods, sizes, odd heads."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from candleshm.sim import SimulatedExchange
from tests.support.commanding import complaint, first_line, run, serving, started
from tests.support.gateway_process import Served, gateway, parts_of

SECRET = "s3cr3t-" + "x" * 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway without blocks: what is refused before any route needs none."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime"))}
    with gateway("--block", "no-such-block", "--base-url", "http://127.0.0.1:9", env=environment) as served:
        yield served


def error_of(response: requests.Response) -> tuple[int, int]:
    """Return status and code of an error in the exchange's form."""
    body = response.json()
    assert set(body) == {"code", "msg"}
    assert body["msg"]
    return response.status_code, body["code"]


def test_it_answers(served: Served) -> None:
    response = served.get("/api/v3/ping")
    assert (response.status_code, response.json()) == (200, {})


@pytest.mark.parametrize("path", ["/nothing", "/api/v3", "/api/v4/ping", "/blocks/", "/sapi/v1/account"])
def test_an_unknown_path_says_what_is_served(served: Served, path: str) -> None:
    response = served.get(path)
    assert error_of(response) == (404, -1099)
    assert "/blocks" in response.json()["msg"]


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/api/v3/account", {"X-MBX-APIKEY": SECRET}),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m", {"x-mbx-apikey": SECRET}),
        (f"/api/v3/account?timestamp=1&signature={SECRET}", {}),
        (f"/fapi/v1/ticker/price?apiKey={SECRET}", {}),
        (f"/dapi/v1/time?APIKEY={SECRET}", {}),
        (f"/api/v3/time?%73ignature={SECRET}", {}),
        (f"/nothing?a=1&signature={SECRET}", {}),
    ],
)
def test_a_request_with_a_key_is_refused_wherever_it_goes(served: Served, target: str, headers: dict[str, str]) -> None:
    response = served.get(target, headers=headers)
    assert error_of(response) == (403, -2015)
    assert SECRET not in response.text


def test_a_parameter_that_only_looks_like_a_signature_is_none(served: Served) -> None:
    assert served.get("/api/v3/ping?mysignature=1&signatures=2").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "ANYTHING"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    response = requests.request(method, served.url + "/api/v3/ping", timeout=30)
    assert error_of(response) == (405, -1099)
    assert response.headers["Allow"] == "GET, HEAD"


def test_head_has_the_headers_of_get_and_no_body(served: Served) -> None:
    for path in ("/api/v3/ping", "/blocks", "/nothing"):
        got = served.get(path)
        head = requests.head(served.url + path, timeout=30)
        assert head.status_code == got.status_code
        assert head.headers["Content-Length"] == str(len(got.content))
        assert head.content == b""


def test_who_asks_for_gzip_gets_the_body_as_it_is(served: Served) -> None:
    response = served.get("/blocks", headers={"Accept-Encoding": "gzip, br, zstd"})
    assert response.status_code == 200
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("body", [b"x", b"x" * 5_000_000])
def test_bodies_are_refused(served: Served, body: bytes) -> None:
    head = b"GET /api/v3/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served.connected() as client:
        client.sendall(head)
        status, headers, _ = parts_of(client.recv(65536))
    assert (status, headers["connection"]) == (413, "close")
    assert served.get("/api/v3/ping").status_code == 200


def test_an_empty_body_is_none(served: Served) -> None:
    assert served.get("/api/v3/ping", headers={"Content-Length": "0"}).status_code == 200


def test_chunks_are_refused(served: Served) -> None:
    head = b"GET /api/v3/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parts_of(served.answer(head + b"1\r\nx\r\n0\r\n\r\n"))[0] == 413


# Heads that two servers may read differently.

FIRST = b"GET /api/v3/ping HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SMUGGLED = b"GET /api/v3/time HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        FIRST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        FIRST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        FIRST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx" + SMUGGLED,
        FIRST + b"Content-Length: +5\r\n\r\nxxxxx" + SMUGGLED,
        FIRST + b"Content-Length: 0x5\r\n\r\nxxxxx" + SMUGGLED,
        FIRST + b"Content-Length : 5\r\n\r\nxxxxx" + SMUGGLED,
        FIRST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        FIRST + b"X: 1\r\n folded: 2\r\n\r\n" + SMUGGLED,
        FIRST + b"X: 1\r\n\tfolded: 2\r\n\r\n" + SMUGGLED,
        FIRST + b"X: 1\nContent-Length: 40\r\n\r\n" + SMUGGLED,
        FIRST.replace(b"\r\n", b"\n") + b"\n" + SMUGGLED,
        FIRST + b"X: 1\rY: 2\r\n\r\n" + SMUGGLED,
        FIRST + b"X: \x00\r\n\r\n" + SMUGGLED,
        b"GET /api/v3/ping HTTP/1.1\r\n\r\n" + SMUGGLED,
        FIRST + b"Host: elsewhere\r\n\r\n" + SMUGGLED,
        b"GET /api/v3/ping\r\n\r\n" + SMUGGLED,
        b"GET  /api/v3/ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" + SMUGGLED,
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_head_that_is_ambiguous_ends_the_connection_with_one_response(
    served: Served,
    sent: bytes,
    in_pieces: bool,  # noqa: FBT001
) -> None:
    with served.connected() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in [sent[at : at + 7] for at in range(0, len(sent), 7)] if in_pieces else [sent]:
                client.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        got = b""
        try:
            while more := client.recv(65536):
                got += more
        except ConnectionResetError:
            pass
    # A reset may overtake the response.
    assert got.count(b"HTTP/1.1 ") <= 1
    assert b"serverTime" not in got
    if not in_pieces:
        status, headers, body = parts_of(got)
        assert (status, headers["connection"]) == (400, "close")
        assert set(json.loads(body)) == {"code", "msg"}


def test_a_head_behind_a_request_in_flight_is_no_exception(served: Served) -> None:
    with served.connected() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(50):
            try:
                client.sendall(FIRST + b"\r\n")
                client.sendall(FIRST + b"X: 1\nY: 2\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                break
        got = b""
        try:
            while more := client.recv(65536):
                got += more
        except ConnectionResetError:
            pass
    assert got.count(b"HTTP/1.1 200") <= 1


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_good_head_is_taken_in_any_pieces(served: Served, cut: int) -> None:
    sent = b"GET /api/v3/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nX: 1\r\nConnection: close\r\n\r\n"
    with served.connected() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), cut):
            client.sendall(sent[at : at + cut])
        got = b""
        while more := client.recv(65536):
            got += more
    assert parts_of(got)[0] == 200


# Sizes.


def test_long_urls_and_headers_are_refused(served: Served) -> None:
    assert error_of(served.get("/api/v3/ping?x=" + "1" * 20_000)) == (414, -1000)
    assert error_of(served.get("/api/v3/ping", headers={"X": "1" * 20_000})) == (431, -1000)
    assert error_of(served.get("/api/v3/ping", headers={f"X-{i}": "1" for i in range(6000)}))[0] in (400, 431)
    assert served.get("/api/v3/ping?x=" + "1" * 10_000).status_code == 200


@pytest.mark.parametrize(
    ("begun", "status"), [(b"GET /" + b"x" * 1_000_000, 414), (FIRST + b"X: " + b"x" * 1_000_000, 431)]
)
def test_a_head_without_an_end_is_refused(served: Served, begun: bytes, status: int) -> None:
    with served.connected() as client:
        got = b""
        try:
            for at in range(0, len(begun), 50_000):
                client.sendall(begun[at : at + 50_000])
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            while more := client.recv(65536):
                got += more
        except ConnectionResetError:
            pass
    assert not got or parts_of(got)[0] == status
    assert served.get("/api/v3/ping").status_code == 200


# Hosts and origins.


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8700", True),
        ("localhost", True),
        ("localhost:8700", True),
        ("gateway.localhost:8700", True),
        ("candles", True),
        ("10.1.2.3", True),
        ("[::1]:8700", True),
        ("evil.example", False),
        ("evil.example:8700", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:80", False),
    ],
)
def test_on_loopback_a_name_that_somebody_else_owns_is_refused(served: Served, host: str, is_ours: bool) -> None:  # noqa: FBT001
    response = served.get("/api/v3/ping", headers={"Host": host})
    assert response.status_code == (200 if is_ours else 421)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://x"}],
)
def test_pages_of_other_origins_are_refused(served: Served, headers: dict[str, str]) -> None:
    response = served.get("/api/v3/ping", headers=headers)
    assert error_of(response) == (403, -1000)
    assert "Access-Control-Allow-Origin" not in response.headers


def test_its_own_pages_are_admitted(served: Served) -> None:
    for headers in ({"Origin": served.url}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert served.get("/api/v3/ping", headers=headers).status_code == 200


def test_an_origin_that_is_named_may_read_and_no_other() -> None:
    with gateway("--block", "no-such-block", "--allow-origin", "https://charts.example") as served:
        named = {"Origin": "https://charts.example"}
        response = served.get("/api/v3/ping", headers=named)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://charts.example"
        assert "X-MBX-USED-WEIGHT-1M" in response.headers["Access-Control-Expose-Headers"]
        preflight = requests.options(
            served.url + "/api/v3/klines",
            headers=named | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Authorization"},
            timeout=30,
        )
        assert preflight.status_code == 200
        assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
        other = served.get("/api/v3/ping", headers={"Origin": "https://evil.example"})
        assert other.status_code == 403
        assert "Access-Control-Allow-Origin" not in other.headers


def test_a_host_that_is_named_is_served_and_no_other() -> None:
    with gateway("--block", "no-such-block", "--allow-host", "Candles.Example") as served:
        for host, status in (("candles.example", 200), ("CANDLES.EXAMPLE:443", 200), ("other.example", 421)):
            assert served.get("/api/v3/ping", headers={"Host": host}).status_code == status
        response = served.get("/api/v3/ping", headers={"Host": "candles.example", "Origin": "https://candles.example"})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--base-url", "XX=http://127.0.0.1:9", "`XX` is no market; use SPOT=URL, UM=URL, CM=URL, or a URL alone"),
        ("--allow-origin", "evil.example", "use scheme, host and port, such as https://charts.example"),
        ("--allow-origin", "https://charts.example/", "use scheme, host and port, such as https://charts.example"),
        ("--allow-host", "https://charts.example", "use a name without scheme and port"),
        ("--block", "a/b", "`a/b` cannot be the name of a block"),
    ],
)
def test_a_flag_that_can_admit_nothing_is_refused(flag: str, value: str, said: str) -> None:
    ended = run("gateway", flag, value)
    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.split())


# Tokens.


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_with_a_token_only_requests_that_show_it_are_admitted(tmp_path: Path) -> None:
    path = written(tmp_path / "token", SECRET + "\n")
    with gateway("--block", "no-such-block", "--token-file", path, "--log-level", "debug") as served:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": SECRET},
            {"Authorization": f"Basic {SECRET}"},
            {"Authorization": f"Bearer {SECRET}x"},
        ):
            response = served.get("/api/v3/ping", headers=headers)
            assert error_of(response) == (401, -2015)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        for scheme in ("Bearer", "bearer"):
            assert served.get("/api/v3/ping", headers={"Authorization": f"{scheme} {SECRET}"}).status_code == 200
        assert served.get("/metrics").status_code == 401
        served.process.terminate()
        assert SECRET not in served.ends()


def test_a_browser_shows_the_token_once_and_gets_a_cookie_for_the_page_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "token", SECRET)
    with gateway("--block", "no-such-block", "--token-file", path) as served:
        # The page's own files hold no data.
        assert served.get("/").status_code == 200
        assert served.get("/page/app.js").status_code == 200
        for headers in ({}, {"Authorization": f"Bearer {SECRET}x"}, {"Cookie": f"candleshm={SECRET}"}):
            assert error_of(served.get("/page/session", headers=headers)) == (401, -2015)
            assert refusal_of(served, "/page/live", additional_headers=headers) == 401

        shown = served.get("/page/session", headers={"Authorization": f"Bearer {SECRET}"})
        assert (shown.status_code, shown.content) == (204, b"")
        cookie, *attributes = shown.headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/page"} <= set(attributes)
        assert SECRET not in cookie
        headers = {"Cookie": f"other=1; {cookie}"}
        again = served.get("/page/session", headers=headers)
        assert (again.status_code, "Set-Cookie" in again.headers) == (204, False)
        live = served.url.replace("http", "ws", 1) + "/page/live"
        with connect(live, additional_headers=headers) as socket:
            assert json.loads(socket.recv(timeout=30))["k"] == "hello"
        # It opens the page, and nothing else.
        for target in ("/blocks", "/metrics", "/api/v3/ping"):
            assert error_of(served.get(target, headers=headers)) == (401, -2015)
        # Nor for a page of another site, should a browser send it.
        foreign = headers | {"Origin": "https://evil.example"}
        assert served.get("/page/session", headers=foreign).status_code == 403
        assert refusal_of(served, "/page/live", additional_headers=foreign) == 403
    other = written(tmp_path / "other", SECRET[::-1])
    with gateway("--block", "no-such-block", "--token-file", other) as served:
        assert served.get("/page/session", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (SECRET, 0o640, "chmod 600"),
        (SECRET, 0o604, "chmod 600"),
        ("short", 0o600, "does not hold a token"),
        ("", 0o600, "does not hold a token"),
        (f"{SECRET}\n{SECRET}", 0o600, "does not hold a token"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_a_configuration_error(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    path = written(tmp_path / "token", text, mode)
    result = run("gateway", "--listen", "0", "--token-file", path)
    assert result.returncode == os.EX_CONFIG
    assert said in result.stderr
    assert SECRET not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no-token: No such file" in complaint("gateway", "--listen", "0", "--token-file", str(tmp_path / "no-token"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "plain file" in complaint("gateway", "--listen", "0", "--token-file", str(tmp_path / "pipe"))


# Websockets.


def refusal_of(served: Served, target: str, **options: Any) -> int:
    """Return the status by which a websocket is refused."""
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{served.address[0]}:{served.address[1]}{target}", **options)
    body = json.loads(refused.value.response.body)
    assert set(body) == {"code", "msg"}
    return refused.value.response.status_code


def test_websockets_are_admitted_as_requests_are(served: Served, tmp_path: Path) -> None:
    target = "/ws/btcusdt@kline_1m"
    # There is no block; so the part that serves streams refuses.
    assert refusal_of(served, target) == 503
    assert refusal_of(served, target, origin=Origin(served.url)) == 503
    assert refusal_of(served, target, origin=Origin("https://evil.example")) == 403
    assert refusal_of(served, f"{target}?signature={SECRET}") == 403
    assert refusal_of(served, target, additional_headers={"X-MBX-APIKEY": SECRET}) == 403
    path = written(tmp_path / "token", SECRET)
    with gateway("--block", "no-such-block", "--token-file", path) as with_token:
        assert refusal_of(with_token, target) == 401
        assert refusal_of(with_token, target, additional_headers={"Authorization": f"Bearer {SECRET}"}) == 503


# What is logged.


def test_what_clients_do_wrong_costs_no_line_and_shows_no_secret(tmp_path: Path) -> None:
    with gateway("--block", "no-such-block", "--log-level", "debug") as served:
        for _ in range(20):
            served.get(f"/api/v3/account?signature={SECRET}", headers={"X-MBX-APIKEY": SECRET})
            served.get(f"/nothing?{SECRET}")
            requests.post(served.url + "/api/v3/order", data={"signature": SECRET}, timeout=30)
            served.answer(b"\x00" + SECRET.encode() + b"\r\n\r\n")
        served.process.terminate()
        logged = served.ends()
    assert SECRET not in logged
    assert len(logged.splitlines()) < 10, logged


# Where it listens.


def test_elsewhere_than_on_loopback_it_says_what_that_means(tmp_path: Path) -> None:
    for flags, said in (
        ((), r"WARNING\] listening on every address of this machine without --token-file: everybody"),
        (("--token-file", written(tmp_path / "token", SECRET)), r"INFO\] listening on every address .* the token"),
    ):
        with started("gateway", "--listen", "0.0.0.0:0", "--block", "no-such-block", *flags) as process:
            first_line(process)
            process.terminate()
            _, logged = process.communicate(timeout=30)
        assert re.search(said, logged), logged


def test_a_host_of_any_name_is_admitted_elsewhere_than_on_loopback() -> None:
    with started("gateway", "--listen", "0.0.0.0:0", "--block", "no-such-block") as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("gateway: ").strip().replace("0.0.0.0", "127.0.0.1")
        response = requests.get(url + "/api/v3/ping", headers={"Host": "gateway.company.example"}, timeout=30)
        assert response.status_code == 200


def test_a_port_in_use_is_one_line_and_an_outage(served: Served) -> None:
    port = served.address[1]
    result = run("gateway", "--listen", str(port))
    assert result.returncode == os.EX_TEMPFAIL
    assert result.stderr == f"candleshm: 127.0.0.1:{port}: Address already in use\n"


def test_without_the_extra_it_says_what_to_install(block_name: str) -> None:
    code = (
        "import sys, runpy; sys.modules['uvicorn'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_module('candleshm', run_name='__main__', alter_sys=True)"
    )
    with SimulatedExchange(symbols=2) as exchange:
        for words in (["gateway", "--listen", "0"], serving(exchange, block_name, "--gateway", "0")):
            import subprocess
            import sys

            result = subprocess.run(
                [sys.executable, "-c", code, "candleshm", *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert result.returncode == os.EX_CONFIG
            assert result.stderr == (
                "candleshm: uvicorn is not installed; run `pip install '.[web]'` in the source tree of candleshm\n"
            )
