"""The keys that are pressed on a terminal, each at once; and the wait that they, or a request to stop, end."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from candleshm.commands.signals import on_stop_signal

__all__ = ["Keys"]


class Keys:
    """Waits for keys and stop signals; a context manager that gives the terminal back as it was.

    Where stdin is no terminal, or that of another job, no key ever comes. Only the main thread may make one.
    """

    def __init__(self) -> None:
        self.has_stopped = False
        """Whether a stop signal came."""
        self._wake_read, self._wake_write = os.pipe()
        self._before: list[Any] | None = None
        on_stop_signal(self._stop)

    def wait(self, seconds: float) -> str:
        """Return what was typed within `seconds`; an empty text when nothing was, and at once after a stop signal."""
        deadline_seconds = time.monotonic() + seconds
        while not self.has_stopped:
            left_seconds = max(0.0, deadline_seconds - time.monotonic())
            sources = [self._wake_read] if self._before is None else [self._wake_read, sys.stdin.fileno()]
            ready = select.select(sources, [], [], left_seconds)[0]
            if self._wake_read in ready or not ready:
                break
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed:
                self._give_back()  # The terminal is gone.
            elif text := typed.decode(errors="ignore"):
                return text
        return ""

    def __enter__(self) -> Self:
        # In the background the kernel would stop a process that touches the terminal.
        with suppress(OSError, ValueError, AttributeError, termios.error):
            if sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
                self._before = termios.tcgetattr(sys.stdin)
                tty.setcbreak(sys.stdin, termios.TCSANOW)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _stop(self) -> None:
        self.has_stopped = True
        os.write(self._wake_write, b"\0")

    def _give_back(self) -> None:
        if self._before is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None
