"""Commands whose stdout and stderr cannot write every character, are closed, or have lost their reader."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from candleshm._core import Writer
from candleshm.commands.settings import in_utf8
from candleshm.sim import SimulatedExchange
from tests.support.commanding import CLI, DEADLINE_SECONDS, started, until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

SYMBOL = "币安ÄUSDT"
ESCAPED = {"latin-1": r"\u5e01\u5b89ÄUSDT", "ascii": r"\u5e01\u5b89\xc4USDT"}
# Each with what it makes of the symbol. In the last one Python reads and writes ASCII, with arguments in UTF-8.
LOCALES = {
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, ESCAPED["latin-1"]),
    "ascii": ({"PYTHONIOENCODING": "ascii:strict"}, ESCAPED["ascii"]),
    "C": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, ESCAPED["ascii"]),
}

# As a command runs outside of containers: what it writes waits in a buffer, and fails when that is flushed.
BUFFERED = {name: text for name, text in os.environ.items() if name not in ("PYTHONUNBUFFERED", "PYTHONUTF8")}


@pytest.fixture
def block(block_name: str) -> Iterator[str]:
    """A block with a symbol that is not ASCII, served by this process."""
    writer = Writer.open(block_name, market="UM", interval="1m", length=10, symbols=[SYMBOL])
    rows = [kline(START_MS + bar * MINUTE_MS, 100 + bar) for bar in range(6)]
    ingest(writer, SYMBOL, *rows, sent_ms=START_MS + 5 * MINUTE_MS + 10_000)
    yield block_name
    writer.close()


def ran(locale: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [text.encode() for text in (*CLI, *arguments)]
    done = subprocess.run(
        command, capture_output=True, env=BUFFERED | LOCALES[locale][0], timeout=DEADLINE_SECONDS, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("locale", LOCALES)
def test_a_symbol_that_stdout_cannot_write_is_escaped(block: str, locale: str) -> None:
    table = ran(locale, "read", block, SYMBOL)
    assert (table.returncode, table.stderr) == (0, b"")
    assert table.stdout.decode("latin-1").startswith(f"{LOCALES[locale][1]}  UM 1m  {block}")
    rows = ran(locale, "read", block, SYMBOL, "--json")
    assert [row["open"] for row in json.loads(rows.stdout)] == [100 + bar for bar in range(6)]
    assert ran(locale, "read", block, SYMBOL, "--csv").stdout.count(b"\n") == 7
    top = ran(locale, "top", block, "--once")
    assert top.returncode == 0
    assert b"USDT" in top.stdout
    assert ran(locale, "ls").returncode == ran(locale, "ls", "--json").returncode == 0


@pytest.mark.parametrize("locale", LOCALES)
def test_what_was_wrong_is_said_in_every_locale(block: str, locale: str) -> None:
    unknown = ran(locale, "read", block, "币DOGE")
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    assert rb"unknown symbol in" in unknown.stderr
    assert rb"`\u5e01DOGE`" in unknown.stderr
    assert unknown.stderr.count(b"\n") == 1
    for command in ("read", "top", "rm"):
        refused = ran(locale, command, "é币", *([SYMBOL] if command == "read" else []))
        assert refused.returncode == os.EX_CONFIG
        assert refused.stderr.startswith(b"candleshm: ")
        assert refused.stderr.count(b"\n") == 1
    served = ran(locale, "serve", "--market", "um", "--symbols", "A B", "--name", "é币")
    assert served.returncode == os.EX_CONFIG
    assert served.stderr.count(b"\n") == 1
    usage = ran(locale, "币")
    assert usage.returncode == 2
    assert b"usage: candleshm" in usage.stderr


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("command", ["", "demo", "serve", "sim", "ls", "read", "top", "rm", "download", "import-csv"])
def test_help_is_shown_in_every_locale(locale: str, command: str) -> None:
    shown = ran(locale, *command.split(), "--help")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert re.search(rb"(example: |  )candleshm ", shown.stdout)


def test_bytes_that_are_no_text_name_no_symbol(block: str) -> None:
    done = subprocess.run(
        [*CLI, "read", block, b"\xff\xfeUSDT"], capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 1
    assert rb"unknown symbol" in done.stderr
    assert b"Traceback" not in done.stderr


def test_arguments_are_utf8_whatever_the_locale_reads() -> None:
    as_ascii = SYMBOL.encode().decode("ascii", "surrogateescape")
    assert in_utf8(as_ascii) == SYMBOL
    assert in_utf8(SYMBOL) == SYMBOL
    assert in_utf8("BTC\udcff") == r"BTC\xff"


@pytest.mark.parametrize("locale", LOCALES)
def test_a_collector_serves_a_symbol_that_its_log_cannot_write(block_name: str, locale: str) -> None:
    with SimulatedExchange(symbols=4) as exchange:
        symbol = next(one.symbol for one in exchange.truth.instruments("UM") if not one.symbol.isascii())
        words = (
            f"serve --market um --length 20 --live rest --name {block_name} --base-url {exchange.base_url} --symbols"
        )
        environment = BUFFERED | LOCALES[locale][0]
        # A symbol that is not there is logged and left out.
        command = [text.encode() for text in (*CLI, *words.split(), f"{symbol},币NOSUCH")]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"serving ")
            shown = ran(locale, "read", block_name, symbol)
            assert shown.returncode == 0
        finally:
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert rb"\u5e01NOSUCH" in logged
    assert b"Traceback" not in logged


def test_the_strategy_of_the_demo_shows_what_ascii_can(block: str) -> None:
    command = [sys.executable, "-m", "candleshm.commands.strategy", block]
    environment = BUFFERED | {"PYTHONIOENCODING": "ascii:strict"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"SYMBOL")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, said) == (0, b"")


# Nobody who reads.


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("serve", "--help"), 0),
        (("--version",), 0),
        (("nonsense",), 2),
        (("ls",), 0),
        (("ls", "--json"), 0),
        (("read", "NAME", SYMBOL), 0),
        (("read", "NAME", "DOGEUSDT"), 1),
        (("top", "NAME", "--once"), 0),
        (("rm", "NAME"), os.EX_TEMPFAIL),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("streams", ["<&- >&-", "2>&-", "<&- >&- 2>&-", "broken"])
def test_streams_that_are_closed_or_broken_change_no_exit_code(
    block: str, arguments: tuple[str, ...], code: int, streams: str
) -> None:
    command = [*CLI, *(block if text == "NAME" else text for text in arguments)]
    if streams == "broken":
        # Both lead into a pipe whose reader has left.
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = subprocess.Popen(command, stdout=write_end, stderr=write_end, env=BUFFERED)
        os.close(write_end)
        assert process.wait(DEADLINE_SECONDS) == code
        return
    shell = f'exec "$@" {streams}'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command], capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_sim_serves_on_without_anybody_on_stdout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    read_end, write_end = os.pipe()
    os.close(read_end)
    with started("sim", "--symbols", "1", "--port", str(port), stdout=write_end) as process:
        os.close(write_end)

        def answers() -> bool:
            with suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{port}/api/v3/time", timeout=10).ok
            return False

        until(answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
