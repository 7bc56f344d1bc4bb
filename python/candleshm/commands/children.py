"""Processes that belong to this one: started together, watched together, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from candleshm.commands.signals import UNTIL_STDIN_CLOSES
from candleshm.errors import CandleShmError

__all__ = ["Children"]

WATCH_SECONDS = 0.05
# Ctrl-C reaches every process of a terminal; this process may receive it so long after a child.
GRACE_SECONDS = 0.5
END_SECONDS = 5.0


@dataclass(frozen=True)
class _Child:
    label: str
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]

    def last_words(self) -> str:
        """Return how the process ended; the last line on its stderr is the reason."""
        code = self.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}: {lines[-1].removeprefix('candleshm: ')}" if lines else f"exit code {code}"


class Children:
    """Python processes whose early end is an error; a context manager that leaves none of them behind.

    Each gets a pipe as stdin, and `--until-stdin-closes` as its last argument: the pipe ends with this process, also
    when that is killed.
    """

    def __init__(self, stop: threading.Event, environment: Mapping[str, str]) -> None:
        """`stop` says that this process is to end, and its children with it; they get `environment` as well."""
        self._stop = stop
        self._environment = {**os.environ, **environment}
        self._children: list[_Child] = []

    def start(self, label: str, *arguments: str, shows: bool = False) -> None:
        """Start `python ARGUMENTS --until-stdin-closes`; what it prints is dropped unless it `shows`."""
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the child has ended
        process = subprocess.Popen(
            [sys.executable, *arguments, UNTIL_STDIN_CLOSES],
            stdin=subprocess.PIPE,
            stdout=None if shows else subprocess.DEVNULL,
            stderr=stderr,
            env=self._environment,
        )
        self._children.append(_Child(label, process, stderr))

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `until()` is true, `seconds` have passed or `stop` is set; return whether `until()` was true.

        Raises CandleShmError when a child ends meanwhile.
        """
        deadline_seconds = time.monotonic() + seconds
        while not self._stop.wait(WATCH_SECONDS) and time.monotonic() < deadline_seconds:
            ended = next((child for child in self._children if child.process.poll() is not None), None)
            if ended is not None:
                if self._stop.wait(GRACE_SECONDS):
                    break
                raise CandleShmError(f"{ended.label} ended early, {ended.last_words()}")
            if until():
                return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.process.terminate()
        deadline_seconds = time.monotonic() + END_SECONDS
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline_seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.stderr.close()
            if child.process.stdin is not None:
                child.process.stdin.close()
