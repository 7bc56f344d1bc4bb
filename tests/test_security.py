"""Who may read and write a block, what can be a name, whom the collector believes, and what never shows a secret.

SECURITY.md names these tests beside what they defend.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import trustme

import candleshm
from candleshm import _core
from candleshm.collector.collector import Collector
from candleshm.commands.settings import collector_configs
from candleshm.compat.candle_server import CandleServer
from candleshm.compat.rule import CandleRule
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError, ExchangeUnavailable
from candleshm.rest.transport import HttpTransport
from candleshm.sim import Fault, SimulatedExchange, html, rate_limited, refused
from candleshm.system.clock import SystemClock
from candleshm.system.log_text import printable, without_credentials
from tests.support.collecting import config_of, status_of
from tests.support.commanding import complaint, first_lines, lines_until, run, serving, started, until
from tests.support.confined import NOBODY, finished, forked, script
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

SHM = Path("/dev/shm")
MARK = "hunter2mark"
"""Part of every secret; it must not show anywhere."""


@pytest.fixture(scope="module")
def shared_exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def exchange(shared_exchange: SimulatedExchange) -> Iterator[SimulatedExchange]:
    yield shared_exchange
    shared_exchange.faults.clear()


def block(name: str) -> _core.Writer:
    return _core.Writer.open(name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"])


def fill(writer: _core.Writer) -> None:
    rows = [kline(START_MS + slot * MINUTE_MS, 100 + slot) for slot in range(5)]
    ingest(writer, "BTCUSDT", *rows, sent_ms=START_MS + 4 * MINUTE_MS + 5000)


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    """A block with four closed rows and a live one."""
    writer = block(block_name)
    fill(writer)
    yield writer
    writer.close()


# Blocks: mode, owner, kind of file.


@pytest.mark.parametrize("umask", [0o000, 0o777, 0o177])
def test_a_block_is_the_owner_s_alone_whatever_the_umask(block_name: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        writer = block(block_name)
        writer.enlarge(["BTCUSDT", "ETHUSDT"])
    finally:
        os.umask(before)
    found = (SHM / block_name).stat()
    writer.close()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o600, os.geteuid())


def test_another_user_s_block_is_neither_read_nor_taken_over_nor_removed(
    exchange: SimulatedExchange, block_name: str
) -> None:
    """Somebody may take the name first, and write whatever he likes into it. Root could read it."""
    name = f"candleshm-{block_name}"

    def squat() -> None:
        fill(block(name))
        os._exit(0)  # leaves the block

    assert forked(squat, uid=NOBODY) == 0
    assert (SHM / name).stat().st_uid == NOBODY

    for use in (candleshm.attach, candleshm.unlink, block):
        with pytest.raises(candleshm.BlockOfAnotherUser, match=rf"user {NOBODY} .*owns it.* mode 0600") as caught:
            use(name)
        assert (caught.value.uid, caught.value.mode) == (NOBODY, 0o600)
    for arguments in (["read", name, "BTCUSDT"], ["rm", name], serving(exchange, name)):
        assert f"user {NOBODY} " in complaint(*arguments)
    listed = run("ls")
    assert (listed.returncode, name in listed.stdout) == (0, False)
    assert f"1 block of another user cannot be read: {name}; user {NOBODY} " in listed.stderr
    assert name not in [health.name for health in candleshm.blocks()]
    assert (SHM / name).stat().st_uid == NOBODY


def test_another_user_cannot_read_ours(writer: _core.Writer) -> None:
    def spy() -> None:
        for use in (candleshm.attach, candleshm.unlink):
            with pytest.raises(candleshm.BlockOfAnotherUser, match=r"user 0 \(root\) owns it, and mode 0600 lets only"):
                use(writer.name)
        with pytest.raises(PermissionError):
            (SHM / writer.name).read_bytes()
        with pytest.raises(PermissionError):
            (SHM / writer.name).unlink()

    assert forked(spy, uid=NOBODY) == 0
    assert (SHM / writer.name).exists()


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


NO_FILES: Mapping[str, Callable[[Path, Path], object]] = {
    "symlink": lambda path, other: path.symlink_to(other),
    "dangling": lambda path, _: path.symlink_to("/nonexistent"),
    "loop": lambda path, _: path.symlink_to(path),
    "directory": lambda path, _: path.mkdir(),
    "pipe": lambda path, _: os.mkfifo(path),
    "socket": lambda path, _: bind_socket(path),
    "device": lambda path, _: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_no_block(writer: _core.Writer, exchange: SimulatedExchange, kind: str) -> None:
    """A link could lead a collector to a file elsewhere; opening a pipe or a device could block, or do things."""
    name = f"{writer.name}-{kind}"
    path = SHM / name
    NO_FILES[kind](path, SHM / writer.name)
    try:
        for use in (candleshm.attach, candleshm.unlink, block):
            with pytest.raises(candleshm.BlockCorrupt, match="not a regular file"):
                use(name)
        assert "not a regular file" in complaint(*serving(exchange, name))
        assert run("ls").returncode == 0
        assert os.path.lexists(path)
    finally:
        path.rmdir() if kind == "directory" else path.unlink()


def test_a_second_name_of_a_block_shares_its_owner(writer: _core.Writer) -> None:
    """A hard link is the same file: it can be read, and its lock keeps a second collector out."""
    other = f"{writer.name}-link"
    (SHM / other).hardlink_to(SHM / writer.name)

    assert candleshm.attach(other).symbols == ("BTCUSDT",)
    with pytest.raises(candleshm.BlockInUse):
        block(other)
    with pytest.raises(candleshm.BlockInUse):
        candleshm.unlink(other)


# Readers.


def bases(array: Any) -> list[Any]:
    """Return an array and what it is a view of, down to the owner of the memory."""
    found = [array]
    while getattr(found[-1], "base", None) is not None:
        found.append(found[-1].base)
    return found


def test_no_array_of_a_view_can_be_made_writable(writer: _core.Writer) -> None:
    feed = candleshm.attach(writer.name)
    view = feed["BTCUSDT"].view(4)
    for array in (view.array, view.close, view.array[1:, 2], view.array.T, view.array.reshape(-1), view.close[:]):
        if not np.shares_memory(array, view.array):
            continue  # a copy, which is the caller's own
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        for owner in bases(array):
            if isinstance(owner, np.ndarray):
                assert not owner.flags.writeable
                with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                    owner.setflags(write=True)
                with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                    owner.flags.writeable = True
        assert memoryview(array).readonly  # type: ignore[arg-type]
        assert array.__array_interface__["data"][1] is True
        with pytest.raises((BufferError, TypeError, ValueError)):
            ctypes.c_char.from_buffer(array)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="read-only"):
            np.copyto(array, 0)


def test_the_memory_of_a_reader_is_mapped_for_reading_only(writer: _core.Writer) -> None:
    maps = script(
        "import sys, candleshm; feed = candleshm.attach(sys.argv[1]); view = feed['BTCUSDT'].view(4)\n"
        "print(*(line.split()[1] for line in open('/proc/self/maps') if sys.argv[1] in line))",
        writer.name,
    )
    assert finished(maps).split() == ["r--s"]


def test_a_write_kills_the_reader_that_tries_and_nobody_else(writer: _core.Writer) -> None:
    feed = candleshm.attach(writer.name)
    before = feed["BTCUSDT"].candles()

    def scribble() -> None:
        faulthandler.disable()
        close = candleshm.attach(writer.name)["BTCUSDT"].view(4).close
        ctypes.c_double.from_address(close.ctypes.data).value = 1e9

    status = forked(scribble)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    np.testing.assert_array_equal(feed["BTCUSDT"].candles(), before)
    row = kline(START_MS + 5 * MINUTE_MS, 105)
    ingest(writer, "BTCUSDT", kline(START_MS + 4 * MINUTE_MS, 104), row, sent_ms=START_MS + 5 * MINUTE_MS + 5000)
    assert feed["BTCUSDT"].last_close == 105


# Names.

BLOCK_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    ".hidden",
    "a\0b",
    "a\nb",
    "a b",
    "ä",
    "x" * 201,
    "a%2fb",
    "~",
]


@pytest.mark.parametrize("name", BLOCK_NAMES, ids=ascii)
def test_what_cannot_name_a_block_is_refused_wherever_a_name_comes_in(name: str, tmp_path: Path) -> None:
    path = tmp_path / "feed.toml"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    path.write_text(f'market = "spot"\nname = "{escaped}"\n')
    for use in (
        candleshm.attach,
        candleshm.unlink,
        block,
        lambda name: CollectorConfig(market="SPOT", name=name),
        lambda name: CandleServer("SPOT", name=name),
        lambda _: collector_configs({}, path),
        lambda name: collector_configs({"market": "spot", "name": name}, None),
    ):
        with pytest.raises(ConfigError):
            use(name)


@pytest.mark.parametrize("name", ["../x", "a\n\x1b[2Jb"], ids=ascii)
def test_a_command_refuses_a_name_in_one_line(name: str) -> None:
    for arguments in (["read", name, "BTCUSDT"], ["rm", name]):
        assert "\x1b" not in complaint(*arguments)
    assert "\x1b" not in complaint("serve", "--market", "spot", "--name", name)


@pytest.mark.parametrize(
    "symbol", ["", "A\nB", "A\x1b[2JB", "A B", "A\0B", "\u202eB", "\ud800", "x" * 65, 7], ids=ascii
)
def test_what_cannot_be_a_symbol_is_refused_wherever_one_comes_in(
    exchange: SimulatedExchange, block_name: str, symbol: Any
) -> None:
    collector = Collector(config_of(exchange, block_name))
    for use in (
        lambda: CollectorConfig(market="SPOT", symbols=[symbol]),
        lambda: CollectorConfig(market="SPOT", symbols_filter=[symbol]),
        lambda: collector.add_symbols([symbol]),
        lambda: collector.remove_symbols([symbol]),
        lambda: CandleServer("SPOT", type("Rule", (CandleRule,), {"SYMBOLS": [symbol]})),
    ):
        with pytest.raises(ConfigError):
            use()


def test_a_response_cannot_forge_a_line_of_the_log(exchange: SimulatedExchange, block_name: str) -> None:
    forged = "2026-01-01 00:00:00,000 [ERROR] all is lost"
    exchange.faults.add(refused(400, -1100, f"bad\\n{forged}\\u001b[2J", path="/klines"))
    with started(*serving(exchange, block_name)) as process:
        first_lines(process, 1)
        logged = lines_until(process, "bad")
        process.terminate()
        logged += process.communicate(timeout=60)[1]
    assert "bad" in logged
    assert "\x1b" not in logged
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[", line) for line in logged.splitlines())
    assert not any(line.startswith("2026-01-01 00") for line in logged.splitlines())


def test_text_stays_on_its_line_and_addresses_lose_their_passwords() -> None:
    assert printable("a\r\n\x1b[2J\u2028\u202e\ud800 币") == r"a\r\n\x1b[2J\u2028\u202e\ud800 币"
    for address in ("//me:p@h", "//me:p@q@h", "//me:p/q@h", "//p@h"):
        assert without_credentials(f"cannot reach http:{address}:80/x, sorry") == "cannot reach http://h:80/x, sorry"
    assert without_credentials("http://h/x?a=1") == "http://h/x?a=1"


# TLS.


@contextmanager
def tls_server(
    context: ssl.SSLContext, reply: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
) -> Iterator[Any]:
    """Serve one answer over TLS to whoever trusts the certificate; give the port and the requests that came."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                    asked.append(secured.recv(65536))
                    secured.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


WEAKENING = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "PYTHONHTTPSVERIFY",
    "NODE_TLS_REJECT_UNAUTHORIZED",
)


@pytest.mark.parametrize("content", ["", "0", "false", "bundle"])
@pytest.mark.parametrize("trust_env", [False, True])
def test_no_setting_of_the_environment_turns_verification_off(
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    trust_env: bool,  # noqa: FBT001
) -> None:
    """Only a bundle of one's own, and only where the environment is to count, makes another authority trusted."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    for name in WEAKENING:
        monkeypatch.setenv(name, str(bundle) if content == "bundle" else content)
    transport = HttpTransport(SystemClock(), trust_env=trust_env)
    with tls_server(context_of(authority)) as (port, asked):
        if content == "bundle" and trust_env:
            assert transport.fetch(f"https://127.0.0.1:{port}/x").body == b"[]"
        else:
            with pytest.raises(ExchangeUnavailable, match=r"certificate verify failed|invalid path"):
                transport.fetch(f"https://127.0.0.1:{port}/x")
            assert asked == []


def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with tls_server(context_of(authority, "api.example.org")) as (port, asked):
        with pytest.raises(ExchangeUnavailable, match="certificate verify failed"):
            HttpTransport(SystemClock(), trust_env=True).fetch(f"https://127.0.0.1:{port}/")
        assert asked == []


def test_a_redirect_from_https_to_http_is_not_followed(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: SimulatedExchange
) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    asked_before = len(exchange.served())
    moved = f"HTTP/1.1 302 Found\r\nLocation: {exchange.base_url}/api/v3/time\r\nContent-Length: 0\r\n\r\n".encode()
    with tls_server(context_of(authority), moved) as (port, _):
        answer = HttpTransport(SystemClock(), trust_env=True).fetch(f"https://127.0.0.1:{port}/api/v3/time")
    assert answer.status == 302
    assert len(exchange.served()) == asked_before


def test_proxies_and_credentials_of_the_environment_count_only_where_that_is_said(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, netrc = tmp_path / "ca.pem", tmp_path / "netrc"
    authority.cert_pem.write_to_path(str(bundle))
    netrc.write_text("machine 127.0.0.1 login me password open-sesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    transport = HttpTransport(SystemClock(), trust_env=True)
    with tls_server(context_of(authority)) as (port, asked):
        transport.fetch(f"https://127.0.0.1:{port}/")
        assert b"Authorization: Basic" in asked[0]

    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

        thread = threading.Thread(target=answer)
        thread.start()
        assert HttpTransport(SystemClock()).fetch(f"http://127.0.0.1:{port}/").body == b"[]"
        thread.join()
    assert b"Authorization" not in received[0]


# Secrets.


def test_secrets_show_in_no_representation_and_no_complaint() -> None:
    address = f"http://me:{MARK}@127.0.0.1:1"
    config = CollectorConfig(market="SPOT", base_url=address, proxies={"https": address}, start_seconds=0.1)
    rule = type("Rule", (CandleRule,), {"SYMBOLS": ["BTCUSDT"], "KEY": MARK, "SECRET": MARK})
    server = CandleServer("SPOT", rule, base_url=address, proxies={"http": address})
    collector = Collector(config)
    said = [repr(config), str(config), repr(server), repr(server.rule), repr(collector), server.get_symbols_filtered()]
    for wrong in (
        lambda: CollectorConfig(market="SPOT", base_url=f"ftp://me:{MARK}@h"),
        lambda: CollectorConfig(market="SPOT", base_url=f"http://me:x/{MARK}@h"),
        lambda: CollectorConfig(market="SPOT", proxy_host=f"me:{MARK}@h"),
        lambda: CollectorConfig(market="SPOT", proxies=f"http://me:{MARK}@h"),  # type: ignore[arg-type]
        lambda: CollectorConfig(market="SPOT", base_url=address, proxy_host=address),
        lambda: CandleServer("SPOT", type("Rule", (CandleRule,), {"KEY": [MARK]})),
        lambda: CandleServer("SPOT", type("Rule", (CandleRule,), {"SECRETS": MARK})),
        lambda: CandleServer("SPOT", ws_url=f"http://me:{MARK}@h"),
        lambda: HttpTransport(SystemClock()).fetch(f"http://me:{MARK}@127.0.0.1:1/x?a={MARK}"),
        lambda: HttpTransport(SystemClock(), proxies={"http": address}).fetch("http://127.0.0.1:1/"),
        lambda: HttpTransport(SystemClock(), proxies={"http": f"bad://me:{MARK}@h"}).fetch("http://127.0.0.1:1/"),
        lambda: collector.run(),
    ):
        with pytest.raises(candleshm.CandleShmError) as caught:
            wrong()
        said.append(f"{caught.value!r} {caught.value} {caught.value.args} {caught.value.__cause__!r}")
    assert [text for text in said if MARK in str(text)] == []


BAD_USAGE: Sequence[Sequence[str]] = (
    ("--proxy", f"http://me:{MARK}@h:1"),
    ("--length", f"http://me:{MARK}@h:1"),
    ("--proxies", f"http://me:{MARK}@h:1"),
    ("--base-url", f"me:{MARK}@h:1"),
    ("--base-url", f"http://me:{MARK}@127.0.0.1:1", "--start-seconds", "0.1"),
    ("--proxies", f"http=http://me:{MARK}@127.0.0.1:1", "--start-seconds", "0.1"),
    ("--metrics", f"http://me:{MARK}@h"),
)


@pytest.mark.parametrize("more", BAD_USAGE, ids=lambda more: more[0])
def test_a_command_that_fails_shows_no_secret(
    exchange: SimulatedExchange, block_name: str, more: Sequence[str]
) -> None:
    done = run(*serving(exchange, block_name, *more))
    assert done.returncode in (1, 2, os.EX_CONFIG, os.EX_TEMPFAIL)
    assert done.stderr
    assert MARK not in done.stdout + done.stderr


@pytest.mark.parametrize("where", ["base_url", "proxies"])
def test_a_collector_full_of_secrets_shows_none_through_a_storm_of_failures(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, where: str
) -> None:
    """Whatever it prints, logs, answers and leaves in files; its command line is the user's own matter."""
    address = exchange.base_url.replace("http://", f"http://me:{MARK}@")
    path = tmp_path / "feed.toml"
    given = f'base_url = "{address}"' if where == "base_url" else f'base_url = "{exchange.base_url}"\n'
    proxies = f'\n[proxies]\nhttp = "{address}"' if where == "proxies" else ""
    path.write_text(
        f'market = "spot"\nsymbols = ["BTCUSDT", "ETHUSDT"]\ninterval = "1s"\nlength = 300\n{given}{proxies}\n'
    )
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "CANDLESHM_SECRET": MARK}
    exchange.faults.add(
        html(502, path="/klines", count=2),
        Fault(kind="reset", path="/klines", count=2),
        Fault(kind="truncate", path="/klines", count=2),
        refused(500, -1000, f"cannot reach {address}", path="/klines", count=1),
        rate_limited(1, path="/klines", count=1),
        html(302, path="/klines", count=1),
    )
    command = ("serve", "--config", str(path), "--name", block_name, "--metrics", "0")
    if where == "proxies":
        # The simulated exchange is no proxy, and says so.
        done = run(*command, "--start-seconds", "0.1", env=environment)
        assert done.returncode == os.EX_TEMPFAIL
        shown = done.stdout + done.stderr
    else:
        with started(*command, env=environment) as process:
            lines = first_lines(process, 2)
            feed = candleshm.attach(block_name)
            until(lambda: feed.health.ready and feed.health.missing == 0)
            shown = "".join(lines) + requests.get(lines[1].split()[1], timeout=10).text + repr(feed.health)
            shown += "".join(run(*words).stdout for words in (["ls"], ["ls", "--json"], ["top", block_name, "--once"]))
            held = (SHM / block_name).read_bytes()
            process.terminate()
            shown += "".join(process.communicate(timeout=60))
        assert MARK.encode() not in held
        assert "failure 1" in shown or "outage: requests for" in shown
    assert MARK not in shown
    left = [found for found in runtime.rglob("*") if found.is_file()]
    assert not [found for found in left if MARK.encode() in found.read_bytes() or MARK in found.name]


def test_status_holds_no_secret(exchange: SimulatedExchange, block_name: str) -> None:
    address = exchange.base_url.replace("http://", f"http://me:{MARK}@")
    exchange.faults.add(Fault(kind="status", status=500, path="/klines", count=3))
    with Collector(config_of(exchange, block_name, base_url=address)) as collector:
        assert collector.wait_loaded(60)
        assert MARK not in repr(status_of(collector))


def test_the_tests_that_the_page_names_exist() -> None:
    root = Path(__file__).parent.parent
    page = (root / "SECURITY.md").read_text()
    there = set(re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in root.glob("tests/*.py")), re.M))
    named = re.findall(r"`(test_\w+)(\.\.\.)?`", page)
    assert len(named) > 10
    for name, is_cut in named:
        assert name in there or (is_cut and any(test.startswith(name) for test in there)), name
    assert all((root / path).exists() for path in re.findall(r"`((?:tests|rust)/[\w/.]+)`", page))
