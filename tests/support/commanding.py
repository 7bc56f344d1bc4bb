"""Commands as processes, and what is asked of them: the words that several test files share."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from candleshm.sim import SimulatedExchange

CLI = (sys.executable, "-m", "candleshm")
DEADLINE_SECONDS = 120.0


def run(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False, **keywords
    )


def complaint(*arguments: str, **keywords: Any) -> str:
    """Run what has to fail; return its one line."""
    result = run(*arguments, **keywords)
    assert result.returncode in {1, os.EX_CONFIG, os.EX_TEMPFAIL}
    assert result.stdout == ""
    assert result.stderr.startswith("candleshm: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@contextmanager
def started(*arguments: str, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test, killed at the end if need be."""
    process = subprocess.Popen(
        [*CLI, *arguments], **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keywords}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    """Wait for a line on stdout and return it."""
    return first_lines(process, 1)[0]


def first_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """Wait for so many lines on stdout and return them; what came together with the last one is dropped."""
    assert process.stdout is not None
    shown = b""
    # Not `readline`: its buffer may hold lines that `select` then waits for.
    while shown.count(b"\n") < count:
        assert select.select([process.stdout], [], [], DEADLINE_SECONDS)[0], shown
        more = os.read(process.stdout.fileno(), 65536)
        assert more, f"ended after {shown!r}"
        shown += more
    return shown.decode().splitlines(keepends=True)[:count]


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """Wait until `word` was written to stderr; return what was."""
    assert process.stderr is not None
    shown = b""
    while word.encode() not in shown:
        assert select.select([process.stderr], [], [], DEADLINE_SECONDS)[0], shown
        more = os.read(process.stderr.fileno(), 65536)
        assert more, f"ended after {shown!r}"
        shown += more
    return shown.decode()


def until(question: Callable[[], Any]) -> None:
    """Ask until the answer is true; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not question():
        assert time.monotonic() < deadline_seconds, "did not come true"
        time.sleep(0.02)


def serving(exchange: SimulatedExchange, name: str, *more: str) -> list[str]:
    """Return the words that serve two symbols of the simulated exchange."""
    words = f"serve --market spot --symbols BTCUSDT,ETHUSDT --length 300 --name {name} --base-url {exchange.base_url}"
    return [*words.split(), *more]
